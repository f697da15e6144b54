# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Decodes text with a trained checkpoint, one source a line.

  hf-xformer generate runs/g2p-quickstart --input words.txt --output pronunciations.txt
  echo K U B E R N E T E S | hf-xformer generate runs/g2p-quickstart --num_beams 5 --n_best 3 --scores

Prints one line a source; with --n_best N, N lines a source, best first, which for beams is by probability a token.
With --scores each line starts with the natural logarithm of the whole text's probability and a tab. --format jsonl
gives one JSON object a source instead.
"""

import argparse
import gzip
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

from ..decoding.decoder import Hypothesis
from ..errors import ArgumentError, one_line_errors
from .options import Parser, add_decoding_options, make_decoder


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("checkpoint", help="folder or Hub name")
    parser.add_argument("--input", type=Path, help="text file, one source a line, .gz too; standard input by default")
    parser.add_argument("--output", type=Path, help="file to write; standard output by default")
    parser.add_argument("--format", choices=["text", "jsonl"], default="text", help="of the output (default text)")
    parser.add_argument("--n_best", type=int, default=1, help="hypotheses a source (default 1)")
    parser.add_argument("--scores", action="store_true", help="print each hypothesis's log-probability")
    add_decoding_options(parser)
    with one_line_errors():
        args = parser.parse_args(argv)
        check_options(args)
        args.num_return_sequences = args.n_best
        decoder = make_decoder(args)
        # Lines in and lines out: the input is never held whole.
        sources = read_lines(args.input)
        echoed: list[str] = []
        with written_whole(args.output) if args.output else nullcontext(sys.stdout) as output:
            for hypotheses in decoder.decode(remember(sources, echoed), progress=True):
                output.write(as_text(echoed.pop(0), hypotheses, args))
    if decoder.truncated:
        print(f"{decoder.truncated} sources were cut to {decoder.max_source_length} tokens", file=sys.stderr)


def check_options(args: argparse.Namespace) -> None:
    for name in ("batch_size", "n_best", "num_beams"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ArgumentError(f"--{name} must be 1 or more, got {getattr(args, name)}")
    if args.n_best > (args.num_beams or 1) and not args.do_sample:
        raise ArgumentError(f"--n_best {args.n_best} needs as many --num_beams, or --do_sample")
    if args.input is not None and args.output is not None and args.input.resolve() == args.output.resolve():
        raise ArgumentError(f"--output {args.output} would overwrite the input")


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """A file that takes its place only when all of it is written: an error leaves an earlier one as it was."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as output:
        yield output
    partial.replace(path)


def read_lines(path: Path | None) -> Iterator[str]:
    """The lines of a file or of standard input, without their ends and without the mark that Windows puts first."""
    try:
        with open_text(path) as lines:
            yield from (line.rstrip("\n") for line in lines)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path or 'standard input'}: {error}") from error


def open_text(path: Path | None) -> TextIO:
    if path is None:
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig")
    return (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig")


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
