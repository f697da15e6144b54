# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Batches of like length: every row once, little padding, an order that only seed and epoch decide."""

import numpy as np
import pytest
from datasets import Dataset

from hf_xformer.batching import LengthGroupedDataset


ROWS, BATCH = 1003, 10


@pytest.fixture
def rows() -> Dataset:
    lengths = np.random.default_rng(0).integers(3, 30, size=ROWS)
    return Dataset.from_dict({"row": range(ROWS), "length": lengths})


def order(dataset: LengthGroupedDataset, epoch: int) -> list[int]:
    dataset.set_epoch(epoch)
    return [dataset[i]["row"] for i in range(len(dataset))]


def test_every_epoch_has_every_row_once_in_another_order(rows):
    dataset = LengthGroupedDataset(rows, BATCH, seed=1)
    first, second = order(dataset, 0), order(dataset, 1)
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert first != second


def test_the_order_depends_on_seed_and_epoch_alone(rows):
    one, other = LengthGroupedDataset(rows, BATCH, seed=1), LengthGroupedDataset(rows, BATCH, seed=1)
    order(one, 5)
    assert order(one, 2) == order(other, 2)
    assert order(one, 2) != order(LengthGroupedDataset(rows, BATCH, seed=2), 2)


def test_batches_are_of_like_length_and_do_not_run_from_long_to_short(rows):
    dataset = LengthGroupedDataset(rows, BATCH, seed=1)
    lengths = np.array([dataset[i]["length"] for i in range(ROWS // BATCH * BATCH)]).reshape(-1, BATCH)
    padding = 1 - lengths.sum() / (lengths.max(axis=1) * BATCH).sum()
    assert padding < 0.05
    longest = lengths.max(axis=1)
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


def test_rows_fetched_together_are_the_rows_fetched_one_by_one(rows):
    dataset = LengthGroupedDataset(rows, BATCH, seed=1)
    assert dataset.__getitems__([4, 1000, 7]) == [dataset[4], dataset[1000], dataset[7]]
