# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Writes Xformer models for CTranslate2, beside the arguments that decode alike, and compares them."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..data.encoding import targets_own_vocabulary
from ..files import CONFIG, write_json
from .ctranslate2_spec import check_config, load_ctranslate2, make_spec
from .engines import (
    DEFAULT_LENGTH,
    EXACT,
    Engine,
    Export,
    check_difference,
    left_out,
    log_probabilities,
    sample,
    start_and_ends,
)
from .lengths import position_limit
from .vocabulary import check_vocabulary


TITLE = "CTranslate2"
QUANTIZATIONS = ("int8", "int8_float32", "int16", "float16", "bfloat16", "float32")
OPTIONS = "decoding.json"
FILES = ("model.bin", CONFIG, OPTIONS, *(f"{side}_vocabulary.json" for side in ("shared", "source", "target")))

CARRIED = {"num_beams", "length_penalty", "max_length", "max_new_tokens", "eos_token_id"}
# Tokens that these fields forbid: the library leaves the other probabilities as they were, CTranslate2 makes their
# sum 1 again. That changes no greedy choice, but may change a beam's.
CARRIED_GREEDILY = {"min_length", "min_new_tokens", "bad_words_ids", "suppress_tokens", "forced_eos_token_id"}


def tokens_of(tokenizer: PreTrainedTokenizerBase, size: int, side: str) -> list[str]:
    """Returns a tokenizer's tokens in the order of their ids; an id without one is called `<unused_0>` or so."""
    own = targets_own_vocabulary(tokenizer) if side == "target" else None
    vocabulary = own or tokenizer.get_vocab()
    vocabulary = {**vocabulary, **getattr(tokenizer, "lang_token_to_id", {})}  # M2M100 keeps its languages apart
    by_id = {i: token for token, i in vocabulary.items()}
    unused = (name for i in count() if (name := f"<unused_{i}>") not in vocabulary)
    return [by_id[i] if i in by_id else next(unused) for i in range(size)]


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of both sides, and those that begin and end a target or stand for unknown ones."""

    source: list[str]
    target: list[str]
    start: str
    ends: list[str]
    unknown: str

    @classmethod
    def of(
        cls, model: PreTrainedModel, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
    ) -> "Vocabulary":
        """
        Raises:
            ArgumentError: The tokenizers do not fit the model, or it does not say how a target begins or ends.
        """
        config = model.config
        check_vocabulary(config, source, target)
        start, ends = start_and_ends(model, TITLE)
        tokens = tokens_of(target, config.vocab_size, "target")
        return cls(
            source=tokens_of(source, config.vocab_of("encoder"), "source"),
            target=tokens,
            start=tokens[start],
            ends=[tokens[i] for i in ends],
            unknown=target.unk_token or target.pad_token,
        )

    def register(self, spec: Any) -> None:
        """Writes the tokens into a specification."""
        spec.register_source_vocabulary(self.source)
        spec.register_target_vocabulary(self.target)
        spec.config.decoder_start_token = spec.config.bos_token = self.start
        spec.config.eos_token, spec.config.unk_token = self.ends[0], self.unknown


def decoding_options(
    generation: GenerationConfig, vocabulary: Vocabulary, limit: int | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Returns the arguments with which `Translator.translate_batch` decodes as the model's `generate()` does by default.

    Args:
        limit: The longest target, in tokens, that the model has positions for.

    Returns:
        The arguments, and the fields of the generation config that they do not stand for, or not exactly.
    """
    given = generation.to_diff_dict()
    beams = given.get("num_beams", 1)
    # `max_length` counts the start token too, and `max_new_tokens` a forced end token.
    longest = given.get("max_new_tokens", given.get("max_length", DEFAULT_LENGTH + 1) - 1)
    longest -= "forced_eos_token_id" in given
    shortest = given.get("min_new_tokens", max(given.get("min_length", 0) - 1, 0))
    words = [*given.get("bad_words_ids", ()), *([i] for i in given.get("suppress_tokens", ()))]
    options = {
        "beam_size": beams,
        "length_penalty": given.get("length_penalty", 1.0),
        "max_decoding_length": longest if limit is None else min(longest, limit),
        "min_decoding_length": shortest,
        "max_input_length": 0,
    }
    if words:
        options["suppress_sequences"] = [[vocabulary.target[i] for i in word] for word in words]
    if len(vocabulary.ends) > 1:
        options["end_token"] = vocabulary.ends
    left = left_out(generation, CARRIED | (CARRIED_GREEDILY if beams == 1 else set()))
    if beams > 1 and options["length_penalty"] and given.get("early_stopping") is not True:
        left["early_stopping"] = given.get("early_stopping", False)
    else:
        left.pop("early_stopping", None)
    return options, left


