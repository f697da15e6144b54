# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What makes a resumed run end as an unbroken one; tests/training/test_kills.py kills runs and compares."""

import json
import random
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_runs import SMALL, refused, weights

from hf_xformer.commands import train
from hf_xformer.training.exact import own_random_states, seed_dropout


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_random_states_of_their_own_are_seeded_and_leave_the_others():
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(8)
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


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_the_state_of_the_device_is_given_back_too(kind, monkeypatch):
    """None of them is on every machine: only the functions by which torch reads and sets their states are replaced."""
    module, states = getattr(torch, kind), {"now": torch.tensor([1])}
    monkeypatch.setattr(module, "get_rng_state", lambda *device: states["now"])
    monkeypatch.setattr(module, "set_rng_state", lambda state, *device: states.update(now=state))
    with own_random_states(7, torch.device(kind)):
        states["now"] = torch.tensor([2])
    assert states["now"].tolist() == [1]


def test_processes_draw_masks_of_their_own_and_those_that_share_layers_the_same_ones(monkeypatch):
    def drawn(rank: int) -> float:
        torch.manual_seed(5)
        seed_dropout(SimpleNamespace(seed=5, process_index=rank, device=torch.device("cpu")))
        return float(torch.rand(()))

    assert len({drawn(rank) for rank in range(4)}) == 4
    monkeypatch.setenv("ACCELERATE_USE_PARALLELISM_CONFIG", "true")
    monkeypatch.setenv("PARALLELISM_CONFIG_TP_SIZE", "2")
    assert drawn(0) == drawn(1) != drawn(2) == drawn(3)


@pytest.mark.parametrize("name", ["eval", "save", "logging"])
def test_a_stream_has_no_epochs(name, task, tmp_path, capsys):
    options = {"streaming": "true", "validation_file": task.validation, f"{name}_strategy": "epoch"}
    line = refused(train, task.options(tmp_path / "run", **options), capsys)
    assert f"--{name}_strategy epoch: --streaming has no epochs" in line and f"--{name}_steps" in line


def without_times(figures: dict) -> dict:
    return {name: value for name, value in figures.items() if not re.search("second|time|mfu", name)}


def history(folder: Path) -> list[dict]:
    return list(map(without_times, json.loads((folder / "trainer_state.json").read_text())["log_history"]))


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


@pytest.mark.slow
def test_a_checkpoint_at_the_end_of_an_epoch_holds_its_evaluation_and_every_checkpoint_its_losses(run_of_epochs):
    folder, _ = run_of_epochs
    assert [entry["step"] for entry in history(folder) if "loss" in entry] == [10, 20, 30, 40]
    assert [entry["step"] for entry in history(folder) if "eval_loss" in entry] == [0, 20, 40]
    for step in (10, 20, 30, 40):
        upto = [entry for entry in history(folder) if entry["step"] <= step and "train_loss" not in entry]
        assert history(folder / f"checkpoint-{step}") == upto


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("text", [None, '{"train_loss": 5.0, "epoch": 2.0}', '{"train_lo'], ids=str)
def test_a_run_that_was_killed_before_it_wrote_its_results_has_them_when_it_is_started_again(
    text, run_of_epochs, task, tmp_path
):
    folder, options = run_of_epochs
    shutil.copytree(folder, tmp_path / "run")
    for name in ("all_results.json", "eval_results.json", "train_results.json"):
        path = tmp_path / "run" / name
        path.unlink() if text is None else path.write_text(text)
    train.main(task.options(tmp_path / "run", **options))
    for name in ("train_results.json", "all_results.json"):
        again, before = (json.loads((each / name).read_text()) for each in (tmp_path / "run", folder))
        assert without_times(again) == without_times(before)
        assert again["train_runtime"] == pytest.approx(before["train_runtime"], rel=0.5)
