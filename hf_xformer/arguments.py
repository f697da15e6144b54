# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run is told: three dataclasses read from one flat YAML file and the command line."""

import json
import re
import sys
from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NoReturn

import yaml
from transformers import HfArgumentParser, Seq2SeqTrainingArguments

from .launch import check_launch, runs_on_cpu
from .shipped import find
from .verbs import as_typed


class ArgumentError(ValueError):
    """An option that cannot be, in one line that names it and its value."""


def first_line(error: Exception) -> str:
    """What a library's error begins with, for one line of ours; where that only announces it, the next line too."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


def one_line(error: BaseException) -> str:
    """All of a library's error."""
    return " ".join(str(error).split()) or type(error).__name__


def option(help: str, default=None, **more):
    """A dataclass field with the text that `--help` shows for it."""
    return field(default=default, metadata={"help": help, **more})


@dataclass
class ModelArguments:
    """Which model to train: a new one from `config_name`, or an existing one from `model_name_or_path`."""

    model_name_or_path: str | None = option("Checkpoint folder or Hub name of an existing model to go on training.")
    config_name: str | None = option(
        "A new model's configuration: a JSON file such as configs/model/tiny.json, a folder or a Hub name."
    )
    config_overrides: str | None = option(
        "Fields of the new model's configuration to change, as 'd_model=256,encoder_layers=12'; in a recipe also a "
        "mapping. A field that does not exist is refused. Of an existing model: dropouts and label_smoothing."
    )
    tokenizer_name: str | None = option(
        "Tokenizer folder or Hub name, such as scripts/train_tokenizer.py writes. An existing model has its own."
    )
    target_tokenizer_name: str | None = option(
        "The target's tokenizer where it is not the source's. A target_tokenizer/ inside the source's folder is found."
    )
    attn_implementation: str | None = option(
        "eager, sdpa, flex_attention or flash_attention_2; else the library's choice, but eager for training short "
        "texts in bfloat16 on a CPU."
    )
    card_facts: str | None = option(
        "A YAML file of what the model card says beside the run's figures: language, licences, data, use, limits. See "
        "model_cards/g2p-quickstart.yaml."
    )
    ema_decay: float | None = option(
        "Keep an average of the weights that forgets so slowly, such as 0.999, evaluate with it and end with it."
    )
    lora_rank: int | None = option(
        "Leave the weights of --model_name_or_path as they are and train LoRA adapters of this rank, such as 8."
    )
    lora_alpha: int = option("What adapters add is multiplied by --lora_alpha / --lora_rank.", 16)
    lora_dropout: float = option("Dropout before the adapters.", 0.0)
    lora_target_modules: list[str] | None = option(
        "Names of the layers that get adapters, such as q_proj k_proj, or all-linear; else q_proj and v_proj, and of "
        "another kind of model what PEFT has for it."
    )


@dataclass
class DataArguments:
    """Which pairs to train and evaluate on, and how long they may be."""

    train_file: list[str] | None = option(
        "One JSONL, CSV, TSV or Parquet file, or two text files with a sentence a line, source first."
    )
    validation_file: list[str] | None = option("The same, for evaluation while training.")
    dataset_name: str | None = option("A folder or Hub name for datasets.load_dataset, instead of files.")
    dataset_config_name: str | None = option("The configuration of that dataset.")
    train_split: str = option("The dataset's split to train on.", "train")
    validation_split: str = option("The dataset's split to evaluate on.", "validation")
    source_column: str = option("The field or column that holds the source.", "source")
    target_column: str = option(
        "The one that holds the target: a text, or a list of equally good texts (JSONL, Parquet).", "target"
    )
    streaming: bool = option("Read the training data as they are needed; wants --max_steps.", False)
    max_source_length: int = option("Longest source, in tokens with the end token.", 256)
    max_target_length: int = option("Longest target, in tokens with the end token.", 256)
    overlong: str = option("What to do with longer training rows.", "truncate", choices=["truncate", "drop"])
    group_by_length: bool = option(
        "Batches of like length, in random order; not in a stream, nor with another --train_sampling_strategy.",
        True,
    )
    max_tokens: int | None = option(
        "Tokens of a batch on each side, padding included, instead of --per_device_train_batch_size pairs; not in a "
        "stream."
    )
    packing: bool = option(
        "Lay the pairs of a batch behind one another in one row, without padding between them; not in a stream. A "
        "batch has --max_tokens on each side or else --per_device_train_batch_size pairs.",
        False,
    )
    max_train_samples: int | None = option("Train on the first so many rows only.")
    max_eval_samples: int | None = option("Evaluate on the first so many rows only.")
    preprocessing_num_workers: int | None = option("Processes that tokenise.")
    metrics: list[str] | None = option("Metrics of the generated text: sacrebleu, chrf, exact_match, wer, per.")


class HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults, and leaves the lines of the description as they are."""


class RunParser(HfArgumentParser):
    """Says what is wrong with the command line in one line, as it does for the recipe."""

    def format_help(self) -> str:
        return as_typed(self.prog, super().format_help())

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


class RecipeLoader(yaml.SafeLoader):
    """Reads scalars as YAML 1.2 does, `save_strategy: no` as a word and `1e-4` as a number, and each key once."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if repeated := {key for key in keys if keys.count(key) > 1}:
            raise yaml.YAMLError(f"{', '.join(map(repr, sorted(repeated)))} stands there twice")
        return super().construct_mapping(node, deep)


YAML_1_2 = {
    "bool": re.compile(r"^(?:true|false)$"),
    "float": re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$"),
}

RecipeLoader.yaml_implicit_resolvers = {
    first: sorted(
        ((tag, YAML_1_2.get(tag.rpartition(":")[2], regexp)) for tag, regexp in resolvers),
        key=lambda resolver: resolver[0].endswith(":float"),  # after the integers, which look like them
    )
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str):
    return yaml.load(text, Loader=RecipeLoader)


def read_recipe(path: Path) -> dict:
    """The options of a flat YAML recipe, refusing unknown ones by name."""
    try:
        options = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
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
    except yaml.YAMLError as error:
        raise ArgumentError(f"--config_overrides: {overrides!r} is not 'field=value,...'") from error
    if wrong := [name for name, equals, _ in items if not equals]:
        raise ArgumentError(f"--config_overrides: expected 'field=value', got {wrong[0]!r}")
    return parsed
