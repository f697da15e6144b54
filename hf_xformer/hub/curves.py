# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run's curves: losses and metrics over the steps."""

from collections.abc import Iterable
from pathlib import Path

from ..files import write_whole


# Logged with every evaluation, and not measures of quality.
TIMINGS = ("runtime", "samples_per_second", "steps_per_second", "epoch", "model_preparation_time")


def plot_curves(log_history: list[dict], path: Path) -> None:
    """Draws training and validation loss, and every validation metric, over the optimizer's steps."""
    from matplotlib.figure import Figure

    curves = collect_curves(log_history)
    figure = Figure(figsize=(4.5 * len(curves), 3.5), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for label, points in lines.items():
            axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 40 else "")
        axes.set(title=title, xlabel="optimizer steps")
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend()
    write_whole(path, lambda unfinished: figure.savefig(unfinished, dpi=120))


def collect_curves(log_history: list[dict]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Returns `{panel: {line: [(step, value), ...]}}`: one panel for the losses, and one for each metric."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {"loss": {}}
    for entry in log_history:
        scores = {each.removeprefix("eval_") for each in entry if each.startswith("eval_")}
        for name, value in entry.items():
            score = name.removeprefix("eval_")
            if value is None:  # it was not finite
                continue
            if name == "loss":
                curves["loss"].setdefault("training", []).append((entry["step"], value))
            elif name != score and score not in TIMINGS and isinstance(value, int | float):
                part, metric = set_and_metric(score, scores)
                curves.setdefault(metric, {}).setdefault(part or "validation", []).append((entry["step"], value))
    return curves


def set_and_metric(score: str, scores: Iterable[str]) -> tuple[str, str]:
    """
    Returns the validation set and the metric of a score: "news" and "chrf" of "news_chrf". The set of a metric alone,
    which is that of a single set or the mean of several, is an empty text.

    Args:
        scores: Names of all scores of the evaluation. Where there are several sets, each metric has its mean.
    """
    scores = tuple(scores)
    fitting = [each for each in scores if score.endswith(f"_{each}")]
    # A set's name may end with another's, whose own score fits too.
    metric = next((each for each in fitting if set_and_metric(each, scores)[0] == ""), score)
    return score.removesuffix(metric).removesuffix("_"), metric
