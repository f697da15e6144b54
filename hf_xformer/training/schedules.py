# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Schedules of the learning rate, checked before a step is taken: their arguments, and whether they fit the run."""

import math
from typing import Any

import torch
from transformers import TrainingArguments, get_scheduler
from transformers.trainer_utils import SchedulerType

from ..errors import ArgumentError, blame
from .launch import data_parallel_size


# Arguments of schedules that count steps.
STEPS = ("num_decay_steps", "num_stable_steps", "timescale")
# Schedules that pass over a warm-up, and those that have one.
WITH_WARMUP = {
    SchedulerType.CONSTANT: "constant_with_warmup has one",
    SchedulerType.REDUCE_ON_PLATEAU: "leave it out",
}


def check_schedule(training_args: TrainingArguments) -> None:
    """
    Checks that a schedule has the arguments that it needs and no others, on one of 100 steps, and that it fits a run
    whose steps are known.

    Raises:
        ArgumentError: It has not, or does not; the message has the schedule and its arguments.
    """
    kwargs: Any = training_args.lr_scheduler_kwargs or {}
    where = described(training_args)
    for name in STEPS:
        value = kwargs.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(f"{where}: {name} must be a number of steps, 1 or more, got {value!r}")
    is_wsd = training_args.lr_scheduler_type == SchedulerType.WARMUP_STABLE_DECAY
    if is_wsd and "num_decay_steps" not in kwargs:
        raise ArgumentError(f"{where}: give num_decay_steps, the steps in which the rate falls at the end")
    if (advice := WITH_WARMUP.get(SchedulerType(training_args.lr_scheduler_type))) and training_args.warmup_steps:
        raise ArgumentError(f"--warmup_steps {training_args.warmup_steps:g} does nothing with {where}: {advice}")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=training_args.learning_rate)
    with blame(where, TypeError, ValueError):
        warmup = training_args.get_warmup_steps(100)
        get_scheduler(training_args.lr_scheduler_type, optimizer, warmup, 100, kwargs or None)
    if training_args.max_steps > 0:
        check_fits(training_args, training_args.max_steps)


def check_fits(training_args: TrainingArguments, steps: int) -> None:
    """
    Checks that the parts of a schedule with a warm-up, a plateau and a decay are together as long as the run: in a
    shorter run the rate would begin in the middle of its decay, in a longer one the last steps would learn nothing.

    Raises:
        ArgumentError: They are not.
    """
    if training_args.lr_scheduler_type != SchedulerType.WARMUP_STABLE_DECAY:
        return
    kwargs: Any = training_args.lr_scheduler_kwargs
    decay, stable = kwargs["num_decay_steps"], kwargs.get("num_stable_steps")
    warmup = training_args.get_warmup_steps(steps)
    together = warmup + decay + (stable or 0)
    if together > steps or (stable is not None and together < steps):
        parts = f"{warmup:,} of warm-up, {'' if stable is None else f'{stable:,} between, '}{decay:,} of decay"
        advice = "; leave num_stable_steps out: all steps between are stable" if stable is not None else ""
        raise ArgumentError(f"{described(training_args)}: the run has {steps:,} steps, its parts {parts}{advice}")


def unended_warmup(training_args: TrainingArguments, steps: int) -> str:
    """Returns what to say of a run that ends before its learning rate is the one that was asked for, if it does."""
    warmup = training_args.get_warmup_steps(steps)
    if warmup < max(steps, 2):
        return ""
    reached = training_args.learning_rate * (steps - 1) / warmup
    return (
        f"the run ends in its warm-up: {warmup:,} steps of it, and {steps:,} steps in all, so that the learning rate "
        f"only reaches {reached:.3g}"
    )


def described(training_args: TrainingArguments) -> str:
    """Returns a schedule and its arguments as the command line has them."""
    name = SchedulerType(training_args.lr_scheduler_type).value
    kwargs = training_args.lr_scheduler_kwargs
    return f"--lr_scheduler_type {name}" + (f" with --lr_scheduler_kwargs {kwargs}" if kwargs else "")


def steps_of_epochs(training_args: TrainingArguments, items: int) -> int:
    """Returns the steps of a run that counts epochs, as the Trainer counts them, over so many items of a dataset."""
    together = training_args.train_batch_size * data_parallel_size(training_args)
    batches = items // together if training_args.dataloader_drop_last else math.ceil(items / together)
    return math.ceil(
        training_args.num_train_epochs * max(1, math.ceil(batches / training_args.gradient_accumulation_steps))
    )
