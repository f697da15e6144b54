# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Decodes text with a trained checkpoint, one source a line.

  hf-xformer generate runs/g2p-quickstart --input words.txt --output pronunciations.txt
  hf-xformer generate runs/g2p-quickstart --num_beams 5 --n_best 3 --scores < words.txt

Prints one line per source; with --n_best N, N lines per source, best first, which for beams is by probability per
token. With --scores each line starts with the natural logarithm of the whole text's probability and a tab. --format
jsonl prints one JSON object per source instead.
"""

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from ..data.formats import check_file, read_lines
from ..decoding.decoder import Hypothesis
from ..errors import ArgumentError, one_line_errors
from ..files import kept_path, open_whole
from .options import Parser, add_checkpoint, add_decoding_options, check_output_file, make_decoder, whole_number


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("generate", __doc__)
    add_checkpoint(parser)
    parser.add_argument("--input", type=Path, help="text file, one source a line; .gz too (default: standard input)")
    parser.add_argument(
        "--output", type=Path, help="file to write, named .partial until it is whole (default: standard output)"
    )
    parser.add_argument("--format", choices=["text", "jsonl"], default="text", help="output format (default text)")
    parser.add_argument("--n_best", type=whole_number(), default=1, help="hypotheses per source (default 1)")
    parser.add_argument("--scores", action="store_true", help="print each hypothesis's log-probability")
    add_decoding_options(parser)
    args = parser.parse_args(argv)
    check_options(args)
    args.num_return_sequences = args.n_best
    decoder = make_decoder(args)
    # Lines in and lines out: the input is never held whole.
    sources = read_lines(args.input or sys.stdin.buffer)
    echoed: list[str] = []
    try:
        with open_whole(args.output, keep=True) if args.output else nullcontext(sys.stdout) as output:
            for hypotheses in decoder.decode(remember(sources, echoed), progress=True):
                output.write(as_text(echoed.pop(0), hypotheses, args))
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    if decoder.truncated:
        print(f"{decoder.truncated} sources were cut to {decoder.max_source_length} tokens", file=sys.stderr)


def check_options(args: argparse.Namespace) -> None:
    if args.n_best > (args.num_beams or 1) and not args.do_sample:
        raise ArgumentError(f"--n_best {args.n_best} needs as many --num_beams, or --do_sample")
    check_output_file("--output", args.output)
    if args.input is not None:
        taken = [] if args.output is None else [args.output.resolve(), kept_path(args.output)]
        if args.input.resolve() in taken:
            raise ArgumentError(f"--output {args.output} would overwrite the input")
        # Fails here, and not when the model is loaded.
        check_file(args.input, f"leave out --input and type < {args.input}")


def remember(sources: Iterator[str], echoed: list[str]) -> Iterator[str]:
    for source in sources:
        echoed.append(source)
        yield source


def as_text(source: str, hypotheses: list[Hypothesis], args: argparse.Namespace) -> str:
    if args.format == "jsonl":
        listed = [{"text": each.text, **({"score": each.score} if args.scores else {})} for each in hypotheses]
        return json.dumps({"source": source, "hypotheses": listed}, ensure_ascii=False) + "\n"
    return "".join(
        f"{each.score or 0.0:.4f}\t{each.text}\n" if args.scores else f"{each.text}\n" for each in hypotheses
    )
