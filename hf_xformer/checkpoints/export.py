# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Exports Xformer models to CTranslate2: checks, writes and compares them; `ctranslate2_spec` says them in its terms.

Shapes: T target length, V vocabulary.
"""

import copy
import math
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import ArgumentError
from ..files import CONFIG, check_output_folder, contents, fill_folder, write_json
from ..models import XformerConfig
from .ctranslate2_spec import check_config, load_ctranslate2, make_spec
from .lengths import position_limit
from .loading import load_model, load_tokenizers, read_own_config
from .vocabulary import check_vocabulary


QUANTIZATIONS = ("int8", "int8_float32", "int16", "float16", "bfloat16", "float32")
OPTIONS = "decoding.json"
FILES = {"model.bin", CONFIG, OPTIONS, *(f"{side}_vocabulary.json" for side in ("shared", "source", "target"))}
# Log-probabilities in float32 differ by less because of rounding; a wrong export is off by far more.
TOLERANCE = 1e-2
# Exact arithmetic with the written weights: on every CPU, whatever their type.
EXACT = "float32"
SAMPLE_LENGTH = 40  # tokens of either side, on which an export is compared with its model
DEFAULT_LENGTH = 20  # of a target in tokens that `generate()` has where none is given

# Fields of a generation config that do not change the tokens, or are written elsewhere.
WITHOUT_EFFECT = {
    *("transformers_version", "_from_model_config", "pad_token_id", "bos_token_id", "decoder_start_token_id"),
    *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "compile_config", "disable_compile"),
    *("return_dict_in_generate", "output_attentions", "output_hidden_states", "output_scores", "output_logits"),
    *("low_memory", "remove_invalid_values", "num_assistant_tokens", "num_assistant_tokens_schedule"),
    *("assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind"),
}
OF_SAMPLING = {"temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"}
OF_BEAMS = {"early_stopping", "length_penalty"}
NEUTRAL = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "num_return_sequences": 1,
    "min_length": 0,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "renormalize_logits": False,
}
CARRIED = {"num_beams", "length_penalty", "max_length", "max_new_tokens", "eos_token_id"}
# Tokens that these fields forbid: the library leaves the other probabilities as they were, CTranslate2 makes their
# sum 1 again. That changes no greedy choice, but may change a beam's.
CARRIED_GREEDILY = {"min_length", "min_new_tokens", "bad_words_ids", "suppress_tokens", "forced_eos_token_id"}


STOCK_MODELS = "ctranslate2's own ct2-transformers-converter exports stock models, or hf-xformer convert first"


def tokens_of(tokenizer: PreTrainedTokenizerBase, size: int, side: str) -> list[str]:
    """Returns a tokenizer's tokens in the order of their ids; an id without one is called `<unused_0>` or so."""
    separate = side == "target" and getattr(tokenizer, "separate_vocabs", False)  # Marian's may hold two vocabularies
    vocabulary = tokenizer.target_encoder if separate else tokenizer.get_vocab()
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
        config, generation = model.config, model.generation_config
        check_vocabulary(config, source, target)
        chosen = {}
        for name in ("decoder_start_token_id", "eos_token_id"):
            values = (getattr(generation, name), getattr(config, name))
            chosen[name] = next((value for value in values if value is not None), None)
            if chosen[name] is None:
                raise ArgumentError(f"`{name}=None` cannot be exported: CTranslate2 needs one")
        tokens = tokens_of(target, config.vocab_size, "target")
        ends = chosen["eos_token_id"]
        ends = ends if isinstance(ends, list) else [ends]
        return cls(
            source=tokens_of(source, config.vocab_of("encoder"), "source"),
            target=tokens,
            start=tokens[chosen["decoder_start_token_id"]],
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
    exact = CARRIED | WITHOUT_EFFECT
    exact |= set() if given.get("do_sample") else OF_SAMPLING
    exact |= OF_BEAMS | CARRIED_GREEDILY if beams == 1 else set()
    left = {name: value for name, value in given.items() if name not in exact and NEUTRAL.get(name) != value}
    if beams > 1 and options["length_penalty"] and given.get("early_stopping") is not True:
        left["early_stopping"] = given.get("early_stopping", False)
    else:
        left.pop("early_stopping", None)
    return options, left


@torch.no_grad()
def log_probabilities(model: PreTrainedModel, source: list[int], target: list[int]) -> torch.Tensor:
    """Returns the log-probabilities of a target's tokens after its start token, given the source: (T - 1,)."""
    inputs, outputs = (torch.tensor([ids], device=model.device) for ids in (source, target))
    logits = model(input_ids=inputs, decoder_input_ids=outputs[:, :-1]).logits[0]  # (T - 1, V)
    return logits.float().log_softmax(dim=-1).gather(1, outputs[0, 1:, None]).squeeze(1).cpu()


class Comparison:
    """Compares an export's log-probabilities of a few random tokens with its model's."""

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary):
        generator = torch.Generator().manual_seed(0)
        limit = position_limit(model.config, "decoder") or SAMPLE_LENGTH
        special = {vocabulary.start, vocabulary.unknown, *vocabulary.ends}
        self.source: list[str] = []
        self.target: list[str] = []
        for tokens, sampled in ((vocabulary.source, self.source), (vocabulary.target, self.target)):
            ordinary = [token for token in tokens if token not in special] or tokens
            chosen = torch.randint(len(ordinary), (min(SAMPLE_LENGTH, limit) - 1,), generator=generator)
            sampled += [ordinary[i] for i in chosen.tolist()]
        source = {token: i for i, token in enumerate(vocabulary.source)}
        target = {token: i for i, token in enumerate(vocabulary.target)}
        ids = [target[token] for token in (vocabulary.start, *self.target, vocabulary.ends[0])]
        was_training = model.training
        self.expected = log_probabilities(model.eval(), [source[token] for token in self.source], ids)
        model.train(was_training)

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


