# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Optimizers of the Trainer: their classes and options, checked before anything is trained by them."""

from copy import copy, deepcopy
from typing import Any

import torch
from transformers import Seq2SeqTrainer, TrainingArguments
from transformers.training_args import OptimizerNames

from ..errors import ArgumentError, blame


NO_VALUE = "no-such-value"  # of any argument: whoever reads it fails, or hands it on


def optimizer_of(args: TrainingArguments, model: Any) -> tuple[Any, dict[str, Any]]:
    """
    Returns the optimizer's class, or what makes it, and its options, as the Trainer takes them.

    Nothing is left on the model: layer-wise optimizers hang a step on every parameter, here on those of a copy.
    """
    if OptimizerNames(args.optim).value.endswith("layerwise"):
        model = without_weights(model)
    return Seq2SeqTrainer.get_optimizer_cls_and_kwargs(args, model)


def without_weights(model: torch.nn.Module) -> torch.nn.Module:
    """Returns a copy of a model on the meta device, which takes no memory."""
    empty: dict[int, Any] = {id(each): each.to("meta") for each in model.buffers()}
    for each in model.parameters():
        empty[id(each)] = torch.nn.Parameter(each.detach().to("meta"), each.requires_grad)
    return deepcopy(model, empty)  # which looks there first


def check_optimizer(args: TrainingArguments, model: torch.nn.Module) -> None:
    """
    Checks that there is such an optimizer, that it takes its arguments, and that none of them would do nothing.

    Raises:
        ArgumentError: It does not; the message has the optimizer, its arguments and those that it does not take.
    """
    where = f"--optim {OptimizerNames(args.optim).value}"
    if args.optim_args:
        where += f" with --optim_args {args.optim_args}"
    with blame(where, ImportError, ValueError, TypeError):
        kind, options = optimizer_of(args, model)
        if options.keys().isdisjoint(("params", "model", "optimizer_dict")):  # those of the whole model
            kind([torch.zeros(1, requires_grad=True)], **options)
    names = [each.partition("=")[0].strip() for each in (args.optim_args or "").split(",") if each]
    if unread := [name for name in names if not is_read(name, args, model)]:
        raise ArgumentError(f"{where}: this optimizer does not take {', '.join(unread)}: leave it out")


def is_read(name: str, args: TrainingArguments, model: torch.nn.Module) -> bool:
    """Tells whether an optimizer reads an argument of this name: a value that no one takes makes a difference."""
    without, wrong = copy(args), copy(args)
    without.optim_args, wrong.optim_args = None, f"{name}={NO_VALUE}"
    expected = str(optimizer_of(without, model))
    try:
        return str(optimizer_of(wrong, model)) != expected
    except (ValueError, TypeError, AttributeError, KeyError):
        return True
