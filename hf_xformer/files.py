# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Names of the files in a run's and a checkpoint's folder; reading them; writing files and folders whole."""

import errno
import hashlib
import json
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

from .errors import ArgumentError, one_line


PACKAGE = Path(__file__).parent
# Where `configs/` and `model_cards/` are: inside an installed package, or beside it in the source tree.
SHARE_ROOTS = (PACKAGE / "share", PACKAGE.parent)

# In every checkpoint.
CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
TARGET_TOKENIZER = "target_tokenizer"  # a folder beside the source's tokenizer, if the target has its own
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# In a run's checkpoints.
CHECKPOINT = "checkpoint-{step}"
TRAINER_STATE = "trainer_state.json"
AVERAGES = "averages.safetensors"  # weights averaged over the steps (--ema_decay)
WHOLE_ADAPTER = "whole_adapter.safetensors"  # what is trained of adapters that PEFT saves in part
OPTIMIZER_SHARDS = "optimizer_shards"  # the optimizer's parts under tensor parallelism
# In a run's folder.
RECORD = "run.json"
ERROR_LOG = "error.log"  # traceback of the error that ended a run
TRAIN_RESULTS, EVAL_RESULTS, TEST_RESULTS = "train_results.json", "eval_results.json", "test_results.json"
AVERAGED = "averaged.json"  # of which checkpoints a model is the average
ALL_RESULTS = "all_results.json"  # the first two in one, by the Trainer
CARD, CURVES, ATTENTION = "README.md", "curves.png", "attention.png"
PUSHED = ".published.json"  # hashes of the files that were pushed from the folder, by repository
CARD_TEMPLATE = "model_cards/template.md"  # ships with the package

DIGESTS: dict[tuple, str] = {}  # of the files that `content_of` has read

# A file or folder that is being written: its writer's machine, process and a number of its own are in the name.
HOST = re.sub(r"\W", "_", platform.node())
UNFINISHED = re.compile(rf"\..+\.{HOST}-([1-9]\d{{0,8}})-[0-9a-f]{{8}}\.partial(\.[^.]*)?")


def find(path: str | Path) -> Path:
    """Returns the path itself if it exists; else the package's own file of that name, if there is one."""
    path = Path(path)
    if path.exists() or path.parts[:1] not in (("configs",), ("model_cards",)):
        return path
    return next((root / path for root in SHARE_ROOTS if (root / path).exists()), path)


def doubled(paths: Iterable[str | Path]) -> str | Path | None:
    """Returns the first path that names what an earlier one has named, however they are spelt; None if none does."""
    seen: set[str] = set()
    for path in paths:
        if (place := os.path.realpath(path)) in seen:
            return path
        seen.add(place)
    return None


def packaged(path: str | Path) -> Path:
    """
    Returns the package's own file or folder of that name, whatever the working folder holds.

    Raises:
        ArgumentError: The package was installed without it.
    """
    found = next((root / path for root in SHARE_ROOTS if (root / path).exists()), None)
    if found is None:
        raise ArgumentError(f"{path}: not in this installation of the package: install it anew")
    return found


def travelling_files() -> list[Path]:
    """Returns the code that transformers copies beside the weights of a checkpoint."""
    return sorted((PACKAGE / "models").glob("*_xformer.py"))


def checkpoint_folder(output_dir: str | Path, step: int) -> Path:
    """Returns the folder of the checkpoint that a run saves after `step` steps."""
    return Path(output_dir, CHECKPOINT.format(step=step))


def checkpoints_of(output_dir: Path) -> list[Path]:
    """Returns the checkpoints in a run's folder, in the order of their steps."""
    found = [path for path in output_dir.glob(CHECKPOINT.format(step="*")) if step_of(path) is not None]
    return sorted(found, key=lambda path: step_of(path) or 0)


def step_of(checkpoint: Path) -> int | None:
    """Returns the step that a checkpoint's folder is named after, or None if it is named otherwise."""
    match = re.fullmatch(CHECKPOINT.format(step=r"(\d+)"), checkpoint.name)
    return int(match[1]) if match else None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of JSON, as `object_pairs_hook` of `json.loads`; raises ValueError for a key that is doubled."""
    names = [name for name, _ in pairs]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"`{doubled[0][:80]}` is there twice: keep one")
    return dict(pairs)


def read_json(path: Path, kind: type = dict) -> Any:
    """
    Reads a JSON file; an empty value of its kind if there is none.

    Args:
        kind: `dict` for an object, `list` for an array.

    Raises:
        ArgumentError: The file cannot be read, or holds something else.
    """
    if not path.exists():
        return kind()
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"{path}: not JSON: {one_line(error)}") from error
    if not isinstance(content, kind):
        raise ArgumentError(f"{path}: expected a JSON {'object' if kind is dict else 'array'}, got {content!r:.40}")
    return content


def read_text(path: Path, where: str | None = None) -> str:
    """
    Reads a text file in UTF-8.

    Args:
        where: What the error names, such as "--card_facts facts.yaml"; the path by default.

    Raises:
        ArgumentError: There is no such file, or it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"{where or path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{where or path}: cannot be read: not UTF-8, at byte {error.start}") from error


