# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of one file of a checkpoint, of any run: it is there, whole, and all its numbers are finite."""

import errno
import math
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np
import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from torch.distributed.checkpoint import FileSystemReader
from transformers.trainer_pt_utils import safe_globals

from ..checkpoints.weight_files import LENGTH_BYTES, check_finite_tensor
from ..errors import ArgumentError, first_line


# Errors of the system that say nothing of what a file holds.
NO_ANSWER = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
# What readers of JSON, text, zip files, pickles and safetensors raise for bytes that are none.
DAMAGE: tuple[type[Exception], ...] = (
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    UnpicklingError,
    SafetensorError,
)
# And what taking a file's content apart raises if it is of another form.
CONTENT = (KeyError, IndexError, TypeError, AttributeError, OverflowError)


class NotWholeError(ArgumentError):
    """
    A file of a checkpoint that is missing, cut off or damaged.

    The checkpoint is passed over for an earlier one; where there is none, the run is refused, and not started anew.
    """


class UnfinishedError(NotWholeError):
    """
    A file that saving writes last and that is not there, because the run was killed while it saved.

    The checkpoint is passed over for an earlier one; where none was ever finished, the run starts anew.
    """


class UnfitError(ArgumentError):
    """
    A file of a checkpoint that cannot be opened now, or can be read and is not of this run or holds NaN.

    The checkpoint is passed over for an earlier one; where there is none, the run is refused, and not started anew.
    """


@contextmanager
def damage_named(path: Path, *kinds: type[Exception]) -> Iterator[None]:
    """
    Turns what a damaged file does to its reader into a line with its name, and what is wrong with it.

    Args:
        kinds: Errors that tell of damage in the block beside those of `DAMAGE`. Any other is a bug and goes through.
    """
    try:
        yield
    except (NotWholeError, UnfitError):
        raise
    except ArgumentError as error:  # of ours, which begins with the path
        raise NotWholeError(str(error).removeprefix(f"{path.parent}/")) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotWholeError(f"{path.name}: missing") from error
    except IsADirectoryError as error:
        raise NotWholeError(f"{path.name}: a folder, and should be a file") from error
    except OSError as error:
        # The file may be whole: a disk or a network does not answer now.
        kind = UnfitError if error.errno in NO_ANSWER else NotWholeError
        raise kind(f"{path.name}: cannot be read: {error.strerror or first_line(error)}") from error
    except (*DAMAGE, *kinds) as error:
        if path.is_file() and path.stat().st_size == 0:
            raise NotWholeError(f"{path.name}: empty") from error
        raise NotWholeError(f"{path.name}: cut off or damaged: {first_line(error)}") from error


def seen_by_all(what: str, is_seen: bool, apart: bool) -> bool:
    """
    Returns, in all processes alike, whether they see a file or folder.

    Args:
        what: Its name, for the message.
        is_seen: Whether this process sees it.
        apart: Whether each machine saves into a folder of its own.

    Raises:
        NotWholeError: Some see it and others do not.
    """
    seen = gather_object([is_seen])
    if len(set(seen)) > 1:
        why = "" if apart else ": machines that do not share the folder need --save_on_each_node"
        raise NotWholeError(f"{what}: {sum(seen)} of {len(seen)} processes see it{why}")
    return is_seen


def check_tensors(path: Path, expected: int | None = None) -> None:
    """
    Checks, in one pass, that all numbers of a safetensors file are finite, and are those that were written.

    Args:
        expected: As `sum_of` gave it when the file was written: the format has none.
    """
    fault: UnfitError | None = None
    with damage_named(path):
        with safe_open(path, framework="pt") as tensors, path.open("rb") as file:
            length = file.read(LENGTH_BYTES)
            found = zlib.crc32(file.read(int.from_bytes(length, "little")), zlib.crc32(length))
            for name in tensors.offset_keys():  # in the order of the file, which has no gaps
                tensor = tensors.get_tensor(name)
                if expected is not None:
                    found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), found)
                try:
                    check_numbers(path, name, tensor)
                except UnfitError as error:
                    fault = fault or error
        if expected not in (None, found):
            raise NotWholeError(f"{path.name}: damaged, or of another step: its sum is not that which was saved")
    if fault is not None:
        raise fault


