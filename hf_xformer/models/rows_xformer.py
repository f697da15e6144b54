# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The rows of a batch, padded or packed: their positions, and which of them attend to which.

Shapes: B batch, T tokens of a row, S keys, D d_model.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from transformers.cache_utils import Cache

from .blocks_xformer import BlockPattern
from .cache_xformer import fold
from .layout_xformer import ACROSS, Layout
from .masks_xformer import AttentionMask
from .packing_xformer import PackedMask, positions_in_segments, same_segment
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
        is_padded_behind: The mask is known to have padding, all of it behind a row's tokens. Otherwise its values are
            looked at where that may save work, which is a wait for a device.
    """

    def __init__(
        self,
        x: torch.Tensor,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        is_padded_behind: bool = False,
    ):
        # Without features: masks are made by the shape, the type and the device of the tokens.
        self.tokens = x.new_empty(*x.shape[:2], 0)
        # Backends get a mask of four dimensions as it is, and would add its ones to the scores.
        if (
            isinstance(attention_mask, torch.Tensor)
            and attention_mask.ndim == 4
            and not attention_mask.is_floating_point()
        ):
            attention_mask = attention_mask.bool()
        self.attention_mask, self.position_ids, self.cache = attention_mask, position_ids, cache
        # Any other mask says itself which tokens attend to which, and not where a row's text is.
        is_of_tokens = isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2
        self.token_mask: torch.Tensor | None = attention_mask if is_of_tokens else None  # type: ignore[assignment]
        self.knows_text = attention_mask is None or is_of_tokens
        self.may_look = not is_padded_behind

    def longest(self) -> int | None:
        past = 0 if self.cache is None else self.cache.get_seq_length()
        # A static cache counts in a tensor, which is not worth a wait for the device.
        return past + self.tokens.shape[1] if isinstance(past, int) else None

    def positions(self) -> TokenPositions:
        """Positions count the attended tokens, so that padding shifts none; those in the cache came before."""
        length, mask, ids = self.tokens.shape[1], self.token_mask, self.position_ids
        past, keys = 0, length
        if self.cache is not None:
            past, keys = self.cache.get_seq_length(), self.cache.get_mask_sizes(length, 0)[0]
        if mask is not None and isinstance(past, int) and mask.shape[1] < past + length:
            raise ValueError(
                f"a mask of {mask.shape[1]} tokens beside {past} in the cache and {length} more: it covers the cached "
                "ones too, a prefix of PEFT's included"
            )
        knows_text = self.knows_text or ids is not None
        if ids is None and mask is not None:
            ids = count_positions(mask)[:, -length:]
        elif ids is None:
            ids = torch.arange(length, device=self.tokens.device)[None] + past
        return TokenPositions(ids, past, length, keys, False if knows_text else None)

    def masks(self, make: MakeMask, keys: "PaddedRows", patterns: Iterable[str]) -> dict[str, AttentionMask]:
        return {pattern: make(self, keys, pattern) for pattern in patterns}

    def folded(self, keys: "PaddedRows") -> "PaddedRows":
        """Returns these rows as queries of cross-attention: those that share a row of `keys` in one."""
        sources = keys.tokens.shape[0]
        return self if self.tokens.shape[0] == sources else PaddedRows(fold(self.tokens, sources))

    def condition(self, keys: "PaddedRows", blocks: BlockPattern | None = None) -> Callable | None:
        """
        Condition under which a token attends to one of `keys`, besides that of the mask.

        Args:
            blocks: The layer's blocks, for rows that are not cut into them.
        """
        return None

    def hold_no_others(self, layer: int) -> bool:
        """Returns True if each token may attend to all keys of a layer, but for those of tokens behind it."""
        if self.cache is None:
            return True
        queries = self.tokens.shape[1]
        keys = self.cache.get_mask_sizes(queries, layer)[0]
        return keys == queries or (queries == 1 and not self.cache.is_compileable)

    def are_last(self) -> bool:
        """Returns True if a row is one token behind all of its cache, so that full attention needs no mask."""
        return self.tokens.shape[1] == 1 and self.cache is not None and not self.cache.is_compileable

    def hold_all_keys(self) -> bool:
        """Returns True if the rows can be cut into blocks: no keys are in a cache, and the mask is one of tokens."""
        cache = self.cache
        return self.knows_text and (cache is None or not (cache.is_compileable or cache.get_seq_length()))


class PackedRows(PaddedRows):
    """
    Rows of several texts that attend as they are, under a mask that keeps the texts apart.

    Args:
        x: Features of the tokens, (B, T, D). segment_ids: Numbers of their texts, (B, T).
        longest: Number of tokens of the longest text; None in a graph, which knows no numbers.
    """

    def __init__(self, x: torch.Tensor, segment_ids: torch.Tensor, longest: int | None = None):
        super().__init__(x)
        self.segment_ids, self.longest_text = segment_ids, longest

    def longest(self) -> int | None:
        return self.longest_text

    def positions(self) -> TokenPositions:
        length = self.tokens.shape[1]
        return TokenPositions(positions_in_segments(self.segment_ids), 0, length, length, segments=True)

    def condition(self, keys: "PackedRows", blocks: BlockPattern | None = None) -> Callable:  # type: ignore[override]
        return same_segment(self.segment_ids, keys.segment_ids, None if blocks is None else blocks.sees)

    def hold_all_keys(self) -> bool:
        # Their blocks begin at the first token of each text, wherever that stands.
        return False


class UnpackedRows:
    """
    Rows of several texts, of which each gets a row of its own while it attends.

    Args:
        x: Features of the tokens, (B, T, D).
        layout: Where the texts stand. side: The argument with their numbers.
        cuts: Patterns whose layers take all texts at once, as kernels for variable lengths do, each with the size and
            the shift of its blocks.
    """

    def __init__(self, x: torch.Tensor, layout: Layout, side: str, cuts: dict[str, dict[str, int]]):
        self.tokens, self.layout, self.side, self.cuts = x.new_empty(0), layout, side, cuts

    def longest(self) -> int | None:
        return self.layout.side(self.side).longest

    def positions(self) -> TokenPositions:
        side = self.layout.side(self.side)
        longest = side.longest or side.positions.shape[1]
        return TokenPositions(side.positions, 0, longest, longest, segments=True)

    def masks(self, make: MakeMask, keys: "UnpackedRows", patterns: Iterable[str]) -> dict[str, AttentionMask]:
        masks: dict[str, AttentionMask] = {}
        grouped = []
        for pattern in patterns:
            if pattern in self.cuts:
                masks[pattern] = self.layout.borders(self.side, keys.side, **self.cuts[pattern])
            else:
                grouped.append(pattern)
        if grouped:
            groups, inverse = self.layout.groups(self.side if keys is self else ACROSS)
            rows = [
                (
                    PaddedRows(self.tokens.new_empty(*group.queries.shape, 0)),
                    PaddedRows(keys.tokens.new_empty(*group.keys.shape, 0), group.attended, is_padded_behind=True),
                )
                for group in groups
            ]
            masks |= {
                pattern: PackedMask(groups, inverse, tuple(make(*pair, pattern) for pair in rows))
                for pattern in grouped
            }
        return masks
