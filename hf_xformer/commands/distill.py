# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Writes training data that a model has made: distillation for a smaller model, or back-translation.

  hf-xformer distill runs/teacher --train_file train.jsonl --output_file distilled.jsonl --num_beams 5
  hf-xformer distill runs/teacher --train_file train.de --output_file distilled.jsonl --do_sample --mbr \\
    --num_return_sequences 32
  hf-xformer distill runs/en-de --direction backward --train_file news.en --output_file back.jsonl \\
    --do_sample --top_k 10 --tag '<bt>' --min_score -2

The first two put a teacher's outputs in place of the references (sequence-level knowledge distillation, Kim and Rush
2016): a teacher words things more uniformly than people do, and a small model learns that better. The third one makes
sources for target texts that have none (back-translation, Sennrich et al. 2016), with a model of the other direction:
--train_file has targets, and each row the synthetic source, behind the tag, and the real target.

Rows say which side is synthetic, and by which checkpoint. Texts that the greatest length cut off are left out: a model
that learns from them would end its own too early. Train on the rows with hf-xformer train student.yaml
--train_file distilled.jsonl. If it is stopped, start the same command again: it continues where it was.
"""

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ..checkpoints.loading import load_tokenizer
from ..data.formats import numbered_lines
from ..data.reading import load_rows
from ..data.sources import find_files
from ..data.templates import fields_of, takes_apart
from ..data.text_forms import is_blank
from ..decoding.decoder import Decoder
from ..decoding.hypotheses import Hypothesis
from ..decoding.tally import Place, Tally, shortened
from ..errors import ArgumentError, naming, one_line_errors, say_once
from ..files import write_json_lines, write_text, write_whole
from ..hub.privacy import public_path
from ..training.fingerprint import weights_of
from .options import (
    Parser,
    add_checkpoint,
    add_columns,
    add_comet,
    add_decoding_options,
    add_n_best,
    bad_rows_of,
    check_comet,
    check_n_best,
    check_output_file,
    generate_options,
    length_options,
    make_decoder,
    number,
)


# Sides of a row by the direction: that which is read, and that which the model writes.
SIDES = {"forward": ("source", "target"), "backward": ("target", "source")}
# A text, the mean logarithm of its tokens' probabilities, whether it ended by itself, and its unknown tokens, which
# files of an earlier build lack.
Kept = tuple[str, float | None, bool, int]
KEPT = 512  # texts that may be decoded before any of them is kept; samples follow from the number of the first


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    check_options(args)
    bad_rows, column = bad_rows_of(args), getattr(args, f"{SIDES[args.direction][0]}_column")
    with naming("--train_file"):
        files = find_files(args.train_file, say_once)
        texts = load_rows(files, column, target_column=None, bad_rows=bad_rows)["source"]
    bad_rows.tell(say_once)
    say_tag(args)
    partial = args.output_file.with_name(f"{args.output_file.name}.partial")
    done = count_done(partial, order(args), texts)
    if args.do_sample:  # those that are sampled together are drawn together
        done -= done % KEPT if done < len(texts) else 0
    decoder = make_decoder(args, args.n_best)
    check_n_best(args, decoder.config)
    count_done(partial, order(args), texts)  # one on the Hub may have moved on, and is here now
    decoder.first_window = decoder.read_ahead = KEPT
    decoder.seed = args.seed
    begin(partial, order(args), done)
    if done:
        print(f"{done:,} of {len(texts):,} texts are in {partial} already")
    try:
        decode(decoder, texts, done, partial, args.n_best)
    except KeyboardInterrupt:
        print(f"stopped. Start the same command again, and it continues with {partial}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    written = Written(args)
    write_json_lines(args.output_file, written.rows(read_kept(partial)))
    partial.unlink()
    bad = f"; {bad_rows.total:,} bad rows were left out"
    print(f"{written.pairs:,} pairs in {args.output_file}{bad * bool(bad_rows.total)}")
    for line in written.lines():
        print(line)


def make_parser() -> Parser:
    parser = Parser("distill", __doc__)
    add_checkpoint(parser, "the model that writes: folder or Hub name")
    parser.add_argument(
        "--train_file",
        nargs="+",
        required=True,
        help="tables or a folder of them, as for hf-xformer train, or a text of one source (backward: target) a line",
    )
    add_columns(parser, ratio=False)
    parser.add_argument("--output_file", type=Path, required=True, help="JSONL of source and target")
    parser.add_argument(
        "--direction",
        choices=SIDES,
        default="forward",
        help="forward makes targets of sources, backward sources of targets (default forward)",
    )
    parser.add_argument("--tag", help="token before each synthetic source, such as '<bt>' (backward)")
    parser.add_argument("--student_tokenizer", help="folder or Hub name: looks whether --tag is one of its tokens")
    parser.add_argument(
        "--min_score",
        type=number(most=0),
        help="leave out texts whose tokens are less likely: the least mean of their logarithms, such as -2",
    )
    add_n_best(parser, "texts for each")
    add_decoding_options(parser)
    add_comet(parser)
    return parser


def check_options(args: argparse.Namespace) -> None:
    """
    Checks options before anything is read.

    Raises:
        ArgumentError: They do not go together.
    """
    if args.tag is not None and args.direction == "forward":
        raise ArgumentError("--tag is put before synthetic sources, and those of --direction forward are real")
    if args.tag is not None and (not args.tag.strip() or args.tag.split() != [args.tag]):
        raise ArgumentError(f"--tag {args.tag!r}: give one token, without spaces")
    if args.student_tokenizer is not None and args.tag is None:
        raise ArgumentError("--student_tokenizer is asked for the token of --tag, which is missing")
    if args.direction == "backward" and fields_of(args.target_column):
        raise ArgumentError(
            f"--target_column {args.target_column}: rows would have it in their targets; give the name of a column "
            "and, where the model wants a language, --tgt_lang: a file of each language"
        )
    check_n_best(args)
    check_comet(args)
    check_output_file("--output_file", args.output_file, args.train_file)
    if args.output_file.exists():
        raise ArgumentError(f"--output_file {args.output_file} is there already: remove it or give another")
    args.scores = args.min_score is not None


def say_tag(args: argparse.Namespace) -> None:
    """Says if the tag is not one token of the student's tokenizer."""
    if args.student_tokenizer is None:
        return
    tokenizer = load_tokenizer(args.student_tokenizer, args.trust_remote_code)
    if takes_apart(tokenizer, args.tag):
        tokens = tokenizer.tokenize(args.tag)
        made = f"hf-xformer tokenizer --added_tokens '{args.tag}' makes it one"
        print(f"--tag {args.tag}: {args.student_tokenizer} reads it as {' '.join(tokens)}; {made}", file=sys.stderr)


