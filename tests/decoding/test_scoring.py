# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Texts are compared in one Unicode form, whatever the metric, and the nearest reference is found in it."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_xformer.decoding.metrics import GREATER_IS_BETTER, check_metrics, compute_metrics
from hf_xformer.decoding.scorers import nearest
from hf_xformer.decoding.scoring import Scoring


DECOMPOSED = ["cafe\u0301", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "A\u030angstro\u0308m"]
COMPOSED = ["café", "한국", "Ångström"]


@pytest.mark.parametrize("name", list(GREATER_IS_BETTER)[1:])
def test_composed_and_decomposed_letters_are_the_same_unless_asked_for(name):
    best = 100 if GREATER_IS_BETTER[name] else 0
    word = Scoring(sacrebleu_tokenize="char")
    alike = compute_metrics([name], DECOMPOSED, COMPOSED, scoring=word)
    apart = compute_metrics([name], DECOMPOSED, COMPOSED, scoring=Scoring("char", unicode_form="none"))
    assert alike[name] == pytest.approx(best) and "unicode:nfc" in alike[f"{name}_signature"]
    assert apart[name] != pytest.approx(best) and "unicode:none" in apart[f"{name}_signature"]


def test_what_is_compared_in_another_form_is_counted_with_the_first_example():
    (note,) = check_metrics(["per"], [["plain"], ["a", DECOMPOSED[0]], [DECOMPOSED[2]]])
    assert note.startswith(f"2 of 4 references are not in NFC and are compared in it, first row 2: {DECOMPOSED[0]!r}")
    assert check_metrics(["per"], [["plain"], COMPOSED]) == []


def test_the_matching_or_the_nearest_reference_is_found():
    assert nearest("K AE T", ["D AO G", "K AE T"]) == ("K AE T", True)
    assert nearest("K AE T S", ["D AO G", "K AE T", "K AH T"]) == ("K AE T", False)
    assert nearest(DECOMPOSED[0], ["tea", COMPOSED[0]]) == (COMPOSED[0], True)


SENTENCES = st.lists(st.sampled_from(["a", "b", "the", ".", "@-@", "&apos;s"]), min_size=4, max_size=9).map(" ".join)


def papineni(texts: list[str], references: list[str]) -> float:
    """Returns BLEU-4 of tokenised texts as Papineni et al. 2002 define it, without smoothing."""

    def grams(text: str, n: int) -> Counter:
        words = text.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    precisions = []
    for n in range(1, 5):
        pairs = [(grams(text, n), grams(reference, n)) for text, reference in zip(texts, references, strict=True)]
        matched = sum((text & reference).total() for text, reference in pairs)
        precisions.append(matched / sum(text.total() for text, _ in pairs))
    lengths = [sum(len(text.split()) for text in each) for each in (texts, references)]
    brevity = min(1.0, math.exp(1 - lengths[1] / lengths[0]))
    return 100 * brevity * math.prod(precisions) ** 0.25


@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=5))
def test_bleu_of_words_as_they_stand_is_the_published_formula(pairs):
    texts, references = [list(each) for each in zip(*pairs, ("the a b a .", "the a b a ."), strict=True)]
    found = compute_metrics(["sacrebleu"], texts, references, scoring=Scoring(sacrebleu_tokenize="none"))
    assert found["sacrebleu"] == pytest.approx(papineni(texts, references))
