# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Packed rows: several texts behind one another in a row, none of which attends to another.

For the time of an attention every text, a segment of its row, gets a row of its own, (B, T, ...) -> (N, L, ...), so
that every backend and every pattern of blocks attends within it as within a padded row. All else in a layer works on
tokens and meets hardly any padding.

Shapes: B packed rows of T tokens, S of the source; N segments of like length, the longest of L tokens as queries and M
as keys; H query heads, G key and value heads, K head width.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import nn


# Segments of up to so many tokens share a group; longer ones are with those of up to twice their length, so that at
# most half of a group is padding.
SHORT_SEGMENT = 32


class Spans(NamedTuple):
    """Segments in the order of the rows, on the CPU."""

    rows: torch.Tensor  # (N,)
    ids: torch.Tensor  # (N,)
    starts: torch.Tensor  # (N,), counted through all rows
    lengths: torch.Tensor  # (N,), tokens


class Segments:
    """
    Where the segments of packed rows (B, T) lie.

    Args:
        ids: (B, T), from 1 on, the same for all tokens of a segment, which stand together; 0 for padding.
        name: What the user calls them. x: The tokens, (B, T, D).

    Raises:
        ValueError: There are none, or not one a token.
    """

    def __init__(self, ids: torch.Tensor | None, name: str, x: torch.Tensor):
        if ids is None:
            raise ValueError(f"packed rows need both `segment_ids` and `decoder_segment_ids`: `{name}` is missing")
        if ids.shape != x.shape[:2]:
            raise ValueError(f"`{name}` must be {tuple(x.shape[:2])}, one number a token, got {tuple(ids.shape)}")
        self.ids, self.name = ids, name

    def position_ids(self) -> torch.Tensor:
        """Position of every token in its segment, (B, T)."""
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        return places - (first_of_segments(self.ids) * places).cummax(dim=1).values

    @cached_property
    def spans(self) -> Spans:
        """
        Raises:
            ValueError: An id below 0, or one that stands in two places of a row.
        """
        ids = self.ids.cpu()  # a wait for the device, one a stack and side
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
        """Tokens of the longest segment."""
        return int(self.spans.lengths.max())


def first_of_segments(ids: torch.Tensor) -> torch.Tensor:
    """Whether a token (B, T) is the first of its segment."""
    return torch.cat((torch.ones_like(ids[:, :1], dtype=torch.bool), ids[:, 1:] != ids[:, :-1]), dim=1)


