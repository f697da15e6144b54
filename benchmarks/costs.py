# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Seconds and peak memory of a function, on the GPU if there is one, and peak memory of a command."""

import ctypes
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import ROOT


# Seconds before a run, for which threads of the library before may still wait for work and hold the cores.
REST = 0.5


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_in_turn(runs: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each, after a warm-up round. They take turns, so that a slow minute hits all."""
    seconds = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            gc.collect()
            wait_for_device()
            time.sleep(REST)
            start = time.perf_counter()
            run()
            wait_for_device()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def peak_mib(run: Callable) -> float:
    """Returns the peak memory of a run above what was in use before it, in MiB: the GPU's, else the process's."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        wait_for_device()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the allocator has kept would hide what the run takes
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is in use
    before = resident_kib("VmRSS")
    run()
    return (resident_kib("VmHWM") - before) / 1024


def peak_of_command(*command: str, **environment: str) -> int:
    """
    Runs a command in the project's root to its end, and returns the peak of resident memory in bytes of whichever of
    its processes took most. What it prints goes to stderr.
    """
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr, env={**os.environ, **environment})
    # Not `resource.getrusage`, which knows only the largest of all children so far.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command[1:])} ended with {process.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_of_script(script: str, *words: object) -> float:
    """
    Returns the MiB that a script prints when its options ask for its peak memory, in a process whose allocator gives
    back at once what is freed.
    """
    command = [sys.executable, script, *map(str, words)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def resident_kib(field: str) -> int:
    """Returns the process's memory now ("VmRSS") or at its peak ("VmHWM"), in KiB."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0])