def sum_of(path: Path) -> int:
    """Returns the CRC-32 of a file, read a piece at a time."""
    found = 0
    with path.open("rb") as file:
        while piece := file.read(2**20):
            found = zlib.crc32(piece, found)
    return found


def check_numbers(path: Path, name: str, tensor: torch.Tensor) -> None:
    """Raises an `UnfitError` if a file's tensor holds NaN or infinity."""
    try:
        check_finite_tensor(path.name, name, tensor)
    except ArgumentError as error:
        raise UnfitError(str(error)) from error


def check_random_state(path: Path) -> None:
    """Checks that the generators take their states."""
    state = load(path)
    with damage_named(path, *CONTENT, RuntimeError):  # the last one of torch, for a state of another size
        random.Random().setstate(state["python"])
        np.random.RandomState().set_state(state["numpy"])
        torch.Generator().set_state(state["cpu"])


def check_schedule(path: Path) -> None:
    """Checks that a learning rate's schedule has a state."""
    state = load(path)
    if not isinstance(state, dict) or not isinstance(state.get("last_epoch", 0), int) or not state:
        raise NotWholeError(f"{path.name}: not a schedule's state: {state!r:.40}")


def load(path: Path, **how: Any) -> Any:
    """Returns what one of torch's files holds, as the Trainer reads it, having checked it as `check_zip` does."""
    check_zip(path)
    with damage_named(path, *CONTENT), safe_globals():
        try:
            return torch.load(path, map_location="cpu", weights_only=True, **how)
        except UnpicklingError as error:
            # The message begins with how to run the code that the file may hold.
            reason = re.search(r"(?:WeightsUnpickler error:|\n\n)\s*(.+?)(?:\. |\n|$)", str(error))
            raise UnpicklingError(reason[1] if reason else first_line(error)) from error
        except RuntimeError as error:
            if "PytorchStreamReader" in str(error):  # else memory, or a device
                raise EOFError(first_line(error)) from error
            raise


def check_zip(path: Path) -> None:
    """Checks the sums of all parts of one of torch's files, which are zip files; torch itself does not."""
    with damage_named(path), path.open("rb") as file:
        check_sums(file)


def check_sums(file: BinaryIO) -> None:
    """Reads all of a zip file, a piece at a time."""
    try:
        with zipfile.ZipFile(file) as parts:
            broken = parts.testzip()
    except (RuntimeError, zlib.error, struct.error) as error:  # a flipped bit asks for a password or another version
        raise zipfile.BadZipFile(first_line(error)) from error
    if broken is not None:
        raise zipfile.BadZipFile(f"the sum of {broken} is another")


def check_shards(folder: Path) -> None:
    """Checks a folder that `torch.distributed.checkpoint` has written: every tensor is where its metadata say."""
    with damage_named(folder / ".metadata", *CONTENT, ImportError):  # a pickle, whose names may be damaged
        if not folder.is_dir():
            raise FileNotFoundError
        places = list(FileSystemReader(folder).read_metadata().storage_data.values())
    for place in places:
        path = folder / place.relative_path
        with damage_named(path), path.open("rb") as file:
            file.seek(place.offset)
            content = file.read(place.length)
            if len(content) < place.length:
                raise EOFError(f"it ends at byte {path.stat().st_size}")
            if content.startswith(b"PK"):
                check_sums(BytesIO(content))


def is_amount(value: Any) -> bool:
    """Returns whether a value is a finite number, 0 or more."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def is_count(value: Any) -> bool:
    return is_amount(value) and isinstance(value, int)


def differences(wanted: dict[str, tuple[int, ...]], stored: dict[str, tuple[int, ...]]) -> list[str]:
    """Returns the tensors that are missing, too many or of another shape, one a line."""
    return [
        *(f"missing: {name}" for name in wanted.keys() - stored.keys()),
        *(f"unexpected: {name}" for name in stored.keys() - wanted.keys()),
        *(
            f"mismatched: {name} {list(stored[name])}, where the model has {list(shape)}"
            for name, shape in wanted.items()
            if name in stored and stored[name] != shape
        ),
    ]


def some_of(problems: list[str]) -> str:
    """Returns the first problem, and how many more there are."""
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    return min(problems) + more
