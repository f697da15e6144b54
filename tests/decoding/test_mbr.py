# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Minimum Bayes risk decoding against sacreBLEU's own figures of sentences, pair by pair."""

import random
from collections.abc import Callable
from math import exp

import pytest
import torch
from comet_stand_in import STAND_IN
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics import BLEU
from sacrebleu.metrics.chrf import CHRF
from small_models import make_model

from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.decoding.hypotheses import Hypothesis
from hf_xformer.decoding.mbr import MinimumBayesRisk
from hf_xformer.decoding.scoring import Scoring
from hf_xformer.errors import ArgumentError


SYMBOLS = [f"s{number}" for number in range(38)]
SOURCES = ["s1 s2 s3 s4", "", "s9", "s7 s7 s30 s31 s32 s33", "s37 s2"]


def rate_of_words(text: str, reference: str) -> float:
    words = reference.split()
    edits = Levenshtein.distance(text.split(), words)
    return -100.0 * edits / len(words) if words else -100.0 * (edits > 0)


PAIRS: dict[str, Callable[[str, str], float]] = {
    "chrf": lambda text, reference: CHRF().sentence_score(text, [reference]).score,
    "chrf++": lambda text, reference: CHRF(word_order=2).sentence_score(text, [reference]).score,
    "sacrebleu": lambda text, reference: BLEU(effective_order=True).sentence_score(text, [reference]).score,
    "exact_match": lambda text, reference: 100.0 * (text == reference),
    "wer": rate_of_words,
}


def random_candidates(seed: int, count: int = 9) -> list[str]:
    """Texts that are like each other, some the same, some empty, some shorter than chrF's n-grams."""
    draw = random.Random(seed)
    words = ["a", "aa", "aaa", "Haus", "Häuser", "haus", "(b)", "c,", "ß"]
    base = [draw.choice(words) for _ in range(draw.randrange(1, 9))]

    def changed() -> str:
        return " ".join(draw.choice(words) if draw.random() < 0.3 else word for word in base if draw.random() < 0.9)

    texts = [changed() for _ in range(count)]
    return [*texts, texts[0], "", "x"]


def brute_force(metric: str, texts: list[str], scores: list[float] | None = None) -> list[float]:
    shares = [1.0] * len(texts) if scores is None else [exp(score) for score in scores]
    pairs = list(zip(texts, shares, strict=True))
    return [sum(PAIRS[metric](text, each) * share for each, share in pairs) / sum(shares) for text in texts]


@pytest.mark.parametrize("metric", PAIRS)
def test_utilities_are_the_mean_of_the_metric_over_all_pairs_and_the_highest_is_first(metric):
    for seed in range(12):
        texts = random_candidates(seed)
        hypotheses = [Hypothesis(text, -1.0 * number) for number, text in enumerate(texts)]
        (found,) = MinimumBayesRisk(metric).sort(["source"], [hypotheses], by_probability=seed % 2 == 1)
        wanted = brute_force(metric, texts, [each.score for each in hypotheses] if seed % 2 else None)
        by_number = sorted(found, key=lambda each: -each.score)
        assert [each.text for each in by_number] == texts
        assert [each.utility for each in by_number] == pytest.approx(wanted, abs=1e-7)
        assert found[0].utility == pytest.approx(max(wanted), abs=1e-7)
        assert [each.utility for each in found] == sorted((each.utility for each in found), reverse=True)


def test_of_one_utility_the_likelier_is_first_and_then_the_earlier():
    risk = MinimumBayesRisk("exact_match")
    scored = [Hypothesis("a", -3.0), Hypothesis("b", -1.0), Hypothesis("b", -2.0), Hypothesis("a", -0.5)]
    (found,) = risk.sort([""], [scored])
    assert [each.score for each in found] == [-0.5, -1.0, -2.0, -3.0] and {each.utility for each in found} == {50.0}
    (found,) = risk.sort([""], [[Hypothesis("c"), Hypothesis("a"), Hypothesis("b")]])
    assert "".join(each.text for each in found) == "cab"
    # One é is the other.
    (found,) = risk.sort([""], [[Hypothesis("x"), Hypothesis("\u00e9"), Hypothesis("e\u0301")]])
    assert found[0].text == "\u00e9"
    assert next(MinimumBayesRisk("per").sort([""], [[Hypothesis(""), Hypothesis(" ")]]))[0].utility == 0.0


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((" ".join(SYMBOLS),), "symbol")


@pytest.mark.parametrize(
    "options",
    [{"num_beams": 4}, {"do_sample": True, "num_return_sequences": 6, "top_k": 0}],
    ids=["beams", "samples"],
)
def test_a_decoder_sorts_its_own_beams_or_samples(options, tokenizer):
    model = make_model()
    model.generation_config.update(eos_token_id=[1, *range(5, 53, 6)], max_length=9)
    count = options.get("num_return_sequences", 4)
    torch.manual_seed(5)
    all_of_them = {"num_return_sequences": count, "scores": True}
    plain = list(Decoder(model, tokenizer, tokenizer, **options | all_of_them).decode(SOURCES))
    torch.manual_seed(5)
    found = list(Decoder(model, tokenizer, tokenizer, mbr="chrf", **options).decode(SOURCES))
    assert len({row[0].text for row in found}) > 2
    for row, candidates in zip(found, plain, strict=True):
        assert sorted(each.text for each in row) == sorted(each.text for each in candidates)
        scores = [each.score for each in candidates] if "num_beams" in options else None
        wanted = brute_force("chrf", [each.text for each in candidates], scores)
        best = next(n for n, value in enumerate(wanted) if value > max(wanted) - 1e-9)
        assert row[0].text == candidates[best].text and row[0].utility == pytest.approx(wanted[best])


def test_what_gives_one_candidate_or_no_metric_is_refused(tokenizer):
    model = make_model()
    for options, said in (
        ({"mbr": "chrf"}, "mbr compares candidates, and there is one: give num_beams, or do_sample"),
        ({"mbr": "chrf", "do_sample": True}, "and there is one"),
        ({"mbr": "chrf", "num_beams": 2, "num_return_sequences": 3}, "num_return_sequences. \\(3\\) has to be"),
        ({"mbr": "bleu", "num_beams": 2}, "mbr: unknown metric 'bleu'; .* did you mean sacrebleu"),
        ({"num_beams": 2, "mbr": "comet"}, "comet"),
    ):
        with pytest.raises(ArgumentError, match=said):
            Decoder(model, tokenizer, tokenizer, **options)


@pytest.mark.slow
def test_comet_scores_each_pair_with_its_source(tmp_path, monkeypatch):
    (tmp_path / "comet.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    risk = MinimumBayesRisk("comet", Scoring(comet_model="some/model"))
    rows = [["ab", "ax", "ab"], ["xy", "x"]]
    found = list(risk.sort(["s", "t"], [[Hypothesis(text) for text in row] for row in rows]))
    assert [[each.text for each in row] for row in found] == [["ab", "ab", "ax"], ["x", "xy"]]
    assert found[0][0].utility == pytest.approx(100 * (1 + 0.5 + 1) / 3)
    assert found[1][1].utility == pytest.approx(75.0)
    (tied,) = risk.sort(["y"], [[Hypothesis("xy"), Hypothesis("x")]])  # the stand-in counts letters of the source too
    assert [each.utility for each in tied] == [100.0, 100.0]
