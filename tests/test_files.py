# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Files are written whole or not at all."""

import json
import math
import multiprocessing
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import python

from hf_xformer import files
from hf_xformer.errors import ArgumentError


def test_json_has_null_where_a_number_is_not_finite_and_says_so(tmp_path, capsys):
    files.write_json(tmp_path / "a.json", {"loss": math.nan, "log": [1.5, {"norm": -math.inf}]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": None, "log": [1.5, {"norm": None}]}
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in said] == [
        "`loss` is nan, which JSON cannot hold: null stands there",
        "`log.1.norm` is -inf, which JSON cannot hold: null stands there",
    ]


UNREADABLE = {
    "a folder": lambda path: path.mkdir(),
    "not UTF-8": lambda path: path.write_bytes(b"\xff"),
    "not JSON": lambda path: path.write_text("{"),
    "nested without end": lambda path: path.write_text("[" * 100_000),
    "an array": lambda path: path.write_text("[1]"),
}


@pytest.mark.parametrize("spoil", UNREADABLE.values(), ids=UNREADABLE)
def test_a_json_file_that_cannot_be_read_is_named(spoil, tmp_path):
    path = tmp_path / "run.json"
    assert files.read_json(path) == {} and files.read_json(path, list) == []
    spoil(path)
    with pytest.raises(ArgumentError, match="run.json: (cannot be read|not JSON|expected a JSON object)"):
        files.read_json(path)


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_file_that_is_not_finished_leaves_what_was_there_and_nothing_else(error, tmp_path):
    def write(path: Path) -> None:
        path.write_text("half")
        raise error

    path = tmp_path / "run.json"
    for before in (None, "earlier"):
        if before is not None:
            path.write_text(before)
        with pytest.raises(type(error)) as raised:
            files.write_whole(path, write)
        assert [each.name for each in tmp_path.iterdir()] == ([] if before is None else ["run.json"])
        assert before is None or path.read_text() == before
        if isinstance(error, OSError):
            assert raised.value.filename == str(path) and raised.value.errno == 28


def test_a_folder_that_is_not_there_or_is_in_the_way_is_said_of_the_path_itself(tmp_path):
    for path, kind in ((tmp_path / "none/run.json", FileNotFoundError), (tmp_path, IsADirectoryError)):
        with pytest.raises(kind) as raised:
            files.write_json(path, {})
        assert raised.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_permissions_are_those_of_the_earlier_file_or_as_usual(tmp_path):
    old, new, usual = tmp_path / "old.txt", tmp_path / "new.txt", tmp_path / "usual.txt"
    old.write_text("")
    old.chmod(0o640)
    usual.write_text("")
    files.write_text(old, "more")
    files.write_text(new, "more")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640 and new.stat().st_mode == usual.stat().st_mode


@pytest.mark.slow
def test_links_are_followed_and_devices_are_written_to(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "there/file.txt")
    files.write_text(tmp_path / "link.txt", "text")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "there/file.txt").read_text() == "text"
    files.write_text(Path(os.devnull), "text")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    code = "from pathlib import Path; from hf_xformer import files; files.write_text(Path('/dev/stdout'), 'text')"
    assert python("-c", code).stdout == "text"


def test_writers_at_the_same_time_do_not_mix(tmp_path):
    path = tmp_path / "file.txt"
    with files.open_whole(path) as first, files.open_whole(path) as second:
        first.write("first")
        second.write("second")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


