# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run is told: three dataclasses read from one flat YAML file and the command line."""

from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NoReturn

import yaml
from transformers import HfArgumentParser, Seq2SeqTrainingArguments


class ArgumentError(ValueError):
    """An option that cannot be, in one line that names it and its value."""


@dataclass
class ModelArguments:
    """Which model to train: a new one from `config_name`, or an existing one from `model_name_or_path`."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Checkpoint folder or Hub name of an existing model to go on training."}
    )
    config_name: str | None = field(
        default=None,
        metadata={
            "help": "A new model's configuration: a JSON file such as configs/model/tiny.json, a folder or Hub name."
        },
    )
    config_overrides: str | None = field(
        default=None,
        metadata={
            "help": "Fields of the new model's configuration to change, as 'd_model=256,encoder_layers=12'; "
            "in YAML also a mapping. A field that does not exist is refused."
        },
    )
    tokenizer_name: str | None = field(
        default=None,
        metadata={
            "help": "Tokenizer folder or Hub name, as scripts/train_tokenizer.py writes; the model's own by default."
        },
    )
    target_tokenizer_name: str | None = field(
        default=None,
        metadata={
            "help": "The target's tokenizer where it is not the source's; TOKENIZER_NAME/target_tokenizer if there."
        },
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "eager, sdpa, flex_attention or flash_attention_2; the library's choice by default."},
    )


@dataclass
class DataArguments:
    """Which pairs to train and evaluate on, and how long they may be."""

    train_file: list[str] | None = field(
        default=None,
        metadata={
            "help": "One JSONL, CSV, TSV or Parquet file, or two text files with a sentence a line, source first."
        },
    )
    validation_file: list[str] | None = field(
        default=None, metadata={"help": "The same, for evaluation while training."}
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "A folder or Hub name for datasets.load_dataset, instead of files."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "The configuration of that dataset."})
    train_split: str = field(default="train", metadata={"help": "Its split to train on."})
    validation_split: str = field(default="validation", metadata={"help": "Its split to evaluate on."})
    source_column: str = field(default="source", metadata={"help": "The field or column that holds the source."})
    target_column: str = field(
        default="target",
        metadata={"help": "The one that holds the target: a text, or a list of equally good texts (JSONL, Parquet)."},
    )
    streaming: bool = field(
        default=False, metadata={"help": "Read the training data as it is needed; wants --max_steps."}
    )
    max_source_length: int = field(default=256, metadata={"help": "Longest source, in tokens with the end token."})
    max_target_length: int = field(default=256, metadata={"help": "Longest target, in tokens with the end token."})
    overlong: str = field(
        default="truncate",
        metadata={"help": "What to do with longer training rows.", "choices": ["truncate", "drop"]},
    )
    group_by_length: bool = field(
        default=True,
        metadata={
            "help": "Batches of like length, in random order; --train_sampling_strategy, if given, decides instead."
        },
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first so many rows only."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on the first so many rows only."})
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Processes that tokenise."})
    metrics: list[str] = field(
        default_factory=list,
        metadata={"help": "Metrics of the generated text: sacrebleu, chrf, exact_match, wer, per."},
    )


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
    """
    parser = RunParser(ARGUMENT_CLASSES, description=description, formatter_class=HelpFormatter, allow_abbrev=False)
    parser.add_argument("recipe", nargs="?", help="A YAML file of the options below, one 'option: value' a line.")
    recipe = parser.parse_known_args(argv)[0].recipe
    if recipe is not None:
        # As defaults, strings pass through argparse's types: `1e-4` is a number here though YAML reads a string.
        parser.set_defaults(**read_recipe(Path(recipe)))
    *arguments, _ = parser.parse_args_into_dataclasses(argv)
    return tuple(arguments)


def read_recipe(path: Path) -> dict:
    """The options of a flat YAML recipe, refusing unknown ones by name."""
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ArgumentError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(options, dict):
        raise ArgumentError(f"{path}: expected lines of 'option: value', got {options!r:.60}")
    known = {each.name: each for argument_class in ARGUMENT_CLASSES for each in fields(argument_class)}
    if unknown := [name for name in options if name not in known]:
        raise ArgumentError(f"{path}: unknown option {', '.join(map(repr, unknown))}; --help lists those there are")
    return {name: as_default(value, known[name].type) for name, value in options.items()}


def as_default(value, field_type):
    """argparse converts strings only: a bare word for a list becomes a list of one."""
    return [value] if isinstance(value, str) and "list" in str(field_type) else value


def parse_overrides(overrides: str | dict | None) -> dict:
    """`"d_model=256,norm_type=layernorm"` or a mapping -> `{"d_model": 256, "norm_type": "layernorm"}`."""
    if overrides is None or isinstance(overrides, dict):
        return dict(overrides or {})
    parsed = {}
    for item in overrides.split(","):
        name, equals, value = item.partition("=")
        if not equals:
            raise ArgumentError(f"--config_overrides: expected 'field=value', got {item!r}")
        parsed[name.strip()] = yaml.safe_load(value)
    return parsed
