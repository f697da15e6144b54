# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Corpus metrics as `evaluate.Metric` classes inside the package, so that nothing is downloaded.

A row is one prediction (a string) with its references (one string, or several of which any is right).
Every figure is a percentage, as in published tables, and has a signature of what it depends on.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import evaluate
from datasets import Features, List, Value
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric

from ..data.scripts import Script, script_of
from ..errors import ArgumentError, DataError, did_you_mean
from .scorers import Comet, EditRate, MatchRate, MismatchRate
from .scoring import (
    DEFAULT_SCORING,
    NFC,
    Scoring,
    checked_references,
    describe_form,
    describe_repeats,
    in_form,
    signature,
    streams,
)
from .word_splitting import check_tokenizer, describe_spaces, describe_tokenizer, share_of, tokenizer_for


class TextMetric(evaluate.Metric):
    """
    Base of the metrics below: their columns, a check of the rows before anything is computed, and one Unicode form.

    `compute(predictions=..., references=..., unicode_form="NFC")` returns `score` and `signature`. It raises
    DataError, a ValueError, if there are no rows, for unequal counts, for a row without a reference and for anything
    that is not a string.
    """

    description: ClassVar[str]
    greater_is_better: ClassVar[bool]
    citation: ClassVar[str] = ""
    in_training: ClassVar[bool] = True
    numbers: ClassVar[int] = 2  # sums that a row adds to, for the memory of the bootstrap
    reading: ClassVar[str] = ""  # what a reader might take its name for

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

    @classmethod
    def options(cls, scoring: Scoring, sources: Sequence[str] | None) -> dict[str, Any]:
        """Returns the arguments of `make_scorer` beside the references."""
        return {}

    @classmethod
    def notes(cls, scoring: Scoring, script: Script | None) -> list[str]:
        """Returns sentences on what was chosen, and what might be misread, for references of a script."""
        return [cls.reading] if cls.reading else []

    @classmethod
    def make_scorer(cls, references: list[list[str]], **options: Any) -> Metric:
        """Returns the scorer of rows: one of sacreBLEU's metrics, or one made like them."""
        raise NotImplementedError

    def _compute(self, *, predictions: list[str], references: list[list[str]], **options: Any) -> dict[str, Any]:
        return self.score(predictions, references, **options)

    @classmethod
    def score(
        cls, predictions: Sequence[str], references: Sequence[list[str]], unicode_form: str = NFC, **options: Any
    ) -> dict[str, Any]:
        """Returns the score of rows, which have been checked, and its signature."""
        references = [in_form(unicode_form, row) for row in references]
        scorer = cls.make_scorer(references, **options)
        score = scorer.corpus_score(in_form(unicode_form, predictions), streams(references)).score
        return {"score": score, "signature": signature(scorer, unicode_form)}


class SacreBleu(TextMetric):
    """
    Corpus BLEU as sacreBLEU defines it (Post 2018), on detokenised text.

    `compute` takes sacreBLEU's own options too, such as `tokenize`, `lowercase` and `smooth_method`. Without
    `tokenize` the references' script chooses it.
    """

    description = "Corpus BLEU with its signature, by sacreBLEU."
    greater_is_better = True
    citation = "Post, Matt. A Call for Clarity in Reporting BLEU Scores. WMT 2018."
    numbers = 10

    @classmethod
    def options(cls, scoring, sources):
        return {"tokenize": scoring.sacrebleu_tokenize}

    @classmethod
    def notes(cls, scoring, script):
        return describe_tokenizer(scoring.sacrebleu_tokenize, script)

    @classmethod
    def make_scorer(cls, references, tokenize: str | None = None, **options: Any) -> Metric:
        if tokenize is None:
            tokenize = tokenizer_for(text for row in references for text in row)
            why = f"sacrebleu: by their script the references want the tokenizer {tokenize}"
        else:
            why = f"--sacrebleu_tokenize {tokenize}"
        check_tokenizer(tokenize, why)
        # Without a tokenizer of its own, it is to score tokenised texts, of which it warns.
        return BLEU(**{"tokenize": tokenize, "force": tokenize == "none", **options})


class ChrF(TextMetric):
    """Corpus chrF, the character n-gram F-score (Popović 2015), by sacreBLEU, whose options `compute` takes."""

    description = "Corpus chrF with its signature, by sacreBLEU."
    greater_is_better = True
    citation = "Popović, Maja. chrF: character n-gram F-score for automatic MT evaluation. WMT 2015."
    numbers = 24

    @classmethod
    def make_scorer(cls, references, **options: Any) -> Metric:
        return CHRF(**options)


