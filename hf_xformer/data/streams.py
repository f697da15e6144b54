# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Streams: training pairs that are read while training, pass after pass."""

from collections.abc import Iterator
from itertools import count

import numpy as np
from datasets import IterableDataset


class EndlessStream(IterableDataset):
    """
    Passes over a stream without end, each in an order of its own, which depends on seed and pass alone.

    The Trainer counts the batches of a stream from the first one. If it met the end of a pass, it would resume at the
    beginning of one.

    Args:
        rows: The stream; its shards are shared among processes and workers.
        seed: Seed of the shuffling.
        buffer_size: Rows in memory that the next one is drawn from.
    """

    def __init__(self, rows: IterableDataset, seed: int, buffer_size: int):
        self.__dict__.update(vars(rows))
        self.rows, self.seed, self.buffer_size = rows, seed, buffer_size

    def __iter__(self) -> Iterator[dict]:
        for number in count():
            random, is_empty = np.random.default_rng((self.seed, number)), True
            for row in self.rows.shuffle(generator=random, buffer_size=self.buffer_size):
                is_empty = False
                yield row
            if is_empty:  # a worker without a shard, or all rows are overlong
                return

    def shard(self, *args, **kwargs) -> "EndlessStream":
        """Returns the stream of one process; Accelerate asks for it where there are enough shards."""
        return EndlessStream(self.rows.shard(*args, **kwargs), self.seed, self.buffer_size)
