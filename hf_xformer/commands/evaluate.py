# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Decodes a test set with a trained checkpoint and prints its metrics as JSON.

  hf-xformer evaluate runs/g2p-quickstart --test_file data/g2p/test.jsonl --metrics per wer
  hf-xformer evaluate CHECKPOINT --test_file test.en test.de --metrics sacrebleu chrf --num_beams 5

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

from ..data.reading import load_rows
from ..decoding.metrics import METRICS, compute_metrics
from ..errors import ArgumentError, one_line_errors
from ..hub.record import shown
from .options import GENERATE_OPTIONS, Parser, add_decoding_options, make_decoder


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("checkpoint", help="folder or Hub name")
    parser.add_argument("--test_file", nargs="+", required=True, help="one data file, or two text files, source first")
    parser.add_argument("--source_column", default="source", help="field of the source (default source)")
    parser.add_argument("--target_column", default="target", help="field of the reference or references")
    parser.add_argument("--metrics", nargs="+", required=True, choices=METRICS, help="one or more of these")
    parser.add_argument("--output_file", type=Path, help="where to write the JSON, beside printing it")
    parser.add_argument("--predictions_file", type=Path, help="JSONL of every source, prediction and reference")
    parser.add_argument("--max_samples", type=int, help="evaluate the first so many rows only")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print a table of N rows spread over the set")
    add_decoding_options(parser)
    with one_line_errors():
        args = parser.parse_args(argv)
        for name in ("batch_size", "max_samples", "num_beams"):
            if getattr(args, name) is not None and getattr(args, name) < 1:
                raise ArgumentError(f"--{name} must be 1 or more, got {getattr(args, name)}")
        for path in (args.output_file, args.predictions_file):
            if path is not None and not path.parent.is_dir():
                raise ArgumentError(f"{path}: there is no folder {path.parent} to write it into")
        rows = load_rows(args.test_file, source_column=args.source_column, target_column=args.target_column)
        sources, references = rows["source"][: args.max_samples], rows["target"][: args.max_samples]
        decoder = make_decoder(args)
        start = time.perf_counter()
        predictions = [best[0].text for best in decoder.decode(sources, progress=True)]
        seconds = time.perf_counter() - start
        results = {
            **{name: rounded(score) for name, score in compute_metrics(args.metrics, predictions, references).items()},
            "metrics": args.metrics,
            "samples": len(sources),
            **({"max_samples": args.max_samples} if args.max_samples else {}),
            "sources_truncated": decoder.truncated,
            "decoding_seconds": round(seconds, 2),
            "decoding": {name: value for name in GENERATE_OPTIONS if (value := getattr(args, name, None)) is not None},
            "checkpoint": shown(args.checkpoint),
            "test_file": list(map(shown, args.test_file)),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
    if args.predictions_file:
        write_predictions(args.predictions_file, sources, predictions, references)
    if args.show:
        print(table(sources, predictions, references, args.show))
    text = json.dumps(results, indent=2, ensure_ascii=False)
    print(text)
    if args.output_file:
        args.output_file.write_text(text + "\n", encoding="utf-8")


def rounded(score: float | str) -> float | str:
    return score if isinstance(score, str) else round(score, 4)


def write_predictions(path: Path, sources: list[str], predictions: list[str], references: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8") as output:
        for source, prediction, texts in zip(sources, predictions, references, strict=True):
            row = {"source": source, "prediction": prediction, "references": texts}
            output.write(json.dumps(row, ensure_ascii=False) + "\n")


def table(sources: list[str], predictions: list[str], references: list[list[str]], count: int) -> str:
    """`count` rows at equal distances: source, prediction, first reference, and whether it matches any of them."""
    step = max(1, len(sources) // count)
    rows = [("source", "prediction", "reference", "")]
    for source, prediction, texts in list(zip(sources, predictions, references, strict=True))[::step][:count]:
        rows.append((source, prediction, texts[0], "right" if prediction in texts else ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows) + "\n"
