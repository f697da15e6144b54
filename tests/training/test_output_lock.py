# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""One writer for a folder: live, dead, of another machine, at the same instant, copied, deleted."""

import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_runs import launch, output_of, refused

from hf_xformer.commands import card, push, train
from hf_xformer.errors import ArgumentError
from hf_xformer.training import output_lock
from hf_xformer.training.output_lock import HELD, locks_of, read_writer, release_locks, take, this_machine


FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    release_locks()


def become_another_machine() -> None:
    """Gives this process a host name of its own, by which it is another machine; only root may."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x04000000) != 0:  # CLONE_NEWUTS
        os._exit(77)
    socket.sethostname("elsewhere")


def hold(folder: Path, elsewhere: bool, answers) -> None:
    """Takes a folder and keeps it until the process is killed."""
    if elsewhere:
        become_another_machine()
    try:
        take(folder, f"run of {os.getpid()}", lambda line: None)
    except ArgumentError as error:
        answers.put(str(error))
        return
    answers.put("taken")
    time.sleep(600)


@contextmanager
def held(folder: Path, elsewhere: bool = False):
    """Another process, which has a folder until it is killed."""
    answers = FORK.SimpleQueue()
    process = FORK.Process(target=hold, args=(folder, elsewhere, answers), daemon=True)
    process.start()
    while process.is_alive() and answers.empty():
        time.sleep(0.01)
    if process.exitcode == 77:
        pytest.skip("needs root: a host name of its own for a process")
    assert answers.get() == "taken"
    try:
        yield process
    finally:
        process.kill()
        process.join()


def take_here(folder: Path) -> list[str]:
    """Takes a folder for this process; returns what it says."""
    said: list[str] = []
    take(folder, "this run", said.append)
    return said


def the_lock(folder: Path) -> Path:
    (path,) = locks_of(folder).values()
    return path


def test_a_second_start_is_refused_at_once_and_a_dead_process_keeps_nothing(tmp_path):
    folder = tmp_path / "runs/one"
    with held(folder) as process:
        begin = time.monotonic()
        with pytest.raises(ArgumentError) as refusal:
            take_here(folder)
        assert time.monotonic() - begin < 1
        line = str(refusal.value)
        assert f"--output_dir {folder}: process {process.pid} on {socket.gethostname()} has been writing" in line
        assert f"since {time.strftime('%Y-')}" in line and f"kill {process.pid}" in line
        os.kill(process.pid, signal.SIGKILL)
        while output_lock.start_of(process.pid) is not None:  # it need not have been waited for
            time.sleep(0.01)
        (said,) = take_here(folder)
        assert f"process {process.pid}" in said and "has died" in said
        assert read_writer(the_lock(folder)).pid == os.getpid()
    release_locks()
    assert not list(folder.iterdir())


def start_with_others(folder: Path, barrier, answers) -> None:
    barrier.wait()
    try:
        take(folder, f"run of {os.getpid()}", lambda line: None)
        answers.put("")
    except ArgumentError as error:
        answers.put(str(error))
    barrier.wait()  # nobody ends before all have tried
    release_locks()


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 1, 3], ids=["in a new folder", "after a dead one", "after three"])
@pytest.mark.parametrize("attempt", range(4))
def test_of_several_that_start_at_the_same_instant_exactly_one_wins(attempt, left, tmp_path):
    folder = tmp_path / "run"
    for number in range(1, left + 1):
        leave_lock(folder, number=number, pid=dead_process())
    barrier, answers = FORK.Barrier(5), FORK.SimpleQueue()
    starts = [FORK.Process(target=start_with_others, args=(folder, barrier, answers)) for _ in range(5)]
    for each in starts:
        each.start()
    said = [answers.get() for _ in starts]
    for each in starts:
        each.join()
    assert said.count("") == 1 and sum("has been writing there" in line for line in said) == 4
    assert not locks_of(folder)


def dead_process() -> int:
    """Number of a process that there is no more."""
    process = FORK.Process(target=int)
    process.start()
    process.join()
    return process.pid


def leave_lock(folder: Path, number: int = 1, age: float = 0.0, **changes) -> Path:
    """Leaves a lock file as this process would make it, but for changes; `age` in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / output_lock.LOCK.format(number=number)
    path.touch()
    names = {"host": socket.gethostname(), "machine": this_machine(), "since": "yesterday", "run": "an earlier run"}
    process = {"pid": os.getpid(), "start": output_lock.start_of(os.getpid())}
    file = {"place": os.path.realpath(path), "file": path.stat().st_ino}
    path.write_text(json.dumps({**names, **process, **file, **changes}))
    os.utime(path, (path.stat().st_mtime - age,) * 2)
    return path


def test_a_number_that_was_given_again_is_another_process(tmp_path):
    leave_lock(tmp_path, start="1")
    (said,) = take_here(tmp_path)
    assert "has died" in said


def test_a_process_that_lives_keeps_its_folder_however_old_its_sign_of_life(tmp_path):
    """As after a laptop's sleep, or a clock that was set."""
    leave_lock(tmp_path, age=7200)
    with pytest.raises(ArgumentError, match="has been writing there"):
        take_here(tmp_path)


def test_a_copy_of_a_live_folder_is_free(tmp_path):
    with held(tmp_path / "run"):
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        take_here(tmp_path / "copy")
        with pytest.raises(ArgumentError):
            take_here(tmp_path / "run")


