# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Stops a training that has gone wrong, before weights that are not finite are saved over good ones."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback, TrainerState, TrainingArguments

from ..checkpoints.weight_files import finite_sum
from ..errors import InputError
from ..files import TRAINER_STATE, checkpoint_folder, checkpoints_of, not_finite, with_nulls
from .launch import precision


# fp16's loss scale has sunk to nothing: as fairseq's `--min-loss-scale` has it.
LEAST_LOSS_SCALE = 1e-4


class DivergedError(InputError):
    """A training whose loss, gradients or weights are no longer finite."""


class StopIfNotFinite(TrainerCallback):
    """
    Raises `DivergedError` when loss, gradient norm or weights are not finite, before the next checkpoint is saved.

    It looks at what is logged, and at the weights before they are saved or evaluated, when a run waits for the device
    anyway; on a CPU also at the gradients of each step, before they are applied. Under fp16 the loss scaler skips
    steps whose gradients overflow: there only the weights count, and a loss scale that has sunk to nothing.

    Args:
        every_step: Look at the gradients of each step.
    """

    def __init__(self, every_step: bool):
        self.every_step = every_step
        self.rate: float | None = None  # the learning rate of the step that was looked at last
        self.is_warned = False

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.check_weights(args, state, model)

    def on_pre_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        if not self.every_step or precision(args) == "fp16":
            return
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        if not all_finite(gradients):
            self.rate = optimizer.param_groups[0]["lr"]
            self.stop(args, state.global_step + 1, "the gradients are not finite", norm_of(gradients))

    def on_log(self, args, state, control, logs=None, optimizer=None, **kwargs):
        state.log_history[-1] = with_nulls(state.log_history[-1])  # which is written as JSON
        if "loss" not in logs:
            return
        self.rate = logs.get("learning_rate")
        loss, norm = logs["loss"], logs.get("grad_norm", 0.0)
        if precision(args) == "fp16":
            self.check_scale(args, state, optimizer)
        elif not math.isfinite(loss) or not math.isfinite(norm):
            what = "gradient norm" if math.isfinite(loss) else f"loss since the last log ({loss})"
            self.stop(args, state.global_step, f"the {what} is not finite", norm)
        elif logs.get("grad_norm") == 0 and args.deepspeed_plugin is None and not self.is_warned:
            self.is_warned = True
            if state.is_world_process_zero:
                print(
                    f"WARNING: the gradient norm at step {state.global_step} is 0, so that nothing is learned: try "
                    f"{', '.join(remedies(args))}"
                )

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if control.should_save or control.should_evaluate or control.should_training_stop:
            self.check_weights(args, state, model)

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        self.on_step_end(args, state, control, model)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        named = ", ".join(f"{name} ({value})" for name, value in not_finite(metrics))
        if named and state.is_world_process_zero:
            print(
                f"WARNING: of the evaluation at step {state.global_step} not finite: {named}. The weights are: a "
                "precision of 16 bits may overflow (--fp16_full_eval), or a reference is empty"
            )

    def on_save(self, args, state, control, **kwargs):
        # The Trainer begins with an infinite one, which stays if no evaluation was finite, and which JSON cannot hold.
        if state.best_metric is not None and not math.isfinite(state.best_metric):
            state.best_metric = None
            if args.should_save:
                state.save_to_json(str(checkpoint_folder(args.output_dir, state.global_step) / TRAINER_STATE))

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self.check_weights(args, state, model)

    def check_weights(self, args: TrainingArguments, state: TrainerState, model: torch.nn.Module) -> None:
        """Raises DivergedError if a weight is not finite."""
        if not all_finite(model.parameters()):
            self.stop(args, state.global_step, "the weights are not finite")

    def check_scale(self, args: TrainingArguments, state: TrainerState, optimizer: Any) -> None:
        """Raises DivergedError if nothing is left of fp16's loss scale: step after step overflows, and is skipped."""
        scaler = getattr(optimizer, "scaler", None)  # accelerate's; DeepSpeed has its own, and stops by itself
        if scaler is not None and (scale := scaler.get_scale()) < LEAST_LOSS_SCALE:
            what = f"fp16's loss scale has sunk to {scale:g}, as all steps overflow"
            self.stop(args, state.global_step, what)

    def stop(self, args: TrainingArguments, step: int, what: str, norm: float | None = None) -> None:
        """Raises DivergedError with step, learning rate, gradient norm, the last good checkpoint and what to try."""
        checkpoints = checkpoints_of(Path(str(args.output_dir)))
        kept = (
            f"{checkpoints[-1]} is the last good checkpoint: a restart resumes there, and would meet this again"
            if checkpoints
            else "no checkpoint was saved before"
        )
        go_on = ", or go on from there with --change_recipe," if checkpoints else ""
        rate = f"learning rate {args.learning_rate if self.rate is None else self.rate:g}"
        figures = rate if norm is None else f"{rate}, gradient norm {norm:g}"
        raise DivergedError(
            f"step {step}: {what} ({figures}): the training has gone wrong and stops, and nothing more is saved; "
            f"{kept}. Start anew with --resume_from_checkpoint false{go_on} and {', '.join(remedies(args))}"
        )


def remedies(args: TrainingArguments) -> Iterable[str]:
    """Yields the options that a training which has gone wrong should be tried with, as they are typed."""
    yield f"a lower --learning_rate (it is {args.learning_rate:g})"
    yield "a longer warm-up (--warmup_steps)"
    if not 0 < args.max_grad_norm <= 1:
        yield f"--max_grad_norm 1.0 (it is {args.max_grad_norm:g})"
    if precision(args) == "fp16":
        yield "--bf16 in place of --fp16"


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """
    Returns whether all numbers are finite, in all processes; waits once for the device.

    A tensor whose numbers add up to more than a float32 holds counts as not finite.
    """
    parts = [each for each in map(own_part, tensors) if each.numel() and each.is_floating_point()]
    finite = [finite_sum(each).isfinite() for each in parts] or [torch.tensor(True)]
    is_wrong = (~torch.stack([each.to(finite[0].device) for each in finite]).all()).float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        if torch.distributed.get_backend() == "nccl":
            is_wrong = is_wrong.to(torch.accelerator.current_accelerator())
        torch.distributed.all_reduce(is_wrong, torch.distributed.ReduceOp.MAX)
    return not is_wrong.item()


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """Returns what this process holds of a tensor that DeepSpeed ZeRO-3 or a `DTensor` divides."""
    tensor = getattr(tensor, "ds_tensor", tensor).detach()
    return getattr(tensor, "to_local", lambda: tensor)()


def norm_of(tensors: Iterable[torch.Tensor]) -> float:
    """Returns the Euclidean norm of this process's parts."""
    return get_total_norm([own_part(each) for each in tensors]).item()