FORK = pytest.mark.skipif(os.name == "nt", reason="processes are not forked there, nor asked for by their number")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed(work: Callable[[], object]) -> bool:
    """Does some work in a process of its own; returns whether that was killed before its end."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@FORK
def test_what_a_killed_writer_leaves_is_removed_by_the_next_and_a_running_ones_is_not(tmp_path):
    def write_half() -> None:
        with files.open_whole(tmp_path / "a.txt") as output:
            output.write("half")
            kill()

    assert is_killed(write_half)
    (left,) = tmp_path.iterdir()
    mine = tmp_path / f".a.{'another_' + files.HOST}-{2**22 + 1}-00000000.partial.txt"
    mine.touch()  # of a process on another machine
    files.write_text(tmp_path / "b.txt", "")
    assert left.exists()  # another file's
    with files.open_whole(tmp_path / "a.txt") as first:
        files.write_text(tmp_path / "a.txt", "second")
        first.write("first")
    assert (tmp_path / "a.txt").read_text() == "first"
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "b.txt", mine.name}


@FORK
def test_an_unfinished_file_is_kept_when_asked_and_outlasts_a_kill(tmp_path, capsys):
    path, kept = tmp_path / "a.txt", tmp_path / "a.txt.partial"
    for text in ("", "line\n"):
        with pytest.raises(KeyboardInterrupt), files.open_whole(path, keep=True) as output:
            output.write(text)
            raise KeyboardInterrupt
        assert kept.exists() == (text != "")
        assert capsys.readouterr().err.splitlines() == [
            f"{path} is not finished: {kept} holds what was written"
        ] * bool(text)
    assert kept.read_text() == "line\n" and not path.exists()

    def write_more() -> None:
        with files.open_whole(path, keep=True) as output:
            output.write("more\n")
            kill()

    assert is_killed(write_more)
    assert kept.read_text() == "more\n"
    with files.open_whole(path, keep=True) as output:
        output.write("all\n")
    assert path.read_text() == "all\n" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_filled_whole_or_not_at_all(tmp_path):
    def write(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "a.txt").write_text("new")
        (folder / "inner/b.txt").write_text("new")

    def fail(folder: Path) -> None:
        write(folder)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.fill_folder(tmp_path / "new", fail)
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old/a.txt").write_text("old")
    (tmp_path / "old/c.txt").write_text("old")
    for fill, texts in ((fail, {"a.txt": "old", "c.txt": "old"}), (write, {"a.txt": "new", "c.txt": "old"})):
        try:
            files.fill_folder(tmp_path / "old", fill)
        except RuntimeError:
            assert fill is fail
        assert {path.name: path.read_text() for path in (tmp_path / "old").glob("*.txt")} == texts
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == ["a.txt", "c.txt", "inner"]


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    for step in (900, 1000, 50):
        files.checkpoint_folder(tmp_path, step).mkdir()
    (tmp_path / "checkpoint-last").mkdir()
    assert [files.step_of(path) for path in files.checkpoints_of(tmp_path)] == [50, 900, 1000]


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}


OLD = {"config.json": "old", "model.safetensors": "old", "model-2.safetensors": "old"}
NEW = {"config.json": "new", "model.safetensors": "new"}
EARLIER = ["*.json", "model*"]


def write_new(folder: Path) -> None:
    for name, text in NEW.items():
        (folder / name).write_text(text)


def kill_at(renaming: int) -> None:
    """Lets this process be killed when it renames something, after so many other times."""
    left = iter([False] * renaming + [True])

    def dying(function: Callable) -> Callable:
        return lambda *args: kill() if next(left, False) else function(*args)

    os.replace, Path.rename = dying(os.replace), dying(Path.rename)  # type: ignore[assignment,method-assign]


@FORK
@pytest.mark.parametrize(
    ("before", "renamings"),
    [(None, 1), ({}, 2), (OLD, 2), ({**OLD, "notes.txt": "mine"}, 2)],
    ids=["missing", "empty", "earlier", "earlier with notes"],
)
def test_a_kill_leaves_no_mixture_and_does_not_stand_in_the_way(before, renamings, tmp_path):
    notes = {"notes.txt": "mine"} if "notes.txt" in (before or ()) else {}
    for at in range(renamings + 1):
        out = tmp_path / str(at) / "out"
        out.parent.mkdir()
        if before is not None:
            out.mkdir()
        for name, text in (before or {}).items():
            (out / name).write_text(text)
        assert is_killed(lambda: (kill_at(at), files.fill_folder(out, write_new, EARLIER))) == (at < renamings)  # noqa: B023
        model = {name: text for name, text in texts(out).items() if name != "notes.txt"}
        assert "config.json" not in model or model in (OLD, NEW)
        files.check_output_folder(out, in_use=None if before or at == renamings else "give another")
        if before == OLD and at < renamings:
            assert texts(out) == OLD
        files.fill_folder(out, write_new, EARLIER)
        assert texts(out) == {**NEW, **notes} and os.listdir(out.parent) == ["out"]


def test_a_folder_gets_its_place_back_when_the_new_one_cannot_have_it(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.bin").write_text("good")
    rename = Path.rename

    def full(self, target):
        if ".partial" in self.name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space"):
        files.fill_folder(tmp_path / "out", write_new, ["*"])
    assert texts(tmp_path / "out") == {"model.bin": "good"} and os.listdir(tmp_path) == ["out"]


@FORK
def test_the_folder_that_one_works_in_stays_the_same_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    number = tmp_path.stat().st_ino
    assert is_killed(lambda: files.fill_folder(Path("."), lambda folder: (write_new(folder), kill())))
    assert len(os.listdir(tmp_path)) == 1
    files.check_output_folder(Path("."), in_use="give another")
    files.fill_folder(Path("."), write_new)
    assert tmp_path.stat().st_ino == number and texts(tmp_path) == NEW
