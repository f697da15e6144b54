# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Batches: every row once, little padding, an order that only seed and epoch decide; and how they become tensors."""

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from small_models import make_model
from torch.utils.data import DataLoader

from hf_xformer.data.batches import (
    BatchedDataset,
    EvaluationBatch,
    EvaluationBatches,
    LengthGroupedDataset,
    OfCount,
    PackedWithin,
    PaddedWithin,
    divide,
)
from hf_xformer.data.collators import BatchCollator, DataCollatorForPackedSeq2Seq
from hf_xformer.models import make_packing
from hf_xformer.models.layout_xformer import Layout


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


@pytest.fixture
def pairs() -> Dataset:
    """Rows of token ids, of 3 to 29 and 2 to 39 tokens."""
    random = np.random.default_rng(0)
    sources, targets = random.integers(3, 30, size=ROWS), random.integers(2, 40, size=ROWS)
    return Dataset.from_dict(
        {
            "row": range(ROWS),
            "input_ids": [[4] * length for length in sources],
            "labels": [[5] * length for length in targets],
        }
    )


PLANNERS = {"count": OfCount(20), "padded": PaddedWithin(200), "packed": PackedWithin(200)}
planners = pytest.mark.parametrize("name", PLANNERS)


def batches_of(dataset: BatchedDataset, epoch: int) -> list[list[int]]:
    dataset.set_epoch(epoch)
    return [[row["row"] for row in dataset[i]] for i in range(len(dataset))]


@planners
@pytest.mark.parametrize("processes", [1, 3])
def test_every_epoch_has_every_row_once_in_as_many_batches_a_multiple_of_the_processes(name, processes, pairs):
    dataset = BatchedDataset(pairs, PLANNERS[name], 1, processes)
    epochs = [batches_of(dataset, epoch) for epoch in range(9)]
    assert len({len(batches) for batches in epochs}) == 1 and len(epochs[0]) % processes == 0
    for batches in epochs:
        assert sorted(row for batch in batches for row in batch) == list(range(ROWS))
    # Never the same pairs together as in another epoch.
    assert len({tuple(sorted(map(tuple, map(sorted, batches)))) for batches in epochs}) == 9


@planners
def test_batches_depend_on_seed_and_epoch_alone(name, pairs):
    one, other = (BatchedDataset(pairs, PLANNERS[name], 1) for _ in range(2))
    batches_of(one, 5)
    assert batches_of(one, 2) == batches_of(other, 2)
    assert batches_of(one, 2) != batches_of(BatchedDataset(pairs, PLANNERS[name], 2), 2)


def test_the_workers_that_a_loader_keeps_follow_the_epochs(rows, pairs):
    """Else each of them goes through the first epoch again and again (datasets issue 6673)."""
    grouped, batched = LengthGroupedDataset(rows, BATCH, seed=1), BatchedDataset(pairs, PackedWithin(200), seed=1)
    options = {"num_workers": 2, "persistent_workers": True, "collate_fn": list}
    loaders = DataLoader(grouped, BATCH, **options), DataLoader(batched, None, **options)
    for epoch in range(3):
        here = order(grouped, epoch), [row for batch in batches_of(batched, epoch) for row in batch]
        assert tuple([row["row"] for batch in loader for row in batch] for loader in loaders) == here


@pytest.mark.parametrize(("name", "least"), [("padded", 0.8), ("packed", 0.95)])
def test_no_batch_has_more_tokens_than_it_may_and_most_are_nearly_full(name, least, pairs):
    dataset = BatchedDataset(pairs, PLANNERS[name], 1)
    cost = {
        "padded": lambda lengths: len(lengths) * lengths.max(axis=0),
        "packed": lambda lengths: lengths.sum(axis=0),
    }
    tokens = np.array([cost[name](dataset.lengths[batch]) for batch in dataset.first])
    assert tokens.max() <= 200
    assert tokens.max(axis=1).mean() >= least * 200  # of the side that fills up first


def test_a_row_longer_than_a_batch_has_one_for_itself(pairs):
    for planner in (PaddedWithin(25), PackedWithin(25)):
        batches = BatchedDataset(pairs, planner, 1).first
        assert all(len(batch) == 1 for batch in batches if pairs_longest(pairs, batch) > 25)


def pairs_longest(pairs: Dataset, batch: np.ndarray) -> int:
    return max(len(row[side]) for row in pairs.__getitems__(batch.tolist()) for side in ("input_ids", "labels"))


def test_a_set_smaller_than_its_processes_has_a_batch_a_row(pairs):
    assert len(BatchedDataset(pairs.select(range(3)), PackedWithin(200), 1, processes=8)) == 3


def divide_slowly(batches: list[np.ndarray], count: int) -> list[np.ndarray]:
    """What `divide` does, by a list that is searched from its beginning for every half."""
    batches = sorted(batches, key=len)
    while len(batches) < count:
        largest = batches.pop()
        for half in np.array_split(largest, 2):
            place = np.searchsorted([len(each) for each in batches], len(half))
            batches.insert(int(place), half)
    return batches


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.data())
def test_batches_are_cut_in_two_as_in_a_sorted_list(sizes, data):
    """To the same order, so that runs of one seed keep their batches."""
    batches = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    count = data.draw(st.integers(1, sum(sizes)))
    found, expected = (cut([*batches], count) for cut in (divide, divide_slowly))
    assert [batch.tolist() for batch in found] == [batch.tolist() for batch in expected]


def test_cutting_tens_of_thousands_of_batches_looks_at_each_a_few_times(monkeypatch):
    """Cutting as many again takes as many cuts, and not a search through all batches for each."""
    compared = 0

    class Batch(np.ndarray):
        def __len__(self):
            nonlocal compared
            compared += 1
            return super().__len__()

    for count in (1000, 2000):
        compared = 0
        divide([np.arange(20).view(Batch) for _ in range(count)], 2 * count)
        assert compared < 20 * count