@contextmanager
def whole_file(path: Path, keep: bool = False) -> Iterator[Path]:
    """
    Yields the path of an unfinished file, which takes the place of `path` at the end of the block: whoever reads it
    sees all of it or what was there before. After an error the unfinished file is removed.

    A link is followed and an earlier file's permissions are kept. Devices and pipes, `/dev/stdout` say, are written to
    directly.

    Args:
        keep: Whether an unfinished file that holds something stays, as [`kept_path`], and a line on stderr says so.

    Raises:
        OSError: The file cannot be written. The error names `path`.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if str(path.parent) in ("/dev", "/dev/fd", "/proc/self/fd") or (target.exists() and not target.is_file()):
        yield path
        return
    unfinished = kept_path(path) if keep else unfinished_path(target, target.parent)
    try:
        yield unfinished
        if target.exists():
            shutil.copymode(target, unfinished)
        flush_to_disk(unfinished)
        os.replace(unfinished, target)
        flush_to_disk(target.parent)
    except BaseException as error:
        if keep and unfinished.is_file() and unfinished.stat().st_size > 0:
            print(f"{path} is not finished: {unfinished} holds what was written", file=sys.stderr)
        elif not unfinished.is_dir():
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(unfinished), unfinished):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def kept_path(path: Path) -> Path:
    """Returns the name of an unfinished file that stays if it is not finished."""
    target = Path(os.path.realpath(path))
    return target.with_name(f"{target.name}.partial")


def unfinished_path(target: Path, place: Path) -> Path:
    """Returns a new path for an unfinished file or folder, and removes those of the same target left by a kill."""
    start, end = f".{target.stem}.{HOST}-", f".partial{target.suffix}"
    with suppress(OSError):
        for path in place.iterdir():
            if path.name.startswith(start) and path.name.endswith(end) and is_left_over(path):
                remove(path)
    # Its own for each writer, or two would write into one. The ending is kept: some libraries go by it.
    return place / f"{start}{os.getpid()}-{uuid4().hex[:8]}{end}"


def is_left_over(path: Path) -> bool:
    """Returns whether a path is an unfinished file or folder whose writer has ended."""
    match = UNFINISHED.fullmatch(path.name)
    if match is None or os.name == "nt":  # where `os.kill` ends a process
        return False
    try:
        os.kill(int(match[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False


def remove(path: Path) -> None:
    """Deletes a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def flush_to_disk(path: Path) -> None:
    """Makes a file's content, or the names in a folder, outlast a power cut, where the system can."""
    if path.is_dir() and os.name == "nt":  # which cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file whole: `write` is called with the path of the unfinished one, as of [`whole_file`]."""
    with whole_file(path) as unfinished:
        write(unfinished)


