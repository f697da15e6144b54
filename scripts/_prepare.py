# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Helpers of the scripts that prepare data: the names of the splits, rows already there, and other programs."""

import argparse
import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hf_xformer.errors import InputError
from hf_xformer.files import read_json, write_json


SPLITS = ("train", "validation", "test")
FILES = [f"{split}.jsonl" for split in SPLITS]
ORIGIN = "origin.json"
Options = dict[str, bool | int | str | list[str] | None]
NOTHING: Mapping = MappingProxyType({})


class PreparationError(InputError):
    """Data that cannot be prepared; the message is one line for the user."""


def is_prepared(
    folder: Path, options: Options, files: Sequence[str] = FILES, given: Mapping[str, Path | None] = NOTHING
) -> bool:
    """
    Returns whether a folder holds rows of these options, and says so if it does.

    Args:
        options: Of the command line, those that decide what is in the rows.
        files: Names of the files that are there when all are.
        given: Files to make rows from, by the option that named them; None where it did not.

    Raises:
        PreparationError: The folder holds rows of other options or files, by what `write_origin` has left there.
    """
    if not all((folder / name).exists() for name in files):
        return False
    path = folder / ORIGIN
    origin = read_json(path) if path.exists() else {}
    read = origin.get("sha256", {})
    for option, file in given.items():
        if file is not None and file.exists() and digest_of(file) != read.get(option, digest_of(file)):
            raise PreparationError(
                f"{folder} holds rows made from another file than --{option} {file}: delete its "
                f"{', '.join(files)}, or take another --output_dir"
            )
    held = origin.get("options", options)
    if held != options:
        raise PreparationError(
            f"{folder} holds rows made {worded(held)}, and these would be made {worded(options)}: delete its "
            f"{', '.join(files)}, or take another --output_dir"
        )
    unknown = "" if path.exists() or not options else " (by which options is not on record)"
    print(f"{folder} already holds {', '.join(files)}{unknown}; delete them to prepare them anew")
    return True


def write_origin(folder: Path, options: Options, **about: object) -> None:
    """Writes the options that decide what is in the rows, which are to follow, and what else they are made from."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ORIGIN, {"options": options, **about})


def digest_of(path: Path) -> str:
    """
    Returns the SHA-256 of a file.

    Raises:
        PreparationError: It cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PreparationError(f"{path}: {error.strerror}") from error


def worded(options: Options) -> str:
    """Returns options as they are typed, such as "with --verses 1 --numbers"."""
    words = []
    for name, value in options.items():
        if value:
            values = value if isinstance(value, list) else [] if value is True else [value]
            words.append(" ".join([f"--{name}", *map(str, values)]))
    return f"with {' '.join(words)}" if words else "without options"


def run(command: Sequence[str | Path], what: str, folder: Path | None = None) -> str:
    """
    Returns what a command prints.

    Args:
        what: Description of what it does, for the error.
        folder: Where it runs.

    Raises:
        PreparationError: It failed; the message ends with the last line of its complaint.
    """
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        raise PreparationError(f"{what} failed ({reason})")
    return result.stdout.strip()


def folders(argv: Sequence[str] | None, description: str | None) -> tuple[Path, Path]:
    """Returns the folder of published files and that of the rows, from the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the published files")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for train, validation and test.jsonl")
    args = parser.parse_args(argv)
    return args.data, args.output_dir


@dataclass(frozen=True)
class Published:
    """A file that others have measured on: its lines and their SHA-256."""

    lines: int
    digest: str


def read_published(folder: Path, files: dict[str, Published], origin: str) -> dict[str, list[str]]:
    """
    Returns the lines of published files by their names.

    Args:
        origin: Where the right ones are, for the error.

    Raises:
        PreparationError: One is missing, or is another than the published one: of another split or preprocessing.
    """
    found = {}
    for name, wanted in files.items():
        path = folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise PreparationError(f"{path}: {error.strerror}; {origin}") from error
        digest, lines = hashlib.sha256(content).hexdigest(), content.count(b"\n")
        if digest != wanted.digest:
            raise PreparationError(
                f"{path} is not the published file: it has {lines:,} lines and SHA-256 {digest[:12]}, where that has "
                f"{wanted.lines:,} and {wanted.digest[:12]}; {origin}"
            )
        found[name] = content.decode().splitlines()
    return found
