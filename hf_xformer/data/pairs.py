# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Turns pairs of texts into pairs of token ids, which the Trainer reads."""

from collections.abc import Callable

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from ..errors import DataError
from .reading import expand_references
from .tokenizers import cut


class PairTokenizer:
    """
    Tokenises batches of rows; of several references it takes the first.

    It returns `input_ids`, `attention_mask` and `labels`, their `length` (tokens of the longer side) and whether they
    were `overlong`.

    Args:
        source, target: Tokenizers.
        max_source_length, max_target_length: Tokens to which longer texts are cut, keeping the end token.
    """

    def __init__(
        self,
        source: PreTrainedTokenizerBase,
        target: PreTrainedTokenizerBase,
        max_source_length: int,
        max_target_length: int,
    ):
        self.source, self.target = source, target
        self.max_source_length, self.max_target_length = max_source_length, max_target_length
        self.limits = f"{max_source_length} source or {max_target_length} target tokens"

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        sources = self.source(rows["source"], verbose=False)["input_ids"]
        # Multilingual and Marian tokenizers tokenise targets in another way than sources.
        references = list(map(first_reference, rows["target"]))
        targets = self.target(text_target=references, verbose=False)["input_ids"]
        pairs = list(zip(sources, targets, strict=True))
        input_ids = [cut(ids, self.max_source_length) for ids in sources]
        labels = [cut(ids, self.max_target_length) for ids in targets]
        return {
            "input_ids": input_ids,
            "attention_mask": [[1] * len(ids) for ids in input_ids],
            "labels": labels,
            "length": [max(map(len, pair)) for pair in zip(input_ids, labels, strict=True)],
            "overlong": [len(s) > self.max_source_length or len(t) > self.max_target_length for s, t in pairs],
        }


def first_reference(target: str | list[str]) -> str:
    """Returns the first of several references, or the only one."""
    return target if isinstance(target, str) else target[0]


def prepare_training(
    rows: Dataset | IterableDataset, tokenize: PairTokenizer, overlong: str, workers: int | None, say: Callable
) -> Dataset | IterableDataset:
    """
    Returns one tokenised row for each pair of source and target.

    Args:
        overlong: "truncate" or "drop", for pairs beyond the limits of `tokenize`.
        workers: Processes that tokenise.
        say: Is told how many pairs were overlong.

    Raises:
        DataError: No pair is left.
    """
    rows = expand_references(rows)
    if isinstance(rows, IterableDataset):
        rows = rows.map(tokenize, batched=True, remove_columns=["source", "target"])
        say(f"rows over the length limits are {overlong_verb(overlong)}; a stream cannot be counted beforehand")
        rows = drop_overlong(rows) if overlong == "drop" else rows
        return rows.remove_columns("overlong")
    rows = rows.map(tokenize, batched=True, remove_columns=["source", "target"], num_proc=workers, desc="Tokenising")
    count = say_overlong(rows, "training pairs", tokenize, overlong, say)
    rows = drop_overlong(rows) if count and overlong == "drop" else rows
    if len(rows) == 0:
        raise DataError(f"no training pair is left: all {count} are longer than {tokenize.limits}")
    return rows.remove_columns("overlong")


def prepare_evaluation(rows: Dataset, tokenize: PairTokenizer, workers: int | None, say: Callable) -> Dataset:
    """Returns one tokenised row for each source, in order; its labels are the first of its references."""
    rows = rows.map(tokenize, batched=True, remove_columns=["source", "target"], num_proc=workers, desc="Tokenising")
    say_overlong(rows, "evaluation rows", tokenize, "truncate", say)
    return rows.remove_columns("overlong")


def say_overlong(rows: Dataset, what: str, tokenize: PairTokenizer, overlong: str, say: Callable) -> int:
    """Counts the overlong rows, says how many there are and what becomes of them, and returns the number."""
    count = int(np.sum(rows.with_format("numpy")["overlong"][:]))
    say(f"{len(rows):,} {what}; {overlong_verb(overlong)}: {count:,} longer than {tokenize.limits}")
    return count


def longest_source(rows: Dataset) -> int:
    """Returns the tokens of the longest source."""
    tables = rows.select_columns("input_ids").with_format("arrow").iter(10_000)
    return max(pc.max(pc.list_value_length(table["input_ids"])).as_py() for table in tables)


def overlong_verb(overlong: str) -> str:
    """Returns the participle for a message."""
    return {"truncate": "truncated", "drop": "dropped"}[overlong]


def drop_overlong(rows: Dataset | IterableDataset) -> Dataset | IterableDataset:
    """Drops the overlong rows."""
    return rows.filter(lambda row: not row["overlong"])
