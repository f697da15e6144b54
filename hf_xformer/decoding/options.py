# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Checks options of `generate()` before anything is decoded, and finds what they name."""

import copy
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import (
    EpsilonLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..checkpoints.adapters import base_of
from ..checkpoints.folder_checks import UNUSABLE, why_unusable
from ..checkpoints.lengths import position_limit
from ..checkpoints.loading import load_model, load_tokenizers, read_model_config
from ..checkpoints.vocabulary import other_tokens
from ..errors import ArgumentError, blame
from ..models import XformerConfig


if TYPE_CHECKING:
    from .mbr import MinimumBayesRisk

# `generate()` constructs these when it samples; a value that they refuse is refused before anything is decoded.
WARPERS = {
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "epsilon_cutoff": EpsilonLogitsWarper,
}

# Options by which texts become others, that a checkpoint may have values of its own for, and the values that do
# nothing: of every search, of beams, and of sampling, whose `top_k` is the library's if nobody gives one.
SEARCH: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "guidance_scale"), 1.0),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), 0),
    **dict.fromkeys(("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "stop_strings")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty", "max_time")),
    **dict.fromkeys(("watermarking_config", "renormalize_logits", "remove_invalid_values"), False),
}
OF_LENGTH = ("max_new_tokens", "max_length")
BEAMS: dict[str, Any] = {"length_penalty": 1.0, "early_stopping": False}
SAMPLING: dict[str, Any] = {
    **dict.fromkeys(("temperature", "top_p", "typical_p"), 1.0),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff"), 0.0),
    **dict.fromkeys(("top_k", "min_p", "top_h")),
}

# Options that draft texts, which the model checks.
DRAFTS = ("assistant_model", "prompt_lookup_num_tokens")


def with_own_length(options: dict) -> dict:
    """
    Returns options in which a greatest length that is given takes the place of the checkpoint's by the other name: of
    two the library takes the new tokens, whichever was given, and warns at every batch.
    """
    given = [name for name in OF_LENGTH if options.get(name) is not None]
    return options if len(given) != 1 else options | {name: None for name in OF_LENGTH if name not in given}


def check_options(model: PreTrainedModel, options: dict) -> GenerationConfig:
    """
    Checks the values of `generate()`'s options as the library does, before anything is decoded.

    Returns:
        The generation config that `generate()` will go by.

    Raises:
        ArgumentError: It refuses one. Names that it does not know are left to `generate()`.
    """
    config = copy.deepcopy(model.generation_config)
    with blame("decoding", ValueError, TypeError):
        if (given := options.get("generation_config")) is not None:
            config.update(**{name: value for name, value in given.to_dict().items() if value is not None})
        samples, beams, count = (
            options.get(name, getattr(config, name)) for name in ("do_sample", "num_beams", "num_return_sequences")
        )
        if not samples and (beams or 1) == 1 and (count or 1) > 1:
            raise ArgumentError(
                f"{count} hypotheses of a source (num_return_sequences, --n_best) need as many num_beams, or do_sample"
            )
        config.update(**options)
        for name, warper in WARPERS.items() if config.do_sample else ():
            value = getattr(config, name)
            # 0 switches `top_k` and `epsilon_cutoff` off, and 1 the others.
            off = 0 if name in ("top_k", "epsilon_cutoff") else 1
            if value not in (None, off, 1):
                warper(value)
    for name in () if options.get("custom_generate") else UNUSABLE:
        if reason := why_unusable(name, value := getattr(config, name, None)):
            raise ArgumentError(f"{name} {value!r:.40} {reason}")
    if "offloaded" in (name := config.cache_implementation or "") and model.device.type == "cpu":
        where = "an option or of the checkpoint's generation_config.json"
        raise ArgumentError(f"cache_implementation {name!r} spares a GPU's memory, and this is a CPU: it is {where}")
    check_stop_strings(config.stop_strings)
    check_prompt_tuning(model, config, options)
    check_drafts(config, options)
    return config


def search_of(config: GenerationConfig) -> dict[str, Any]:
    """Returns the options by which a config writes other texts than greedily, or than beams do by default."""
    neutral = SEARCH | (BEAMS if (config.num_beams or 1) > 1 else {}) | (SAMPLING if config.do_sample else {})
    found = config.to_dict()
    given = {name: value for name in neutral if (value := found.get(name)) not in (None, neutral[name])}
    # A mapping may have tuples of tokens for keys, and an object anything: neither is JSON.
    plain = (bool, int, float, str, list)
    return {name: value if isinstance(value, plain) else str(value) for name, value in given.items()}


def candidates_of(config: GenerationConfig) -> int:
    """
    Returns how many candidates of a source minimum Bayes risk decoding compares.

    Raises:
        ArgumentError: There is one.
    """
    count, beams = config.num_return_sequences or 1, config.num_beams or 1
    count = beams if count == 1 and not config.do_sample else count
    if count == 1:
        raise ArgumentError(
            "mbr compares candidates, and there is one: give num_beams, or do_sample and num_return_sequences"
        )
    return count


