# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Runs the tests with other releases of transformers and of torch, and prints a table of what passed.

  make test-versions                                      every release of the table
  make test-versions ARGS="--transformers 5.18.0"         one, beside the torch that is installed
  make test-versions ARGS="--transformers oldest --columns models round_trip"
  make test-versions ARGS="--show"                        the table of the results so far

Each release has an environment of its own under .cache/versions, which is kept; the rest is borrowed from the
environment that runs this. A result is in the file of results as soon as there is one.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as xml
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version


ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".cache/versions"
RESULTS = ROOT / "benchmarks/results/versions.json"
# Oldest: the lowest that pyproject.toml allows. Newest: the highest that it allows and pip finds.
TRANSFORMERS = ("oldest", "5.20.2", "5.22.2", "5.23.0", "newest")
TORCH = ("oldest", "newest")
UPSTREAM = ["tests/conformance/test_upstream_modeling.py", "tests/conformance/test_upstream_training.py"]
# Column -> what pytest is told. Whether every skip of the release's own tests is explained is known of one release.
PYTEST = {
    "fast": [*(f"--ignore={path}" for path in UPSTREAM), "--ignore=tests/conformance/test_skips.py"],
    # Those of "fast" that transformers decides: not graphs and kernels, which are torch's, nor files and exports.
    "models": [
        *(
            "tests/models",
            "tests/conformance/test_own_save_load.py",
            "tests/conformance/test_own_generation_blocks.py",
        ),
        *(f"tests/checkpoints/test_{name}.py" for name in ("adapters", "conversion", "foreign_code", "loading")),
        *(f"tests/checkpoints/test_{name}.py" for name in ("mutations", "saving")),
        *("-k", "not graph and not texts_of_all_lengths"),
    ],
    "conformance": UPSTREAM,
}
DEFAULT_COLUMNS = ("fast", "conformance", "round_trip")
SECONDS = 3600  # of a column, at most


@dataclass(frozen=True)
class Lane:
    """A release of one package, whose tests an interpreter of its own runs."""

    package: str
    release: str

    @property
    def name(self) -> str:
        return f"{self.package}-{self.release}"

    def python(self) -> Path:
        """Returns the interpreter that has the release; makes its environment unless one as `contents` is there."""
        if version(self.package).split("+")[0] == self.release:
            return Path(sys.executable)
        folder = ENVIRONMENTS / self.name
        python, done = folder / "bin/python", folder / "installed"
        contents = self.contents()
        if not done.exists() or done.read_text() != contents:
            call([sys.executable, "-m", "venv", "--clear", "--without-pip", folder])
            site = call([python, "-c", PURELIB]).strip()
            borrowed = call([sys.executable, "-c", PURELIB]).strip()
            Path(site, "borrowed.pth").write_text(f"import site; site.addsitedir({borrowed!r})\n")
            pip("install", "--target", site, *self.requirements())
            done.write_text(contents)
        return python

    def contents(self) -> str:
        """Returns the text that tells whether an environment is out of date: all that decides what is installed."""
        words = [*self.requirements(), *project()["dependencies"]]
        return "\n".join([*words, (ROOT / "constraints.txt").read_text()])

    def requirements(self) -> list[str]:
        """
        Returns what pip installs: beside torch the requirements that are made for its release, beside the oldest
        transformers the oldest library of the Hub.
        """
        specification = f"{self.package}=={self.release}"
        if self.package == "torch":
            return [specification]
        oldest = self.release == release_of("transformers", "oldest")
        hub = [f"huggingface_hub=={release_of('huggingface_hub', 'oldest')}"] if oldest else []
        return ["--no-deps", specification, *hub]


PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"
VERSIONS = "import json, sys, torch, transformers, huggingface_hub as hub; print(json.dumps({" + (
    "'transformers': transformers.__version__, 'torch': torch.__version__.split('+')[0], "
    "'huggingface_hub': hub.__version__, 'python': sys.version.split()[0]}))"
)


def run(command: list, **options) -> subprocess.CompletedProcess[str]:
    """
    Runs a command from the root of the source tree, as `subprocess.run` does, in a session of its own.

    When it takes too long, or something else interrupts this program, all processes of the session are killed.
    """
    words = list(map(str, command))
    with subprocess.Popen(words, cwd=ROOT, text=True, start_new_session=True, **options) as process:
        try:
            output, errors = process.communicate(timeout=SECONDS)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(words, process.returncode, output, errors)


