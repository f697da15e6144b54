# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Corpus metrics as `evaluate.Metric` classes inside the package, so that nothing is downloaded.

A row is one prediction (a string) with its references (one string, or several of which any is right).
Every figure is a percentage, 0 to 100, as in published tables.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, ClassVar

import evaluate
from datasets import Features, List, Value
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics import BLEU, CHRF

from ..errors import ArgumentError, DataError, did_you_mean


class TextMetric(evaluate.Metric):
    """
    Base of the metrics below: their columns, and a check of the rows before anything is computed.

    `compute(predictions=..., references=...)` raises DataError, a ValueError, if there are no rows, for unequal
    counts, for a row without a reference and for anything that is not a string.
    """

    description: ClassVar[str]
    greater_is_better: ClassVar[bool]
    citation: ClassVar[str] = ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.description,
            citation=self.citation,
            inputs_description="predictions: list of strings; references: for each a string or a list of strings",
            features=Features({"predictions": Value("string"), "references": List(Value("string"))}),
        )

    def add_batch(self, *, predictions: Sequence[str], references: Sequence[str | Sequence[str]], **kwargs) -> None:
        """Adds rows, each reference a string or a list of strings."""
        super().add_batch(predictions=predictions, references=checked_references(predictions, references), **kwargs)

    def add(self, *, prediction: str, reference: str | Sequence[str], **kwargs) -> None:
        """Adds one row."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)


def checked_references(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> list[list[str]]:
    """Returns the references as lists; raises DataError for rows that cannot be scored."""
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} predictions but {len(references)} rows of references")
    if len(predictions) == 0:
        raise DataError("there are no predictions to score")
    rows: list[list[Any]] = [list(row) if isinstance(row, list | tuple) else [row] for row in references]
    for number, (prediction, row) in enumerate(zip(predictions, rows, strict=True), start=1):
        if not row:
            raise DataError(f"row {number} has no reference")
        for text in (prediction, *row):
            if not isinstance(text, str):
                raise DataError(f"row {number} holds {text!r} where a string should be")
    return rows


class SacreBleu(TextMetric):
    """
    Corpus BLEU as sacreBLEU defines it (Post 2018), on detokenised text.

    `compute` takes sacreBLEU's own options, such as `tokenize`, `lowercase` and `smooth_method`, and returns `score`
    with the `signature` that makes it comparable. Rows may have different numbers of references.
    """

    description = "Corpus BLEU with its signature, by sacreBLEU."
    greater_is_better = True
    citation = "Post, Matt. A Call for Clarity in Reporting BLEU Scores. WMT 2018."

    def _compute(self, *, predictions: list[str], references: list[list[str]], **options: Any) -> dict[str, Any]:
        return score_with_signature(BLEU(**options), predictions, references)


class ChrF(TextMetric):
    """
    Corpus chrF, the character n-gram F-score (Popović 2015), by sacreBLEU; `word_order=2` makes it chrF++.

    Returns `score` and `signature`. Rows may have different numbers of references.
    """

    description = "Corpus chrF with its signature, by sacreBLEU."
    greater_is_better = True
    citation = "Popović, Maja. chrF: character n-gram F-score for automatic MT evaluation. WMT 2015."

    def _compute(self, *, predictions: list[str], references: list[list[str]], **options: Any) -> dict[str, Any]:
        return score_with_signature(CHRF(**options), predictions, references)


def score_with_signature(metric: BLEU | CHRF, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
    """Returns sacreBLEU's score and signature."""
    # sacreBLEU wants all first references, all second ones and so on; None stands for one that a row does not have.
    streams = [list(stream) for stream in zip_longest(*references)]
    score = metric.corpus_score(predictions, streams).score
    return {"score": score, "signature": str(metric.get_signature())}


