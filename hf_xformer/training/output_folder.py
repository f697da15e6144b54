# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Changes to a run's output folder: what is moved aside before it trains, claimed, and copied when it ends."""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import ArgumentError
from ..files import (
    ALL_RESULTS,
    ATTENTION,
    CURVES,
    EVAL_RESULTS,
    GENERATION_CONFIG,
    RECORD,
    TEST_RESULTS,
    TRAIN_RESULTS,
    read_json,
    write_whole,
)
from .adapters import configs_of, save_generation_config


# Whatever the model was divided into, weights are saved whole, and the code that reads them is beside them.
OF_MODEL = ("model*.safetensors", "*.safetensors.index.json", GENERATION_CONFIG, "*_xformer.py", "adapter_*")


def set_aside(output_dir: Path, checkpoints: Sequence[Path], say: Callable) -> None:
    """
    Moves checkpoints that the run does not go on from, which would be taken for its own later; none is ever deleted.
    """
    if checkpoints:
        aside = move_aside(output_dir, checkpoints)
        say(f"moved {', '.join(path.name for path in checkpoints)} to {aside}: this run does not go on from there")


def set_results_aside(output_dir: Path, say: Callable, *more: str) -> None:
    """
    Moves the record and the results of an earlier end of a run that takes steps: a kill after the last of them would
    leave them to be taken for those of the new end.

    Args:
        more: Names of other files that tell of the earlier end.
    """
    names = (RECORD, TRAIN_RESULTS, EVAL_RESULTS, TEST_RESULTS, ALL_RESULTS, ATTENTION, CURVES, *more)
    if found := [path for name in names if (path := output_dir / name).exists()]:
        aside = move_aside(output_dir, found)
        say(f"{', '.join(path.name for path in found)} of earlier weights: moved to {aside}")


def move_aside(output_dir: Path, paths: Iterable[Path]) -> Path:
    """Moves files and folders into a new `previous-N`, with a number higher than any there is, and returns that."""
    numbers = (re.fullmatch(r"previous-([0-9]+)", name) for name in os.listdir(output_dir))
    for number in count(1 + max((int(match[1]) for match in numbers if match), default=0)):
        aside = output_dir / f"previous-{number}"
        try:
            aside.mkdir()  # which only one can
        except FileExistsError:
            continue
        break
    for path in paths:
        path.rename(aside / path.name)
    return aside


def set_damaged_aside(output_dir: Path, say: Callable) -> None:
    """Moves records of an earlier start that cannot be read, which the run reads again when it ends to add its own."""
    damaged: dict[Path, ArgumentError] = {}
    for name in (RECORD, ALL_RESULTS, TRAIN_RESULTS, EVAL_RESULTS, TEST_RESULTS):
        try:
            read_json(output_dir / name)
        except ArgumentError as error:
            damaged[output_dir / name] = error
    if damaged:
        aside = move_aside(output_dir, damaged)
        for reason in damaged.values():
            say(f"{reason}: moved to {aside}, and a new one will be written")


def copy_weights(checkpoint: Path, output_dir: Path, *patterns: str) -> None:
    """
    Makes a finished run's checkpoint its result.

    Args:
        patterns: Names of files that are copied; those of a model by default.
    """
    for pattern in patterns or OF_MODEL:
        for path in checkpoint.glob(pattern):
            write_whole(output_dir / path.name, partial(shutil.copyfile, path))


def claim(output_dir: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes configuration and tokenizer before training, so that the next start knows whose folder it is."""
    output_dir.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(output_dir)
    for config in configs_of(model):
        config.save_pretrained(output_dir)
    if hasattr(model, "peft_config"):
        save_generation_config(model, output_dir)
