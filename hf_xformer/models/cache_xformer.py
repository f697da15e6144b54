# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The cache of decoding, in which the rows of one source share the keys and values of its tokens.

A source's rows are its beams, or its samples. The encoder's output, its mask and the cross-attention's keys and values
have one row a source; cross-attention folds the queries of a source's rows into one, and attends once.

Shapes: B sources, n rows a source, T target tokens, D features.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache, StaticCache

from .configuration_xformer import XformerConfig
from .masks_xformer import AttentionMask


class XformerCache(EncoderDecoderCache):
    """
    Keys and values of the target, (B * n, H, T, K), and of the source, (B, H, S, K).

    The rows of a source stand beside each other, and none moves to another source.
    """

    def __init__(self, *caches: Cache):
        super().__init__(*caches)
        self.made: tuple[torch.Tensor | None, torch.Size, AttentionMask] | None = None

    def memory_mask(
        self, attended: torch.Tensor | None, sizes: torch.Size, make: Callable[[], AttentionMask]
    ) -> AttentionMask:
        """
        Returns the mask of cross-attention, made once for the tokens of all steps.

        Args:
            attended: The source's mask. sizes: B * n, T, B, S. make: Makes the mask.
        """
        if self.made is None or self.made[0] is not attended or self.made[1] != sizes:
            self.made = attended, sizes, make()
        return self.made[2]

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Puts the target's rows in the order of `beam_idx`, (B * n,): the beams that a search goes on with."""
        self.self_attention_cache.reorder_cache(beam_idx)

    def keep_sources(self, kept: torch.LongTensor) -> None:
        """Keeps the keys and values of the sources of these numbers. Their rows are kept by `reorder_cache`."""
        self.cross_attention_cache.reorder_cache(kept)


def as_encoder_decoder_cache(cache: Cache | None) -> EncoderDecoderCache | None:
    """
    Returns a cache of the target and the source; an empty `DynamicCache` becomes that of the target.

    Raises:
        ValueError: Another cache of a decoder alone is given.
    """
    if cache is None or isinstance(cache, EncoderDecoderCache):
        return cache
    if type(cache) is DynamicCache and not cache.get_seq_length():
        return EncoderDecoderCache(cache, DynamicCache())
    raise ValueError(
        f"the cache is a {type(cache).__name__}, of a decoder alone: give one of target and source, "
        "`EncoderDecoderCache(DynamicCache(), DynamicCache())`"
    )


def whole_source(cache: EncoderDecoderCache, config: XformerConfig, length: int) -> Cache:
    """
    Returns the cache of the cross-attention. One that the library makes may have the decoder's windows, and would
    forget the source, or leave the GPU, where nothing fetches it: in its place there is one of full attention that
    stays.

    Args:
        length: Number of the source's tokens, for a static cache.
    """
    cross = cache.cross_attention_cache
    is_whole = not (any(cross.is_sliding) or cross.offloading)
    if is_whole or any(cache.is_updated.values()):
        return cross
    config = copy.deepcopy(config)
    config.decoder_layer_types = ["full_attention"] * config.decoder_layers
    sizes: dict[str, Any] = {"max_cache_len": length} if isinstance(cross, StaticCache) else {}
    return type(cross)(config=config, **sizes)


def fold(x: torch.Tensor, sources: int) -> torch.Tensor:
    """
    Puts the rows of each source behind one another in one: (B * n, T, ...) -> (B, n * T, ...).

    Raises:
        ValueError: The target has rows of no source.
    """
    if x.shape[0] == sources:
        return x
    if x.shape[0] % sources:
        raise ValueError(f"the target has {x.shape[0]} rows, which is no multiple of the source's {sources}")
    return x.reshape(sources, x.shape[0] // sources * x.shape[1], *x.shape[2:])


def unfold(x: torch.Tensor, rows: int) -> torch.Tensor:
    """Undoes `fold`: (B, n * T, ...) -> (B * n, T, ...), for so many rows."""
    return x if x.shape[0] == rows else x.reshape(rows, x.shape[0] * x.shape[1] // rows, *x.shape[2:])