def risk_of(mbr: "str | MinimumBayesRisk | None") -> "MinimumBayesRisk | None":
    """Returns minimum Bayes risk decoding by the metric of a name; raises ArgumentError if there is none."""
    if not isinstance(mbr, str):
        return mbr
    from .mbr import MinimumBayesRisk  # metrics take seconds to import

    return MinimumBayesRisk(mbr)


def check_hypotheses(config: GenerationConfig, count: int) -> None:
    """Refuses to look for more hypotheses than there can be, `count`; samples may be the same."""
    if not config.do_sample and (asked := config.num_return_sequences or 1) > count:
        raise ArgumentError(f"{asked} hypotheses of a source were asked for, and {count} texts are allowed")


def drafts_of(config: GenerationConfig, options: dict) -> list[str]:
    """Returns the names of the options that draft texts, given or of a config."""
    return [name for name in DRAFTS if options.get(name) is not None or getattr(config, name, None) is not None]


def check_drafts(config: GenerationConfig, options: dict) -> None:
    """
    Checks that texts are drafted in one way, and one text for a source.

    Raises:
        ArgumentError: There are beams or several texts, or two ways, of which `generate()` would pass one over.
    """
    drafts = drafts_of(config, options)
    for name in ("num_beams", "num_return_sequences") if drafts else ():
        if (count := getattr(config, name) or 1) > 1:
            raise ArgumentError(f"{drafts[0]} does not go with {name} {count}: drafts need {name} 1")
    if len(drafts) > 1:
        raise ArgumentError(f"{drafts[0]} does not go with {drafts[1]}: leave one of them out")


def check_stop_strings(stops: Any) -> None:
    """
    Checks the strings that end a text.

    Raises:
        ArgumentError: One is no string, or empty: every text would end with its first token.
    """
    for each in stops if isinstance(stops, list | tuple) else [] if stops is None else [stops]:
        if not isinstance(each, str) or not each:
            raise ArgumentError(f"stop_strings has {each!r}: give strings of one character or more, or leave it out")


def check_prompt_tuning(model: PreTrainedModel, config: GenerationConfig, options: dict) -> None:
    """
    Checks options that cannot go with a prompt that PEFT has learned: `generate()` gets features in place of tokens.

    Raises:
        ArgumentError: One looks at the source's tokens, or an assistant would read a source without the prompt.
    """
    adapter = getattr(model, "active_peft_config", None)
    if adapter is None or not adapter.is_prompt_learning or adapter.peft_type == "PREFIX_TUNING":
        return
    unused = {"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0, "assistant_model": None}
    for name, neutral in unused.items():
        value = options.get(name, getattr(config, name, None))
        if value not in (None, neutral):
            said = name if name == "assistant_model" else f"{name} {value}"
            raise ArgumentError(f"{said} does not go with prompt tuning or P-tuning: leave it out")


def check_assistant(name: str) -> None:
    """Checks that there is an assistant, before the model loads; raises ArgumentError if there is none."""
    if (base := base_of(name)) is not None:
        raise ArgumentError(f"assistant_model {name}: an adapter of {base}: hf-xformer merge makes a model of both")
    read_model_config(name, "assistant_model")


def load_assistant(
    name: str, model: PreTrainedModel, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """
    Loads a smaller model that drafts a larger one's texts.

    Raises:
        ArgumentError: It does not load, or its tokens are others.
    """
    check_assistant(name)
    if side := other_tokens(load_tokenizers(name), (source, target)):
        raise ArgumentError(f"assistant_model {name}: its {side} tokens are not those of {model.name_or_path}")
    assistant = load_model(name, dtype=model.dtype).to(model.device)  # type: ignore[arg-type]
    assistant.generation_config.cache_implementation = None  # drafts are taken back, which a static cache is not for
    read, needed = position_limit(assistant.config, "decoder"), position_limit(model.config, "decoder")
    if read is not None and (needed is None or needed > read):
        most = "any number" if needed is None else f"{needed:,}"
        raise ArgumentError(
            f"assistant_model {name}: it has positions for {read:,} tokens, and the model for {most}: give one that "
            "has as many"
        )
    return assistant


def with_assistant(
    options: dict, model: PreTrainedModel, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> dict:
    """Returns options with the assistant that they name, loaded; raises ArgumentError as loading it does."""
    if not isinstance(name := options.get("assistant_model"), str):
        return options
    return options | {"assistant_model": load_assistant(name, model, source, target)}


def mask_for_assistant(options: dict, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """
    Returns the mask of a text's first tokens that a stock assistant of a stock model needs; an empty dictionary for
    others. Models of ours give it themselves.

    Without a mask the library has an encoder-decoder read the whole target anew in every round, behind its own cache.
    """
    assistant = options.get("assistant_model")
    is_ours = assistant is None or any(isinstance(each.config, XformerConfig) for each in (model, assistant))
    if is_ours or "decoder_attention_mask" in options:
        return {}
    prompt = options.get("decoder_input_ids")
    width = 1 if prompt is None else prompt.shape[1]
    return {"decoder_attention_mask": torch.ones(1, width, dtype=torch.long, device=model.device)}
