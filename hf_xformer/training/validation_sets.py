# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Several validation sets by name, and the names of their scores: `news_chrf` of one set, `chrf` the mean of all.

To the Trainer they are one dataset, so that an evaluation is one, with one log; no batch has rows of two sets.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..decoding.metrics import GREATER_IS_BETTER
from ..errors import ArgumentError, did_you_mean
from ..yaml_files import read_mapping_option
from .arguments import ValidationSetArguments
from .schema import read_mapping


def parse_sets(given: dict[str, Any] | str | None) -> dict[str, dict[str, Any]] | None:
    """
    Returns the options of each validation set, as far as they are given, of which `validation_file` always is.

    Args:
        given: `"news=news.jsonl,talks=talks.jsonl"`, or a mapping of names to files or options, as such or in braces
            as YAML or JSON has it.

    Raises:
        ArgumentError: It is neither, an option is unknown, or a name cannot be part of the name of a score.
    """
    if given is None:
        return None
    where = "--validation_sets"
    given = read_mapping_option("validation_sets", given, "name=file", str.strip)
    if not given:
        raise ArgumentError(f"{where}: names no set")
    found = {}
    for name, files in given.items():
        if not re.fullmatch(r"\w[\w-]*", name):
            raise ArgumentError(
                f"{where} {name}: a name has letters, digits, - and _ alone, as scores are called by it"
            )
        if f"{name}_".startswith("eval_"):
            raise ArgumentError(f"{where} {name}: the Trainer takes this for its own eval_: give another name")
        options = files if isinstance(files, dict) else {"validation_file": files}
        parsed = asdict(read_mapping(ValidationSetArguments, options, f"{where} {name}"))
        found[name] = {option: value for option, value in parsed.items() if value}
        if "validation_file" not in found[name]:
            raise ArgumentError(f"{where} {name}: give validation_file, a file or a list of files")
    return found


def metric_of(score: str | None, sets: Iterable[str]) -> str:
    """Returns the metric of a score, as `metric_for_best_model` names it: `chrf` of `eval_news_chrf`."""
    name = (score or "loss").removeprefix("eval_")
    if name in GREATER_IS_BETTER:
        return name
    # The longest first: a set's name may begin with another's.
    in_turn = sorted(sets, key=len, reverse=True)
    return next((name.removeprefix(f"{each}_") for each in in_turn if name.startswith(f"{each}_")), name)


def score_names(metrics: Sequence[str], sets: Iterable[str]) -> list[str]:
    """Returns the names of all scores of an evaluation: of each metric, and of each set by each metric."""
    computed = ["loss", *metrics]
    return [*computed, *(f"{each}_{name}" for each in sets for name in computed)]


def check_best_score(score: str | None, metrics: Sequence[str], sets: Iterable[str]) -> None:
    """
    Checks that an evaluation gives the score by which the best model is chosen.

    Raises:
        ArgumentError: It does not; the message has those that it gives, or the one that was meant.
    """
    sets = tuple(sets)
    best = (score or "loss").removeprefix("eval_")
    if best in (known := score_names(metrics, sets)):
        return
    where = f"--metric_for_best_model {best}: evaluation gives {', '.join(known)}"
    if (metric := metric_of(score, sets)) in GREATER_IS_BETTER:
        raise ArgumentError(f"{where}; give --metrics {metric} too")
    raise ArgumentError(f"{where}{did_you_mean(best, [*known, *GREATER_IS_BETTER])}")


def join_scores(of_sets: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """
    Returns the scores of all sets by their names, and the mean over the sets of each metric; of a single set without a
    name its own scores.
    """
    if list(of_sets) == [""]:
        return dict(of_sets[""])
    metrics = dict.fromkeys(metric for scores in of_sets.values() for metric in scores)
    means = {}
    for metric in metrics:
        values = [scores[metric] for scores in of_sets.values() if metric in scores]
        means[metric] = sum(values) / len(values)
    return means | {f"{name}_{metric}": value for name, scores in of_sets.items() for metric, value in scores.items()}