@pytest.mark.slow
def test_another_machine_is_refused_while_it_lives_and_its_folder_is_free_after_a_silence(tmp_path, monkeypatch):
    monkeypatch.setattr(output_lock, "LOOK", 0.5)
    with held(tmp_path, elsewhere=True) as process:
        with pytest.raises(ArgumentError) as refusal:
            take_here(tmp_path)
        for part in (f"process {process.pid} on elsewhere", "sign of life", "start again in", f"delete {tmp_path}"):
            assert part in str(refusal.value)
        process.kill()
        process.join()
        with pytest.raises(ArgumentError):  # it cannot be told yet
            take_here(tmp_path)
        path = the_lock(tmp_path)
        os.utime(path, (path.stat().st_mtime - output_lock.SILENCE - 5,) * 2)
        (said,) = take_here(tmp_path)
        assert "on elsewhere" in said and "has died" in said


@pytest.mark.parametrize("hours", [-5, 5])
def test_the_clock_of_this_machine_decides_nothing(hours, tmp_path, monkeypatch):
    monkeypatch.setattr(output_lock, "LOOK", 0.3)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + hours * 3600)
    leave_lock(tmp_path / "live", machine="another", age=20)
    leave_lock(tmp_path / "dead", machine="another", age=100)
    with pytest.raises(ArgumentError, match="sign of life 20 seconds ago"):
        take_here(tmp_path / "live")
    take_here(tmp_path / "dead")


@pytest.mark.slow
@pytest.mark.parametrize("age", [-7200, 7200])
def test_a_machine_whose_clock_was_set_is_watched_before_it_is_called_dead(age, tmp_path, monkeypatch):
    monkeypatch.setattr(output_lock, "LOOK", 1.5)
    path = leave_lock(tmp_path, machine="another", age=age)
    alive = FORK.Process(target=touch_again, args=(path, age), daemon=True)
    alive.start()
    with pytest.raises(ArgumentError, match="sign of life 0 seconds ago"):
        take_here(tmp_path)
    alive.kill()
    alive.join()
    assert take_here(tmp_path)


def touch_again(path: Path, age: float) -> None:
    while True:
        time.sleep(0.3)
        os.utime(path, (time.time() - age,) * 2)


@pytest.mark.slow
def test_a_lock_file_without_content_is_a_process_that_nobody_can_ask(tmp_path, monkeypatch):
    """As a power cut may leave it."""
    monkeypatch.setattr(output_lock, "LOOK", 0.3)
    path = leave_lock(tmp_path)
    path.write_text("")
    with pytest.raises(ArgumentError, match="some process"):
        take_here(tmp_path)
    os.utime(path, (path.stat().st_mtime - 100,) * 2)
    assert take_here(tmp_path)


def test_processes_of_one_run_share_the_folder(tmp_path):
    take(tmp_path, "one run", print)
    take(tmp_path, "one run", print)
    assert len(HELD) == 1
    with pytest.raises(ArgumentError):
        take(tmp_path, "another run", print)


def test_a_live_process_gives_signs_of_life_and_makes_a_deleted_file_again(tmp_path, monkeypatch):
    monkeypatch.setattr(output_lock, "BEAT", 0.05)
    take_here(tmp_path)
    path = the_lock(tmp_path)
    os.utime(path, (0, 0))
    wait_until(lambda: path.stat().st_mtime > 0)
    path.unlink()
    wait_until(path.exists)
    assert read_writer(path).pid == os.getpid()
    release_locks()
    assert not path.exists()


def wait_until(is_true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.02)


def hold_until_lost(folder: Path, ready, go) -> None:
    output_lock.BEAT = 0.05
    take(folder, "frozen run", print)
    HELD[0].renewing.acquire()  # as a machine that is frozen
    ready.set()
    go.wait()
    HELD[0].renewing.release()
    time.sleep(60)


def test_a_process_that_lost_its_folder_while_it_was_frozen_ends(tmp_path):
    ready, go = FORK.Event(), FORK.Event()
    frozen = FORK.Process(target=hold_until_lost, args=(tmp_path, ready, go), daemon=True)
    frozen.start()
    ready.wait()
    the_lock(tmp_path).unlink()
    take_here(tmp_path)
    go.set()
    frozen.join(30)
    assert frozen.exitcode == 2


def test_train_push_and_card_leave_a_live_folder_alone(task, tmp_path, capsys):
    folder = tmp_path / "run"
    with held(folder) as process:
        before = sorted(folder.iterdir())
        for line in (
            refused(train, task.options(folder, train_file="no-such.jsonl"), capsys),
            refused(push, [folder, "user/name"], capsys),
            refused(card, [folder], capsys),
        ):
            assert f"process {process.pid} on " in line
        assert sorted(folder.iterdir()) == before


@pytest.mark.distributed
def test_all_processes_of_a_refused_start_end_with_one_line(task, tmp_path):
    with held(tmp_path) as process:
        start = launch(task.options(tmp_path, train_file="no-such.jsonl"), "cpu-2proc")
        output = output_of(start, timeout=120)
    assert start.returncode != 0
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert f"process {process.pid} on " in line


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"train_file": "no-such.jsonl"}], ids=["done", "refused"])
def test_main_gives_the_folder_back(changes, task, tmp_path, monkeypatch):
    seen = []
    prepare = train.prepare
    monkeypatch.setattr(train, "prepare", lambda *args: seen.append(the_lock(tmp_path)) or prepare(*args))
    for _ in range(2):
        try:
            train.main(task.options(tmp_path, max_steps=1, **changes))
        except SystemExit:
            assert changes
    assert len(seen) == 2 and not locks_of(tmp_path) and not HELD


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_main_gives_the_folder_back_after_an_error(error, task, tmp_path, monkeypatch):
    def fail(*args):
        raise error

    monkeypatch.setattr(train, "prepare", fail)
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
        train.main(task.options(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_this_machine_is_one_for_all_processes_on_it():
    answers = FORK.SimpleQueue()
    process = FORK.Process(target=lambda: answers.put(this_machine()))
    process.start()
    assert answers.get() == this_machine()
    process.join()
