# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Reading a run's options: one flat YAML file, the recipe, and a command line that wins over it."""

import json
import re
import sys
from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from transformers import HfArgumentParser, Seq2SeqTrainingArguments

from ..errors import ArgumentError
from ..files import find, read_yaml
from .arguments import DataArguments, ModelArguments
from .launch import check_launch, runs_on_cpu


class HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults, and leaves the lines of the description as they are."""


class RunParser(HfArgumentParser):
    """Says what is wrong with the command line in one line, as it does for the recipe."""

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(f"{message} (see --help)")


ARGUMENT_CLASSES = (ModelArguments, DataArguments, Seq2SeqTrainingArguments)


def parse_run(
    argv: Sequence[str] | None, description: str
) -> tuple[ModelArguments, DataArguments, Seq2SeqTrainingArguments]:
    """
    Reads `[RECIPE.yaml] [--option value ...]`; the command line wins over the recipe.

    Raises:
        ArgumentError: An unknown option, or a value of the wrong type, in the recipe or on the command line.
        LaunchError: Devices, processes or a precision that cannot be had here.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = RunParser(
        ARGUMENT_CLASSES,  # type: ignore[arg-type]  # which the library has as a new type of anything
        usage="%(prog)s [RECIPE.yaml] [--option value ...]",
        description=description,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    if (path := recipe_of(argv)) is not None:
        argv.pop(0)
        recipe = as_words(read_recipe(path))
        try:
            parser.parse_args(recipe)
        except ArgumentError as error:
            raise ArgumentError(f"{path}: {error}") from error
        argv = recipe + argv
    # Else several processes on a machine without accelerators for them would each train alone.
    parser.set_defaults(use_cpu=runs_on_cpu())
    # The Trainer's own choice looks at every step for parameters that were not used: there are none.
    parser.set_defaults(ddp_find_unused_parameters=False)
    # Before the training arguments are made, which start the process group and with it whatever cannot be here.
    check_launch(parser.parse_args(argv))
    return parser.parse_args_into_dataclasses(argv, look_for_args_file=False)  # type: ignore[return-value]


def recipe_of(argv: Sequence[str] | None) -> Path | None:
    """The recipe on a command line, which comes first if there is one."""
    argv = sys.argv[1:] if argv is None else argv
    return find(argv[0]) if argv and not argv[0].startswith("-") else None


def options_beside_recipe(argv: Sequence[str] | None) -> list[str]:
    """The words of a command line behind the recipe."""
    words = list(sys.argv[1:] if argv is None else argv)
    return words if recipe_of(argv) is None else words[1:]


def read_recipe(path: Path) -> dict:
    """The options of a flat YAML recipe, refusing unknown ones by name."""
    try:
        options = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(options, dict):
        raise ArgumentError(f"{path}: expected lines of 'option: value', got {options!r:.60}")
    known = {each.name for argument_class in ARGUMENT_CLASSES for each in fields(argument_class)}
    if unknown := [name for name in options if name not in known]:
        raise ArgumentError(f"{path}: unknown option {', '.join(map(repr, unknown))}; --help lists those there are")
    return options


def as_words(options: dict) -> list[str]:
    """A recipe as the command line that says the same, so that argparse checks both alike; null is the default."""
    words = []
    for name, value in options.items():
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif isinstance(value, dict):
            words.append(f"--{name}={json.dumps(value)}")
        elif value is not None:
            words.append(f"--{name}={value}")
    return words


def parse_overrides(overrides: str | None) -> dict:
    """`"d_model=256,norm_type=layernorm"`, or a mapping as JSON, -> `{"d_model": 256, "norm_type": "layernorm"}`."""
    if not overrides:
        return {}
    try:
        if overrides.startswith("{"):
            return read_yaml(overrides)
        items = [item.partition("=") for item in re.split(r",(?=\s*\w+\s*=)", overrides)]
        parsed = {name.strip(): read_yaml(value) for name, _, value in items}
    except ArgumentError as error:
        raise ArgumentError(f"--config_overrides: {overrides!r} is not 'field=value,...'") from error
    if wrong := [name for name, equals, _ in items if not equals]:
        raise ArgumentError(f"--config_overrides: expected 'field=value', got {wrong[0]!r}")
    return parsed
