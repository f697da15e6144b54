# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Corrections of the library's `generate()` for encoder-decoders with windows, blocks or FlashAttention."""

import copy

from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache
from transformers.masking_utils import create_masks_for_generate

from .naming_xformer import CACHE
from .positions_xformer import count_positions
from .varlen_xformer import takes_segments


class XformerGeneration:
    """Base class to stand in front of `GenerationMixin`."""

    def prepare_inputs_for_generation(self, input_ids, decoder_attention_mask=None, **kwargs):
        # Counted here because a compiled step gets the mask only after the library has made it four-dimensional.
        if decoder_attention_mask is not None and kwargs.get("decoder_position_ids") is None:
            kwargs["decoder_position_ids"] = count_positions(decoder_attention_mask)
        return super().prepare_inputs_for_generation(
            input_ids, decoder_attention_mask=decoder_attention_mask, **kwargs
        )

    def create_masks_for_generate(self, attention_mask=None, **kwargs):
        # The decoder finds borders in the mask of tokens, and the library would refuse blocks to FlashAttention.
        if takes_segments(self.config):
            return attention_mask
        return create_masks_for_generate(attention_mask=attention_mask, **kwargs)

    def _valid_auto_compile_criteria(self, *args, **kwargs):
        # Their mask of tokens grows with every step, where a graph wants masks of one shape.
        return not takes_segments(self.config) and super()._valid_auto_compile_criteria(*args, **kwargs)

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args, **kwargs):
        # The library gives the decoder's windows to the cross-attention too, which would forget most of the source.
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        cache = model_kwargs.get(CACHE)
        if isinstance(cache, EncoderDecoderCache) and any(cache.cross_attention_cache.is_sliding):
            config = copy.deepcopy(self.config)
            config.decoder_layer_types = ["full_attention"] * config.decoder_layers
            options = {"config": config, "offloading": cache.cross_attention_cache.offloading}
            if isinstance(cache.cross_attention_cache, StaticCache):
                source_length = model_kwargs["encoder_outputs"][0].shape[1]
                cache.cross_attention_cache = StaticCache(max_cache_len=source_length, **options)
            else:
                cache.cross_attention_cache = DynamicCache(**options)