@contextmanager
def open_whole(path: Path, keep: bool = False) -> Iterator[TextIO]:
    """
    Opens a text file for writing, in UTF-8; it takes its place when the block ends, as with [`whole_file`].

    With `keep` each line is written at once, and outlasts a kill too.
    """
    with whole_file(path, keep) as unfinished, open(unfinished, "w", 1 if keep else -1, "utf-8") as output:
        yield output


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole."""
    with open_whole(path) as output:
        output.write(text)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file whole, indented; numbers that are not finite become null, and a line on stderr says which."""
    for name, value in not_finite(content):
        print(f"{path}: `{name}` is {value}, which JSON cannot hold: null stands there", file=sys.stderr)
    write_text(path, json.dumps(with_nulls(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[dict]) -> None:
    """Writes a file of one JSON object a line, whole."""
    with open_whole(path) as output:
        output.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def not_finite(content: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yields the numbers of a JSON value that are not finite, each with its name, such as "log_history.3.loss"."""
    if isinstance(content, float):
        if not math.isfinite(content):
            yield name, content
    elif isinstance(content, dict | list | tuple):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            yield from not_finite(value, f"{name}.{key}" if name else str(key))


def with_nulls(content: Any) -> Any:
    """Returns a JSON value with None in place of every number that is not finite."""
    if isinstance(content, dict):
        return {key: with_nulls(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [with_nulls(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def content_of(*paths: Path) -> str:
    """Returns size and SHA-256 of a file, or of several and of folders: of all files in them, with their names."""
    if len(paths) == 1 and not paths[0].is_dir():
        status = paths[0].stat()
        version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        # A file may be written twice within a tick of its clock: a fresh one is read again.
        if time.time() - status.st_ctime < 3 or version not in DIGESTS:
            with paths[0].open("rb") as file:
                DIGESTS[version] = hashlib.file_digest(file, "sha256").hexdigest()
        return f"{status.st_size:,} bytes, sha256 {DIGESTS[version]}"
    whole, size = hashlib.sha256(), 0
    for path in paths:
        inside = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for each in inside:
            name = each.relative_to(path if path.is_dir() else path.parent)
            if not any(part.startswith(".") for part in name.parts):
                whole.update(f"{name.as_posix()}: {content_of(each)}\n".encode())
                size += each.stat().st_size
    return f"{size:,} bytes, sha256 {whole.hexdigest()}"


def check_output_folder(folder: Path, option: str = "", in_use: str | None = None) -> None:
    """
    Checks that a folder can be written; one that a kill has left without its name gets it back (`replace_folder`).

    Args:
        option: As it is typed; empty for an argument without a name.
        in_use: What to type next if the folder holds something; None if it may.

    Raises:
        ArgumentError: There cannot be such a folder, or it is in use.
    """
    target = Path(os.path.realpath(folder))
    if not target.exists() and replaced_path(target).is_dir():
        replaced_path(target).rename(target)
    where = f"{option} {folder}".strip()
    check_writable(folder, where)
    if in_use is not None and contents(folder):
        raise ArgumentError(f"{where}: the folder is not empty; {in_use}")


def check_writable(folder: Path, where: str) -> None:
    """
    Checks that a folder is one, or can be made, and that files can be made there; nothing is left of the trial.

    Args:
        where: The option with its value, for the message.

    Raises:
        ArgumentError: There is a file, a link to nothing or a read-only folder in the way.
    """
    for path in (folder, *folder.absolute().parents):
        if path.is_symlink() and not path.exists():
            raise ArgumentError(f"{where}: {path} is a link to {os.readlink(path)}, which is not there")
        if path.exists():
            if not path.is_dir():
                raise ArgumentError(f"{where}: not a folder" + (f": {path} is a file" if path != folder else ""))
            try:
                with tempfile.TemporaryFile(dir=path):
                    return
            except OSError as error:
                raise ArgumentError(f"{where}: cannot be written: {path}: {error.strerror}") from error


def contents(folder: Path) -> list[Path]:
    """Returns what is in a folder, if there is one, without what a kill has left unfinished."""
    return [path for path in folder.iterdir() if not is_left_over(path)] if folder.is_dir() else []


def fill_folder(folder: Path, write: Callable[[Path], Any], earlier: Iterable[str] = ()) -> Any:
    """
    Writes a folder whole: `write` fills another one, which then gets the name. If it fails, nothing has changed.

    Where `folder` holds other files, they stay, and the new ones move in, CONFIG last, so that old weights and new
    ones are never taken for one model.

    Args:
        earlier: Patterns of the names that an earlier content has, which is removed.

    Returns:
        The result of `write`.
    """
    target, earlier = Path(os.path.realpath(folder)), list(earlier)
    target.parent.mkdir(parents=True, exist_ok=True)
    moved_into = target.is_dir() and has_fixed_place(target)
    unfinished = unfinished_path(target, target if moved_into else target.parent)
    try:
        unfinished.mkdir()
        result = write(unfinished)
        old = [path for path in contents(target) if any(fnmatchcase(path.name, pattern) for pattern in earlier)]
        if moved_into or any(path not in old and not (unfinished / path.name).is_file() for path in contents(target)):
            move_into(unfinished, target, old)
        else:
            replace_folder(unfinished, target)
        return result
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def has_fixed_place(folder: Path) -> bool:
    """Returns whether no other folder can take this one's name: it is mounted, or its parent cannot be written."""
    other_disk = folder.stat().st_dev != folder.parent.stat().st_dev
    # A shell that works in the folder would be left in a deleted one.
    in_use = folder == Path(os.path.realpath(Path.cwd()))
    return other_disk or in_use or not os.access(folder.parent, os.W_OK)


def move_into(new: Path, folder: Path, old: Iterable[Path]) -> None:
    """Moves all files of a folder into another, from which the old ones are removed."""
    if (new / CONFIG).exists():
        (folder / CONFIG).unlink(missing_ok=True)
    for path in old:
        if path.exists():
            remove(path)
    for path in sorted((path for path in new.rglob("*") if path.is_file()), key=lambda path: path == new / CONFIG):
        target = folder / path.relative_to(new)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)


def replace_folder(new: Path, folder: Path) -> None:
    """Renames a folder to the name of another, which is deleted, if it is there, when the new one has its name."""
    old = replaced_path(folder)
    if folder.exists():
        shutil.copymode(folder, new)
        shutil.rmtree(old, ignore_errors=True)  # left by a kill when its successor was in place
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.is_dir() and not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def replaced_path(folder: Path) -> Path:
    """Returns the name that a folder has while another takes its place."""
    return folder.with_name(f".{folder.name}.old")
