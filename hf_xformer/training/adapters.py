# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters by PEFT: what a run trains beside a model's frozen weights (LoRA: Hu et al. 2021)."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
    Seq2SeqTrainingArguments,
)

from ..checkpoints.adapters import KINDS, is_moved, load_weights, read_weights
from ..errors import ArgumentError, first_line
from ..files import ADAPTER_CONFIG, GENERATION_CONFIG, read_json, write_whole
from ..models import XformerConfig
from .adapter_options import make_peft_config
from .adapter_state import is_saved_in_part, load_whole
from .arguments import ModelArguments


if TYPE_CHECKING:  # PEFT is an extra
    from peft import PeftConfig, PeftModel


def make_adapter(
    model_args: ModelArguments, config: PreTrainedConfig, training_args: Seq2SeqTrainingArguments | None = None
) -> "PeftConfig | None":
    """
    Returns the adapters that a run's options ask for, tried on the model without memory; None if they ask for none.

    Raises:
        ArgumentError: The model has no such layers, or they cannot have adapters.
    """
    adapter: Any = make_peft_config(model_args, training_args)
    if adapter is None:
        return None
    fit_heads(adapter, config)
    names = getattr(adapter, "target_modules", None)
    where = "--peft_config target_modules" if model_args.lora_rank is None else "--lora_target_modules"
    kind = "--peft_config" if model_args.lora_rank is None else "--lora_rank"
    try:
        adapted = without_memory(config, adapter, model_args.trust_remote_code)
    except (ValueError, TypeError, OSError, RuntimeError, re.error) as error:
        if names is None and "specify `target_modules`" not in str(error):
            raise ArgumentError(f"{kind}: {first_line(error)}") from error
        if names is None:
            raise ArgumentError(
                f"{kind}: PEFT knows no layers for a model of type {config.model_type!r}: give {where}"
            ) from error
        shown = names if isinstance(names, str) else " ".join(sorted(names))
        raise ArgumentError(f"{where} {shown}: {first_line(error)}") from error
    if not adapter.is_prompt_learning:
        check_targets(adapted, [] if names is None or isinstance(names, str) else sorted(names), where)
    base = model_args.model_name_or_path
    adapter.base_model_name_or_path = str(Path(base).resolve()) if base is not None and Path(base).is_dir() else base
    return adapter


def fit_heads(adapter: Any, config: PreTrainedConfig) -> None:
    """
    Gives a prefix the shape of the decoder's keys, where PEFT would take the encoder's number of heads.

    Raises:
        ArgumentError: The options say sizes that the model has.
    """
    heads_of = getattr(config, "heads_of", None)
    if not adapter.is_prompt_learning or heads_of is None:
        return
    for name in ("num_layers", "num_attention_heads", "token_dim"):
        if getattr(adapter, name) is not None:
            raise ArgumentError(f"--peft_config {name}: it follows from the model: leave it out")
    if adapter.peft_type.value != "PREFIX_TUNING":
        return
    heads, width = heads_of("decoder")
    if config.num_key_value_heads is None:  # else PEFT reads them itself
        adapter.num_attention_heads, adapter.token_dim = heads, heads * width


def without_memory(config: PreTrainedConfig, adapter: "PeftConfig", trust_remote_code: bool) -> "PeftModel":
    """Returns a model with adapters whose weights take no memory, but for prompts, which PEFT copies."""
    from peft import get_peft_model

    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=trust_remote_code)
    check_scale(model, adapter)
    adapted = get_peft_model(model, adapter, low_cpu_mem_usage=True)
    if adapter.is_prompt_learning:
        adapted.prompt_encoder.to_empty(device="cpu")
    for name, each in adapted.named_parameters():
        if ".ranknum." in name:  # AdaLoRA's count of ranks: frozen in memory, but not where PEFT makes it without any
            each.requires_grad_(False)
    return adapted


def check_scale(model: PreTrainedModel, adapter: "PeftConfig") -> None:
    """
    Checks that a model does not scale its sources' embeddings where it looks them up: with prompts PEFT does that.

    Raises:
        ArgumentError: It does, as stock Marian and Pegasus models do: it would read embeddings of another size.
    """
    looks_up = adapter.is_prompt_learning and adapter.peft_type.value != "PREFIX_TUNING"
    if not looks_up or isinstance(model.config, XformerConfig) or model.config.model_type == "fsmt":
        return  # these two scale embeddings that they are given
    if (scale := getattr(model.get_encoder(), "embed_scale", 1.0)) != 1.0:
        raise ArgumentError(
            f"with {KINDS[adapter.peft_type.value]} PEFT leaves out the factor of {scale:.4g} by which "
            f"{type(model).__name__} scales embeddings: train LoRA, or convert it first where hf-xformer convert can"
        )


def tell_moved_base(output_dir: Path, adapter: "PeftConfig", say: Callable) -> None:
    """Says that a run goes on with adapters of a base model that was elsewhere when they were written."""
    earlier = read_json(output_dir / ADAPTER_CONFIG).get("base_model_name_or_path")
    now = adapter.base_model_name_or_path
    if earlier and now and is_moved(earlier, now):
        say(f"{output_dir}: its adapters are of {earlier}, which is no more; {now} is taken for the same model")


def check_targets(adapted: "PeftModel", names: list[str], where: str) -> None:
    """
    Checks that every name of a layer is one of the model's, and that the layer can have an adapter.

    Raises:
        ArgumentError: No layer has one of the names, or an embedding or the last layer has. They share their weight,
            of which adapters would change one use and merging all, and the loss goes by the weight alone.
    """
    model, targets = adapted.get_base_model(), adapted.base_model.targeted_module_names
    for name in names:
        if not any(target == name or target.endswith(f".{name}") for target in targets):
            raise ArgumentError(f"{where} {name}: the model has no layer of that name")
    for target in targets:
        module = model.get_submodule(target)
        if module is model.get_output_embeddings() or isinstance(module.get_base_layer(), nn.Embedding):
            raise ArgumentError(f"{where}: {target} shares its weight with other layers and cannot have an adapter")


def add_adapter(model: PreTrainedModel, adapter: "PeftConfig", checkpoint: Path | None, say: Callable) -> "PeftModel":
    """
    Returns the model with new adapters, or a checkpoint's, and nothing else of it to be trained.

    Raises:
        ArgumentError: An adapter's weight is missing in the checkpoint, unexpected or of another shape.
    """
    from peft import get_peft_model

    base, adapter.base_model_name_or_path = adapter.base_model_name_or_path, None
    adapted: Any = get_peft_model(model, adapter)
    adapter.base_model_name_or_path = base  # PEFT has put the name that the model was loaded by
    # PEFT's own card, of which it fills in next to nothing, would take the place of the run's.
    adapted.create_or_update_model_card = lambda output_dir: None
    if is_saved_in_part(adapter):
        # By which the Trainer takes up a checkpoint, the last or the best.
        adapted.load_adapter = lambda folder, *args, **kwargs: load_whole(adapted, Path(folder))
        if checkpoint is not None:
            load_whole(adapted, checkpoint)
    elif checkpoint is not None:
        load_weights(adapted, str(checkpoint), read_weights(str(checkpoint)))
    trained, whole = adapted.get_nb_trainable_parameters()
    kind = KINDS[adapter.peft_type.value]
    name = f"{kind} of rank {adapter.r}" if kind == "LoRA" else kind  # type: ignore[attr-defined]
    say(f"{name} trains {trained:,} of {whole:,} parameters ({100 * trained / whole:.2g} %)")
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
