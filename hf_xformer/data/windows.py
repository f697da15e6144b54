# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Whole batches of corpora that are read while training: of streams, of mixtures, of texts that become others each time.

A reader, which is a worker of a process, encodes a window of rows, plans its batches as those of a corpus in memory,
and gives them in random order. Seed, window and reader decide everything, so that a resumed run goes on with the pairs
of an unbroken one, from the window that its checkpoint was in.
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from datasets import IterableDataset

from .batches import Planner, WindowBatch
from .corpora import BLOCK, WHOLE, Corpus, EndlessPairs, Pair, Place, Reader


# A window has so many pairs and fills so many batches, unless a pass has fewer.
PAIRS, BATCHES = 10_000, 100
# Purposes of a window's random numbers.
DRAWING, ENCODING, PLANNING = range(3)


@dataclass(frozen=True)
class Stage:
    """
    Shares of the corpora in the pairs that are drawn, for some steps.

    Args:
        shares: One for each corpus; their sum is 1.
        until_step: The last step; None for the last stage.
    """

    shares: tuple[float, ...] = (1.0,)
    until_step: int | None = None


class Position(NamedTuple):
    """
    Where a reader can go on without making its batches again: at the beginning of a window.

    Args:
        process, worker: The reader.
        window: Number of the window.
        taken: Batches of the reader before it.
        places: How far the reader was in each corpus.
    """

    process: int = 0
    worker: int = 0
    window: int = 0
    taken: int = 0
    places: tuple[Place, ...] = ()

    def numbers(self) -> list[int]:
        """Returns the position as numbers; `of` reads them."""
        return [*self[:4], *(number for place in self.places for number in place)]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "Position":
        """Returns the position that numbers stand for."""
        size = len(Place())
        rest = numbers[4:]
        places = tuple(Place(*rest[start : start + size]) for start in range(0, len(rest), size))
        process, worker, window, taken = numbers[:4]
        return cls(process, worker, window, taken, places)


class Windows(IterableDataset, torch.utils.data.IterableDataset):
    """
    Batches without end, each a list of rows, for a loader that takes one at a time.

    The Trainer counts the batches of a stream from the first one. If it met the end of a pass, it would resume at the
    beginning of one.

    It is a dataset of `datasets`, since Accelerate asks those for the share of each process.

    Args:
        corpora: What is read. A window of one corpus ends with a pass; of several, each has passes of its own.
        planner: [`OfCount`], [`PaddedWithin`] or [`PackedWithin`].
        seed: Seed of everything that is random.
        stages: Which corpora the pairs are drawn from, one stage after another.
        accumulated: Batches of a process that make a step.
        pairs, batches: What a window has, unless a pass has fewer.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        planner: Planner,
        seed: int,
        stages: Sequence[Stage] = (Stage(),),
        accumulated: int = 1,
        pairs: int = PAIRS,
        batches: int = BATCHES,
    ):
        self.corpora, self.planner, self.seed, self.stages = corpora, planner, seed, stages
        self.accumulated, self.pairs, self.batches, self.process = accumulated, pairs, batches, WHOLE
        self.positions: dict[tuple[int, int], Position] = {}  # where readers go on, by process and worker

    @property
    def num_shards(self) -> int:
        """As many as anyone asks for: where rows have no shards, they are shared themselves."""
        return 2**31

    def shard(self, num_shards: int, index: int, contiguous: bool = True) -> "Windows":
        """Returns the share of a process."""
        part = copy(self)
        part.process = Reader(index, num_shards)
        return part

    def set_epoch(self, epoch: int) -> None:
        """Does nothing: there are no epochs."""

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)

    def resume(self, positions: Iterable[Sequence[int]]) -> None:
        """Has the next iteration make no batch again before a position, by those of the last batches of a run."""
        found = map(Position.of, positions)
        self.positions = {(each.process, each.worker): each for each in found}

    def __iter__(self) -> Iterator["WindowBatch"]:
        info = torch.utils.data.get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        start = self.positions.get((self.process.number, worker), Position(self.process.number, worker))
        for _ in range(start.taken):
            yield WindowBatch()  # the Trainer skips them
        reader = Reader(self.process.number * workers + worker, self.process.readers * workers)
        sources = [
            EndlessPairs(corpus, number, self.seed, reader, start.places[number] if start.places else None)
            for number, corpus in enumerate(self.corpora)
        ]
        taken, stage = start.taken, self.stage_of(start.taken * workers + worker)
        windows = (partial(Window, self, sources, reader.number, number) for number in count(start.window))
        window, position = next(windows)(stage), start
        while True:
            window.fill()
            following = next(windows)(stage)
            # A `Place` does not hold pairs that were given back: while there are some, no run could go on from here.
            places = [] if any(source.returned for source in sources) else [source.place for source in sources]
            batches = window.plan()
            for done, batch in enumerate(batches, start=1):
                yield WindowBatch([pair.features() for pair in batch], position.numbers())
                taken += 1
                # A loader takes its workers' batches in turn.
                if (now := self.stage_of(taken * workers + worker)) is not stage:
                    following.give_back(following.pairs)
                    following.give_back([pair for rest in batches[done:] for pair in rest])
                    stage, following, places = now, next(windows)(now), []
                    break
                # The next window is read between the batches of this one, so that nobody waits for a whole one.
                following.fill(len(window.pairs) * done // len(batches))
            window = following
            if places:
                position = Position(self.process.number, worker, window.number, taken, tuple(places))

    def stage_of(self, batch: int) -> Stage:
        """Returns the stage of a process's batch, by its number from 0 on."""
        step = batch // self.accumulated + 1
        return next(each for each in self.stages if each.until_step is None or step <= each.until_step)


