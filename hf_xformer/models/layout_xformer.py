# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The layout of packed rows: where their segments stand, and which of them attend in one call.

It is made on the CPU, at best by the collator in a worker of the data loader. It travels as one tensor, of which
attention takes views, so that a training step never waits for the device to learn a number.

Shapes as in `packing_xformer.py`.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.utils import is_tracing

from .output_xformer import check_labels, labelled_positions
from .packing_xformer import (
    SegmentGroup,
    Segments,
    borders_of,
    check_pairs,
    group_segments,
    positions_in_segments,
)
from .varlen_xformer import VariableLengthMask, cut_segments


# A dictionary of plain things around one tensor: data loaders pin it, and the Trainer and Accelerate move it to a
# device, without knowing what it is.
Packing = dict[str, Any]
# Version of the fields. The code that travelled with a checkpoint may be older than the collator.
FORMAT = 1
# Borders of rows of a fixed size are filled up to a multiple of so many: a few graphs serve all batches.
FIXED_BORDERS = 64
BOOLS = 4  # in one integer of 32 bits
# The attention of a stack to its own rows, by the argument with its segments' numbers, and of target to source.
SOURCE, TARGET, ACROSS = "segment_ids", "decoder_segment_ids", "across"
LABELS = "labels"


def make_packing(
    segment_ids: torch.Tensor,
    decoder_segment_ids: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    fixed: bool = False,
) -> Packing:
    """
    Returns the layout of packed rows, which the models take as `packing`.

    A model that is given none makes its own in every forward. On a GPU it waits there for all that was started before.

    Args:
        segment_ids, decoder_segment_ids: Numbers of the segments, (B, S) and (B, T); an encoder's has no target.
        labels: (B, T). With them the loss need not ask the device which positions have a label.
        fixed: Make a layout for a graph, with the same sizes for nearly all batches of rows of one shape. It holds the
            borders of segments alone, for kernels for variable lengths. Outside a graph nothing reads it.

    Returns:
        `index`, a tensor of integers, (n,), and `sizes`, by which it is cut.

    Raises:
        ValueError: The numbers are not those of segments, or not the same on both sides; or a label is neither a
            token nor -100.
    """
    given = {SOURCE: segment_ids, TARGET: decoder_segment_ids, LABELS: labels}
    on_cpu = to_cpu({name: each for name, each in given.items() if each is not None})
    segments = {name: Segments(ids, name) for name, ids in on_cpu.items() if name != LABELS}
    pairs = {name: (each, each) for name, each in segments.items()}
    if TARGET in segments:
        pairs[ACROSS] = (segments[TARGET], segments[SOURCE])
    check_pairs(*pairs.get(ACROSS, pairs[SOURCE]))
    parts: dict[str, Iterable] = {name: side_of(each, fixed) for name, each in segments.items()}
    if fixed:
        return join(parts)
    for name, (queries, keys) in pairs.items():
        groups, inverse = group_segments(queries, keys)
        parts[f"{name}, grouped"] = [inverse, *chain(*(fields_of(group, queries is keys) for group in groups))]
    if labels is not None:
        check_labels(on_cpu[LABELS])
        parts[LABELS] = [labelled_positions(on_cpu[LABELS].flatten())]
    return join(parts)


class Side(NamedTuple):
    """The segments of the rows of one side."""

    longest: int | None  # tokens of the longest segment; None in a layout for a graph
    positions: torch.Tensor  # of each token in its segment, (B, T)
    room: int  # no segment, and no padding before, between or behind them, has more tokens
    borders: torch.Tensor  # of segments and padding, from 0 to B * T, (2N + 2,); in a layout for a graph some more


def side_of(segments: Segments, fixed: bool) -> Side:
    """Describes the segments of one side, on the CPU."""
    positions, borders = positions_in_segments(segments.ids), borders_of(segments)
    room = int(borders.diff().max())
    if fixed:
        # A kernel looks at as many places for each segment as the longest has, and for the empty ones at the end too.
        room = 2 ** (room - 1).bit_length()
        borders = nn.functional.pad(borders, (0, -len(borders) % FIXED_BORDERS), value=segments.ids.numel())
    return Side(None if fixed else segments.longest(), positions, room, borders)


