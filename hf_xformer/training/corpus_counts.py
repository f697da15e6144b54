# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Pairs and tokens that a run has been trained on, of each of its corpora."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import reduce

from ..data.batches import BY_CORPUS
from .file_checks import is_count
from .launch import tensor_parallel_size


class CorpusCounts:
    """
    Pairs, source and target tokens of each corpus that a run has been trained on, over all its starts.

    Args:
        names: The corpora's; none for a run on one.
        passes: How often each pair stands in a batch.
    """

    def __init__(self, names: Sequence[str] = (), passes: int = 1):
        self.names, self.passes = list(names), passes
        self.counts: torch.Tensor | None = None  # of this process since this start, (corpora, 3)
        self.earlier = [[0, 0, 0] for _ in self.names]
        self.now = self.earlier

    def add(self, batch: dict[str, Any]) -> None:
        """Counts a batch, and takes out of it what only this needs."""
        pairs = batch.pop(BY_CORPUS, None)
        if pairs is None or not self.names:
            return
        of_each = pairs[:, 0] == torch.arange(len(self.names), device=pairs.device)[:, None]  # (corpora, pairs)
        values = torch.cat((torch.ones_like(pairs[:, :1]), pairs[:, 1:]), dim=1)
        counts = (of_each[:, :, None] * values).sum(dim=1)
        self.counts = counts if self.counts is None else self.counts + counts

    def recall(self, saved: Any) -> None:
        """Goes on from the counts that a checkpoint has, if it has any."""
        found = saved if isinstance(saved, dict) else {}
        self.counts = None
        self.earlier = [counts_in(found.get(name)) for name in self.names]
        self.now = self.earlier

    def sum_up(self) -> None:
        """Brings `now` up to date; all processes do it together."""
        if self.counts is not None:
            # Processes of tensor parallelism work on the same pairs.
            counted = (reduce(self.counts, "sum") // (tensor_parallel_size() * self.passes)).tolist()
            together = zip(self.earlier, counted, strict=True)
            self.now = [[before + count for before, count in zip(*rows, strict=True)] for rows in together]

    def record(self) -> dict[str, list[int]]:
        """Returns the counts of each corpus by its name, as a checkpoint has them."""
        return dict(zip(self.names, self.now, strict=True))

    def figures(self, prefix: str = "") -> dict[str, int]:
        """Returns the tokens of each corpus, of both sides together, for a log."""
        return {f"{prefix}tokens_of_{name}": sum(row[1:]) for name, row in self.record().items()}


def counts_in(saved: Any) -> list[int]:
    """Returns a corpus's counts as a checkpoint has them; zeros if they are none."""
    is_whole = isinstance(saved, list) and len(saved) == 3 and all(map(is_count, saved))
    return saved if is_whole else [0, 0, 0]
