# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Checks of a run's options against what it reads: the model's configuration, before the data are read, and the folders,
before anything is moved.

The options alone have been checked before (`option_checks`). Nothing here writes.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import (
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Seq2SeqTrainingArguments,
)

from ..checkpoints.adapters import is_moved
from ..checkpoints.foreign_code import TOKENIZER_CONFIG
from ..checkpoints.lengths import check_both_lengths, check_length
from ..checkpoints.loading import (
    IGNORED_FIELDS,
    TRAINING_FIELDS,
    has_file,
    load_tokenizer,
    load_tokenizers,
    read_config,
)
from ..checkpoints.vocabulary import check_decoder_start, check_same_tokens, other_tokens
from ..checkpoints.weight_files import model_class
from ..errors import ArgumentError, blame
from ..files import ADAPTER_CONFIG, CONFIG, read_json
from ..models import XformerConfig
from .arguments import DataArguments, ModelArguments
from .launch import WHOLE, tensor_parallel_size, why_not_train_by_varlen
from .r_drop import check_r_drop


if TYPE_CHECKING:  # PEFT is an extra
    from peft import PeftConfig

# Fields of PEFT's file by which two trainings of adapters do not differ.
NOT_COMPARED = ("auto_mapping", "inference_mode", "peft_version", "rank_pattern", "revision", "task_type")
# Options that others come from.
ADAPTER_OPTIONS = {
    "base_model_name_or_path": "model_name_or_path",
    "r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "lora_target_modules",
}


# The model's configuration, before the data are read.


def check_model(
    config: PreTrainedConfig,
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
) -> None:
    """Refuses options that do not go with the model's configuration."""
    check_both_lengths(config, data_args.max_source_length, data_args.max_target_length)
    if (longest := training_args.generation_max_length) is not None:
        check_length(config, longest - 1, f"--generation_max_length {longest}", "decoder")  # counts the start token
    check_decoder_start(config)
    check_division(config)
    check_packing(config, model_args, data_args, training_args)
    if training_args.label_smoothing_factor and getattr(config, "label_smoothing", 0):
        raise ArgumentError(
            f"--label_smoothing_factor {training_args.label_smoothing_factor} and the model's `label_smoothing` of "
            f"{config.label_smoothing}: the Trainer's would hide the model's; give one"
        )
    check_r_drop(config, model_args.r_drop, model_args.lora_dropout if model_args.adapts else 0.0)
    check_attention(config, model_args, data_args, training_args)


def check_division(config: PreTrainedConfig) -> None:
    """Checks that tensor parallelism cuts heads apart, and never through."""
    size = tensor_parallel_size()
    stacks = ("encoder", "decoder")
    for name in ("num_key_value_heads", *(f"{s}_attention_heads" for s in stacks), *(f"{s}_ffn_dim" for s in stacks)):
        if (value := getattr(config, name, None)) is not None and value % size:
            raise ArgumentError(f"parallelism_config_tp_size {size} does not divide the model's `{name}` of {value}")


def check_packing(
    config: PreTrainedConfig,
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
) -> None:
    """Checks that the model keeps the pairs of a row apart, compiled or not."""
    if not data_args.packing:
        return
    if not isinstance(config, XformerConfig):
        raise ArgumentError(f"--packing: a model of type {config.model_type!r} would mix the pairs of a row")
    attention = model_args.attn_implementation or ""
    if "flash" in attention and training_args.torch_compile:
        raise ArgumentError(
            f"--packing with --attn_implementation {attention} does not go with --torch_compile: take varlen or sdpa"
        )


def check_attention(
    config: PreTrainedConfig,
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
) -> None:
    """Checks that the model has the attention and that its package is installed, on a model without memory."""
    name = model_args.attn_implementation
    if name is None or name in ("eager", "sdpa"):
        return
    if name == "varlen":
        if (reason := why_not_train_by_varlen(config, training_args, data_args.packing)) is not None:
            raise ArgumentError(f"--attn_implementation varlen {reason}: take sdpa")
        return
    tried = deepcopy(config)
    tried._attn_implementation = name
    kind = model_class(config, model_args.trust_remote_code)
    with torch.device("meta"), blame(f"--attn_implementation {name}", ImportError, ValueError, RuntimeError):
        kind(tried)


