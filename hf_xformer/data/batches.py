# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Plans which pairs share a batch, and in which order the batches come.

The order depends on seed and epoch alone: all processes agree on it, and a resumed run trains on the same pairs as an
unbroken one.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset


if TYPE_CHECKING:  # packing, which the collators take from here, needs neither `datasets` nor `pyarrow`
    from datasets import Dataset


class ShuffledDataset(TorchDataset):
    """
    A dataset in another order in each epoch.

    The epoch's number is in shared memory: a loader's persistent workers keep the copies that they began with, and
    would go through the first epoch again and again (datasets issue 6673).

    A subclass sets what its `arrange` reads before it calls `super().__init__()`, which arranges the first epoch.
    """

    def __init__(self) -> None:
        self.epoch, self.arranged = torch.zeros((), dtype=torch.int64).share_memory_(), 0
        self.arrange(0)

    def set_epoch(self, epoch: int) -> None:
        """Shuffles for an epoch; Accelerate's data loaders call it when one begins."""
        self.epoch.fill_(int(epoch))
        self.follow()

    def follow(self) -> None:
        """Shuffles anew if another epoch has begun."""
        if (epoch := int(self.epoch)) != self.arranged:
            self.arrange(epoch)
            self.arranged = epoch

    def arrange(self, epoch: int) -> None:
        """Puts the rows into the order of an epoch."""
        raise NotImplementedError


