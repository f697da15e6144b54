# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Errors after training has begun: those that a user can mend are one line, with the traceback in a file."""

import errno
import json
import sys
from argparse import Namespace
from collections.abc import Callable

import pytest
import torch
from small_runs import ROOT, output_of, refused, start

from hf_xformer.commands import train
from hf_xformer.errors import ArgumentError, DataError
from hf_xformer.files import checkpoints_of
from hf_xformer.training import launch
from hf_xformer.training.failures import explain, one_line_failures
from hf_xformer.training.health import DivergedError


# Runs `train` where no file may have more bytes than the first argument says, as on a disk that is full.
LIMITED = """
import resource, sys
from hf_xformer.commands import train
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
train.main(sys.argv[2:])
"""


def limited(limit: int, options: list[str]) -> tuple[int, str]:
    """Status and output of a run whose files may have `limit` bytes."""
    process = start([sys.executable, "-c", LIMITED, str(limit), *options], {"PYTHONPATH": str(ROOT)}, cold=False)
    output = output_of(process)
    return process.returncode, output


@pytest.mark.distributed
@pytest.mark.parametrize("full", ["model.safetensors", "optimizer.pt"])
def test_a_disk_that_is_full_is_one_line_and_the_last_checkpoint_is_kept(full, task, tmp_path):
    run = tmp_path / "run"
    saving = {"save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "constant"}
    train.main(task.options(run, **saving, max_steps=3))
    limit = (run / "checkpoint-3" / full).stat().st_size - 1
    status, output = limited(limit, task.options(run, **saving, max_steps=6))
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert status == 2 and "Traceback" not in output
    assert str(run) in line and "MiB are free" in line and f"{run / 'checkpoint-3'} is whole and is kept" in line
    train.main(task.options(run, **saving, max_steps=6))
    assert checkpoints_of(run)[-1].name == "checkpoint-6" and not (run / "error.log").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_row_of_a_stream_that_cannot_be_read_is_one_line_with_its_place(workers, task, tmp_path, capsys):
    data = tmp_path / "train.jsonl"
    good = json.dumps({"source": "A B", "target": "B A"})
    # Behind those that are looked at before the training begins.
    data.write_text("\n".join([good] * 1500 + ['{"source": "A"}']) + "\n")
    stream = {"streaming": "true", "train_file": data, "max_steps": 50, "dataloader_num_workers": workers}
    line = refused(train, task.options(tmp_path / "run", **stream), capsys)
    log = tmp_path / "run/error.log"
    advice = "a stream stops at its first bad row: --on_bad_row skip leaves such rows out"
    assert line == f"error: {data}:1501: no field 'target': there are 'source'; {advice}; traceback: {log}"
    assert "Traceback" in log.read_text()

    data.write_text(f'{good}\n{{"source": "A"}}\n' + f"{good}\n" * 200)
    line = refused(train, task.options(tmp_path / "early", **stream), capsys)
    assert line == f"error: {data}:2: no field 'target': there are 'source'; {advice}"
    assert not (tmp_path / "early").exists()


@pytest.mark.slow
def test_a_tracker_that_fails_is_named(task, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "file/logs"))
    line = refused(train, task.options(tmp_path / "run", report_to="tensorboard"), capsys)
    assert "--report_to tensorboard: " in line and "--report_to none" in line


@pytest.mark.parametrize("message", ["std::bad_alloc", "[enforce fail] not enough memory: you tried to allocate 9 B"])
def test_memory_that_has_ended_is_known_by_the_words_that_decoding_knows_it_by(message, tmp_path):
    assert "lower --max_tokens" in explain(RuntimeError(message), tmp_path)


OF_THE_SYSTEM = {
    "full": (OSError(errno.ENOSPC, "No space left on device"), True),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
    "missing": (FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/train.jsonl"), False),
    "network": (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), False),
    "forbidden": (PermissionError(errno.EACCES, "Permission denied", "/data"), False),
}


