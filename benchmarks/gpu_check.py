# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Tests and benchmarks on a machine with one GPU, in under ten minutes, from the source tree, without the network.

  make gpu-check                                # or python benchmarks/gpu_check.py: an installation is not needed
  make gpu-check ARGS="--device cpu --tiny"     # the rehearsal on a CPU, under five minutes
  python benchmarks/gpu_check.py --only launches

Each part is a process with a time limit of its own, that prints into build/gpu-check/PART.log. Tests run side by side,
benchmarks one after another with nothing beside them. build/gpu-check/summary.json is written again after each part,
and benchmarks/results/gpu_CASE.json after each row of a benchmark, so that a run that is cut off still tells most.
The status is not zero if a part failed, or none passed. What needs a package that is not installed says so and is left
out: `needed_packages` lists what a machine without the network must have.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from measuring import RESULTS, ROOT, machine, write_results
from packaging.requirements import Requirement


OUTPUT = ROOT / "build/gpu-check"
SECONDS = 580  # of all: what a part does not get any more is not run
MARK = "XFORMER_GPU_CHECK"  # in the environment of all processes of a part
PASSED, FAILED, OUT_OF_TIME, LEFT_OUT = "passed", "failed", "out of time", "left out"


@dataclass(frozen=True)
class Part:
    """
    A part of the check: test files, or the case of benchmarks/gpu.py that has its name, and its seconds at most.

    Args:
        chosen: Which tests of the files, as of pytest's -k.
    """

    name: str
    seconds: int
    tests: tuple[str, ...] = ()
    chosen: str = ""
    only_large: bool = False

    def command(self, device: str, tiny: bool, seconds: float) -> list[str]:
        if self.tests:
            files = [f"tests/gpu/{name}.py" for name in self.tests if (ROOT / f"tests/gpu/{name}.py").exists()]
            options = ["-m", "gpu", "-k", self.chosen, "-p", "no:cacheprovider", "-v", "-rs", "--tb=short"]
            return ["-m", "pytest", *options, *files]
        # It begins nothing that it could not finish, and is still ended if it hangs.
        options = ["--device", device, *["--tiny"] * tiny, "--only", self.name, "--seconds", f"{seconds - 15:.0f}"]
        return ["benchmarks/gpu.py", *options]


# Parts that fit the time on an H100 with 16 cores. The tests start together and take as long as the slowest; a process
# needs some ten seconds to import the libraries, a compiled model of 24 layers over a minute. Of the larger
# models there is time for those that are not compiled.
PARTS = [
    Part("numbers", 90, ("test_against_cpu", "test_packed_step"), "not flex_attention"),
    Part("decoding", 110, ("test_decoding", "test_memory")),
    Part("training", 110, ("test_training",)),
    Part("launches", 170, ("test_launch",)),
    # In a process of their own, last of the tests: each is compiled for seconds.
    Part("flex_attention", 120, ("test_against_cpu",), "flex_attention"),
    Part("loss", 20),
    Part("encoder", 30),
    Part("train_base", 170),
    Part("decode", 130),
    Part("train_large", 50, only_large=True),
]
TINY_FACTOR = 4  # two cores, shared with whatever else runs there


class Check:
    """The results of the parts so far, on the disk too."""

    def __init__(self, device: str, tiny: bool):
        self.device, self.tiny, self.rows = device, tiny, []
        self.name, self.lock, self.is_cut_off = uuid.uuid4().hex, threading.Lock(), False
        self.processes: set[subprocess.Popen] = set()
        self.end = None if tiny else time.monotonic() + SECONDS
        OUTPUT.mkdir(parents=True, exist_ok=True)

    def run(self, part: Part) -> None:
        """Runs a part to its end or to the end of its time, and takes down how it went."""
        start = time.monotonic()
        seconds = part.seconds * TINY_FACTOR if self.tiny else min(part.seconds, self.end - start)
        if self.is_cut_off:
            return
        if seconds < 20:
            self.add(part, OUT_OF_TIME, 0, f"not begun: the {SECONDS} s of all parts are over")
            return
        status, seconds = self.run_process(part, seconds)
        if status == FAILED and (reason := why_left_out(bool(part.tests))):
            self.add(part, LEFT_OUT, seconds, reason)
        else:
            self.add(part, status, seconds, last_words(OUTPUT / f"{part.name}.log"))

    def run_process(self, part: Part, seconds: float) -> tuple[str, float]:
        start, mark = time.monotonic(), f"{self.name}-{part.name}."
        with open(OUTPUT / f"{part.name}.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, *part.command(self.device, self.tiny, seconds)],
                **{"cwd": ROOT, "env": {**self.environment(), MARK: mark}, "stdout": log, "stderr": subprocess.STDOUT},
                start_new_session=True,
            )
            self.processes.add(process)
            try:
                status = FAILED if process.wait(seconds) else PASSED
            except subprocess.TimeoutExpired:
                status = OUT_OF_TIME
            finally:
                end_marked(mark, [process])
                process.wait()
                self.processes.discard(process)
        return status, time.monotonic() - start

    def environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}".rstrip(":"), "PYTHONUNBUFFERED": "1"}
        own |= {"XFORMER_TEST_DEVICE": self.device, "XFORMER_TEST_TINY": str(int(self.tiny))}
        own |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if self.device == "cpu":
            own |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return {**os.environ, **own}

    def cut_off(self, number: int, frame) -> None:
        """Ends the parts that run; those before have their results on the disk."""
        self.is_cut_off = True
        end_marked(self.name, list(self.processes))
        print(f"error: cut off; so far: {OUTPUT}/summary.json", file=sys.stderr, flush=True)
        os._exit(128 + number)

    def add(self, part: Part, status: str, seconds: float, words: str) -> None:
        with self.lock:  # parts end in threads
            if self.is_cut_off:
                return
            self.rows.append({"part": part.name, "status": status, "seconds": round(seconds, 1), "last line": words})
            # Whoever reads it, after the check was cut off too, finds a whole file.
            written = write_results("summary.new", self.rows, OUTPUT, device=self.device, tiny=self.tiny)
            written.replace(OUTPUT / "summary.json")
            print(f"{part.name:16}{status:12}{seconds:6.0f} s  {words}", flush=True)

    def run_all(self, parts: Iterable[Part]) -> None:
        """Runs tests side by side and then benchmarks alone; all of them two at a time where no time is measured."""
        parts = list(parts)
        beside = [part for part in parts if self.tiny or part.tests]
        beside.sort(key=lambda part: -part.seconds)
        with ThreadPoolExecutor(2 if self.tiny else len(beside) or 1) as pool:
            for done in [pool.submit(self.run, part) for part in beside]:
                done.result()
        for part in parts:
            if part not in beside:
                self.run(part)


