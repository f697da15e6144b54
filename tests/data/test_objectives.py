# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Objectives against plain references: every number by its formula, no token lost, the same for a seed."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_xformer.data.objectives import (
    Copy,
    Denoising,
    Mixture,
    Objective,
    PrefixLM,
    SpanCorruption,
    longest_text,
    pieces,
    random_lengths,
)


SENTINELS = tuple(range(1000, 1100))
MASK, STOP, TAG = 2000, 7, 3000
texts = st.lists(st.integers(0, 99), min_size=1, max_size=300)
seeds = st.integers(0, 2**32)
two_hundred = settings(max_examples=200, deadline=None)


def spans_of(ids: list[int]) -> dict[int | None, list[int]]:
    """Returns the tokens behind every sentinel, and under None those before the first."""
    found: dict[int | None, list[int]] = {None: []}
    last = None
    for token in ids:
        if token in SENTINELS:
            last = token
            found[last] = []
        else:
            found[last].append(token)
    return found


def put_together(source: list[int], target: list[int]) -> list[int]:
    """Returns the text of which a source and a target were made, as one would fill in the gaps by hand."""
    spans, text = spans_of(target), []
    for token in source:
        text += spans[token] if token in SENTINELS else [token]
    return text


def numbers_of_t5(length: int, density: float, mean: float) -> tuple[int, int]:
    """Returns the numbers of noise tokens and of spans, as Raffel et al. compute them for a text of two or more."""
    noise = int(np.round(length * density))
    noise = min(max(noise, 1), length - 1)
    return noise, int(max(np.round(noise / mean), 1))


@two_hundred
@given(texts, seeds)
def test_span_corruption_is_that_of_a_plain_reference(ids, seed):
    source, target = SpanCorruption(SENTINELS)(ids, np.random.default_rng(seed))
    spans = spans_of(target)
    assert put_together(source, target) == ids
    used = [token for token in source if token in SENTINELS]
    assert used == [token for token in target if token in SENTINELS] == list(SENTINELS[: len(used)])
    assert spans[None] == [] and all(spans[sentinel] for sentinel in used)
    assert source[-1] == used[-1]
    if len(ids) > 1:
        noise, count = numbers_of_t5(len(ids), 0.15, 3.0)
        assert len(used) == count and sum(map(len, spans.values())) == noise
        # Text comes first, and stands between any two spans.
        kept = [len(each) for sentinel, each in spans_of(source).items() if sentinel != used[-1]]
        assert all(kept) and sum(kept) == len(ids) - noise


@two_hundred
@given(texts, seeds, st.floats(0.05, 0.95), st.floats(1, 80) | st.just(math.inf))
def test_no_density_loses_a_token(ids, seed, density, mean):
    corrupt = SpanCorruption(tuple(range(1000, 1400)), density, mean)
    source, target = corrupt(ids, np.random.default_rng(seed))
    assert Counter(source) + Counter(target) == Counter(ids) + Counter(
        [*range(1000, 1000 + corrupt.noise_of(len(ids))[1])] * 2
    )


@two_hundred
@given(texts, seeds, st.floats(0.05, 0.95), st.floats(1, 80))
def test_rolled_spans_lose_no_token_either(ids, seed, density, mean):
    corrupt = SpanCorruption(tuple(range(1000, 1400)), density, mean, random_roll=True)
    source, target = corrupt(ids, np.random.default_rng(seed))
    spans, text = {token: [] for token in source if token >= 1000}, []
    for token in target:
        if token >= 1000:
            last = token
        else:
            spans[last].append(token)
    for token in source:
        text += spans.get(token, [token])
    assert text == ids and list(spans) == list(range(1000, 1000 + len(spans)))
    most = corrupt.most(len(ids))
    assert most is not None and len(source) <= most[0] and len(target) <= most[1]


@pytest.mark.parametrize("roll", [False, True])
def test_a_short_text_has_its_noise_at_its_end_or_anywhere_alike(roll):
    random, corrupt = np.random.default_rng(0), SpanCorruption(SENTINELS, random_roll=roll)
    counts = Counter(token for _ in range(5000) for token in corrupt(range(1, 21), random)[1])
    found = [counts[token] for token in range(1, 21)]
    if roll:
        assert all(abs(count - 750) < 4 * math.sqrt(5000 * 0.15 * 0.85) for count in found)
    else:
        assert found == [0] * 17 + [5000] * 3


