# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Tests and benchmarks on a machine with one GPU, in under eight minutes, from the source tree, without the network.

  make gpu-check                                # or python benchmarks/gpu_check.py: an installation is not needed
  make gpu-check ARGS="--device cpu --tiny"     # the rehearsal on a CPU, under three minutes
  python benchmarks/gpu_check.py --only launches

Each part is a process with a time limit of its own, that prints into build/gpu-check/PART.log. Tests run side by side,
benchmarks one after another with nothing beside them. build/gpu-check/summary.json is written again after each part,
and benchmarks/results/gpu_CASE.json after each row of a benchmark, so that a run that is cut off still tells most.
The status is not zero if a part failed. What needs a package that is not installed says so and is left out.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from measuring import RESULTS, machine, write_results


ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build/gpu-check"
SECONDS = 480  # of all: what a part does not get any more is not run
PASSED, FAILED, OUT_OF_TIME, LEFT_OUT = "passed", "failed", "out of time", "left out"


@dataclass(frozen=True)
class Part:
    """A part of the check: test files, or the case of benchmarks/gpu.py that has its name, and its seconds at most."""

    name: str
    seconds: int
    tests: tuple[str, ...] = ()
    only_large: bool = False

    def command(self, device: str, tiny: bool, seconds: float) -> list[str]:
        if self.tests:
            files = [f"tests/gpu/{name}.py" for name in self.tests if (ROOT / f"tests/gpu/{name}.py").exists()]
            return ["-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-v", "-rs", "--tb=short", *files]
        # It begins nothing that it could not finish, and is still ended if it hangs.
        options = ["--device", device, *["--tiny"] * tiny, "--only", self.name, "--seconds", f"{seconds - 15:.0f}"]
        return ["benchmarks/gpu.py", *options]


# What an H100 with 16 cores has time for. The tests start together and take as long as the slowest; a process needs
# some ten seconds to import the libraries, a compiled model of 24 layers about a minute, launches two at a time.
PARTS = [
    Part("numbers", 110, ("test_against_cpu", "test_packed_step")),
    Part("decoding", 110, ("test_decoding", "test_memory")),
    Part("training", 110, ("test_training",)),
    Part("launches", 120, ("test_launch",)),
    Part("loss", 30),
    Part("encoder", 35),
    Part("train_base", 120),
    Part("decode", 85),
    Part("train_large", 90, only_large=True),
]
TINY_FACTOR = 4  # two cores, shared with whatever else runs there


class Check:
    """The results of the parts so far, on the disk too."""

    def __init__(self, device: str, tiny: bool):
        self.device, self.tiny, self.rows = device, tiny, []
        self.processes: set[subprocess.Popen] = set()
        self.end = None if tiny else time.monotonic() + SECONDS
        OUTPUT.mkdir(parents=True, exist_ok=True)

    def run(self, part: Part) -> None:
        """Runs a part to its end or to the end of its time, and takes down how it went."""
        start = time.monotonic()
        seconds = part.seconds * TINY_FACTOR if self.tiny else min(part.seconds, self.end - start)
        if part.tests and find_spec("pytest") is None:
            self.add(part, LEFT_OUT, 0, "pytest is not installed")
        elif seconds < 20:
            self.add(part, OUT_OF_TIME, 0, f"not begun: the {SECONDS} s of all parts are over")
        else:
            status, seconds = self.run_process(part, seconds)
            self.add(part, status, seconds, last_words(OUTPUT / f"{part.name}.log"))

    def run_process(self, part: Part, seconds: float) -> tuple[str, float]:
        start = time.monotonic()
        with open(OUTPUT / f"{part.name}.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, *part.command(self.device, self.tiny, seconds)],
                **{"cwd": ROOT, "env": self.environment(), "stdout": log, "stderr": subprocess.STDOUT},
                start_new_session=True,
            )
            self.processes.add(process)
            try:
                status = FAILED if process.wait(seconds) else PASSED
            except subprocess.TimeoutExpired:
                status = OUT_OF_TIME
            finally:
                self.stop(process)
        return status, time.monotonic() - start

    def environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}".rstrip(":"), "PYTHONUNBUFFERED": "1"}
        own |= {"XFORMER_TEST_DEVICE": self.device, "XFORMER_TEST_TINY": str(int(self.tiny))}
        own |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if self.device == "cpu":
            own |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return {**os.environ, **own}

    def stop(self, process: subprocess.Popen) -> None:
        """Ends a process with all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.processes.discard(process)

    def cut_off(self, number: int, frame) -> None:
        """Ends the parts that run; those before have their results on the disk."""
        for process in list(self.processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        print(f"error: cut off; so far: {OUTPUT}/summary.json", file=sys.stderr, flush=True)
        os._exit(128 + number)

    def add(self, part: Part, status: str, seconds: float, words: str) -> None:
        self.rows.append({"part": part.name, "status": status, "seconds": round(seconds, 1), "last line": words})
        write_results("summary", self.rows, OUTPUT, device=self.device, tiny=self.tiny)
        print(f"{part.name:12}{status:12}{seconds:6.0f} s  {words}", flush=True)

    def run_all(self, parts: Iterable[Part]) -> None:
        """Runs tests side by side and then benchmarks alone; all of them two at a time where no time is measured."""
        parts = list(parts)
        beside = sorted((part for part in parts if self.tiny or part.tests), key=lambda part: -part.seconds)
        with ThreadPoolExecutor(2 if self.tiny else 4) as pool:
            for done in [pool.submit(self.run, part) for part in beside]:
                done.result()
        for part in parts:
            if part not in beside:
                self.run(part)


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
    for name in ("datasets", "evaluate", "deepspeed", "ruamel.yaml"):
        if not is_installed(name):
            print(f"{name} is not installed: what needs it is left out")
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


def is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    main()
