# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that keep weights alone, and runs that end with their best checkpoint, which may be lost by then."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_faults import (
    edit_tensors,
    halve,
    set_first,
)
from small_runs import nightly, refused
from transformers import TrainerState, TrainingArguments

from hf_xformer.commands import train
from hf_xformer.training import rotation
from hf_xformer.training.rotation import BestCheckpoint


STATE, WEIGHTS = "trainer_state.json", "model.safetensors"


@pytest.mark.parametrize("changes", [{}, {"resume_from_checkpoint": "true"}], ids=["by default", "asked for"])
def test_checkpoints_that_no_run_could_go_on_from_are_refused_before_training(changes, task, tmp_path, capsys):
    options = {"save_only_model": "true", "train_file": "nowhere.jsonl", "save_strategy": "steps", **changes}
    line = refused(train, task.options(tmp_path / "run", **options), capsys)
    assert "--save_only_model" in line and "--resume_from_checkpoint false" in line and "nowhere" not in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_checkpoints_of_weights_alone_never_start_a_run_anew(task, tmp_path, capsys):
    saving = {"save_strategy": "steps", "save_steps": 3}
    options = {"save_only_model": "true", "resume_from_checkpoint": "false", **saving}
    train.main(task.options(tmp_path, **options))
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-6"}
    line = refused(train, task.options(tmp_path, **saving), capsys)
    assert "checkpoint-6: it holds weights alone, as --save_only_model" in line and line.endswith("false starts anew")
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-6"}


