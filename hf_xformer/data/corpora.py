# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Corpora that are read pass after pass while training, by several readers that share their rows."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from datasets import Dataset, IterableDataset

from ..errors import DataError
from .batches import CORPUS


Rows: TypeAlias = dict[str, list]  # columns, each with an item for every row
Encode: TypeAlias = Callable[[Rows, np.random.Generator], Rows]
BLOCK = 250  # rows that are read at once
FIRST = 4  # rows by which it is seen how many pairs a row gives
ORDER = 3  # purpose of a pass's random numbers; those of a window are for others


@dataclass(frozen=True)
class Corpus:
    """
    Rows to train on.

    Args:
        rows: In memory, where every pass has an order of its own, or a stream, in its own order.
        encode: Makes the columns `input_ids` and `labels` of those of the rows, of as many pairs as it likes, with a
            generator of random numbers, in every pass anew. None if the rows have these columns.
        name: In messages.
    """

    rows: Dataset | IterableDataset
    encode: Encode | None = None
    name: str = "the training set"


class Place(NamedTuple):
    """
    A reader's progress in a corpus.

    Args:
        number: Passes that have ended.
        first: Place of the reader's first row in this one.
        taken: Rows that it has taken of this one.
        longest_pass: Most that it has taken of a pass.
        ahead: Pairs that it has given too early: the next draws take fewer.
    """

    number: int = 0
    first: int = 0
    taken: int = 0
    longest_pass: int = 0
    ahead: int = 0


@dataclass(frozen=True)
class Reader:
    """A process, or a worker of one; all of them share the rows of every corpus."""

    number: int = 0
    readers: int = 1


WHOLE = Reader()


class Pair:
    """Token ids of a source and a target, four bytes each, and the number of their corpus."""

    __slots__ = ("corpus", "labels", "source")

    def __init__(self, source: list[int], labels: list[int], corpus: int):
        self.source, self.labels = np.asarray(source, dtype=np.int32), np.asarray(labels, dtype=np.int32)
        self.corpus = corpus

    @property
    def lengths(self) -> tuple[int, int]:
        return len(self.source), len(self.labels)

    def features(self) -> dict[str, Any]:
        """Returns the pair as collators take it."""
        return {"input_ids": self.source.tolist(), "labels": self.labels.tolist(), CORPUS: self.corpus}