def to_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies tensors of integers at once: a device is waited for once."""
    flat = torch.cat([each.flatten() for each in tensors.values()]).cpu()
    parts = flat.split([each.numel() for each in tensors.values()])
    return {name: part.view_as(each) for (name, each), part in zip(tensors.items(), parts, strict=True)}


def fields_of(group: SegmentGroup, is_own: bool) -> tuple[torch.Tensor | None, ...]:
    """The tensors of a group; None for keys that are the queries themselves, and for a mask of nothing."""
    attended = group.attended
    if attended is not None:
        flat = attended.flatten()
        attended = nn.functional.pad(flat, (0, -len(flat) % BOOLS)).view(torch.int32)
    return group.queries, None if is_own else group.keys, attended


def join(parts: dict[str, Iterable]) -> Packing:
    """Writes all tensors into one, and their shapes and everything else into `sizes`."""
    tensors: list[torch.Tensor] = []
    sizes: dict[str, Any] = {}
    done = 0
    for name, fields in parts.items():
        described: list = [done]
        for field in fields:
            if isinstance(field, torch.Tensor):
                tensors.append(field.flatten().to(torch.int32))
                done += field.numel()
                field = tuple(field.shape)
            described.append(field)
        sizes[name] = tuple(described)
    return {"index": torch.cat(tensors), "sizes": {"format": FORMAT, "total": done, **sizes}}


class Layout:
    """
    Reads the layout of packed rows.

    Args:
        packing: From [`make_packing`].
    """

    def __init__(self, packing: Packing):
        self.index, self.sizes = packing["index"], packing["sizes"]

    def fields(self, part: str) -> Iterator[Any]:
        """Yields the fields of a part in the order in which they were written; tensors are views."""
        first, *fields = self.sizes[part]
        for field in fields:
            if not isinstance(field, (tuple, list)):  # a list after a data loader has pinned it
                yield field
                continue
            count = math.prod(field)
            yield self.index.narrow(0, first, count).view(field)
            first += count

    def is_whole(self) -> bool:
        """Returns False for a layout that is for a graph alone."""
        return f"{SOURCE}, grouped" in self.sizes

    def side(self, name: str) -> Side:
        """The segments of the rows of one side, by the argument with their numbers."""
        return Side(*self.fields(name))

    def borders(self, queries: str, keys: str, size: int = 0, shift: int = 0) -> VariableLengthMask:
        """
        Returns the mask of all segments at once, as kernels for variable lengths take it.

        A segment attends to its like on the other side, and so does the padding before, between and behind segments.

        Args:
            queries, keys: The sides. size: Blocks of so many tokens from a segment's first one on; 0 for none, as
                where the sides differ. shift: Tokens of the first block, if not so many.
        """
        sides = [self.side(name) for name in (queries, keys)]
        borders, room = [side.borders for side in sides], [side.room for side in sides]
        if size:
            borders = [cut_segments(side.borders, side.positions, size, shift) for side in sides]
            room = [min(size, each) for each in room]
        return VariableLengthMask(sides[0].positions.shape[0], *borders, *room)  # type: ignore[arg-type]

    def groups(self, name: str) -> tuple[tuple[SegmentGroup, ...], torch.Tensor]:
        """The `groups` and `inverse` of a [`PackedMask`]."""
        if f"{name}, grouped" not in self.sizes:
            raise ValueError(
                "a graph of packed rows has no blocks with global tokens under kernels for variable lengths: use "
                'attn_implementation="sdpa"'
            )
        inverse, *fields = self.fields(f"{name}, grouped")
        groups = zip(fields[::3], fields[1::3], fields[2::3], strict=True)
        return tuple(group_of(*each) for each in groups), inverse

    def labelled(self, labels: torch.Tensor) -> torch.Tensor | None:
        """Returns what [`labelled_positions`] does; the device is waited for only if the layout knows no labels."""
        if LABELS not in self.sizes:
            return labelled_positions(labels)
        (index,) = self.fields(LABELS)
        return index


def group_of(queries: torch.Tensor, keys: torch.Tensor | None, attended: torch.Tensor | None) -> SegmentGroup:
    keys = queries if keys is None else keys
    if attended is not None:
        attended = attended.view(torch.bool)[: keys.numel()].view_as(keys)
    return SegmentGroup(queries, keys, attended)


def packing_of(
    packing: Packing | None, segment_ids: torch.Tensor | None, decoder_segment_ids: torch.Tensor | None = None
) -> Packing | None:
    """
    Returns the layout of a batch, made here if it was given none; None for padded rows.

    A graph makes none: it serves all rows of one shape, whatever their segments are.

    Raises:
        ValueError: The layout that was given is not one of these rows, as far as is known without a wait.
    """
    if segment_ids is None:
        if packing is not None:
            raise ValueError("`packing` is the layout of packed rows: give it with `segment_ids`")
        return None
    if is_tracing(segment_ids):
        return packing
    if packing is not None:
        check_packing(packing, {SOURCE: segment_ids, TARGET: decoder_segment_ids})
    if packing is None or not Layout(packing).is_whole():
        packing = make_packing(segment_ids, decoder_segment_ids)
    if packing["index"].device == segment_ids.device:
        return packing
    return {**packing, "index": packing["index"].to(segment_ids.device, non_blocking=True)}


def check_packing(packing: Packing, sides: dict[str, torch.Tensor | None]) -> None:
    """
    Checks that a layout is one of these rows, as far as is known without a wait for the device.

    Raises:
        ValueError: It has another format, lacks a part, or is of rows of other shapes.
    """
    advice = "make it with `make_packing`, or leave it out"
    if not isinstance(packing, dict) or set(packing) != {"index", "sizes"}:
        raise ValueError(f"`packing` must be a dictionary of `index` and `sizes`: {advice}")
    index, sizes = packing["index"], packing["sizes"]
    if sizes.get("format") != FORMAT:
        raise ValueError(
            f"`packing` has format {sizes.get('format')}, this version of the code reads format {FORMAT}: {advice}"
        )
    if sizes["total"] != index.numel():
        raise ValueError(
            f"`packing` has {index.numel()} of its {sizes['total']} numbers: {advice}. If nn.DataParallel has cut it, "
            "start a process for each GPU"
        )
    for name, ids in sides.items():
        shape = tuple(sizes[name][2]) if name in sizes else None
        if ids is not None and tuple(ids.shape) != shape:
            raise ValueError(f"`packing` is of another batch: `{name}` is {tuple(ids.shape)}, in it {shape}: {advice}")
