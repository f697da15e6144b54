# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Corrections of the library's `generate()` for encoder-decoders with windows, blocks or FlashAttention."""

import copy
from typing import Any

from transformers.cache_utils import EncoderDecoderCache, StaticCache
from transformers.utils import logging

from .configuration_xformer import XformerConfig
from .positions_xformer import count_positions
from .varlen_xformer import takes_segments
from .versions_xformer import CACHE, create_masks_for_generate


logger = logging.get_logger(__name__)


# Options of `generate` that compare the source's tokens with the target's, and their values that change nothing.
OF_SOURCE_TOKENS = {"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}


class XformerGeneration:
    """Base class to stand in front of `GenerationMixin`."""

    config: XformerConfig

    def generate(self, inputs=None, generation_config=None, *args, **kwargs):
        """The library's, without options that take the source's tokens for the target's where those are others."""
        if self.config.encoder_vocab_size is not None:
            self.refuse_source_tokens(generation_config or self.generation_config, kwargs)
        return super().generate(inputs, generation_config, *args, **kwargs)

    def refuse_source_tokens(self, config, options):
        """
        Checks options of `generate`, given or of a config.

        Raises:
            ValueError: One looks for the source's tokens in what is written.
        """
        for name, unused in OF_SOURCE_TOKENS.items():
            value = options.get(name, getattr(config, name, None))
            if value not in (None, unused):
                raise ValueError(
                    f"`{name}={value}` looks for the source's tokens in the target, and this model has a vocabulary "
                    "for each: leave it out"
                )

    def prepare_inputs_for_generation(self, input_ids, decoder_attention_mask=None, **kwargs):
        # Counted here because a compiled step gets the mask only after the library has made it four-dimensional.
        if decoder_attention_mask is not None and kwargs.get("decoder_position_ids") is None:
            kwargs["decoder_position_ids"] = count_positions(decoder_attention_mask)
        # A static cache counts in a tensor, which nobody waits for: the model would go on beyond its positions.
        self.config.check_length("decoder", input_ids.shape[1])
        if isinstance(kwargs.get(CACHE), EncoderDecoderCache):
            self.keep_whole_source(kwargs[CACHE], kwargs)
        return super().prepare_inputs_for_generation(
            input_ids, decoder_attention_mask=decoder_attention_mask, **kwargs
        )

    def keep_whole_source(self, cache, kwargs):
        """Replaces a cross-attention cache with the decoder's windows, as the library makes it, by a full one."""
        cross = cache.cross_attention_cache
        if not any(cross.is_sliding) or any(cache.is_updated.values()):
            return
        config = copy.deepcopy(self.config)
        config.decoder_layer_types = ["full_attention"] * config.decoder_layers
        options: dict[str, Any] = {"config": config, "offloading": cross.offloading}
        if isinstance(cross, StaticCache):
            options["max_cache_len"] = kwargs["encoder_outputs"][0].shape[1]
        cache.cross_attention_cache = type(cross)(**options)

    def create_masks_for_generate(self, attention_mask=None, **kwargs):
        # The decoder finds borders in the mask of tokens, and the library would refuse blocks to FlashAttention.
        if takes_segments(self.config):
            return attention_mask
        return create_masks_for_generate(attention_mask=attention_mask, **kwargs)

    def get_compiled_call(self, compile_config):
        if not takes_segments(self.config):
            return super().get_compiled_call(compile_config)
        # Their mask of tokens grows with every step, where a graph wants masks of one shape.
        name = self.config._attn_implementation
        logger.warning_once(f'decoding is not compiled under attn_implementation="{name}", but under "sdpa"')
        return self.__call__
