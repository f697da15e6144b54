# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`run.json`: the record of a run, for its model card and for repeating it."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from ..checkpoints.adapters import KINDS
from ..files import RECORD, read_json, write_json
from ..models import XformerConfig
from ..version import __version__
from .commits import commit_of
from .privacy import NAMED_SECRET, cleaned, public_path, secret_in


# Options that decide the weights or the scores, of which a record says what was given on the command line. All others
# are nobody else's business: tokens, folders, trackers, names of runs.
RECORDED = {
    *("model_name_or_path", "config_name", "config_overrides", "tokenizer_name", "target_tokenizer_name"),
    *("attn_implementation", "ema_decay", "r_drop", "freeze", "lr_multipliers"),
    *("lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules", "peft_config"),
    *("trust_remote_code", "train_file", "validation_file", "validation_sets", "dataset_name", "datasets"),
    *("dataset_config_name", "train_split"),
    *("validation_split", "source_column", "target_column", "streaming", "max_source_length", "max_target_length"),
    *("on_bad_row", "max_length_ratio", "overlong", "special_tokens_in_text", "group_by_length", "max_tokens"),
    *("packing", "max_train_samples", "max_eval_samples", "metrics", "objective", "bpe_dropout", "unigram_sampling"),
    *("source_word_dropout", "case_noise", "temperature", "stages"),
    *("num_train_epochs", "max_steps", "per_device_train_batch_size", "per_device_eval_batch_size"),
    *("gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"),
    *("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "optim", "optim_args"),
    *("optim_target_modules", "label_smoothing_factor", "neftune_noise_alpha", "seed", "data_seed"),
    *("full_determinism", "bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval", "gradient_checkpointing"),
    *("torch_compile", "torch_compile_backend", "torch_compile_mode", "use_cpu", "use_liger_kernel"),
    *("liger_kernel_config", "dataloader_num_workers", "dataloader_drop_last", "dataloader_in_order"),
    "train_sampling_strategy",
    *("average_tokens_across_devices", "auto_find_batch_size", "accelerator_config", "deepspeed", "fsdp"),
    *("fsdp_config", "parallelism_config", "ignore_data_skip", "change_recipe", "early_stopping_patience"),
    *("early_stopping_threshold", "eval_strategy", "eval_steps", "eval_delay", "eval_max_tokens", "save_strategy"),
    *("save_steps", "load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
    *("predict_with_generate", "generation_max_length", "generation_num_beams", "generation_config"),
    *("sacrebleu_tokenize", "unicode_form"),
}
PACKAGES = ("transformers", "torch", "accelerate", "datasets", "tokenizers")
# Options of the Trainer that stand in a card, given or not.
OPTIMISATION = ("optim", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "seed")


def update_record(folder: Path, changes: dict) -> None:
    """Writes `run.json` with some entries changed or added."""
    write_json(folder / RECORD, read_json(folder / RECORD) | changes)


def provenance(recipe: Path | None, args: TrainingArguments) -> dict[str, Any]:
    """
    Returns what a start of a run is made of beside its options: the recipe's commit, versions and hardware.

    Args:
        recipe: The YAML file, if one was given.
    """
    return {
        "commit": None if recipe is None else commit_of(recipe),
        "versions": {"hf-xformer": __version__} | {name: metadata.version(name) for name in PACKAGES},
        "hardware": hardware(args),
    }


def make_record(
    trainer: Trainer,
    starts: Sequence[dict[str, Any]],
    recipe: Path | None,
    options: Sequence[str],
    base_model: str | None,
    trained_on: str | Sequence[str],
    bad_rows_left_out: dict[str, Any],
    batch: str,
    seconds: float,
) -> dict:
    """
    Returns the record of a finished run.

    Args:
        starts: Provenance of each start of the run, with the step `from_step` from which it counts.
        recipe, options: The command line: the YAML file, if one was given, and the words beside it.
        base_model: Folder or Hub name of the model that was trained further; None for a new one.
        trained_on: Name of a dataset, or files.
        bad_rows_left_out: Their numbers, of the training and of the validation set, and where the first ones stand.
        batch: Description of a step's batch.
        seconds: Time of training, over all starts.
    """
    model: Any = trainer.model  # the library's, or PEFT's
    config, args = model.config, trainer.args
    record = {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "recipe": None if recipe is None else public_path(recipe),
        **{name: starts[-1][name] for name in ("commit", "versions", "hardware")},
        "starts": list(starts),
        **recorded(options),
        "base_model": None if base_model is None else public_path(base_model),
        "base_is_local": base_model is not None and Path(base_model).exists(),
        "trained_on": listed(trained_on),
        "bad_rows_left_out": bad_rows_left_out,
        # ZeRO-3 leaves empty parameters here, which know their size.
        "parameters": sum(getattr(each, "ds_numel", each.numel()) for each in model.parameters()),
        "adapter_parameters": adapter_parameters(model),
        "adapter_type": adapter_type(model),
        "is_xformer": isinstance(config, XformerConfig),
        "model": {name: getattr(config, name, None) for name in ("encoder_layers", "decoder_layers", "d_model")}
        | {"vocab_size": config.vocab_size},
        "steps": trainer.state.global_step,
        "batch": batch,
        "optimisation": {name: plain(getattr(args, name)) for name in OPTIMISATION},
        "seconds": round(seconds, 1),
    }
    return cleaned(record)


def listed(data: str | Sequence[str]) -> str:
    """Returns a dataset's name, or the paths of files, as others may see them."""
    return public_path(data) if isinstance(data, str) else ", ".join(map(public_path, data))


def recorded(words: Sequence[str]) -> dict:
    """
    Returns the options of a command line that a record says, and the names of those that it leaves out: those that are
    not in `RECORDED`, however they are spelt, and those whose value looks like a secret.
    """
    given: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            spelt, equals, value = word[2:].partition("=")
            values = given.setdefault(spelt.replace("-", "_"), [])
            values[:] = [value] if equals else []
        elif given:
            values.append(word)
    kept, left = [], []
    for name, values in given.items():
        known = name if name in RECORDED else name.removeprefix("no_")
        if known in RECORDED and not any(secret_in(each) or NAMED_SECRET.search(each) for each in values):
            kept.append(" ".join([f"--{name}", *(cleaned(public_path(each)) for each in values)]))
        else:
            left.append(name)
    return {"options": " ".join(kept), "options_left_out": sorted(left)}


def adapter_parameters(model: torch.nn.Module) -> int | None:
    """Returns the number of an adapter's parameters; None for a model without one."""
    if not hasattr(model, "peft_config"):
        return None
    return sum(each.numel() for each in model.parameters() if each.requires_grad)


def adapter_type(model: torch.nn.Module) -> str | None:
    """Returns the name of an adapter's kind; None for a model without one."""
    kinds = [plain(each.peft_type) for each in getattr(model, "peft_config", {}).values()]
    return KINDS.get(kinds[0], kinds[0]) if kinds else None


def plain(value):
    """Returns an enumeration's value, which JSON can hold."""
    return getattr(value, "value", value)


def hardware(args: TrainingArguments) -> dict:
    """Returns the `kind`, "gpu" or "cpu", the `count` of GPUs or of cores in use, and a `name` for people."""
    processes = args.world_size
    if args.device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        used = min(cores, processes * torch.get_num_threads())
        share = f"{cores} core{'s' * (cores != 1)}"
        share = share if used == cores else f"{used} of {share}"
        return {"kind": "cpu", "count": used, "name": f"{share} of {processor_name()}"}
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else args.device.type
    return {"kind": "gpu", "count": processes, "name": f"{processes} {name}"}


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "a CPU"