def order(args: argparse.Namespace) -> dict:
    """Returns the options that decide the outputs: two runs that differ in them must not share a file."""
    chosen = ["checkpoint", "revision", "quantization", "dtype", "train_file", "direction", "source_column"]
    chosen += ["target_column", "on_bad_row", "seed", "n_best"]
    chosen += ["batch_size"] if args.do_sample else []  # those of a batch are sampled together
    chosen += ["comet_model"] if args.mbr == "comet" else []
    allowed = args.allowed and [line for _, line in numbered_lines(args.allowed, "--allowed")]
    content = {"checkpoint": weights_of(args.checkpoint, args.revision), "assistant": weights_of(args.assistant_model)}
    more = {"content": content, "scores": args.min_score is not None, "allowed": allowed}
    return {name: getattr(args, name) for name in chosen} | length_options(args) | generate_options(args) | more


def count_done(partial: Path, wanted: dict, texts: Sequence[str]) -> int:
    """
    Returns how many texts an earlier run has decoded into its file, whose first line has the options.

    Raises:
        ArgumentError: It was begun with other options or other data, or is of something else.
    """
    whole, newline, _ = partial.read_bytes().rpartition(b"\n") if partial.exists() else (b"", b"", b"")
    if not newline:
        return 0
    first, *rows = whole.split(b"\n")
    try:
        begun, done = dict(json.loads(first)), [json.loads(row)["text"] for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"{partial} is not of a distillation: remove it") from error
    if {"content": wanted["content"]} | begun != wanted:  # an earlier build did not write it
        raise ArgumentError(f"{partial} was begun with other options, {first.decode()}: give those or remove it")
    for i, text in enumerate(done):
        if texts[i : i + 1] != [text]:
            raise ArgumentError(f"{partial} was begun with other data: its text {i + 1} is another; remove it")
    return len(done)


