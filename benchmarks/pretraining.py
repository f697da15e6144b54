# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Compares pretraining and fine-tuning with training from scratch on a small labelled set, and prints a table.

  python benchmarks/pretraining.py --results build/mine              # once `make pretraining-data` has been there
  python benchmarks/pretraining.py --seeds 0 --pretrain_steps 300 --results build/tried --output_dir build/tried

For each seed configs/train/pretrain.yaml trains a model on plain text. configs/train/finetune.yaml then goes on with
it, and starts from random weights of the same model too: the same pairs, steps and options. Scores are of the test
set, decoded greedily; the loss is that of the validation set. Rows are written as they come into pretraining.json of
--results, and those that it has are not made again; other steps want another --results. Those in benchmarks/results do
not say which recipes and data they are of, and none is added to them.
"""

import json
from pathlib import Path

from tabulating import print_table
from verbs import Figures, absolute, comparison_parser, deciding, evaluate, read_recipe, train


PRETRAIN, FINETUNE = "configs/train/pretrain.yaml", "configs/train/finetune.yaml"
SCORES = {"loss": "loss", "cer": "CER", "exact_match": "exact match"}
PRETRAINED, SCRATCH = "pretrained", "from scratch"


def main() -> None:
    parser = comparison_parser(__doc__, seeds=[0, 1, 2], output_dir="runs/pretraining")
    parser.add_argument("--data", type=absolute, default="data/docstrings", help="folder of the prepared data")
    parser.add_argument("--objective", help="of pretraining, instead of that which the recipe has")
    parser.add_argument("--pretrain_steps", type=int, help=f"instead of those that {PRETRAIN} has")
    parser.add_argument("--finetune_steps", type=int, help=f"instead of those that {FINETUNE} has")
    args = parser.parse_args()
    pretraining, finetuning = (
        read_recipe(path) | ({} if steps is None else {"max_steps": steps})
        for path, steps in ((PRETRAIN, args.pretrain_steps), (FINETUNE, args.finetune_steps))
    )
    pretraining |= {"objective": args.objective or pretraining["objective"], "save_strategy": "no"}
    pretraining |= {"train_file": str(args.data / "text.txt"), "tokenizer_name": str(args.data / "tokenizer")}
    finetuning |= {f"{name}_file": str(args.data / f"{name}.jsonl") for name in ("train", "validation")}
    pretraining, finetuning = (options | {"bf16": args.bf16} for options in (pretraining, finetuning))
    steps = {"pretrain_steps": pretraining["max_steps"], "finetune_steps": finetuning["max_steps"]}
    # The model to fine-tune is the one that is pretrained here, and not the recipe's.
    settings = [deciding(path) | {"model_name_or_path": None} for path in (PRETRAIN, FINETUNE)]
    reads = [args.data / each for each in ("text.txt", "train.jsonl", "validation.jsonl", "test.jsonl", "tokenizer")]
    figures = Figures("pretraining", settings, args.results, reads, **steps, bf16=args.bf16)
    for seed in args.seeds:
        for start in (f"{PRETRAINED} by {pretraining['objective']}", SCRATCH):
            if not figures.has(of := {"start": start, "seed": seed}):
                folder = args.output_dir / f"{start.replace(' ', '-')}-{seed}"
                found = measure(pretraining | {"seed": seed}, finetuning | {"seed": seed}, start, folder)
                figures.add(of, **score(folder / "finetuned", args.data / "test.jsonl"), **found)
    print_table(figures.rows(), "start", SCORES)


def measure(pretraining: dict, finetuning: dict, start: str, folder: Path) -> dict[str, float]:
    """Trains in a folder's `finetuned`, from a pretrained model or from random weights; returns the seconds."""
    if start == SCRATCH:
        new = {name: pretraining[name] for name in ("config_name", "config_overrides", "tokenizer_name")}
        return {"seconds": train(finetuning | {"model_name_or_path": None, **new}, folder / "finetuned")}
    seconds = train(pretraining, folder / "pretrained")
    finetuning |= {"model_name_or_path": str(folder / "pretrained")}
    return {"seconds": train(finetuning, folder / "finetuned"), "pretraining_seconds": seconds}


def score(run: Path, test_file: Path) -> dict[str, float]:
    """Returns a model's scores on the test set, and its loss on the validation set."""
    found = evaluate(run, test_file, ["cer", "exact_match"])
    loss = json.loads((run / "eval_results.json").read_text())["eval_loss"]
    return {"loss": round(loss, 4), "cer": round(found["cer"], 2), "exact_match": round(found["exact_match"], 2)}


if __name__ == "__main__":
    main()
