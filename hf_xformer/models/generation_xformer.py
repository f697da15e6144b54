# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Corrections of the library's `generate()` for encoder-decoders with windows, blocks or FlashAttention."""

import copy

from transformers.cache_utils import EncoderDecoderCache, StaticCache
from transformers.utils.generic import is_flash_attention_requested

from .positions_xformer import count_positions
from .versions_xformer import CACHE


class XformerGeneration:
    """Base class to stand in front of `GenerationMixin`."""

    def prepare_inputs_for_generation(self, input_ids, decoder_attention_mask=None, **kwargs):
        # Counted here because a compiled step gets the mask only after the library has made it four-dimensional.
        if decoder_attention_mask is not None and kwargs.get("decoder_position_ids") is None:
            kwargs["decoder_position_ids"] = count_positions(decoder_attention_mask)
        if isinstance(kwargs.get(CACHE), EncoderDecoderCache):
            self.keep_whole_source(kwargs[CACHE], kwargs)
        return super().prepare_inputs_for_generation(
            input_ids, decoder_attention_mask=decoder_attention_mask, **kwargs
        )

    def keep_whole_source(self, cache, kwargs):
        """Replaces a cross-attention cache with the decoder's windows, as the library makes it, by a full one."""
        cross = cache.cross_attention_cache
        if not any(cross.is_sliding):
            return
        config = copy.deepcopy(self.config)
        config.decoder_layer_types = ["full_attention"] * config.decoder_layers
        options = {"config": config, "offloading": cross.offloading}
        if isinstance(cross, StaticCache):
            options["max_cache_len"] = kwargs["encoder_outputs"][0].shape[1]
        cache.cross_attention_cache = type(cross)(**options)

    def get_compiled_call(self, compile_config):
        # FlashAttention needs the lengths of padded sources, which are not known while a graph is made.
        flash = is_flash_attention_requested(self.config)
        return self.__call__ if flash else super().get_compiled_call(compile_config)
