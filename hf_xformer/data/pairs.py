# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Turns pairs of texts into pairs of token ids, which the Trainer reads."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import compress, islice

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from ..errors import DataError
from .encoding import SpeltOut, TextEncoder, special_names, title_of
from .round_trips import say_round_trip
from .row_datasets import expand_references
from .templates import TAG, check_tokens, fields_of, language_fields, takes_apart


# Targets of the training set that are encoded and decoded to see what comes back, and how many of a stream.
SAMPLE, STREAM_SAMPLE = 1000, 100
TAGS = re.compile(rf"(?:(?:{TAG})\s*)+")  # with which a text begins, such as "<bt> <2de>"
SAID = 3  # tags that are said
# Columns that say something of a row, and are not for the model.
NOTES = ["overlong", "spelt_out"]


class PairTokenizer:
    """
    Tokenises batches of rows; of several references it takes the first.

    It returns `input_ids`, `attention_mask` and `labels`, their `length` (tokens of the longer side), whether they
    were `overlong`, and how special tokens that they spell out were taken (`spelt_out`).

    Args:
        source, target: Tokenizers.
        max_source_length, max_target_length: Tokens to which the tokenizers truncate longer texts.
        prefix: Text that is put before each source.
    """

    def __init__(
        self,
        source: PreTrainedTokenizerBase,
        target: PreTrainedTokenizerBase,
        max_source_length: int,
        max_target_length: int,
        prefix: str = "",
    ):
        self.source, self.target, self.prefix = source, target, prefix
        self.encode_source = TextEncoder(source, max_source_length)
        self.encode_target = TextEncoder(target, max_target_length, target=True)
        self.limits = f"{max_source_length} source or {max_target_length} target tokens"

    def with_prefix(self, prefix: str) -> "PairTokenizer":
        """Returns one that puts another text before each source."""
        changed = copy(self)
        changed.prefix = prefix
        return changed

    @property
    def why_tokens(self) -> str:
        """Reason for which special tokens that a text spells out are read as tokens, for a message."""
        if self.encode_source.is_read or self.encode_target.is_read:
            return "read as tokens, as --special_tokens_in_text read says"
        return "read as tokens, and never generated as text: the tokenizer cannot take them as text"

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        sources = self.encode_source([self.prefix + text for text in rows["source"]])
        targets = self.encode_target(list(map(first_reference, rows["target"])))
        pairs = list(zip(sources, targets, strict=True))
        return {
            "input_ids": [source.ids for source in sources],
            "attention_mask": [[1] * len(source.ids) for source in sources],
            "labels": [target.ids for target in targets],
            "length": [max(len(source.ids), len(target.ids)) for source, target in pairs],
            "overlong": [source.overlong or target.overlong for source, target in pairs],
            "spelt_out": [int(max(source.spelt_out, target.spelt_out)) for source, target in pairs],
        }


def first_reference(target: str | list[str]) -> str:
    """Returns the first of several references, or the only one."""
    return target if isinstance(target, str) else target[0]


@dataclass(frozen=True)
class PairEncoder:
    """
    Makes pairs of token ids of the rows of a stream; the simplest of what a [`Corpus`] may be encoded by.

    Args:
        overlong: "truncate" or "drop", for pairs beyond the limits of `tokenize`.
    """

    tokenize: PairTokenizer
    overlong: str

    def __call__(self, rows: dict[str, list], random: np.random.Generator) -> dict[str, list]:
        """Returns `input_ids` and `labels`, always the same of the same rows."""
        del random
        found = self.tokenize(rows)
        kept = [self.overlong == "truncate" or not overlong for overlong in found["overlong"]]
        return {side: list(compress(found[side], kept)) for side in ("input_ids", "labels")}


def template_of_texts(column: str, prefix: str) -> str:
    """Returns the template of texts that stand in a column, and have a text put before them."""
    literal = prefix.replace("{", "{{").replace("}", "}}")
    return literal + (column if fields_of(column) else "{text}")


def check_languages(
    rows: Dataset | IterableDataset, columns: tuple[str, str | None], tokenize: PairTokenizer, title: str
) -> None:
    """
    Checks that the languages which templates put before the texts, of a stream the first, are tokens.

    Args:
        columns: That of the sources and that of the targets, which an objective does without.
    """
    for side, column in zip(("source", "target"), columns, strict=True):
        if column is not None and language_fields(column):
            some = rows.take(STREAM_SAMPLE) if isinstance(rows, IterableDataset) else rows.select_columns(side)
            prefix = tokenize.prefix if side == "source" else ""
            texts = (prefix + first_reference(row[side]) for row in some)
            check_tokens(texts, template_of_texts(column, prefix), getattr(tokenize, side), title)


def say_split_tags(rows: Dataset | IterableDataset, tokenize: PairTokenizer, say: Callable) -> None:
    """Says which tags before sources, such as `<bt>`, are not tokens; of a stream the first rows are looked at."""
    if isinstance(rows, Dataset):
        tables = rows.select_columns("source").with_format("arrow").iter(10_000)
        sources = (text for table in tables for text in table["source"].to_pylist())
    else:
        sources = (row["source"] for row in rows.take(STREAM_SAMPLE))
    begun = (TAGS.match(tokenize.prefix + text) for text in sources)
    counts = Counter(tag for found in begun if found is not None for tag in set(re.findall(TAG, found[0])))
    tokenizer, known = tokenize.source, special_names(tokenize.source)
    split = [tag for tag, _ in counts.most_common() if tag not in known and takes_apart(tokenizer, tag)]
    for tag in split[:SAID]:
        begin = f"{counts[tag]:,} sources begin" if counts[tag] > 1 else "1 source begins"
        say(
            f"{begin} with {tag}, which {title_of(tokenizer, 'source')} takes apart, "
            f"{' '.join(tokenizer.tokenize(tag))}: hf-xformer tokenizer --added_tokens '{tag}' makes it one token"
        )


