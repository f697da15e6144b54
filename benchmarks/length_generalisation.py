# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Texts longer than any in training, by the kind of positions: reversed, copied and sorted symbols.

  python benchmarks/length_generalisation.py                         # three seeds: three hours on two cores
  python benchmarks/length_generalisation.py --seeds 0 --max_steps 20 --results build/tried --output_dir build/tried

A model is trained for each task, kind of positions and seed, on texts of 1 to 40 of 32 symbols, and tested on up to
120; all have equal sizes, texts and steps. Scores are the shares of texts that are right in every symbol, decoded
greedily, for texts as long as those of the training and for longer ones. Trainings are kept in --output_dir, rows in
benchmarks/results/length_generalisation.json; a run that was stopped goes on from there.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import RESULTS
from verbs import Figures, evaluate, hf_xformer, print_table, train


TASKS: dict[str, Callable[[list[str]], list[str]]] = {
    "reverse": lambda symbols: symbols[::-1],
    "copy": lambda symbols: symbols,
    "sort": lambda symbols: sorted(symbols),
}
POSITIONS = ("rope", "relative", "sinusoidal", "learned", "none")
SYMBOLS = [f"s{number:02}" for number in range(32)]
TRAINED, LONGEST = 40, 120
# Lengths of test texts, which have as many of each.
LENGTHS = {"1 to 40": (1, 40), "41 to 60": (41, 60), "61 to 80": (61, 80), "81 to 120": (81, 120)}
ROWS = {"train": 100_000, "test": 400}
RECIPE = {
    "config_name": "configs/model/tiny.json",
    "packing": True,
    "max_tokens": 4096,
    "max_source_length": LONGEST + 1,
    "max_target_length": LONGEST + 1,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 200,
    "adam_beta2": 0.98,
    "max_grad_norm": 1.0,
    "save_strategy": "no",
    "logging_steps": 100,
    "report_to": "none",
    "dataloader_pin_memory": False,
    "use_cpu": True,
}


def prepare(folder: Path) -> None:
    """Writes the rows of all tasks and their tokenizer, unless they are there."""
    if (folder / "tokenizer").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for task, solve in TASKS.items():
        for split, count in ROWS.items():
            spans = {"": (1, TRAINED)} if split == "train" else LENGTHS
            with open(folder / f"{task}-{split}.jsonl", "w") as output:
                for name, (shortest, longest) in spans.items():
                    for length in random.integers(shortest, longest + 1, count):
                        symbols = random.choice(SYMBOLS, length).tolist()
                        row = {"source": " ".join(symbols), "target": " ".join(solve(symbols)), "length": name}
                        output.write(json.dumps(row) + "\n")
    words = ("--model_type", "symbol", "--max_length", LONGEST + 1)
    hf_xformer("tokenizer", "--train_file", folder / "copy-train.jsonl", *words, "--output_dir", folder / "tokenizer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: all")
    parser.add_argument("--positions", nargs="+", choices=POSITIONS, default=POSITIONS, help="default: all")
    parser.add_argument("--max_steps", type=int, default=2000, help="of a training (default: %(default)s)")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/lengths"), help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON (default: the results)")
    args = parser.parse_args()
    folder = args.output_dir.resolve()
    prepare(folder / "data")
    figures = Figures("length_generalisation", args.results, steps=args.max_steps)
    for seed in args.seeds:
        for task in args.tasks:
            for positions in args.positions:
                if not figures.has(task=task, positions=positions, seed=seed):
                    found = measure(folder, task, positions, seed, args.max_steps)
                    figures.add(task=task, positions=positions, seed=seed, **found)
    for task in args.tasks:
        print(f"\n{task}: texts without a mistake, %")
        print_table(
            [row for row in figures.rows() if row["task"] == task], "positions", {name: name for name in LENGTHS}
        )


def measure(folder: Path, task: str, positions: str, seed: int, steps: int) -> dict[str, float]:
    """Returns the scores of one model by the lengths of the texts."""
    data, run = folder / "data", folder / f"{task}-{positions}-{seed}"
    fields = {"position_embedding_type": positions, "max_position_embeddings": 2 * LONGEST, "dropout": 0.0}
    options = {"train_file": str(data / f"{task}-train.jsonl"), "tokenizer_name": str(data / "tokenizer")}
    train(RECIPE | options | {"config_overrides": fields, "seed": seed, "max_steps": steps}, run)
    words = ("--by", "{length}", "--max_new_tokens", LONGEST + 1)
    scores = evaluate(run, data / f"{task}-test.jsonl", ["exact_match"], *words)
    return {name: scores[f"exact_match_{name}"] for name in LENGTHS}


if __name__ == "__main__":
    main()
