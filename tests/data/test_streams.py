# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Streams: passes without end, each with every row once, in orders that depend on seed and pass alone."""

from itertools import islice

from datasets import Dataset
from torch.utils.data import DataLoader

from hf_xformer.data.streams import EndlessStream


ROWS = 23


def stream(shards: int = 1, seed: int = 0) -> EndlessStream:
    rows = Dataset.from_dict({"number": range(ROWS)}).to_iterable_dataset(num_shards=shards)
    return EndlessStream(rows.map(lambda row: {"number": row["number"]}), seed, buffer_size=1000)


def numbers(rows, count: int) -> list[int]:
    return [row["number"] for row in islice(rows, count)]


def test_every_pass_has_every_row_once_in_an_order_of_its_own():
    read = numbers(stream(), 3 * ROWS)
    passes = [read[start : start + ROWS] for start in range(0, 3 * ROWS, ROWS)]
    assert all(sorted(each) == list(range(ROWS)) for each in passes)
    assert len(set(map(tuple, passes))) == 3


def test_the_order_depends_on_the_seed_and_on_nothing_else():
    same = stream()
    same.set_epoch(1)
    assert numbers(same, 50) == numbers(stream(), 50) != numbers(stream(seed=1), 50)


def test_processes_and_workers_share_the_shards_over_all_passes():
    parts = [numbers(stream(4).shard(num_shards=2, index=index), 2 * ROWS) for index in range(2)]
    assert set(parts[0]).isdisjoint(parts[1]) and set(parts[0]) | set(parts[1]) == set(range(ROWS))
    loader = DataLoader(stream(2), batch_size=None, num_workers=2)
    assert set(numbers(loader, 3 * ROWS)) == set(range(ROWS))


def test_a_worker_without_a_shard_ends_and_so_does_a_stream_without_rows():
    assert len(numbers(DataLoader(stream(1), batch_size=None, num_workers=2), 2 * ROWS)) == 2 * ROWS
    rows = Dataset.from_dict({"number": range(ROWS)}).to_iterable_dataset().filter(lambda row: False)
    assert list(EndlessStream(rows, 0, 10)) == []