def call(command: list) -> str:
    """Returns the output of a command that must succeed."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
    return done.stdout


def pip(*words: str) -> str:
    return call([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words])


def project() -> dict:
    """Returns the table `project` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def release_of(package: str, wanted: str) -> str:
    """Returns the number of a release, which may be "oldest" or "newest" of those that pyproject.toml allows."""
    if wanted not in ("oldest", "newest"):
        return wanted
    (allowed,) = [each for each in map(Requirement, project()["dependencies"]) if each.name == package]
    if wanted == "oldest":
        (lowest,) = [each.version for each in allowed.specifier if each.operator == ">="]
        return lowest if lowest.count(".") == 2 else f"{lowest}.0"
    report = pip("install", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", str(allowed))
    return json.loads(report)["install"][0]["metadata"]["version"].split("+")[0]


def run_tests(python: Path, column: str) -> dict:
    """Returns how many tests of a column passed, and the names of those that failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadscope"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = run([*command, f"--junitxml={report}", *PYTEST[column]], env=environment)
        if not report.exists():
            return {"error": f"pytest ended with status {done.returncode} and no report"}
        (suite,) = xml.parse(report).getroot().iter("testsuite")
    counts = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.get('classname').rpartition('.')[2]}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    passed = counts["tests"] - counts["skipped"] - counts["failures"] - counts["errors"]
    seconds = round(float(suite.get("time")))
    result = {"passed": passed, "skipped": counts["skipped"], "failed": len(failed), "seconds": seconds}
    return {**result, "names": failed[:20]} if failed else result


def run_round_trip(python: Path) -> dict:
    """Saves models here, loads and saves them with the other release, and loads them here."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        there, back = Path(folder, "there"), Path(folder, "back")
        script = ROOT / "tests/round_trip.py"
        call([sys.executable, script, "save", there])
        call([python, script, "load", there, "--again", back])
        call([sys.executable, script, "load", back])
        return {"passed": len(list(there.iterdir())), "failed": 0, "seconds": round(time.monotonic() - begun)}


def run_column(python: Path, column: str) -> dict:
    """Returns the result of one column; what keeps it from having one is its `error`."""
    work: Callable[[], dict] = (
        (lambda: run_round_trip(python)) if column == "round_trip" else lambda: run_tests(python, column)
    )
    try:
        return work()
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}


def read(path: Path) -> dict[str, dict]:
    return json.loads(path.read_text()) if path.exists() else {}


def record(path: Path, key: str, **values) -> None:
    """Adds to the results of a row, on disk at once."""
    results = read(path)
    results[key] = {**results.get(key, {}), **values}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")


def cell(result: dict | None) -> str:
    if result is None:
        return "not run"
    if "error" in result:
        return "error: " + result["error"]
    parts = [f"{result[name]:,} {name}" for name in ("passed", "failed", "skipped") if result.get(name)]
    return ", ".join(parts)


def table(results: dict[str, dict]) -> str:
    """Returns the results as a Markdown table, the oldest releases first."""
    columns = [
        name for name in ("fast", "models", "conformance", "round_trip") if any(name in r for r in results.values())
    ]
    rows = [["transformers", "torch", "Python", *(name.replace("_", " ") for name in columns)]]
    rows.append(["---"] * len(rows[0]))
    for row in sorted(results.values(), key=lambda each: (Version(each["torch"]), Version(each["transformers"]))):
        rows.append([row["transformers"], row["torch"], row["python"], *(cell(row.get(name)) for name in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def run_lane(lane: Lane, columns: list[str], output: Path) -> bool:
    """Runs the columns with one release; returns whether all of them passed."""
    try:
        python = lane.python()
        versions = json.loads(call([python, "-c", VERSIONS]).splitlines()[-1])
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"{lane.name}: no environment: {error}", file=sys.stderr)
        return False
    passed = True
    for column in columns:
        print(f"{lane.name}: {column}", flush=True)
        result = run_column(python, column)
        key = f"transformers {versions['transformers']}, torch {versions['torch']}"
        record(output, key, **versions, **{column: {**result, "date": date.today().isoformat()}})
        print(f"{lane.name}: {column}: {cell(result)}", flush=True)
        passed &= "error" not in result and not result["failed"]
    return passed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tests/versions.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    releases = "releases, as numbers or as oldest and newest (default without the other option: %s)"
    parser.add_argument(
        "--transformers", nargs="+", default=[], metavar="RELEASE", help=releases % ", ".join(TRANSFORMERS)
    )
    parser.add_argument("--torch", nargs="+", default=[], metavar="RELEASE", help=releases % ", ".join(TORCH))
    parser.add_argument("--columns", nargs="+", default=DEFAULT_COLUMNS, choices=[*PYTEST, "round_trip"])
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of results, which are added (%(default)s)")
    parser.add_argument("--show", action="store_true", help="print the table of the results so far, and run nothing")
    options = parser.parse_args(argv)
    if not (options.transformers or options.torch):
        options.transformers, options.torch = TRANSFORMERS, TORCH
    passed = True
    if not options.show:
        wanted = [("transformers", each) for each in options.transformers] + [
            ("torch", each) for each in options.torch
        ]
        lanes = dict.fromkeys(Lane(package, release_of(package, each)) for package, each in wanted)
        for lane in lanes:
            passed &= run_lane(lane, options.columns, options.output)
    print(table(read(options.output)))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
