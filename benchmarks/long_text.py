# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Trains the recipe of whole Bible chapters with full and with block attention, and prints what each costs and learns.

  python benchmarks/long_text.py                 # as `make bible` does, once it has data and tokenizer
  python benchmarks/long_text.py --seeds 1 2     # two runs of each show how much is chance
  python benchmarks/long_text.py --max_steps 3 --models full

Both are trained on the CPU by scripts/train.py, with the same options but for the model, each in a process of its own
and one after the other, so that its peak of resident memory is its own. The loss is that of the validation chapters,
per byte; the seconds are those of the training steps alone. The last line divides the means over the seeds.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean

from costs import peak_of_command
from measuring import write_results


RECIPE = "configs/train/bible.yaml"
MODELS = {"full": "configs/model/bible-full.json", "block": "configs/model/bible-block.json"}
MEASURES = {"validation_loss": ".4f", "training_seconds": ".1f", "peak_memory_mib": ".0f"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max_steps", type=int, help=f"steps of each run, instead of those that {RECIPE} has")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a run of each model for each (default: 0)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="default: both")
    args = parser.parse_args()
    rows = []
    for seed in args.seeds:
        for model in args.models:
            rows.append(train(model, seed, args.max_steps))
            print(rows[-1], file=sys.stderr)
    print_table(rows)
    print(f"written to {write_results('long_text', rows)}")


def train(model: str, seed: int, max_steps: int | None) -> dict:
    """The figures of one run. What it says goes to stderr."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"config_name": MODELS[model], "output_dir": folder, "seed": seed, "use_cpu": "true"}
        if max_steps is not None:
            options["max_steps"] = max_steps
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        memory = peak_of_command(sys.executable, "scripts/train.py", RECIPE, *words)
        found = {
            name: json.loads(Path(folder, f"{name}.json").read_text())
            for name in ("trainer_state", "train_results", "eval_results")
        }
    return {
        "model": model,
        "seed": seed,
        "steps": found["trainer_state"]["global_step"],
        "validation_loss": round(found["eval_results"]["eval_loss"], 4),
        "training_seconds": round(found["train_results"]["train_runtime"], 1),
        "peak_memory_mib": round(memory / 2**20),
    }


def print_table(rows: list[dict]) -> None:
    """A line a run, and the ratio of the models where there are both."""
    print(f"{'model':14}{'seed':>6}{'steps':>7}" + "".join(f"{name:>20}" for name in MEASURES))
    for row in rows:
        figures = "".join(f"{row[name]:20{form}}" for name, form in MEASURES.items())
        print(f"{row['model']:14}{row['seed']:6}{row['steps']:7}{figures}")
    means = {
        model: {name: mean(row[name] for row in rows if row["model"] == model) for name in MEASURES}
        for model in {row["model"] for row in rows}
    }
    if len(means) == len(MODELS):
        ratios = "".join(f"{means['block'][name] / means['full'][name]:20.3f}" for name in MEASURES)
        print(f"{'block / full':27}{ratios}")


if __name__ == "__main__":
    main()
