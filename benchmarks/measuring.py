# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The machine that a benchmark ran on, and the files that its figures go to."""

import json
import os
import platform
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev


ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"  # that the documents' tables are made of
TRIED = ROOT / "build/tried"


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


def absolute(path: str) -> Path:
    """Returns a path that means the same in every folder."""
    return Path(path).resolve()


def add_results_option(parser: ArgumentParser) -> None:
    """Adds `--results`, the folder that figures are written into."""
    said = "folder of the JSON (default: the documents' results)"
    parser.add_argument("--results", type=absolute, default=RESULTS, help=said)


def results_folder(parser: ArgumentParser, args: Namespace, *free: str, **published: object) -> Path:
    """
    Returns the folder for figures that replace earlier ones: `--results`, but build/tried in place of the documents'
    results where an option is other than for their tables, which is said.

    Args:
        free: Options that may have any value, because the file's name has it or it names the input.
        published: Values for the tables; those of other options are their defaults.
    """
    published = {name: parser.get_default(name) for name in vars(args)} | published
    ignored = {*free, "results"}
    others = [name for name, value in published.items() if name not in ignored and getattr(args, name) != value]
    if not others or args.results != RESULTS:
        return args.results
    said = ", ".join(f"{name} {getattr(args, name)}" for name in others)
    print(f"{said}: other than for the documents' tables, so figures go to {TRIED}")
    return TRIED


def write_results(name: str, rows: list[dict] | dict, folder: Path, **about) -> Path:
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


def existing(path: str) -> str:
    """Returns the path of an option as it is given, for argparse, which says in a line if nothing is there."""
    if not Path(path).exists():
        raise ArgumentTypeError(f"{path}: there is no such file or folder")
    return path


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