# Nothing is ever right, so that the first checkpoint stays the best.
BEST = {
    **{"load_best_model_at_end": "true", "metric_for_best_model": "exact_match", "metrics": "exact_match"},
    **{"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2},
}


@pytest.fixture(scope="module")
def with_best(task, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("best") / "run"
    train.main(task.options(folder, validation_file=task.validation, **BEST))
    assert json.loads((folder / STATE).read_text())["best_global_step"] == 2
    return folder


LOST = {
    "gone": (shutil.rmtree, "it is gone"),
    "cut off": (lambda best: halve(best / WEIGHTS), "model.safetensors: cut off"),
    "NaN": (lambda best: edit_tensors(best / WEIGHTS, partial(set_first, float("nan"))), "is not finite"),
}


def moved(run: Path, folder: Path) -> None:
    """Copies a run; its record of the best checkpoint then names the copy."""
    shutil.copytree(run, folder)
    for path in folder.rglob(STATE):
        path.write_text(path.read_text().replace(str(run), str(folder)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gone", "NaN", *nightly("cut off")])
def test_a_best_checkpoint_that_is_lost_is_said_and_not_taken(kind, with_best, task, tmp_path, capfd):
    moved(with_best, tmp_path / "run")
    lose, why = LOST[kind]
    lose(tmp_path / "run/checkpoint-2")
    options = task.options(tmp_path / "run", validation_file=task.validation, **BEST)
    line = refused(train, options, capfd)
    assert f"the run ends with its best checkpoint, {tmp_path}/run/checkpoint-2: " in line and why in line
    assert "--load_best_model_at_end false takes its last" in line
    shutil.rmtree(tmp_path / "run/checkpoint-6")
    train.main(options)
    output = "".join(capfd.readouterr())
    assert output.count("the best checkpoint until now") == 1 and why in output and "Traceback" not in output
    assert not (tmp_path / "run/checkpoint-2").exists()
    last = load_file(tmp_path / "run/checkpoint-6" / WEIGHTS)
    found = load_file(tmp_path / "run" / WEIGHTS)
    assert all(torch.equal(found[name], last[name]) for name in last)


@pytest.mark.slow
def test_a_best_checkpoint_that_is_damaged_while_the_run_goes_on_ends_it_in_one_line(
    task, tmp_path, capsys, monkeypatch
):
    on_log = BestCheckpoint.on_log

    def lose(self, args, state, control, logs=None, **more):
        if "train_runtime" in logs:
            halve(tmp_path / "checkpoint-2" / WEIGHTS)
        on_log(self, args, state, control, logs, **more)

    monkeypatch.setattr(BestCheckpoint, "on_log", lose)
    line = refused(train, task.options(tmp_path, validation_file=task.validation, **BEST), capsys)
    assert "best checkpoint" in line and "checkpoint-2: model.safetensors: cut off" in line
    assert (tmp_path / "checkpoint-6").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("rows", [160, 16], ids=["within an epoch", "also at ends of epochs"])
def test_the_best_evaluation_is_saved_whatever_the_interval_of_saving(rows, task, tmp_path, capsys):
    """A learning rate that makes the loss rise and fall."""
    options = {
        **{"load_best_model_at_end": "true", "eval_strategy": "steps", "eval_steps": 1, "logging_steps": 5},
        **{"max_steps": 5, "save_strategy": "steps", "save_steps": 5, "max_train_samples": rows},
        **{
            "validation_file": task.validation,
            "learning_rate": 0.3,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0,
        },
    }
    folder = tmp_path / "run"
    train.main(task.options(folder, **options))
    state = json.loads((folder / STATE).read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    best = min(losses, key=losses.get)
    assert list(losses) == [1, 2, 3, 4, 5] and best < 5
    improving = [step for step, loss in losses.items() if loss == min(losses[each] for each in range(1, step + 1))]
    saved = sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))
    assert saved == sorted({*improving, 5})
    assert state["best_global_step"] == best and state["best_metric"] == losses[best]
    assert state["best_model_checkpoint"] == str(folder / f"checkpoint-{best}")
    assert json.loads((folder / "eval_results.json").read_text())["eval_loss"] == pytest.approx(losses[best], abs=1e-6)
    assert "there is no checkpoint" not in capsys.readouterr().out
    # From a checkpoint that only its score asked for a run goes on as it did.
    for step in (each for each in saved if each > best):
        shutil.rmtree(folder / f"checkpoint-{step}")
    again = tmp_path / "again"
    again.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, again)
    shutil.copytree(folder / f"checkpoint-{best}", again / f"checkpoint-{best}")
    train.main(task.options(again, **options))
    repeated = json.loads((again / STATE).read_text())["log_history"]
    assert {entry["step"]: entry["eval_loss"] for entry in repeated if "eval_loss" in entry} == losses
    assert {entry["step"]: entry["loss"] for entry in repeated if "loss" in entry} == {
        entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry
    }


def test_a_best_evaluation_without_a_checkpoint_is_said_at_the_end(capsys):
    checked = []
    args = TrainingArguments(load_best_model_at_end=True, eval_strategy="steps", use_cpu=True, report_to="none")
    callback = BestCheckpoint(checked.append, False, None)
    for saved, end in ((None, "the last weights, of step 6"), ("run/checkpoint-2", "those of run/checkpoint-2")):
        state = TrainerState(global_step=6, best_global_step=4, best_model_checkpoint=saved)
        callback.on_log(args, state, None, {"train_runtime": 1.0})
        said = capsys.readouterr().out
        assert "was that of step 4, of which there is no checkpoint" in said and said.endswith(f"ends with {end}\n")
    state.best_model_checkpoint = "run/checkpoint-4"
    callback.on_log(args, state, None, {"train_runtime": 1.0})
    assert capsys.readouterr().out == "" and checked == [Path("run/checkpoint-2"), Path("run/checkpoint-4")]


def test_all_processes_go_by_what_the_first_one_sees_of_the_best(monkeypatch):
    """Checking and loading it are done together: a process that sees none would leave the others waiting."""
    sent, checked = [], []
    monkeypatch.setattr(rotation, "broadcast_object_list", lambda values: sent.append(values) or ["run/checkpoint-4"])
    args = TrainingArguments(load_best_model_at_end=True, eval_strategy="steps", use_cpu=True, report_to="none")
    callback, state = BestCheckpoint(checked.append, True, None), TrainerState(global_step=6, best_global_step=4)
    for hook in (callback.on_train_begin, partial(callback.on_log, logs={"train_runtime": 1.0})):
        state.best_model_checkpoint = None  # as a process sees it that does not find the folder
        hook(args, state, None)
        assert sent.pop() == [None] and state.best_model_checkpoint == "run/checkpoint-4"
    assert checked == [Path("run/checkpoint-4")]
