# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Hooks on the stock Trainer: they see its batches and losses, and add figures to its log."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer_pt_utils import LabelSmoother


IGNORED = -100  # as a label: no loss is wanted there


def add_before_trackers(trainer: Trainer, callback: TrainerCallback) -> None:
    """Adds a callback that sees each log before what prints or sends it, and each step after what decides on it."""
    trainer.add_callback(callback)
    callbacks = trainer.callback_handler.callbacks
    callbacks.insert(1, callbacks.pop())  # the first one decides when to log, evaluate and save


def add_to_log(state: TrainerState, logs: dict[str, float], more: dict[str, float]) -> None:
    """Adds figures to a log, which trackers have still to see, and to its entry in the history."""
    logs.update(more)
    state.log_history[-1].update(more)


def observe_batches(trainer: Trainer, observer: Callable[[dict[str, Any]], None]) -> None:
    """Has an observer see every batch that a Trainer is about to train on, and take out what is not for the model."""
    observed_trainer: Any = trainer
    take = observed_trainer.get_batch_samples

    def observed(*args, **kwargs):
        batches, items = take(*args, **kwargs)
        for batch in batches:
            observer(batch)
        return batches, items

    observed_trainer.get_batch_samples = observed


def observe_smoothing(trainer: Trainer, observer: Callable[[torch.Tensor, torch.Tensor], None]) -> bool:
    """
    Has an observer called with labels and loss wherever the Trainer's own label smoothing computes the loss.

    The smoothing takes the labels away before the model is called. In evaluation the loss is a mean over the labels,
    and without smoothing, as that of a model which smooths by itself: runs that smooth differently can be compared.

    Returns:
        False if the Trainer does not smooth labels.
    """
    observed_trainer: Any = trainer  # whose attribute is declared as of one class
    smooth = observed_trainer.label_smoother
    if smooth is None:
        return False
    # Without smoothing, unless it is observed already and sees to that itself.
    unsmoothed = replace(smooth, epsilon=0.0) if isinstance(smooth, LabelSmoother) else smooth

    def observed(output, labels, shift_labels: bool = False, num_items_in_batch=None) -> torch.Tensor:
        if torch.is_grad_enabled():
            loss = smooth(output, labels, shift_labels=shift_labels, num_items_in_batch=num_items_in_batch)
        else:
            loss = unsmoothed(output, labels, shift_labels=shift_labels)
        observer(labels, loss)
        return loss

    observed_trainer.label_smoother = observed
    return True
