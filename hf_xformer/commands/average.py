# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Averages the weights of several checkpoints into one model, which is often better than any of them.

  hf-xformer average runs/de-en --last 5 --output_dir runs/de-en-averaged
  hf-xformer average runs/a/checkpoint-900 runs/a/checkpoint-1000 --output_dir runs/a-averaged

Of a run's folder the last checkpoints are taken; several folders are taken as they are. Tokenizer and generation
config are the last one's. Of a run with --ema_decay, which averages over the steps of a training while it runs, it
averages the weights themselves.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..checkpoints.averaging import average_checkpoints
from ..checkpoints.loading import check_path, load_tokenizers
from ..errors import ArgumentError, one_line_errors
from ..files import TARGET_TOKENIZER, checkpoints_of
from ..training.resume import whole
from .options import Parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("checkpoints", nargs="+", help="a run's folder, or the folders to average")
    parser.add_argument("--last", type=int, help="checkpoints of a run to average (default 5)")
    parser.add_argument("--output_dir", type=Path, required=True, help="where to save the model")
    with one_line_errors():
        args = parser.parse_args(argv)
        names = choose(args.checkpoints, args.last)
        if args.output_dir.exists() and any(args.output_dir.iterdir()):
            raise ArgumentError(f"--output_dir {args.output_dir} is not empty: give another")
        source, target = load_tokenizers(names[-1])
        # The last one first, whose generation config the result takes over.
        model = average_checkpoints(names[::-1])
        model.save_pretrained(args.output_dir)
        source.save_pretrained(args.output_dir)
        if target is not source:
            target.save_pretrained(args.output_dir / TARGET_TOKENIZER)
    print(
        f"{args.output_dir}: the average of {len(names)} checkpoints: {', '.join(Path(name).name for name in names)}"
    )


def choose(names: list[str], last: int | None) -> list[str]:
    """The checkpoints to average, in the order of their steps; of a run those that were saved whole."""
    if len(names) > 1:
        if last is not None:
            raise ArgumentError(
                f"--last {last} is for the folder of one run: of {len(names)} folders all are averaged"
            )
        return names
    last = 5 if last is None else last
    if last < 2:
        raise ArgumentError(f"--last must be 2 or more, got {last}")
    check_path(names[0])
    found = [str(path) for path in checkpoints_of(Path(names[0])) if whole(path)]
    if len(found) < last:
        raise ArgumentError(
            f"{names[0]}: {len(found)} checkpoints, --last {last} wants more: give less, or train with a larger "
            "--save_total_limit"
        )
    return found[-last:]
