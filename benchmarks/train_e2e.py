# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Useful tokens a second of whole trainings: the stock Seq2SeqTrainer with data loader, collator, optimizer and logging.

  python benchmarks/train_e2e.py multi30k-like             # some minutes on two cores
  python benchmarks/train_e2e.py cmudict                   # after `make quickstart`, whose data it reads
  python benchmarks/train_e2e.py multi30k-like --bf16

Every model trains for --steps steps of --pairs pairs: stock ones and ours in padded rows at random, which is the
Trainer's default, and again by the Trainer's own grouping by length; ours packed too. All take turns in one process,
seconds are medians, and useful tokens are those of both sides that are not padding. multi30k-like draws lengths as
those of Multi30k in subwords are (about 15 tokens, a few of 40, both sides alike); cmudict has the words themselves.

Writes train_e2e_TASK.json into --results and prints ratios.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from datasets import Dataset
from measuring import ROOT, add_results_option, results_folder, write_results
from peers import SHAPES, STOCK, Padding, Shape, padded, xformer
from torch import nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.trainer_callback import PrinterCallback

from hf_xformer.data.batches import BatchedDataset, OfCount
from hf_xformer.data.collators import BatchCollator, DataCollatorForPackedSeq2Seq


TASKS = {"cmudict": "g2p", "multi30k-like": "small"}  # and the shape of the models
SAMPLING = {"padded": "random", "grouped": "group_by_length", "packed": "sequential"}
LENGTH_COLUMN = "length"


def multi30k_like(count: int, vocabulary: int) -> Dataset:
    random = np.random.default_rng(0)
    source = np.clip(random.lognormal(2.65, 0.33, count).round(), 4, 48).astype(int)
    target = np.clip((source * random.lognormal(0.05, 0.2, count)).round(), 4, 48).astype(int)
    return as_rows(*([random.integers(3, vocabulary, n) for n in lengths] for lengths in (source, target)))


def cmudict(count: int, vocabulary: int) -> Dataset:
    path = ROOT / "data/g2p/train.jsonl"
    if not path.exists():
        raise SystemExit(f"{path} is not there: `make quickstart` prepares it")
    with open(path) as lines:
        pairs = [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
    ids: dict[str, int] = {}

    def encode(text: str) -> list[int]:
        return [3 + ids.setdefault(symbol, len(ids)) for symbol in text.split()] + [1]

    targets = [pair["target"] if isinstance(pair["target"], str) else pair["target"][0] for pair in pairs]
    return as_rows([encode(pair["source"]) for pair in pairs], [encode(target) for target in targets])


def as_rows(sources: list, targets: list) -> Dataset:
    longer = [max(map(len, pair)) for pair in zip(sources, targets, strict=True)]
    return Dataset.from_dict({"input_ids": sources, "labels": targets, LENGTH_COLUMN: longer})


class Counting:
    """A collator that counts the tokens which it puts into batches."""

    def __init__(self, collate: Callable):
        self.collate, self.tokens = collate, 0

    def __call__(self, features: list) -> dict[str, torch.Tensor]:
        batch = self.collate(features)
        self.tokens += int((batch["labels"] != -100).sum() + (batch["input_ids"] != 0).sum())
        return batch


def make_run(make: Callable[[Shape], nn.Module], how: str, rows: Dataset, args: argparse.Namespace) -> Callable:
    """From nothing to `(tokens, seconds)` of a training."""
    model = make(SHAPES[TASKS[args.task]]).train()
    data = BatchedDataset(rows, OfCount(args.pairs), seed=0) if how == "packed" else rows
    packed = DataCollatorForPackedSeq2Seq(Padding(), pad_to_multiple_of=64)
    collate = BatchCollator(packed, padded) if how == "packed" else padded

    def run() -> tuple[int, float]:
        with tempfile.TemporaryDirectory() as folder:
            arguments = Seq2SeqTrainingArguments(
                folder, max_steps=args.steps, per_device_train_batch_size=1 if how == "packed" else args.pairs,
                bf16=args.bf16, report_to="none", save_strategy="no", logging_steps=10, disable_tqdm=True,
                dataloader_pin_memory=torch.cuda.is_available(),
                train_sampling_strategy=SAMPLING[how],
                length_column_name=LENGTH_COLUMN,
            )  # fmt: skip
            collator = Counting(collate)
            trainer = Seq2SeqTrainer(model=model, args=arguments, train_dataset=data, data_collator=collator)
            trainer.remove_callback(PrinterCallback)
            start = time.perf_counter()
            trainer.train()
            return collator.tokens, time.perf_counter() - start

    return run


def rates_in_turn(runs: dict[str, Callable], rounds: int) -> dict[str, float]:
    rates = {name: [] for name in runs}
    for turn in range(rounds + 1):  # the first is not counted
        for name, run in runs.items():
            tokens, seconds = run()
            if turn:
                rates[name].append(tokens / seconds)
    return {name: median(each) for name, each in rates.items()}


def show(rates: dict[str, float]) -> None:
    padded = {name: rates[name] for name in STOCK}
    best = max(padded, key=padded.get)
    grouped = max((name for name in rates if name.endswith("grouped") and "xformer" not in name), key=rates.get)
    print(f"\n{'':28}{'useful tokens/s':>16}{f'/ {best}':>12}")
    for name, rate in rates.items():
        print(f"  {name:26}{rate:16,.0f}{rate / rates[best]:12.2f}")
    packed = rates["hf-xformer, packed"]
    print(f"\n{'':46}{'wanted':>8}{'measured':>10}")
    print(f"  {'packed / best stock':44}{'>= 1.7':>8}{packed / rates[best]:10.2f}")
    print(f"  {f'packed / {grouped} by length':44}{'':>8}{packed / rates[grouped]:10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS, help="what lengths and which shape of models")
    parser.add_argument("--pairs", type=int, default=128, help="of a step (default 128)")
    parser.add_argument("--steps", type=int, default=40, help="of a training (default 40)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the medians are taken (default 3)")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16")
    add_results_option(parser)
    args = parser.parse_args()
    folder = results_folder(parser, args, "task")
    torch.manual_seed(0)
    count = args.pairs * args.steps * 2
    make_rows = {"cmudict": cmudict, "multi30k-like": multi30k_like}[args.task]
    rows = make_rows(count, SHAPES[TASKS[args.task]].vocabulary)
    models = {"hf-xformer": xformer, **STOCK}
    runs = {"hf-xformer, packed": make_run(xformer, "packed", rows, args)}
    runs |= {name: make_run(make, "padded", rows, args) for name, make in models.items()}
    runs |= {f"{name}, grouped": make_run(make, "grouped", rows, args) for name, make in models.items()}
    rates = rates_in_turn(runs, args.rounds)
    show(rates)
    name = f"train_e2e_{args.task.replace('-', '_')}{'_bf16' if args.bf16 else ''}"
    shape = vars(SHAPES[TASKS[args.task]])
    about = {"pairs": args.pairs, "steps": args.steps, "shape": shape}
    write_results(name, {each: round(rate, 1) for each, rate in rates.items()}, folder, **about)


if __name__ == "__main__":
    main()
