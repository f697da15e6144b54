# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
One writer for a run's folder: a lock file there, which a process keeps while it lives and loses when it has died.

A process of this machine lives if the system says so. Of one on another machine, or in another container, only its
sign of life is seen: it touches its file every `BEAT` seconds. Times are those of the folder's file system, so clocks
of machines may differ; and a silence is never believed by the times alone, because clocks are set, too.

Lock files are numbered. Whoever takes over from a dead process makes the next number, which only one can, and deletes
the dead one's file afterwards. So a file is never replaced, and none is deleted that somebody else has just made.
"""

import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import getnode, uuid4

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainingArguments

from ..errors import ArgumentError
from ..files import check_writable


LOCK = ".run-{number}.lock"
# Seconds: between signs of life; without one until a process counts as dead; and of looking whether one still comes.
BEAT, SILENCE, LOOK = 5.0, 60.0, 15.0
# Tries to make a lock file, and to read one that is just being written, before something is wrong.
TRIES = 20


@dataclass(frozen=True)
class Writer:
    """
    The process that a lock file names.

    Args:
        pid, host: Its number, and its machine for people.
        machine: What processes that see each other's numbers have in common, see [`this_machine`].
        start: When it began, see [`start_of`]: numbers are given again.
        since: When it has taken the folder, for people.
        run: Name of the run, which all of its processes know.
        place: The lock file, as its process sees it, and the number of that file: a copy has others.
    """

    pid: int
    host: str
    machine: str
    start: str
    since: str
    run: str
    place: str
    file: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} has been writing there since {self.since}"


def this_machine() -> str:
    """Returns what processes that see each other's numbers have in common: host, start of its system, container."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {started} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} {getnode():x}"


def start_of(pid: int) -> str | None:
    """
    Returns when a process began, in the system's own count; "" if that cannot be told, None if there is no such
    process any more. One that has ended and that its parent has not asked about is none any more.
    """
    with suppress(OSError):
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else others[18]
    if os.name == "nt":  # where `os.kill` ends a process
        return ""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:  # another user's
        return ""
    return ""


def locks_of(folder: Path) -> dict[int, Path]:
    """Returns the lock files in a folder by their numbers."""
    pattern = re.compile(re.escape(LOCK).replace(r"\{number\}", "([0-9]+)"))
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return {}
    return {int(match[1]): folder / name for name in names if (match := pattern.fullmatch(name))}


def read_writer(path: Path) -> Writer | None:
    """Returns the process that a lock file names; None if it names none, as after a power cut."""
    for _ in range(TRIES):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return Writer(**{each.name: each.type(content[each.name]) for each in fields(Writer)})  # type: ignore[operator]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError):
            time.sleep(0.05)  # it may be just being written
    return None


def look_at(path: Path) -> os.stat_result | None:
    """Returns when a lock file was touched last, by the file system's clock, and its number; None if it is gone."""
    try:
        with open(path, "rb") as file:  # opened, because a network's file system may remember an older time
            return os.fstat(file.fileno())
    except FileNotFoundError:
        return None


def clock_of(folder: Path) -> float:
    """Returns the time by the clock of a folder's file system; this machine's if nothing can be written there."""
    path = folder / f".clock-{uuid4().hex}"
    try:
        path.touch()
        return path.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            path.unlink()


def why_alive(path: Path) -> str | None:
    """
    Returns who has a lock and lives, and what to do about it, for an error message; None if that process is dead.

    It looks for `LOOK` seconds if a process of another machine seems to be dead.
    """
    writer, before = read_writer(path), look_at(path)
    if before is None:
        return None
    if writer is not None and writer.machine == this_machine():
        start = start_of(writer.pid)
        is_copy = writer.place != os.path.realpath(path) and writer.file != before.st_ino
        if start is None or (start and (start != writer.start or is_copy)):
            return None
        if start:
            return f"{writer}: wait for its end, stop it (kill {writer.pid}), or take another folder"
    age = clock_of(path.parent) - before.st_mtime
    if not -1 <= age <= SILENCE:
        end = time.monotonic() + LOOK
        while (now := look_at(path)) is not None and now.st_mtime == before.st_mtime:
            if time.monotonic() > end:
                return None
            time.sleep(0.2)
        if now is None:
            return None
        age = 0.0
    return (
        f"{writer or 'some process has been writing there'}, with a sign of life {max(age, 0):.0f} seconds ago: wait "
        f"for its end, stop it there, or take another folder. If it has died, start again in {SILENCE - age:.0f} "
        f"seconds, or delete {path}"
    )


def refuse_live(folder: Path, action: str) -> None:
    """
    Checks that no run is writing to a folder.

    Args:
        action: What cannot be done meanwhile: "push" or another verb.

    Raises:
        ArgumentError: A run is.
    """
    for path in locks_of(folder).values():
        if (who := why_alive(path)) is not None:
            raise ArgumentError(f"{folder}: {action} a run when it has ended: {who}")