def check_out(out: Path, overwrite: bool) -> None:
    """
    Checks that an export may be written to a folder.

    Raises:
        ArgumentError: There cannot be such a folder, or it is not empty; with `overwrite`, it holds something else
            than an export.
    """
    check_output_folder(out, in_use=None if overwrite else "--overwrite replaces an earlier export")
    if others := {path.name for path in contents(out)} - FILES:
        raise ArgumentError(f"{out}: --overwrite replaces exports, and {min(others)} is not part of one")


@dataclass(frozen=True)
class Export:
    """
    Report on an export.

    Args:
        quantization: Type of the written weights.
        difference: Largest difference of log-probabilities from the model's, in nats, as this machine computes them.
        rounding: The same in exact arithmetic: what the type of the weights costs on every machine.
        compute_type: In which this machine computes; CTranslate2 takes another where a type is not supported.
        left: Fields of the generation config that the arguments beside the model do not stand for, or not exactly.
    """

    quantization: str
    difference: float
    rounding: float
    compute_type: str
    left: dict[str, Any]

    @property
    def inexact(self) -> bool:
        """True if this machine's arithmetic adds more error than the type of the weights."""
        return self.difference > max(2 * self.rounding, TOLERANCE)


def export_model(
    model: PreTrainedModel,
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
    out: Path,
    quantization: str | None = None,
    overwrite: bool = False,
) -> Export:
    """
    Writes an Xformer and its vocabularies as a CTranslate2 model, beside the arguments that decode alike.

    The result is loaded and compared with the model before it gets its name.

    Args:
        model: Stays as it is.
        tokenizers: The source's and the target's, as `load_tokenizers` returns them.
        out: Folder to write.
        quantization: One of `QUANTIZATIONS`; None keeps the type of the model's weights.
        overwrite: Whether `out` may hold an earlier export, which is replaced.

    Raises:
        ArgumentError: ctranslate2 is not installed, it has no counterpart of something in the model or computes
            something else, the tokenizers do not fit, or `out` is in use. Nothing is written then.
    """
    load_ctranslate2()
    if not isinstance(model.config, XformerConfig):
        raise ArgumentError(f"model_type {model.config.model_type!r} is not 'xformer': {STOCK_MODELS}")
    check_config(model.config)
    out = Path(out)
    check_out(out, overwrite)
    return write_export(model, tokenizers, out, quantization)


def write_export(
    model: PreTrainedModel,
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
    out: Path,
    quantization: str | None,
) -> Export:
    """Writes an export to a folder that has been checked; all else is as for [`export_model`]."""
    quantization = quantization or type_name(model.dtype)
    if quantization not in QUANTIZATIONS:
        raise ArgumentError(f"quantization {quantization!r}: CTranslate2 has {', '.join(QUANTIZATIONS)}")
    if (model.dtype, model.device.type) != (torch.float32, "cpu"):
        model = copy.deepcopy(model).to("cpu", torch.float32)  # type: ignore[arg-type]  # the library's wrapper
    vocabulary = Vocabulary.of(model, *tokenizers)
    options, left = decoding_options(model.generation_config, vocabulary, position_limit(model.config, "decoder"))
    spec, comparison = make_spec(model), Comparison(model, vocabulary)
    vocabulary.register(spec)

    def write(folder: Path) -> tuple[float, float, str]:
        save(spec, quantization, options, folder)
        difference, compute_type = comparison.difference(folder)
        rounding = difference if compute_type == EXACT else comparison.difference(folder, EXACT)[0]
        if (quantization == EXACT and not difference < TOLERANCE) or not math.isfinite(difference):
            raise ArgumentError(
                f"CTranslate2 computes something else: its log-probabilities differ by {difference:.1e}"
            )
        return difference, rounding, compute_type

    difference, rounding, compute_type = fill_folder(out, write, earlier=FILES)
    return Export(quantization, difference, rounding, compute_type, left)


def type_name(dtype: Any) -> str:
    """Returns the name of a type if weights can be written in it; else of the one that loses nothing."""
    name = str(dtype).removeprefix("torch.")
    return name if name in QUANTIZATIONS else EXACT


def export_checkpoint(
    checkpoint: str,
    out: Path,
    quantization: str | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Export:
    """
    Exports a checkpoint, a folder or a Hub name, and its tokenizers; other arguments as for [`export_model`].

    Raises:
        ArgumentError: The checkpoint does not load, or as for [`export_model`]. Nothing is written then.
    """
    load_ctranslate2()
    config = read_own_config(checkpoint, STOCK_MODELS, trust_remote_code)
    check_config(config)  # before weights are loaded
    check_out(out, overwrite)
    tokenizers = load_tokenizers(checkpoint, trust_remote_code=trust_remote_code)
    model = load_model(checkpoint, trust_remote_code=trust_remote_code, dtype=torch.float32)
    try:
        return write_export(model, tokenizers, out, quantization or type_name(config.dtype))
    except ArgumentError as error:
        raise ArgumentError(f"{checkpoint}: {error}") from error