class ChrFPlusPlus(ChrF):
    """Corpus chrF++ (Popović 2017): chrF with words and pairs of words."""

    description = "Corpus chrF++ with its signature, by sacreBLEU."
    citation = "Popović, Maja. chrF++: words helping character n-grams. WMT 2017."

    @classmethod
    def make_scorer(cls, references, **options: Any) -> Metric:
        return CHRF(**{"word_order": 2, **options})


class TranslationEditRate(TextMetric):
    """
    TER (Snover 2006) by sacreBLEU, whose options `compute` takes. Edits, moves of words included, of average length.

    Chinese characters are split, by `asian_support` and `normalized`; sacreBLEU 2.6 leaves runs of kana whole.
    """

    description = "Corpus translation edit rate with its signature, by sacreBLEU."
    greater_is_better = False
    citation = "Snover et al. A Study of Translation Edit Rate with Targeted Human Annotation. AMTA 2006."

    @staticmethod
    def splits(script: Script | None) -> bool:
        """Returns whether sacreBLEU splits a script's Chinese characters."""
        return script is not None and script.language in ("Chinese", "Japanese")

    @classmethod
    def notes(cls, scoring, script):
        if not cls.splits(script):
            return describe_spaces(script)
        of_kana = (
            "" if script.language == "Chinese" else " but for runs of kana, each of which is one word: consider cer"
        )
        return [f"{share_of(script)}, split one by one{of_kana}"]

    @classmethod
    def make_scorer(cls, references, **options: Any) -> Metric:
        if cls.splits(script_of(text for row in references for text in row)):
            options = {"asian_support": True, "normalized": True, **options}
        return TER(**options)


class ExactMatch(TextMetric):
    """Share of rows equal, character by character, to any of their references."""

    description = "Share of rows equal to any of their references, in percent."
    greater_is_better = True

    @classmethod
    def make_scorer(cls, references, **options: Any) -> Metric:
        return MatchRate("exact_match", **options)


class WrongWords(TextMetric):
    """
    Share of rows, each a word, that equal none of their references symbol by symbol; spacing does not count.

    Papers on pronunciation (grapheme-to-phoneme conversion) call it word error rate, WER.
    """

    description = "Share of rows (words) that equal none of their references, in percent."
    greater_is_better = False
    reading = "share of rows that match no reference; papers on pronunciation (G2P) call it WER, word error rate"

    @classmethod
    def make_scorer(cls, references, **options: Any) -> Metric:
        return MismatchRate("wrong_words", **options)


class ErrorRate(TextMetric):
    """
    Base of the rates of `EditRate`: edits, divided by the symbols of the nearest references.

    `compute` raises DataError if the references hold no symbol at all.
    """

    greater_is_better = False
    figure: ClassVar[str]

    @staticmethod
    def split(text: str) -> Sequence[str]:
        """Returns a text's symbols."""
        return text.split()

    @classmethod
    def make_scorer(cls, references, **options: Any) -> Metric:
        if not any(cls.split(text) for row in references for text in row):
            raise DataError(f"the references hold no symbols, so there is no {cls.figure}")
        return EditRate(cls.figure, cls.split, **options)


class WordErrorRate(ErrorRate):
    """WER as speech recognition defines it: edits of words between spaces, divided by the reference words."""

    description = "Edits of words to the nearest reference, in percent of the reference words."
    figure = "wer"
    reading = "edits per reference word, as in speech recognition; the share of wrong rows is wrong_words"

    @classmethod
    def notes(cls, scoring, script):
        return [cls.reading, *describe_spaces(script)]


class PhonemeErrorRate(ErrorRate):
    """PER: what `WordErrorRate` computes, where the symbols between spaces are phonemes."""

    description = "Edits of symbols between spaces to the nearest reference, in percent of the reference symbols."
    figure = "per"


class CharacterErrorRate(ErrorRate):
    """CER: edits of characters, spaces within the text included, divided by the reference characters."""

    description = "Edits of characters to the nearest reference, in percent of the reference characters."
    figure = "cer"

    @staticmethod
    def split(text: str) -> Sequence[str]:
        return text.strip()


