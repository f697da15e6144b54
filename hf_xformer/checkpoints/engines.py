# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
The common parts of exports to other engines: their interface, their report, the comparison with the model.

Shapes: T target length, V vocabulary.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import ArgumentError
from ..models import XformerConfig
from .lengths import position_limit


Token = TypeVar("Token")

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


def left_out(generation: GenerationConfig, carried: Iterable[str]) -> dict[str, Any]:
    """
    Returns the fields of a generation config that change the tokens of `generate()`, and that an engine does not have.

    Args:
        carried: The fields that it has.
    """
    given = generation.to_diff_dict()
    exact = {*carried, *WITHOUT_EFFECT, *(() if given.get("do_sample") else OF_SAMPLING)}
    return {name: value for name, value in given.items() if name not in exact and NEUTRAL.get(name) != value}


@dataclass(frozen=True)
class Export:
    """
    Report on an export.

    Args:
        quantization: Type of the written weights.
        difference: Largest difference of log-probabilities from the model's, in nats, as this machine computes them.
        rounding: The same in exact arithmetic: what the type of the weights costs on every machine.
        compute_type: In which this machine computes; CTranslate2 takes another where a type is not supported.
        left: Fields of the generation config that the export does not stand for, or not exactly.
        notes: Lines to tell whoever exports.
    """

    quantization: str
    difference: float
    rounding: float
    compute_type: str
    left: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def inexact(self) -> bool:
        """True if this machine's arithmetic adds more error than the type of the weights."""
        return self.difference > max(2 * self.rounding, TOLERANCE)


@dataclass(frozen=True)
class Engine:
    """
    An engine that decodes exported models.

    Args:
        title: As it is called.
        quantizations: Types of the weights that it reads.
        files: Patterns of the names in an export; the first is in every one and in nothing else.
        otherwise: Advice for models of other types.
        check_installed: Raises ArgumentError if a library is missing.
        check_config: Raises ArgumentError if the engine has no counterpart of a field's value.
        write: Writes a model, its tokenizers and a quantisation into an empty folder, and reports on it.
    """

    title: str
    quantizations: tuple[str, ...]
    files: tuple[str, ...]
    otherwise: str
    check_installed: Callable[[], object]
    check_config: Callable[[XformerConfig], None]
    write: Callable[
        [PreTrainedModel, tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase], str, Path],
        Export,
    ]


def start_and_ends(model: PreTrainedModel, title: str) -> tuple[int, list[int]]:
    """
    Returns the tokens that begin and end a target.

    Args:
        title: The engine's, for the message.

    Raises:
        ArgumentError: The model does not say which.
    """
    chosen: dict[str, Any] = {}
    for name in ("decoder_start_token_id", "eos_token_id"):
        values = (getattr(model.generation_config, name), getattr(model.config, name))
        chosen[name] = next((value for value in values if value is not None), None)
        if chosen[name] is None:
            raise ArgumentError(f"`{name}=None` cannot be exported: {title} needs one")
    ends = chosen["eos_token_id"]
    return chosen["decoder_start_token_id"], ends if isinstance(ends, list) else [ends]


def sample(sides: Sequence[Sequence[Token]], config: PreTrainedConfig) -> list[list[Token]]:
    """Draws tokens of each side at random, the same ones each time, as many as the model has positions for."""
    generator = torch.Generator().manual_seed(0)
    count = min(SAMPLE_LENGTH, position_limit(config, "decoder") or SAMPLE_LENGTH) - 1
    return [
        [tokens[i] for i in torch.randint(len(tokens), (count,), generator=generator).tolist()] for tokens in sides
    ]


@torch.no_grad()
def log_probabilities(model: PreTrainedModel, source: list[int], target: list[int]) -> torch.Tensor:
    """Returns the log-probabilities of a target's tokens after its start token, given the source: (T - 1,)."""
    was_training = model.training
    inputs, outputs = (torch.tensor([ids], device=model.device) for ids in (source, target))
    logits = model.eval()(input_ids=inputs, decoder_input_ids=outputs[:, :-1]).logits[0]  # (T - 1, V)
    model.train(was_training)
    return logits.float().log_softmax(dim=-1).gather(1, outputs[0, 1:, None]).squeeze(1).cpu()


def check_difference(difference: float, quantization: str, title: str) -> None:
    """
    Checks the largest difference of log-probabilities.

    Raises:
        ArgumentError: It is not finite, or not that of rounding.
    """
    if (quantization == EXACT and not difference < TOLERANCE) or not math.isfinite(difference):
        raise ArgumentError(f"{title} computes something else: its log-probabilities differ by {difference:.1e}")
