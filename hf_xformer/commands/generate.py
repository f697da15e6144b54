# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Decodes text with a trained checkpoint, one source a line.

  hf-xformer generate runs/g2p-quickstart --input words.txt --output pronunciations.txt
  hf-xformer generate runs/g2p-quickstart --num_beams 5 --n_best 3 --scores < words.txt

A source ends at a line feed, or at a carriage return and a line feed; nothing else ends one. Prints one line per
source; with --n_best N, N lines per source, best first, which for beams is by probability per token. With --scores
each line starts with the natural logarithm of the whole text's probability and a tab. A line break inside a text is
counted and printed as \\n, \\r, \\x0b, \\x0c, \\x1c, \\x1d, \\x1e, \\x85, \\u2028 or \\u2029; backslashes and tabs
stay as they are. --format jsonl prints one JSON object per source instead, with the exact text.
"""

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from ..data.formats import check_file, read_lines
from ..decoding.decoder import Decoder, Hypothesis
from ..decoding.tally import Place, Tally
from ..errors import ArgumentError, one_line_errors
from ..files import open_whole
from .options import Parser, add_checkpoint, add_decoding_options, check_output_file, make_decoder, whole_number


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
    parser.add_argument("--format", choices=["text", "jsonl"], default="text", help="output format (default text)")
    parser.add_argument("--n_best", type=whole_number(), default=1, help="hypotheses per source (default 1)")
    parser.add_argument("--scores", action="store_true", help="print each hypothesis's log-probability")
    add_decoding_options(parser)
    args = parser.parse_args(argv)
    check_options(args)
    args.num_return_sequences = args.n_best
    decoder = make_decoder(args)
    check_overlong(decoder, args)
    # Lines in and lines out: the input is never held whole.
    sources = read_lines(args.input or sys.stdin.buffer)
    echoed: list[str] = []
    broken, escaped = Tally(), 0
    try:
        with open_whole(args.output, keep=True) if args.output else nullcontext(sys.stdout) as output:
            decoded = decoder.decode(remember(sources, echoed), progress=True, kind="line")
            for number, hypotheses in enumerate(decoded, 1):
                source = echoed.pop(0)
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
    if broken.count:
        said = f"line breaks in {escaped:,} texts are escaped: {broken} (--format jsonl has them as they are)"
        print(said, file=sys.stderr)


def check_options(args: argparse.Namespace) -> None:
    if args.n_best > (args.num_beams or 1) and not args.do_sample:
        raise ArgumentError(f"--n_best {args.n_best} needs as many --num_beams, or --do_sample")
    check_output_file("--output", args.output, [] if args.input is None else [args.input])
    if args.input is not None:
        # Fails here, and not when the model is loaded.
        check_file(args.input, f"leave out --input and type < {args.input}")


def check_overlong(decoder: Decoder, args: argparse.Namespace) -> None:
    """
    Checks the sources of a file before any of them is decoded, if too long ones are to be refused.

    Raises:
        ArgumentError: There is one.
    """
    if args.overlong != "error":
        return
    if args.input is not None:
        decoder.check_lengths(read_lines(args.input), kind="line")
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
    listed = [{"text": each.text} | ({} if each.score is None else {"score": each.score}) for each in hypotheses]
    return json.dumps({"source": source, "hypotheses": listed}, ensure_ascii=False) + "\n"


def as_line(hypothesis: Hypothesis) -> str:
    """Returns a line, on which a score ends at the first tab; the text may have others."""
    score = "" if hypothesis.score is None else f"{hypothesis.score:.4f}\t"
    return f"{score}{one_line_text(hypothesis.text)}\n"


def one_line_text(text: str) -> str:
    """Returns a text with escapes in place of what any reader takes for the end of a line."""
    return text.translate(ESCAPES)