class CometScore(TextMetric):
    """COMET (Rei 2020), times 100, by the package `unbabel-comet` in an environment of its own."""

    description = "COMET times 100, by its own package."
    greater_is_better = True
    citation = "Rei et al. COMET: A Neural Framework for MT Evaluation. EMNLP 2020."
    in_training = False

    @classmethod
    def options(cls, scoring, sources):
        if sources is None:
            raise ArgumentError("comet compares with the sources too: give them")
        return {"sources": sources, "model": scoring.comet_model, "python": scoring.comet_python}

    @classmethod
    def make_scorer(cls, references, **options: Any) -> Metric:
        return Comet(**options)


TOKENIZERS = tuple(BLEU.TOKENIZERS)  # of BLEU, by sacreBLEU's names
METRICS: dict[str, type[TextMetric]] = {
    "sacrebleu": SacreBleu,
    "chrf": ChrF,
    "chrf++": ChrFPlusPlus,
    "ter": TranslationEditRate,
    "exact_match": ExactMatch,
    "wer": WordErrorRate,
    "cer": CharacterErrorRate,
    "per": PhonemeErrorRate,
    "wrong_words": WrongWords,
    "comet": CometScore,
}
# Everything that an evaluation may choose the best model by, and whether the larger value is the better one.
GREATER_IS_BETTER = {"loss": False} | {
    name: metric.greater_is_better for name, metric in METRICS.items() if metric.in_training
}


def check_metric_names(names: Sequence[str], where: str = "metrics", in_training: bool = False) -> None:
    """
    Checks names of metrics.

    Args:
        where: The option, for the message.
        in_training: Whether only those count that can be had while training.

    Raises:
        ArgumentError: One is not in `METRICS`, or not for training; the message lists the known ones.
    """
    known = [name for name, metric in METRICS.items() if metric.in_training or not in_training]
    unknown = [name for name in names if name not in known]
    if unknown and unknown[0] in METRICS:
        raise ArgumentError(f"{where} {unknown[0]}: not while training; hf-xformer evaluate computes it afterwards")
    if unknown:
        near = did_you_mean(unknown[0], known)
        raise ArgumentError(
            f"{where}: unknown metric {', '.join(map(repr, unknown))}; known are {', '.join(known)}{near}"
        )


def check_metrics(
    names: Sequence[str],
    references: Sequence[Sequence[str]],
    sources: Sequence[str] | None = None,
    scoring: Scoring = DEFAULT_SCORING,
) -> list[str]:
    """
    Checks all that metrics need of their packages and of the references, before anything is decoded.

    Returns:
        Sentences on what was chosen, and what might be misread.

    Raises:
        ArgumentError: A name is unknown, or what a metric needs is not there.
        DataError: The references cannot be scored.
    """
    check_metric_names(names)
    rows = [in_form(scoring.unicode_form, row) for row in references]
    script = script_of(text for row in rows for text in row)
    notes = []
    for name in dict.fromkeys(names):
        METRICS[name].make_scorer(rows, **METRICS[name].options(scoring, sources))
        notes += [f"{name}: {note}" for note in METRICS[name].notes(scoring, script)]
    repeats = None if sources is None else describe_repeats(sources, references)
    form = describe_form(scoring.unicode_form, "references", references)
    return [*notes, *(note for note in (repeats, form) if note is not None)]


def compute_metrics(
    names: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    sources: Sequence[str] | None = None,
    scoring: Scoring = DEFAULT_SCORING,
) -> dict[str, float | str]:
    """
    Scores the rows by each named metric.

    Args:
        names: Keys of `METRICS`, each computed once however often it is named.
        predictions: N strings.
        references: N entries, each a string or a list of strings of which any is right.
        sources: N strings, which COMET wants.
        scoring: How texts are compared.

    Returns:
        The percentage under each metric's name and its signature, as in
        `{"sacrebleu": 41.0, "sacrebleu_signature": "nrefs:1|case:mixed|...", "per": 9.9, "per_signature": ...}`.

    Raises:
        ArgumentError: A name is unknown, or what a metric needs is not there.
        DataError: There are no rows, the counts differ, a row has no reference, or something is not a string.
    """
    check_metric_names(names)
    rows = checked_references(predictions, references)
    figures: dict[str, float | str] = {}
    for name in dict.fromkeys(names):
        options = METRICS[name].options(scoring, sources)
        result = METRICS[name].score(predictions, rows, unicode_form=scoring.unicode_form, **options)
        figures |= {name: result["score"], f"{name}_signature": result["signature"]}
    return figures
