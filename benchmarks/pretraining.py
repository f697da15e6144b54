# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Compares pretraining and fine-tuning with training from scratch on a small labelled set, and prints a table.

  python benchmarks/pretraining.py                                   # once `make pretraining-data` has been there
  python benchmarks/pretraining.py --seeds 0 --pretrain_steps 300    # a quick look

For each seed configs/train/pretrain.yaml trains a model on plain text. configs/train/finetune.yaml then goes on with
it, and starts from random weights of the same model too: the same pairs, steps and options. Scores are of the test
set, decoded greedily; the loss is that of the validation set.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev

import yaml
from measuring import write_results

from hf_xformer.yaml_files import read_yaml_file


PRETRAIN, FINETUNE = "configs/train/pretrain.yaml", "configs/train/finetune.yaml"
SCORES = {"loss": "{:.3f}", "cer": "{:.2f}", "exact_match": "{:.2f}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/docstrings"), help="folder of the prepared data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--pretrain_steps", type=int, help=f"instead of those that {PRETRAIN} has")
    parser.add_argument("--finetune_steps", type=int, help=f"instead of those that {FINETUNE} has")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            rows += compare(Path(folder, str(seed)), seed, args)
            print(rows[-2:], file=sys.stderr)
    print_table(rows)
    print(f"written to {write_results('pretraining', rows)}")


def compare(folder: Path, seed: int, args: argparse.Namespace) -> list[dict]:
    """Returns the figures of one seed: of a model that was pretrained, and of one that was not."""
    pretraining, finetuning = (read_yaml_file(Path(recipe)) for recipe in (PRETRAIN, FINETUNE))
    common = {"seed": seed, "use_cpu": True}
    pretraining |= {
        "train_file": str(args.data / "text.txt"),
        "tokenizer_name": str(args.data / "tokenizer"),
        **common,
    }
    pretraining |= {} if args.pretrain_steps is None else {"max_steps": args.pretrain_steps}
    seconds = train(pretraining | {"save_strategy": "no"}, folder / "pretrained")
    files = {f"{name}_file": str(args.data / f"{name}.jsonl") for name in ("train", "validation")}
    finetuning |= files | common | ({} if args.finetune_steps is None else {"max_steps": args.finetune_steps})
    new = {name: pretraining[name] for name in ("config_name", "config_overrides", "tokenizer_name")}
    starts = {
        "pretrained": {"model_name_or_path": str(folder / "pretrained")},
        "from scratch": {"model_name_or_path": None, **new},
    }
    rows = []
    for start, options in starts.items():
        output_dir = folder / f"finetuned {start}"
        figures = {"seconds": train(finetuning | options, output_dir)}
        figures |= {"pretraining_seconds": seconds} if start == "pretrained" else {}
        rows.append({"start": start, "seed": seed, **scores_of(output_dir, args.data / "test.jsonl"), **figures})
    return rows


def train(recipe: dict, output_dir: Path) -> float:
    """Trains a recipe in a process of its own, whose output goes to stderr; returns its seconds."""
    output_dir.mkdir(parents=True)
    path = output_dir.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe | {"output_dir": str(output_dir)}))
    subprocess.run([sys.executable, "-m", "hf_xformer", "train", str(path)], check=True, stdout=sys.stderr.fileno())
    return round(json.loads((output_dir / "train_results.json").read_text())["train_runtime"], 1)


def scores_of(model: Path, test_file: Path) -> dict[str, float]:
    """Returns a model's scores on the test set, and its loss on the validation set."""
    output = model / "scores.json"
    words = ["evaluate", model, "--test_file", test_file, "--metrics", "cer", "exact_match", "--output_file", output]
    subprocess.run([sys.executable, "-m", "hf_xformer", *map(str, words)], check=True, stdout=sys.stderr.fileno())
    found = json.loads(output.read_text())
    loss = json.loads((model / "eval_results.json").read_text())["eval_loss"]
    return {"loss": round(loss, 4), "cer": round(found["cer"], 2), "exact_match": round(found["exact_match"], 2)}


def print_table(rows: list[dict]) -> None:
    """Prints a line for each start, with means and standard deviations over the seeds."""
    print(f"{'start':14}{'seeds':>7}" + "".join(f"{name:>18}" for name in SCORES))
    for start in dict.fromkeys(row["start"] for row in rows):
        line = f"{start:14}{sum(row['start'] == start for row in rows):7}"
        for name, form in SCORES.items():
            values = [row[name] for row in rows if row["start"] == start]
            spread = f" ± {form.format(stdev(values))}" if len(values) > 1 else ""
            line += f"{form.format(mean(values)) + spread:>18}"
        print(line)


if __name__ == "__main__":
    main()