class Comparison:
    """Compares an export's log-probabilities of a few random tokens with its model's."""

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary):
        special = {vocabulary.start, vocabulary.unknown, *vocabulary.ends}
        sides = (vocabulary.source, vocabulary.target)
        ordinary = [[token for token in tokens if token not in special] or tokens for tokens in sides]
        self.source, self.target = sample(ordinary, model.config)
        source = {token: i for i, token in enumerate(vocabulary.source)}
        target = {token: i for i, token in enumerate(vocabulary.target)}
        ids = [target[token] for token in (vocabulary.start, *self.target, vocabulary.ends[0])]
        self.expected = log_probabilities(model, [source[token] for token in self.source], ids)

    def difference(self, folder: Path, compute_type: str = "default") -> tuple[float, str]:
        """Returns the largest difference, in nats, and the type in which this machine computes."""
        translator = load_ctranslate2().Translator(str(folder), inter_threads=1, compute_type=compute_type)
        (result,) = translator.score_batch([self.source], [self.target], max_input_length=0)
        difference = (torch.tensor(result.log_probs) - self.expected).abs().max().item()
        return difference, translator.compute_type


def save(spec: Any, quantization: str, options: dict[str, Any], folder: Path) -> None:
    """Writes a specification with its vocabularies, quantised, into an empty folder."""
    layers = [layer.self_attention for layer in (*spec.encoder.layer, *spec.decoder.layer)]
    divisors = [getattr(layer, "rotary_scaling_long_factor", None) for layer in layers]
    spec.validate()
    spec.optimize(quantization=quantization)
    # Angles grow with the position, and so would the error of divisors in half precision.
    for layer, each in zip(layers, divisors, strict=True):
        if each is not None:
            exact = load_ctranslate2().specs.model_spec.PyTorchVariable(each)
            layer.rotary_scaling_long_factor = layer.rotary_scaling_short_factor = exact
    spec.save(str(folder))
    write_json(folder / OPTIONS, options)


def write_export(
    model: PreTrainedModel,
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
    quantization: str,
    folder: Path,
) -> Export:
    """
    Writes an export into an empty folder, and compares it with its model, which is in float32 on the CPU.

    Raises:
        ArgumentError: The tokenizers do not fit, a tensor has no counterpart, or CTranslate2 computes something else.
    """
    vocabulary = Vocabulary.of(model, *tokenizers)
    options, left = decoding_options(model.generation_config, vocabulary, position_limit(model.config, "decoder"))
    spec, comparison = make_spec(model), Comparison(model, vocabulary)
    vocabulary.register(spec)
    save(spec, quantization, options, folder)
    difference, compute_type = comparison.difference(folder)
    rounding = difference if compute_type == EXACT else comparison.difference(folder, EXACT)[0]
    check_difference(difference, quantization, TITLE)
    notes = [
        f"generation config: `{name}={value!r}` is not, or not exactly, in {OPTIONS}" for name, value in left.items()
    ]
    return Export(quantization, difference, rounding, compute_type, left, notes)


CTRANSLATE2 = Engine(
    title=TITLE,
    quantizations=QUANTIZATIONS,
    files=FILES,
    otherwise="ctranslate2's own ct2-transformers-converter exports stock models, or hf-xformer convert first",
    check_installed=load_ctranslate2,
    check_config=check_config,
    write=write_export,
)
