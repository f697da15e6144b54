# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What the scripts that prepare data share: one-line errors, the names of the splits, and files written whole."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


SPLITS = ("train", "validation", "test")


class PreparationError(Exception):
    """What went wrong, in one line for the user."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    try:
        yield
    except (PreparationError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def is_prepared(folder: Path) -> bool:
    """Whether all splits are there; says so if they are."""
    if not all((folder / f"{split}.jsonl").exists() for split in SPLITS):
        return False
    print(f"{folder} already holds {', '.join(SPLITS)}; delete them to prepare them anew")
    return True


def run(command: Sequence[str | Path], what: str, folder: Path | None = None) -> str:
    """What a command prints; `what` it does is said if it fails, with the last line of its complaint."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        raise PreparationError(f"{what} failed ({reason})")
    return result.stdout.strip()


def write_rows(path: Path, rows: list[dict]) -> None:
    replace(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
