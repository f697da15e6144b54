# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Noise in sources: words that are lost and texts in another case, tags left alone."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import letters, wordpiece

from hf_xformer.data.noise import make_source_noise
from hf_xformer.errors import ArgumentError


def noise(word_dropout: float = 0.0, case_noise: float = 0.0, tags: tuple[str, ...] = ()):
    tokenizer = letters()
    tokenizer.add_tokens(list(tags))
    return make_source_noise(tokenizer, word_dropout, case_noise)


@given(st.text("ab \t\n", min_size=1).filter(str.strip), st.integers(0, 99))
def test_words_that_are_left_keep_their_order_and_there_is_one(text, seed):
    spoilt = noise(0.5)(text, np.random.default_rng(seed))
    left = iter(text.split())
    assert all(word in left for word in spoilt.split()) and spoilt.split()
    if spoilt.split() == text.split():
        assert spoilt == text


def test_every_word_is_as_likely_to_be_lost():
    random, drop = np.random.default_rng(0), noise(0.1)
    text = " ".join(map(str, range(20)))
    counts = Counter(word for _ in range(2000) for word in drop(text, random).split())
    assert all(abs(counts[str(word)] - 1800) < 4.5 * math.sqrt(2000 * 0.1 * 0.9) for word in range(20))


def test_a_share_of_the_texts_changes_its_case_and_nothing_else():
    random, change = np.random.default_rng(0), noise(case_noise=0.3)
    counts = Counter(change("Ein Ärger  im McBain", random) for _ in range(6000))
    assert counts.keys() == {
        "Ein Ärger  im McBain",
        "EIN ÄRGER  IM MCBAIN",
        "ein ärger  im mcbain",
        "Ein Ärger  Im Mcbain",
    }
    assert abs(counts["Ein Ärger  im McBain"] - 4200) < 4.5 * math.sqrt(6000 * 0.3 * 0.7)
    assert min(counts.values()) > 500


def test_tags_stay_as_they_are():
    random, spoil = np.random.default_rng(0), noise(0.9, 1.0, ("<2de>", "<2d"))
    for _ in range(50):
        spoilt = spoil("<2de> Hello <2de>World again", random).split()
        assert spoilt[0] == "<2de>" and "<2de>World" in spoilt


def test_a_text_with_a_tag_keeps_a_word_too():
    random, drop = np.random.default_rng(0), noise(0.9, tags=("<2de>",))
    counts = Counter(len(drop("<2de> Hello again", random).split()) for _ in range(2000))
    assert counts.keys() == {2, 3} and abs(counts[3] - 20) < 4.5 * math.sqrt(20)
    assert drop("<2de> Hello", random) == "<2de> Hello"


def test_without_noise_there_is_none():
    assert make_source_noise(letters(), 0.0, 0.0) is None


def test_a_tokenizer_that_folds_case_is_refused():
    assert make_source_noise(wordpiece(), 0.1, 0.0) is not None
    with pytest.raises(ArgumentError, match="--case_noise 0.1 does nothing: the source tokenizer"):
        make_source_noise(wordpiece(), 0.1, 0.1)
