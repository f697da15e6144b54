# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Corpus metrics as `evaluate.Metric` classes inside the package, so that nothing is downloaded.

A row is one prediction (a string) with its references (one string, or several of which any is right).
Every figure is a percentage, as in published tables, and has a signature of what it depends on.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, ClassVar

import evaluate
from datasets import Features, List, Value
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric

from ..data.scripts import script_of
from ..errors import ArgumentError, DataError, did_you_mean
from .bleu_tokenizers import check_tokenizer, describe_tokenizer, tokenizer_for
from .scorers import Comet, EditRate, MatchRate, MismatchRate


NFC = "NFC"
UNICODE_FORMS = (NFC, "NFKC", "none")
TOKENIZERS = tuple(BLEU.TOKENIZERS)
COMET_MODEL = "Unbabel/wmt22-comet-da"


@dataclass(frozen=True)
class Scoring:
    """
    How texts are compared.

    Args:
        sacrebleu_tokenize: One of `TOKENIZERS`; by default it follows from the references' script.
        unicode_form: One of `UNICODE_FORMS`; in NFC an é of one character equals one of two.
        comet_model: Name on the Hub, or a checkpoint file.
        comet_python: Program of the environment that has COMET; this one by default.
    """

    sacrebleu_tokenize: str | None = None
    unicode_form: str = NFC
    comet_model: str = COMET_MODEL
    comet_python: str | None = None


DEFAULT_SCORING = Scoring()


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
    numbers: ClassVar[int] = 2  # that a row adds to sums
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
    def make_scorer(cls, references: list[list[str]], **options: Any) -> Metric:
        """Returns what scores rows: one of sacreBLEU's metrics, or one made like them."""
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


def in_form(unicode_form: str, texts: Sequence[str]) -> list[str]:
    """Returns texts in a Unicode form; "none" leaves them as they are."""
    if unicode_form not in UNICODE_FORMS:
        raise ArgumentError(f"unicode_form {unicode_form!r}: there are {', '.join(UNICODE_FORMS)}")
    if unicode_form == "none":
        return list(texts)
    return [unicodedata.normalize(unicode_form, text) for text in texts]  # type: ignore[arg-type]


def streams(references: list[list[str]]) -> list[list[str]]:
    """Returns references as sacreBLEU wants them: all first ones, all second ones and so on, None for none."""
    return [list(stream) for stream in zip_longest(*references)]


def signature(scorer: Metric, unicode_form: str) -> str:
    """Returns a scorer's signature with the Unicode form; its version stays at the end."""
    named = scorer.get_signature()
    if isinstance(scorer, Comet):
        named.update("model", scorer.model)
    named.update("unicode", unicode_form.lower())
    return str(named)


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
    def make_scorer(cls, references, tokenize: str | None = None, **options: Any) -> Metric:
        if tokenize is None:
            tokenize = tokenizer_for(text for row in references for text in row)
            why = f"sacrebleu: by their script the references want the tokenizer {tokenize}"
        else:
            why = f"--sacrebleu_tokenize {tokenize}"
        check_tokenizer(tokenize, why)
        return BLEU(tokenize=tokenize, **options)


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

    Chinese and Japanese are split into characters, by `asian_support` and `normalized`.
    """

    description = "Corpus translation edit rate with its signature, by sacreBLEU."
    greater_is_better = False
    citation = "Snover et al. A Study of Translation Edit Rate with Targeted Human Annotation. AMTA 2006."

    @classmethod
    def make_scorer(cls, references, **options: Any) -> Metric:
        script = script_of(text for row in references for text in row)
        if script is not None and script.language in ("Chinese", "Japanese"):
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
    """Raises ArgumentError, listing the known names, unless every name is in `METRICS`, and in training can be had."""
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
    for name in names:
        METRICS[name].make_scorer(rows, **METRICS[name].options(scoring, sources))
    texts = [text for row in rows for text in row]
    script = script_of(texts)
    notes = [f"{name}: {METRICS[name].reading}" for name in names if METRICS[name].reading]
    if "sacrebleu" in names and (note := describe_tokenizer(scoring.sacrebleu_tokenize, texts)):
        notes.append(note)
    if script is not None and not script.has_spaces:
        by_space = [name for name in names if name == "wer"]
        by_space += ["ter"] * ("ter" in names and script.language not in ("Chinese", "Japanese"))
        notes += [
            f"{name}: {script.share:.0%} of the references' letters are {script.language}, whose words do not stand "
            "between spaces: consider cer"
            for name in by_space
        ]
        if "ter" in names and "ter" not in by_space:
            notes.append(f"ter: {script.share:.0%} of the references' letters are {script.language}, split one by one")
    note = describe_form(scoring.unicode_form, "references", references)
    return notes if note is None else [*notes, note]


def describe_form(unicode_form: str, what: str, rows: Sequence[Sequence[str]]) -> str | None:
    """Returns how many texts are compared in another form than their own, and the first of them; None for no text."""
    if unicode_form == "none":
        return None
    numbered = [(number, text) for number, row in enumerate(rows, start=1) for text in row]
    other = [
        each
        for each in numbered
        if not unicodedata.is_normalized(unicode_form, each[1])  # type: ignore[arg-type]
    ]
    if not other:
        return None
    number, text = other[0]
    return (
        f"{len(other):,} of {len(numbered):,} {what} are not in {unicode_form} and are compared in it, first row "
        f"{number}: {text!r:.60}; --unicode_form none compares them as they are"
    )


def nearest(prediction: str, references: Sequence[str], unicode_form: str = NFC) -> tuple[str, bool]:
    """Returns the reference that takes the fewest edits of characters, and whether it takes none."""
    (text,) = in_form(unicode_form, [prediction])
    distances = [Levenshtein.distance(text, each) for each in in_form(unicode_form, references)]
    return references[distances.index(min(distances))], min(distances) == 0


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
