# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA by PEFT: small matrices beside a model's frozen weights (Hu et al. 2021), trained, loaded and merged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import (
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..checkpoints.adapters import load_weights
from ..errors import ArgumentError, first_line
from ..files import ADAPTER_CONFIG
from .arguments import ModelArguments


if TYPE_CHECKING:  # PEFT is an extra
    from peft import LoraConfig, PeftConfig, PeftModel


# PEFT's word for every linear layer but the last.
ALL_LINEAR = "all-linear"
# What makes two adapters' trainings different ones: fields of PEFT's file, and the options that they come from.
FIELDS = {
    "base_model_name_or_path": "model_name_or_path",
    "r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "lora_target_modules",
}


def make_lora(model_args: ModelArguments, config: PreTrainedConfig) -> "LoraConfig | None":
    """
    The adapters that a run's options ask for, tried out on the model without its weights; None without `lora_rank`.

    Raises:
        ArgumentError: The model has no such layers, or they cannot have adapters.
    """
    if model_args.lora_rank is None:
        return None
    from peft import LoraConfig, TaskType, get_peft_model

    names = model_args.lora_target_modules
    lora = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=model_args.lora_rank,
        lora_alpha=model_args.lora_alpha,
        lora_dropout=model_args.lora_dropout,
        target_modules=ALL_LINEAR if names == [ALL_LINEAR] else names,
    )
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(config)
    try:
        adapted = get_peft_model(model, lora, low_cpu_mem_usage=True)
    except ValueError as error:
        if names is None:
            raise ArgumentError(
                f"--lora_rank: PEFT knows no layers for a model of type {config.model_type!r}: give "
                "--lora_target_modules"
            ) from error
        raise ArgumentError(f"--lora_target_modules {' '.join(names)}: {first_line(error)}") from error
    check_targets(adapted, [] if names in (None, [ALL_LINEAR]) else names)
    base = model_args.model_name_or_path
    lora.base_model_name_or_path = str(Path(base).resolve()) if base is not None and Path(base).is_dir() else base
    return lora


def check_targets(adapted: "PeftModel", names: list[str]) -> None:
    """
    Raises:
        ArgumentError: No layer has one of the names, or an embedding or the last layer has. They share their weight,
            of which adapters would change one use and merging all, and the loss goes by the weight alone.
    """
    model, targets = adapted.get_base_model(), adapted.base_model.targeted_module_names
    for name in names:
        if not any(target == name or target.endswith(f".{name}") for target in targets):
            raise ArgumentError(f"--lora_target_modules {name}: the model has no layer of that name")
    for target in targets:
        module = model.get_submodule(target)
        if module is model.get_output_embeddings() or isinstance(module.get_base_layer(), nn.Embedding):
            raise ArgumentError(
                f"--lora_target_modules: {target} shares its weight with other layers and cannot have an adapter"
            )


def add_lora(model: PreTrainedModel, lora: "LoraConfig", checkpoint: str | None, say: Callable) -> "PeftModel":
    """
    The model with new adapters, or a checkpoint's, and nothing else of it to be trained.

    Raises:
        ArgumentError: An adapter's weight is missing in the checkpoint, unexpected or of another shape.
    """
    from peft import get_peft_model

    base, lora.base_model_name_or_path = lora.base_model_name_or_path, None
    adapted = get_peft_model(model, lora)
    lora.base_model_name_or_path = base  # PEFT has put the name that the model was loaded by
    # PEFT's own card, of which it fills in next to nothing, would take the place of the run's.
    adapted.create_or_update_model_card = lambda output_dir: None
    if checkpoint is not None:
        load_weights(adapted, checkpoint)
    trained, whole = adapted.get_nb_trainable_parameters()
    say(f"LoRA of rank {lora.r} trains {trained:,} of {whole:,} parameters ({100 * trained / whole:.2g} %)")
    return adapted


def configs_of(model: "PreTrainedModel | PeftModel") -> "tuple[PreTrainedConfig | PeftConfig | GenerationConfig, ...]":
    """What says of a folder whose it is: a model's configuration; or, of adapters, theirs and how they decode."""
    adapters = getattr(model, "peft_config", None)
    return (model.config,) if adapters is None else (*adapters.values(), model.generation_config)


def check_adapter(folder: str | Path, where: str, lora: "LoraConfig | None") -> None:
    """
    Args:
        folder: Holds weights that a run would go on from.
        where: The option that the folder comes from, for the message.
        lora: What the run trains; None for a whole model.

    Raises:
        ArgumentError: There are adapters and should be none, the other way round, or other adapters.
    """
    path = Path(folder, ADAPTER_CONFIG)
    if path.exists() != (lora is not None):
        was, now = ("with", "without") if lora is None else ("without", "with")
        raise ArgumentError(f"{where} {folder}: holds a run {was} --lora_rank, this one is {now}")
    if lora is None:
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    for field, option in FIELDS.items():
        stored, wanted = (
            (sorted(v) if isinstance(v, (list, set)) else v) for v in (theirs.get(field), getattr(lora, field))
        )
        if stored != wanted:
            raise ArgumentError(f"{where} {folder}: holds a run with {option}={stored!r}, this one has {wanted!r}")
