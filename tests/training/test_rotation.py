# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints stay, whatever the clock says; and the best one of a folder that was moved, copied or left."""

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from small_runs import refused, weights

from hf_xformer.commands import evaluate, train
from hf_xformer.files import checkpoints_of
from hf_xformer.training import rotation
from hf_xformer.training.output_folder import set_aside, set_results_aside
from hf_xformer.training.resume import left_behind
from hf_xformer.training.rotation import DELETING, delete, finish_deletions, surplus


SAVING = {"save_strategy": "steps", "save_steps": 2}


def steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("checkpoint-")) for path in checkpoints_of(folder)]


@pytest.mark.parametrize(
    ("there", "limit", "step", "best", "gone"),
    [
        ([2, 4, 6, 8], 2, 8, None, [2, 4]),
        ([2, 4, 6, 8], 2, 8, 2, [4, 6]),
        ([2, 4, 6, 8], 1, 8, 2, [4, 6]),  # as many as must stay
        ([2, 4, 6, 8], 1, 8, 8, [2, 4, 6]),
        ([2, 4, 6, 8], 2, 4, None, []),  # later ones are not counted and never deleted
        ([2, 4, 6, 8], 1, 4, None, [2]),
        ([98, 100, 1000], 1, 1000, None, [98, 100]),
        ([2, 4], 5, 4, None, []),
    ],
)
def test_the_earliest_steps_go(there, limit, step, best, gone, tmp_path):
    for each in there:
        (tmp_path / f"checkpoint-{each}").mkdir()
    assert surplus(checkpoints_of(tmp_path), limit, step, best) == [tmp_path / f"checkpoint-{each}" for each in gone]


def test_what_a_kill_left_of_a_deletion_is_no_checkpoint_and_goes(tmp_path):
    for name in ("checkpoint-2", "checkpoint-4", f"{DELETING}checkpoint-2"):
        (tmp_path / name / "part").mkdir(parents=True)
    assert steps(tmp_path) == [2, 4]
    delete(tmp_path / "checkpoint-2")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]
    (tmp_path / f"{DELETING}checkpoint-3/part").mkdir(parents=True)
    finish_deletions(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]


def test_of_a_checkpoint_that_is_a_link_only_the_link_is_deleted(tmp_path):
    """A kill may come before the second step of a deletion, and what a link leads to may be gone."""
    run = tmp_path / "run"
    (tmp_path / "elsewhere").mkdir()
    run.mkdir()
    for name, target in (("checkpoint-2", "elsewhere"), ("checkpoint-3", "nowhere")):
        (run / name).symlink_to(tmp_path / target)
        (run / f"{DELETING}{name}").symlink_to(tmp_path / target)  # of an earlier deletion
        delete(run / name)
        assert not list(run.iterdir())
        (run / f"{DELETING}{name}").symlink_to(tmp_path / target)
        finish_deletions(run)
        assert not list(run.iterdir())
    assert (tmp_path / "elsewhere").is_dir()


def test_what_is_left_of_a_deletion_and_cannot_be_deleted_is_said(tmp_path, capsys, monkeypatch):
    """Root, whom tests may run as, can delete everything: the error is raised where a folder is deleted."""

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path / "part"))

    left = tmp_path / f"{DELETING}checkpoint-2"
    left.mkdir()
    monkeypatch.setattr(rotation, "remove", refuse)
    finish_deletions(tmp_path)
    said = capsys.readouterr().out
    assert said.startswith(f"WARNING: {left}, ") and said.endswith(f" {left}/part: Permission denied\n")


@pytest.mark.slow
def test_a_run_that_was_killed_before_it_deleted_its_last_surplus_does_so_when_started_again(task, tmp_path):
    train.main(task.options(tmp_path, **SAVING, save_total_limit=2))
    assert steps(tmp_path) == [4, 6]
    shutil.copytree(tmp_path / "checkpoint-4", tmp_path / "checkpoint-2")
    train.main(task.options(tmp_path, **SAVING, save_total_limit=2))
    assert steps(tmp_path) == [4, 6]


@pytest.fixture(scope="module")
def evaluated(task) -> dict:
    best = {"load_best_model_at_end": "true", "metric_for_best_model": "loss", "greater_is_better": "false"}
    evaluation = {"validation_file": task.validation, "eval_strategy": "steps", "eval_steps": 2, "max_eval_samples": 4}
    return {**SAVING, **best, **evaluation}


@pytest.fixture(scope="module")
def stopped(task, evaluated, tmp_path_factory) -> Path:
    """A run that stopped after step 4 of 6, and whose best checkpoint is that of step 2, which nothing will beat."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    train.main(task.options(folder, **evaluated))
    shutil.rmtree(folder / "checkpoint-6")
    for name in ("model.safetensors", "all_results.json", "train_results.json"):
        (folder / name).unlink()
    path = folder / "checkpoint-4/trainer_state.json"
    state = json.loads(path.read_text())
    assert state["best_model_checkpoint"] == str(folder / "checkpoint-4")
    best = {"best_model_checkpoint": str(folder / "checkpoint-2"), "best_global_step": 2, "best_metric": 0.0}
    path.write_text(json.dumps(state | best))
    return folder


def listing(folder: Path) -> dict[str, tuple]:
    """Every file and folder: its digest and when it was written and read."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
        )
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.slow
def test_a_clock_that_is_set_back_does_not_change_what_stays(task, tmp_path):
    """Checkpoints of the hour before look newer than those after it."""
    options = {**SAVING, "save_steps": 1, "save_total_limit": 2}
    train.main(task.options(tmp_path, **options, max_steps=3))
    assert steps(tmp_path) == [2, 3]
    for number, path in enumerate(reversed(checkpoints_of(tmp_path))):
        later = path.stat().st_mtime + 3600 * (1 + number)
        os.utime(path, (later, later))
    train.main(task.options(tmp_path, **options, change_recipe="true"))
    assert steps(tmp_path) == [5, 6]


