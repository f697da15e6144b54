# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The commit that a recipe or a program stands in, for records of what it has made."""

import subprocess
from collections.abc import Sequence
from pathlib import Path


def commit_of(file: Path, left_out: Sequence[str] = ()) -> str | None:
    """
    Returns the commit that a file's repository is at, marked if any of its files differs; None outside of any.

    Args:
        left_out: Files and folders of the repository that may differ.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.resolve().parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", file.name)  # else the repository is that of something around it
        commit = git("rev-parse", "HEAD")
        others = [":/", *(f":(top,exclude){path}" for path in left_out)]
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *others)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit} with changes" if changed else commit
