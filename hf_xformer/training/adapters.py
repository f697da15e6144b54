# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA by PEFT: what a run trains beside a model's frozen weights (Hu et al. 2021)."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import (
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..checkpoints.adapters import is_moved, load_weights
from ..errors import ArgumentError, first_line
from ..files import ADAPTER_CONFIG, GENERATION_CONFIG, read_json, write_whole
from .arguments import ModelArguments


if TYPE_CHECKING:  # PEFT is an extra
    from peft import LoraConfig, PeftConfig, PeftModel


# PEFT's name for every linear layer but the last.
ALL_LINEAR = "all-linear"


def make_lora(model_args: ModelArguments, config: PreTrainedConfig) -> "LoraConfig | None":
    """
    Returns the adapters that a run's options ask for, tried on the model without memory; None without `lora_rank`.

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
        model = AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=model_args.trust_remote_code)
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


def tell_moved_base(output_dir: Path, lora: "LoraConfig", say: Callable) -> None:
    """Says that a run goes on with adapters of a base model that was elsewhere when they were written."""
    earlier, now = read_json(output_dir / ADAPTER_CONFIG).get("base_model_name_or_path"), lora.base_model_name_or_path
    if earlier and now and is_moved(earlier, now):
        say(f"{output_dir}: its adapters are of {earlier}, which is no more; {now} is taken for the same model")


def check_targets(adapted: "PeftModel", names: list[str]) -> None:
    """
    Checks that every name of a layer is one of the model's, and that the layer can have an adapter.

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


def add_lora(model: PreTrainedModel, lora: "LoraConfig", checkpoint: Path | None, say: Callable) -> "PeftModel":
    """
    Returns the model with new adapters, or a checkpoint's, and nothing else of it to be trained.

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
        load_weights(adapted, str(checkpoint))
    trained, whole = adapted.get_nb_trainable_parameters()
    say(f"LoRA of rank {lora.r} trains {trained:,} of {whole:,} parameters ({100 * trained / whole:.2g} %)")
    return adapted


def configs_of(model: "PreTrainedModel | PeftModel") -> "tuple[PreTrainedConfig | PeftConfig, ...]":
    """Returns what marks a folder as a run's: the model's configuration, or those of its adapters."""
    adapters = getattr(model, "peft_config", None)
    return (model.config,) if adapters is None else tuple(adapters.values())


def save_generation_config(model: "PreTrainedModel | PeftModel", folder: Path) -> None:
    """Writes how a model decodes beside its adapters: PEFT saves what is trained alone."""
    write_whole(
        folder / GENERATION_CONFIG,
        lambda unfinished: model.generation_config.save_pretrained(unfinished.parent, unfinished.name),
    )
