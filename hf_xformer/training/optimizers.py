# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Optimizers of the Trainer: their classes and options, checked before anything is trained by them."""

from collections.abc import Iterable
from copy import copy, deepcopy
from typing import Any

import torch
from torch import nn
from transformers import Seq2SeqTrainer, TrainingArguments
from transformers.training_args import OptimizerNames

from ..errors import ArgumentError, blame
from .muon import MUON, MuonWithAdamW, hidden_matrices, muon_options
from .parts import multipliers_of


NO_VALUE = "no-such-value"  # of any argument: whoever reads it fails, or hands it on
# Arguments of optimizers that are given the whole model, and make their groups of weights themselves.
WHOLE_MODEL = ("params", "model", "optimizer_dict")


def optimizer_name(args: TrainingArguments) -> str:
    """Returns `--optim` as a recipe has it."""
    return str(getattr(args.optim, "value", args.optim))


def optimizer_of(args: TrainingArguments, model: Any) -> tuple[Any, dict[str, Any]]:
    """
    Returns the optimizer's class, or what makes it, and its options, as the Trainer takes them; for Muon those of the
    AdamW beside it.

    Nothing is left on the model: layer-wise optimizers hang a step on every parameter, here on those of a copy.
    """
    if optimizer_name(args) == MUON:
        args = copy(args)
        args.optim, args.optim_args = OptimizerNames.ADAMW_TORCH_FUSED, None
    elif optimizer_name(args).endswith("layerwise"):
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
    if optimizer_name(args) == MUON:
        muon_options(args.optim_args)
        if not hidden_matrices(model):
            raise ArgumentError(f"--optim {MUON}: no matrix of a linear layer is trained; AdamW trains all that is")
        return
    where = f"--optim {optimizer_name(args)}"
    if args.optim_args:
        where += f" with --optim_args {args.optim_args}"
    with blame(where, ImportError, ValueError, TypeError):
        kind, options = optimizer_of(args, model)
        if options.keys().isdisjoint(WHOLE_MODEL):
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


def set_optimizer(trainer: Seq2SeqTrainer, multipliers: dict[str, float] | None) -> None:
    """
    Has a Trainer make its optimizer of several groups of weights: for Muon, and where parts have learning rates of
    their own. Its own two groups, with weight decay and without, are divided further.

    Raises:
        ArgumentError: The optimizer makes its groups itself.
    """
    args, model = trainer.args, trainer.model
    if multipliers is None and optimizer_name(args) != MUON:
        return
    multipliers = multipliers or {}
    if not optimizer_of(args, model)[1].keys().isdisjoint(WHOLE_MODEL):
        raise ArgumentError(f"--lr_multipliers does not go with --optim {optimizer_name(args)}, which has one rate")

    def make(model: nn.Module) -> torch.optim.Optimizer:
        decayed = trainer.get_decay_parameter_names(model)
        groups = make_groups(model, args, decayed, multipliers_of(model, multipliers))
        kind, options = optimizer_of(args, model)
        if optimizer_name(args) == MUON:
            return MuonWithAdamW(groups, muon_options(args.optim_args)[0], options)
        if options.get("optim_bits") == 8:
            keep_embeddings_in_32_bits(model)
        return kind(groups, **options)

    made: Any = (lambda: make, {})  # a factory, which the library calls with the model
    trainer.optimizer_cls_and_kwargs = made


def keep_embeddings_in_32_bits(model: nn.Module) -> None:
    """Has an optimizer of 8 bits keep the moments of embeddings in 32, as the Trainer does for one that it makes."""
    from bitsandbytes.optim import GlobalOptimManager  # an extra

    for module in model.modules():
        if isinstance(module, nn.Embedding):
            GlobalOptimManager.get_instance().register_module_override(module, "weight", {"optim_bits": 32})


def make_groups(
    model: nn.Module, args: TrainingArguments, decayed: Iterable[str], multipliers: dict[nn.Parameter, float]
) -> list[dict[str, Any]]:
    """
    Returns the groups of weights that share their numbers, as an optimizer takes them.

    `lr_multiplier` and `decays` stay with a group, and so in checkpoints. The first group has the learning rate that
    the Trainer logs: one without a factor comes first.
    """
    uses_muon = optimizer_name(args) == MUON
    matrices = hidden_matrices(model) if uses_muon else set()
    beside = muon_options(args.optim_args)[1] if uses_muon else 1.0
    decayed = set(decayed)
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter in matrices
        factor = multipliers[parameter] * (1.0 if is_matrix or not uses_muon else beside)
        groups.setdefault((not is_matrix, name not in decayed, factor), []).append(parameter)
    ordered = sorted(groups, key=lambda key: (key[0], key[2] != 1.0, key[1], key[2]))
    return [
        {
            "params": groups[key],
            "lr": args.learning_rate * key[2],
            "lr_multiplier": key[2],
            "decays": not key[1],
            "weight_decay": 0.0 if key[1] else args.weight_decay,
            **({"is_muon": not key[0]} if uses_muon else {}),
        }
        for key in ordered
    ]


def set_group_numbers(groups: list[dict[str, Any]], args: TrainingArguments, model: Any) -> None:
    """Gives groups that an optimizer has the numbers of other arguments, all but the learning rate."""
    _, numbers = optimizer_of(args, model)
    for group in groups:
        if not group.get("is_muon"):  # whose `eps` is of another kind
            own = numbers.keys() & group.keys() - {"lr", "params"}
            group.update({name: numbers[name] for name in own})
    # The Trainer has weights in the first group, and norms and biases, which never decay, in the second.
    ours = [group for group in groups if group.get("decays")]
    for group in ours or [each for each in groups if each.get("weight_decay")] or groups[:1]:
        group["weight_decay"] = args.weight_decay
