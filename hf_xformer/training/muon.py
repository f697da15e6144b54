# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Muon (Jordan et al. 2024) for hidden matrices and AdamW for all other weights, as one optimizer."""

import inspect
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.overrides import TorchFunctionMode

from ..checkpoints.number_formats import is_slow
from ..errors import ArgumentError, blame, wrong_choice
from ..yaml_files import read_yaml


MUON = "muon"
BESIDE = "adamw_lr_multiplier"  # an argument of ours beside Muon's
# By which an update is as large as AdamW's, and one learning rate does for both (Liu et al. 2025, section 2.2).
DEFAULTS = {"adjust_lr_fn": "match_rms_adamw"}
NOT_ARGUMENTS = ("self", "params", "lr", "weight_decay")


def muon_options(optim_args: str | None) -> tuple[dict[str, Any], float]:
    """
    Returns Muon's own arguments, and the factor of the learning rate for the weights that AdamW trains.

    Raises:
        ArgumentError: This torch has no Muon, or it does not take the arguments.
    """
    kind: Any = getattr(torch.optim, "Muon", None)
    if kind is None:
        raise ArgumentError(f"--optim {MUON}: torch {torch.__version__} has none: it came with torch 2.9")
    given = dict(each.split("=", 1) for each in (optim_args or "").split(",") if each)
    where = f"--optim {MUON} with --optim_args {optim_args}"
    options: dict[str, Any] = {name.strip(): read_yaml(value) for name, value in given.items()}
    known = [name for name in inspect.signature(kind).parameters if name not in NOT_ARGUMENTS]
    for name in options:
        if name not in (*known, BESIDE):
            raise ArgumentError(f"{where}: {wrong_choice(name, (*known, BESIDE))}")
    beside = options.pop(BESIDE, 1.0)
    if isinstance(beside, bool) or not isinstance(beside, int | float) or not beside > 0:
        raise ArgumentError(f"{where}: {BESIDE} must be above 0, got {beside!r}")
    options = DEFAULTS | options
    weight = torch.ones(2, 2, requires_grad=True)
    weight.grad = torch.ones(2, 2)
    with blame(where, ValueError, TypeError, RuntimeError):
        kind([weight], **options).step()
    return options, float(beside)


def hidden_matrices(model: Any) -> set[nn.Parameter]:
    """Returns the matrices of linear layers that are trained, but for the output layer and what shares its weight."""
    output = model.get_output_embeddings()
    others = {id(each.weight) for each in model.modules() if isinstance(each, nn.Embedding) or each is output}
    linear: list[Any] = [each.weight for each in model.modules() if isinstance(each, nn.Linear)]
    return {each for each in linear if id(each) not in others and each.ndim == 2 and each.requires_grad}


class MuonWithAdamW(torch.optim.Optimizer):
    """
    Two optimizers of torch as one, with one state and one list of groups.

    Args:
        groups: Those with `is_muon` come first.
        muon, adamw: Arguments of each, beside the numbers that the groups have.
    """

    def __init__(self, groups: list[dict[str, Any]], muon: dict[str, Any], adamw: dict[str, Any]):
        count = sum(group["is_muon"] for group in groups)
        kinds = ((torch.optim.Muon, groups[:count], muon), (torch.optim.AdamW, groups[count:], adamw))
        self.parts = [kind(own, **options) for kind, own, options in kinds if own]
        # Schedules that end at a rate of their own divide it by the default one.
        defaults = {"lr": adamw["lr"]} if "lr" in adamw else {}
        super().__init__([group for part in self.parts for group in part.param_groups], defaults)
        self.share()
        # Muon's products are of bfloat16, whatever the weights are. What one process does, all do: their copies of the
        # weights stay alike.
        self.in_float32 = any(gather_object([is_slow(torch.bfloat16, groups[0]["params"][0].device)]))

    def share(self) -> None:
        """Has the parts work on the state and the groups of the whole, which others read, write and replace."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.state = self.state
            part.param_groups = [next(groups) for _ in part.param_groups]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.share()

    def step(self, closure=None):
        """Takes a step of each."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            uses_float32 = self.in_float32 and isinstance(part, torch.optim.Muon)
            with Float32Products() if uses_float32 else nullcontext():
                part.step()
        return loss


class Float32Products(TorchFunctionMode):
    """Has torch's Muon orthogonalise in float32 in place of bfloat16, by whichever method it asks for that."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        given = (*args, *(kwargs or {}).values())
        asked = func is torch.Tensor.to and any(each is torch.bfloat16 for each in given)
        if asked or func is torch.Tensor.bfloat16:
            return args[0].to(torch.float32, copy=True)  # the original is the momentum, and Muon divides what it gets
        return func(*args, **(kwargs or {}))
