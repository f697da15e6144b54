# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Hooks on the stock Trainer: they see its batches, weigh its losses, and add figures to its log."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer_pt_utils import LabelSmoother

from ..models import XformerForSeq2SeqLM


IGNORED = -100  # as a label: no loss is wanted there
LABELS_OF_STEP = "num_items_in_batch"  # among a model's inputs


def add_before_trackers(trainer: Trainer, callback: TrainerCallback) -> None:
    """Adds a callback that sees each log before what prints or sends it, and each step after what decides on it."""
    trainer.add_callback(callback)
    callbacks = trainer.callback_handler.callbacks
    callbacks.insert(1, callbacks.pop())  # the first one decides when to log, evaluate and save


def add_to_log(state: TrainerState, logs: dict[str, float], more: dict[str, float]) -> None:
    """Adds figures to a log, which trackers have still to see, and to its entry in the history."""
    logs.update(more)
    state.log_history[-1].update(more)


def observe_steps(trainer: Trainer, observer: Callable[[list[dict[str, Any]], Any], None]) -> None:
    """Has an observer see the batches of every step before it, and how many labels all processes have in the step."""
    observed_trainer: Any = trainer
    take = observed_trainer.get_batch_samples

    def observed(*args, **kwargs):
        batches, labels = take(*args, **kwargs)
        observer(batches, labels)
        return batches, labels

    observed_trainer.get_batch_samples = observed


def observe_batches(trainer: Trainer, observer: Callable[[dict[str, Any]], None]) -> None:
    """Has an observer see every batch that a Trainer is about to train on, and take out what is not for the model."""

    def observe_each(batches: list[dict[str, Any]], labels: Any) -> None:
        for batch in batches:
            observer(batch)

    observe_steps(trainer, observe_each)


class MeanOverStep:
    """
    Makes a loss that is a mean over a batch's own labels one over those of the whole step, on all processes.

    The Trainer tells every model with `**kwargs` how many these are, and leaves the division to it. Most stock models
    take the mean of their own batch all the same: their losses and gradients would grow with accumulation and with
    processes (transformers issue 47688). A penalty that an adapter adds to the loss, such as AdaLoRA's, is shared out
    alike.
    """

    def __init__(self):
        self.labels_of_step: Any = None

    def see(self, batches: list[dict[str, Any]], labels: Any) -> None:
        """Observer of steps. The number among a model's inputs would be rounded: FSDP2 casts them to 16 bits."""
        self.labels_of_step = labels

    def own_mean(self, model: nn.Module, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict]:
        """Hook before the model's forward pass: its loss is to be a mean."""
        return without_labels_of_step(args, inputs)

    def share(self, model: nn.Module, args: tuple, inputs: Mapping[str, Any], outputs: Any) -> Any:
        """Hook behind the model's forward pass: the loss becomes this batch's share of the step's."""
        labels, total = inputs.get("labels"), self.labels_of_step
        if not model.training or labels is None or total is None:
            return outputs
        part = (labels != IGNORED).sum() / total
        if not isinstance(outputs, dict):
            return (outputs[0] * part, *outputs[1:])
        outputs["loss"] = outputs["loss"] * part
        return outputs


def without_labels_of_step(args: tuple, inputs: Mapping[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Returns what a model is called with, but for the number of labels by which it would divide its loss."""
    return args, {name: value for name, value in inputs.items() if name != LABELS_OF_STEP}


def average_over_step(trainer: Trainer) -> None:
    """Has the loss of a step be the mean over all of its labels, whatever the model; an Xformer's is by itself."""
    model: Any = trainer.model
    if isinstance(model, XformerForSeq2SeqLM) and not trainer.accelerator.is_fsdp2:
        return
    mean = MeanOverStep()
    observe_steps(trainer, mean.see)
    model.register_forward_pre_hook(torch.compiler.disable(mean.own_mean), with_kwargs=True)
    model.register_forward_hook(torch.compiler.disable(mean.share), with_kwargs=True)
    trainer.model_accepts_loss_kwargs = True  # for the number, whether the model itself takes it or not


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