def end_marked(mark: str, processes: Iterable[subprocess.Popen] = ()) -> None:
    """
    Ends the processes with a mark in their environment: whatever a part has started, in other sessions too, as
    torchrun's workers are, and without the parents that they had.

    Args:
        processes: First ones of their groups, which are ended where there is no /proc too.
    """
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    wanted, end = f"{MARK}={mark}".encode(), time.monotonic() + 10
    while time.monotonic() < end:
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if wanted in path.read_bytes():  # nothing of those that have ended
                    found.append(int(path.parent.name))
        if not found:
            return
        for each in found:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        time.sleep(0.05)


def needed_packages() -> dict[str, list[str]]:
    """Returns the requirements of benchmarks, of tests beside them, and of runs beside those, as pip takes them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    of_tests = [line for line in extras["test"] if Requirement(line).name in ("pytest", "hypothesis")]
    return {"everything": project["dependencies"], "tests": of_tests, "runs": extras["train"] + extras["deepspeed"]}


def missing_packages(*kinds: str) -> list[str]:
    """Returns those requirements of some kinds that no installed package meets."""
    missing = []
    for line in [line for kind in kinds for line in needed_packages()[kind]]:
        requirement = Requirement(line)
        try:
            is_met = requirement.specifier.contains(version(requirement.name), prereleases=True)
        except PackageNotFoundError:
            is_met = False
        if not is_met:
            missing.append(line)
    return missing


def why_left_out(of_tests: bool) -> str | None:
    """Returns why tests, or benchmarks, cannot run with what is installed; None if they can, or lack no package."""
    missing = missing_packages("everything", *["tests"] * of_tests)
    if not missing:
        return None
    folder, names = ("tests", "conftest, hf_xformer.commands.train") if of_tests else ("benchmarks", "gpu_cases")
    path = os.pathsep.join([str(ROOT / folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    ran = subprocess.run([sys.executable, "-c", f"import {names}"], capture_output=True, text=True, env=environment)
    if ran.returncode == 0:
        return None
    return f"{ran.stderr.strip().splitlines()[-1]}; bring wheels of {', '.join(missing)}"


def last_words(log: Path) -> str:
    """Returns pytest's last line, how many tests had passed before it was cut off, or a log's last line."""
    text = log.read_text(errors="replace")
    lines = [line.strip(" =") for line in text.splitlines() if line.strip(" =")]
    for line in reversed(lines):
        if re.search(r"\d+ (passed|failed|skipped|deselected|errors?)\b.* in [\d.]+s|^\d+ rows", line):
            return line
    if passed := text.count(" PASSED"):
        return f"{passed} passed, {text.count(' FAILED')} failed so far"
    return lines[-1][:160] if lines else "it printed nothing"


def missing_gpu() -> str | None:
    """Returns why there is no GPU to check; None if torch finds one."""
    code = "import torch; assert torch.cuda.is_available(), 'torch finds no GPU'; print(torch.cuda.get_device_name())"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    print(finished.stdout, end="", flush=True)
    return None if finished.returncode == 0 else finished.stderr.splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="run every line in the smallest size")
    parser.add_argument("--only", choices=[part.name for part in PARTS], nargs="+", help="run some parts")
    args = parser.parse_args()
    if args.device == "cuda" and (reason := missing_gpu()):
        parser.error(f"--device cuda: {reason}; --device cpu --tiny rehearses on the CPU")
    print(json.dumps(machine()))
    for kind in needed_packages():
        for line in missing_packages(kind):
            print(f"{line} is not installed, or in another version: what needs it is left out")
    check, start = Check(args.device, args.tiny), time.monotonic()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, check.cut_off)
    check.run_all(
        part for part in PARTS if (not args.only or part.name in args.only) and not (args.tiny and part.only_large)
    )
    failed = [row["part"] for row in check.rows if row["status"] in (FAILED, OUT_OF_TIME)]
    print(f"{time.monotonic() - start:.0f} s; logs and summary.json: {OUTPUT}; figures: {RESULTS}/gpu_*.json")
    if failed:
        raise SystemExit(f"error: {', '.join(failed)}: failed or out of time; see {OUTPUT}/PART.log")
    if not any(row["status"] == PASSED for row in check.rows):
        raise SystemExit("error: all parts were left out for lack of packages, see above")


if __name__ == "__main__":
    main()