def prepare_training(
    rows: Dataset, tokenize: PairTokenizer, overlong: str, workers: int | None, say: Callable
) -> Dataset:
    """
    Returns one tokenised row for each pair of source and target.

    Args:
        overlong: "truncate" or "drop", for pairs beyond the limits of `tokenize`.
        workers: Processes that tokenise.
        say: Is told how many pairs were overlong.

    Raises:
        DataError: No pair is left.
    """
    texts = expand_references(rows)
    rows = texts.map(tokenize, batched=True, remove_columns=["source", "target"], num_proc=workers, desc="Tokenising")
    say_spelt_out(noted(rows, "spelt_out"), texts, "training pairs", tokenize, say)
    say_changed_targets(texts.select(range(0, len(texts), max(1, len(texts) // SAMPLE))), tokenize, say)
    count = say_overlong(rows, "training pairs", tokenize, overlong, say)
    rows = rows.filter(lambda row: not row["overlong"]) if count and overlong == "drop" else rows
    if len(rows) == 0:
        raise DataError(f"no training pair is left: all {count} are longer than {tokenize.limits}")
    return rows.remove_columns(NOTES)


def prepare_stream(
    rows: Dataset | IterableDataset, tokenize: PairTokenizer, overlong: str, say: Callable
) -> Dataset | IterableDataset:
    """Returns one row of texts for each pair to read while training; only the first are looked at beforehand."""
    texts = expand_references(rows)
    sample = list(islice(texts, STREAM_SAMPLE))
    taken = tokenize({side: [text[side] for text in sample] for side in ("source", "target")})["spelt_out"]
    say_spelt_out(taken, sample, f"of the first {len(sample):,} training pairs", tokenize, say)
    say_changed_targets(sample, tokenize, say)
    verb = overlong_verb(overlong)
    say(f"rows over the length limits are {verb}; they are read while training, and not counted beforehand")
    return texts


def prepare_evaluation(rows: Dataset, tokenize: PairTokenizer, workers: int | None, say: Callable) -> Dataset:
    """Returns one tokenised row for each source, in order; its labels are the first of its references."""
    texts = rows
    rows = texts.map(tokenize, batched=True, remove_columns=["source", "target"], num_proc=workers, desc="Tokenising")
    say_spelt_out(noted(rows, "spelt_out"), texts, "evaluation rows", tokenize, say)
    say_overlong(rows, "evaluation rows", tokenize, "truncate", say)
    return rows.remove_columns(NOTES)


def noted(rows: Dataset, note: str) -> np.ndarray:
    """Returns what tokenising noted of every row."""
    return np.asarray(rows.with_format("numpy")[note][:])


def say_overlong(rows: Dataset, what: str, tokenize: PairTokenizer, overlong: str, say: Callable) -> int:
    """Counts the overlong rows, says how many there are and what becomes of them, and returns the number."""
    count = int(np.sum(noted(rows, "overlong")))
    say(f"{len(rows):,} {what}; {overlong_verb(overlong)}: {count:,} longer than {tokenize.limits}")
    return count


def say_spelt_out(
    taken: np.ndarray | Sequence[int],
    texts: Dataset | Sequence[dict],
    what: str,
    tokenize: PairTokenizer,
    say: Callable,
) -> None:
    """
    Says how many rows spell out special tokens, the first of them, and what they were taken for.

    Args:
        taken: How each row's were taken, as `SpeltOut` numbers it.
        texts: The rows.
        what: Name of the rows after their number.
    """
    means = {SpeltOut.AS_TEXT: "taken as text", SpeltOut.AS_TOKENS: tokenize.why_tokens}
    for way, meaning in means.items():
        numbers = np.flatnonzero(np.asarray(taken) == way)
        if len(numbers):
            first = texts[int(numbers[0])]
            pair = f"{first['source'][:60]!r} and {first_reference(first['target'])[:60]!r}"
            say(f"{len(numbers):,} {what} spell out special tokens, which are {meaning}; the first: {pair}")


def say_changed_targets(rows: Iterable[dict], tokenize: PairTokenizer, say: Callable) -> None:
    """Says how many targets come back as others from the tokenizer, if any do."""
    texts = [first_reference(row["target"]) for row in rows]
    say_round_trip(title_of(tokenize.target, "target"), tokenize.target, texts, say)


def longest_source(rows: Dataset) -> int:
    """Returns the tokens of the longest source."""
    tables = rows.select_columns("input_ids").with_format("arrow").iter(10_000)
    return max(pc.max(pc.list_value_length(table["input_ids"])).as_py() for table in tables)


def overlong_verb(overlong: str) -> str:
    """Returns the participle for a message."""
    return {"truncate": "truncated", "drop": "dropped"}[overlong]
