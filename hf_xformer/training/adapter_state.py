# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
State of adapters that PEFT does not save, because decoding does without: a file of ours holds it for the next start.

AdaLoRA loses the ranks that it has taken away for now, and what it knows of their importance; P-tuning, and prefixes
with a projection, lose the network behind their vectors.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from ..checkpoints.averaging import trained
from ..errors import ArgumentError
from ..files import ADAPTER_CONFIG, WHOLE_ADAPTER, read_json


if TYPE_CHECKING:  # PEFT is an extra
    from peft import PeftConfig

# What AdaLoRA's allocator remembers of each weight.
IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def is_saved_in_part(adapter: "PeftConfig") -> bool:
    """Returns whether PEFT's file of such adapters is not all that is trained."""
    return adapter.peft_type.value in ("ADALORA", "P_TUNING") or getattr(adapter, "prefix_projection", False)


def allocator_of(model: Any) -> Any:
    """Returns what decides the ranks of AdaLoRA; None for other adapters."""
    return getattr(model.base_model, "rankallocator", None)


def whole_of(model: Any) -> dict[str, torch.Tensor]:
    """Returns all that a run has trained of a model's adapters, and what AdaLoRA remembers."""
    found = {name: each.detach() for name, each in trained(model).items()}
    allocator = allocator_of(model)
    for kind in IMPORTANCE if allocator is not None else ():
        found |= {f"{kind}:{name}": each for name, each in getattr(allocator, kind).items()}
    return {name: each.contiguous() for name, each in found.items()}


def load_whole(model: Any, checkpoint: Path) -> None:
    """
    Puts what `SaveWholeAdapter` has written in its place.

    Raises:
        ArgumentError: There is no such file, or it is of other adapters.
    """
    path, parameters = checkpoint / WHOLE_ADAPTER, trained(model)
    if not path.exists():
        raise ArgumentError(f"{path}: missing: a run with such adapters cannot go on without it")
    stored = load_file(path)
    kept = {name: each for name, each in stored.items() if ":" not in name}
    shapes = [{name: each.shape for name, each in weights.items()} for weights in (parameters, kept)]
    if shapes[0] != shapes[1]:
        raise ArgumentError(f"{path}: of other adapters than this run's")
    with torch.no_grad():
        for name, each in parameters.items():
            each.copy_(kept[name])
    allocator = allocator_of(model)
    if allocator is None:
        return
    device = next(iter(parameters.values())).device  # the allocator's names begin below PEFT's own
    for kind in IMPORTANCE:
        remembered = {name.partition(":")[2]: each for name, each in stored.items() if name.startswith(f"{kind}:")}
        setattr(allocator, kind, {name: each.to(device) for name, each in remembered.items()})
    (adapter,) = model.peft_config.values()
    adapter.rank_pattern = read_json(checkpoint / ADAPTER_CONFIG).get("rank_pattern")


class AllocateRanks(TrainerCallback):
    """Takes ranks away from the layers that need them least, after each step of AdaLoRA (Zhang et al. 2023)."""

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        # Its last step is `total_step`; the Trainer counts a step after this.
        model.base_model.update_and_allocate(state.global_step + 1)
