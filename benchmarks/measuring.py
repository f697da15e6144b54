# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The machine that a benchmark ran on, and the files that its figures go to."""

import json
import os
import platform
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev


RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict:
    """Returns what makes figures of two machines or days differ. Imports nothing large."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count()),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def write_results(name: str, rows: list[dict] | dict, folder: Path = RESULTS, **about) -> Path:
    """
    Puts the rows, with the machine that gave them, in NAME.json in a folder, in place of earlier ones.

    Args:
        about: What the caller knows better of the machine, such as its device.
    """
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(json.dumps({"machine": {**machine(), **about}, "rows": rows}, indent=2) + "\n")
    return unfinished.replace(path)


def stored(name: str, folder: Path = RESULTS) -> dict:
    """Returns the figures of NAME.json in a folder, and what the machine was that gave them."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def spread(values: Iterable[float], digits: int = 2, sign: str = "") -> str:
    """
    Returns the mean of values, and their standard deviation if there are several.

    Args:
        sign: "+" for one in front of a mean that is not negative, too.
    """
    values = list(values)
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.{digits}f}{deviation}"
