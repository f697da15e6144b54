# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Trains the tokenizer of a model on its training data, and shows what it does with them.

  hf-xformer tokenizer --train_file train.de.gz train.en.gz --vocab_size 10000 --output_dir tokenizer
  hf-xformer tokenizer --train_file train.jsonl --model_type symbol --output_dir tokenizer

The first trains one byte-pair vocabulary for both languages, from two parallel text files; the second takes letters
and phonemes from a table, each symbol a token. A vocabulary for each side, from a dataset on the Hub whose sentences
stand inside a column of objects:

  hf-xformer tokenizer --dataset_name opus_books --dataset_config_name de-en --source_column translation.de \\
    --target_column translation.en --model_type unigram --separate --output_dir tokenizer
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from ..data.merges import read_merges, tokenizer_of_merges
from ..data.pairs import first_reference
from ..data.reading import load_named_rows, read_rows
from ..data.round_trips import say_round_trip
from ..data.rows import Row
from ..data.sources import find_files
from ..data.templates import check_target, fields_of, language_fields, tags_of
from ..data.tokenizers import TRAINERS, train_tokenizer
from ..errors import ArgumentError, naming, one_line_errors, say_once
from ..files import TARGET_TOKENIZER, check_output_folder, fill_folder
from .options import (
    Parser,
    add_columns,
    add_one_column,
    add_overwrite,
    bad_rows_of,
    check_one_column,
    columns_of,
    whole_number,
)


# Options by which a tokenizer is trained.
TRAINING_OPTIONS = ("model_type", "vocab_size", "lowercase", "min_frequency")
SAMPLE_ROWS = 10_000
SAMPLE_CHARACTERS = 400

EXPLANATIONS = """\
kinds of tokenizer (--model_type):
  bpe      byte-level byte-pair encoding; no character is ever unknown
  unigram  pieces chosen by likelihood; vocab_size is met exactly
  char     one token a character
  symbol   one token a whitespace-separated symbol (phoneme, tag); an unknown one falls into its characters
"""


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    folders: dict[str | None, Path] = {None: args.output_dir}
    if args.separate:
        folders = {"source": args.output_dir, "target": args.output_dir / TARGET_TOKENIZER}
    check_output(args.output_dir, args.overwrite)

    make = maker(args)
    rows = row_opener(args)
    check_languages(args, rows)
    trained = {side: make(texts_of(rows(), side)) for side in folders}

    def write(new: Path) -> None:
        for side, folder in folders.items():
            trained[side].save_pretrained(new / folder.relative_to(args.output_dir))

    # A target tokenizer of an earlier run would be taken for a part of this one.
    fill_folder(args.output_dir, write, earlier=[TARGET_TOKENIZER])
    for side, folder in folders.items():
        texts = list(texts_of(islice(rows(), SAMPLE_ROWS), side))
        print(f"{folder}: {description(trained[side], texts)}")
        if args.merges is None and args.model_type == "bpe" and len(trained[side]) < args.vocab_size:
            often = f" that occur {args.min_frequency:,} times" if args.min_frequency > 1 else ""
            print(f"{folder}: fewer entries than --vocab_size {args.vocab_size}: the texts have no more merges{often}")
        # Tokens before a text are not part of it, and take the space behind them along.
        bare = [without_first(text, args.added_tokens) for text in texts]
        say_round_trip(str(folder), trained[side], bare, print, target=side != "source")


def maker(args: argparse.Namespace) -> Callable[[Iterable[str]], PreTrainedTokenizerFast]:
    """
    Returns a function that makes a tokenizer of texts as the options say.

    Raises:
        ArgumentError: Merges that are there come with options of training them.
    """
    options = {name: getattr(args, name) for name in TRAINING_OPTIONS}
    ends = {name: getattr(args, name) for name in ("max_length", "added_tokens", "sentinels", "mask_token")}
    if args.merges is None:
        return partial(train_tokenizer, **options, **ends)
    given = [f"--{name}" for name, value in options.items() if value != make_parser().get_default(name)]
    if given:
        raise ArgumentError(f"--merges {args.merges}: nothing is trained, and {' and '.join(given)} would do nothing")
    return partial(tokenizer_of_merges, merges=read_merges(args.merges), **ends)


