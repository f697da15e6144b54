# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Helpers of the scripts that prepare data: the names of the splits, other programs, and rows written whole."""

import subprocess
from collections.abc import Sequence
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
