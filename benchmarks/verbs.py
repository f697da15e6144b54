# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Trainings and evaluations in processes of their own, and their figures over several seeds."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml
from measuring import RESULTS, machine, spread, stored, write_results

from hf_xformer.yaml_files import read_yaml_file


ROOT = Path(__file__).resolve().parent.parent


def hf_xformer(*words: object) -> None:
    """Runs a verb in the project's folder; what it says goes to stderr."""
    command = [sys.executable, "-m", "hf_xformer", *map(str, words)]
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)


def recipe(path: str) -> dict:
    """Returns the options of a recipe, on the CPU."""
    return read_yaml_file(ROOT / path) | {"use_cpu": True}


def train(options: dict, output_dir: Path) -> float:
    """
    Trains in a folder, unless a training with the same options has ended there; returns the seconds that it took.

    Raises:
        SystemExit: One with other options has ended there.
    """
    results, path = output_dir / "train_results.json", output_dir.with_name(f"{output_dir.name}.yaml")
    options = options | {"output_dir": str(output_dir.resolve())}
    if not results.exists():
        output_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(options))
        hf_xformer("train", path)
    earlier = yaml.safe_load(path.read_text()) if path.exists() else {}
    if other := differences(earlier, yaml.safe_load(yaml.safe_dump(options))):
        raise SystemExit(f"{output_dir} holds a training with other options: {other}: delete it, or give another")
    return round(json.loads(results.read_text())["train_runtime"], 1)


def differences(earlier: dict, wanted: dict) -> str:
    """Returns in words which values are others than those that are wanted, wherever folders have been moved to."""
    names = sorted((earlier.keys() | wanted.keys()) - {"output_dir"})
    pairs = [(name, earlier.get(name), wanted.get(name)) for name in names]
    return ", ".join(f"{name} {was!r}, not {now!r}" for name, was, now in pairs if placeless(was) != placeless(now))


def placeless(value: object) -> object:
    """Returns a value in which absolute paths are reduced to a file and its folder."""
    if isinstance(value, dict):
        return {name: placeless(each) for name, each in value.items()}
    if isinstance(value, list):
        return [placeless(each) for each in value]
    return Path(value).parts[-2:] if isinstance(value, str) and Path(value).is_absolute() else value


def evaluate(
    run: Path, test_file: Path, metrics: Iterable[str], *words: object, out: Path | None = None
) -> dict[str, float]:
    """
    Returns what `hf-xformer evaluate` says of a run's texts for a test set.

    Args:
        words: More of its command line.
        out: File for the scores; None for one beside the run.
    """
    out = out or run.with_name(f"{run.name}.scores.json")
    hf_xformer("evaluate", run, "--test_file", test_file, "--metrics", *metrics, "--output_file", out, *words)
    return json.loads(out.read_text(encoding="utf-8"))


class Figures:
    """
    Rows of figures, written whenever one is added. Those that are stored are not measured again; two processes may
    measure rows of different seeds at once.

    Args:
        name: Of the file, without `.json`.
        about: Settings that all rows have in common.

    Raises:
        SystemExit: Rows with other settings are stored, which would be lost.
    """

    def __init__(self, name: str, folder: Path = RESULTS, **about: object):
        self.name, self.folder, self.about = name, folder, about
        self.path = folder / f"{name}.json"
        if not self.path.exists():
            return
        earlier = stored(name, folder)["machine"]
        if other := differences({key: earlier.get(key, "unknown") for key in about}, about):
            raise SystemExit(f"{self.path} has rows with {other}: give another --results")

    def rows(self) -> list[dict]:
        """Returns the rows that there are."""
        return stored(self.name, self.folder)["rows"] if self.path.exists() else []

    def has(self, **of: object) -> bool:
        """Returns whether there is a row with these values."""
        return any(of.items() <= row.items() for row in self.rows())

    def add(self, **row: object) -> None:
        """Adds a row. The date becomes that of the first and the last."""
        today = machine()["date"]
        first = stored(self.name, self.folder)["machine"]["date"].partition(" to ")[0] if self.path.exists() else today
        date = today if first == today else f"{first} to {today}"
        write_results(self.name, [*self.rows(), row], self.folder, **self.about, date=date)
        print(row, file=sys.stderr)


def print_table(rows: list[dict], by: str, columns: dict[str, str]) -> None:
    """Prints a line for each value of a key: the mean and spread of each column over its rows."""
    print(f"{'':34}" + "".join(f"{title:>20}" for title in columns.values()))
    for value in dict.fromkeys(row[by] for row in rows):
        found = [row for row in rows if row[by] == value]
        print(f"{value:34}" + "".join(f"{spread(row[name] for row in found):>20}" for name in columns))
