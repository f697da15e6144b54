# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Compares texts, whatever the metric: rows of references, Unicode forms, signatures."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, DataError


if TYPE_CHECKING:  # what decodes and scores nothing does without the extra `train`
    from sacrebleu.metrics.base import Metric

NFC = "NFC"
UNICODE_FORMS = (NFC, "NFKC", "none")
COMET_MODEL = "Unbabel/wmt22-comet-da"


@dataclass(frozen=True)
class Scoring:
    """
    Options of comparing texts.

    Args:
        sacrebleu_tokenize: One of `metrics.TOKENIZERS`; by default it follows from the references' script.
        unicode_form: One of `UNICODE_FORMS`; in NFC an é of one character equals one of two.
        comet_model: Name on the Hub, or a checkpoint file.
        comet_python: Program of the environment that has COMET; this one by default.
    """

    sacrebleu_tokenize: str | None = None
    unicode_form: str = NFC
    comet_model: str = COMET_MODEL
    comet_python: str | None = None


DEFAULT_SCORING = Scoring()


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


def signature(scorer: "Metric", unicode_form: str) -> str:
    """Returns a scorer's signature with the Unicode form; its version stays at the end."""
    named = scorer.get_signature()
    named.update("unicode", unicode_form.lower())
    return str(named)


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


def describe_repeats(sources: Sequence[str], references: Sequence[Sequence[str]]) -> str | None:
    """Returns how many rows repeat the source of an earlier row with other references; None for no row."""
    seen: dict[str, list[Sequence[str]]] = {}
    repeated = []
    for number, (source, row) in enumerate(zip(sources, references, strict=True), start=1):
        earlier = seen.setdefault(source, [])
        if earlier and row not in earlier:
            repeated.append((number, source))
        earlier.append(row)
    if not repeated:
        return None
    number, source = repeated[0]
    return (
        f"{len(repeated):,} of {len(sources):,} rows repeat a source with other references, first row {number}: "
        f"{source!r:.60}; each is scored by its own alone; of targets in one row, as a list, any is right"
    )
