# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`run.json`: what a run records of itself, for the model card and for who wants to repeat it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from . import XformerConfig
from .arguments import ArgumentError, DataArguments, ModelArguments, recipe_of


RECORD = "run.json"
UNTOLD = ("--hub_token", "--output_dir")
PACKAGES = ("transformers", "torch", "accelerate", "datasets")
# Of the trainer's arguments, those that a reader wants to know beside the recipe.
OPTIMISATION = ("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "seed")


def read_json(path: Path) -> dict:
    """
    What a JSON file holds; nothing where there is none.

    Raises:
        ArgumentError: It holds something else.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ArgumentError(f"{path}: not JSON: {error}") from error


def update_record(folder: Path, changes: dict) -> None:
    record = read_json(folder / RECORD) | changes
    (folder / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make_record(
    trainer: Trainer,
    model_args: ModelArguments,
    data_args: DataArguments,
    argv: Sequence[str] | None,
    batch: str,
    seconds: float,
) -> dict:
    """
    Args:
        argv: The command line, with a recipe first or without one.
        batch: What a step works on, in words.
        seconds: Of training, those before a resumption included.
    """
    model: Any = trainer.model  # the library's, or PEFT's
    config, args, recipe = model.config, trainer.args, recipe_of(argv)
    trained_on, evaluated_on = (
        data_args.dataset_name or ", ".join(map(shown, files or []))
        for files in (data_args.train_file, data_args.validation_file)
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "recipe": None if recipe is None else shown(recipe),
        "commit": None if recipe is None else commit_of(recipe),
        "options": options_of(argv),
        "base_model": None if model_args.model_name_or_path is None else shown(model_args.model_name_or_path),
        "trained_on": trained_on,
        "evaluated_on": evaluated_on,
        # What a process has of a divided model is empty, and says how large it would be.
        "parameters": sum(getattr(each, "ds_numel", each.numel()) for each in model.parameters()),
        "adapter_parameters": adapter_parameters(model),
        "is_xformer": isinstance(config, XformerConfig),
        "model": {name: getattr(config, name, None) for name in ("encoder_layers", "decoder_layers", "d_model")}
        | {"vocab_size": config.vocab_size},
        "steps": trainer.state.global_step,
        "batch": batch,
        "optimisation": {name: plain(getattr(args, name)) for name in OPTIMISATION},
        "seconds": round(seconds, 1),
        "hardware": hardware(trainer),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def shown(path: str | Path) -> str:
    """A path as others may see it: from the working folder on, and of what lies outside of that the last part."""
    absolute = Path(path).absolute()
    if not Path(path).is_absolute() or not absolute.exists():
        return str(path)
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else absolute.name


def options_of(argv: Sequence[str] | None) -> str:
    """What a command line said beside its recipe, without what is nobody's business."""
    words = list(sys.argv[1:] if argv is None else argv)[0 if recipe_of(argv) is None else 1 :]
    told = []
    for word in words:
        if word.startswith("--"):
            told.append([word])
        elif told:
            told[-1].append(shown(word))
    return " ".join(" ".join(option) for option in told if option[0].partition("=")[0] not in UNTOLD)


def adapter_parameters(model: torch.nn.Module) -> int | None:
    """How many of the parameters are an adapter's, if they are all that was trained."""
    if not hasattr(model, "peft_config"):
        return None
    return sum(each.numel() for each in model.parameters() if each.requires_grad)


def plain(value):
    """An enumeration's value, as JSON can hold it."""
    return getattr(value, "value", value)


def commit_of(recipe: Path) -> str | None:
    """The commit that a file's repository is at, marked where the file has changed since; None outside of any."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(recipe.resolve().parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", recipe.name)  # else the repository is that of something around it
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", recipe.name)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit} with changes" if changed else commit


def hardware(trainer: Trainer) -> dict:
    """`kind` "gpu" or "cpu", `count` of GPUs or of cores in use, and a `name` for people."""
    processes = trainer.args.world_size
    if trainer.args.device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return {"kind": "cpu", "count": cores, "name": f"{cores} cores of {processor_name()}"}
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else trainer.args.device.type
    return {"kind": "gpu", "count": processes, "name": f"{processes} {name}"}


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "a CPU"
