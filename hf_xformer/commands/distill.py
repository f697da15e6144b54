# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Writes a training set for a smaller or faster model, with a teacher's outputs in place of the references.

  hf-xformer distill runs/teacher --train_file train.jsonl --output_file distilled.jsonl --num_beams 5
  hf-xformer distill runs/teacher --train_file train.de --output_file distilled.jsonl --num_beams 5

Then train the student with hf-xformer train student.yaml --train_file distilled.jsonl. This is sequence-level
knowledge distillation (Kim and Rush 2016): a teacher's beam search words things more uniformly than people do, and a
small model learns that better. If it is stopped, start the same command again: it continues where it was.
"""

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ..data.bad_rows import say_once
from ..data.reading import load_rows
from ..data.sources import find_files
from ..decoding.decoder import Decoder
from ..errors import ArgumentError, one_line_errors
from ..files import open_whole, write_text, write_whole
from .options import (
    Parser,
    add_checkpoint,
    add_columns,
    add_decoding_options,
    bad_rows_of,
    check_output_file,
    generate_options,
    length_options,
    make_decoder,
)


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("distill", __doc__)
    add_checkpoint(parser, "the teacher: folder or Hub name")
    parser.add_argument(
        "--train_file",
        nargs="+",
        required=True,
        help="tables or a folder of them, as for hf-xformer train, or a text of one source a line",
    )
    add_columns(parser, target=False)
    parser.add_argument("--output_file", type=Path, required=True, help="JSONL of source and target")
    add_decoding_options(parser)
    args = parser.parse_args(argv)
    if args.do_sample:
        raise ArgumentError("--do_sample: a run that continues would draw anew; distillation decodes with beams")
    check_output_file("--output_file", args.output_file, args.train_file)
    if args.output_file.exists():
        raise ArgumentError(f"--output_file {args.output_file} is there already: remove it or give another")
    bad_rows, files = bad_rows_of(args), find_files(args.train_file, say_once)
    sources = load_rows(files, args.source_column, target_column=None, bad_rows=bad_rows)["source"]
    bad_rows.tell(say_once)
    partial = args.output_file.with_name(f"{args.output_file.name}.partial")
    done = count_done(partial, order(args), sources)
    decoder = make_decoder(args)
    decoder.read_ahead = 512  # so many may be decoded before any of them is kept
    begin(partial, order(args), done)
    if done:
        print(f"{done:,} of {len(sources):,} sources are in {partial} already")
    try:
        empty = decode(decoder, sources, done, partial)
    except KeyboardInterrupt:
        print(f"stopped. Start the same command again, and it continues with {partial}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    keep_rows(partial, args.output_file)
    nothing = f"; {empty:,} targets are empty"
    bad = f"; {bad_rows.total:,} bad rows were left out"
    said = nothing * bool(empty) + bad * bool(bad_rows.total)
    print(f"{len(sources):,} pairs in {args.output_file}{said}")


def order(args: argparse.Namespace) -> dict:
    """Returns the options that decide the outputs: two runs that differ in them must not share a file."""
    chosen = ("checkpoint", "train_file", "source_column", "on_bad_row", "seed", "dtype")
    return {name: getattr(args, name) for name in chosen} | length_options(args) | generate_options(args)


def count_done(partial: Path, wanted: dict, sources: Sequence[str]) -> int:
    """
    Returns how many sources an earlier run has decoded into its file, whose first line has the options.

    Raises:
        ArgumentError: It was begun with other options or other data, or is of something else.
    """
    whole, newline, _ = partial.read_bytes().rpartition(b"\n") if partial.exists() else (b"", b"", b"")
    if not newline:
        return 0
    first, *rows = whole.split(b"\n")
    try:
        begun, done = json.loads(first), [json.loads(row)["source"] for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"{partial} is not of a distillation: remove it") from error
    if begun != wanted:
        raise ArgumentError(f"{partial} was begun with other options, {first.decode()}: give those or remove it")
    for number, source in enumerate(done):
        if sources[number : number + 1] != [source]:
            raise ArgumentError(f"{partial} was begun with other data: its source {number + 1} is another; remove it")
    return len(done)


def begin(partial: Path, wanted: dict, done: int) -> None:
    """Makes the file whose first line has the options, or takes a line that was cut off from its end."""
    if done == 0:
        write_text(partial, json.dumps(wanted) + "\n")
        return
    whole = partial.read_bytes().rpartition(b"\n")[0]
    write_whole(partial, lambda unfinished: unfinished.write_bytes(whole + b"\n"))


def decode(decoder: Decoder, sources: Sequence[str], done: int, partial: Path) -> int:
    """Appends each source that is left with its best hypothesis; returns how many of these are empty."""
    empty, left = 0, sources[done:]
    with open(partial, "a", encoding="utf-8", buffering=1) as output:
        for source, (best, *_) in zip(left, decoder.decode(left, progress=True, first=done + 1), strict=True):
            output.write(json.dumps({"source": source, "target": best.text}, ensure_ascii=False) + "\n")
            empty += not best.text
    return empty


def keep_rows(partial: Path, path: Path) -> None:
    """Gives the rows their file, without the first line, which has the options."""
    with open(partial, encoding="utf-8") as lines, open_whole(path) as output:
        next(lines)
        shutil.copyfileobj(lines, output)
    partial.unlink()
