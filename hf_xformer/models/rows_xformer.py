# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The rows of a batch, padded or packed: their positions, and which of them attend to which.

Shapes: B batch, T tokens of a row, S keys, D d_model.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from transformers.cache_utils import Cache
from transformers.utils import is_tracing

from .masks_xformer import AttentionMask
from .packing_xformer import (
    PackedMask,
    Segments,
    check_pairs,
    concatenate_segments,
    group_segments,
    same_segment,
)
from .positions_xformer import TokenPositions, count_positions


# Makes the mask of padded rows of queries and of keys, for layers of the pattern that is named.
MakeMask = Callable[["PaddedRows", "PaddedRows", str], AttentionMask]


class Rows(Protocol):
    """The rows of a batch as a stack sees them."""

    def longest(self) -> int | None:
        """Number of tokens of the longest text, cached ones included; None where only the device knows."""

    def positions(self) -> TokenPositions: ...

    def masks(self, make: MakeMask, keys, patterns: Iterable[str]) -> dict[str, AttentionMask]:
        """
        The masks of layers of each pattern.

        Args:
            keys: The rows that are attended to, of the same kind: these or those of the encoder.
        """


class PaddedRows:
    """
    Rows of one text each, with padding on either side.

    Args:
        x: Features of their tokens, (B, T, D).
        attention_mask: 1 for the tokens to attend to, those in the cache included, (B, past + T); or a mask as the
            backend takes it; or one for each pattern.
        position_ids: (B or 1, T); counted from the mask when None.
        cache: Keys and values of tokens before these.
    """

    def __init__(
        self,
        x: torch.Tensor,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
    ):
        # Without features: masks are made by the shape, the type and the device of the tokens.
        self.tokens = x.new_empty(*x.shape[:2], 0)
        self.attention_mask, self.position_ids, self.cache = attention_mask, position_ids, cache

    def longest(self) -> int | None:
        past = 0 if self.cache is None else self.cache.get_seq_length()
        # A static cache counts in a tensor, which is not worth a wait for the device.
        return past + self.tokens.shape[1] if isinstance(past, int) else None

    def positions(self) -> TokenPositions:
        """Positions count the attended tokens, so that padding shifts none; those in the cache came before."""
        length, mask, ids = self.tokens.shape[1], self.attention_mask, self.position_ids
        past, keys = 0, length
        if self.cache is not None:
            past, keys = self.cache.get_seq_length(), self.cache.get_mask_sizes(length, 0)[0]
        if ids is None and isinstance(mask, torch.Tensor) and mask.ndim == 2:
            ids = count_positions(mask)[:, -length:]
        elif ids is None:
            ids = torch.arange(length, device=self.tokens.device)[None] + past
        return TokenPositions(ids, past, length, keys)

    def masks(self, make: MakeMask, keys: "PaddedRows", patterns: Iterable[str]) -> dict[str, AttentionMask]:
        return {pattern: make(self, keys, pattern) for pattern in patterns}

    def condition(self, keys: "PaddedRows") -> Callable | None:
        """Condition under which a token attends to one of `keys`, besides that of the mask."""
        return None

    def hold_no_others(self, layer: int) -> bool:
        """Returns True if each token may attend to all keys of a layer, but for those of tokens behind it."""
        if self.cache is None:
            return True
        queries = self.tokens.shape[1]
        keys = self.cache.get_mask_sizes(queries, layer)[0]
        return keys == queries or (queries == 1 and not self.cache.is_compileable)

    def hold_all_keys(self) -> bool:
        """Returns True if the rows can be cut into blocks: no keys are in a cache, and the mask is one of tokens."""
        # A mask of more dimensions says itself what attends to what.
        mask, cache = self.attention_mask, self.cache
        can_be_cut = mask is None or isinstance(mask, torch.Tensor) and mask.ndim == 2
        return can_be_cut and (cache is None or not (cache.is_compileable or cache.get_seq_length()))


class PackedRows(PaddedRows):
    """Rows of several texts that attend as they are, under a mask that keeps the texts apart."""

    def __init__(self, x: torch.Tensor, segments: Segments):
        super().__init__(x)
        self.segments = segments

    def longest(self) -> int | None:
        return None if is_tracing(self.tokens) else self.segments.longest()

    def positions(self) -> TokenPositions:
        length = self.tokens.shape[1]
        return TokenPositions(self.segments.position_ids(), 0, length, length)

    def condition(self, keys: "PackedRows") -> Callable:  # type: ignore[override]
        if not is_tracing(self.tokens):
            check_pairs(self.segments, keys.segments)
        return same_segment(self.segments, keys.segments)


class UnpackedRows:
    """
    Rows of several texts, of which each gets a row of its own while it attends.

    Args:
        x: Features of the tokens, (B, T, D).
        concatenated: Patterns whose layers take all texts at once, as kernels for variable lengths do, each with the
            size and the shift of its blocks.
    """

    def __init__(self, x: torch.Tensor, segments: Segments, concatenated: dict[str, dict[str, int]]):
        self.tokens, self.segments, self.concatenated = x.new_empty(0), segments, concatenated

    def longest(self) -> int:
        return self.segments.longest()

    def positions(self) -> TokenPositions:
        longest = self.longest()
        return TokenPositions(self.segments.position_ids(), 0, longest, longest)

    def masks(self, make: MakeMask, keys: "UnpackedRows", patterns: Iterable[str]) -> dict[str, AttentionMask]:
        check_pairs(self.segments, keys.segments)
        masks: dict[str, AttentionMask] = {}
        grouped = []
        for pattern in patterns:
            if pattern in self.concatenated:
                masks[pattern] = concatenate_segments(self.segments, keys.segments, **self.concatenated[pattern])
            else:
                grouped.append(pattern)
        if grouped:
            groups, inverse = group_segments(self.segments, keys.segments)
            rows = [
                (
                    PaddedRows(self.tokens.new_empty(*group.queries.shape, 0)),
                    PaddedRows(keys.tokens.new_empty(*group.keys.shape, 0), group.attended),
                )
                for group in groups
            ]
            masks |= {
                pattern: PackedMask(groups, inverse, tuple(make(*pair, pattern) for pair in rows))
                for pattern in grouped
            }
        return masks
