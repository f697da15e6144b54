# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The length of a run that is counted in epochs: what its end is, and that no change on the way makes it another."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import refused, weights
from transformers import Seq2SeqTrainingArguments, TrainerState

from hf_xformer.commands import train
from hf_xformer.files import checkpoints_of
from hf_xformer.training.resume import SavedState, epoch_steps


# Five batches, an epoch of three steps.
EPOCHS = {"max_steps": None, "num_train_epochs": 1.4, "gradient_accumulation_steps": 2, "max_train_samples": 40}
EPOCHS |= {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}


def steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("checkpoint-")) for path in checkpoints_of(folder)]


@pytest.fixture(scope="module")
def unbroken(task, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("epochs") / "run"
    train.main(task.options(folder, **EPOCHS))
    return folder


def stopped(unbroken: Path, folder: Path, step: int) -> Path:
    """A copy of the run as it was after a step."""
    shutil.copytree(unbroken, folder)
    for later in (each for each in steps(folder) if each > step):
        shutil.rmtree(folder / f"checkpoint-{later}")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("recorded", [True, False], ids=["as it is", "without a record of the steps"])
def test_a_run_is_not_at_its_end_before_the_trainers_last_step(recorded, unbroken, task, tmp_path, capsys):
    assert steps(unbroken) == [2, 4, 5]
    folder = stopped(unbroken, tmp_path / "run", 4)
    path = folder / "checkpoint-4/trainer_state.json"
    state = json.loads(path.read_text())
    assert state["epoch"] == 1.4 and state["stateful_callbacks"]["LayoutRecord"]["attributes"]["epoch_steps"] == 3
    if not recorded:
        del state["stateful_callbacks"]["LayoutRecord"]["attributes"]["epoch_steps"]
        path.write_text(json.dumps(state))
    train.main(task.options(folder, **EPOCHS))
    assert steps(folder) == [2, 4, 5] and torch.equal(weights(folder), weights(unbroken))
    capsys.readouterr()
    train.main(task.options(folder, **EPOCHS))
    assert "checkpoint-5 is the end of this run" in capsys.readouterr().out


# Batches of an epoch in all processes; processes; accumulation; epochs.
LENGTHS = [
    (50, 1, 1, 1.1),
    (50, 2, 1, 1.1),
    (5, 1, 2, 1.4),
    (37, 1, 4, 0.3),
    (37, 2, 4, 2.5),
    (1, 1, 8, 3),
    (7, 2, 3, 10),
]


@pytest.mark.parametrize(("batches", "processes", "accumulation", "epochs"), LENGTHS)
def test_the_end_is_the_trainers_own_number_of_steps(batches, processes, accumulation, epochs, tmp_path):
    args = Seq2SeqTrainingArguments(output_dir=tmp_path, num_train_epochs=epochs, use_cpu=True, report_to="none")
    batches = math.ceil(batches / processes)
    per_epoch = max(batches // accumulation + int(batches % accumulation > 0), 1)
    last = math.ceil(epochs * per_epoch)
    for step in range(1, last + 1):
        whole, part = divmod(step, per_epoch)
        state = TrainerState(global_step=step, epoch=whole + min(part * accumulation, batches) / batches)
        assert epoch_steps(state) == per_epoch  # of a checkpoint that does not have it
        saved = SavedState(tmp_path, state, {}, "", 0, per_epoch)
        assert saved.is_end(args) == (step == last)


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_accumulation_steps": 1},
        {"per_device_train_batch_size": 4},
        {"max_train_samples": 30},
        {"max_tokens": 30, "seed": 7},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_epochs_of_another_number_of_steps_are_refused(changes, unbroken, task, tmp_path, capsys):
    folder = stopped(unbroken, tmp_path / "run", 4)
    for more in ({}, {"change_recipe": "true"}):
        line = refused(train, task.options(folder, **{**EPOCHS, **changes}, **more), capsys)
        assert "checkpoint-4, at step 4, was trained with" in line and next(iter(changes)) in line
        assert "--num_train_epochs 1.4 does not say" in line and "--change_recipe and --max_steps, above 4" in line


@pytest.mark.slow
def test_a_changed_run_goes_on_by_steps_alone(unbroken, task, tmp_path, capsys):
    folder = stopped(unbroken, tmp_path / "run", 2)
    changed = {**EPOCHS, "gradient_accumulation_steps": 1}
    train.main(task.options(folder, **{**changed, "max_steps": 4}, change_recipe="true"))
    assert steps(folder) == [2, 4]
    line = refused(train, task.options(folder, **changed), capsys)
    assert "checkpoint-4, at step 4, was trained with gradient_accumulation_steps 2, now 1" in line
    assert "to go on, give --max_steps, above 4" in line
    # What leaves the number as it is may change.
    other = stopped(unbroken, tmp_path / "other", 4)
    train.main(task.options(other, **{**EPOCHS, "learning_rate": 1e-3, "seed": 7}, change_recipe="true"))
    assert steps(other) == [2, 4, 5]
