# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The layout of packed rows: where their segments stand, and which of them attend in one call.

It is made on the CPU, at best by the collator in a worker of the data loader. It travels as one tensor, of which
attention takes views, so that a training step never waits for the device to learn a number.

Shapes as in `packing_xformer.py`.
"""

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn
from transformers.utils import is_tracing

from .output_xformer import labelled_positions
from .packing_xformer import (
    SegmentGroup,
    Segments,
    check_pairs,
    concatenate_segments,
    group_segments,
    positions_in_segments,
)


# A dictionary of plain things around one tensor: data loaders pin it, and the Trainer and Accelerate move it to a
# device, without knowing what it is.
Packing = dict[str, Any]
# Version of the fields. The code that travelled with a checkpoint may be older than the collator.
FORMAT = 1
BOOLS = 4  # in one integer of 32 bits
# The attention of a stack to its own rows, by the argument with its segments' numbers, and of target to source.
SOURCE, TARGET, ACROSS = "segment_ids", "decoder_segment_ids", "across"
LABELS = "labels"


def make_packing(
    segment_ids: torch.Tensor, decoder_segment_ids: torch.Tensor | None = None, labels: torch.Tensor | None = None
) -> Packing:
    """
    Returns the layout of packed rows, which the models take as `packing`.

    A model that is given none makes its own in every forward. On a GPU it waits there for all that was started before.

    Args:
        segment_ids, decoder_segment_ids: Numbers of the segments, (B, S) and (B, T); an encoder's has no target.
        labels: (B, T). With them the loss need not ask the device which positions have a label.

    Returns:
        `index`, a tensor of integers, (n,), and `sizes`, by which it is cut.

    Raises:
        ValueError: The numbers are not those of segments, or not the same on both sides.
    """
    given = {SOURCE: segment_ids, TARGET: decoder_segment_ids, LABELS: labels}
    on_cpu = to_cpu({name: each for name, each in given.items() if each is not None})
    segments = {name: Segments(ids, name) for name, ids in on_cpu.items() if name != LABELS}
    pairs = {name: (each, each) for name, each in segments.items()}
    if TARGET in segments:
        pairs[ACROSS] = (segments[TARGET], segments[SOURCE])
    check_pairs(*pairs.get(ACROSS, pairs[SOURCE]))
    parts: dict[str, list] = {
        name: [each.longest(), positions_in_segments(each.ids)] for name, each in segments.items()
    }
    for name, (queries, keys) in pairs.items():
        groups, inverse = group_segments(queries, keys)
        parts[f"{name}, grouped"] = [inverse, *chain(*(fields_of(group, queries is keys) for group in groups))]
        row, inverse, lengths = concatenate_segments(queries, keys)
        parts[f"{name}, in a row"] = [inverse, *fields_of(row, queries is keys), *chain(*lengths.items())]
    if labels is not None:
        parts[LABELS] = [labelled_positions(on_cpu[LABELS].flatten())]
    return join(parts)


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


def join(parts: dict[str, list]) -> Packing:
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

    def side(self, name: str) -> tuple[int, torch.Tensor]:
        """Number of tokens of the longest segment, and the position of each token in its segment, (B, T)."""
        longest, positions = self.fields(name)
        return longest, positions

    def groups(self, name: str) -> tuple[tuple[SegmentGroup, ...], torch.Tensor]:
        """The `groups` and `inverse` of a [`PackedMask`]."""
        inverse, *fields = self.fields(f"{name}, grouped")
        groups = zip(fields[::3], fields[1::3], fields[2::3], strict=True)
        return tuple(group_of(*each) for each in groups), inverse

    def row(self, name: str) -> tuple[SegmentGroup, torch.Tensor, dict[str, torch.Tensor | int]]:
        """All segments in one row: what `concatenate_segments` returns."""
        inverse, queries, keys, attended, *fields = self.fields(f"{name}, in a row")
        return group_of(queries, keys, attended), inverse, dict(zip(fields[::2], fields[1::2], strict=True))

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
    Returns the layout of a batch, made here if it was given none; None for padded rows, and in a graph.

    A graph serves all rows of one shape, whatever their segments are.

    Raises:
        ValueError: The layout that was given is not one of these rows, as far as is known without a wait.
    """
    if segment_ids is None:
        if packing is not None:
            raise ValueError("`packing` is the layout of packed rows: give it with `segment_ids`")
        return None
    if is_tracing(segment_ids):
        return None
    if packing is None:
        packing = make_packing(segment_ids, decoder_segment_ids)
    check_packing(packing, {SOURCE: segment_ids, TARGET: decoder_segment_ids})
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
    if sizes.get("format") != FORMAT or sizes["total"] != index.numel():
        raise ValueError(
            f"`packing` has format {sizes.get('format')} and {index.numel()} numbers, this version of the code reads "
            f"format {FORMAT} with {sizes.get('total')} numbers: {advice}"
        )
    for name, ids in sides.items():
        shape = tuple(sizes[name][2]) if name in sizes else None
        if ids is not None and tuple(ids.shape) != shape:
            raise ValueError(f"`packing` is of another batch: `{name}` is {tuple(ids.shape)}, in it {shape}: {advice}")
