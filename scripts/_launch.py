# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What the scripts beside it share: `run("train")` runs `hf_xformer.commands.train`."""

import importlib
import sys
from pathlib import Path


def run(command: str) -> None:
    # Python looks in a script's own folder first, where evaluate.py would hide the library of that name.
    folder = Path(__file__).parent.resolve()
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != folder]
    importlib.import_module(f"hf_xformer.commands.{command}").main()
