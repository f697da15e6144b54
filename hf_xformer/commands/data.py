# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Shows what a file of data is, and which options follow from it: bad rows, lengths, unknown tokens, duplicates, overlap.

  hf-xformer data train.jsonl
  hf-xformer data train.de.gz train.en.gz --tokenizer tokenizer --against test.de test.en --plot lengths.png
  hf-xformer data corpus.txt --one_column                      # plain text, of which an objective makes pairs

It reads the file once, as training does, and keeps none of it in memory. Lengths are exact. Duplicates and overlap are
exact for a million and a quarter of a million texts, and estimated from a share of them beyond that, which is said.
Each reference of a row counts as a pair of its own, as in training.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..checkpoints.loading import load_tokenizers
from ..data.advice import (
    SHARED_FOLDER,
    TARGET_FOLDER,
    Option,
    length_limits,
    recipe_options,
    tokenizer_options,
)
from ..data.bad_rows import BadRows
from ..data.duplicates import Overlap
from ..data.pictures import picture_format, plot_lengths
from ..data.reading import good_rows_of
from ..data.report import report_lines
from ..data.rows import Columns, Row
from ..data.sources import find_files
from ..data.statistics import SIDES, Statistics
from ..errors import ArgumentError, DataError, naming, one_line_errors, say_once
from ..files import TARGET_TOKENIZER, write_json, write_text
from .options import (
    Parser,
    add_columns,
    add_one_column,
    add_trust,
    bad_rows_of,
    check_one_column,
    check_output_file,
    columns_of,
    number,
)


BATCH = 1000


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    check_one_column(args)
    check_options(args)
    columns = columns_of(args)
    source = target = None
    if args.tokenizer is not None:
        source, target = load_tokenizers(args.tokenizer, args.target_tokenizer, args.trust_remote_code)
    overlap, other_bad = None, BadRows("skip")  # the test set as it is
    if args.against:
        against = read(args.against, against_columns(args), other_bad, "--against")
        overlap = Overlap(against, one_column=args.one_column)
    statistics = Statistics(source, target, overlap, args.one_column)
    bad = bad_rows_of(args, "skip")
    rows = read(args.file, columns, bad)
    while batch := list(islice(rows, BATCH)):
        statistics.add(batch)

    follow = recipe_options(statistics, bad.total, args.coverage, args.max_length_ratio)
    options = [*named_options(args, statistics), *follow]
    report = make_report(args, statistics, options, bad, other_bad)
    if args.plot is not None and statistics.pairs:
        plot_lengths(statistics.sides, length_limits(statistics, args.coverage), args.plot)
    block = "\N{FULL BLOCK}" if "utf" in (sys.stdout.encoding or "").lower() else "#"
    text = "\n".join(report_lines(report, statistics, options, block))
    print(json.dumps(report, indent=2, ensure_ascii=False) if args.format == "json" else text)
    if args.output_file is not None and args.format == "json":
        write_json(args.output_file, report)
    elif args.output_file is not None:
        write_text(args.output_file, text + "\n")


def make_parser() -> Parser:
    parser = Parser("data", __doc__)
    parser.add_argument(
        "file", nargs="+", metavar="FILE", help="data files, a folder of them, or two text files, source first"
    )
    add_columns(parser, policy=False)
    add_one_column(parser)
    parser.add_argument(
        "--against",
        nargs="+",
        metavar="FILE",
        help="a test set, of which FILE should hold nothing: count what it holds",
    )
    for side in SIDES:
        option = f"--against_{side}_column"
        parser.add_argument(option, metavar="NAME", help=f"its {side}s' column (default that of FILE)")
    parser.add_argument("--tokenizer", help="folder or Hub name: count tokens, and characters that it does not know")
    parser.add_argument("--target_tokenizer", help="the target's, if it has its own elsewhere")
    add_trust(parser)
    parser.add_argument(
        "--coverage",
        type=number(above=0, most=100),
        default=99.5,
        help="percent of the texts that the length limits leave whole (default 99.5)",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw histograms of the lengths")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="for people or machines (default text)"
    )
    parser.add_argument("--output_file", type=Path, help="file for what is printed")
    return parser


def check_options(args: argparse.Namespace) -> None:
    for side in SIDES:
        if getattr(args, f"against_{side}_column") is not None and not args.against:
            raise ArgumentError(f"--against_{side}_column does nothing without --against")
    if args.target_tokenizer is not None and args.tokenizer is None:
        raise ArgumentError(f"--target_tokenizer {args.target_tokenizer}: give the source's with --tokenizer too")
    if args.plot is not None:
        picture_format(args.plot)
    inputs = [*args.file, *(args.against or ())]
    check_output_file("--plot", args.plot, inputs)
    check_output_file("--output_file", args.output_file, inputs, outputs=[args.plot])


def against_columns(args: argparse.Namespace) -> Columns:
    """Returns the columns of the test set, which are those of the data unless others are given."""
    columns = columns_of(args)
    source, target = args.against_source_column or columns.source, args.against_target_column or columns.target
    return Columns(source, target, prefix="against_")


def read(files: Sequence[str], columns: Columns, bad: BadRows, option: str = "") -> Iterator[Row]:
    """
    Yields rows, and shows meanwhile how many.

    Args:
        option: The one that names the files, for messages; empty for an argument without a name.

    Raises:
        DataError: There are none, not even bad ones, which this verb shows; or all lack a column.
    """
    with naming(option):
        rows = good_rows_of(find_files(files, say_once), columns, bad)
        yield from tqdm(rows, desc=f"Reading {Path(files[0]).name}", unit=" rows", disable=None)
        if bad.remedy():
            raise DataError(bad.refusal(skip=""))
        if bad.rows == 0:
            raise DataError(f"{files[0]}: there are no rows")


def make_report(
    args: argparse.Namespace, statistics: Statistics, options: list[Option], bad: BadRows, other_bad: BadRows
) -> dict[str, Any]:
    """Returns everything as JSON."""
    report = {"files": args.file, **statistics.report(), "bad_rows": bad.record()}
    if statistics.overlap is not None:
        report["against"] = {
            "files": args.against,
            "rows": statistics.overlap.rows,
            "bad_rows": other_bad.record(),
            **statistics.overlap.report(),
        }
    report["recipe"] = {each.name: each.value for each in options}
    report["tokenizers"] = [vars(each) for each in tokenizer_options(statistics)] if statistics.pairs else []
    return report


def named_options(args: argparse.Namespace, statistics: Statistics) -> list[Option]:
    """Returns the options of a recipe that name the data and the tokenizers, given here or yet to be trained."""
    options = [Option("train_file", args.file[0] if len(args.file) == 1 else args.file)]
    for side in SIDES:
        if (column := getattr(args, f"{side}_column")) != side:
            options.append(Option(f"{side}_column", column))
    target = args.target_tokenizer
    if args.tokenizer is None and statistics.pairs and len(tokenizer_options(statistics)) > 1:
        target = f"{TARGET_FOLDER}/{TARGET_TOKENIZER}"
    options.append(Option("tokenizer_name", args.tokenizer or SHARED_FOLDER))
    return options if target is None else [*options, Option("target_tokenizer_name", target)]
