# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Writes a training set for a smaller or faster model: a teacher's own outputs in the place of the references.

  hf-xformer distill runs/teacher --train_file train.jsonl --output_file distilled.jsonl --num_beams 5
  hf-xformer train student.yaml --train_file distilled.jsonl

This is sequence-level knowledge distillation (Kim and Rush 2016): what a teacher's beam search finds has fewer ways of
saying a thing than what people write, and a small model learns it better. A run that was stopped goes on where it was
when the same command is given again.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ..data.reading import load_rows
from ..errors import ArgumentError, one_line_errors
from .options import GENERATE_OPTIONS, Parser, add_decoding_options, make_decoder


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("checkpoint", help="the teacher: folder or Hub name")
    parser.add_argument(
        "--train_file", nargs=1, required=True, help="a table as for scripts/train.py, or a text of one source a line"
    )
    parser.add_argument("--source_column", default="source", help="field of the source (default source)")
    parser.add_argument("--output_file", type=Path, required=True, help="JSONL of source and target")
    add_decoding_options(parser)
    with one_line_errors():
        args = parser.parse_args(argv)
        for name in ("batch_size", "num_beams"):
            if getattr(args, name) is not None and getattr(args, name) < 1:
                raise ArgumentError(f"--{name} must be 1 or more, got {getattr(args, name)}")
        if args.do_sample:
            raise ArgumentError("--do_sample: a run that goes on would draw anew; distillation is by beams")
        if args.output_file.exists():
            raise ArgumentError(f"--output_file {args.output_file} is there already: remove it or give another")
        sources = load_rows(args.train_file, args.source_column, target_column=None)["source"]
        partial = args.output_file.with_name(f"{args.output_file.name}.partial")
        done = begin(partial, order(args), sources)
        if done:
            print(f"{done:,} of {len(sources):,} sources are in {partial} already")
        decoder = make_decoder(args)
        decoder.batches_ahead = 8  # so many are decoded before any of them is kept
        rest, empty = sources[done:], 0
        try:
            with open(partial, "a", encoding="utf-8", buffering=1) as output:  # a line at a time
                for source, (best, *_) in zip(rest, decoder.decode(rest, progress=True), strict=True):
                    output.write(json.dumps({"source": source, "target": best.text}, ensure_ascii=False) + "\n")
                    empty += not best.text
        except KeyboardInterrupt:
            print(f"stopped. Start the same command again, and it goes on with {partial}", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None
        keep_rows(partial, args.output_file)
    cut = (
        f"; {decoder.truncated:,} sources were cut to {decoder.max_source_length} tokens" if decoder.truncated else ""
    )
    nothing = f"; {empty:,} targets are empty" if empty else ""
    print(f"{len(sources):,} pairs in {args.output_file}{cut}{nothing}")


def order(args: argparse.Namespace) -> dict:
    """What decides the outputs: two runs that differ in it must not share a file."""
    chosen = ("checkpoint", "train_file", "source_column", "seed", "dtype", *GENERATE_OPTIONS)
    return {name: value for name in chosen if (value := getattr(args, name, None)) is not None}


def begin(partial: Path, wanted: dict, sources: list[str]) -> int:
    """
    Makes a file whose first line says what was asked for, or goes on with one: then a line that was cut off is taken
    away.

    Returns:
        How many sources an earlier run has done.
    """
    whole, newline, _ = partial.read_bytes().rpartition(b"\n") if partial.exists() else (b"", b"", b"")
    if not newline:
        partial.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
        return 0
    first, *rows = whole.split(b"\n")
    if json.loads(first) != wanted:
        raise ArgumentError(f"{partial} was begun with other options, {first.decode()}: give those or remove it")
    for number, row in enumerate(rows):
        if sources[number : number + 1] != [json.loads(row)["source"]]:
            raise ArgumentError(f"{partial} was begun with other data: its source {number + 1} is another; remove it")
    partial.write_bytes(whole + newline)
    return len(rows)


def keep_rows(partial: Path, path: Path) -> None:
    """Takes away the first line, which says what was asked for, and gives the file its name."""
    finished = path.with_name(f"{path.name}.finished")
    with open(partial, encoding="utf-8") as lines, open(finished, "w", encoding="utf-8") as output:
        next(lines)
        output.writelines(lines)
    finished.replace(path)
    partial.unlink()
