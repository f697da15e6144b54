# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Decodes text with a trained checkpoint, one source a line.

  hf-xformer generate runs/g2p-quickstart --input words.txt --output pronunciations.txt
  hf-xformer generate runs/g2p-quickstart --num_beams 5 --n_best 3 --scores < words.txt

A source ends at a line feed, or at a carriage return and a line feed; nothing else ends one. Prints one line per
source; with --n_best N, N lines per source: beams best first by probability per token, candidates of --mbr best first
by their utility, samples as they were drawn. With --scores each line starts with the natural logarithm of the whole
text's probability and a tab. A line break inside a text is counted and printed as \\n, \\r, \\x0b, \\x0c, \\x1c,
\\x1d, \\x1e, \\x85, \\u2028 or \\u2029; backslashes and tabs stay as they are. --format jsonl prints one JSON object
per source instead, with the exact text and the utilities.
"""

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.formats import TABLE_READERS, check_file, format_of, read_lines
from ..decoding.decoder import Decoder
from ..decoding.hypotheses import Hypothesis
from ..decoding.tally import Place, Tally
from ..errors import ArgumentError, naming, one_line_errors
from ..files import open_whole
from .options import (
    Parser,
    add_checkpoint,
    add_comet,
    add_decoding_options,
    add_n_best,
    check_comet,
    check_n_best,
    check_output_file,
    make_decoder,
)


# All that `str.splitlines` splits at.
ESCAPES = {ord(end): repr(end)[1:-1] for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("generate", __doc__)
    add_checkpoint(parser)
    parser.add_argument("--input", type=Path, help="text file, one source a line; .gz too (default: standard input)")
    parser.add_argument(
        "--output", type=Path, help="file to write, named .partial until it is whole (default: standard output)"
    )
    parser.add_argument(
        "--prefix", type=Path, metavar="FILE", help="how each source's text begins, one a line; an empty line for any"
    )
    parser.add_argument(
        "--force_words",
        type=Path,
        metavar="FILE",
        help="words that each source's text must hold, a line for each source, with tabs between words (beams)",
    )
    parser.add_argument("--format", choices=["text", "jsonl"], default="text", help="output format (default text)")
    add_n_best(parser, "hypotheses per source")
    parser.add_argument("--scores", action="store_true", help="print each hypothesis's log-probability")
    add_decoding_options(parser)
    add_comet(parser)
    args = parser.parse_args(argv)
    check_options(args)
    decoder = make_decoder(args, args.n_best)
    check_n_best(args, decoder.config)
    check_overlong(decoder, args)
    # Lines in and lines out: the input is never held whole.
    sources = lines_of(args, "input")
    echoed: list[str] = []
    broken, escaped = Tally(), 0
    try:
        with open_whole(args.output, keep=True) if args.output else nullcontext(sys.stdout) as output:
            decoded = decoder.decode(remember(sources, echoed), progress=True, kind="line", **told(args))
            for number, hypotheses in enumerate(decoded, 1):
                source, hypotheses = echoed.pop(0), hypotheses[: args.n_best]
                if not args.scores:  # beams of --mbr have some all the same
                    hypotheses = [replace(each, score=None) for each in hypotheses]
                if args.format == "jsonl":
                    output.write(as_json(source, hypotheses))
                    output.flush()  # somebody may be waiting for the first
                    continue
                output.writelines(as_line(each) for each in hypotheses)
                output.flush()
                texts = [text for each in hypotheses if (text := one_line_text(each.text)) != each.text]
                escaped += len(texts)
                if texts:
                    broken.add(Place(number, source, "line"), f"is '{texts[0][:40]}'")
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    if args.input is not None and (kind := format_of(args.input)) in TABLE_READERS:
        said = f"{args.input}: the lines of this {kind} file were decoded as they stand"
        print(f"{said}; hf-xformer evaluate decodes the sources of a table", file=sys.stderr)
    if broken.count:
        said = f"line breaks in {escaped:,} texts are escaped: {broken} (--format jsonl has them as they are)"
        print(said, file=sys.stderr)


def check_options(args: argparse.Namespace) -> None:
    check_n_best(args)
    check_comet(args)
    inputs = [path for path in (args.input, args.prefix, args.force_words, args.allowed) if path is not None]
    check_output_file("--output", args.output, inputs)
    if args.input is not None:
        with naming("--input"):  # here, and not when the model is loaded
            check_file(args.input, f"leave it out and type < {args.input}")
    for name in ("prefix", "force_words"):
        if getattr(args, name) is not None:
            check_beside(args, name)


def check_beside(args: argparse.Namespace, name: str) -> None:
    """
    Checks that the file of an option has a line for each source.

    Raises:
        ArgumentError: There are more or fewer.
    """
    path = getattr(args, name)
    with naming(f"--{name}"):
        check_file(path, "give a text file, a line for each source")
    if args.input is None:  # which is compared as it comes
        return
    lines, sources = (sum(1 for _ in lines_of(args, each)) for each in (name, "input"))
    if lines != sources:
        raise ArgumentError(f"--{name} {path} has {lines:,} lines, and --input {args.input} {sources:,}")


def lines_of(args: argparse.Namespace, name: str) -> Iterator[str]:
    """Returns the lines of an option's file, or of the standard input where it was not given."""
    path = getattr(args, name)
    return read_lines(sys.stdin.buffer) if path is None else read_lines(path, f"--{name}")


def told(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what each source's text is told to be."""
    given: dict[str, Any] = {}
    if args.prefix is not None:
        given["prefixes"] = lines_of(args, "prefix")
    if args.force_words is not None:
        lines = lines_of(args, "force_words")
        given["force_words"] = ([word for word in line.split("\t") if word.strip()] for line in lines)
    return given


def check_overlong(decoder: Decoder, args: argparse.Namespace) -> None:
    """
    Checks the sources of a file before any of them is decoded, if too long ones are to be refused.

    Raises:
        ArgumentError: There is one.
    """
    if args.overlong != "error":
        return
    if args.input is not None:
        decoder.check_lengths(lines_of(args, "input"), kind="line")
        return
    print(
        "--overlong error: standard input is read as it comes; what stands before a long line is printed, and --input"
        " is checked first",
        file=sys.stderr,
    )


def remember(sources: Iterator[str], echoed: list[str]) -> Iterator[str]:
    for source in sources:
        echoed.append(source)
        yield source


def as_json(source: str, hypotheses: list[Hypothesis]) -> str:
    named = ({"text": each.text, "score": each.score, "utility": each.utility} for each in hypotheses)
    listed = [{name: value for name, value in each.items() if value is not None} for each in named]
    return json.dumps({"source": source, "hypotheses": listed}, ensure_ascii=False) + "\n"


def as_line(hypothesis: Hypothesis) -> str:
    """Returns a line, on which a score ends at the first tab; the text may have others."""
    score = "" if hypothesis.score is None else f"{hypothesis.score:.4f}\t"
    return f"{score}{one_line_text(hypothesis.text)}\n"


def one_line_text(text: str) -> str:
    """Returns a text with escapes in place of what any reader takes for the end of a line."""
    return text.translate(ESCAPES)