@pytest.mark.parametrize(("error", "is_full"), OF_THE_SYSTEM.values(), ids=OF_THE_SYSTEM)
def test_only_a_disk_that_is_full_is_to_be_made_room_on(error, is_full, tmp_path):
    line = explain(error, tmp_path)
    assert "start the same command again" in line
    assert ("make room and" in line) == is_full and ("MiB are free" in line) == is_full


def test_out_of_memory_is_met_with_what_to_try(tmp_path):
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    line = explain(raised.value, tmp_path)
    assert line.startswith("out of memory: ") and "lower --max_tokens" in line and "\n" not in line


# Parts of a run, one after the other; the first one tokenises.
PARTS = ("prepare", "make_trainer", "take_folder", "train", "save_rest", "evaluate_at_end")


@pytest.fixture
def broken_off(monkeypatch, task, tmp_path) -> Callable[[str, BaseException], int]:
    """Starts a run that does nothing until one of its parts raises an error, and returns its exit status."""

    def start_one(part: str, error: BaseException) -> int:
        def fail(*args):
            raise error

        run = Namespace(finished=None, validation="rows")
        for name in PARTS:
            monkeypatch.setattr(train, name, fail if name == part else lambda *args: run)
        with pytest.raises(SystemExit) as stop:
            train.main(task.options(tmp_path / "run"))
        return stop.value.code

    return start_one


@pytest.mark.parametrize("part", PARTS)
def test_an_interrupt_at_any_moment_of_a_run_is_one_line_that_says_how_to_go_on(part, broken_off, tmp_path, capsys):
    assert broken_off(part, KeyboardInterrupt()) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "stopped. Start the same command again, and it begins anew: no checkpoint was saved yet"


@pytest.mark.parametrize("part", PARTS)
def test_a_process_whose_peer_dies_at_any_moment_of_a_run_says_so_in_one_line(
    part, broken_off, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(launch, "process_count", lambda name="WORLD_SIZE": 2)
    monkeypatch.setattr(launch.os, "_exit", sys.exit)
    monkeypatch.setenv("RANK", "1")
    assert broken_off(part, RuntimeError("[gloo] Connection closed by peer")) == 143
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: rank 1 stops: another process of the run has died") and "Connection closed" in line


def test_a_bug_keeps_its_traceback(tmp_path, capsys):
    with pytest.raises(ZeroDivisionError), one_line_failures(tmp_path):
        print(1 / 0)
    assert capsys.readouterr().err == "" and not (tmp_path / "error.log").exists()


def test_a_file_that_says_how_a_run_ended_goes_when_it_ends_well(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop, one_line_failures(tmp_path):
        raise DataError("rows.jsonl:3: no field 'target'")
    assert stop.value.code == 2 and "rows.jsonl:3" in (tmp_path / "error.log").read_text()
    with one_line_failures(tmp_path):
        pass
    assert not (tmp_path / "error.log").exists()


def test_where_even_the_traceback_cannot_be_written_the_line_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit), one_line_failures(tmp_path / "nowhere"):
        raise DataError("bad")
    assert capsys.readouterr().err == "error: bad; HF_XFORMER_DEBUG=1 prints the traceback\n"


@pytest.mark.parametrize(
    ("rank", "error", "said"),
    [
        ("0", ArgumentError("bad option"), "\nerror: bad option; "),
        ("1", ArgumentError("bad option"), ""),
        ("1", DivergedError("gone wrong"), ""),
        ("0", MemoryError("no room"), "\nerror: out of memory: no room: "),
        ("1", MemoryError("no room"), "error: out of memory: no room: "),
        ("1", DataError("rows.jsonl:3: no field 'target'"), "error: rows.jsonl:3: no field 'target'; "),
    ],
)
def test_one_process_of_a_machine_speaks_for_all_that_meet_the_same_error(
    rank, error, said, tmp_path, capsys, monkeypatch
):
    """Rows of a stream are shared out: of a bad one no other process knows."""
    monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(SystemExit), one_line_failures(tmp_path, has_bar=True):
        raise error
    found = capsys.readouterr().err
    assert found.startswith(said) if said else found == ""