class OutputLock:
    """
    A lock file that this process has made and keeps alive by a thread.

    Args:
        path: The file.
        run: Name of the run.
        made: Folders that were made for it, which go again if nothing else comes into them.
    """

    def __init__(self, path: Path, run: str, made: list[Path]):
        self.path, self.made, self.pid = path, made, os.getpid()
        self.ended, self.renewing = threading.Event(), threading.Lock()
        self.own: dict[str, Any] = {
            **{"pid": self.pid, "host": socket.gethostname(), "machine": this_machine()},
            **{"start": start_of(self.pid) or "", "since": datetime.now().astimezone().isoformat(" ", "seconds")},
            **{"run": run, "place": os.path.realpath(path)},
        }
        self.writer = self.write()
        threading.Thread(target=self.beat, name="output lock", daemon=True).start()

    def write(self) -> Writer:
        """Makes the file, which must not be there."""
        descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            writer = Writer(**self.own, file=os.fstat(descriptor).st_ino)
            os.write(descriptor, json.dumps(asdict(writer)).encode())
            with suppress(OSError):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return writer

    def beat(self) -> None:
        """Gives a sign of life again and again, until the lock is released."""
        while not self.ended.wait(BEAT):
            with self.renewing, suppress(OSError):  # a network that is away for a moment
                if not self.ended.is_set() and self.path.parent.is_dir():  # it may have been renamed
                    self.renew()

    def renew(self) -> None:
        """Touches the file, or makes it again if it was deleted; ends the process if another has the folder now."""
        if read_writer(self.path) == self.writer:
            return os.utime(self.path)
        others = {read_writer(each): each for each in locks_of(self.path.parent).values()}
        for other, path in others.items():
            if other not in (None, self.writer) and why_alive(path) is not None:
                print(
                    f"error: {self.path.parent}: {other}, because this process had given no sign of life; it ends, to "
                    "leave one writer",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(2)
        if self.path.exists():  # and cannot be read
            os.utime(self.path)
        else:
            self.writer = self.write()

    def release(self) -> None:
        """Deletes the file, and the folders that were made for it if nothing else is in them."""
        if self.pid != os.getpid():  # a fork's copy
            return
        self.ended.set()
        with self.renewing, suppress(OSError):
            if read_writer(self.path) == self.writer:
                self.path.unlink()
        remove_empty(self.made)


# The locks of this process.
HELD: list[OutputLock] = []


def release_locks() -> None:
    """Gives back all that this process has taken."""
    while HELD:
        HELD.pop().release()


@contextmanager
def locks_released() -> Iterator[None]:
    """Gives back, at the end of a block or a function, what was taken in it, however it ends."""
    try:
        yield
    finally:
        release_locks()


def make_folder(folder: Path) -> list[Path]:
    """Makes a folder and those above it; returns the ones that were not there, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: list[Path]) -> None:
    """Removes folders, the innermost first, until one is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def take(folder: Path, run: str, say: Callable) -> None:
    """
    Takes a folder for this process, or sees that another process of the same run has it.

    Args:
        run: Name of the run.

    Raises:
        ArgumentError: Another run has it, or it cannot be written.
    """
    check_writable(folder, f"--output_dir {folder}")
    made: list[Path] = []
    lock = None
    try:
        for _ in range(TRIES):
            made += [path for path in make_folder(folder) if path not in made]
            found = {number: (path, read_writer(path)) for number, path in locks_of(folder).items()}
            if any(writer is not None and writer.run == run for _, writer in found.values()):
                return
            for path, _ in found.values():
                if (who := why_alive(path)) is not None:
                    raise ArgumentError(f"--output_dir {folder}: {who}")
            try:
                lock = OutputLock(folder / LOCK.format(number=max(found, default=0) + 1), run, made)
            except (FileExistsError, FileNotFoundError):  # another was faster, or has removed the folder
                continue
            now = {number: (path, read_writer(path)) for number, path in locks_of(folder).items()}
            if any(found.get(number) != each for number, each in now.items() if each[0] != lock.path):
                lock.release()  # made between the look and the file
                lock = None
                time.sleep(0.1)
                continue
            HELD.append(lock)
            for path, writer in found.values():
                path.unlink(missing_ok=True)
                who = "a process" if writer is None else f"process {writer.pid} on {writer.host}"
                say(f"{folder}: {who}, which was writing there, has died; this run takes its place")
            return
        raise ArgumentError(f"--output_dir {folder}: other starts come and go there all the time: try again")
    except OSError as error:
        raise ArgumentError(f"--output_dir {folder}: cannot be written: {error.strerror or error}") from error
    finally:
        if lock is None:
            remove_empty(made)


def lock_output(training_args: TrainingArguments) -> None:
    """
    Takes a run's output folder until the end of [`locks_released`]: before all else, in every process of the run.

    One process of the run takes it, on each machine if each is to save; all of them come back, or all raise.

    Raises:
        ArgumentError: Another run has it, or it cannot be written.
    """
    run: list[str] = broadcast_object_list([uuid4().hex])
    refusals: list[str | None] = [None]
    if training_args.should_save:
        try:
            take(Path(str(training_args.output_dir)), run[0], PartialState().print)
        except ArgumentError as error:
            refusals = [str(error)]
    # Nobody leaves while others wait.
    refused = [each for each in gather_object(refusals) if each is not None]
    if refused:
        release_locks()
        raise ArgumentError(refused[0])
