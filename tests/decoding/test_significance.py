# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The comparison of systems against resamples that are scored text by text."""

import random

import numpy as np
import pytest

from hf_xformer.decoding.metrics import compute_metrics
from hf_xformer.decoding.significance import DEFAULT_SEED, MOST_BYTES, check_comparison, compare, table


NAMES = ["sacrebleu", "wer", "wrong_words"]
SAMPLES = 60


@pytest.fixture(scope="module")
def rows():
    """References, and two systems of which the second is worse."""
    draw = random.Random(0)
    references = [[" ".join(draw.choices("abcdef", k=8)) for _ in range(draw.randint(1, 2))] for _ in range(30)]
    good, bad = (
        [row[0] if draw.random() < share else " ".join(draw.choices("abcdef", k=7)) for row in references]
        for share in (0.8, 0.4)
    )
    return references, good, bad


def test_resamples_are_scored_as_if_they_were_test_sets(rows):
    references, good, bad = rows
    compared = compare(NAMES, [("good", good), ("bad", bad)], references, samples=SAMPLES)
    chosen = np.random.default_rng(int(DEFAULT_SEED)).choice(len(good), size=(SAMPLES, len(good)), replace=True)
    for name in NAMES:
        scores = np.array(
            [
                [
                    compute_metrics([name], [system[i] for i in each], [references[i] for i in each])[name]
                    for each in chosen
                ]
                for system in (good, bad)
            ]
        )
        whole = [compute_metrics([name], system, references)[name] for system in (good, bad)]
        first, second = compared[name]
        assert [first["score"], second["score"]] == pytest.approx(whole, abs=1e-3)
        assert [first["mean"], second["mean"]] == pytest.approx(scores.mean(1).tolist(), abs=1e-3)
        apart = np.abs(scores[1] - scores[0])
        beyond = (apart - apart.mean() > abs(whole[1] - whole[0])).sum()
        assert second["p_value"] == pytest.approx((beyond + 1) / (SAMPLES + 1))
        assert second["difference"] == pytest.approx(whole[1] - whole[0], abs=1e-3)


def test_a_worse_system_is_told_and_the_same_one_is_not(rows):
    references, good, bad = rows
    compared = compare(NAMES, [("good", good), ("bad", bad), ("same", good)], references, samples=SAMPLES)
    assert compared == compare(NAMES, [("good", good), ("bad", bad), ("same", good)], references, samples=SAMPLES)
    assert (compared["samples"], compared["seed"], compared["baseline"]) == (SAMPLES, 12345, "good")
    for name in NAMES:
        _, worse, same = compared[name]
        assert worse["p_value"] < 0.05 and same["p_value"] == 1
    marked = [line.split()[:2] for line in table(compared).splitlines() if line.endswith("*")]
    assert marked == [[name, "bad"] for name in NAMES]


@pytest.mark.parametrize("seed", ["0", "none", "-3", "x"])
def test_a_seed_that_cannot_be_repeated_is_refused(seed, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", seed)
    with pytest.raises(ValueError, match=f"SACREBLEU_SEED={seed}.*above 0"):
        check_comparison(["wer"], 10, 10)


def test_more_memory_than_there_is_likely_to_be_is_refused_with_what_fits():
    with pytest.raises(ValueError, match="--bootstrap_samples 1000 of 1,000,000 rows.*at most 82"):
        check_comparison(["wer", "chrf"], 1_000_000, 1000)
    check_comparison(["chrf"], 1_000_000, 82)
    assert MOST_BYTES > 82 * 1_000_000 * (4 * 24 + 8)
