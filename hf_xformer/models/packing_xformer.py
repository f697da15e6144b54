# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Packed rows: several texts one after another in a row, none of which attends to another.

For attention each text, a segment of its row, gets a row of its own, (B, T, ...) -> (N, L, ...), in which all backends
and all patterns of blocks attend as in a padded row. The rest of a layer works on packed rows, which have hardly any
padding.

Shapes: B packed rows of T tokens, S of the source; N segments of like length, the longest of L tokens as queries and M
as keys; H query heads, G key and value heads, K head width.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

import torch

from .masks_xformer import AttentionMask, Part, Result


# Segments of up to so many tokens share a group; longer ones share theirs with those of up to twice their length, so
# that at most half of a group is padding.
SHORT_SEGMENT = 32


class Spans(NamedTuple):
    """Places of segments in the order of the rows, on the CPU."""

    rows: torch.Tensor  # (N,)
    ids: torch.Tensor  # (N,)
    starts: torch.Tensor  # (N,), counted through all rows
    lengths: torch.Tensor  # (N,), tokens


class Segments:
    """
    The segments of packed rows, on the CPU.

    Args:
        ids: (B, T), from 1 on, the same for all tokens of a segment, which stand together; 0 for padding.
        name: Name of the user's argument.
    """

    def __init__(self, ids: torch.Tensor, name: str):
        self.ids, self.name = ids, name

    @cached_property
    def spans(self) -> Spans:
        """
        Start, length, row and id of every segment.

        Raises:
            ValueError: An id below 0, or one that stands in two places of a row.
        """
        ids = self.ids
        starts = first_of_segments(ids).flatten().nonzero().squeeze(1)
        lengths = torch.diff(starts, append=torch.tensor([ids.numel()]))
        is_text = ids.flatten()[starts] != 0
        starts, lengths = starts[is_text], lengths[is_text]
        rows, ids = starts // ids.shape[1], ids.flatten()[starts]
        if len(ids) and ids.min() < 0:
            raise ValueError(f"`{self.name}` are numbers from 1 on, 0 for padding, got {ids.min()}")
        pairs, counts = torch.stack((rows, ids)).unique(dim=1, return_counts=True)
        if len(ids) and counts.max() > 1:
            row, number = pairs[:, counts.argmax()].tolist()
            raise ValueError(f"`{self.name}` has {number} in two places of row {row}: a segment stands in one piece")
        return Spans(rows, ids, starts, lengths)

    def longest(self) -> int:
        """Number of tokens of the longest segment."""
        return int(self.spans.lengths.max())


def positions_in_segments(ids: torch.Tensor) -> torch.Tensor:
    """Position of each token in its segment, (B, T), counted from the segments' numbers (B, T)."""
    places = torch.arange(ids.shape[1], device=ids.device)
    return places - (first_of_segments(ids) * places).cummax(dim=1).values


def first_of_segments(ids: torch.Tensor) -> torch.Tensor:
    """True for each token (B, T) that is the first of its segment."""
    return torch.cat((torch.ones_like(ids[:, :1], dtype=torch.bool), ids[:, 1:] != ids[:, :-1]), dim=1)


class SegmentGroup(NamedTuple):
    """Segments that attend in one call, a row each: the indices of their tokens, counted through all packed rows."""

    queries: torch.Tensor  # (N, L); behind a segment's end any token
    keys: torch.Tensor  # (N, M)
    attended: torch.Tensor | None = None  # the keys that are of the segment, (N, M); None if all are


class PackedMask(NamedTuple):
    """
    Attention within the segments of packed rows, those of a group under a mask of its own.

    There are no weights: they would be of the segments' rows and not of these.
    """

    groups: tuple[SegmentGroup, ...]
    inverse: torch.Tensor  # index of each query token in the results of all groups, (B, T)
    masks: tuple[AttentionMask, ...]  # of each group

    def split(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, position_bias: torch.Tensor | None = None
    ) -> Iterable[Part]:
        """As every mask does; `position_bias` is that of the longest segments, (1, H, L, M)."""
        q, k, v = (y.transpose(1, 2).flatten(0, 1) for y in (q, k, v))  # (B * T, H, K), (B * S, G, K) twice
        for group, mask in zip(self.groups, self.masks, strict=True):
            bias = position_bias
            if bias is not None:
                bias = bias[..., : group.queries.shape[1], : group.keys.shape[1]]
            sides = ((q, group.queries), (k, group.keys), (v, group.keys))
            q_rows, k_rows, v_rows = (take(y, index).transpose(1, 2) for y, index in sides)
            yield from mask.split(q_rows, k_rows, v_rows, bias)

    def join(self, results: Iterator[Result]) -> Result:
        x = torch.cat([mask.join(results)[0].flatten(0, 1) for mask in self.masks])  # (tokens of all groups, H * K)
        return take(x, self.inverse), None


