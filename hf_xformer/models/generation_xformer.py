# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Corrections of the library's `generate()` for encoder-decoders with windows, blocks or FlashAttention."""

import copy
from typing import Any

import torch
from transformers.cache_utils import EncoderDecoderCache, StaticCache
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging

from .compiling_xformer import CompiledDecoding, GraphCache, source_bucket, why_not_called, why_not_compiled
from .configuration_xformer import XformerConfig
from .positions_xformer import count_positions
from .varlen_xformer import takes_segments
from .versions_xformer import CACHE, create_masks_for_generate


logger = logging.get_logger(__name__)


# Options of `generate` that compare the source's tokens with the target's, and their values that change nothing.
OF_SOURCE_TOKENS = {"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}

NEW_TOKENS = 20  # of a text, where no option says how long it may become


class XformerGeneration:
    """Base class to stand in front of `GenerationMixin`."""

    config: XformerConfig

    def generate(self, inputs=None, generation_config=None, *args, **kwargs):
        """The library's, with lengths and options that the model can follow."""
        if self.config.encoder_vocab_size is not None:
            self.refuse_source_tokens(generation_config or self.generation_config, kwargs)
        # Else the first text to pass the last position would cost all others of its batch their results.
        kwargs |= self.within_positions(generation_config, kwargs)
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

    def within_positions(self, generation_config, kwargs) -> dict[str, int]:
        """
        Returns the option that says how long a text may become, lowered to what the decoder has positions for.

        Raises:
            ValueError: A prompt is longer.
        """
        limit = self.config.longest_of("decoder")
        prompt = kwargs.get("decoder_input_ids")
        if limit is None:
            return {}

        def asked(name):
            configs = [each for each in (generation_config, self.generation_config) if each is not None]
            values = [kwargs.get(name), *(getattr(each, name) for each in configs)]
            return next((value for value in values if value is not None), None)

        start = asked("decoder_start_token_id")
        width = self.prefix_width() + (1 if prompt is None else prompt.shape[1])
        if prompt is not None and start is not None and (prompt[:, 0] != start).all():
            width += 1  # the library puts it before them
        self.config.check_length("decoder", width)
        # The last token is written and not read, and needs no position.
        lengths = {"max_new_tokens": limit + 1 - width, "max_length": limit + 1 - self.prefix_width()}
        name = "max_length" if asked("max_new_tokens") is None else "max_new_tokens"
        value = asked(name)
        if value is None:
            name, value = "max_new_tokens", NEW_TOKENS
        most = lengths[name]
        if not isinstance(value, int) or value <= most:
            return {}
        logger.warning_once(f"`{name}` of {value} is beyond the model's {limit} positions: texts end there")
        return {name: most}

    def prefix_width(self) -> int:
        """Returns how many tokens' positions PEFT's prefix tuning takes before the text; 0 without a prefix."""
        # While it decodes, PEFT puts a method of its model, which has the adapter, in place of this one's.
        adapted = getattr(self.prepare_inputs_for_generation, "__self__", self)
        adapter: Any = None if adapted is self else getattr(adapted, "active_peft_config", None)
        return adapter.num_virtual_tokens if getattr(adapter, "peft_type", None) == "PREFIX_TUNING" else 0

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, mode, batch_size, max_cache_length):
        super()._prepare_cache_for_generation(
            generation_config, model_kwargs, mode, batch_size, max_cache_length
        )
        if generation_config.cache_implementation == "static" and not generation_config.disable_compile:
            self.prepare_graphs(generation_config, model_kwargs, max_cache_length)

    def prepare_graphs(self, config, inputs, most):
        """
        Gives a call of `generate` a cache whose steps are compiled, in place of the library's static one.

        Args:
            config: The call's generation config. inputs: Arguments that it will give the model, which are changed.
            most: Tokens of the longest target.
        """
        reason = why_not_compiled(self) or why_not_called(config, inputs)
        if self.prefix_width():
            reason = "a prefix of PEFT's stands before the target"
        if reason is not None:
            logger.warning_once(f"decoding is not compiled: {reason}")
            return
        options = None if config.compile_config is None else config.compile_config.to_dict()
        config.compile_config = None  # else the library would say that it does not compile, which is so
        if not hasattr(self, "compiled_decoding"):
            self.compiled_decoding = CompiledDecoding()
        self.compiled_decoding.prepare(self, options)
        pad_sources(inputs)
        memory = inputs["encoder_outputs"][0]
        inputs[CACHE] = self.compiled_decoding.cache(self, len(memory), memory, most)

    def __call__(self, *args, **kwargs):
        cache = kwargs.get(CACHE)
        if not isinstance(cache, GraphCache):
            return super().__call__(*args, **kwargs)
        if cache.length:
            return self.compiled_decoding(self, kwargs["decoder_input_ids"], cache)
        outputs = super().__call__(*args, **kwargs)
        cache.fill(kwargs)
        return outputs

    def prepare_inputs_for_generation(self, input_ids, decoder_attention_mask=None, **kwargs):
        cache = kwargs.get(CACHE)
        if isinstance(cache, GraphCache) and cache.length:
            if kwargs.get("is_first_iteration"):
                raise ValueError("a cache of compiled decoding ends with its call of `generate`: leave it out")
            self.config.check_length("decoder", input_ids.shape[1])
            return {"decoder_input_ids": input_ids[:, -1:], CACHE: cache}
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

    def get_compiled_call(self, compile_config):  # of the library's static caches
        if not takes_segments(self.config):
            return super().get_compiled_call(compile_config)
        # Their mask of tokens grows with every step, where a graph wants masks of one shape.
        name = self.config._attn_implementation
        logger.warning_once(f'decoding is not compiled under attn_implementation="{name}", but under "sdpa"')
        return self.__call__


def pad_sources(inputs):
    """Pads the encoder's output among arguments of the model, and its mask, to a length of few."""
    outputs, mask = inputs["encoder_outputs"], inputs.get("attention_mask")
    memory = outputs[0]  # (B, S, D)
    if mask is None:
        mask = memory.new_ones(memory.shape[:2], dtype=torch.long)
    extra = source_bucket(memory.shape[1], memory.device) - memory.shape[1]
    memory = torch.nn.functional.pad(memory, (0, 0, 0, extra))
    inputs["attention_mask"] = torch.nn.functional.pad(mask.to(memory.device), (0, extra))
    others = (getattr(outputs, name, None) for name in ("hidden_states", "attentions"))
    inputs["encoder_outputs"] = BaseModelOutput(memory, *others)
