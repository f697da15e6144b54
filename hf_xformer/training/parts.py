# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of a model by name or pattern, such as `decoder.layers.0`: frozen, or with a learning rate of their own."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from ..errors import ArgumentError, did_you_mean
from ..yaml_files import read_mapping_option
from .arguments import ModelArguments


EMBEDDINGS = "embeddings"  # name of all tables of tokens and positions, and of an output layer that is tied to one
EXAMPLES = f"; there are encoder, decoder.layers.0, *.feed_forward, {EMBEDDINGS} and the like"
# In front of the names of a model's own weights: of adapters, and of the model without its head.
PREFIX = re.compile(r"^(base_model\.model\.)?(model\.)?")


@dataclass(frozen=True)
class Weight:
    """
    A parameter and what recipes call it.

    Args:
        names: One for each module that shares it, without the prefixes of wrappers.
        is_embedding: Whether one of these modules is an embedding.
    """

    parameter: nn.Parameter
    names: tuple[str, ...]
    is_embedding: bool

    def is_covered(self, patterns: Iterable[str]) -> bool:
        """Tells whether patterns together match every name: of a tied weight a part alone cannot be meant."""
        patterns = tuple(patterns)
        if self.is_embedding and EMBEDDINGS in patterns:
            return True
        return all(any(matches(each, name) for each in patterns) for name in self.names)

    def is_touched(self, pattern: str) -> bool:
        """Tells whether a pattern matches one of the names."""
        return (self.is_embedding and pattern == EMBEDDINGS) or any(matches(pattern, name) for name in self.names)


def matches(pattern: str, name: str) -> bool:
    """Tells whether a pattern is that of a weight, or of a module that the weight is in."""
    pattern = PREFIX.sub("", pattern)
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def weights_of(model: nn.Module) -> list[Weight]:
    """Returns a model's parameters, each once, in their order."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(PREFIX.sub("", name))
    tables = {id(each.weight) for each in model.modules() if isinstance(each, nn.Embedding)}
    return [Weight(each, tuple(found), id(each) in tables) for each, found in names.items()]


def check_patterns(option: str, patterns: Sequence[str], weights: list[Weight], together: bool) -> None:
    """
    Checks that every pattern means a weight.

    Args:
        together: Whether the names of a tied weight may fall under several patterns.

    Raises:
        ArgumentError: A pattern matches no name, or nothing but a part of the names of tied weights.
    """
    for pattern in patterns:
        touched = [each for each in weights if each.is_touched(pattern)]
        if not touched:
            known = dict.fromkeys(part for each in weights for name in each.names for part in stems(name))
            meant = did_you_mean(PREFIX.sub("", pattern), [EMBEDDINGS, *known])
            raise ArgumentError(f"--{option} {pattern}: no weight of the model has such a name{meant or EXAMPLES}")
        if not any(each.is_covered(patterns if together else (pattern,)) for each in touched):
            names = touched[0].names
            raise ArgumentError(
                f"--{option} {pattern}: {' and '.join(names)} are one weight: "
                f"{'give all of its names, or ' if together else 'give '}{EMBEDDINGS}"
            )


def stems(name: str) -> list[str]:
    """Returns the names of the modules that a weight is in, and its own: `a`, `a.b` and `a.b.weight`."""
    words = name.split(".")
    return [".".join(words[:count]) for count in range(1, len(words) + 1)]


def freeze(model: nn.Module, patterns: Sequence[str] | None, say: Callable[[str], None] = lambda line: None) -> None:
    """
    Freezes the weights that patterns cover, and says how many parameters they are.

    A tied weight whose names are not all covered is trained, which is said too.

    Raises:
        ArgumentError: A pattern means no weight, or nothing is left to train.
    """
    if not patterns:
        return
    weights = weights_of(model)
    check_patterns("freeze", patterns, weights, together=True)
    for each in weights:
        if each.is_covered(patterns):
            each.parameter.requires_grad_(False)
    frozen, whole = frozen_parameters(model), sum(size_of(each.parameter) for each in weights)
    where = f"--freeze {' '.join(patterns)}"
    if frozen == whole:
        raise ArgumentError(f"{where}: freezes all weights, and leaves none to train")
    say(f"{where}: {frozen:,} of {whole:,} parameters are frozen ({100 * frozen / whole:.2g} %)")
    for each in weights:
        if each.parameter.requires_grad and any(each.is_touched(pattern) for pattern in patterns):
            first, *others = each.names
            tied = " and ".join(others)
            say(f"{first} is trained all the same: it is tied to {tied}; --freeze {EMBEDDINGS} freezes it")


def freeze_computed(model: nn.Module, fresh: nn.Module) -> None:
    """
    Freezes the weights that a model of its configuration does not train and a loaded one does: the sinusoidal tables
    of Marian and Pegasus.

    Args:
        fresh: The model as its configuration makes it.
    """
    for name, parameter in fresh.named_parameters():
        if not parameter.requires_grad:
            model.get_parameter(name).requires_grad_(False)


def frozen_parameters(model: nn.Module) -> int:
    """Returns the number of a model's parameters that are not trained."""
    return sum(size_of(each) for each in model.parameters() if not each.requires_grad)


def size_of(parameter: Any) -> int:
    """Returns a parameter's elements; ZeRO-3 leaves empty ones, which know their size."""
    return getattr(parameter, "ds_numel", parameter.numel())


def parse_multipliers(given: dict[str, Any] | str | None) -> dict[str, float] | None:
    """
    Returns the factor of each pattern.

    Args:
        given: `"encoder=0.1,embeddings=0.5"`, or a mapping, as such or in braces as YAML or JSON has it.

    Raises:
        ArgumentError: It is neither, or a factor is no number above 0.
    """
    if not given:
        return None
    parsed = read_mapping_option("lr_multipliers", given, "part=factor")
    for name, value in parsed.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            advice = f"; --freeze {name} leaves a part as it is" if value == 0 else ""
            raise ArgumentError(f"--lr_multipliers {name}: expected a number above 0, got {value!r}{advice}")
    return {name: float(value) for name, value in parsed.items()}


def multipliers_of(model: nn.Module, multipliers: dict[str, float]) -> dict[nn.Parameter, float]:
    """
    Returns the factor of each parameter's learning rate: the product of all patterns that it falls under.

    Raises:
        ArgumentError: A pattern means no weight.
    """
    weights = weights_of(model)
    check_patterns("lr_multipliers", list(multipliers), weights, together=False)
    return {
        each.parameter: math.prod(factor for pattern, factor in multipliers.items() if each.is_covered((pattern,)))
        for each in weights
    }


def check_parts(model: nn.Module, model_args: ModelArguments) -> None:
    """Checks the parts that options name, on a model without memory that is frozen as they say."""
    if model_args.freeze:
        check_patterns("freeze", model_args.freeze, weights_of(model), together=True)
    multipliers_of(model, parse_multipliers(model_args.lr_multipliers) or {})


def describe_parts(model: nn.Module, model_args: ModelArguments) -> dict[str, str]:
    """Returns in words what a run has done to parts of its model, by option; nothing of options that it has not."""
    found = {}
    if model_args.freeze:
        found["freeze"] = f"{', '.join(model_args.freeze)} ({frozen_parameters(model):,} parameters)"
    if multipliers := parse_multipliers(model_args.lr_multipliers):
        found["lr_multipliers"] = ", ".join(f"{name} {factor:g}" for name, factor in multipliers.items())
    return found
