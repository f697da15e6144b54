# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Averages weights over the steps of a training or over checkpoints, which generalises better than the last ones."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from ..errors import ArgumentError, blame
from ..files import AVERAGES
from .adapters import base_of
from .loading import IGNORED_FIELDS, TRAINING_FIELDS, load_model


def trained(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Returns the parameters that are trained; in a model with adapters, those of the adapters."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def note_of_averages(checkpoint: str) -> str:
    """Returns what to tell users of a step's weights where the run has averages beside them, else nothing."""
    has_some = Path(checkpoint, AVERAGES).is_file()
    return f"{checkpoint}: its weights are those of the step, not the averages that the run evaluates with" * has_some


def read_averages(checkpoint: str, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Reads the averages beside a checkpoint's weights, in the order and on the devices of the parameters.

    Raises:
        ArgumentError: The file cannot be read, or a parameter has no average of its shape in it.
    """
    path = Path(checkpoint, AVERAGES)
    with blame(f"{path}: cannot be read", SafetensorError, OSError):
        averages = load_file(path)
    for name, each in parameters.items():
        if name not in averages or averages[name].shape != each.shape:
            raise ArgumentError(f"{path}: no average of `{name}` of shape {list(each.shape)}: of another model?")
    return {name: averages[name].to(each.device) for name, each in parameters.items()}


@torch.no_grad()
def load_averages(model: PreTrainedModel, checkpoint: str) -> None:
    """Loads a checkpoint's averages into a model; raises as `read_averages` does."""
    parameters = trained(model)
    for name, average in read_averages(checkpoint, parameters).items():
        parameters[name].copy_(average)


def average_checkpoints(checkpoints: Sequence[str], trust_remote_code: bool = False) -> PreTrainedModel:
    """
    Returns a model whose every weight is the mean of the checkpoints' (Vaswani et al. 2017, section 6.1).

    Raises:
        ArgumentError: A checkpoint cannot be loaded, is another model than the first, or is an adapter: the average
            of its factors would not be the average of their products.
    """
    for checkpoint in checkpoints:
        if base_of(checkpoint) is not None:
            raise ArgumentError(
                f"{checkpoint}: an adapter; hf-xformer merge makes a model of one of LoRA, AdaLoRA or IA3"
            )
    model = load_model(checkpoints[0], trust_remote_code=trust_remote_code)
    weights = dict(model.named_parameters())
    sums = {name: each.detach().double() for name, each in weights.items()}
    for checkpoint in checkpoints[1:]:
        other = load_model(checkpoint, trust_remote_code=trust_remote_code)
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
