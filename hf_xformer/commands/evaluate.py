# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Decodes a test set with a trained checkpoint and prints its metrics as JSON.

  hf-xformer evaluate runs/g2p-quickstart --test_file data/g2p/test.jsonl --metrics per wer
  hf-xformer evaluate runs/de-en --test_file test.de test.en --metrics sacrebleu chrf --num_beams 5

Metrics: sacrebleu and chrf with their signatures, exact_match, wer (rows that match no reference) and per (edit
distance over whitespace-separated symbols to the nearest reference), all in percent.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from ..data.bad_rows import say_once
from ..data.reading import load_rows
from ..data.sources import find_files
from ..decoding.decoder import Decoder
from ..decoding.metrics import METRICS, compute_metrics
from ..errors import one_line_errors
from ..files import write_json, write_json_lines
from ..hub.privacy import shown
from .options import (
    Parser,
    add_checkpoint,
    add_columns,
    add_decoding_options,
    bad_rows_of,
    check_output_file,
    generate_options,
    make_decoder,
    whole_number,
)


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    check_output_file("--output_file", args.output_file)
    check_output_file("--predictions_file", args.predictions_file)
    bad_rows, files = bad_rows_of(args), find_files(args.test_file, say_once)
    rows = load_rows(files, args.source_column, args.target_column, bad_rows=bad_rows)
    bad_rows.say(say_once)
    sources, references = rows["source"][: args.max_samples], rows["target"][: args.max_samples]
    decoder = make_decoder(args)
    start = time.perf_counter()
    predictions = [best[0].text for best in decoder.decode(sources, progress=True)]
    seconds = time.perf_counter() - start
    scores = compute_metrics(args.metrics, predictions, references)
    results = {name: rounded(score) for name, score in scores.items()} | circumstances(args, decoder, sources, seconds)
    results |= bad_rows.left_out()
    if args.predictions_file:
        compared = zip(sources, predictions, references, strict=True)
        names = ("source", "prediction", "references")
        write_json_lines(args.predictions_file, (dict(zip(names, each, strict=True)) for each in compared))
    if args.show:
        print(table(sources, predictions, references, args.show))
    print(json.dumps(results, indent=2, ensure_ascii=False))
    if args.output_file:
        write_json(args.output_file, results)


def make_parser() -> Parser:
    parser = Parser("evaluate", __doc__)
    add_checkpoint(parser)
    parser.add_argument(
        "--test_file", nargs="+", required=True, help="data files, a folder of them, or two text files, source first"
    )
    add_columns(parser)
    parser.add_argument("--metrics", nargs="+", required=True, choices=METRICS, help="one or more of these")
    parser.add_argument("--output_file", type=Path, help="file for the JSON, which is printed too")
    parser.add_argument("--predictions_file", type=Path, help="JSONL of every source, prediction and reference")
    parser.add_argument("--max_samples", type=whole_number(), help="evaluate the first rows only, this many")
    parser.add_argument(
        "--show", type=whole_number(0), default=0, metavar="N", help="print a table of N rows spread over the set"
    )
    add_decoding_options(parser)
    return parser


def circumstances(args: argparse.Namespace, decoder: Decoder, sources: Sequence[str], seconds: float) -> dict:
    """Returns what has to be known to compare or to repeat the scores."""
    return {
        "metrics": args.metrics,
        "samples": len(sources),
        **({"max_samples": args.max_samples} if args.max_samples else {}),
        "sources_truncated": decoder.truncated,
        "decoding_seconds": round(seconds, 2),
        "decoding": generate_options(args),
        "checkpoint": shown(args.checkpoint),
        "test_file": list(map(shown, args.test_file)),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def rounded(score: float | str) -> float | str:
    return score if isinstance(score, str) else round(score, 4)


def table(sources: list[str], predictions: list[str], references: list[list[str]], count: int) -> str:
    """
    Returns `count` rows at equal distances as lines: source, prediction, first reference, and "right" if the
    prediction is one of the references.
    """
    step = max(1, len(sources) // count)
    rows = [("source", "prediction", "reference", "")]
    for source, prediction, texts in list(zip(sources, predictions, references, strict=True))[::step][:count]:
        rows.append((source, prediction, texts[0], "right" if prediction in texts else ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows) + "\n"
