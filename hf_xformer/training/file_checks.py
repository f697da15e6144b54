# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of one file of a checkpoint, of any run: it is there, whole, and all its numbers are finite."""

import errno
import random
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import safe_open
from torch.distributed.checkpoint import FileSystemReader
from transformers.trainer_pt_utils import safe_globals

from ..errors import ArgumentError, first_line


# Errors of the system that say nothing of what a file holds.
NO_ANSWER = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)


class NotWholeError(ArgumentError):
    """A file of a checkpoint that is missing, cut off or damaged, as a kill or a disk leaves it."""


class UnfitError(ArgumentError):
    """A file of a checkpoint that cannot be opened, or can be read but not gone on from."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns whatever a damaged file does to its reader into a line with its name, and what is wrong with it."""
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
        # The file may be whole: for a disk or a network that does not answer now, nobody's training begins anew.
        kind = UnfitError if error.errno in NO_ANSWER else NotWholeError
        raise kind(f"{path.name}: cannot be read: {error.strerror or first_line(error)}") from error
    except Exception as error:  # of many types, from zip files, pickles, JSON and safetensors
        if path.is_file() and path.stat().st_size == 0:
            raise NotWholeError(f"{path.name}: empty") from error
        raise NotWholeError(f"{path.name}: cut off or damaged: {first_line(error)}") from error


def check_tensors(path: Path, expected: int | None = None) -> None:
    """
    Checks that all numbers of a safetensors file are finite, and are those that were written.

    Args:
        expected: As `sum_of` gave it when the file was written: the format has none.
    """
    with naming(path):
        if expected is not None and sum_of(path) != expected:
            raise NotWholeError(f"{path.name}: damaged, or of another step: its sum is not that which was saved")
        with safe_open(path, framework="pt") as file:
            refuse_not_finite(path, ((name, file.get_tensor(name)) for name in file.keys()))  # noqa: SIM118


def sum_of(path: Path) -> int:
    """Returns the CRC-32 of a file, read a piece at a time."""
    found = 0
    with path.open("rb") as file:
        while piece := file.read(2**20):
            found = zlib.crc32(piece, found)
    return found


def refuse_not_finite(path: Path, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raises an `UnfitError` that names the first tensor that holds NaN or infinity."""
    for name, tensor in tensors:
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        extremes = torch.aminmax(tensor.float() if tensor.itemsize == 1 else tensor)  # NaN if there is any
        if not all(map(torch.isfinite, extremes)):
            raise UnfitError(f"{path.name}: `{name}` holds a NaN or an infinity")


def check_random_state(path: Path) -> None:
    """Checks that the generators take their states."""
    state = load(path)
    with naming(path):
        random.Random().setstate(state["python"])
        np.random.RandomState().set_state(state["numpy"])
        torch.Generator().set_state(state["cpu"])


def check_schedule(path: Path) -> None:
    """Checks that a learning rate's schedule has a state."""
    state = load(path)
    if not isinstance(state, dict) or not state:
        raise NotWholeError(f"{path.name}: not a schedule's state: {state!r:.40}")


def load(path: Path, **how: Any) -> Any:
    """Returns what one of torch's files holds, as the Trainer reads it, having checked it as `check_zip` does."""
    check_zip(path)
    with naming(path), safe_globals():
        return torch.load(path, map_location="cpu", weights_only=True, **how)


def check_zip(path: Path) -> None:
    """Checks the sums of all parts of one of torch's files, which are zip files; torch itself does not."""
    with naming(path), path.open("rb") as file:
        check_sums(file)


def check_sums(file: BinaryIO) -> None:
    """Reads all of a zip file, a piece at a time."""
    with zipfile.ZipFile(file) as parts:
        if (broken := parts.testzip()) is not None:
            raise zipfile.BadZipFile(f"the sum of {broken} is another")


def check_shards(folder: Path) -> None:
    """Checks a folder that `torch.distributed.checkpoint` has written: every tensor is where its metadata say."""
    with naming(folder / ".metadata"):
        if not folder.is_dir():
            raise FileNotFoundError
        places = list(FileSystemReader(folder).read_metadata().storage_data.values())
    for place in places:
        path = folder / place.relative_path
        with naming(path), path.open("rb") as file:
            file.seek(place.offset)
            content = file.read(place.length)
            if len(content) < place.length:
                raise EOFError(f"it ends at byte {path.stat().st_size}")
            if content.startswith(b"PK"):
                check_sums(BytesIO(content))