class EndlessPairs:
    """
    A reader's share of a corpus, encoded, pass after pass without end.

    The rows of all passes, one pass behind the other, are dealt out to the readers in turn: none is left out, and none
    comes twice in a pass. A stream with equally many shards for every reader is shared by shards instead, so that
    nobody reads what is another's; each reader then has passes of its own.

    Args:
        number: The corpus's, by which its pairs are known.
        seed: Decides with the numbers of pass and corpus the order of one in memory, and of a stream's shards.
        place: Where to go on; None to begin.
    """

    def __init__(self, corpus: Corpus, number: int, seed: int, reader: Reader, place: Place | None = None):
        self.number, self.seed, self.reader = number, seed, reader
        rows = corpus.rows
        if isinstance(rows, Dataset) and corpus.encode is None:
            rows = rows.select_columns(["input_ids", "labels"])
        self.corpus = replace(corpus, rows=rows)
        self.has_own_shards = isinstance(rows, IterableDataset) and rows.num_shards % reader.readers == 0
        self.place = place or Place(first=0 if self.has_own_shards else reader.number)
        self.rows = self.passes()
        self.returned: deque[Pair] = deque()
        self.fruitless = 0  # rows one after another that gave no pair
        self.has_ended = False  # whether the rows that were taken last end with a pass

    def take(self, wanted: int, random: np.random.Generator, within_pass: bool = False) -> list[Pair]:
        """
        Returns the pairs of the next rows, returned ones first.

        Args:
            wanted: How many rows.
            within_pass: Whether to end with the pass; then there may be no row left.

        Raises:
            DataError: The corpus has no rows, or none of them gives a pair.
        """
        pairs = [self.returned.popleft() for _ in range(min(wanted, len(self.returned)))]
        rows: list[dict] = []
        self.has_ended = False
        while len(pairs) + len(rows) < wanted and not self.has_ended:
            row = next(self.rows)
            if row is not None:
                rows.append(row)
            else:
                self.has_ended = within_pass
        encoded = self.encode(rows, random) if rows else []
        self.fruitless = 0 if encoded else self.fruitless + len(rows)
        if self.fruitless > self.place.longest_pass > 0:
            raise DataError(f"{self.corpus.name}: no training pair is left of all {self.place.longest_pass:,} rows")
        return pairs + encoded

    def draw(self, wanted: int, random: np.random.Generator) -> list[Pair]:
        """
        Returns as many pairs as were drawn, of however many rows it takes. Those of the last rows may be more, and
        then the next draws have fewer: so a corpus has its share of the pairs, whether its rows give many or none.

        Raises:
            DataError: As `take`.
        """
        missing, rows = wanted - self.place.ahead, 0
        found: list[Pair] = []
        while len(found) < missing:
            short = missing - len(found)
            # As many rows as it takes if they go on to give so many pairs.
            more = math.ceil(short * rows / len(found)) if found else max(min(short, FIRST), rows)
            found += self.take(min(more, BLOCK), random)
            rows += min(more, BLOCK)
        self.place = Place(*self.place[:-1], ahead=len(found) - missing)
        return found

    def give_back(self, pairs: list[Pair]) -> None:
        """Takes back pairs that were not used; they are the next ones."""
        self.returned.extendleft(reversed(pairs))
        self.place = Place(*self.place[:-1], ahead=0)

    def encode(self, rows: list[dict], random: np.random.Generator) -> list[Pair]:
        """Returns the pairs of rows."""
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        if self.corpus.encode is not None:
            columns = self.corpus.encode(columns, random)
        sides = zip(columns["input_ids"], columns["labels"], strict=True)
        return [Pair(source, labels, self.number) for source, labels in sides]

    def passes(self) -> Iterator[dict | None]:
        """Yields the reader's rows, and None at the end of every pass; raises DataError if there are none."""
        readers = 1 if self.has_own_shards else self.reader.readers
        empty, skipped = 0, self.place.taken
        while True:
            begin = self.place
            first, found = begin.first, 0
            for size, columns_of in self.blocks(np.random.default_rng((self.seed, begin.number, ORDER, self.number))):
                mine = columns_of(slice(first, None, readers))
                first = (first - size) % readers
                for values in zip(*mine.values(), strict=True):
                    found += 1
                    if found > skipped:
                        self.place = Place(begin.number, begin.first, found, begin.longest_pass, self.place.ahead)
                        yield dict(zip(mine, values, strict=True))
            self.place = Place(begin.number + 1, first, 0, max(begin.longest_pass, found), self.place.ahead)
            skipped = 0
            # Where there are fewer rows than readers, some have none in a pass.
            empty = 0 if found else empty + 1
            if empty > self.reader.readers:
                raise DataError(f"{self.corpus.name}: there are no rows")
            yield None

    def blocks(self, random: np.random.Generator) -> Iterator[tuple[int, Callable[[slice], Rows]]]:
        """Yields the blocks of a pass: how many rows there are, and what returns those of a slice."""
        rows = self.corpus.rows
        if isinstance(rows, Dataset):
            order, size = random.permutation(len(rows)), BLOCK * self.reader.readers
            for start in range(0, len(order), size):
                places = order[start : start + size]
                yield len(places), partial(rows_at, rows, places)
            return
        for shard in random.permutation(rows.num_shards).tolist():
            if self.has_own_shards and shard % self.reader.readers != self.reader.number:
                continue
            # In blocks, since a dataset that is iterated by rows shares its shards among a loader's workers again.
            for columns in rows.shard(rows.num_shards, shard).iter(BLOCK):
                yield len(next(iter(columns.values()))), partial(part_of, columns)


def rows_at(rows: Dataset, places: np.ndarray, mine: slice) -> Rows:
    """Returns those of the rows at some places that are in a slice of them."""
    return rows[places[mine].tolist()]


def part_of(columns: Rows, mine: slice) -> Rows:
    """Returns the rows of a slice."""
    return {name: values[mine] for name, values in columns.items()}