class LengthGroupedDataset(ShuffledDataset):
    """
    A dataset in which every `batch_size` consecutive rows are of similar length, for a sequential sampler.

    The library's length-grouped sampler takes the batches of each window from the longest to the shortest, so that
    every window ends with the shortest rows alone. Here the batches come in random order, another in each epoch.

    Args:
        rows: With a column `length`, in tokens.
        batch_size: Rows that all processes together take at a step.
        seed: Seed of the shuffling.
        window: Batches drawn at random and then sorted by length; more means less padding and less randomness.
    """

    def __init__(self, rows: "Dataset", batch_size: int, seed: int, window: int = 100):
        self.rows, self.batch_size, self.seed, self.window = rows, batch_size, seed, window
        self.lengths = np.asarray(rows["length"][:])
        super().__init__()

    def arrange(self, epoch: int) -> None:
        random = np.random.default_rng((self.seed, epoch))
        shuffled = random.permutation(len(self.rows))
        stretch = self.batch_size * self.window
        stretches = (shuffled[start : start + stretch] for start in range(0, len(shuffled), stretch))
        ordered = np.concatenate([rows[np.argsort(self.lengths[rows], kind="stable")] for rows in stretches])
        # A short last batch stays last: elsewhere it would shift the borders of the batches after it.
        whole = len(ordered) // self.batch_size * self.batch_size
        batches = random.permutation(ordered[:whole].reshape(-1, self.batch_size))
        self.order = np.concatenate((batches.reshape(-1), ordered[whole:]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        self.follow()
        return self.rows[int(self.order[index])]

    def __getitems__(self, indices: list[int]) -> list[dict]:
        self.follow()
        return self.rows.__getitems__(self.order[indices].tolist())


Batches = list[np.ndarray]  # the numbers of each one's rows
FILLER = -1  # number of a row that only fills a batch up
FOR_COLLATOR = ("input_ids", "attention_mask", "labels")
CORPUS = "corpus"  # number of a pair's corpus, in a row of `Windows`
BY_CORPUS, POSITION = "by_corpus", "position"  # in a batch of them, see `BatchCollator`


class Planner(Protocol):
    """Distributes rows over batches."""

    varies: ClassVar[bool]  # whether the number of batches depends on the shuffling

    def __call__(self, lengths: np.ndarray, random: np.random.Generator) -> Batches:
        """Returns batches with every row once; `lengths` are tokens of source and target, (rows, 2)."""

    def about(self, rows: int, tokens: int) -> float:
        """Returns how many batches so many rows fill, or so many tokens of one side."""


class BatchedDataset(ShuffledDataset):
    """
    A dataset of whole batches, each a list of rows, for a loader that takes one at a time in order.

    Every epoch has every row once, in other batches and another order. All epochs have the same number of batches, a
    multiple of the number of processes if there are enough rows, because the Trainer would otherwise count its steps
    wrongly or give processes rows twice. For that some batches are cut in two.

    Args:
        rows: With the columns `input_ids` and `labels`.
        planner: [`OfCount`], [`PaddedWithin`] or [`PackedWithin`].
        seed: Seed of the shuffling.
        processes: Number of processes that share the batches.
    """

    def __init__(self, rows: "Dataset", planner: Planner, seed: int, processes: int = 1):
        self.rows, self.planner, self.seed = rows, planner, seed
        self.lengths = np.stack([list_lengths(rows, name) for name in ("input_ids", "labels")], axis=1)
        self.first = self.plan(0)
        # Other epochs may need a few batches more.
        reserve = len(self.first) // 50 + (len(self.first) > 1)
        wanted = len(self.first) + planner.varies * reserve
        self.count = min(-(-wanted // processes) * processes, len(rows))
        super().__init__()

    def plan(self, epoch: int) -> Batches:
        """Returns an epoch's batches, before they are brought to their number and shuffled."""
        return self.planner(self.lengths, np.random.default_rng((self.seed, epoch)))

    def arrange(self, epoch: int) -> None:
        batches = self.plan(epoch) if epoch else self.first
        if len(batches) > self.count:
            batches = self.first
        batches = divide(batches, self.count)
        order = np.random.default_rng((self.seed, epoch, 1)).permutation(len(batches))
        self.batches = [batches[i] for i in order]

    def average_tokens(self) -> np.ndarray:
        """Returns the average number of source and of target tokens in a batch, (2,)."""
        return self.lengths.sum(axis=0) / self.count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[dict]:
        self.follow()
        return self.rows.__getitems__(self.batches[index].tolist())


class EvaluationBatch(list):
    """Rows of an evaluation set, by whose type a collator knows them."""


class WindowBatch(list):
    """
    Rows of a batch of `Windows`; none of a batch that is only to be skipped.

    Args:
        position: Numbers of the position from which it can be made again.
    """

    def __init__(self, rows: Iterable[dict] = (), position: Sequence[int] = ()):
        super().__init__(rows)
        self.position = position


class EvaluationBatches(TorchDataset):
    """
    One or several evaluation sets in batches of like length, the longest of each set first, for a loader that takes
    one at a time in order. No batch has rows of two sets.

    Processes gather their predictions, so the batches that they work on together have equally many rows: the last ones
    are filled up with rows without labels. `places` says where the prediction of each row is.

    Args:
        rows: With the columns `input_ids` and `labels`.
        size: Most rows of a batch; None for no limit.
        max_tokens: Most tokens of a batch on each side, padding included; a row that has more is one alone.
        processes: Number of processes that share the batches.
        sets: Number of rows of each set, by its name; they follow one another. None is a single one without a name.
    """

    def __init__(
        self,
        rows: "Dataset",
        size: int | None,
        max_tokens: int | None = None,
        processes: int = 1,
        sets: dict[str, int] | None = None,
    ):
        self.rows = rows.select_columns([name for name in FOR_COLLATOR if name in rows.column_names])
        self.sets: dict[str, slice] = {}
        self.set_of_step: list[int] = []  # number of the set that all processes work on at a step
        self.batches: Batches = []
        longest, start = np.maximum(list_lengths(rows, "input_ids"), list_lengths(rows, "labels")), 0
        for number, (name, count) in enumerate((sets or {"": len(rows)}).items()):
            self.sets[name] = part = slice(start, start + count)
            batches = self.plan(longest[part], size, max_tokens, processes)
            self.batches += [np.where(batch == FILLER, FILLER, batch + start) for batch in batches]
            self.set_of_step += [number] * (len(batches) // processes)
            start += count
        predicted = np.concatenate(self.batches)
        self.places = np.empty(len(rows), dtype=np.int64)
        self.places[predicted[predicted != FILLER]] = np.flatnonzero(predicted != FILLER)

    def plan(self, longest: np.ndarray, size: int | None, max_tokens: int | None, processes: int) -> Batches:
        """Returns the batches of a set whose rows have so many tokens on their longer side."""
        order, batches, start = np.argsort(-longest, kind="stable"), [], 0
        while start < len(order):
            most = len(order) if size is None else size
            if max_tokens is not None:
                most = min(most, max(1, max_tokens // int(longest[order[start]])))
            together = order[start : start + most * processes]
            share = -(-len(together) // processes)
            filled = np.full(share * processes, FILLER)
            filled[: len(together)] = together
            batches += np.split(filled, processes)
            start += len(together)
        return batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> EvaluationBatch:
        numbers = self.batches[index]
        found = self.rows.__getitems__(np.maximum(numbers, 0).tolist())
        return EvaluationBatch(
            {**row, "labels": [-100] * len(row["labels"])} if number == FILLER else row
            for number, row in zip(numbers, found, strict=True)
        )


def list_lengths(rows: "Dataset", column: str) -> np.ndarray:
    """Returns the number of tokens in every row, counted in the Arrow table without copying."""
    import pyarrow.compute

    table = rows.with_format("arrow").select_columns(column)[:]
    return pyarrow.compute.list_value_length(table.column(column)).to_numpy().astype(np.int64)


def divide(batches: Batches, count: int) -> Batches:
    """Cuts the largest batch in two until there are `count`; of equally large ones the last, in order of size."""
    batches = sorted(batches, key=len)
    # A half comes before all batches of its size: the later it was made, the earlier it stands.
    heap = [(-len(batch), -place, batch) for place, batch in enumerate(batches)]
    heapq.heapify(heap)
    for half in range(1, 2 * (count - len(batches)), 2):
        _, _, largest = heapq.heappop(heap)
        first, second = np.array_split(largest, 2)
        heapq.heappush(heap, (-len(first), half, first))
        heapq.heappush(heap, (-len(second), half + 1, second))
    return [batch for *_, batch in sorted(heap, key=lambda entry: entry[:2], reverse=True)]


@dataclass(frozen=True)
class OfCount:
    """Plans batches of `size` rows, at random or `grouped` by their lengths."""

    size: int
    grouped: bool = False
    varies: ClassVar[bool] = False

    def __call__(self, lengths: np.ndarray, random: np.random.Generator) -> Batches:
        rows = random.permutation(len(lengths))
        if self.grouped:
            rows = rows[np.argsort(lengths[rows].max(axis=1), kind="stable")]
        return np.array_split(rows, np.arange(self.size, len(rows), self.size))

    def about(self, rows: int, tokens: int) -> float:
        return rows / self.size


@dataclass(frozen=True)
class PaddedWithin:
    """
    Plans batches of similar lengths with at most `max_tokens` tokens on each side, padding included.

    `window` batches are drawn at random and then sorted by length; more means less padding and less randomness.
    """

    max_tokens: int
    window: int = 100
    varies: ClassVar[bool] = True

    def __call__(self, lengths: np.ndarray, random: np.random.Generator) -> Batches:
        shuffled, batches = random.permutation(len(lengths)), []
        stretch = max(1, int(self.max_tokens * self.window / lengths.max(axis=1).mean()))
        for start in range(0, len(shuffled), stretch):
            rows = shuffled[start : start + stretch]
            rows = rows[np.argsort(lengths[rows].max(axis=1), kind="stable")]
            batches += cut_where_full(rows, lengths[rows], self.max_tokens)
        return batches

    def about(self, rows: int, tokens: int) -> float:
        return tokens / self.max_tokens


@dataclass(frozen=True)
class PackedWithin:
    """Plans batches with at most `max_tokens` tokens on each side, for texts packed one after another."""

    max_tokens: int
    varies: ClassVar[bool] = True

    def __call__(self, lengths: np.ndarray, random: np.random.Generator) -> Batches:
        shuffled = random.permutation(len(lengths))
        return [shuffled[places] for places in best_fit(lengths[shuffled], self.max_tokens)]

    def about(self, rows: int, tokens: int) -> float:
        return tokens / self.max_tokens


def cut_where_full(rows: np.ndarray, lengths: np.ndarray, max_tokens: int) -> Batches:
    """Cuts rows, in their order, into the longest batches that are within `max_tokens` when they are padded."""
    borders, first, longest = [], 0, np.zeros(2, dtype=np.int64)
    for i, pair in enumerate(lengths):
        longest = np.maximum(longest, pair)
        if longest.max() * (i + 1 - first) > max_tokens and i > first:
            borders.append(i)
            first, longest = i, pair
    return np.split(rows, borders)


def best_fit(lengths: np.ndarray, room: int, open_bins: int = 16) -> Batches:
    """
    Distributes pairs over bins: each, in their order, goes where it leaves least room.

    Args:
        lengths: Tokens of source and target, (n, 2).
        room: Tokens that a bin holds on each side; a longer pair gets a bin of its own.
        open_bins: Bins that are filled at a time; before another is opened, the fullest is closed.

    Returns:
        The places of each bin's pairs in `lengths`.
    """
    bins: list[list[int]] = [[]]
    left, done = np.full((1, 2), room), []
    for i, pair in enumerate(lengths):
        after = left - pair
        rest = np.where(after.min(axis=1) >= 0, after.sum(axis=1), np.iinfo(np.int64).max)
        best = int(rest.argmin())
        if rest[best] == np.iinfo(np.int64).max and bins[best]:
            if len(bins) == open_bins:
                fullest = int(left.min(axis=1).argmin())
                done.append(bins.pop(fullest))
                left = np.delete(left, fullest, axis=0)
            best, left = len(bins), np.vstack((left, [[room, room]]))
            bins.append([])
        bins[best].append(i)
        left[best] -= pair
    return [np.array(each) for each in (*done, *bins) if each]
