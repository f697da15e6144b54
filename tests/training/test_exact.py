# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What makes a resumed run end as an unbroken one; tests/training/test_kills.py kills runs and compares."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import SMALL, refused, weights
from transformers import TrainerState

from hf_xformer.commands import train
from hf_xformer.training.exact import mean_loss, own_random_states, results_of_end


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_random_states_of_their_own_are_seeded_and_leave_the_others():
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    wanted = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    inside = []
    for _ in range(2):
        with own_random_states(7, torch.device("cpu")):
            inside.append(draw())
    assert inside[0] == inside[1] != wanted
    assert draw() == wanted


def test_the_mean_loss_weighs_each_log_by_its_steps():
    history = [{"loss": 4.0, "step": 1}, {"eval_loss": 9.0, "step": 1}, {"loss": 1.0, "step": 4}]
    assert mean_loss(history) == pytest.approx((4 + 3 * 1) / 4)


def test_results_of_an_earlier_end_are_not_taken_for_those_of_this_one(tmp_path):
    state = TrainerState(global_step=4, epoch=1.0, total_flos=9.0, log_history=[{"loss": 2.0, "step": 4}])
    path = tmp_path / "train_results.json"
    for text in ('{"train_loss": 5.0, "epoch": 1.0}', '{"train_loss": 2.0, "epoch": 0.5}', "", "null", '{"train_lo'):
        path.write_text(text)
        results = results_of_end(tmp_path, state, 2.0)
        assert (results["train_loss"], results["train_runtime"]) == (2.0, 2.0)
    path.write_text('{"train_loss": 2.0, "epoch": 1.0, "train_runtime": 7.0}')
    assert results_of_end(tmp_path, state, 2.0)["train_runtime"] == 7.0


@pytest.mark.parametrize("name", ["eval", "save", "logging"])
def test_a_stream_has_no_epochs(name, task, tmp_path, capsys):
    options = {"streaming": "true", "validation_file": task.validation, f"{name}_strategy": "epoch"}
    line = refused(train, task.options(tmp_path / "run", **options), capsys)
    assert f"--{name}_strategy epoch: --streaming has no epochs" in line and f"--{name}_steps" in line


def history(folder: Path) -> list[dict]:
    entries = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [{key: value for key, value in entry.items() if "second" not in key and "time" not in key}
            for entry in entries]  # fmt: skip


@pytest.fixture(scope="module")
def run_of_epochs(task, tmp_path_factory) -> tuple[Path, dict]:
    """Two epochs of twenty steps, of which the tenth is saved, and each epoch is evaluated and logged at its end."""
    folder = tmp_path_factory.mktemp("epochs") / "run"
    options = {
        **{"max_steps": None, "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 10},
        **{"validation_file": task.validation, "eval_strategy": "epoch", "logging_strategy": "epoch"},
        **{"config_overrides": SMALL.replace("dropout=0.0", "dropout=0.2"), "eval_on_start": "true"},
    }
    train.main(task.options(folder, **options))
    return folder, options


def test_a_checkpoint_at_the_end_of_an_epoch_holds_its_evaluation_and_every_checkpoint_its_losses(run_of_epochs):
    folder, _ = run_of_epochs
    assert [entry["step"] for entry in history(folder) if "loss" in entry] == [10, 20, 30, 40]
    assert [entry["step"] for entry in history(folder) if "eval_loss" in entry] == [0, 20, 40]
    for step in (10, 20, 30, 40):
        upto = [entry for entry in history(folder) if entry["step"] <= step and "train_loss" not in entry]
        assert history(folder / f"checkpoint-{step}") == upto


@pytest.mark.parametrize("step", [20, 30, 40])
def test_a_run_resumed_from_any_of_its_checkpoints_ends_as_it_did(step, run_of_epochs, task, tmp_path):
    folder, options = run_of_epochs
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path)
    shutil.copytree(folder / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    train.main(task.options(tmp_path, **options))
    assert torch.equal(weights(tmp_path), weights(folder))
    assert history(tmp_path) == history(folder)
    results = [json.loads((each / "all_results.json").read_text()) for each in (tmp_path, folder)]
    for name in ("train_loss", "epoch", "eval_loss"):
        assert results[0][name] == results[1][name]
