# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Averages of a training's weights, which generalise better than its last ones."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import PreTrainedModel, TrainerCallback

from .adapters import base_of
from .arguments import ArgumentError
from .checkpoints import TRAINING_FIELDS, load_model
from .run_directory import AVERAGES, IGNORED_FIELDS


class ExponentialMovingAverage(TrainerCallback):
    """
    Keeps `a <- d a + (1 - d) w` of all weights w that are trained over the steps (Polyak and Juditsky 1992,
    exponentially weighted), evaluates with the averages, and leaves them in the model at the end.

    In the first steps d is smaller, (1 + t) / (10 + t), so that the start is forgotten. Checkpoints hold the weights
    that training goes on from, and the averages beside them.

    Args:
        decay: d, such as 0.999.
        checkpoint: Where the run resumes, if it does.
    """

    def __init__(self, decay: float, checkpoint: str | None = None):
        self.decay, self.checkpoint = decay, checkpoint
        self.averages: dict[str, torch.Tensor] = {}
        self.set_aside: list[torch.Tensor] | None = None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.parameters = trained(model)
        if self.checkpoint is None:
            self.averages = {name: each.detach().float().clone() for name, each in self.parameters.items()}
        else:
            self.averages = read_averages(self.checkpoint, self.parameters)

    @torch.no_grad()
    def on_step_end(self, args, state, control, **kwargs):
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        now = [each.detach().float() for each in self.parameters.values()]
        get_ema_multi_avg_fn(decay)(list(self.averages.values()), now, None)
        self.take_places(control)

    def on_epoch_end(self, args, state, control, **kwargs):
        self.take_places(control)

    def take_places(self, control) -> None:
        """The averages take the weights' places for an evaluation that comes next."""
        if control.should_evaluate and self.set_aside is None:
            self.set_aside = [each.detach().clone() for each in self.parameters.values()]
            self.write(self.averages.values())

    def on_evaluate(self, args, state, control, **kwargs):
        if self.set_aside is not None:
            self.write(self.set_aside)
            self.set_aside = None

    def on_save(self, args, state, control, **kwargs):
        if args.should_save:
            path = Path(args.output_dir, f"checkpoint-{state.global_step}", AVERAGES)
            unfinished = path.with_suffix(".partial")
            save_file(self.averages, unfinished)
            unfinished.replace(path)

    def on_train_end(self, args, state, control, **kwargs):
        best = state.best_model_checkpoint if args.load_best_model_at_end else None
        self.write((self.averages if best is None else read_averages(best, self.parameters)).values())

    @torch.no_grad()
    def write(self, tensors: Iterable[torch.Tensor]) -> None:
        for parameter, tensor in zip(self.parameters.values(), tensors, strict=True):
            parameter.copy_(tensor)


def trained(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The parameters that change: of a model with adapters, those of the adapters."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def read_averages(checkpoint: str, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those beside a checkpoint's weights, in the order of the parameters and where these are."""
    averages = load_file(Path(checkpoint, AVERAGES))
    return {name: averages[name].to(each.device) for name, each in parameters.items()}


@torch.no_grad()
def load_averages(model: PreTrainedModel, checkpoint: str) -> None:
    """Puts a checkpoint's averages into a model."""
    parameters = trained(model)
    for name, average in read_averages(checkpoint, parameters).items():
        parameters[name].copy_(average)


def average_checkpoints(checkpoints: Sequence[str]) -> PreTrainedModel:
    """
    A model whose every weight is the mean of the checkpoints' (Vaswani et al. 2017, section 6.1).

    Raises:
        ArgumentError: A checkpoint cannot be loaded, is of another model than the first, or is an adapter, of which
            averages of the factors would not be those of the products.
    """
    for checkpoint in checkpoints:
        if base_of(checkpoint) is not None:
            raise ArgumentError(f"{checkpoint}: an adapter; scripts/merge_adapter.py makes a model of it")
    model = load_model(checkpoints[0])
    weights = dict(model.named_parameters())
    sums = {name: each.detach().double() for name, each in weights.items()}
    for checkpoint in checkpoints[1:]:
        other = load_model(checkpoint)
        fields, others = model.config.to_dict(), other.config.to_dict()
        for name in sorted(fields.keys() - {*IGNORED_FIELDS, *TRAINING_FIELDS}):
            if others.get(name) != fields[name]:
                raise ArgumentError(
                    f"{checkpoint}: `{name}` is {others.get(name)!r}, in {checkpoints[0]} it is {fields[name]!r}"
                )
        for name, each in other.named_parameters():
            sums[name] += each.detach()
    with torch.no_grad():
        for name, each in weights.items():
            each.copy_(sums[name] / len(checkpoints))
    return model
