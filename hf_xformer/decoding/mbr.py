# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Minimum Bayes risk decoding: of a source's candidates the one that is most like all of them (Eikema and Aziz 2020).

Shapes: n different texts among the N candidates of a source.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from sacrebleu.metrics import CHRF
from sacrebleu.metrics.base import Metric

from .hypotheses import Hypothesis
from .metrics import METRICS, check_metric_names
from .scorers import run_comet
from .scoring import DEFAULT_SCORING, Scoring, in_form


# sacreBLEU's options for a figure of one sentence, where its own would be those of a corpus.
OF_SENTENCES = {"sacrebleu": {"effective_order": True}}


class MinimumBayesRisk:
    """
    Sorts the candidates of a source by their utility: the expected value of a metric, where each candidate, itself
    included, is the reference with its share of the probability.

    Samples have equal shares, so that one that was drawn twice counts twice; beams have shares by their probabilities
    (Kumar and Byrne 2004). An error rate is negative, so that the highest utility is always the best. Candidates of
    one utility are sorted by log-probability if they have one, and then stay in their order.

    Args:
        metric: A name of `METRICS`. chrF counts the n-grams of a text once; the others compare each pair of texts.
        scoring: How texts are compared.

    Raises:
        ArgumentError: The metric is unknown, or what it needs is not there.
    """

    def __init__(self, metric: str = "chrf", scoring: Scoring = DEFAULT_SCORING):
        check_metric_names([metric], "mbr")
        self.metric, self.scoring = metric, scoring
        self.sign = 1 if METRICS[metric].greater_is_better else -1
        if metric == "comet":
            run_comet(scoring.comet_python, scoring.comet_model)

    def sort(
        self, sources: Sequence[str], candidates: Sequence[Sequence[Hypothesis]], by_probability: bool = False
    ) -> Iterator[list[Hypothesis]]:
        """
        Yields each source's candidates with their utilities, the best first.

        Args:
            by_probability: Whether their shares follow from their scores, as those of beams should, or are equal.
        """
        texts = [in_form(self.scoring.unicode_form, [each.text for each in row]) for row in candidates]
        shares = [
            shares_of(row, [each.score if by_probability else None for each in some])
            for row, some in zip(texts, candidates, strict=True)
        ]
        scores = self.compare(sources, list(map(list, shares)))
        for row, named, share, score in zip(candidates, texts, shares, scores, strict=True):
            # Utilities that differ in their last digits are equal.
            expected = (self.sign * score @ np.array(list(share.values()))).round(9)
            utilities = dict(zip(share, expected.tolist(), strict=True))
            known = [replace(each, utility=utilities[text]) for each, text in zip(row, named, strict=True)]
            yield sorted(known, key=lambda each: (-(each.utility or 0.0), -(each.score or 0.0)))

    def compare(self, sources: Sequence[str], texts: Sequence[list[str]]) -> Iterator[np.ndarray]:
        """Yields for each source the metric (n, n) of its texts (rows) with each of them as reference (columns)."""
        if self.metric == "comet":
            yield from self.compare_by_comet(sources, texts)
            return
        metric = METRICS[self.metric]
        options = metric.options(self.scoring, sources) | OF_SENTENCES.get(self.metric, {})
        for row in texts:
            if not any(text.split() for text in row):  # which have no symbols that an error rate could count
                yield np.zeros((len(row), len(row)))
                continue
            scorer = metric.make_scorer([[text] for text in row], **options)
            yield chrf_of_pairs(scorer, row) if isinstance(scorer, CHRF) else score_of_pairs(scorer, row)

    def compare_by_comet(self, sources: Sequence[str], texts: Sequence[list[str]]) -> Iterator[np.ndarray]:
        """Yields COMET of all pairs, computed at once, because its program loads its model anew each time."""
        rows = [
            {"src": source, "mt": text, "ref": reference}
            for source, row in zip(sources, texts, strict=True)
            for text in row
            for reference in row
        ]
        scores = iter(run_comet(self.scoring.comet_python, self.scoring.comet_model, json.dumps(rows))["scores"])
        for row in texts:
            yield 100 * np.array([[next(scores) for _ in row] for _ in row])


def shares_of(texts: Sequence[str], scores: Sequence[float | None]) -> dict[str, float]:
    """Returns each different text's share of the probability, by its scores, or equal ones where there is none."""
    known = np.array([score or 0.0 for score in scores])
    probabilities = np.exp(known - known.max())
    shares = dict.fromkeys(texts, 0.0)
    for text, probability in zip(texts, (probabilities / probabilities.sum()).tolist(), strict=True):
        shares[text] += probability
    return shares


def score_of_pairs(scorer: Metric, texts: Sequence[str]) -> np.ndarray:
    """Returns a scorer's figure of each text with each as its reference, (n, n)."""
    prepared = [scorer._preprocess_segment(text) for text in texts]
    references = [scorer._extract_reference_info([text]) for text in prepared]
    scores = [
        [scorer._aggregate_and_compute([scorer._compute_segment_statistics(text, each)]).score for each in references]
        for text in prepared
    ]
    return np.array(scores)


def chrf_of_pairs(scorer: CHRF, texts: Sequence[str]) -> np.ndarray:
    """Returns chrF of each text with each as its reference, (n, n), from the n-grams of each, counted once."""
    counts = [scorer._extract_reference_info([scorer._preprocess_segment(text)])["ref_ngrams"][0] for text in texts]
    matches = np.stack([matches_of_pairs(counters) for counters in zip(*counts, strict=True)])  # (orders, n, n)
    totals = matches.diagonal(axis1=1, axis2=2)  # a text matches itself in all its n-grams
    is_order = (totals[:, :, None] > 0) & (totals[:, None, :] > 0)  # orders for which both texts are long enough
    orders = is_order.sum(axis=0).clip(min=1)
    precision = (matches / totals[:, :, None].clip(min=1)).sum(axis=0) / orders
    recall = (matches / totals[:, None, :].clip(min=1)).sum(axis=0) / orders
    weight = scorer.beta**2
    below = weight * precision + recall
    return 100 * (1 + weight) * precision * recall / np.where(below > 0, below, 1.0)


def matches_of_pairs(counters: Sequence[Counter]) -> np.ndarray:
    """Returns for n-grams of n texts how many each two have in common, (n, n)."""
    columns: dict = {}
    places = [[columns.setdefault(gram, len(columns)) for gram in counter] for counter in counters]
    counts = np.zeros((len(counters), len(columns)), dtype=np.float32)
    for row, counter, index in zip(counts, counters, places, strict=True):
        row[index] = list(counter.values())
    # Two texts have an n-gram in common as often as both have it once, twice and so on.
    matches = np.zeros((len(counters), len(counters)))
    while counts.size:
        present = (counts > 0).astype(np.float32)
        matches += present @ present.T
        counts = counts[:, counts.max(axis=0) > 1] - 1
    return matches
