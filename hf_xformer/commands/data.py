# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Shows what a file of data is, and which options follow from it: bad rows, lengths, unknown tokens, duplicates, overlap.

  hf-xformer data train.jsonl
  hf-xformer data train.de.gz train.en.gz --tokenizer tokenizer --against test.de test.en --plot lengths.png

It reads the file once, as training does, and keeps none of it in memory. Lengths are exact. Duplicates and overlap are
exact for a million and a quarter of a million texts, and estimated from a share of them beyond that, which is said.
Each reference of a row counts as a pair of its own, as in training.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..checkpoints.loading import load_tokenizers
from ..data.advice import Option, length_limits, recipe_options, tokenizer_options
from ..data.bad_rows import BadRows, say_once
from ..data.duplicates import Overlap
from ..data.pictures import picture_format, plot_lengths
from ..data.reading import good_rows_of
from ..data.rows import Columns, Row
from ..data.sources import find_files
from ..data.statistics import PERCENTILES, SIDES, Lengths, Statistics
from ..errors import ArgumentError, DataError, one_line_errors
from ..files import TARGET_TOKENIZER, write_json, write_text
from .options import Parser, add_columns, add_trust, check_output_file, number


BATCH = 1000
BAR_WIDTH = 30
BARS = 12
# Where the tokenizers are trained that the text suggests.
SHARED_FOLDER, TARGET_FOLDER = "tokenizer", "tokenizer-of-targets"


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    check_options(args)
    source = target = None
    if args.tokenizer is not None:
        source, target = load_tokenizers(args.tokenizer, args.target_tokenizer, args.trust_remote_code)
    overlap, other_bad = None, BadRows("skip", args.max_length_ratio)
    if args.against:
        overlap = Overlap(read(args.against, args, other_bad))
    statistics, bad = Statistics(source, target, overlap), BadRows("skip", args.max_length_ratio)
    rows = read(args.file, args, bad)
    while batch := list(islice(rows, BATCH)):
        statistics.add(batch)

    options = [*named_options(args, statistics), *recipe_options(statistics, bad.total, args.coverage)]
    report = make_report(args, statistics, options, bad, other_bad)
    if args.plot is not None and statistics.pairs:
        plot_lengths(statistics.sides, length_limits(statistics, args.coverage), args.plot)
    text = "\n".join(lines(report, statistics, options))
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
    parser.add_argument(
        "--against",
        nargs="+",
        metavar="FILE",
        help="a test set, of which FILE should hold nothing: count what it holds",
    )
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
    if args.target_tokenizer is not None and args.tokenizer is None:
        raise ArgumentError(f"--target_tokenizer {args.target_tokenizer}: give the source's with --tokenizer too")
    if args.plot is not None:
        picture_format(args.plot)
    inputs = [*args.file, *(args.against or ())]
    check_output_file("--plot", args.plot, inputs)
    check_output_file("--output_file", args.output_file, inputs, outputs=[args.plot])


def read(files: Sequence[str], args: argparse.Namespace, bad: BadRows) -> Iterator[Row]:
    """
    Yields rows, with a bar that counts them.

    Raises:
        DataError: There are none, not even bad ones, which this verb shows; or all lack a column.
    """
    rows = good_rows_of(find_files(files, say_once), Columns(args.source_column, args.target_column), bad)
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


def lines(report: dict[str, Any], statistics: Statistics, options: list[Option]) -> Iterator[str]:
    """Yields the report for people."""
    for name, text in facts(report):
        yield f"{name:12}{text}" if name else f"  {text}"
    if not statistics.pairs:
        return
    yield ""
    yield from length_table(statistics)
    yield from bars(statistics)
    yield ""
    yield "# Options of a recipe that follow"
    yield from map(yaml_line, options)
    if "max_source_length" not in report["recipe"]:
        yield "# max_source_length, max_target_length and max_tokens: known with --tokenizer"
    if "tokens" not in statistics.sides["source"].lengths:
        yield ""
        yield "# A tokenizer for these texts"
        yield from tokenizer_commands(report)


