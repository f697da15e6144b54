# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Self-attention within blocks or windows, whose cost grows with the length and not with its square.

For the backend every block is a row, (B, S, ...) -> (B * n, w, ...): so all backends attend within blocks, and no
tensor of S x S elements exists.

Shapes: B batch, S length, n blocks of w tokens, c keys that a block attends to, g global tokens among them, H query
heads, G key and value heads, K head width.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import nn
from transformers.cache_utils import DynamicSlidingWindowLayer, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.utils import is_tracing

from .configuration_xformer import XformerConfig
from .masks_xformer import AttentionMask, Mask, Part, Result
from .varlen_xformer import mask_across, reorder


class BlockPattern:
    """
    Blocks of w tokens that attend to themselves and to the g leading tokens of the row, which attend to all of it.

    The first block begins at a row's first attended token, so that padding on either side shifts no border. With a
    `shift` the first block has so many tokens: if layers alternate, information crosses the borders (Liu et al. 2021,
    section 3.2).
    """

    def __init__(self, size: int, shift: int = 0, global_tokens: int = 0):
        self.size, self.shift, self.global_tokens = size, shift, global_tokens
        # As kernels for variable lengths have them.
        self.segment_cuts = {"size": size, "shift": shift}

    def mask(
        self, config: XformerConfig, x: torch.Tensor, attention_mask: torch.Tensor | None, may_look: bool = True
    ) -> AttentionMask:
        """
        Returns the mask of self-attention within these blocks.

        Args:
            x: Any features of the tokens, (B, S, ...). attention_mask: 1 for those to attend to, (B, S), or None.
            may_look: Look at the values of the mask where that may save work. Without, there is padding, behind.
        """
        length = x.shape[1]
        attended = order = inverse = everywhere = None
        if attention_mask is not None:
            attended = attention_mask.to(x.device, torch.bool)
            # A graph that is being made cannot look at the values.
            if may_look and (is_tracing(attended) or (attended[:, 1:] > attended[:, :-1]).any()):
                order = attended.byte().argsort(dim=1, descending=True, stable=True)
                inverse, attended = order.argsort(dim=1), attended.gather(1, order)
        if self.global_tokens:
            queries = min(self.global_tokens, length)
            leading = bidirectional_mask(config, x[:, :queries], x, attended, may_look=may_look)
            everywhere = mask_across(config, leading, queries)
        local = mask_across(config, self.local_mask(config, x, attended, may_look), self.size)
        return BlockwiseMask(self, length, local, everywhere, order, inverse)

    def local_mask(
        self, config: XformerConfig, x: torch.Tensor, attended: torch.Tensor | None, may_look: bool
    ) -> Mask:
        keys = self.key_mask(x, attended)
        # The queries of a block see the same keys: FlexAttention needs a mask for each, the others broadcast one.
        queries = self.size if config._attn_implementation == "flex_attention" else 1
        is_whole = attended is None and keys.numel() == x.shape[:2].numel()
        own = None if is_whole else keys
        # Without padding the places that fill up a row are masked: there is nothing to look for.
        may_look = may_look and attended is not None
        q, k = x.new_empty(keys.shape[0], queries, 0), x.new_empty(*keys.shape, 0)
        return bidirectional_mask(config, q, k, own, may_look=may_look)

    def key_mask(self, x: torch.Tensor, attended: torch.Tensor | None) -> torch.Tensor:
        """The keys of each block to attend to, (B * n, c): neither padding nor a leading token a second time."""
        attended = x.new_ones(x.shape[:2], dtype=torch.bool) if attended is None else attended
        is_leading = torch.arange(x.shape[1], device=x.device) < self.global_tokens
        return self.keys(attended & ~is_leading, attended)

    def sees(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """True where a query attends to a key, by their positions: the same pattern for rows that are not cut."""
        before, _ = self.padding(0)
        return self.with_leading((query + before) // self.size == (key + before) // self.size, query, key)

    def with_leading(self, seen: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        if not self.global_tokens:
            return seen
        return seen | (query < self.global_tokens) | (key < self.global_tokens)

    def cuts(self, length: int) -> bool:
        """Returns True if rows of so many tokens have more than one block; shorter ones are cheaper whole."""
        return length > (self.shift or self.size)

    def padding(self, length: int) -> tuple[int, int]:
        """Numbers of empty places before and after a row that fill up its first and its last block."""
        before = -self.shift % self.size
        return before, -(before + length) % self.size

    def to_blocks(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, ...) -> (B, n, w, ...)"""
        padding = self.padding(x.shape[1])
        if any(padding):
            x = nn.functional.pad(x, (0, 0) * (x.ndim - 2) + padding)
        return x.unflatten(1, (-1, self.size))

    def to_rows(self, x: torch.Tensor, length: int) -> torch.Tensor:
        """(B * n, w, ...) -> (B, S, ...)"""
        before, after = self.padding(length)
        x = x.unflatten(0, (-1, (before + length + after) // self.size)).flatten(1, 2)
        return x[:, before : before + length]

    def keys(self, x: torch.Tensor, leading: torch.Tensor) -> torch.Tensor:
        """The keys, or values, of every block: (B, S, ...) and the row's first, (B, >= g, ...), -> (B * n, c, ...)"""
        blocks = self.neighbourhoods(self.to_blocks(x))  # (B, n, c - g, ...)
        if self.global_tokens:
            leading = leading[:, None, : self.global_tokens].expand(-1, blocks.shape[1], *[-1] * (x.ndim - 1))
            blocks = torch.cat((leading, blocks), dim=2)
        return blocks.flatten(0, 1)

    def neighbourhoods(self, blocks: torch.Tensor) -> torch.Tensor:
        """Each block with those around it that it attends to: (B, n, w, ...) -> (B, n, c - g, ...)"""
        return blocks


class BlockwiseMask(NamedTuple):
    """
    Attention within blocks, and of global tokens to whole rows.

    The weights are those within blocks, (B, n, H, w, c), 0 for global queries, which attend to more than their block.
    Blocks hold the attended tokens of a row first and its padding after them.
    """

    pattern: BlockPattern
    length: int  # tokens of a row, S
    local: AttentionMask  # of the c keys of each block, for B * n rows
    everywhere: AttentionMask | None = None  # of all keys, for the g global queries of B rows
    order: torch.Tensor | None = None  # puts the attended tokens of a row first, (B, S); None where they are
    inverse: torch.Tensor | None = None

    def split(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, position_bias: torch.Tensor | None = None
    ) -> Iterable[Part]:
        pattern = self.pattern
        q, k, v = (reorder(y.transpose(1, 2), self.order) for y in (q, k, v))  # (B, S, H, K), (B, S, G, K) twice
        blocks = pattern.to_blocks(q).flatten(0, 1), pattern.keys(k, k), pattern.keys(v, v)
        parts = self.local.split(*(y.transpose(1, 2) for y in blocks))
        if self.everywhere is None:
            return parts
        leading = q[:, : pattern.global_tokens], k, v
        return (*parts, *self.everywhere.split(*(y.transpose(1, 2) for y in leading)))

    def join(self, results: Iterator[Result]) -> Result:
        pattern = self.pattern
        x, weights = self.local.join(results)
        x = pattern.to_rows(x, self.length)  # (B, S, H * K)
        if self.everywhere is not None:
            leading, _ = self.everywhere.join(results)
            x = torch.cat((leading, x[:, pattern.global_tokens :]), dim=1)
        if weights is not None:
            is_local = torch.arange(self.length, device=weights.device) >= pattern.global_tokens
            is_local = pattern.to_blocks(is_local[None])[:, :, None, :, None]  # (1, n, 1, w, 1)
            weights = weights.unflatten(0, (x.shape[0], -1)) * is_local
        # Under tensor parallelism a projection takes no slices.
        return reorder(x, self.inverse).contiguous(), weights


class CausalBlockPattern(BlockPattern):
    """Blocks of a decoder: within its block, a token attends to itself and to those before it."""

    def local_mask(
        self, config: XformerConfig, x: torch.Tensor, attended: torch.Tensor | None, may_look: bool
    ) -> Mask:
        # Padding stands behind every attended token, where none looks.
        blocks = self.to_blocks(x[..., :0])
        return create_causal_mask(config, blocks.flatten(0, 1), None, None)


class WindowPattern(BlockPattern):
    """
    Windows: a token attends to those at a distance, `key - query`, from `first` to `last`, neither more than w, and to
    the row's leading tokens (Beltagy et al. 2020). A block's keys are its own and its neighbours', with a band mask.
    """

    def __init__(self, size: int, first: int, last: int, global_tokens: int = 0):
        super().__init__(size, global_tokens=global_tokens)
        self.first, self.last = first, last
        self.behind, self.ahead = int(first < 0), int(last > 0)
        self.segment_cuts = {}  # whose windows are their own

    def sees(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return self.with_leading(self.is_near(key - query), query, key)

    def is_near(self, distance: torch.Tensor) -> torch.Tensor:
        return (distance >= self.first) & (distance <= self.last)

    def cuts(self, length: int) -> bool:
        return length - 1 > max(-self.first, self.last)

    def local_mask(
        self, config: XformerConfig, x: torch.Tensor, attended: torch.Tensor | None, may_look: bool
    ) -> Mask:
        keys = self.key_mask(x, attended)
        leading = min(self.global_tokens, x.shape[1])

        def is_in_band(row, head, query, key):
            distance = key - leading - self.behind * self.size - query
            return (key < leading) | self.is_near(distance)

        q, k = x.new_empty(keys.shape[0], self.size, 0), x.new_empty(*keys.shape, 0)
        return bidirectional_mask(config, q, k, keys, is_in_band, may_look)

    def neighbourhoods(self, blocks: torch.Tensor) -> torch.Tensor:
        count = blocks.shape[1]
        blocks = nn.functional.pad(blocks, (0, 0) * (blocks.ndim - 2) + (self.behind, self.ahead))
        return torch.cat([blocks[:, i : i + count] for i in range(self.behind + 1 + self.ahead)], dim=2)


def bidirectional_mask(
    config: XformerConfig,
    q: torch.Tensor,
    k: torch.Tensor,
    attended: torch.Tensor | None,
    condition: Callable | None = None,
    may_look: bool = True,
) -> Mask:
    """
    Returns the backend's mask of queries to keys on either side of them.

    Args:
        q, k: Any features of the queries, (N, L, ...), and of the keys, (N, M, ...).
        attended: The keys to attend to are 1, (N, M); with `may_look` also as the backend takes it.
        may_look: Look whether all keys are attended to, which needs no mask but a wait for a device.
    """
    backend = config._attn_implementation
    if may_look or attended is None or backend not in ("eager", "sdpa"):
        return create_bidirectional_mask(
            config,
            q,
            attended,
            encoder_hidden_states=k,
            and_mask_function=condition,
            allow_is_bidirectional_skip=may_look or attended is None,
        )
    # In few operations: there is a mask for every group of texts.
    seen = attended[:, None, None]  # (N, 1, 1, M)
    if condition is not None:
        places = torch.arange(max(q.shape[1], k.shape[1]), device=q.device)
        seen = seen & condition(None, None, places[: q.shape[1], None], places[: k.shape[1]])  # (N, 1, L, M)
    if backend == "sdpa":
        return seen
    return q.new_zeros(seen.shape).masked_fill(~seen, torch.finfo(q.dtype).min)


def block_patterns(config: XformerConfig, stack: str) -> tuple[list[str], dict[str, BlockPattern]]:
    """
    Returns the name of each layer's pattern, which is its type but for shifted blocks, and the patterns by name,
    without full attention.
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
    Checks that a cache keeps all keys that the decoder attends to.

    Raises:
        ValueError: The cache does not hold what the decoder attends to. The library would not notice.
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