class ExactMatch(TextMetric):
    """Share of rows equal, character by character, to any of their references."""

    description = "Share of rows equal to any of their references, in percent."
    greater_is_better = True

    def _compute(self, *, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        hits = sum(text in row for text, row in zip(predictions, references, strict=True))
        return {"exact_match": 100 * hits / len(predictions)}


class WordErrorRate(TextMetric):
    """
    WER as grapheme-to-phoneme conversion defines it: the share of *rows* that equal none of their references.

    A row is one word and is compared symbol by symbol, so that spacing does not count. In speech recognition the word
    error rate is another figure, edits divided by reference words: that one is `per` on ordinary text.
    """

    description = "Share of rows (words) that equal none of their references, in percent."
    greater_is_better = False

    def _compute(self, *, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        errors = sum(
            prediction.split() not in [reference.split() for reference in row]
            for prediction, row in zip(predictions, references, strict=True)
        )
        return {"wer": 100 * errors / len(predictions)}


class PhonemeErrorRate(TextMetric):
    """
    PER: edits over whitespace-separated symbols, divided by the number of reference symbols.

    Each row is compared with its nearest reference by edit distance (insertions, deletions and substitutions cost 1);
    of two equally near ones with the shorter, which gives the higher rate. It may exceed 100. On ordinary text, where
    the symbols are words, this is the word error rate of speech recognition; `wer` is another figure.

    `compute` raises DataError if the references hold no symbol at all.
    """

    description = "Edit distance over symbols to the nearest reference, in percent of the reference symbols."
    greater_is_better = False

    def _compute(self, *, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        edits = symbols = 0
        for prediction, row in zip(predictions, references, strict=True):
            distance, length = min(distance_and_length(prediction, reference) for reference in row)
            edits += distance
            symbols += length
        if symbols == 0:
            raise DataError("the references hold no symbols, so there is no phoneme error rate")
        return {"per": 100 * edits / symbols}


def distance_and_length(prediction: str, reference: str) -> tuple[int, int]:
    """Returns the edit distance between two texts in symbols, and the number of symbols in the reference."""
    symbols = reference.split()
    return Levenshtein.distance(prediction.split(), symbols), len(symbols)


METRICS: dict[str, type[TextMetric]] = {
    "sacrebleu": SacreBleu,
    "chrf": ChrF,
    "exact_match": ExactMatch,
    "wer": WordErrorRate,
    "per": PhonemeErrorRate,
}


# Everything that an evaluation may choose the best model by, and whether the larger value is the better one.
GREATER_IS_BETTER = {"loss": False} | {name: metric.greater_is_better for name, metric in METRICS.items()}


def check_metric_names(names: Sequence[str], where: str = "metrics") -> None:
    """Raises ArgumentError, listing the known names, unless every name is in `METRICS`."""
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        near = did_you_mean(unknown[0], METRICS)
        raise ArgumentError(
            f"{where}: unknown metric {', '.join(map(repr, unknown))}; known are {', '.join(METRICS)}{near}"
        )


def compute_metrics(
    names: Sequence[str], predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> dict[str, float | str]:
    """
    Scores the rows by each named metric.

    Args:
        names: Keys of `METRICS`, each computed once however often it is named.
        predictions: N strings.
        references: N entries, each a string or a list of strings of which any is right.

    Returns:
        The percentage under each metric's name; sacrebleu and chrf add their signature, as in
        `{"sacrebleu": 41.0, "sacrebleu_signature": "nrefs:1|case:mixed|...", "per": 9.9}`.

    Raises:
        ArgumentError: A name is unknown.
        DataError: There are no rows, the counts differ, a row has no reference, or something is not a string.
    """
    check_metric_names(names)
    figures: dict[str, float | str] = {}
    for name in dict.fromkeys(names):
        # In memory, because processes that score at the same time would share evaluate's cache folder.
        result = METRICS[name](keep_in_memory=True).compute(predictions=predictions, references=references)
        for key, value in result.items():
            figures[name if key in (name, "score") else f"{name}_{key}"] = value
    return figures
