# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Reading a run's options: one flat YAML file, the recipe, and a command line that wins over it."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser, Seq2SeqTrainingArguments
from transformers.training_args import OptimizerNames

from ..decoding.metrics import GREATER_IS_BETTER
from ..errors import ArgumentError, naming, one_line, wrong_choice
from ..files import find
from ..yaml_files import read_mapping_option, read_yaml_file
from .arguments import DataArguments, ModelArguments
from .launch import prepare_launch, runs_on_cpu
from .launch_checks import check_launch, check_world
from .muon import MUON
from .parts import parse_multipliers
from .schema import GROUPS, MORE_CHOICES, RUN_DEFAULTS, json_schema, options, unknown
from .validation_sets import metric_of, parse_sets


# Mappings that may be files of JSON, which the library reads.
CONFIG_FILES = ("accelerator_config", "fsdp_config", "deepspeed")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and leaves the lines of the description as they are."""


class PrintSchema(argparse.Action):
    """`--schema`: prints the JSON schema of recipes and ends, as `--help` prints the help."""

    def __call__(self, parser, *args):
        print(json.dumps(json_schema(), indent=2))
        parser.exit()


def parse_run(
    argv: Sequence[str] | None, description: str
) -> tuple[ModelArguments, DataArguments, Seq2SeqTrainingArguments]:
    """
    Reads `[RECIPE.yaml] [--option value ...]`; the command line wins over the recipe.

    Raises:
        ArgumentError: An unknown option, or a value of the wrong type, in the recipe or on the command line.
        LaunchError: Devices, processes or a precision that this machine does not have.
    """
    recipe, words = split_command_line(argv)
    merged = parse_words(words, {} if recipe is None else read_recipe(recipe), description)
    # Before the training arguments are made: they start the process group, and with it whatever cannot be here.
    check_launch(argparse.Namespace(**merged))
    prepare_launch(argparse.Namespace(**merged))
    merged["validation_sets"] = parse_sets(merged["validation_sets"])
    settle_direction(merged)
    merged["optim_args"] = joined(merged["optim_args"])
    merged["freeze"] = sorted(set(merged["freeze"] or ())) or None
    merged["lr_multipliers"] = parse_multipliers(merged["lr_multipliers"])
    of_model, of_data, of_trainer = (
        {name: merged[name] for name, option in options().items() if option.group == group} for group in GROUPS
    )
    if is_muon := of_trainer["optim"] == MUON:  # which the library does not know
        of_trainer["optim"] = OptimizerNames.ADAMW_TORCH_FUSED
    try:
        trainer = Seq2SeqTrainingArguments(**of_trainer)
    except (ValueError, TypeError, ImportError) as error:  # by which the library refuses values, with their names
        raise ArgumentError(f"options of the Trainer: {one_line(error)}") from error
    if is_muon:
        trainer.optim = MUON
    check_world(trainer)
    return ModelArguments(**of_model), DataArguments(**of_data), trainer


def settle_direction(merged: dict[str, Any]) -> None:
    """
    Says in `greater_is_better`, and in the `mode` of a schedule that goes by the metric, which value of
    `metric_for_best_model` is the better one: the library takes the larger of every metric but the loss, and the
    schedules take the smaller.

    Raises:
        ArgumentError: They were given, and say the opposite.
    """
    by_metric = merged["lr_scheduler_type"] in ("reduce_lr_on_plateau", "greedy")
    name = merged["metric_for_best_model"]
    if name is None and not by_metric and not merged["load_best_model_at_end"]:
        return
    best = metric_of(name, merged["validation_sets"] or ())
    if best not in GREATER_IS_BETTER:  # refused when the options are checked
        return
    greater = GREATER_IS_BETTER[best]
    better = f"the {'larger' if greater else 'smaller'} value of {best} is the better one: leave it out"
    if merged["greater_is_better"] not in (None, greater):
        raise ArgumentError(f"--greater_is_better {str(merged['greater_is_better']).lower()}: {better}")
    merged["greater_is_better"] = greater
    if by_metric:
        kwargs, mode = merged["lr_scheduler_kwargs"] or {}, "max" if greater else "min"
        if kwargs.get("mode", mode) != mode:
            raise ArgumentError(f"--lr_scheduler_kwargs {json.dumps(kwargs)}: {better}")
        merged["lr_scheduler_kwargs"] = {**kwargs, "mode": mode}


def joined(optim_args: dict[str, Any] | str | None) -> str | None:
    """
    Returns `--optim_args` as the library reads it, "a=1,b=2".

    Raises:
        ArgumentError: It is neither that nor a mapping, or a value would be read as several.
    """
    if not optim_args:
        return None
    found = read_mapping_option("optim_args", optim_args, read=str)
    for name, value in found.items():
        if not re.fullmatch(r"[^=,]+", str(value)):
            raise ArgumentError(f"--optim_args {name}: expected a number or a word, got {value!r}")
    return ",".join(f"{name}={value}" for name, value in found.items())


def split_command_line(argv: Sequence[str] | None) -> tuple[Path | None, list[str]]:
    """Returns the recipe, which comes first if there is one, and the words behind it."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0].startswith("-"):
        return None, words
    return find(words[0]), words[1:]


