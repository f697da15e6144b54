# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Stops a run whose evaluations no longer improve, and knows at its next start how far that had come."""

import math
from typing import Any

from accelerate import PartialState
from transformers import EarlyStoppingCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from ..errors import ArgumentError
from .arguments import DataArguments


def check_early_stopping(data_args: DataArguments, training_args: TrainingArguments) -> None:
    """
    Checks that a run that may stop early knows by what.

    Raises:
        ArgumentError: An option has a value that cannot be, or another is missing that it needs.
    """
    patience, threshold = data_args.early_stopping_patience, data_args.early_stopping_threshold
    if patience is None:
        if threshold:
            raise ArgumentError(
                f"--early_stopping_threshold {threshold} does nothing without --early_stopping_patience"
            )
        return
    if patience < 1:
        raise ArgumentError(f"--early_stopping_patience must be 1 or more, got {patience}")
    if threshold < 0:
        raise ArgumentError(f"--early_stopping_threshold must be 0 or more, got {threshold}")
    missing = []
    if training_args.eval_strategy == IntervalStrategy.NO:
        missing.append("--eval_strategy steps or epoch")
    if not training_args.load_best_model_at_end:
        missing.append("--load_best_model_at_end true")
    if missing:
        raise ArgumentError(
            f"--early_stopping_patience {patience} stops where evaluations no longer improve on the best: give "
            + " and ".join(missing)
        )


class EarlyStopping(EarlyStoppingCallback):
    """
    The library's callback, which goes on counting where a run resumes.

    An evaluation has to be better than the last one that counted as better, so that small gains add up; the library's
    has to be better than the best one, which every gain moves.
    """

    score_to_beat: float | None = None  # that of the last evaluation that counted

    def state(self) -> dict:
        found = super().state()
        return found | {"attributes": found["attributes"] | {"score_to_beat": self.score_to_beat}}

    def check_metric_value(self, args, state, control, metric_value):
        before, sign = self.score_to_beat, 1 if args.greater_is_better else -1
        is_better = before is None or sign * (metric_value - before) > self.early_stopping_threshold
        if is_better and math.isfinite(metric_value):
            self.score_to_beat, self.early_stopping_patience_counter = metric_value, 0
        else:
            self.early_stopping_patience_counter += 1

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self.early_stopping_patience_counter = evaluations_without_gain(state)
        # Without a best score those until now are of another kind, or there are none.
        saved = attributes_of_early_stopping(state).get("score_to_beat", state.best_metric)
        self.score_to_beat = None if state.best_metric is None else saved

    def on_train_end(self, args, state, control, **kwargs):
        count = self.early_stopping_patience_counter
        if count >= self.early_stopping_patience and state.global_step < state.max_steps:
            threshold = self.early_stopping_threshold
            gain = f" by more than --early_stopping_threshold {threshold:g}" if threshold else ""
            best = "a finite number" if self.score_to_beat is None else f"better than {self.score_to_beat:.6g}"
            PartialState().print(
                f"stopped early at step {state.global_step} of {state.max_steps}: none of the last {count} "
                f"evaluations was {best}{gain}; a larger --early_stopping_patience goes on"
            )


def evaluations_without_gain(state: TrainerState) -> int:
    """Returns how many evaluations, up to a checkpoint, have not been better than the last one that counted."""
    return attributes_of_early_stopping(state).get("early_stopping_patience_counter", 0)


def attributes_of_early_stopping(state: TrainerState) -> dict[str, Any]:
    """Returns what a checkpoint has kept of the callback; nothing if the run had none."""
    callbacks: Any = state.stateful_callbacks or {}
    return callbacks.get(EarlyStopping.__name__, {}).get("attributes", {})


def has_stopped_early(state: TrainerState, data_args: DataArguments) -> bool:
    """Tells whether a checkpoint is the end of a run whose evaluations no longer improved."""
    patience = data_args.early_stopping_patience
    return patience is not None and evaluations_without_gain(state) >= patience
