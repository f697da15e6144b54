# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A run's folder: where it resumes, what is passed over, and that a refused start leaves everything as it was."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from small_runs import refused
from transformers import TrainerState

from hf_xformer.checkpoints import weight_files
from hf_xformer.commands import train
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError
from hf_xformer.training.callbacks import LayoutRecord
from hf_xformer.training.changes import RecipeRecord
from hf_xformer.training.checks import check_layout
from hf_xformer.training.early_stopping import EarlyStopping
from hf_xformer.training.resume import read_state
from hf_xformer.training.trainer_state import RECORD_FIELDS


SAVING = {"save_strategy": "steps", "save_steps": 3}


@pytest.fixture(scope="module")
def saved(task, tmp_path_factory) -> Path:
    """The output folder of a run with two checkpoints, for tests that only read it."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    train.main(task.options(folder, **SAVING))
    return folder


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file under a folder: when it was written, and what it holds."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


REFUSED = {
    "bad data": {"train_file": "broken.jsonl"},
    "vocabulary": {"config_overrides": "vocab_size=5"},
    "another model": {"config_overrides": "d_model=32"},
    "optimizer": {"optim": "galore_adamw"},
    "schedule": {"lr_scheduler_type": "cosine_with_min_lr"},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
def test_a_refused_start_leaves_every_byte_of_the_folder(changes, saved, task, tmp_path, capsys, monkeypatch):
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "broken.jsonl").write_text('{"source": "A", "target": "B"}\n{"source": "A"\n')
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path / "run")
    refused(train, task.options(tmp_path / "run", resume_from_checkpoint="false", **{**SAVING, **changes}), capsys)
    assert tree(tmp_path / "run") == before and len(list(tmp_path.glob("run/**"))) == len(list(saved.glob("**")))


def test_another_tokenizers_run_is_refused_before_its_checkpoints_are_moved(saved, task, tmp_path, capsys):
    shutil.copytree(saved, tmp_path / "run")
    train_tokenizer(["A B C D E F G Z"], "symbol").save_pretrained(tmp_path / "other")
    before = tree(tmp_path / "run")
    more = {"tokenizer_name": tmp_path / "other", "resume_from_checkpoint": "false", **SAVING}
    assert "another tokenizer" in refused(train, task.options(tmp_path / "run", **more), capsys)
    assert tree(tmp_path / "run") == before


def test_false_in_a_recipe_starts_anew(saved, task, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("resume_from_checkpoint: false\n")
    train.main([str(recipe), *task.options(tmp_path / "run", **SAVING)])
    assert (tmp_path / "run/previous-1/checkpoint-6").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"resume_from_checkpoint": "false"}, {"max_steps": 9, "change_recipe": "true"}])
def test_a_run_killed_before_it_wrote_its_record_is_not_described_by_an_earlier_one(
    more, saved, task, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    options = {**SAVING, **more, "learning_rate": 1e-3}
    with monkeypatch.context() as patch:
        patch.setattr(train, "save_rest", lambda *arguments: sys.exit())
        with pytest.raises(SystemExit):
            train.main(task.options(folder, **options))
    assert "run.json" in capsys.readouterr().out and not (folder / "run.json").exists()
    (record,) = folder.glob("previous-*/run.json")
    assert (record.parent / "README.md").read_bytes() == (saved / "README.md").read_bytes()
    train.main(task.options(folder, **options | {"resume_from_checkpoint": "true"}))
    assert json.loads((folder / "run.json").read_text())["optimisation"]["learning_rate"] == 1e-3
    assert "| 0.001 |" in (folder / "README.md").read_text() and "your hand" not in capsys.readouterr().out
    # A card that was changed stays, with a record and without.
    (folder / "README.md").write_text("Mine.")
    for said in ("was changed by hand", "may be of your hand"):
        train.main(task.options(folder, **options | {"resume_from_checkpoint": "true"}))
        assert said in capsys.readouterr().out and (folder / "README.md").read_text() == "Mine."
        (folder / "run.json").unlink()


OPENED: list[str] | None = None


def note(event: str, arguments: tuple) -> None:
    if OPENED is not None and event == "open":
        OPENED.append(str(arguments[0]))


sys.addaudithook(note)  # for good: a hook cannot be taken away


def test_a_start_reads_the_state_that_it_resumes_once(saved, task, tmp_path, monkeypatch):
    """The Trainer, which is not made here, reads it twice."""
    global OPENED
    monkeypatch.setattr(train, "make_trainer", lambda *args: sys.exit())
    shutil.copytree(saved, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoint-6")
    weights, read = [], weight_files.safe_open
    monkeypatch.setattr(weight_files, "safe_open", lambda path, **how: weights.append(Path(path)) or read(path, **how))
    OPENED = opened = []
    with pytest.raises(SystemExit):
        train.main(task.options(tmp_path / "run", **SAVING))
    OPENED = None
    assert [Path(path).name for path in opened].count("trainer_state.json") == 1
    assert [path.name for path in weights] == ["model.safetensors"]


def test_a_tied_weight_is_not_said_to_be_missing(saved, task, tmp_path, capfd):
    shutil.copytree(saved, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoint-6")
    train.main(task.options(tmp_path / "run", **SAVING))
    said = "".join(capfd.readouterr())
    assert "resuming from" in said and "missing keys" not in said


def write_state(folder: Path, **record) -> Path:
    folder.mkdir(parents=True)
    state = TrainerState(global_step=5, stateful_callbacks=[LayoutRecord(**record)])
    state.save_to_json(folder / "trainer_state.json")
    return folder


@pytest.mark.parametrize(
    ("layout", "processes", "refused"),
    [
        ("DeepSpeed ZeRO-3", 2, False),
        ("DeepSpeed ZeRO-3", 4, True),
        ("DeepSpeed ZeRO-1 or ZeRO-2", 2, True),
        ("no sharding", 2, True),
    ],
)
def test_a_divided_optimizer_resumes_only_where_it_fits(layout, processes, refused, tmp_path):
    state = read_state(write_state(tmp_path / "c", layout="DeepSpeed ZeRO-3", processes=2, writers=2))
    if refused:
        with pytest.raises(ValueError, match=rf"by 2 processes with DeepSpeed ZeRO-3, this run has {processes} with"):
            check_layout(state.checkpoint, state.layout, state.processes, layout, processes)
    else:
        check_layout(state.checkpoint, state.layout, state.processes, layout, processes)


def test_a_whole_optimizer_resumes_with_any_number_of_processes(tmp_path):
    state = read_state(write_state(tmp_path / "c", layout="no sharding", processes=2, writers=2))
    check_layout(state.checkpoint, state.layout, state.processes, "no sharding", 4)


def test_a_state_of_another_version_is_refused_and_not_taken_for_a_cut_off_one(tmp_path):
    record = {"layout": "no sharding", "processes": 1, "writers": 1}
    state = write_state(tmp_path / "checkpoint-5", **record) / "trainer_state.json"
    state.write_text(state.read_text().replace('"global_step"', '"global_stride"'))
    with pytest.raises(ArgumentError, match="not a state of this version of transformers: .*global_stride"):
        read_state(state.parent)


def test_the_records_that_are_checked_are_those_of_the_callbacks():
    """Whose modules need the one that checks them, so that it has their names as text."""
    assert set(RECORD_FIELDS) == {each.__name__ for each in (LayoutRecord, RecipeRecord, EarlyStopping)}