def test_all_ways_to_cut_are_equally_likely():
    random = np.random.default_rng(0)
    counts = Counter(tuple(random_lengths(6, 3, random)) for _ in range(10_000))
    assert len(counts) == math.comb(5, 2) and min(counts) == (1, 1, 4)
    # Four standard deviations of a share of a tenth.
    assert all(abs(count - 1000) < 4 * math.sqrt(10_000 * 0.1 * 0.9) for count in counts.values())


def unmasked(source: list[int], ids: list[int]) -> list[list[int]]:
    """Returns the runs of tokens between masks."""
    runs: list[list[int]] = [[]]
    for token in source:
        if token == MASK:
            runs.append([])
        else:
            runs[-1].append(token)
    return runs


@two_hundred
@given(texts, seeds)
def test_infilling_masks_so_many_tokens_and_keeps_the_others_in_order(ids, seed):
    ids = [100 + place for place in range(len(ids))]
    source, target = Denoising(MASK, permute_sentences=False)(ids, np.random.default_rng(seed))
    kept = [token for token in source if token != MASK]
    masked = math.ceil(0.3 * len(ids))
    assert target == ids and kept == sorted(kept) and len(ids) - len(kept) == masked
    assert 1 <= len(source) - len(kept) <= masked and len(source) <= len(ids)
    assert all(unmasked(source, ids)[1:-1])
    # Where tokens are missing there is a mask.
    for before, after in pairwise(source):
        assert MASK in (before, after) or after == before + 1


def test_spans_have_the_lengths_of_a_poisson_distribution():
    random, ids = np.random.default_rng(0), list(range(10_000, 20_000))
    spans: Counter[int] = Counter()
    for _ in range(20):
        last = ids[0] - 1
        source = Denoising(MASK)(ids, random)[0]
        for before, token in zip(source, [*source[1:], ids[-1] + 1], strict=True):
            last = last if before == MASK else before
            if before == MASK:
                spans[token - last - 1] += 1
    total = sum(spans.values())
    for length in range(8):
        share = math.exp(-3) * 3**length / math.factorial(length)
        assert abs(spans[length] / total - share) < 4 * math.sqrt(share * (1 - share) / total) + 1e-3


def test_an_infinite_mean_is_one_span():
    source, target = Denoising(MASK, mask_ratio=0.5, mean_span=math.inf)(range(1, 21), np.random.default_rng(0))
    assert source.count(MASK) == 1 and len(source) == 11 and target == list(range(1, 21))


@two_hundred
@given(texts, seeds)
def test_sentences_change_places_whole(ids, seed):
    permuted, target = Denoising(MASK, frozenset([STOP]), mask_ratio=0)(ids, np.random.default_rng(seed))
    assert target == ids

    def sentences(ids):
        found: list[list[int]] = [[]]
        for place, token in enumerate(ids):
            found[-1].append(token)
            if token == STOP and ids[place + 1 : place + 2] != [STOP]:
                found.append([])
        return found

    own = [each for each in sentences(ids) if each]
    if ids[-1] == STOP:  # else the last, which no stop ends, runs into the next
        assert Counter(map(tuple, own)) == Counter(tuple(each) for each in sentences(permuted) if each)
    assert Counter(permuted) == Counter(ids)


def test_deletion_loses_its_share_and_never_all():
    random = np.random.default_rng(0)
    lose = Denoising(MASK, mask_ratio=0, deletion=0.2)
    ids = list(range(20_000))
    source, target = lose(ids, random)
    assert target == ids and source == sorted(source) and abs(len(source) - 16_000) < 4 * math.sqrt(20_000 * 0.2 * 0.8)
    assert all(Denoising(MASK, mask_ratio=0, deletion=0.99)([1, 2, 3], random)[0] for _ in range(200))