class Window:
    """
    Pairs that are planned together.

    Args:
        windows: What it is a window of.
        sources: The reader's share of every corpus.
        reader: The reader's number. The corpora that pairs are drawn from are the same for all.
        number: The window's, of this reader.
    """

    def __init__(self, windows: Windows, sources: Sequence[EndlessPairs], reader: int, number: int, stage: Stage):
        self.windows, self.sources, self.number, self.stage = windows, sources, number, stage
        seed = windows.seed
        self.drawing, self.planning = (np.random.default_rng((seed, number, each)) for each in (DRAWING, PLANNING))
        self.encoding = np.random.default_rng((seed, number, ENCODING, reader))
        self.pairs: list[Pair] = []
        self.tokens = np.zeros(2, dtype=np.int64)  # of source and target
        self.is_full = False

    def fill(self, pairs: int | None = None) -> None:
        """Reads rows until there are so many pairs, or until the window is full."""
        while not self.is_full and (pairs is None or len(self.pairs) < pairs):
            self.read_block()

    def read_block(self) -> None:
        """Reads some pairs, each from a corpus that is drawn for it; of a corpus that is alone, some rows."""
        drawn = self.drawing.choice(len(self.sources), BLOCK, p=self.stage.shares)
        is_alone, ended = len(self.sources) == 1, False
        for source, wanted in zip(self.sources, np.bincount(drawn, minlength=len(self.sources)), strict=True):
            count = int(wanted)
            found = source.take(count, self.encoding, True) if is_alone else source.draw(count, self.encoding)
            self.pairs += found
            self.tokens += np.array([pair.lengths for pair in found], dtype=np.int64).reshape(-1, 2).sum(axis=0)
            ended = is_alone and source.has_ended
        count = len(self.pairs)
        is_large = (
            count >= self.windows.pairs
            and self.windows.planner.about(count, self.tokens.max()) >= self.windows.batches
        )
        self.is_full = is_large or (ended and count > 0)

    def plan(self) -> list[list[Pair]]:
        """Returns the batches, in random order."""
        lengths = np.array([pair.lengths for pair in self.pairs])
        batches = self.windows.planner(lengths, self.planning)
        order = self.planning.permutation(len(batches))
        return [[self.pairs[place] for place in batches[number]] for number in order]

    def give_back(self, pairs: Sequence[Pair]) -> None:
        """Gives pairs that were not trained on back to their corpora."""
        for number, source in enumerate(self.sources):
            source.give_back([pair for pair in pairs if pair.corpus == number])