def check_own_tokenizer(model_args: ModelArguments, source: PreTrainedTokenizerBase) -> None:
    """Checks that a given tokenizer keeps the ids of an existing model's own tokens; it may add tokens."""
    if model_args.model_name_or_path is None or model_args.tokenizer_name is None:
        return
    own = own_tokenizer(model_args)
    if own is not None:
        check_same_tokens(own, source, f"--tokenizer_name {model_args.tokenizer_name}")


def own_tokenizer(model_args: ModelArguments) -> PreTrainedTokenizerBase | None:
    """
    Returns an existing model's tokenizer; None if it has none, as a converted one, which is given one now.

    Raises:
        ArgumentError: It does not load.
    """
    base = str(model_args.model_name_or_path)
    if not any(has_file(base, name) for name in (TOKENIZER_CONFIG, "tokenizer.json")):
        return None
    return load_tokenizer(base, model_args.trust_remote_code)


# The folders, before anything in them is moved.


def check_output_dir(
    output_dir: Path,
    config: PreTrainedConfig,
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
    adapter: "PeftConfig | None",
    trust_remote_code: bool,
) -> None:
    """
    Checks that a folder is new or this run's.

    Raises:
        ArgumentError: It holds a run of a model with another configuration, other adapters or other tokens.
    """
    if not any((output_dir / name).exists() for name in (CONFIG, ADAPTER_CONFIG)):
        return
    where, advice = f"--output_dir {output_dir}", "choose another folder or remove that one"
    check_adapter(output_dir, "--output_dir", adapter)
    if adapter is None:
        theirs, ours = read_config(str(output_dir), "--output_dir", trust_remote_code).to_dict(), config.to_dict()
        for name in sorted(ours.keys() - IGNORED_FIELDS - {*TRAINING_FIELDS}):
            if theirs.get(name) != ours[name]:
                raise ArgumentError(
                    f"{where}: holds a run with {name}={theirs.get(name)!r}, this one has {ours[name]!r}; {advice}"
                )
    if side := other_tokens(load_tokenizers(str(output_dir), trust_remote_code=trust_remote_code), tokenizers):
        raise ArgumentError(f"{where}: holds a run with another tokenizer of the {side}; {advice}")


def check_adapter(folder: str | Path, where: str, adapter: "PeftConfig | None") -> None:
    """
    Checks that a folder's weights are of the adapters that the run trains, or of a whole model.

    Args:
        folder: Holds weights that a run would go on from.
        where: The option that the folder comes from, for the message.
        adapter: What the run trains; None for a whole model.

    Raises:
        ArgumentError: There are adapters and should be none, the other way round, or other adapters.
    """
    path = Path(folder, ADAPTER_CONFIG)
    if path.exists() != (adapter is not None):
        was, now = ("with", "without") if adapter is None else ("without", "with")
        raise ArgumentError(f"{where} {folder}: holds a run {was} an adapter, this one is {now}")
    if adapter is None:
        return
    theirs = read_json(path)
    ours = json.loads(json.dumps(adapter.to_dict(), default=lambda value: sorted(value)))
    is_shorthand = ours["peft_type"] == "LORA"
    # The kind comes first: all else follows from it. A field that one version of PEFT lacks says nothing.
    for field in sorted(ours.keys() & theirs.keys() - {*NOT_COMPARED}, key=lambda name: (name != "peft_type", name)):
        stored, wanted = (
            sorted(value) if isinstance(value, list) else value for value in (theirs[field], ours[field])
        )
        option = ADAPTER_OPTIONS.get(field) if is_shorthand or field == "base_model_name_or_path" else None
        option = option or f"peft_config {field}"
        moved = option == "model_name_or_path" and is_moved(str(stored), str(wanted))
        if stored != wanted and not moved:
            raise ArgumentError(f"{where} {folder}: holds a run with {option}={stored!r}, this one has {wanted!r}")


def check_layout(checkpoint: Path, was: str, processes_were: int, now: str, processes: int) -> None:
    """
    Checks that a checkpoint's optimizer fits the processes of this run.

    Args:
        was, processes_were: How weights and optimizer were divided, and among how many processes; "" if unknown.
        now, processes: The same of this run.

    Raises:
        ArgumentError: The checkpoint was divided otherwise, so that the libraries would stop with a riddle, or
            silently begin with an empty optimizer.
    """
    if was and (was != now or (processes_were != processes and now != WHOLE)):
        raise ArgumentError(
            f"{checkpoint} was written by {processes_were} processes with {was}, this run has {processes} with {now}: "
            "its optimizer cannot be divided anew. Go on as it was written, or begin a new run from its weights: "
            f"--model_name_or_path {checkpoint} and another --output_dir"
        )
