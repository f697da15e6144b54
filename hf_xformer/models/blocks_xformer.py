# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Self-attention within blocks or windows, at a cost that grows with the length and not with its square.

Sequences are folded into the batch, (B, S, ...) -> (B * n, w, ...), so that every backend attends within blocks as it
attends within rows, and no tensor of S x S elements exists.

Shapes: B batch, S length, n blocks of w tokens, c keys that a block attends to, g global tokens among them, H query
heads, G key and value heads, K head width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask
from transformers.cache_utils import DynamicSlidingWindowLayer, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.utils import is_tracing
from transformers.utils.generic import is_flash_attention_requested

from .configuration_xformer import XformerConfig


Mask = torch.Tensor | BlockMask | None  # as the backend has it


class BlockMasks(NamedTuple):
    """What the layers of one pattern need to know of a batch; the masks are as the backend has them."""

    pattern: "BlockPattern"
    local: Mask  # of the c keys of each block, for B * n rows
    everywhere: Mask = None  # of all keys, for the g global queries of B rows
    order: torch.Tensor | None = None  # puts the attended tokens of a row first, (B, S); None where they are
    inverse: torch.Tensor | None = None


class BlockPattern:
    """
    Blocks of w tokens that attend to themselves and to the g leading tokens of the row, which attend to all of it.

    Blocks are counted from a row's first attended token, so that padding on either side shifts nobody. With a `shift`
    the first has so many tokens: alternated, information crosses the borders (Liu et al. 2021, section 3.2).
    """

    def __init__(self, size: int, shift: int = 0, global_tokens: int = 0):
        self.size, self.shift, self.global_tokens = size, shift, global_tokens

    def masks(self, config: XformerConfig, x: torch.Tensor, attention_mask: torch.Tensor | None) -> BlockMasks | Mask:
        """
        Args:
            x: Any features of the tokens, (B, S, ...). attention_mask: 1 for those to attend to, (B, S), or None.
        """
        rows, length = x.shape[:2]
        attended = order = inverse = everywhere = None
        if attention_mask is not None:
            attended = attention_mask.to(x.device, torch.bool)
            # A graph that is being made cannot look whether it must.
            if is_tracing(attended) or (attended[:, 1:] > attended[:, :-1]).any():
                order = attended.byte().argsort(dim=1, descending=True, stable=True)
                inverse, attended = order.argsort(dim=1), attended.gather(1, order)
        if self.global_tokens:
            queries = min(self.global_tokens, length)
            everywhere = bidirectional_mask(config, x, rows, length, attended, queries)
        return BlockMasks(self, self.local_mask(config, x, attended), everywhere, order, inverse)

    def local_mask(self, config: XformerConfig, x: torch.Tensor, attended: torch.Tensor | None) -> Mask:
        keys = self.key_mask(x, attended)
        # All queries of a block see alike: FlexAttention has to be told of each, the others broadcast one.
        queries = self.size if config._attn_implementation == "flex_attention" else 1
        is_whole = attended is None and keys.numel() == x.shape[:2].numel()
        return bidirectional_mask(config, x, keys.shape[0], keys.shape[1], None if is_whole else keys, queries)

    def key_mask(self, x: torch.Tensor, attended: torch.Tensor | None) -> torch.Tensor:
        """Which of their c keys blocks have, (B * n, c): neither padding nor a leading token a second time."""
        attended = x.new_ones(x.shape[:2], dtype=torch.bool) if attended is None else attended
        is_leading = torch.arange(x.shape[1], device=x.device) < self.global_tokens
        return self.keys(attended & ~is_leading, attended)

    def cuts(self, length: int) -> bool:
        """Whether rows of so many tokens are more than one block: shorter ones need not be filled up to it."""
        return length > (self.shift or self.size)

    def padding(self, length: int) -> tuple[int, int]:
        """Empty places before and after a row that make whole blocks of it."""
        before = -self.shift % self.size
        return before, -(before + length) % self.size

    def fold(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, ...) -> (B, n, w, ...)"""
        padding = self.padding(x.shape[1])
        if any(padding):
            x = nn.functional.pad(x, (0, 0) * (x.ndim - 2) + padding)
        return x.unflatten(1, (-1, self.size))

    def unfold(self, x: torch.Tensor, length: int) -> torch.Tensor:
        """(B * n, w, ...) -> (B, S, ...)"""
        before, after = self.padding(length)
        x = x.unflatten(0, (-1, (before + length + after) // self.size)).flatten(1, 2)
        return x[:, before : before + length]

    def keys(self, x: torch.Tensor, leading: torch.Tensor) -> torch.Tensor:
        """The keys, or values, of every block: (B, S, ...) and the row's first, (B, >= g, ...), -> (B * n, c, ...)"""
        blocks = self.neighbourhoods(self.fold(x))  # (B, n, c - g, ...)
        if self.global_tokens:
            leading = leading[:, None, : self.global_tokens].expand(-1, blocks.shape[1], *[-1] * (x.ndim - 1))
            blocks = torch.cat((leading, blocks), dim=2)
        return blocks.flatten(0, 1)

    def neighbourhoods(self, blocks: torch.Tensor) -> torch.Tensor:
        """What each block has around it, itself included: (B, n, w, ...) -> (B, n, c - g, ...)"""
        return blocks

    def attend(
        self,
        attend: Callable,
        attention: nn.Module,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        masks: BlockMasks,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            attend: Full attention of some rows, with the arguments and results of this one.
            q: (B, H, S, K). k, v: (B, G, S, K).

        Returns:
            The mixed values, (B, S, H * K), and the weights within blocks, (B, n, H, w, c), if the backend has them.
            Those of global queries, which attend to more than their block, are 0 there. Blocks hold the attended
            tokens of a row first, and its padding after them.
        """
        rows, _, length, _ = q.shape
        q, k, v = (reorder(y.transpose(1, 2), masks.order) for y in (q, k, v))  # (B, S, H, K), (B, S, G, K) twice
        folded = self.fold(q).flatten(0, 1), self.keys(k, k), self.keys(v, v)
        x, weights = attend(attention, *(y.transpose(1, 2) for y in folded), masks.local, **kwargs)
        x = self.unfold(x, length)
        if self.global_tokens:
            leading = q[:, : self.global_tokens], k, v
            leading, _ = attend(attention, *(y.transpose(1, 2) for y in leading), masks.everywhere, **kwargs)
            x = torch.cat((leading, x[:, self.global_tokens :]), dim=1)
        if weights is not None:
            weights = weights.unflatten(0, (rows, -1)) * self.is_local_query(weights, length)
        # Under tensor parallelism a projection takes no slices.
        return reorder(x, masks.inverse).contiguous(), weights

    def is_local_query(self, weights: torch.Tensor, length: int) -> torch.Tensor:
        is_local = torch.arange(length, device=weights.device) >= self.global_tokens
        return self.fold(is_local[None])[:, :, None, :, None]  # (1, n, 1, w, 1)


class CausalBlockPattern(BlockPattern):
    """The same for a decoder: within its block, a token attends to itself and to those before it."""

    def local_mask(self, config: XformerConfig, x: torch.Tensor, attended: torch.Tensor | None) -> Mask:
        # Padding stands behind every attended token, where none looks.
        blocks = self.fold(x[..., :0])
        return create_causal_mask(config, blocks.flatten(0, 1), None, None)


class WindowPattern(BlockPattern):
    """
    Every token attends to those at a distance, `key - query`, from `first` to `last`, neither more than w, and to the
    row's leading tokens (Beltagy et al. 2020). A block's keys are its own and its neighbours', with a band mask.
    """

    def __init__(self, size: int, first: int, last: int, global_tokens: int = 0):
        super().__init__(size, global_tokens=global_tokens)
        self.first, self.last = first, last
        self.behind, self.ahead = int(first < 0), int(last > 0)

    def masks(self, config: XformerConfig, x: torch.Tensor, attention_mask: torch.Tensor | None) -> BlockMasks | Mask:
        if is_flash_attention_requested(config):
            # Its kernels have windows themselves, and would drop the band.
            return create_bidirectional_mask(config, x, attention_mask)
        return super().masks(config, x, attention_mask)

    def cuts(self, length: int) -> bool:
        return length - 1 > max(-self.first, self.last)

    def local_mask(self, config: XformerConfig, x: torch.Tensor, attended: torch.Tensor | None) -> Mask:
        keys = self.key_mask(x, attended)
        leading = min(self.global_tokens, x.shape[1])

        def is_in_band(row, head, query, key):
            distance = key - leading - self.behind * self.size - query
            return (key < leading) | (distance >= self.first) & (distance <= self.last)

        return bidirectional_mask(config, x, keys.shape[0], keys.shape[1], keys, self.size, is_in_band)

    def neighbourhoods(self, blocks: torch.Tensor) -> torch.Tensor:
        count = blocks.shape[1]
        blocks = nn.functional.pad(blocks, (0, 0) * (blocks.ndim - 2) + (self.behind, self.ahead))
        return torch.cat([blocks[:, i : i + count] for i in range(self.behind + 1 + self.ahead)], dim=2)


def bidirectional_mask(
    config: XformerConfig,
    x: torch.Tensor,
    rows: int,
    keys: int,
    attended: torch.Tensor | None,
    queries: int,
    condition: Callable | None = None,
) -> Mask:
    """The backend's mask of so many rows of so many keys, of which those to attend to are 1 in (rows, keys)."""
    q, k = x.new_empty(rows, queries, 0), x.new_empty(rows, keys, 0)
    return create_bidirectional_mask(config, q, attended, encoder_hidden_states=k, and_mask_function=condition)


def reorder(x: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
    """The tokens (B, S, ...) in another order, (B, S)."""
    if order is None:
        return x
    return x.gather(1, order.view(*order.shape, *[1] * (x.ndim - 2)).expand_as(x))


def block_patterns(config: XformerConfig, stack: str) -> tuple[list[str], dict[str, BlockPattern]]:
    """
    The name of every layer's pattern, which is the layer's type but for shifted blocks, and all patterns that are not
    full attention.
    """
    size, leading = config.block_size, config.num_global_tokens
    if stack == "decoder":
        patterns = {
            "chunked_attention": CausalBlockPattern(size),
            "sliding_attention": WindowPattern(size, 1 - size, 0),
        }
        return config.layer_types_of("decoder"), patterns
    patterns = {
        "chunked_attention": BlockPattern(size, 0, leading),
        "shifted_chunked_attention": BlockPattern(size, size // 2, leading),
        "sliding_attention": WindowPattern(size, -size, size, leading),
    }
    names = config.layer_types_of("encoder")
    blocks = [i for i, name in enumerate(names) if name == "chunked_attention"]
    for i in blocks[1::2] if config.block_shift else ():
        names[i] = "shifted_chunked_attention"
    return names, patterns


def refuse_forgetful_caches(cache: EncoderDecoderCache | None) -> None:
    """
    Raises:
        ValueError: A cache that does not hold what the decoder attends to, which the library would not notice.
    """
    if cache is None:
        return
    if any(cache.cross_attention_cache.is_sliding):
        raise ValueError(
            "the cross-attention cache has the decoder's windows and would forget the source: make it without a "
            "config, `DynamicCache()`, or with one of full attention"
        )
    layers = cache.self_attention_cache.layers
    if any(isinstance(layer, DynamicSlidingWindowLayer) and layer.sliding_window == 1 for layer in layers):
        raise ValueError(
            "transformers' dynamic cache cannot hold a window of `block_size=1`: decode with `use_cache=False` or a "
            "static cache"
        )
