# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Checks the files of a checkpoint's folder before a model is made of them: JSON, weights, options of decoding."""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig
from transformers.utils import logging

from ..errors import ArgumentError, blame, one_line
from ..files import CONFIG, GENERATION_CONFIG, read_text, unique
from ..models import XformerConfig
from .weight_files import compare, read_tensors


logger = logging.get_logger(__name__)

MOST = 2**31 - 1
MOST_BEAMS = 1024
# Tokens that a file may let a model write; or the model's `max_position_embeddings`, if those are more.
MOST_TOKENS = 2**16
# Options of `generate()` that are whole numbers: the least, and the most.
WHOLE = {
    "max_length": (1, MOST_TOKENS),
    "max_new_tokens": (1, MOST_TOKENS),
    "min_length": (0, MOST_TOKENS),
    "min_new_tokens": (0, MOST_TOKENS),
    "num_beams": (1, MOST_BEAMS),
    "num_return_sequences": (1, MOST),
    "top_k": (0, MOST),
    "no_repeat_ngram_size": (0, MOST_TOKENS),
    "encoder_no_repeat_ngram_size": (0, MOST_TOKENS),
    "max_cache_len": (1, MOST_TOKENS),
    "prompt_lookup_num_tokens": (1, MOST_TOKENS),
    "max_matching_ngram_size": (1, MOST_TOKENS),
    "num_assistant_tokens": (1, MOST_TOKENS),
}
Kind = tuple[Callable[[float], bool], str]
POSITIVE: Kind = (lambda x: 0 < x <= MOST, "a positive number")
SHARE: Kind = (lambda x: 0 <= x <= 1, "a number from 0 to 1")
POSITIVE_SHARE: Kind = (lambda x: 0 < x <= 1, "a number above 0, at most 1")
# Options that are numbers, whole or not.
NUMBERS: dict[str, Kind] = {
    **dict.fromkeys(("temperature", "repetition_penalty", "encoder_repetition_penalty", "max_time"), POSITIVE),
    "length_penalty": (lambda x: -50 <= x <= 50, "a number from -50 to 50"),  # powers of lengths, finite for any text
    **dict.fromkeys(("min_p", "epsilon_cutoff", "eta_cutoff", "assistant_confidence_threshold"), SHARE),
    **dict.fromkeys(("top_p", "top_h", "typical_p", "assistant_ensemble_weight"), POSITIVE_SHARE),
}
BOOLEANS = {
    *("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values", "disable_compile"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
    *("is_assistant", "use_mtp", "_from_model_config"),
}
TOKEN_IDS = {"pad_token_id", "bos_token_id", "decoder_start_token_id", "forced_bos_token_id"}
LISTS_OF_TOKEN_IDS = {"eos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"}
# Not for a file: they need objects, or code that the library no longer has. Old files switch some off with 0 or 1.
UNSUPPORTED = {
    *("stop_strings", "watermarking_config", "custom_generate", "compile_config"),
    *("cache_config", "continuous_batching_config", "speculation_type", "assistant_early_exit", "low_memory"),
}
# Not for an encoder-decoder, which the library finds out at the first text, or never: what each is, and its values
# that switch it off.
NO_LONGER = "of a search that transformers no longer has"
UNUSABLE: dict[str, tuple[str, tuple]] = {
    "num_beam_groups": (NO_LONGER, (0, 1)),
    **dict.fromkeys(("constraints", "force_words_ids", "dola_layers"), (NO_LONGER, ())),
    **dict.fromkeys(("penalty_alpha", "diversity_penalty"), (NO_LONGER, (0,))),
    "guidance_scale": ("for models without an encoder", (1,)),
    "token_healing": ("for models without an encoder", (False,)),
    "assistant_early_exit": ("for models without an encoder", ()),
    "prefill_chunk_size": ("for models without an encoder", ()),  # it would cut the mask of the source
}


def check_json(path: Path, where: str | None = None) -> dict[str, Any]:
    """
    Returns the content of a JSON file; an empty dictionary if there is none.

    Args:
        where: What the error names; the path by default.

    Raises:
        ArgumentError: It is no JSON object, names a key twice, of which the library would take the last, or has a
            number that is not finite, which JSON does not know.
    """
    if not path.is_file():
        return {}
    named = str(path) if where is None else where if where.endswith(str(path)) else f"{where}: {path.name}"
    text = read_text(path, named)
    try:
        content = json.loads(text, object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)
    except RecursionError as error:
        raise ArgumentError(f"{named}: lists or objects inside each other without end") from error
    except ValueError as error:
        raise ArgumentError(f"{named}: not valid JSON: {one_line(error)[:200]}") from error
    if not isinstance(content, dict):
        raise ArgumentError(f"{named}: expected a JSON object, got {content!r:.40}")
    return content


def refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number in JSON")


def finite(text: str) -> float:
    if math.isinf(float(text)):
        refuse(text[:40])
    return float(text)


def check_folder(folder: Path, config: PreTrainedConfig, computed: frozenset[str] = frozenset()) -> None:
    """
    Checks a checkpoint's files against each other, by their headers, before memory is taken for a model.

    Args:
        computed: Names of tensors that the model computes if no file holds them.

    Raises:
        ArgumentError: A file cannot be used, or weights are not those of the configuration.
    """
    check_generation(check_json(folder / GENERATION_CONFIG), config, str(folder / GENERATION_CONFIG))
    stored = read_tensors(folder)
    if not stored or not isinstance(config, XformerConfig) or getattr(config, "quantization_config", None) is not None:
        return  # the library's to compare: names may be translated, and numbers packed, while they are loaded
    if content := check_json(folder / CONFIG):
        with blame(f"{folder / CONFIG}", Exception):  # with weights beside it, it cannot be half a configuration
            XformerConfig.from_dict({**content, "architectures": config.architectures or ["XformerForSeq2SeqLM"]})
    with blame(f"{folder}: cannot build the model of {CONFIG}", Exception):
        found = compare(config, stored)
    found.missing = [name for name in found.missing if name not in computed]
    for problem, names in vars(found).items():
        if names:
            raise ArgumentError(f"{folder}: {len(names)} {problem} keys, such as {', '.join(names[:3])}")


def check_generation(options: Mapping[str, Any], config: PreTrainedConfig, where: str) -> None:
    """
    Checks options of `generate()`, of which the library would find some wrong while it decodes, and some never.

    Args:
        options: By their names; None is the library's default.
        config: The model's.
        where: The file, for the message.

    Raises:
        ArgumentError: One has a value that it cannot have.
    """
    given = {name: value for name, value in options.items() if value is not None and not is_off(name, value, options)}
    text_config = config.get_text_config(decoder=True)
    vocabulary = getattr(text_config, "vocab_size", None) or MOST
    positions = getattr(text_config, "max_position_embeddings", None) or 0
    for name, value in given.items():
        if wanted := unfit(name, value, vocabulary, positions):
            raise ArgumentError(f"{where}: `{name}` {wanted}, got {value!r:.80}")
    beams, count = given.get("num_beams", 1), given.get("num_return_sequences", 1)
    if count > beams and not given.get("do_sample"):
        raise ArgumentError(
            f"{where}: `num_return_sequences` is {count}, more than `num_beams` {beams}: raise the latter"
        )
    for least, most in (("min_length", "max_length"), ("min_new_tokens", "max_new_tokens")):
        if least in given and most in given and given[least] > given[most]:
            raise ArgumentError(f"{where}: `{least}` {given[least]} is more than `{most}` {given[most]}")
    with blame(where, Exception):  # of several types, for combinations of options
        GenerationConfig(**given)
    known = {*vars(GenerationConfig()), "_commit_hash"}
    if ignored := sorted(name for name in given if name not in known):
        logger.warning_once(f"{where}: `generate()` has no option {', '.join(ignored)[:200]}: ignored")


def is_off(name: str, value: Any, options: Mapping[str, Any]) -> bool:
    """Returns whether a value does nothing, though it would be none that is allowed."""
    if name in ("suppress_tokens", "begin_suppress_tokens"):
        return value == []
    return name == "temperature" and type(value) in (int, float) and value == 0 and not options.get("do_sample")


def unfit(name: str, value: Any, vocabulary: int, positions: int) -> str:
    """Returns what an option's value must be, or nothing if it is."""
    if reason := why_unusable(name, value):
        return reason
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name in WHOLE:
        least, most = WHOLE[name]
        most = max(most, positions) if most == MOST_TOKENS else most
        fits = number and isinstance(value, int) and least <= value <= most
        return "" if fits else f"must be a whole number from {least} to {most:,}"
    if name in NUMBERS:
        fits, wanted = number and NUMBERS[name][0](value), NUMBERS[name][1]
        return "" if fits else f"must be {wanted}"
    if name in BOOLEANS:
        return "" if isinstance(value, bool) else "must be true or false"
    if name in TOKEN_IDS:
        return "" if is_token(value, vocabulary) else f"must be a token of the vocabulary of {vocabulary:,}"
    if name in LISTS_OF_TOKEN_IDS:
        fits = are_tokens(value if isinstance(value, list) or name.endswith("tokens") else [value], vocabulary)
        return "" if fits else f"must list tokens of the vocabulary of {vocabulary:,}"
    if name == "bad_words_ids":
        fits = isinstance(value, list) and bool(value) and all(are_tokens(each, vocabulary) for each in value)
        return "" if fits else f"must list lists of tokens of the vocabulary of {vocabulary:,}"
    if name == "exponential_decay_length_penalty":
        fits = isinstance(value, list) and len(value) == 2 and is_token(value[0], MOST) and is_positive(value[1])
        return "" if fits else "must list the token from which on texts get a penalty, and its positive factor"
    if name == "sequence_bias":
        fits = isinstance(value, list) and all(map(partial(is_bias, vocabulary=vocabulary), value)) and bool(value)
        return "" if fits else f"must list pairs of tokens of the vocabulary of {vocabulary:,} and a number"
    if name == "early_stopping":
        return "" if isinstance(value, bool) or value == "never" else "must be true, false or 'never'"
    wrong = name in UNSUPPORTED and value not in (0, 1)
    return "is not for a file: give it to `generate()`" if wrong else ""


def why_unusable(name: str, value: Any) -> str:
    """Returns why no encoder-decoder can go by an option, or nothing if it can, or if the value switches it off."""
    what, off = UNUSABLE.get(name, ("", ()))
    return f"is {what}: leave it out" if what and value is not None and value not in off else ""


def is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MOST


def is_bias(value: Any, vocabulary: int) -> bool:
    fits = isinstance(value, list) and len(value) == 2 and are_tokens(value[0], vocabulary)
    return fits and isinstance(value[1], float) and math.isfinite(value[1])


def is_token(value: Any, vocabulary: int) -> bool:
    return type(value) is int and 0 <= value < vocabulary


def are_tokens(values: Any, vocabulary: int) -> bool:
    return isinstance(values, list) and bool(values) and all(is_token(each, vocabulary) for each in values)
