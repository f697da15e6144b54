# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`run.json`: the record of a run, for its model card and for repeating it."""

import os
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from ..files import RECORD, read_json, write_json
from ..models import XformerConfig


UNRECORDED = ("--hub_token", "--output_dir")  # options that are nobody else's business
PACKAGES = ("transformers", "torch", "accelerate", "datasets")
# Options of the Trainer that stand in a card, given or not.
OPTIMISATION = ("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "seed")


def update_record(folder: Path, changes: dict) -> None:
    """Writes `run.json` with some entries changed or added."""
    write_json(folder / RECORD, read_json(folder / RECORD) | changes)


def make_record(
    trainer: Trainer,
    recipe: Path | None,
    options: Sequence[str],
    base_model: str | None,
    trained_on: str | Sequence[str],
    evaluated_on: str | Sequence[str],
    batch: str,
    seconds: float,
) -> dict:
    """
    Returns the record of a finished run.

    Args:
        recipe, options: The command line: the YAML file, if one was given, and the words beside it.
        base_model: Folder or Hub name of the model that was trained further; None for a new one.
        trained_on, evaluated_on: Name of a dataset, or files.
        batch: Description of a step's batch.
        seconds: Time of training, over all starts.
    """
    model: Any = trainer.model  # the library's, or PEFT's
    config, args = model.config, trainer.args
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "recipe": None if recipe is None else shown(recipe),
        "commit": None if recipe is None else commit_of(recipe),
        "options": without_secrets(options),
        "base_model": None if base_model is None else shown(base_model),
        "trained_on": listed(trained_on),
        "evaluated_on": listed(evaluated_on),
        # ZeRO-3 leaves empty parameters here, which know their size.
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
    """Returns a path as others may see it: relative to the working folder, or its last part outside of that."""
    absolute = Path(path).absolute()
    if not Path(path).is_absolute() or not absolute.exists():
        return str(path)
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else absolute.name


def listed(data: str | Sequence[str]) -> str:
    """Returns a dataset's name as it is, or the paths of files as others may see them."""
    return data if isinstance(data, str) else ", ".join(map(shown, data))


def without_secrets(words: Sequence[str]) -> str:
    """Returns the options of a command line, without `UNRECORDED` and without this machine's folders."""
    options: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            options.append([word])
        elif options:
            options[-1].append(shown(word))
    return " ".join(" ".join(option) for option in options if option[0].partition("=")[0] not in UNRECORDED)


def adapter_parameters(model: torch.nn.Module) -> int | None:
    """Returns the number of an adapter's parameters; None for a model without one."""
    if not hasattr(model, "peft_config"):
        return None
    return sum(each.numel() for each in model.parameters() if each.requires_grad)


def plain(value):
    """Returns an enumeration's value, which JSON can hold."""
    return getattr(value, "value", value)


def commit_of(recipe: Path) -> str | None:
    """Returns the commit that a file's repository is at, marked if the file has changed since; None outside of any."""

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
    """Returns the `kind`, "gpu" or "cpu", the `count` of GPUs or of cores in use, and a `name` for people."""
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
