# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What benchmarks share: where they ran, and where their figures are kept."""

import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path


RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict:
    """Whatever makes figures of two places or days differ. Nothing large is imported for it."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count()),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def write_results(name: str, rows: list[dict] | dict, **about) -> Path:
    """
    Puts the rows, with the machine that gave them, in `benchmarks/results/NAME.json`, in place of earlier ones.

    Args:
        about: What the caller knows better of the machine, such as its device.
    """
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": {**machine(), **about}, "rows": rows}, indent=2) + "\n")
    return path
