# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Figures that sacreBLEU has not, as subclasses of its `Metric`, so that its significance tests resample them too."""

import json
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics.base import Metric, Score

from ..errors import ArgumentError
from . import comet_worker
from .scoring import NFC, in_form


class Ratio(Metric):
    """A percentage of two sums over all rows, such as edits and reference words."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    @abstractmethod
    def parts(self, prediction: str, references: list[str]) -> tuple[float, float]:
        """Returns what a row adds to the two sums."""

    def _preprocess_segment(self, sent: str) -> str:
        return sent

    def _extract_reference_info(self, refs: Sequence[str]) -> dict[str, Any]:
        return {"references": list(refs)}

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict) -> list[float]:
        return list(self.parts(hypothesis, ref_kwargs["references"]))

    def _compute_score_from_stats(self, stats: Sequence[float]) -> Score:
        above, below = map(float, stats)
        # Without reference words anything written is wrong, as in sacreBLEU's TER; a resample may have none.
        return Score(self.name, 100 * above / below if below else 100.0 * (above > 0))

    def _aggregate_and_compute(self, stats: list[list[float]]) -> Score:
        return self._compute_score_from_stats([sum(column) for column in zip(*stats, strict=True)])


class MatchRate(Ratio):
    """Share of rows equal to any of their references."""

    def parts(self, prediction: str, references: list[str]) -> tuple[float, float]:
        return float(prediction in references), 1.0


class MismatchRate(Ratio):
    """Share of rows that equal none of their references symbol by symbol, so that spacing does not count."""

    def parts(self, prediction: str, references: list[str]) -> tuple[float, float]:
        return float(prediction.split() not in [reference.split() for reference in references]), 1.0


class EditRate(Ratio):
    """
    Insertions, deletions and substitutions, divided by the number of reference symbols.

    Each row is compared with its nearest reference; of two equally near ones with the shorter, which gives the higher
    rate. It may exceed 100.

    Args:
        name: Of the figure.
        split: Returns the symbols of a text.
    """

    def __init__(self, name: str, split: Callable[[str], Sequence[str]]):
        super().__init__(name)
        self.split = split

    def parts(self, prediction: str, references: list[str]) -> tuple[float, float]:
        written = self.split(prediction)
        rows = [self.split(reference) for reference in references]
        return min((Levenshtein.distance(written, symbols), len(symbols)) for symbols in rows)


class Comet(Ratio):
    """
    COMET, times 100, by its package in a Python of its own; of several references the one with the best score counts.

    Args:
        sources: Of all rows.
        model: Name on the Hub, or a checkpoint file.
        python: Program of the environment that has `unbabel-comet`; this one by default.

    Raises:
        ArgumentError: The package or the model cannot be had there.
    """

    def __init__(self, sources: Sequence[str], model: str, python: str | None):
        super().__init__("comet")
        self.sources, self.model, self.python = sources, model, python
        self.version = run_comet_once(self.python, self.model)["version"]

    def get_signature(self):
        named = super().get_signature()
        named.update("model", self.model)
        named.update("comet", self.version)  # beside sacreBLEU's own
        return named

    def parts(self, prediction: str, references: list[str]) -> tuple[float, float]:
        raise NotImplementedError("rows are scored together")

    def _extract_corpus_statistics(self, hypotheses: Sequence[str], references: Any) -> list[list[float]]:
        rows = [
            [{"src": source, "mt": prediction, "ref": reference} for reference in each["references"]]
            for source, prediction, each in zip(
                self.sources, hypotheses, self._cache_references(references), strict=True
            )
        ]
        found = run_comet_once(self.python, self.model, json.dumps([each for row in rows for each in row]))
        scores = iter(found["scores"])
        return [[max(next(scores) for _ in row), 1.0] for row in rows]


def run_comet(python: str | None, model: str, rows: str = "") -> dict[str, Any]:
    """
    Returns COMET's `scores` of rows, a JSON list, and its `version`; without rows it only looks for package and model.

    Args:
        python: Program of the environment that has the package; this one by default.
        model: Name on the Hub, or a checkpoint file.

    Raises:
        ArgumentError: It fails there; the message has the last line of what it said and what to type.
    """
    python = python or sys.executable
    command = [python, str(Path(comet_worker.__file__)), model]
    try:
        done = subprocess.run(command, input=rows, capture_output=True, text=True, encoding="utf-8")
        said = done.stderr
    except OSError as error:
        done, said = None, str(error)
    if done is not None and done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = (said.strip().splitlines() or ["no word"])[-1]
    if "No module named 'comet'" in last:
        raise ArgumentError(
            f"comet: {python} has no package unbabel-comet, which needs an environment of its own "
            "(transformers below 5, numpy below 2): python -m venv comet-env; "
            "comet-env/bin/pip install unbabel-comet; then add --comet_python comet-env/bin/python"
        )
    raise ArgumentError(
        f"comet with --comet_python {python} --comet_model {model}: {last}; models are downloaded from the "
        "Hub, and some of them want `hf auth login` first"
    )


run_comet_once = cache(run_comet)  # a metric's rows are scored for the figure and again for its significance


def nearest(prediction: str, references: Sequence[str], unicode_form: str = NFC) -> tuple[str, bool]:
    """Returns the reference that takes the fewest edits of characters, and whether it takes none."""
    (text,) = in_form(unicode_form, [prediction])
    distances = [Levenshtein.distance(text, each) for each in in_form(unicode_form, references)]
    return references[distances.index(min(distances))], min(distances) == 0