def take(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The tokens (B * T, ...) of some indices, (N, L) -> (N, L, ...)."""
    return x.index_select(0, index.flatten()).unflatten(0, index.shape)


def group_segments(queries: Segments, keys: Segments) -> tuple[tuple[SegmentGroup, ...], torch.Tensor]:
    """Groups segments of similar length: the `groups` and `inverse` of a [`PackedMask`], on the CPU."""
    of_queries, of_keys = queries.spans, keys.spans
    # Both lengths, up to the next power of two, as one number.
    query_size, key_size = (of.lengths.clamp(min=SHORT_SEGMENT).log2().ceil() for of in (of_queries, of_keys))
    sizes = 64 * query_size + key_size
    inverse, groups, done = torch.zeros(queries.ids.numel(), dtype=torch.long), [], 0
    for size in sizes.unique():
        group = sizes == size
        index, is_query = table(of_queries, group)
        inverse[index[is_query]] = done + is_query.flatten().nonzero().squeeze(1)
        done += index.numel()
        key_index, attended = table(of_keys, group)
        groups.append(SegmentGroup(index, key_index, None if attended.all() else attended))
    return tuple(groups), inverse.view_as(queries.ids)


def table(spans: Spans, group: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the tokens of some segments, a row each, and which places are the segment's: (N, L) twice."""
    starts, lengths = spans.starts[group, None], spans.lengths[group, None]
    places = torch.arange(int(lengths.max()))
    is_inside = places < lengths
    return torch.where(is_inside, starts + places, starts), is_inside


def borders_of(segments: Segments) -> torch.Tensor:
    """
    Returns the borders of all segments and of the padding before, between and behind them, (2N + 2,).

    They are counted through all rows. Sides with the same segments have as many: their pieces are pairs.
    """
    starts, lengths = segments.spans.starts, segments.spans.lengths
    ends = torch.tensor([0, segments.ids.numel()])
    return torch.cat((starts, starts + lengths, ends)).sort().values


def check_pairs(queries: Segments, keys: Segments) -> None:
    """
    Checks that source and target rows hold the same segments in the same order.

    Raises:
        ValueError: A row has other segments in the source than in the target, or there are none at all.
    """
    of_keys, of_queries = keys.spans, queries.spans
    if not (torch.equal(of_queries.rows, of_keys.rows) and torch.equal(of_queries.ids, of_keys.ids)):
        raise ValueError(
            "packed rows need the same segments in the same order on both sides, each in one piece: `segment_ids` has "
            f"{first_ids(of_keys)} in its first row, `decoder_segment_ids` {first_ids(of_queries)}"
        )
    if not len(of_queries.ids):
        raise ValueError("`segment_ids` and `decoder_segment_ids` hold nothing but padding")


def first_ids(spans: Spans) -> list[int]:
    return spans.ids[spans.rows == 0].tolist()


def same_segment(
    queries: torch.Tensor, keys: torch.Tensor, sees: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
) -> Callable:
    """
    Returns the condition of a mask over whole packed rows: a token attends within its segment.

    Padding attends to everything: attending to nothing would give NaN.

    Args:
        queries, keys: Numbers of the segments, (B, T) and (B, S).
        sees: Further condition, on the positions of a query and a key in their segment.
    """
    positions = None if sees is None else (positions_in_segments(queries), positions_in_segments(keys))

    def condition(row, head, query, key):
        own = queries[row, query]
        attended = own == keys[row, key]
        if sees is not None and positions is not None:
            attended = attended & sees(positions[0][row, query], positions[1][row, key])
        return attended | (own == 0)

    return condition


def shift_right(labels: torch.Tensor, segment_ids: torch.Tensor | None, start: int) -> torch.Tensor:
    """Shifts labels (B, T) right behind the start token of their row or, in a packed row, of their segment."""
    shifted = torch.cat((labels.new_full((labels.shape[0], 1), start), labels[:, :-1]), dim=-1)
    if segment_ids is None:
        return shifted
    return torch.where(first_of_segments(segment_ids), start, shifted)


def check_ids(name: str, ids: torch.Tensor | None, *tokens: torch.Tensor | None) -> None:
    """
    Checks that there is one segment id for each token.

    Args:
        name: Name of the user's argument. ids: (B, T). tokens: Their ids, (B, T), or features, (B, T, D).

    Raises:
        ValueError: The shapes differ.
    """
    for each in tokens:
        if ids is not None and each is not None and ids.shape != each.shape[:2]:
            raise ValueError(f"`{name}` must be {tuple(each.shape[:2])}, one number a token, got {tuple(ids.shape)}")


def check_both_sides(segment_ids: torch.Tensor | None, decoder_segment_ids: torch.Tensor | None) -> None:
    """
    Checks that both sides have segments or neither.

    Raises:
        ValueError: Only one side has segments.
    """
    sides = {"segment_ids": segment_ids, "decoder_segment_ids": decoder_segment_ids}
    missing = [name for name, ids in sides.items() if ids is None]
    if len(missing) == 1:
        raise ValueError(f"packed rows need both `segment_ids` and `decoder_segment_ids`: `{missing[0]}` is missing")


def refuse_beside_segments(**arguments) -> None:
    """
    Checks that no argument is given that packed rows cannot have.

    Raises:
        ValueError: An argument is given that packed rows cannot have.
    """
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise ValueError(
                f"`{name}` does not go with `segment_ids`, which say themselves where texts and padding are"
            )
