# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Plants one fault at a time in a copy of the package and shows which test catches it.

    python tests/mutants.py [words of a fault]

A fault that no test catches, or a line that is no longer there to be made faulty, is an error.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import faults_of_attention
import faults_of_layers
from mutant import Mutant


ROOT = Path(__file__).resolve().parent.parent
MUTANTS = faults_of_attention.MUTANTS + faults_of_layers.MUTANTS
PYTEST = ("-m", "pytest", "-q", "--tb=no", "--no-header", "-p", "no:cacheprovider")
# The slow tests too: some properties are held by these alone.
MARKS = "not distributed and not nightly and not gpu"


class Outcome(NamedTuple):
    mutant: Mutant
    caught_by: str | None
    seconds: float


def copy_repository(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("hf_xformer", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)


def plant(mutant: Mutant, folder: Path) -> None:
    files = {path: path.read_text() for path in sorted((folder / "hf_xformer/models").glob("*_xformer.py"))}
    places = [path for path, text in files.items() for _ in range(text.count(mutant.line))]
    if len(places) != 1:
        raise SystemExit(f"error: {mutant.fault!r} is stale: its line stands {len(places)} times in the package")
    source = files[places[0]].replace(mutant.line, mutant.faulty)
    compile(source, places[0].name, "exec")
    places[0].write_text(source)


def run_tests(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *PYTEST, "-m", MARKS, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def try_mutant(mutant: Mutant) -> Outcome:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy_repository(Path(folder))
        plant(mutant, Path(folder))
        # FlexAttention takes longest and has the others' masks and scores.
        words = f"not flex and ({mutant.words})" if mutant.words else "not flex"
        result = run_tests(Path(folder), "-x", "-rf", "-k", words, *mutant.tests)
    seconds = time.monotonic() - start
    if result.returncode == 0:
        return Outcome(mutant, None, seconds)
    failed = re.search(r"^FAILED (\S+::.+?)(?: - .*)?$", result.stdout, re.MULTILINE)
    if not failed:
        raise SystemExit(f"error: {mutant.fault!r} keeps the tests from running:\n{result.stdout}{result.stderr}")
    return Outcome(mutant, failed[1], seconds)


def tests_that_always_fail(tests: Iterable[str]) -> str:
    """What a test reports that fails without any fault, and so catches none."""
    with tempfile.TemporaryDirectory() as folder:
        copy_repository(Path(folder))
        result = run_tests(Path(folder), *sorted(set(tests)))
    return result.stdout if result.returncode else ""


def main(words: list[str]) -> int:
    start = time.monotonic()
    mutants = [mutant for mutant in MUTANTS if " ".join(words) in mutant.fault]
    width = max(len(mutant.fault) for mutant in mutants)
    outcomes = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for outcome in pool.map(try_mutant, mutants):
            outcomes.append(outcome)
            caught_by = (outcome.caught_by or "SURVIVED").removeprefix("tests/")
            print(f"{outcome.mutant.fault:{width}}  {outcome.seconds:4.0f} s  {caught_by}", flush=True)
    survivors = [outcome for outcome in outcomes if outcome.caught_by is None]
    print(f"{len(outcomes)} faults, {len(survivors)} survived, {time.monotonic() - start:.0f} s")
    if broken := tests_that_always_fail(outcome.caught_by for outcome in outcomes if outcome.caught_by):
        print(f"error: tests fail without any fault\n{broken}")
    return 1 if survivors or broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