def facts(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields lines with their topics; those without one are examples of the line before."""
    several = report["rows_with_several_references"]
    more = f"; {report['pairs']:,} pairs, for {several:,} rows have several references" if several else ""
    yield "rows", f"{report['rows']:,}{more}"
    yield from bad_facts("bad rows", report["bad_rows"])
    if not report["pairs"]:
        return
    yield from duplicate_facts(report["duplicates"], report["pairs"])
    if "against" in report:
        yield from overlap_facts(report["against"])
    for side in SIDES:
        if unknown := report[side].get("unknown_tokens"):
            text = f"{unknown['count']:,} of the {side}s' tokens ({unknown['percent']:g} %)"
            where = f", in {unknown['texts']:,} texts: {listed(unknown['most_frequent'])}"
            yield "unknown", text + (where if unknown["count"] else "")
    for each in report["unusual"]:
        yield "unusual", f"{each['count']:,} {each['kind']}, first {each['example']}"


def bad_facts(topic: str, bad: dict[str, Any]) -> Iterator[tuple[str, str]]:
    reasons = f": {listed(bad['reasons'])}" if bad["reasons"] else ""
    yield topic, f"{sum(bad['reasons'].values()):,} of {bad['rows']:,}{reasons}"
    for example in bad["examples"]:
        yield "", example


def duplicate_facts(duplicates: dict[str, Any], pairs: int) -> Iterator[tuple[str, str]]:
    about = estimate(duplicates)
    repeated, several = duplicates["repeated_pairs"], duplicates["sources_with_several_targets"]
    first = f", first {duplicates['repeated_pair_example']}" if repeated else ""
    yield "duplicates", f"{repeated:,} of {pairs:,} pairs repeat an earlier one{about}{first}"
    first = f", first {duplicates['several_targets_example']}" if several else ""
    yield "", f"{several:,} sources have several targets{about}{first}"


def overlap_facts(against: dict[str, Any]) -> Iterator[tuple[str, str]]:
    names = " ".join(against["files"])
    yield "against", f"{names}: {against['rows']:,} rows; what stands in both, counted in pairs:"
    yield from bad_facts("bad there", against["bad_rows"]) if against["bad_rows"]["reasons"] else ()
    for kind in ("pairs", "sources", "targets"):
        each = against[kind]
        first = f", first {each['example']}" if each["example"] else ""
        both = f"{share(each['there'], each['of_there'])} there, {share(each['here'], each['of_here'])} here"
        yield "", f"{kind:8} {both}{estimate(each)}{first}"


def estimate(counted: dict[str, Any]) -> str:
    part = counted["estimated_from"]
    return "" if part == 1 else f" (estimated from 1 in {1 / part:,.0f})"


def share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({100 * count / max(1, total):.2f} %)"


def listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def length_table(statistics: Statistics) -> Iterator[str]:
    heads = ["mean", *(f"{percent:g} %" for percent in PERCENTILES), "longest"]
    yield f"{'lengths':20}" + "".join(f"{head:>9}" for head in heads)
    for side in SIDES:
        for unit, each in statistics.sides[side].lengths.items():
            values = [f"{each.mean:,.1f}", *(f"{each.percentile(p):,}" for p in PERCENTILES), f"{each.largest:,}"]
            yield f"{side + ' ' + unit:20}" + "".join(f"{value:>9}" for value in values)
    ratios = statistics.ratios
    tenths = [ratios.mean, *map(ratios.percentile, PERCENTILES), ratios.largest]
    yield f"{'longer : shorter':20}" + "".join(f"{each / 10:>9,.1f}" for each in tenths)


def bars(statistics: Statistics) -> Iterator[str]:
    """Yields histograms of both sides, in tokens or else in characters."""
    full = "\N{FULL BLOCK}" if "utf" in (sys.stdout.encoding or "").lower() else "#"
    for side in SIDES:
        unit, lengths = [*statistics.sides[side].lengths.items()][-1]
        if unit == "words":
            unit, lengths = "characters", statistics.sides[side].lengths["characters"]
        yield f"\n{side}s by {unit}"
        yield from histogram(lengths, full)


def histogram(lengths: Lengths, full: str) -> Iterator[str]:
    bins = lengths.bins(BARS)
    names = [f"{first:,}" if first == last else f"{first:,} to {last:,}" for first, last, _ in bins]
    most = max(count for *_, count in bins)
    for name, (*_, count) in zip(names, bins, strict=True):
        bar = full * round(BAR_WIDTH * count / most)
        yield f"{name:>{max(map(len, names))}}  {bar}{' ' * bool(bar)}{count:,}"


def yaml_line(option: Option) -> str:
    value = option.value
    text = f"{option.name}: {value if is_plain(value) else json.dumps(value, ensure_ascii=False)}"
    return f"{text}  # {option.why}" if option.why else text


def is_plain(value: Any) -> bool:
    """Returns whether YAML reads a text as that text without quotes."""
    word = isinstance(value, str) and re.fullmatch(r"[A-Za-z_./~][\w./-]*", value)
    return bool(word) and value.lower() not in ("true", "false", "null", "yes", "no", "on", "off", "y", "n", "~", ".")


def tokenizer_commands(report: dict[str, Any]) -> Iterator[str]:
    """Yields the commands that train the tokenizer, or one for each side."""
    data = ["--train_file", *map(shlex.quote, report["files"])]
    for side in SIDES:
        if (column := report["recipe"].get(f"{side}_column")) is not None:
            data += [f"--{side}_column", shlex.quote(column)]
    for each in report["tokenizers"]:
        kind = ["--model_type", each["model_type"], "--vocab_size", str(each["vocab_size"])]
        own = [] if len(each["sides"]) > 1 else ["--separate"]
        folder = SHARED_FOLDER if "source" in each["sides"] else TARGET_FOLDER
        yield " ".join(["hf-xformer tokenizer", *data, *kind, *own, "--output_dir", folder, f" # {each['why']}"])