def parse_words(words: list[str], recipe: dict[str, Any], description: str) -> dict[str, Any]:
    """
    Returns the value of every option: the command line's, else the recipe's, else the default.

    Raises:
        ArgumentError: An unknown option, or a value that cannot be; the message begins with the option as it was
            typed.
    """
    parser = make_parser(description)
    try:
        parsed, rest = parser.parse_known_args(words, argparse.Namespace(**recipe))
    except argparse.ArgumentError as error:
        raise ArgumentError(explain(error, words)) from error
    if wrong := [word.partition("=")[0] for word in rest if word.startswith("-")]:
        raise ArgumentError(f"{wrong[0]}: unknown option{unknown(wrong[0], '--')}")
    if rest:
        raise ArgumentError(f"{rest[0]}: neither an option nor an option's value; a recipe comes first (see --help)")
    merged = vars(parsed)
    for name, value in merged.items():
        if not isinstance(value, str) or "object" not in options()[name].types:
            continue
        with naming(f"--{name}"):
            merged[name] = options()[name].convert(value)
            if merged[name] == value and name.endswith("_kwargs"):
                raise ArgumentError(f"expected a mapping, such as '{{name: 1}}', got {value!r:.80}")
            if merged[name] == value and name in CONFIG_FILES and not Path(value).is_file():
                raise ArgumentError(f"{value}: there is no such file")
    return merged


def explain(error: argparse.ArgumentError, words: list[str]) -> str:
    """Returns what argparse has against an option's value, behind the option as it was typed."""
    spellings = (error.argument_name or "").split("/")
    typed = [word.partition("=")[0] for word in words]
    name = next((each for each in spellings if each in typed), spellings[0])
    option = options().get(name.removeprefix("--").replace("-", "_"))
    wrong = re.match(r"invalid choice: '(.*)' \(choose from", error.message)
    if option is not None and wrong is not None:
        return f"{name}: {wrong_choice(wrong[1], option.choices)}"
    return f"{name}: {error.message} (see --help)"


def make_parser(description: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line, which leaves errors to its caller."""
    parser = HfArgumentParser(
        list(GROUPS.values()),  # type: ignore[arg-type]  # which the library has as a new type of anything
        usage="%(prog)s [RECIPE.yaml] [--option value ...]",
        description=description,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "--schema", action=PrintSchema, nargs=0, dest=argparse.SUPPRESS, help="print a JSON schema of recipes and exit"
    )
    for name, choices in MORE_CHOICES.items():
        action = parser._option_string_actions[f"--{name}"]
        action.choices = [*(action.choices or ()), *choices]
    for name, option in options().items():
        if "object" in option.types:
            parser._option_string_actions[f"--{name}"].type = str  # which `parse_words` converts
    # Else several processes on a machine without accelerators for them would each train alone.
    parser.set_defaults(use_cpu=runs_on_cpu(), **RUN_DEFAULTS)
    return parser


def read_recipe(path: Path) -> dict[str, Any]:
    """
    Returns the options of a YAML recipe, typed as the dataclasses hold them; an option that is null is left out.

    Raises:
        ArgumentError: The file cannot be read, has an unknown option or a value of the wrong type; the message names
            file, option and value.
    """
    content = read_yaml_file(path)
    if not isinstance(content, dict):
        raise ArgumentError(f"{path}: expected lines of 'option: value', got {content!r:.60}")
    known = options()
    if wrong := [name for name in content if name not in known]:
        raise ArgumentError(f"{path}: " + "; ".join(f"unknown option {name!r}{unknown(str(name))}" for name in wrong))
    typed = {}
    for name, value in content.items():
        if value is None:
            continue
        try:
            typed[name] = known[name].convert(value)
        except ArgumentError as error:
            raise ArgumentError(f"{path}: {name}: {error}") from error
    return typed


def parse_overrides(overrides: dict[str, Any] | str | None) -> dict[str, Any]:
    """
    Returns the fields of a configuration that `--config_overrides` changes.

    Args:
        overrides: `"d_model=256,norm_type=layernorm"`, or a mapping, as such or in braces as YAML or JSON has it.

    Raises:
        ArgumentError: It is neither, or the name of a field is missing, doubled or no text.
    """
    return read_mapping_option("config_overrides", overrides, "field=value") if overrides else {}
