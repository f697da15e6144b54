# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Loads checkpoints with many random faults, and writes what became of each kind to benchmarks/results/mutations.json.

  make mutations
  make mutations ARGS="--examples 5000 --seed 7"

The exit status is 1 if one of them ended in another model, a traceback or no end; each such line is printed.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import transformers
from hypothesis import HealthCheck, Phase, given, seed, settings
from mutated_configs import changed_configs, changed_generation_configs
from mutated_weights import changed_indices, changed_weights
from mutations import Different, judge, original, through_the_library


RESULTS = Path(__file__).resolve().parent.parent / "benchmarks/results/mutations.json"
# What is changed, by name: how it is drawn, and the fewest examples.
LEAST = {"config.json": 450, "model.safetensors": 200, "generation_config.json": 120, "index": 100}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1, help="multiplies the numbers of examples (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the random faults (default 0)")
    parser.add_argument("--only", choices=LEAST, help="one kind of file; writes no results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    start = time.time()
    counts = {}
    for name, count in LEAST.items():
        if args.only in (None, name):
            counts[name] = dict(sorted(outcomes(name, count * args.examples, args.seed).items()))
            print(name, counts[name], flush=True)
    results = {
        "outcomes": counts,
        "seed": args.seed,
        "seconds": round(time.time() - start),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if args.only is None:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(any("wrong" in each for each in counts.values()))


def outcomes(name: str, count: int, number: int) -> Counter:
    """Returns how many examples of one kind of file ended in which way."""
    found: Counter = Counter()
    folder = Path(tempfile.mkdtemp(prefix="mutated-"))

    def note(said: str, before, changed: dict, **options) -> None:
        before.copy(folder, changed)
        try:
            found[judge(before, folder, **options)] += 1
        except Different as error:
            found["wrong"] += 1
            print(f"{name}: {said}: {error}", flush=True)

    def of_config(drawn):
        kind, said, data = drawn
        note(said, original(kind), {"config.json": data})
        note(f"{said} (the library)", original(kind), {"config.json": data}, load=through_the_library)

    def of_weights(drawn):
        dtype, said, data = drawn
        note(said, original("rope-pre", dtype), {"model.safetensors": data})

    def of_generation(drawn):
        said, data = drawn
        note(said, original("rope-pre"), {"generation_config.json": data}, decode=True)

    def of_index(drawn):
        said, changed = drawn
        note(said, original("rope-pre", shards=True), changed)

    strategy, body = {
        "config.json": (changed_configs, of_config),
        "model.safetensors": (changed_weights, of_weights),
        "generation_config.json": (changed_generation_configs, of_generation),
        "index": (changed_indices, of_index),
    }[name]
    run = given(strategy())(body)
    options = {"suppress_health_check": list(HealthCheck), "phases": [Phase.generate], "database": None}
    seed(number)(settings(max_examples=count, deadline=None, **options)(run))()
    return found


if __name__ == "__main__":
    main()