class Fold(NamedTuple):
    """Segments that attend together: which tokens, counted through all rows, are the queries and keys of its rows."""

    queries: torch.Tensor  # (N, L); behind a segment's end any token
    keys: torch.Tensor  # (N, M)
    attended: torch.Tensor | None = None  # the keys that are of the segment, (N, M); None if all are
    kernel_lengths: dict[str, torch.Tensor | int] = {}  # for kernels of variable lengths: segments that share a row

    def like(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Its queries and keys without features, (N, L, 0) and (N, M, 0), for those who make masks."""
        return x.new_empty(*self.queries.shape, 0), x.new_empty(*self.keys.shape, 0)


class PackedMasks(NamedTuple):
    """What the layers of one pattern need to know of packed rows; the masks are as the backend has them."""

    folds: tuple[Fold, ...]
    inverse: torch.Tensor  # where a token's result is in the results of all groups, (B * T,)
    masks: tuple[Any, ...]  # of each group

    def attend(
        self,
        attend_rows: Callable,
        attention: nn.Module,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        position_bias: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, None]:
        """
        Args:
            attend_rows: Attention of rows that are not packed, with the arguments and results of this one.
            q: (B, H, T, K). k, v: (B, G, S, K). position_bias: Of the longest segments, (1, H, L, L).

        Returns:
            The mixed values, (B, T, H * K), and no weights: they are of the segments' rows and not of these.
        """
        rows = q.shape[0]
        q, k, v = (y.transpose(1, 2).flatten(0, 1) for y in (q, k, v))  # (B * T, H, K), (B * S, G, K) twice
        mixed = []
        for group, mask in zip(self.folds, self.masks, strict=True):
            indices = (group.queries, group.keys, group.keys)
            folded = (take(y, index).transpose(1, 2) for y, index in zip((q, k, v), indices, strict=True))
            if position_bias is not None:
                kwargs["position_bias"] = position_bias[..., : group.queries.shape[1], : group.keys.shape[1]]
            x, _ = attend_rows(attention, *folded, mask, **kwargs, **group.kernel_lengths)
            mixed.append(x.flatten(0, 1))
        x = torch.cat(mixed).index_select(0, self.inverse)
        return x.unflatten(0, (rows, -1)), None


def take(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Tokens (B * T, ...) -> (N, L, ...)."""
    return x.index_select(0, index.flatten()).unflatten(0, index.shape)


def fold(queries: Segments, keys: Segments) -> tuple[tuple[Fold, ...], torch.Tensor]:
    """
    Groups of segments of like length, and where each query token is in them: the `folds` and `inverse` of
    [`PackedMasks`].
    """
    of_queries, of_keys = queries.spans, keys.spans
    check_pairs(of_queries, of_keys)
    device = queries.ids.device
    # Both lengths, up to the next power of two, as one number.
    query_size, key_size = (of.lengths.clamp(min=SHORT_SEGMENT).log2().ceil() for of in (of_queries, of_keys))
    sizes = 64 * query_size + key_size
    inverse, folds, done = torch.zeros(queries.ids.numel(), dtype=torch.long), [], 0
    attended: torch.Tensor | None
    for size in sizes.unique():
        group = sizes == size
        index, is_query = table(of_queries, group)
        inverse[index[is_query]] = done + is_query.flatten().nonzero().squeeze(1)
        done += index.numel()
        key_index, attended = table(of_keys, group)
        attended = None if attended.all() else attended.to(device)
        folds.append(Fold(index.to(device), key_index.to(device), attended))
    return tuple(folds), inverse.to(device)


def table(spans: Spans, group: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of some segments, a row each, and which of its places are the segment's: (N, L) twice."""
    starts, lengths = spans.starts[group, None], spans.lengths[group, None]
    places = torch.arange(int(lengths.max()))
    is_inside = places < lengths
    return torch.where(is_inside, starts + places, starts), is_inside


def join(queries: Segments, keys: Segments) -> tuple[tuple[Fold, ...], torch.Tensor]:
    """
    All segments in one row without padding, as kernels of variable lengths take them: the `folds` and `inverse` of
    [`PackedMasks`].
    """
    of_queries, of_keys, device = queries.spans, keys.spans, queries.ids.device
    check_pairs(of_queries, of_keys)
    tokens, key_tokens = (each.ids.flatten().nonzero().squeeze(1) for each in (queries, keys))
    inverse = torch.zeros(queries.ids.numel(), dtype=torch.long, device=device)
    inverse[tokens] = torch.arange(len(tokens), device=device)
    lengths: dict[str, torch.Tensor | int] = {}
    for side, spans in (("q", of_queries), ("k", of_keys)):
        borders = nn.functional.pad(spans.lengths.cumsum(0), (1, 0))
        lengths |= {
            f"cu_seq_lens_{side}": borders.to(device, torch.int32),
            f"max_length_{side}": int(spans.lengths.max()),
        }
    return (Fold(tokens[None], key_tokens[None], kernel_lengths=lengths),), inverse


def check_pairs(of_queries: Spans, of_keys: Spans) -> None:
    """
    Raises:
        ValueError: A row has other segments in the source than in the target.
    """
    if not (torch.equal(of_queries.rows, of_keys.rows) and torch.equal(of_queries.ids, of_keys.ids)):
        raise ValueError(
            "packed rows need the same segments in the same order on both sides, each in one piece: `segment_ids` has "
            f"{first_ids(of_keys)} in its first row, `decoder_segment_ids` {first_ids(of_queries)}"
        )
    if not len(of_queries.ids):
        raise ValueError("`segment_ids` and `decoder_segment_ids` hold nothing but padding")


def first_ids(spans: Spans) -> list[int]:
    return spans.ids[spans.rows == 0].tolist()


def same_segment(queries: Segments, keys: Segments) -> Callable:
    """The same as a condition for a mask over whole rows. Padding attends to all: to nothing would be no number."""

    def condition(row, head, query, key):
        own = queries.ids[row, query]
        return (own == keys.ids[row, key]) | (own == 0)

    return condition


def shift_right(labels: torch.Tensor, segment_ids: torch.Tensor | None, start: int) -> torch.Tensor:
    """The labels (B, T) one place later, behind the start token of their row or, in a packed row, of their segment."""
    shifted = torch.cat((labels.new_full((labels.shape[0], 1), start), labels[:, :-1]), dim=-1)
    if segment_ids is None:
        return shifted
    return torch.where(first_of_segments(segment_ids), start, shifted)


def refuse_beside_segments(**arguments) -> None:
    """
    Raises:
        ValueError: Something was given that packed rows do not go with.
    """
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise ValueError(
                f"`{name}` does not go with `segment_ids`, which say themselves where texts and padding are"
            )
