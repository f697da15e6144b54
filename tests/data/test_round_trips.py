# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Texts that come back from a tokenizer as others are counted by the way, and the harm is what the metrics find."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import SHAPES, wordpiece

from hf_xformer.data.round_trips import harm, round_trip, say_round_trip, way
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.metrics import compute_metrics
from hf_xformer.decoding.scoring import Scoring


WAYS = {
    "in another Unicode form": (["cafe\u0301", "한국어 \u1112\u1161\u11ab"], {}),
    "in lower case": (["Ab c", "ABC"], {"lowercase": True}),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_a_tokenizer_changes_has_its_name(way):
    texts, options = WAYS[way]
    found = round_trip(train_tokenizer([*texts, *map(str.lower, texts)], "char", 100, **options), texts)
    assert set(found.ways) == {way} and found.first is not None and found.first[0] in texts


def test_each_way_of_coming_back_as_another_is_told_apart():
    texts = ["abc", "ÄB", "ab  c", "ab\U0001f600", "[SEP]"]
    found = round_trip(wordpiece(eos_token="[SEP]"), texts)
    wanted = {
        "in lower case without accents": 1,
        "with other spaces between the same words": 1,
        "in lower case": 1,
        "with unknown tokens": 1,
    }
    assert found.ways == Counter(wanted) and found.first == ("ÄB", "ab")
    assert "4 of 5 texts come back as others when decoded" in str(found) and "first 'ÄB' as 'ab'" in str(found)


@pytest.mark.parametrize(
    ("text", "back", "name", "harm_of_it", "equal"),
    [
        ("cafe\u0301 a b c", "café a b c", "in another Unicode form", "one form", ["exact_match", "per", "sacrebleu"]),
        ("a  b c d", "a b c d", "with other spaces between the same words", "exact_match never", ["per", "sacrebleu"]),
        ("ab c d e", "a bc d e", "with other spaces", "look at spaces never", ["chrf"]),
        ("Ab c d e", "ab c d e", "in lower case", "no metric but ter", ["ter"]),
        ("ﬁ c d e", "fi c d e", "with compatible characters", "with --unicode_form NFKC only", []),
        ("é c d e", "e c d e", "without accents", "no prediction can equal these", []),
    ],
)
def test_what_is_said_of_a_way_is_what_the_metrics_find(text, back, name, harm_of_it, equal):
    assert way(text, back, False) == name and harm_of_it in harm([name])
    best = {"exact_match": 100, "per": 0, "sacrebleu": 100, "chrf": 100, "ter": 0}
    scores = compute_metrics(list(best), [back], [[text]])
    looks_at_spaces = [each for each in best if each != "chrf"]
    found = [each for each in best if scores[each] == pytest.approx(best[each])]
    if name == "with other spaces":
        assert not set(found) & set(looks_at_spaces)
    assert set(equal) <= set(found) and ("exact_match" in found) == ("exact_match" in equal)
    assert bool(found) == bool(equal)
    if name == "with compatible characters":
        assert (
            compute_metrics(["exact_match"], [back], [[text]], None, Scoring(unicode_form="NFKC"))["exact_match"]
            == 100
        )
    assert harm([name, "in other words"]).startswith(f"{name}: ") == (name != "without accents")


@given(texts=st.lists(st.text(max_size=12), max_size=8))
def test_bytes_come_back_in_form_c(texts):
    tokenizer = SHAPES["plain"]() if not texts else train_tokenizer(["a"], "bpe", 260)
    found = round_trip(tokenizer, texts)
    changed = [text for text in texts if unicodedata.normalize("NFC", text) != text]
    assert found.ways == (Counter({"in another Unicode form": len(changed)}) if changed else Counter())


@pytest.mark.parametrize("target", [True, False])
def test_harm_is_said_of_targets_and_nothing_of_texts_that_come_back(target):
    said: list[str] = []
    tokenizer = train_tokenizer(["ab c"], "char", 100)
    say_round_trip("mine", tokenizer, ["ab", "c"], said.append, target)
    assert said == []
    say_round_trip("mine", tokenizer, ["ab", "d"], said.append, target)
    (line,) = said
    assert line.startswith("mine: 1 of 2 texts come back as others when decoded (1 with unknown tokens), first 'd' as")
    assert line.endswith("; no prediction can equal these") == target