def begin(partial: Path, wanted: dict, done: int) -> None:
    """Makes the file whose first line has the options, or takes what is not done from its end."""
    if done == 0:
        write_text(partial, json.dumps(wanted) + "\n")
        return
    kept = b"".join(partial.read_bytes().splitlines(keepends=True)[: done + 1])
    write_whole(partial, lambda unfinished: unfinished.write_bytes(kept))


def decode(decoder: Decoder, texts: Sequence[str], done: int, partial: Path, count: int) -> None:
    """Appends each text that is left with its best hypotheses; what is said in the end is of all texts."""
    left, report = texts[done:], decoder.new_report()
    for i, (text, earlier) in enumerate(islice(read_kept(partial), done), 1):
        if text.strip():
            place = Place(i, text)
            decoder.encode(place, report)
            written = [Hypothesis(text, ended=ended, unknown=sum(lost)) for text, _, ended, *lost in earlier]
            report.see_written(place, written, None, decoder.is_length_asked)
    with open(partial, "a", encoding="utf-8", buffering=1) as output:
        decoded = decoder.decode(left, progress=True, first=done + 1, report=report)
        for text, hypotheses in zip(left, decoded, strict=True):
            kept = [[each.text, each.per_token, each.ended, each.unknown] for each in hypotheses[:count]]
            row = {"text": text, "hypotheses": kept}
            output.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_kept(partial: Path) -> Iterator[tuple[str, list[Kept]]]:
    """Yields each text with its hypotheses."""
    with open(partial, encoding="utf-8") as lines:
        next(lines)  # has the options
        for line in lines:
            row = json.loads(line)
            yield row["text"], row["hypotheses"]


class Written:
    """Makes rows of what was decoded, and counts those that are left out."""

    def __init__(self, args: argparse.Namespace):
        self.direction, self.tag, self.least = args.direction, args.tag, args.min_score
        self.checkpoint, self.pairs = public_path(args.checkpoint), 0
        self.unlikely, self.empty, self.unended, self.repeated = Tally(), Tally(), Tally(), 0

    def rows(self, decoded: Iterator[tuple[str, list[Kept]]]) -> Iterator[dict]:
        """Yields the rows of texts with their hypotheses."""
        real, synthetic = SIDES[self.direction]
        for place, (text, hypotheses) in enumerate(decoded, 1):
            seen: set[str] = set()
            for written, score, ended, *_ in hypotheses:
                if not self.keeps(Place(place, text, real), written, score, ended, seen):
                    continue
                seen.add(written)
                self.pairs += 1
                sides = {real: text, synthetic: f"{self.tag} {written}" if self.tag else written}
                scored = {} if score is None else {"score": round(score, 4)}
                made = {"synthetic": synthetic, "checkpoint": self.checkpoint}
                yield {"source": sides["source"], "target": sides["target"]} | made | scored

    def keeps(self, place: Place, written: str, score: float | None, ended: bool, seen: set[str]) -> bool:
        """Returns whether a text becomes a row, and counts it otherwise."""
        if is_blank(written):
            self.empty.add(place, "is")
        elif not ended:
            self.unended.add(place, f"became {shortened(written)}")
        elif self.least is not None and score is not None and score < self.least:
            self.unlikely.add(place, f"became {shortened(written)} ({score:.2f} a token)")
        elif written in seen:
            self.repeated += 1
        else:
            return True
        return False

    def lines(self) -> list[str]:
        """Returns a line for each reason to leave out texts, with their number and the first one."""
        lines = []
        if count := self.empty.count:
            lines.append(f"left out {count:,} empty text{'s' * (count > 1)}, of {self.empty}")
        if count := self.unended.count:
            texts = f"{count:,} text{'s' * (count > 1)}"
            lines.append(f"left out {texts} cut off at the greatest length, --max_new_tokens, of {self.unended}")
        if count := self.unlikely.count:
            texts = f"{count:,} text{'s' * (count > 1)}"
            lines.append(f"left out {texts} below --min_score {self.least:g}, of {self.unlikely}")
        if count := self.repeated:
            side, are = SIDES[self.direction][0], "texts that are" if count > 1 else "text that is"
            lines.append(f"left out {count:,} {are} another hypothesis too of the same {side}")
        return lines
