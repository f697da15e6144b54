# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Corrections of the library's `generate()` for encoder-decoders with windows, blocks or FlashAttention."""

from functools import partial
from typing import Any

import torch
from transformers.cache_utils import Cache, EncoderDecoderCache, StaticCache
from transformers.generation import GenerationMode
from transformers.utils import logging

from .cache_xformer import XformerCache, as_encoder_decoder_cache, whole_source
from .compiling_xformer import CompiledDecoding, GraphCache, pad_sources, why_not_called, why_not_compiled
from .configuration_xformer import XformerConfig
from .lookup_xformer import SourceLookup
from .positions_xformer import count_positions
from .varlen_xformer import takes_segments
from .versions_xformer import CACHE, create_masks_for_generate


logger = logging.get_logger(__name__)


# Options of `generate` that compare the source's tokens with the target's, and their values that change nothing.
OF_SOURCE_TOKENS = {"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}

STATIC = ("static", "offloaded_static")  # `cache_implementation`s from which no token is taken back
NEW_TOKENS = 20  # of a text, where no option says how long it may become


def check_drafting(assistant, has_text):
    """
    Checks that a model can draft texts.

    Args:
        has_text: Whether the source is given as tokens.

    Raises:
        ValueError: It would read a source that is not given as tokens, or its own cache takes no token back.
    """
    if assistant.config.is_encoder_decoder and not has_text:
        raise ValueError("an assistant reads the source itself: give `input_ids`, not only features of the source")
    if (name := assistant.generation_config.cache_implementation) in STATIC:
        raise ValueError(
            f"the assistant's generation config has cache_implementation={name!r}, from which no draft is taken back: "
            "set it to None"
        )


class XformerGeneration:
    """Base class to stand in front of `GenerationMixin`."""

    config: XformerConfig

    def generate(self, inputs=None, generation_config=None, *args, **kwargs):
        """The library's, with lengths and options that the model can follow."""
        if self.config.encoder_vocab_size is not None:
            self.refuse_source_tokens(generation_config or self.generation_config, kwargs)
        cache = kwargs.get(CACHE)
        # An assistant goes on with its cache after every few tokens.
        if cache is None or isinstance(cache, Cache) and not cache.get_seq_length():
            self.renew_products()
        # Else the first text to pass the last position would cost all others of its batch their results.
        kwargs |= self.within_positions(generation_config, kwargs)
        kwargs |= self.mask_of_padding(inputs, generation_config, kwargs)
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
        asked = partial(self.option, generation_config, kwargs)
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

    def option(self, generation_config, kwargs, name):
        """Returns an option of a call of `generate`, given or of a config; None if there is none."""
        configs = [each for each in (generation_config, self.generation_config) if each is not None]
        values = [kwargs.get(name), *(getattr(each, name) for each in configs)]
        return next((value for value in values if value is not None), None)

    def mask_of_padding(self, inputs, generation_config, kwargs) -> dict[str, torch.Tensor]:
        """
        Returns a mask of the source where tokens of padding stand before or behind a text and no mask is given.

        The library makes one for decoders alone. A padding token that also begins or ends texts may be of the text.
        """
        ids = kwargs.get("input_ids") if inputs is None else inputs
        is_said = kwargs.get("attention_mask") is not None
        if is_said or not isinstance(ids, torch.Tensor) or ids.ndim != 2 or ids.is_floating_point():
            return {}
        names = ("pad_token_id", "bos_token_id", "eos_token_id")
        padding, *others = (self.option(generation_config, kwargs, name) for name in names)
        if padding is None or any((torch.as_tensor(each) == padding).any() for each in others if each is not None):
            return {}
        is_text = ids != padding  # (B, S)
        begun, unended = is_text.cumsum(1) > 0, is_text.flip(1).cumsum(1).flip(1) > 0
        # A source of nothing else is what the caller wants to be read.
        mask = begun & unended | ~is_text.any(dim=1, keepdim=True)
        if mask.all():
            return {}
        logger.warning_once("`input_ids` have padding and there is no `attention_mask`: nothing attends to it")
        return {"attention_mask": mask.long()}

    def prefix_width(self) -> int:
        """Returns how many tokens' positions PEFT's prefix tuning takes before the text; 0 without a prefix."""
        # While it decodes, PEFT puts a method of its model, which has the adapter, in place of this one's.
        adapted = getattr(self.prepare_inputs_for_generation, "__self__", self)
        adapter: Any = None if adapted is self else getattr(adapted, "active_peft_config", None)
        return adapter.num_virtual_tokens if getattr(adapter, "peft_type", None) == "PREFIX_TUNING" else 0

    def prepare_inputs_for_generation(self, input_ids, decoder_attention_mask=None, **kwargs):
        cache = kwargs.get(CACHE)
        if isinstance(cache, GraphCache) and cache.length:
            if kwargs.get("is_first_iteration"):
                raise ValueError("a cache of compiled decoding ends with its call of `generate`: leave it out")
            self.config.check_length("decoder", input_ids.shape[1])
            return {"decoder_input_ids": input_ids[:, -1:], CACHE: cache}
        is_cut = kwargs.get("next_sequence_length") is not None
        if not (is_cut or cache is None or isinstance(cache, GraphCache)):
            # Whoever goes on with a text, such as an assistant, gives all of it beside the cache of most. Without a
            # mask of the text the library has the model read all of it anew, behind the cache.
            read = cache.get_seq_length() - self.prefix_width()
            if 0 < read < input_ids.shape[1]:
                kwargs["next_sequence_length"] = input_ids.shape[1] - read
        # Counted here because a compiled step gets the mask only after the library has made it four-dimensional.
        if decoder_attention_mask is not None and kwargs.get("decoder_position_ids") is None:
            kwargs["decoder_position_ids"] = count_positions(decoder_attention_mask)
        # A static cache counts in a tensor, which nobody waits for: the model would go on beyond its positions.
        self.config.check_length("decoder", input_ids.shape[1])
        return super().prepare_inputs_for_generation(
            input_ids, decoder_attention_mask=decoder_attention_mask, **kwargs
        )

    def _expand_inputs_for_generation(self, expand_size=1, is_encoder_decoder=False, input_ids=None, **kwargs):
        # Beams and samples share their source. A cache of the caller's, or PEFT's prefix, is kept the library's way,
        # with a row of the source for each of the target's.
        is_shared = isinstance(kwargs.get(CACHE), XformerCache | None) and not self.prefix_width()
        names = ("attention_mask", "encoder_outputs") if is_shared else ()
        shared = {name: kwargs.pop(name) for name in names if name in kwargs}
        input_ids, kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder and not is_shared, input_ids, **kwargs
        )
        return input_ids, kwargs | shared

    def settle_cache(self, config, mode):
        """
        Drops a static cache from a call of `generate` with drafts; refuses an offloaded cache on a CPU.

        Args:
            config: The call's generation config, which is changed. mode: The library's name of the search.

        Raises:
            ValueError: The cache moves from a GPU to main memory, and the model is there.
        """
        name = config.cache_implementation or ""
        if "offloaded" in name and self.device.type == "cpu":
            raise ValueError(
                f'`cache_implementation="{name}"` keeps keys and values in main memory to spare that of a GPU, and '
                "this model is on a CPU: leave it out"
            )
        if mode == GenerationMode.ASSISTED_GENERATION and name in STATIC:
            draft = "assistant_model" if config.prompt_lookup_num_tokens is None else "prompt_lookup_num_tokens"
            logger.warning_once(
                f"decoding is not compiled: `{draft}` is given, and no draft is taken back from the cache of "
                f'`cache_implementation="{name}"`'
            )
            config.cache_implementation, config.disable_compile = None, True

    def _prepare_cache_for_generation(self, config, model_kwargs, mode, batch_size, most):
        self.settle_cache(config, mode)
        is_given = model_kwargs.get(CACHE) is not None
        if is_given and not isinstance(model_kwargs[CACHE], tuple):  # which the library refuses
            model_kwargs[CACHE] = given = as_encoder_decoder_cache(model_kwargs[CACHE])
            if mode == GenerationMode.ASSISTED_GENERATION and isinstance(given.self_attention_cache, StaticCache):
                raise ValueError("no draft is taken back from a static cache: give a dynamic one, or none")
        super()._prepare_cache_for_generation(config, model_kwargs, mode, batch_size, most)
        cache = model_kwargs.get(CACHE)
        if not isinstance(cache, EncoderDecoderCache):
            return
        cross = whole_source(cache, self.config, model_kwargs["encoder_outputs"][0].shape[1])
        if is_given:
            cache.cross_attention_cache = cross
        elif not self.prefix_width():
            model_kwargs[CACHE] = XformerCache(cache.self_attention_cache, cross)
            if config.cache_implementation == "static" and not config.disable_compile:
                self.prepare_graphs(config, model_kwargs, most)

    def why_not_compiled(self) -> str | None:
        """Returns why decoding with `cache_implementation="static"` is not compiled; None if it is."""
        return why_not_compiled(self)

    def prepare_graphs(self, config, inputs, most):
        """
        Gives a call of `generate` a cache with which its steps are compiled, or says why it has none.

        Args:
            config: The call's generation config. inputs: Arguments that it will give the model. Both are changed.
            most: Tokens of the longest target.
        """
        if (reason := self.why_not_compiled() or why_not_called(config, inputs)) is not None:
            logger.warning_once(f"decoding is not compiled: {reason}")
            config.disable_compile = True
            return
        # The library would say that it passes this one over.
        options, config.compile_config = config.compile_config, None
        if not hasattr(self, "compiled_decoding"):
            self.compiled_decoding = CompiledDecoding()
        self.compiled_decoding.prepare(self, options)
        memory = pad_sources(inputs)
        count = max(config.num_beams or 1, config.num_return_sequences or 1)
        inputs[CACHE] = self.compiled_decoding.cache(self, count * len(memory), memory, most)

    def __call__(self, *args, **kwargs):
        # Here and not by the library's compiled call, which beams do not have.
        cache = kwargs.get(CACHE)
        if not isinstance(cache, GraphCache):
            return super().__call__(*args, **kwargs)
        if cache.length:
            return self.compiled_decoding(self, kwargs["decoder_input_ids"], cache)
        outputs = super().__call__(*args, **kwargs)
        cache.fill(kwargs)
        return outputs

    def _get_candidate_generator(self, generation_config, inputs_tensor, assistant_model=None, **kwargs):
        # In place of a source of which only `encoder_outputs` are given the library has a row of -100.
        has_text = not (inputs_tensor.is_floating_point() or (inputs_tensor < 0).any())
        if generation_config.assistant_early_exit is not None:
            raise ValueError(
                "`assistant_early_exit` is for models without an encoder: give a smaller model as `assistant_model`"
            )
        if assistant_model is not None:
            check_drafting(assistant_model, has_text)
        looks_up = generation_config.prompt_lookup_num_tokens is not None
        if looks_up and has_text and self.config.encoder_vocab_size is None:
            return SourceLookup(generation_config, inputs_tensor)
        is_stock = assistant_model is not None and not isinstance(assistant_model, XformerGeneration)
        if is_stock and assistant_model.config.is_encoder_decoder:
            # Without a mask the library has it read the whole target anew in every round, behind its own cache.
            mask = torch.ones_like(kwargs["input_ids"])
            kwargs["model_kwargs"] = {"decoder_attention_mask": mask, **kwargs["model_kwargs"]}
        return super()._get_candidate_generator(
            generation_config=generation_config,
            inputs_tensor=inputs_tensor,
            assistant_model=assistant_model,
            **kwargs,
        )

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
