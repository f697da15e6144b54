# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Holds a resumed run to the bits of an unbroken one: random states, the moment of saving, losses and results."""

import math
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from transformers import (
    Seq2SeqTrainingArguments,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..errors import ArgumentError
from .arguments import DataArguments
from .launch import tensor_parallel_size


STRATEGIES = ("eval_strategy", "save_strategy", "logging_strategy")


@contextmanager
def own_random_states(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds the random states of Python, NumPy and torch for a block, and gives back those before it."""
    states = random.getstate(), np.random.get_state()
    is_mps = device.type == "mps"  # it has one state, and no function of it takes a device
    of_mps = torch.mps.get_rng_state() if is_mps else None
    has_own = device.type != "cpu" and not is_mps
    forked = {"devices": [device], "device_type": device.type} if has_own else {"devices": []}
    with torch.random.fork_rng(**forked):
        set_seed(seed)
        yield
    if of_mps is not None:
        torch.mps.set_rng_state(of_mps)
    random.setstate(states[0])
    np.random.set_state(states[1])


def seed_dropout(args: TrainingArguments) -> None:
    """
    Has each process draw dropout masks of its own: the Trainer gives all of them one seed, and so the same masks.

    The first process keeps the seed, and those that divide one model's layers share theirs. On a GPU the CPU's state
    stays the same for all: stock models that drop whole layers must drop the same ones in every process.
    """
    rank = args.process_index // tensor_parallel_size()
    if rank == 0:
        return
    seed = random.Random(f"{args.seed} {rank}").getrandbits(32)
    if args.device.type == "cpu":
        torch.manual_seed(seed)
    else:
        torch.get_device_module(args.device).manual_seed(seed)


class ExactResume(TrainerCallback):
    """
    Has every checkpoint hold all that the rest of the run depends on.

    - Evaluation has random states of its own, so that its samples depend on the weights alone, and training goes on
      as if there had been none.
    - A checkpoint at the last step of an epoch is written after the log and the evaluation of the epoch's end, which a
      resumed run would leave out.
    - The step of a checkpoint or an evaluation is logged: the Trainer forgets the losses since the last log.
    - The best evaluation until then is saved too where a run is to end with its best weights, and so is the last step
      of a run that stops early or saves its best steps alone: by it the next start knows that the run has ended.

    Random states of the processes differ, and each has its own in the checkpoint.
    """

    def __init__(self) -> None:
        self.evaluation, self.saves_later = ExitStack(), False
        self.saved = 0  # the step of the last checkpoint

    def on_train_begin(self, args, state, control, **kwargs):
        seed_dropout(args)  # a process whose state is in the checkpoint gets that afterwards
        if args.eval_on_start:
            self.evaluation.enter_context(own_random_states(args.seed, args.device))

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        # In the middle of an epoch the batches before it are skipped, by a loader through which Accelerate does not
        # reach the sampler that several processes share.
        if (state.epoch or 0) % 1:
            train_dataloader.set_epoch(int(state.epoch))

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_save and ends_epoch(state, control):
            control.should_save, self.saves_later = False, True
        self.prepare_for_what_comes(args, control)

    def on_epoch_end(self, args, state, control, **kwargs):
        is_end = control.should_training_stop and args.save_strategy in (SaveStrategy.STEPS, SaveStrategy.BEST)
        if self.saves_later or is_end and self.saved != state.global_step:
            control.should_save, self.saves_later = True, False
        control.should_log |= control.should_training_stop
        self.prepare_for_what_comes(args, control)

    def prepare_for_what_comes(self, args, control) -> None:
        """Has a step logged that is saved or evaluated, and seeds an evaluation."""
        control.should_log |= control.should_save or control.should_evaluate
        if control.should_evaluate:
            self.evaluation.enter_context(own_random_states(args.seed, args.device))

    def on_save(self, args, state, control, **kwargs):
        self.saved = state.global_step

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.evaluation.close()
        # By epochs every evaluation is saved, and `SaveStrategy.BEST` is the Trainer's.
        by_steps = args.load_best_model_at_end and args.save_strategy == SaveStrategy.STEPS
        if by_steps and state.global_step and is_new_best(args, state, metrics or {}):
            if ends_epoch(state, control):
                self.saves_later = True
            else:
                control.should_save = True


def ends_epoch(state: TrainerState, control: TrainerControl) -> bool:
    """Returns whether the step that was taken is the last of an epoch or of the run."""
    return control.should_training_stop or (state.epoch or 0) % 1 == 0


def is_new_best(args: TrainingArguments, state: TrainerState, metrics: dict[str, float]) -> bool:
    """Returns whether the Trainer will take an evaluation for the best until now; it asks after its callbacks."""
    value = metrics.get(f"eval_{(args.metric_for_best_model or 'loss').removeprefix('eval_')}")
    if value is None:
        return False
    if args.greater_is_better:
        return value > (-math.inf if state.best_metric is None else state.best_metric)
    return value < (math.inf if state.best_metric is None else state.best_metric)


def check_exact(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> None:
    """Refuses strategies by epoch where passes follow one another without end, as those of a stream do."""
    for name in STRATEGIES if data_args.endless else ():
        if getattr(training_args, name) == IntervalStrategy.EPOCH:
            raise ArgumentError(
                f"--{name} epoch: {data_args.endless} has no epochs; give --{name} steps with "
                f"--{name.replace('strategy', 'steps')}"
            )
