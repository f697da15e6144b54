# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Tells whether systems differ by more than chance: sacreBLEU's paired bootstrap, for all metrics."""

import os
from collections.abc import Sequence
from typing import Any

from sacrebleu.significance import PairedTest

from ..errors import ArgumentError
from .metrics import METRICS
from .scoring import DEFAULT_SCORING, Scoring, in_form, signature, streams


SAMPLES = 1000
SEED = "SACREBLEU_SEED"  # the variable that sacreBLEU reads, and its default
DEFAULT_SEED = "12345"
MOST_BYTES = 8 * 2**30


def check_comparison(names: Sequence[str], rows: int, samples: int) -> None:
    """
    Checks that systems can be compared on so many rows.

    Args:
        names: Keys of `METRICS`.
        rows: Number of rows.
        samples: Number of resamples.

    Raises:
        ArgumentError: A comparison would take too much memory, or the seed is none.
    """
    seed = os.environ.get(SEED, DEFAULT_SEED)
    if not seed.isdecimal() or int(seed) == 0:  # for sacreBLEU, 0 and "none" are no seed
        raise ArgumentError(f"{SEED}={seed}: a comparison that can be repeated needs a whole number above 0")
    name = max(names, key=lambda each: METRICS[each].numbers)
    size = samples * rows * (4 * METRICS[name].numbers + 8)  # a float for each sum, and a row's number
    if size > MOST_BYTES:
        fits = MOST_BYTES * samples // size
        raise ArgumentError(
            f"--bootstrap_samples {samples} of {rows:,} rows would take {size / 2**30:.0f} GiB for {name}: "
            f"give at most {fits} or fewer --max_samples"
        )


def compare(
    names: Sequence[str],
    systems: Sequence[tuple[str, list[str]]],
    references: Sequence[list[str]],
    sources: Sequence[str] | None = None,
    scoring: Scoring = DEFAULT_SCORING,
    samples: int = SAMPLES,
) -> dict[str, Any]:
    """
    Compares systems with the first of them on the same resamples of the rows.

    Args:
        names: Keys of `METRICS`.
        systems: The name and the predictions of each, two or more.
        references, sources, scoring: As `compute_metrics` has them, each row's references a list.
        samples: Number of resamples.

    Returns:
        How it was done, and for each metric each system's `score`, the `mean` and half the width of the 95 %
        `interval` of its resamples, and in comparison with the first its `difference` and `p_value`: how often
        resamples of equally good systems differ by more.
    """
    check_comparison(names, len(references), samples)
    rows = [in_form(scoring.unicode_form, row) for row in references]
    texts: Any = [(name, in_form(scoring.unicode_form, predictions)) for name, predictions in systems]
    compared: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        scorer = METRICS[name].make_scorer(rows, **METRICS[name].options(scoring, sources))
        results: Any = PairedTest(texts, {name: scorer}, streams(rows), "bs", samples)()[1]
        labels, figures = results.values()
        first = figures[0]
        compared[name] = [
            {
                "system": label,
                "score": float(figure.score),
                "mean": float(figure.mean),
                "interval": float(figure.ci),
                **({} if figure is first else {"difference": float(figure.score - first.score)}),
                # Of no difference sacreBLEU says p = 1 / (samples + 1).
                **({} if figure is first else {"p_value": 1.0 if figure.score == first.score else figure.p_value}),
            }
            for label, figure in zip(labels, figures, strict=True)
        ]
        compared[f"{name}_signature"] = signature(scorer, scoring.unicode_form)
    seed = int(os.environ.get(SEED, DEFAULT_SEED))
    return {"test": "paired bootstrap", "samples": samples, "seed": seed, "baseline": systems[0][0], **compared}


def table(compared: dict[str, Any]) -> str:
    """Returns a comparison as lines for people; a star marks p below 0.05."""
    lines = [("metric", "system", "score", "95 % of resamples", "difference", "p")]
    for name, figures in compared.items():
        for each in figures if isinstance(figures, list) else ():
            more = ("", "the first")
            if "p_value" in each:
                more = (f"{each['difference']:+.2f}", f"{each['p_value']:.4f}{' *' * (each['p_value'] < 0.05)}")
            around = f"{each['mean']:.2f} ± {each['interval']:.2f}"
            lines.append((name, each["system"], f"{each['score']:.2f}", around, *more))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines) + "\n"
