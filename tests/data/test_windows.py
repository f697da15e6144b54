# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Windows of streams and mixtures: every row once in a pass, whoever reads it, in batches as those in memory."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from datasets import Dataset
from torch.utils.data import DataLoader

from hf_xformer.data.batches import BatchedDataset, OfCount, PackedWithin, PaddedWithin
from hf_xformer.data.corpora import Corpus, EndlessPairs, Reader, Rows
from hf_xformer.data.windows import Stage, Windows
from hf_xformer.errors import DataError


ROWS = 1003
PLANNERS = {
    "count": OfCount(8),
    "grouped": OfCount(8, grouped=True),
    "padded": PaddedWithin(200),
    "packed": PackedWithin(200),
}


def encode(rows: Rows, random: np.random.Generator) -> Rows:
    """Two tokens that spell the number of a row, and as many more as it says."""
    return {
        "input_ids": [[number // 1000, number % 1000] for number in rows["number"]],
        "labels": [[5] * length for length in rows["length"]],
    }


def texts(count: int = ROWS, first: int = 0) -> Dataset:
    lengths = np.random.default_rng(0).integers(2, 40, size=count)
    return Dataset.from_dict({"number": range(first, first + count), "length": lengths})


def streamed(count: int = ROWS, shards: int = 1, first: int = 0) -> Corpus:
    return Corpus(texts(count, first).to_iterable_dataset(num_shards=shards), encode)


def encoded(count: int = ROWS, first: int = 0) -> Corpus:
    rows = texts(count, first).map(lambda rows: encode(rows, np.random.default_rng()), batched=True)
    return Corpus(rows.select_columns(["input_ids", "labels"]))


CORPORA = {"streamed": streamed, "in memory": encoded}


def windows(corpus: Corpus, planner=PLANNERS["packed"], seed: int = 0, **more) -> Windows:
    return Windows([corpus], planner, seed, **{"pairs": 200, "batches": 5, **more})


def numbers_in(batch: list[dict]) -> list[int]:
    return [1000 * pair["input_ids"][0] + pair["input_ids"][1] for pair in batch]


def read(batches, rows: int) -> list[int]:
    """Returns the numbers of the first rows, to the end of a batch."""
    found: list[int] = []
    for batch in batches:
        found += numbers_in(batch)
        if len(found) >= rows:
            break
    return found


@pytest.mark.parametrize("planner", PLANNERS.values(), ids=PLANNERS)
@pytest.mark.parametrize("corpus", CORPORA.values(), ids=CORPORA)
def test_every_pass_has_every_row_once_in_an_order_of_its_own(corpus, planner):
    read_rows = read(windows(corpus(), planner), 3 * ROWS)
    passes = [read_rows[start : start + ROWS] for start in range(0, 3 * ROWS, ROWS)]
    assert all(sorted(each) == list(range(ROWS)) for each in passes)
    assert len(set(map(tuple, passes))) == 3


@pytest.mark.parametrize("corpus", CORPORA.values(), ids=CORPORA)
def test_the_order_depends_on_the_seed_and_on_nothing_else(corpus):
    same = windows(corpus())
    same.set_epoch(1)
    batches = [list(islice(each, 40)) for each in (same, windows(corpus()), windows(corpus(), seed=1))]
    assert batches[0] == batches[1] != batches[2]


READERS = {"fewer shards than readers": 1, "as many": 4, "no multiple": 6}


@pytest.mark.slow
@pytest.mark.parametrize("shards", READERS.values(), ids=READERS)
def test_processes_and_workers_share_the_rows_of_every_pass(shards):
    """Two processes of two workers, which take batches of their share in turn."""
    shares = [windows(streamed(1000, shards)).shard(num_shards=2, index=index) for index in range(2)]
    counts = Counter[int]()
    for share in shares:
        counts.update(read(DataLoader(share, batch_size=None, num_workers=2), 1000))
    assert set(counts) == set(range(1000)) and max(counts.values()) <= 3
    assert sum(counts.values()) < 2100


def test_readers_deal_out_the_rows_of_all_passes():
    """Of 5 rows and 3 readers the first has rows 0 and 3, then 1 and 4, then 2."""
    shares = [windows(streamed(5), OfCount(1)).shard(3, index) for index in range(3)]
    assert [sorted(read(share, 5)) for share in shares] == [[0, 1, 2, 3, 4]] * 3
    assert [sorted(read(share, 2)[:2]) for share in shares[:2]] == [[0, 3], [1, 4]]


def test_more_readers_than_rows_all_have_rows():
    loader = DataLoader(windows(streamed(2), OfCount(1)), batch_size=None, num_workers=3)
    assert set(read(loader, 12)) == {0, 1}


@pytest.mark.parametrize("name", ["padded", "packed"])
def test_batches_are_as_full_as_those_in_memory(name):
    """A window's last batches are not full: of tens of them some in a hundred."""
    planner = PLANNERS[name]
    memory = BatchedDataset(encoded().rows, planner, seed=0)
    stream = list(islice(windows(streamed(), planner, pairs=1000), len(memory)))
    assert sum(map(len, stream)) >= 0.95 * ROWS
    for batch in stream:
        lengths = np.array([[len(pair["input_ids"]), len(pair["labels"])] for pair in batch])
        tokens = lengths.sum(axis=0) if name == "packed" else lengths.max(axis=0) * len(batch)
        assert tokens.max() <= planner.max_tokens


def test_grouped_batches_have_like_lengths():
    batches = list(islice(windows(streamed(), PLANNERS["grouped"]), 100))
    lengths = [[len(pair["labels"]) for pair in batch] for batch in batches]
    assert sum(map(sum, lengths)) > 0.85 * sum(max(each) * len(each) for each in lengths)


def noisy(rows: Rows, random: np.random.Generator) -> Rows:
    found = encode(rows, random)
    return found | {"labels": random.integers(0, 1000, size=(len(rows["number"]), 3)).tolist()}


def test_what_is_drawn_for_a_row_is_another_in_every_pass_and_the_same_for_a_seed():
    def pairs(seed: int) -> list[dict]:
        batches = islice(windows(Corpus(texts(50), noisy), OfCount(5), seed), 20)
        return [pair for batch in batches for pair in batch]

    assert pairs(0) == pairs(0)
    drawn = [{str(pair["labels"]) for pair in pairs(seed)} for seed in (0, 1)]
    assert len(drawn[0]) == len(drawn[1]) == 100 and drawn[0].isdisjoint(drawn[1])


def test_no_two_readers_draw_the_same():
    corpus = Corpus(texts(40).remove_columns("number").add_column("number", [7] * 40), noisy)
    shares = [windows(corpus, OfCount(5)).shard(2, index) for index in range(2)]
    drawn = [{str(pair["labels"]) for batch in islice(share, 4) for pair in batch} for share in shares]
    assert drawn[0].isdisjoint(drawn[1])


def test_an_encoder_may_make_several_pairs_of_a_row_or_none():
    def halves(rows: Rows, random: np.random.Generator) -> Rows:
        found = encode(rows, random)
        kept = [place for place, number in enumerate(rows["number"]) if number % 2 for _ in range(2)]
        return {side: [found[side][place] for place in kept] for side in found}

    read_rows = read(windows(Corpus(texts(100), halves), OfCount(5)), 100)
    assert Counter(read_rows) == Counter([*range(1, 100, 2)] * 2)


NOTHING = {
    "no rows": (Corpus(texts(0), encode, "of.jsonl"), "of.jsonl: there are no rows"),
    "no pairs": (
        Corpus(texts(9).to_iterable_dataset(), lambda rows, random: {"input_ids": [], "labels": []}, "of.jsonl"),
        "of.jsonl: no training pair is left of all 9 rows",
    ),
}


@pytest.mark.parametrize(("corpus", "message"), NOTHING.values(), ids=NOTHING)
def test_a_corpus_without_pairs_is_an_error(corpus, message):
    with pytest.raises(DataError, match=message):
        next(iter(windows(corpus)))


def shares_of(batches) -> np.ndarray:
    """Returns how many rows are of the corpora that begin at 0 and at 10,000."""
    found = [number >= 10_000 for batch in batches for number in numbers_in(batch)]
    return np.bincount(found, minlength=2)


@pytest.mark.parametrize("planner", [PLANNERS["packed"], PLANNERS["padded"]], ids=["packed", "padded"])
@pytest.mark.parametrize("corpus", CORPORA.values(), ids=CORPORA)
def test_a_mixture_has_its_shares_whatever_the_sizes(corpus, planner):
    """One to nine in size: within four standard deviations of a draw of so many rows."""
    mixture = [corpus(100), corpus(900, first=10_000)]
    for shares in ((0.5, 0.5), (0.2, 0.8)):
        counts = shares_of(islice(Windows(mixture, planner, 0, [Stage(shares)], pairs=500), 400))
        total = counts.sum()
        assert total > 3000
        assert abs(counts[0] - shares[0] * total) < 4 * np.sqrt(total * shares[0] * shares[1])


def in_pieces(rows: Rows, random: np.random.Generator) -> Rows:
    """Nine pairs of a row."""
    return {side: [ids for ids in row for _ in range(9)] for side, row in encode(rows, random).items()}


def rarely(rows: Rows, random: np.random.Generator) -> Rows:
    """A pair of every ninth row."""
    found = encode(rows, random)
    return {
        side: [found[side][place] for place, number in enumerate(rows["number"]) if number % 9 == 0] for side in found
    }


@pytest.mark.parametrize("encoder", [in_pieces, rarely])
def test_shares_are_those_of_pairs_however_many_a_row_gives(encoder):
    mixture = [streamed(300), Corpus(texts(900, first=10_000), encoder)]
    counts = shares_of(islice(Windows(mixture, OfCount(10), 0, [Stage((0.3, 0.7))], pairs=500), 1000))
    total = counts.sum()
    assert abs(counts[0] - 0.3 * total) < 4 * np.sqrt(total * 0.3 * 0.7)


def test_every_process_has_the_same_draws():
    mixture = [encoded(100), encoded(900, first=10_000)]
    whole = Windows(mixture, OfCount(500), 0, [Stage((0.5, 0.5))], pairs=500, batches=1)
    parts = [[shares_of([batch]).tolist() for batch in islice(whole.shard(3, index), 6)] for index in range(3)]
    assert parts[0] == parts[1] == parts[2] and len(set(map(tuple, parts[0]))) > 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stage_begins_with_its_step_and_loses_no_row(workers):
    mixture = [streamed(2000), streamed(2000, first=10_000)]
    stages = [Stage((1.0, 0.0), 7), Stage((0.0, 1.0), 9), Stage((0.5, 0.5))]
    loader = DataLoader(
        Windows(mixture, OfCount(10), 0, stages, accumulated=3, pairs=200), batch_size=None, num_workers=workers
    )
    batches = list(islice(loader, 90))
    counts = np.array([shares_of(batches[step * 3 : step * 3 + 3]) for step in range(30)])
    assert (counts[:7, 1] == 0).all() and (counts[7:9, 0] == 0).all() and (counts[9:] > 0).all()
    of_first = [number for batch in batches for number in numbers_in(batch) if number < 10_000]
    assert len(of_first) == len(set(of_first))


def test_corpora_of_one_size_have_orders_of_their_own():
    corpora = [encoded(100), encoded(100)]
    sources = [EndlessPairs(each, number, 0, Reader()) for number, each in enumerate(corpora)]
    orders = [[int(pair.source[1]) for pair in each.take(100, np.random.default_rng())] for each in sources]
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]


RESUMED = {
    "stream": ([streamed], {}),
    "noise in memory": ([lambda: Corpus(texts(300), noisy)], {}),
    "mixture": ([lambda: streamed(500), lambda: encoded(300, first=10_000)], {"stages": [Stage((0.5, 0.5))]}),
    "pieces": (
        [lambda: Corpus(texts(300), in_pieces), lambda: Corpus(texts(300, first=10_000), rarely)],
        {"stages": [Stage((0.5, 0.5), 70), Stage((0.1, 0.9))]},
    ),
    "stages": (
        [lambda: streamed(500), lambda: streamed(700, shards=2, first=10_000)],
        {"stages": [Stage((1.0, 0.0), 13), Stage((0.0, 1.0), 14), Stage((0.3, 0.7))], "accumulated": 2},
    ),
}


@pytest.mark.parametrize("taken", [1, 26, 27, 28, 60, 119])
@pytest.mark.parametrize(("corpora", "more"), RESUMED.values(), ids=RESUMED)
def test_a_reader_goes_on_from_the_position_of_a_batch(corpora, more, taken):
    """Of the second process of two, in any window, pass and stage; batches before the position are not made."""

    def share() -> Windows:
        whole = Windows([make() for make in corpora], PLANNERS["packed"], 0, pairs=200, batches=5, **more)
        whole.resume(positions)
        return whole.shard(2, 1)

    positions: list = []
    unbroken = list(islice(share(), 125))
    positions = [[0, 0, 99, 99, *[0] * 5 * len(corpora)], unbroken[taken - 1].position]
    resumed = list(islice(share(), 125))
    before = unbroken[taken - 1].position[3]
    assert resumed[taken:] == unbroken[taken:]
    assert [batch.position for batch in resumed[taken:]] == [batch.position for batch in unbroken[taken:]]
    assert before <= taken and not any(resumed[:before]) and all(resumed[before:])


def test_a_position_is_that_of_a_batchs_window():
    batches = list(islice(windows(streamed()), 125))
    assert len({tuple(batch.position) for batch in batches}) > 3
    assert all(taken - 30 < batch.position[3] <= taken for taken, batch in enumerate(batches))


def test_workers_go_on_from_their_own_positions():
    whole = windows(streamed())
    unbroken = list(islice(DataLoader(whole, batch_size=None, num_workers=2), 100))
    whole.resume([unbroken[88].position, unbroken[89].position])
    resumed = list(islice(DataLoader(whole, batch_size=None, num_workers=2), 100))
    assert resumed[90:] == unbroken[90:] and not any(resumed[:40])
