# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The metrics on random rows of many scripts, against sacreBLEU, jiwer and brute force."""

from functools import cache
from itertools import zip_longest
from unicodedata import normalize

import jiwer
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF, TER

from hf_xformer.decoding.metrics import compute_metrics
from hf_xformer.decoding.scoring import Scoring


WORDS = [
    "the",
    "cat",
    "Cat.",
    "don't",
    "кот",
    "قط",
    "猫が",
    "他在家",
    "고양이",
    "แมว",
    "café",
    "cafe\u0301",
    "é",
    "42,5",
]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=5).flatmap(
    lambda words: st.sampled_from([" ", "  "]).map(lambda space: space.join(words))
)
ROWS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=4)
pytestmark = pytest.mark.slow
MANY = settings(max_examples=300, deadline=None, derandomize=True, database=None)


def composed(rows) -> tuple[list[str], list[list[str]]]:
    return [normalize("NFC", text) for text, _ in rows], [[normalize("NFC", each) for each in row] for _, row in rows]


@MANY
@given(ROWS, st.sampled_from(["13a", "zh", "char", "intl", "none"]))
def test_sacrebleus_figures_are_sacrebleus(rows, tokenize):
    predictions, references = [text for text, _ in rows], [row for _, row in rows]
    figures = compute_metrics(
        ["sacrebleu", "chrf", "chrf++", "ter"], predictions, references, scoring=Scoring(tokenize)
    )
    asian = {"asian_support": True, "normalized": True} if "asian:yes" in figures["ter_signature"] else {}
    peers = {
        "sacrebleu": BLEU(tokenize=tokenize),
        "chrf": CHRF(),
        "chrf++": CHRF(word_order=2),
        "ter": TER(**asian),
    }
    texts, rows = composed(rows)
    for name, peer in peers.items():
        expected = peer.corpus_score(texts, [list(each) for each in zip_longest(*rows)]).score
        assert figures[name] == pytest.approx(expected, abs=1e-9)


@MANY
@given(ROWS)
def test_rates_of_words_and_characters_are_jiwers(rows):
    """Of one reference: jiwer has no more."""
    texts, references = composed(rows)
    first = [row[0] for row in references]
    assume(any(first))
    figures = compute_metrics(["wer", "cer"], [text for text, _ in rows], [row[0] for _, row in rows])
    assert figures["wer"] == pytest.approx(100 * jiwer.wer(first, texts), abs=1e-9)
    assert figures["cer"] == pytest.approx(100 * jiwer.cer(first, texts), abs=1e-9)


def distance(ours, its) -> int:
    """The fewest insertions, deletions and substitutions, by trying them all."""

    @cache
    def rest(i: int, j: int) -> int:
        if i == len(ours) or j == len(its):
            return len(ours) - i + len(its) - j
        if ours[i] == its[j]:
            return rest(i + 1, j + 1)
        return 1 + min(rest(i + 1, j), rest(i, j + 1), rest(i + 1, j + 1))

    return rest(0, 0)


@MANY
@given(ROWS)
def test_rates_with_several_references_are_those_of_brute_force(rows):
    texts, references = composed(rows)
    assume(any(text.strip() for row in references for text in row))
    figures = compute_metrics(
        ["wer", "per", "cer", "exact_match", "wrong_words"], [text for text, _ in rows], [row for _, row in rows]
    )
    for name, split in {"wer": str.split, "per": str.split, "cer": str.strip}.items():
        nearest = [
            min((distance(split(text), split(each)), len(split(each))) for each in row)
            for text, row in zip(texts, references, strict=True)
        ]
        edits, symbols = map(sum, zip(*nearest, strict=True))
        assert figures[name] == pytest.approx(100 * edits / symbols if symbols else 100 * (edits > 0), abs=1e-9)
    hits = [text in row for text, row in zip(texts, references, strict=True)]
    right = [text.split() in [each.split() for each in row] for text, row in zip(texts, references, strict=True)]
    assert figures["exact_match"] == pytest.approx(100 * sum(hits) / len(rows))
    assert figures["wrong_words"] == pytest.approx(100 - 100 * sum(right) / len(rows))