@pytest.mark.slow
def test_the_best_checkpoint_stays_with_a_limit_of_one_and_the_run_can_be_started_again(
    stopped, evaluated, task, tmp_path, capsys
):
    shutil.copytree(stopped, tmp_path / "run")
    options = task.options(tmp_path / "run", **evaluated, save_total_limit=1)
    train.main(options)
    assert steps(tmp_path / "run") == [2, 6]
    assert torch.equal(weights(tmp_path / "run"), weights(tmp_path / "run/checkpoint-2"))
    train.main(options)
    assert "checkpoint-2 is the end of this run" in capsys.readouterr().out


@pytest.mark.slow
def test_a_copied_and_a_renamed_folder_never_meet_their_old_path(stopped, evaluated, task, tmp_path, capfd):
    old, copy, renamed = tmp_path / "old", tmp_path / "copy", tmp_path / "renamed"
    shutil.copytree(stopped, old)
    for path in old.glob("checkpoint-*/trainer_state.json"):
        path.write_text(path.read_text().replace(str(stopped), str(old)))
    best = weights(old / "checkpoint-2")
    shutil.copytree(old, copy)
    for path in old.rglob("*.safetensors"):
        path.write_bytes(b"other content")
    before = listing(old)
    train.main(task.options(copy, **evaluated))  # goes on from step 4
    assert torch.equal(weights(copy), best) and listing(old) == before
    state = json.loads((copy / "checkpoint-6/trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(copy / "checkpoint-2")
    shutil.rmtree(old)
    copy.rename(renamed)
    for name in ("model.safetensors", "train_results.json"):
        (renamed / name).unlink()
    train.main(task.options(renamed, **evaluated))  # has ended
    assert torch.equal(weights(renamed), best)
    assert json.loads((renamed / "trainer_state.json").read_text())["best_model_checkpoint"] == str(
        renamed / "checkpoint-2"
    )
    evaluate.main([str(renamed), "--test_file", task.validation, "--metrics", "per", "--max_samples", "2"])
    said = "".join(capfd.readouterr())
    assert "does not exist anymore" not in said and "WARNING" not in said
    assert not old.exists() and not copy.exists()


def test_a_run_that_goes_on_from_another_folder_takes_the_best_checkpoint_along(
    stopped, evaluated, task, tmp_path, capsys
):
    other = tmp_path / "other"
    (other / "checkpoint-3").mkdir(parents=True)  # of a run that did not come from there
    before = listing(stopped)
    train.main(task.options(other, **evaluated, resume_from_checkpoint=stopped / "checkpoint-4"))
    assert listing(stopped) == before
    assert steps(other) == [2, 6] and (other / "previous-1/checkpoint-3").is_dir()
    assert torch.equal(weights(other), weights(stopped / "checkpoint-2"))
    assert f"copied {stopped / 'checkpoint-2'}, the best checkpoint" in capsys.readouterr().out


@pytest.mark.slow
def test_a_best_checkpoint_that_is_gone_is_said_or_refused(stopped, evaluated, task, tmp_path, capsys):
    shutil.copytree(stopped, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoint-2")
    options = task.options(tmp_path / "run", **evaluated)
    train.main(options)
    said = capsys.readouterr().out
    assert "the best checkpoint until now, " in said and "checkpoint-2, is lost: it is gone; a better one" in said
    state = tmp_path / "run/checkpoint-6/trainer_state.json"
    recorded = json.loads(state.read_text()) | {"best_model_checkpoint": "/gone/checkpoint-2"}
    state.write_text(json.dumps(recorded))
    line = refused(train, options, capsys)
    assert "checkpoint-2: it is gone" in line and "--load_best_model_at_end false" in line


def test_checkpoints_after_the_one_that_is_named_are_set_aside(tmp_path):
    for step in (2, 4, 6, 10):
        (tmp_path / f"run/checkpoint-{step}").mkdir(parents=True)
    (tmp_path / "link").symlink_to("run")
    for named in ("run/checkpoint-4", "link/checkpoint-4"):
        later = left_behind(tmp_path / named, tmp_path / "run")
        assert [path.name for path in later] == ["checkpoint-6", "checkpoint-10"]
    elsewhere = left_behind(tmp_path / "elsewhere/checkpoint-4", tmp_path / "run")
    assert len(elsewhere) == 4


def test_what_is_set_aside_goes_into_a_folder_of_its_own(tmp_path):
    (tmp_path / "previous-1").mkdir()
    (tmp_path / "previous-3").write_text("a file")
    (tmp_path / "previous-12.txt").write_text("a file")
    said: list[str] = []
    for number in (4, 5):
        (tmp_path / "checkpoint-2").mkdir()
        set_aside(tmp_path, checkpoints_of(tmp_path), said.append)
        assert (tmp_path / f"previous-{number}/checkpoint-2").is_dir()
    for number, content in ((6, "one"), (7, "two")):
        (tmp_path / "test_results.json").write_text(content)
        set_results_aside(tmp_path, said.append)
        assert (tmp_path / f"previous-{number}/test_results.json").read_text() == content
    set_results_aside(tmp_path, said.append)
    assert len(said) == 4 and not list((tmp_path / "previous-1").iterdir())
    assert (tmp_path / "previous-3").read_text() == "a file"
