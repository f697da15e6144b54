# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Texts longer than any in training, by the kind of positions: reversed, copied and sorted symbols.

  python benchmarks/length_generalisation.py --bf16                  # three seeds: some four hours on one core
  python benchmarks/length_generalisation.py --seeds 0 --max_steps 20 --results build/tried --output_dir build/tried

A model is trained for each task, kind of positions and seed, on texts of 4 to 40 of 32 symbols, and tested on up to
120; all have equal sizes, texts and steps. Texts are decoded greedily, those as long as in training and longer ones.
Scores are the shares of texts that are right in every symbol and, because few of the longer ones are, edits per
hundred symbols. Learned positions beyond those of the training stay random. Without positions the encoder sees a bag
of symbols: it can sort them. Trainings are kept in --output_dir, rows in
benchmarks/results/length_generalisation.json; a run that was stopped goes on from there.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tabulating import print_table
from verbs import Figures, comparison_parser, evaluate, hf_xformer, train, version_of

from hf_xformer.files import fill_folder


TASKS: dict[str, Callable[[list[str]], list[str]]] = {
    "reverse": lambda symbols: symbols[::-1],
    "copy": lambda symbols: symbols,
    "sort": lambda symbols: sorted(symbols),
}
POSITIONS = ("rope", "relative", "sinusoidal", "learned", "none")
SYMBOLS = [f"s{number:02}" for number in range(32)]
SHORTEST, TRAINED, LONGEST = 4, 40, 120  # few shorter texts exist, and a test would hold those of the training
# Lengths of test texts, which have as many of each.
LENGTHS = {
    "4 to 40": (SHORTEST, TRAINED),
    "41 to 44": (41, 44),
    "45 to 50": (45, 50),
    "51 to 60": (51, 60),
    "61 to 80": (61, 80),
    "81 to 120": (81, 120),
}
ROWS = {"train": 100_000, "test": 400}
METRICS = {"exact_match": "texts without a mistake, %", "per": "edits per hundred symbols"}
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
# Fields of every model. From the longest distance of the training on, relative positions share one bias: those of
# larger distances would not be trained.
FIELDS = {"max_position_embeddings": 2 * LONGEST, "relative_attention_max_distance": TRAINED, "dropout": 0.0}
SETTINGS = [RECIPE, SYMBOLS, LENGTHS, ROWS, FIELDS]


def write_data(folder: Path) -> None:
    """Writes the rows of all tasks and their tokenizer."""
    random = np.random.default_rng(0)
    for task, solve in TASKS.items():
        for split, count in ROWS.items():
            spans = {"": (SHORTEST, TRAINED)} if split == "train" else LENGTHS
            with open(folder / f"{task}-{split}.jsonl", "w") as output:
                for name, (shortest, longest) in spans.items():
                    for length in random.integers(shortest, longest + 1, count):
                        symbols = random.choice(SYMBOLS, length).tolist()
                        row = {"source": " ".join(symbols), "target": " ".join(solve(symbols)), "length": name}
                        output.write(json.dumps(row) + "\n")
    words = ("--model_type", "symbol", "--max_length", LONGEST + 1)
    hf_xformer("tokenizer", "--train_file", folder / "copy-train.jsonl", *words, "--output_dir", folder / "tokenizer")


def main() -> None:
    parser = comparison_parser(__doc__, seeds=[0, 1, 2], output_dir="runs/lengths")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: all")
    parser.add_argument("--positions", nargs="+", choices=POSITIONS, default=POSITIONS, help="default: all")
    parser.add_argument("--max_steps", type=int, default=1200, help="of a training (default: %(default)s)")
    args = parser.parse_args()
    figures = Figures("length_generalisation", SETTINGS, args.results, steps=args.max_steps, bf16=args.bf16)
    data = args.output_dir / f"data-{version_of(SETTINGS)}"
    if not data.exists():
        fill_folder(data, write_data)
    of_all = {"max_steps": args.max_steps, "bf16": args.bf16}
    for seed in args.seeds:
        for task in args.tasks:
            for positions in args.positions:
                of = {"task": task, "positions": positions, "seed": seed}
                if not figures.has(of):
                    figures.add(of, **measure(data, task, positions, of_all | {"seed": seed}))
    for task in args.tasks:
        for metric, title in METRICS.items():
            print(f"\n{task}: {title}")
            found = [row for row in figures.rows() if row["task"] == task and row["positions"] in args.positions]
            print_table(found, "positions", {f"{metric}_{length}": length for length in LENGTHS})


def measure(data: Path, task: str, positions: str, chosen: dict) -> dict[str, float]:
    """
    Returns the scores of one model by the lengths of the texts.

    Args:
        chosen: The seed and other options of the training.
    """
    run = data.with_name(f"{task}-{positions}-{chosen['seed']}")
    fields = FIELDS | {"position_embedding_type": positions}
    options = {"train_file": str(data / f"{task}-train.jsonl"), "tokenizer_name": str(data / "tokenizer")}
    train(RECIPE | options | chosen | {"config_overrides": fields}, run)
    words = ("--by", "{length}", "--max_new_tokens", LONGEST + 1)
    scores = evaluate(run, data / f"{task}-test.jsonl", METRICS, *words)
    return {name: round(scores[name], 2) for metric in METRICS for length in LENGTHS if (name := f"{metric}_{length}")}


if __name__ == "__main__":
    main()