@two_hundred
@given(texts, seeds)
def test_a_prefix_and_the_rest_are_the_text_and_a_copy_is_the_text_twice(ids, seed):
    source, target = PrefixLM()(ids, np.random.default_rng(seed))
    assert source + target == ids and source and bool(target) == (len(ids) > 1)
    assert Copy()(ids, np.random.default_rng(seed)) == (ids, ids)


def test_a_text_is_cut_at_every_place_alike():
    random = np.random.default_rng(0)
    cuts = Counter(len(PrefixLM()([1, 2, 3, 4, 5], random)[0]) for _ in range(8000))
    assert sorted(cuts) == [1, 2, 3, 4] and all(
        abs(each - 2000) < 4 * math.sqrt(8000 * 3 / 16) for each in cuts.values()
    )


def test_a_mixture_draws_by_weight_and_puts_tags_before_sources():
    mixture = Mixture((Copy(), PrefixLM(), SpanCorruption(SENTINELS)), (1.0, 2.0, 1.0), ((), (TAG,), (TAG + 1,)))
    random, counts = np.random.default_rng(0), Counter[int]()
    for _ in range(8000):
        source, target = mixture([1, 2, 3], random)
        counts[source[0]] += 1
        if source[0] == TAG:
            assert source[1:] + target == [1, 2, 3]
        elif source[0] == TAG + 1:
            assert put_together(source[1:], target) == [1, 2, 3]
        else:
            assert source == target == [1, 2, 3]
    shares = [counts[first] / 8000 for first in (1, TAG, TAG + 1)]
    assert np.allclose(shares, [0.25, 0.5, 0.25], atol=4 * math.sqrt(0.25 / 8000))


OBJECTIVES: dict[str, Objective] = {
    "span corruption": SpanCorruption(SENTINELS),
    "dense spans": SpanCorruption(SENTINELS, 0.5, 3.0),
    "few sentinels": SpanCorruption(SENTINELS[:3]),
    "denoising": Denoising(MASK, frozenset([STOP]), deletion=0.1),
    "all masked": Denoising(MASK, mask_ratio=1.0),
    "short spans": Denoising(MASK, mask_ratio=0.5, mean_span=1.0),
    "prefix": PrefixLM(),
    "copy": Copy(),
    "mixture": Mixture((Copy(), PrefixLM(), SpanCorruption(SENTINELS)), (1.0, 1.0, 2.0), ((), (TAG, TAG), (TAG,))),
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_what_a_seed_draws_is_the_same_again_and_another_the_next_time(objective):
    ids = list(range(60))
    random, again = np.random.default_rng(5), np.random.default_rng(5)
    drawn = [objective(ids, random) for _ in range(8)]
    assert drawn == [objective(ids, again) for _ in range(8)]
    if not isinstance(objective, Copy) and objective is not OBJECTIVES["all masked"]:
        assert len(set(map(str, drawn))) > 4


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@settings(max_examples=40, deadline=None)
@given(texts, seeds, st.integers(4, 40), st.integers(4, 40))
def test_pieces_of_a_long_text_fit_and_lose_nothing(objective, ids, seed, source_room, target_room):
    longest = longest_text(objective, source_room, target_room)
    assert longest > 0
    cut = list(pieces(ids, longest))
    assert sum(map(list, cut), []) == ids
    assert max(map(len, cut)) - min(map(len, cut)) <= 1
    random = np.random.default_rng(seed)
    for piece in cut:
        source, target = objective(piece, random)
        most = objective.most(len(piece))
        assert len(source) <= min(most[0], source_room) and len(target) <= min(most[1], target_room)


def test_the_longest_piece_of_span_corruption_is_that_of_t5():
    """568 tokens for 512 of a source and 114 of a target, the end token of either included."""
    assert longest_text(SpanCorruption(SENTINELS), 511, 10_000) == 568
    assert SpanCorruption(SENTINELS).most(568) == (511, 113)
    assert longest_text(SpanCorruption(SENTINELS), 511, 113) == 568
    assert longest_text(SpanCorruption(SENTINELS), 511, 112) < 568


def test_a_room_without_place_for_any_text_has_none():
    assert longest_text(Mixture((Copy(),), (1.0,), ((TAG,),)), 1, 10) == 0
    assert longest_text(SpanCorruption(()), 10, 10) == 0
