# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Which rows share a batch."""

import numpy as np
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset


class LengthGroupedDataset(TorchDataset):
    """
    A dataset in an order of which every consecutive `batch_size` rows are of like length, for a sequential sampler.

    The library's own length-grouped sampler visits the batches of each stretch from the longest to the shortest, so
    that every stretch ends by training on the shortest rows alone. Here the batches come in random order, another in
    each epoch. The order depends on the seed and the epoch only: every process agrees on it, and a resumed run meets
    the rows that the unbroken one would have met.

    Args:
        rows: With a column `length`, in tokens.
        batch_size: Rows that all processes together take at a step.
        seed: Of the shuffling.
        window: So many batches are drawn at random before they are sorted; more means less padding, less randomness.
    """

    def __init__(self, rows: Dataset, batch_size: int, seed: int, window: int = 100):
        self.rows, self.batch_size, self.seed, self.window = rows, batch_size, seed, window
        self.lengths = np.asarray(rows["length"][:])
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Accelerate's data loaders call this at the start of every epoch."""
        random = np.random.default_rng((self.seed, int(epoch)))
        shuffled = random.permutation(len(self.rows))
        stretch = self.batch_size * self.window
        stretches = (shuffled[start : start + stretch] for start in range(0, len(shuffled), stretch))
        ordered = np.concatenate([rows[np.argsort(self.lengths[rows], kind="stable")] for rows in stretches])
        # A short last batch stays last: anywhere else it would shift the borders of all that follow.
        whole = len(ordered) // self.batch_size * self.batch_size
        batches = random.permutation(ordered[:whole].reshape(-1, self.batch_size))
        self.order = np.concatenate((batches.reshape(-1), ordered[whole:]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return self.rows[int(self.order[index])]

    def __getitems__(self, indices: list[int]) -> list[dict]:
        return self.rows.__getitems__(self.order[indices].tolist())