def make_parser() -> Parser:
    parser = Parser("tokenizer", __doc__, epilog=EXPLANATIONS)
    data = parser.add_argument_group("data")
    where = data.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--train_file",
        nargs="+",
        metavar="FILE",
        help=".jsonl, .json, .csv, .tsv or .parquet files, a folder of them, or two plain-text files, source first; "
        ".gz may follow",
    )
    where.add_argument("--dataset_name", help="a local folder or Hub name for datasets.load_dataset")
    data.add_argument("--dataset_config_name", help="its configuration, if it has several")
    data.add_argument("--train_split", default="train", help="its split (default train)")
    add_columns(data)
    add_one_column(data)

    kind = parser.add_argument_group("tokenizer")
    kind.add_argument("--model_type", choices=list(TRAINERS), default="bpe", help="see below (default bpe)")
    kind.add_argument(
        "--vocab_size",
        type=whole_number(),
        default=8000,
        help="most entries, special and added tokens included (default 8000)",
    )
    kind.add_argument(
        "--merges",
        type=Path,
        help="merges that subword-nmt has learned, its codes, in place of training; for texts that it has cut, joined "
        "again",
    )
    kind.add_argument("--lowercase", action="store_true", help="fold case")
    kind.add_argument(
        "--min_frequency",
        type=whole_number(0),
        default=1,
        help="leave out merges, characters and symbols that occur less often (default 1)",
    )
    kind.add_argument(
        "--max_length", type=whole_number(2), default=2048, help="tokens that truncation leaves (default 2048)"
    )
    add_entries(kind)
    kind.add_argument("--separate", action="store_true", help="one tokenizer for each side, instead of a shared one")

    output = parser.add_argument_group("output")
    output.add_argument(
        "--output_dir",
        type=Path,
        required=True,
        help=f"folder for the tokenizer; with --separate the source's, and the target's in its {TARGET_TOKENIZER}/",
    )
    add_overwrite(output, "replace a tokenizer that is there already")
    return parser


def add_entries(kind: argparse._ActionsContainer) -> None:
    """Adds entries of the vocabulary that are not learnt."""
    kind.add_argument(
        "--added_tokens",
        nargs="+",
        default=[],
        metavar="TOKEN",
        help="tokens that are written into texts, such as '<bt>' before synthetic sources or '<2de>': one entry each",
    )
    kind.add_argument(
        "--sentinels",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="tokens <extra_id_0>, <extra_id_1>, ..., for the objectives span_corruption and ul2: T5 has 100 (default "
        "none)",
    )
    kind.add_argument("--mask_token", action="store_true", help="a token <mask>, for the objective denoising")


def check_output(folder: Path, overwrite: bool) -> None:
    # Other files may be in it: a tokenizer may lie beside its data.
    check_output_folder(folder, "--output_dir")
    for place in (folder, folder / TARGET_TOKENIZER):
        if (place / "tokenizer_config.json").exists() and not overwrite:
            raise ArgumentError(f"--output_dir {place}: already holds a tokenizer; --overwrite replaces it")


def check_languages(args: argparse.Namespace, rows: Callable[[], Iterable[Row]]) -> None:
    """
    Checks that the languages and other tags with which templates have texts begin become tokens.

    Raises:
        ArgumentError: Some are not among those that are to be added; the message has them all.
    """
    columns = columns_of(args)
    for side, column in (("source", columns.source), ("target", columns.target)):
        if column is None or not fields_of(column):
            continue
        if side == "target" and language_fields(column):
            check_target(column)
        texts = (first_reference(row[side]) for row in rows())
        first = sorted(tags_of(column, texts).keys() - set(args.added_tokens))
        if first:
            tokens = " ".join(f"'{token}'" for token in [*args.added_tokens, *first])
            raise ArgumentError(
                f"--{side}_column {column}: make what texts begin with tokens: --added_tokens {tokens}"
            )


def without_first(text: str, tokens: Sequence[str]) -> str:
    """Returns a text without those of the tokens that it begins with."""
    while token := next((each for each in tokens if text.startswith(each)), None):
        text = text[len(token) :].lstrip()
    return text


def row_opener(args: argparse.Namespace) -> Callable[[], Iterable[Row]]:
    """Returns a function that reads the rows from the start: they are read twice and may not fit in memory."""
    check_one_column(args)
    bad_rows, columns = bad_rows_of(args), columns_of(args)
    if args.train_file:
        for option in ("dataset_config_name", "train_split"):
            if (value := getattr(args, option)) != make_parser().get_default(option):
                raise ArgumentError(f"--{option} {value} does nothing with --train_file: it is for --dataset_name")
        with naming("--train_file"):
            files = find_files(args.train_file, say_once)
            for _ in read_rows(files, columns.source, columns.target, bad_rows):  # counted before training begins
                pass
        bad_rows.tell(say_once)
        return lambda: read_rows(files, columns.source, columns.target, bad_rows.fresh())
    name, config = args.dataset_name, args.dataset_config_name
    dataset = load_named_rows(name, config, args.train_split, columns.source, columns.target, bad_rows=bad_rows)
    bad_rows.tell(say_once)
    return lambda: dataset


def texts_of(rows: Iterable[Row], side: str | None) -> Iterator[str]:
    """Yields the texts of one side, "source" or "target", or with None of both; a row may have no target."""
    for row in rows:
        if side != "target":
            yield row["source"]
        if side != "source":
            yield from row.get("target", ())


def description(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> str:
    """Returns the size of the vocabulary, the share of unknown tokens in the texts, and the first text as tokens."""
    sample, total, unknown = "", 0, 0
    for text in texts:
        encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        sample = sample or "|".join(text[start:end] for start, end in encoded["offset_mapping"])
        total += len(encoded["input_ids"])
        unknown += encoded["input_ids"].count(tokenizer.unk_token_id)
    share = 100 * unknown / max(1, total)
    return f"{len(tokenizer)} entries, {share:.2f} % {tokenizer.unk_token}; {sample[:SAMPLE_CHARACTERS]}"
