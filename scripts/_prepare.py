# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Helpers of the scripts that prepare data: the names of the splits, other programs, and rows written whole."""

import argparse
import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hf_xformer.errors import InputError


SPLITS = ("train", "validation", "test")


class PreparationError(InputError):
    """Data that cannot be prepared; the message is one line for the user."""


def is_prepared(folder: Path) -> bool:
    """Returns whether all splits are there, and says so if they are."""
    if not all((folder / f"{split}.jsonl").exists() for split in SPLITS):
        return False
    print(f"{folder} already holds {', '.join(SPLITS)}; delete them to prepare them anew")
    return True


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