EVALUATIONS = st.tuples(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=30),
    st.one_of(st.none(), st.integers(1, 7)), st.one_of(st.none(), st.integers(1, 40)), st.integers(1, 4),
)  # fmt: skip


@given(EVALUATIONS)
def test_an_evaluation_has_each_row_once_and_processes_as_many_at_a_time(drawn):
    lengths, size, most, processes = drawn
    rows = Dataset.from_dict(
        {
            name: [[i] * pair[side] for i, pair in enumerate(lengths)]
            for side, name in enumerate(("input_ids", "labels"))
        }
    )
    dataset = EvaluationBatches(rows, size, most, processes)
    batches = [dataset[i] for i in range(len(dataset))]
    assert len(batches) % processes == 0
    for start in range(0, len(batches), processes):
        assert len({len(batch) for batch in batches[start : start + processes]}) == 1
    predicted = [row["input_ids"][0] for batch in batches for row in batch]
    assert [predicted[place] for place in dataset.places] == list(range(len(lengths)))
    assert all(len(predicted) > place >= 0 for place in dataset.places)
    labelled = [row["labels"][0] for batch in batches for row in batch if row["labels"][0] != -100]
    assert sorted(labelled) == list(range(len(lengths)))
    for batch in batches:
        longest = max(len(row[name]) for row in batch for name in ("input_ids", "labels"))
        assert size is None or len(batch) <= size
        assert most is None or len(batch) == 1 or longest * len(batch) <= most
    longest = [
        max(len(row[name]) for row in batch for name in ("input_ids", "labels")) for batch in batches[::processes]
    ]
    assert longest == sorted(longest, reverse=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_no_batch_of_an_evaluation_has_rows_of_two_sets(processes):
    rows = Dataset.from_dict({name: [[i] * (1 + i % 4) for i in range(12)] for name in ("input_ids", "labels")})
    dataset = EvaluationBatches(rows, 3, None, processes, {"a": 5, "b": 7})
    batches = [dataset[i] for i in range(len(dataset))]
    assert len(batches) == len(dataset.set_of_step) * processes and dataset.set_of_step == sorted(dataset.set_of_step)
    for number, batch in enumerate(batches):
        part = list(dataset.sets.values())[dataset.set_of_step[number // processes]]
        assert all(row["input_ids"][0] in range(12)[part] for row in batch if row["labels"][0] != -100)
    predicted = [row["input_ids"][0] for batch in batches for row in batch]
    assert [predicted[place] for place in dataset.places] == list(range(12))


class Tokenizer:
    pad_token_id = 0


def make_features(*lengths: tuple[int, int]) -> list[dict]:
    return [
        {"input_ids": [10 * i + 1] * source, "labels": [10 * i + 2] * target}
        for i, (source, target) in enumerate(lengths, start=1)
    ]


def test_the_packed_collator_lays_pairs_behind_one_another():
    batch = DataCollatorForPackedSeq2Seq(Tokenizer())(make_features((2, 1), (1, 3)))
    packing = batch.pop("packing")
    expected = make_packing(batch["segment_ids"], batch["decoder_segment_ids"], batch["labels"])
    assert packing["sizes"] == expected["sizes"] and packing["index"].equal(expected["index"])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[11, 11, 21]],
        "segment_ids": [[1, 1, 2]],
        "labels": [[12, 22, 22, 22]],
        "decoder_segment_ids": [[1, 2, 2, 2]],
    }


def test_the_packed_collator_fills_rows_where_pairs_fit_best():
    features = make_features((6, 2), (2, 7), (4, 4), (3, 1), (1, 3))
    batch = DataCollatorForPackedSeq2Seq(Tokenizer(), row_length=8)(features)
    assert batch["input_ids"].tolist() == [[11] * 6 + [51], [21] * 2 + [41] * 3 + [0] * 2, [31] * 4 + [0] * 3]
    assert batch["labels"].tolist() == [
        [12] * 2 + [52] * 3 + [-100] * 3,
        [22] * 7 + [42],
        [32] * 4 + [-100] * 4,
    ]
    assert (batch["segment_ids"] > 0).equal(batch["input_ids"] != 0)


def test_rows_of_a_fixed_length_are_filled_up_and_a_longer_pair_is_refused():
    collate = DataCollatorForPackedSeq2Seq(Tokenizer(), row_length=9, fixed=True)
    batch = collate(make_features((2, 3), (1, 1)))
    assert not Layout(batch.pop("packing")).is_whole()  # but for a graph
    assert all(tensor.shape == (1, 9) for tensor in batch.values())
    with pytest.raises(ValueError, match="a pair of 4 and 10 tokens does not fit rows of 9"):
        collate(make_features((4, 10)))
    with pytest.raises(ValueError, match="row_length"):
        DataCollatorForPackedSeq2Seq(Tokenizer(), fixed=True)


def test_with_a_model_the_packed_collator_makes_the_decoders_input():
    model, features = make_model(), make_features((1, 2), (1, 1))
    batch = DataCollatorForPackedSeq2Seq(Tokenizer(), model)(features)
    assert batch["decoder_input_ids"].tolist() == [[2, 12, 2]]


def test_the_trainers_collator_knows_a_planned_batch_from_evaluation_rows():
    collate = BatchCollator(lambda pairs: ("training", pairs), lambda pairs: ("evaluation", pairs))
    one, two = make_features((1, 1), (2, 2))
    assert collate([[one], [two]]) == ("training", [one, two])
    assert collate([one, two]) == collate([EvaluationBatch([one, two])]) == ("evaluation", [one, two])
