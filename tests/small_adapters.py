# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of a few seconds that train adapters, and what there is to see of them."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from small_runs import Task

from hf_xformer.commands import train


WEIGHTS = "adapter_model.safetensors"
EXISTING = {"config_name": None, "config_overrides": None, "tokenizer_name": None}
EVALUATION = {"eval_strategy": "steps", "eval_steps": 3, "metrics": "per"}
SAVING = {"save_strategy": "steps", "save_steps": 3}
# With one padded source.
BATCH = {
    "input_ids": torch.tensor([[4, 5, 6, 7, 1], [8, 9, 1, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "decoder_input_ids": torch.tensor([[2, 7, 6, 5], [2, 9, 8, 1]]),
}


def train_base(task: Task, folder: Path) -> Path:
    """Trains all weights of a model, which others go on from; returns the folder."""
    train.main(task.options(folder, max_steps=40))
    return folder


def adapter_options(task: Task, base: Path, output_dir: Path, **more) -> list[str]:
    """Returns the command line of a run that trains adapters."""
    evaluated = {"validation_file": task.validation} if {"metrics", "eval_strategy"} & more.keys() else {}
    return task.options(output_dir, **{**EXISTING, "model_name_or_path": base, "lora_rank": 4, **evaluated, **more})


def train_adapter(task: Task, base: Path, folder: Path) -> Path:
    """Trains adapters with checkpoints and an evaluation, for tests that only read them; returns the folder."""
    train.main(adapter_options(task, base, folder, max_steps=30, **EVALUATION, **SAVING))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def adapter_weights(folder: Path, name: str = WEIGHTS) -> dict[str, torch.Tensor]:
    return load_file(folder / name)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(**BATCH).logits


def train_and_keep(monkeypatch, options: list[str]):
    """Runs, and returns the model that was trained."""
    made, make = [], train.make_trainer
    monkeypatch.setattr(train, "make_trainer", lambda *args: made.append(make(*args)) or made[-1])
    train.main(options)
    return made[0].model
