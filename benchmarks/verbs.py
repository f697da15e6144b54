# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Trainings and evaluations in processes of their own, and their figures over several seeds."""

import argparse
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from importlib.metadata import version
from pathlib import Path

import yaml
from measuring import RESULTS, ROOT, absolute, add_results_option, machine, stored, write_results

from hf_xformer.files import content_of
from hf_xformer.hub.commits import commit_of
from hf_xformer.yaml_files import read_yaml_file


def hf_xformer(*words: object) -> None:
    """Runs a verb in the project's folder; what it says goes to stderr."""
    command = [sys.executable, "-m", "hf_xformer", *map(str, words)]
    try:
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)
    except subprocess.CalledProcessError as error:  # it has said why
        raise SystemExit(error.returncode) from None
    except KeyboardInterrupt:
        raise SystemExit("stopped: the same command goes on") from None


def comparison_parser(description: str | None, seeds: list[int], output_dir: str) -> argparse.ArgumentParser:
    """Returns a parser with the options of every comparison of trainings; the arguments are defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    said = " ".join(map(str, seeds))
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds, help=f"default: {said}")
    bf16 = "train in bfloat16: a third less time on processors that have it"
    parser.add_argument("--bf16", action="store_true", help=bf16)
    kept = f"folder of the trainings, which are kept (default: {output_dir})"
    parser.add_argument("--output_dir", type=absolute, default=output_dir, help=kept)
    add_results_option(parser)
    return parser


def read_recipe(path: str) -> dict:
    """Returns the options of a recipe, on the CPU."""
    return read_yaml_file(ROOT / path) | {"use_cpu": True}


def train(options: dict, output_dir: Path) -> float:
    """
    Trains in a folder, unless a training with the same options has ended there; returns the seconds that it took.

    Raises:
        SystemExit: One with other options has ended there.
    """
    results, path = output_dir / "train_results.json", output_dir.with_name(f"{output_dir.name}.yaml")
    read = output_dir.with_name(f"{output_dir.name}.read")
    digests = digests_of(without_neutral(options))
    if not results.exists():
        output_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(options | {"output_dir": str(output_dir)}))
        read.write_text(json.dumps(digests, indent=2))
        hf_xformer("train", path)
    earlier = yaml.safe_load(path.read_text()) if path.exists() else {}
    before = json.loads(read.read_text()) if read.exists() else {}
    if changed := [name for name in digests if before.get(name, digests[name]) != digests[name]]:
        said = f"a training on another {', '.join(changed)}"
        raise SystemExit(f"{output_dir} holds {said}: delete it, or give another --output_dir")
    if other := differences(without_neutral(earlier), without_neutral(yaml.safe_load(yaml.safe_dump(options)))):
        said = f"a training with other options: {other}"
        raise SystemExit(f"{output_dir} holds {said}: delete it, or give another --output_dir")
    return round(json.loads(results.read_text())["train_runtime"], 1)


def digests_of(value: object) -> dict[str, str]:
    """Returns the digests of all files and folders that options name, by their last parts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return {name: digest for each in value for name, digest in digests_of(each).items()}
    if not isinstance(value, str | Path) or not re.fullmatch(r".*/.{1,250}", str(value)):
        return {}
    path = ROOT / value
    return {"/".join(path.parts[-2:]): version_of(content_of(path))} if path.exists() else {}


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
    Rows of figures, written whenever one is added. Those that are stored are not measured again; several processes may
    add rows at once.

    Args:
        name: Of the file, without `.json`.
        settings: All that the figures depend on and that is not in a row: a recipe, constants. Files and folders that
            it names count by their content.
        reads: More files and folders that do.
        about: Those of the settings that a reader wants to see beside the rows.

    Raises:
        SystemExit: One of `reads` is not there. Rows with other settings are stored, with which these would be mixed.
    """

    def __init__(
        self, name: str, settings: object, folder: Path = RESULTS, reads: Iterable[Path] = (), **about: object
    ):
        self.name, self.folder, reads = name, folder, list(reads)
        for path in reads:
            if not path.exists():
                raise SystemExit(f"{path}: there is no such file or folder; --help says which command prepares it")
        self.about = {**about, "version": version_of([settings, about])}
        if read := digests_of([settings, *reads]):
            self.about["data"] = version_of(sorted({*read.values()}))
        self.path = folder / f"{name}.json"
        self.check()
        # At the start, whose code it is that runs. Figures that are added are no change of it.
        self.commit = commit_of(Path(__file__), left_out=["benchmarks/results"])

    def check(self) -> None:
        """
        Compares the settings of stored rows with these.

        Raises:
            SystemExit: They are others.
        """
        if not self.path.exists():
            return
        earlier = stored(self.name, self.folder)["machine"]
        before = {key: earlier.get(key, "unknown") for key in self.about}
        named = {key: value for key, value in self.about.items() if key != "version"}  # which follows from the others
        if other := differences({key: before[key] for key in named}, named) or differences(before, self.about):
            raise SystemExit(f"{self.path} has rows with {other}: give what they had, or another --results")

    def rows(self) -> list[dict]:
        """Returns the rows that there are."""
        return stored(self.name, self.folder)["rows"] if self.path.exists() else []

    def has(self, of: dict[str, object], options: object = None) -> bool:
        """
        Returns whether there is a row of something.

        Args:
            of: Values by which the row is known, such as a method and a seed.
            options: Its own part of the settings; None if it has none.

        Raises:
            SystemExit: There is one that was made by other options.
        """
        found = [row for row in self.rows() if of.items() <= row.items()]
        if options is not None and any(row.get("options") != version_of(options) for row in found):
            raise SystemExit(f"{self.path} has a row of {of} by other options: delete that, or give another --results")
        return bool(found)

    def add(self, of: dict[str, object], options: object = None, **figures: object) -> None:
        """
        Adds a row, with its commit, day, versions and threads, unless another process has added it meanwhile.

        Args:
            of, options: As for `has`.
        """
        now = machine()
        versions = {name: now[name] for name in ("python", "torch", "transformers")}
        versions["sacrebleu"] = version("sacrebleu")
        made = {} if options is None else {"options": version_of(options)}
        self.folder.mkdir(parents=True, exist_ok=True)
        with only_writer(self.folder):
            self.check()
            if self.has(of, options):
                print(f"{self.path} has a row of {of} from another process, which stays", file=sys.stderr)
                return
            row = {**of, "commit": self.commit, **figures, **made}
            row |= {"date": now["date"], "threads": now["threads"], "versions": versions}
            write_results(self.name, [*self.rows(), row], self.folder, **self.about)
        print(row, file=sys.stderr)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Waits until no other process is in this block for the same folder, and keeps others out."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        flock(handle, LOCK_EX)
        yield
    finally:
        os.close(handle)


def version_of(settings: object) -> str:
    """Returns the beginning of a hash of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:8]


def without_neutral(options: dict) -> dict:
    """Returns options without those that leave a training's weights as they are."""
    from hf_xformer.training.fingerprint import NEUTRAL  # which takes seconds to import

    return {name: value for name, value in options.items() if name not in NEUTRAL}


def deciding(path: str) -> dict:
    """Returns those options of a recipe that decide its weights, with the content of the model's configuration."""
    kept = without_neutral(read_recipe(path))
    if config := kept.get("config_name"):
        kept["config_name"] = json.loads((ROOT / config).read_text(encoding="utf-8"))
    return kept


def keep_log(run: Path, path: Path) -> None:
    """Writes a line for each step at which a run said its loss or scores."""
    history = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in history), encoding="utf-8")


def lines_of(text: str) -> list[str]:
    """Returns the lines of a text; only a line feed ends one."""
    return text.removesuffix("\n").split("\n")


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a file, which may be compressed and may begin with a byte-order mark."""
    content = path.read_bytes()
    return lines_of((gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig"))


def first_rows(samples: int | None) -> tuple[object, ...]:
    """Returns the options of `hf-xformer evaluate` for the first rows of a test set, or for all of them."""
    return () if samples is None else ("--max_samples", samples)
