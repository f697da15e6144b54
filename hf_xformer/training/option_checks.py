# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Checks of a run's options alone, by subject: what cannot be done, would do nothing, or would go wrong silently.

They come before anything is read; the launch has been checked before (`launch_checks`). Nothing here writes.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import Seq2SeqTrainingArguments, TrainingArguments
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.trainer_utils import IntervalStrategy

from ..checkpoints.adapters import base_of, check_peft
from ..decoding.metrics import TOKENIZERS, check_metric_names
from ..errors import ArgumentError, blame, did_you_mean, wrong_choice
from .adapter_options import adapter_options
from .arguments import CHECKPOINTING, DataArguments, ModelArguments
from .chance import check_chance
from .launch import OPTIMIZER_SHARDED, TENSOR_PARALLEL, WHOLE, layout, tensor_parallel_size
from .mixtures import check_mixture, corpora_of, naming_corpus
from .muon import MUON
from .optimizers import optimizer_name
from .schedules import check_schedule
from .trainer_options import check_trainer_options
from .validation_sets import check_best_score


COUNTS = (
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "max_tokens"),
    *("max_train_samples", "max_eval_samples", "preprocessing_num_workers", "lora_rank", "lora_alpha"),
    *("eval_accumulation_steps", "generation_num_beams", "save_total_limit"),
)
# Possible values of numbers, and their name in messages.
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(COUNTS, (lambda value: value >= 1, "1 or more")),
    **dict.fromkeys(
        ("max_source_length", "max_target_length"), (lambda value: value >= 2, "2 or more: a token and the end token")
    ),
    "generation_max_length": (lambda value: value >= 2, "2 or more: the start token and one more"),
    **dict.fromkeys(
        ("lora_dropout", "label_smoothing_factor", "adam_beta1", "adam_beta2", "source_word_dropout"),
        (lambda value: 0 <= value < 1, "in [0, 1)"),
    ),
    "max_steps": (lambda value: value == -1 or value >= 1, "1 or more, or -1 for --num_train_epochs"),
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), (lambda value: value > 0, "above 0")),
    "temperature": (lambda value: 0 < value < float("inf"), "above 0"),
    "max_length_ratio": (lambda value: 1 < value < float("inf"), "above 1"),
    "r_drop": (lambda value: 0 < value < float("inf"), "above 0"),
    "seed": (lambda value: 0 <= value < 2**32, "from 0 to 4294967295"),
    "data_seed": (lambda value: value >= 0, "0 or more"),
    "ema_decay": (lambda value: 0 < value < 1, "between 0 and 1"),
    **dict.fromkeys(("bpe_dropout", "case_noise"), (lambda value: 0 <= value <= 1, "in [0, 1]")),
    **dict.fromkeys(
        (
            *("learning_rate", "weight_decay", "max_grad_norm", "adam_epsilon", "dataloader_num_workers"),
            "unigram_sampling",
        ),
        (lambda value: value >= 0, "0 or more"),
    ),
}
# Extras of ours that bring what logs a run.
TRACKER_EXTRAS = ("tensorboard", "trackio")


def refuse(table: Iterable[tuple[Any, str]]) -> None:
    """Raises the first message whose condition is true."""
    for wrong, message in table:
        if wrong:
            raise ArgumentError(message)


def check_options(
    model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> None:
    """Refuses options that contradict each other, are missing or would do nothing."""
    check_sources(model_args, data_args, training_args)
    check_attention_name(model_args, training_args)
    check_adapters(model_args, training_args)
    check_mixture(data_args, training_args)
    for arguments in (model_args, data_args, training_args):
        check_ranges(arguments)
    for corpus, of_corpus in corpora_of(data_args):
        with naming_corpus(corpus, of_corpus):
            check_ranges(of_corpus)
    if model_args.ema_decay is not None and layout(training_args) not in (WHOLE, OPTIMIZER_SHARDED):
        raise ArgumentError(f"--ema_decay averages whole weights, which {layout(training_args)} divides")
    check_optimizing(model_args, training_args)
    check_chance(data_args)
    check_steps(data_args, training_args)
    check_batching(data_args, training_args)
    check_evaluation(data_args, training_args)
    check_trackers(training_args)
    check_schedule(training_args)
    check_compiler(training_args)
    check_checkpointing(training_args)
    check_trainer_options(data_args, training_args)


def check_ranges(arguments: ModelArguments | DataArguments | Seq2SeqTrainingArguments) -> None:
    """Refuses numbers that an option cannot have."""
    for name, value in vars(arguments).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ArgumentError(f"--{name} must be a finite number, got {value}")
    for name, (is_possible, words) in RANGES.items():
        value = getattr(arguments, name, None)
        if value is not None and not is_possible(value):
            raise ArgumentError(f"--{name} must be {words}, got {value}")


def check_sources(
    model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> None:
    """Checks where model, tokenizer and data come from."""
    base, output_dir = model_args.model_name_or_path, training_args.output_dir
    table = [
        (
            (base is None) == (model_args.config_name is None),
            "give either --config_name for a new model or --model_name_or_path to train an existing one further",
        ),
        (
            model_args.config_name is not None and model_args.tokenizer_name is None,
            "a new model needs --tokenizer_name; hf-xformer tokenizer makes a tokenizer",
        ),
        (
            [data_args.train_file, data_args.dataset_name, data_args.datasets].count(None) != 2,
            "give either --train_file, --dataset_name or --datasets",
        ),
        (
            data_args.dataset_config_name is not None and data_args.dataset_name is None,
            f"--dataset_config_name {data_args.dataset_config_name} does nothing without --dataset_name; a corpus of "
            "--datasets has its own",
        ),
        (
            base is not None and Path(base).resolve() == Path(output_dir).resolve(),
            f"--output_dir {output_dir}: training would overwrite --model_name_or_path",
        ),
    ]
    refuse(table)


def check_attention_name(model_args: ModelArguments, training_args: Seq2SeqTrainingArguments) -> None:
    """Checks that there is such an attention; the library finds kernels on the Hub, whose names have a slash."""
    name = model_args.attn_implementation
    if name is None or "/" in name:
        return
    known = ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
    if name.removeprefix("paged|") not in known:
        usual = "eager, sdpa, varlen, flex_attention, flash_attention_2"
        raise ArgumentError(f"--attn_implementation {name}: none of {usual}{did_you_mean(name, known)}")
    if name == "flex_attention" and training_args.device.type == "cpu":
        raise ArgumentError("--attn_implementation flex_attention: torch cannot train through it on a CPU; sdpa can")


def check_adapters(model_args: ModelArguments, training_args: Seq2SeqTrainingArguments) -> None:
    """Checks that adapters have a model to be trained for, and that nobody trains those of another."""
    base, rank = model_args.model_name_or_path, model_args.lora_rank
    if base is not None and base_of(base) is not None:
        raise ArgumentError(f"--model_name_or_path {base}: an adapter; hf-xformer merge makes a model of it")
    if rank is not None and model_args.peft_config is not None:
        raise ArgumentError("--lora_rank and --peft_config: both say which adapters: give one")
    if rank is None:
        for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
            if (value := getattr(model_args, name)) != getattr(ModelArguments, name):
                raise ArgumentError(f"--{name} {value} does nothing without --lora_rank")
    if not model_args.adapts:
        return
    option = "--peft_config" if rank is None else f"--lora_rank {rank}"
    table = [
        (
            base is None,
            f"{option} would leave the weights of a new model at random: give --model_name_or_path instead "
            "of --config_name",
        ),
        (
            layout(training_args) not in (WHOLE, OPTIMIZER_SHARDED),
            f"{option.split()[0]} is not possible under {layout(training_args)}, which divides the weights",
        ),
    ]
    refuse(table)
    check_peft(option)
    adapter_options(model_args)


def check_optimizing(model_args: ModelArguments, training_args: Seq2SeqTrainingArguments) -> None:
    """Checks optimizers, groups of weights and R-Drop against options that they do not go with."""
    divided = layout(training_args)
    if optimizer_name(training_args) == MUON and divided != WHOLE:
        raise ArgumentError(f"--optim {MUON} needs whole matrices, which {divided} divides: take adamw_torch_fused")
    for name in ("freeze", "lr_multipliers"):
        if getattr(model_args, name) and divided in ("FSDP", TENSOR_PARALLEL):
            raise ArgumentError(f"--{name} is not possible under {divided}, which renames and divides the weights")
    engine = getattr(training_args.deepspeed_plugin, "deepspeed_config", {})
    for name in ("optimizer", "scheduler") if model_args.lr_multipliers else ():
        if name in engine:
            raise ArgumentError(f"--lr_multipliers: DeepSpeed's own `{name}` knows one rate: leave it out there")
    for name in ("label_smoothing_factor", "torch_compile") if model_args.r_drop is not None else ():
        if getattr(training_args, name):
            advice = "; the model's own `label_smoothing` does" if name == "label_smoothing_factor" else ""
            raise ArgumentError(f"--r_drop does not go with --{name}{advice}")
    if model_args.freeze and model_args.adapts:
        raise ArgumentError("--freeze: adapters leave all weights of the model as they are: leave it out")


def check_steps(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> None:
    """Checks how long the run is, and in which order it meets the data."""
    endless = training_args.max_steps <= 0
    accelerator: Any = training_args.accelerator_config
    table = [
        (
            accelerator.dispatch_batches,
            "--accelerator_config: dispatch_batches would cut one process's batches for all, which hold more than "
            "tensors: leave it out, every process makes its own",
        ),
        (
            endless and not training_args.num_train_epochs > 0,
            f"--num_train_epochs must be above 0, got {training_args.num_train_epochs}",
        ),
        (
            data_args.streaming and data_args.datasets is None and endless,
            "--streaming does not know how long the data are: give --max_steps",
        ),
        (
            data_args.endless not in (None, "--datasets") and endless,
            f"{data_args.endless} makes other pairs in every pass, of which nobody knows the number: give --max_steps",
        ),
        (
            data_args.endless and training_args.train_sampling_strategy != "random",
            f"--train_sampling_strategy does nothing with {data_args.endless}, which has an order of its own: leave "
            "it out",
        ),
        (
            training_args.load_best_model_at_end and tensor_parallel_size() > 1,
            "--load_best_model_at_end is not possible under tensor parallelism",
        ),
        (
            training_args.train_sampling_strategy == "group_by_length",
            "--train_sampling_strategy group_by_length would shuffle the evaluation too; leave it to "
            "--group_by_length",
        ),
        (
            training_args.dataloader_persistent_workers,  # torch draws a seed for workers whenever they start
            "--dataloader_persistent_workers would have a resumed run draw other random numbers: leave it out",
        ),
    ]
    refuse(table)


def check_batching(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> None:
    """Checks batches that are counted in tokens, or packed."""
    most = data_args.max_tokens
    if not data_args.packing and most is None:
        return
    name = "packing" if data_args.packing else "max_tokens"
    table = [
        (
            training_args.train_sampling_strategy != "random",
            f"--{name} makes its own batches, not those of --train_sampling_strategy",
        ),
        (
            most is None and training_args.torch_compile,
            "--torch_compile takes packed rows of one length only: give --max_tokens",
        ),
    ]
    for side in ("max_source_length", "max_target_length"):
        length = getattr(data_args, side)
        short = f"--max_tokens {most} has no room for --{side} {length}: give more or shorten that"
        table.append((most is not None and most < length, short))
    refuse(table)


def check_evaluation(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> None:
    """Checks what is evaluated, and by which metrics."""
    metrics = data_args.metrics or []
    check_metric_names(metrics, "--metrics", in_training=True)
    if data_args.sacrebleu_tokenize is not None:
        where = f"--sacrebleu_tokenize {data_args.sacrebleu_tokenize}"
        if data_args.sacrebleu_tokenize not in TOKENIZERS:
            raise ArgumentError(f"{where}: {wrong_choice(data_args.sacrebleu_tokenize, TOKENIZERS)}")
        if "sacrebleu" not in metrics:
            raise ArgumentError(f"{where} does nothing without --metrics sacrebleu")
    evaluates = data_args.evaluates(training_args)
    sets: Any = data_args.validation_sets or {}
    table = [
        (
            data_args.validation_file is not None and data_args.validation_sets is not None,
            "--validation_file and --validation_sets: both say what is evaluated: give one",
        ),
        (
            data_args.objective is not None and any("prefix" in each for each in sets.values()),
            "--validation_sets: prefix does nothing with an objective, which makes the sources: leave it out",
        ),
        (
            evaluates and not data_args.validation_files and data_args.dataset_name is None,
            f"--eval_strategy {IntervalStrategy(training_args.eval_strategy).value} needs --validation_file",
        ),
        (
            metrics and not evaluates,
            "--metrics are computed in evaluation: give --validation_file or --eval_strategy",
        ),
    ]
    refuse(table)
    check_useless(data_args, evaluates)
    check_best_score(training_args.metric_for_best_model, metrics, sets)


def check_useless(data_args: DataArguments, evaluates: bool) -> None:
    """Refuses options of data and evaluation that do nothing, having another value than their default."""
    of_dataset = data_args.dataset_name is not None and evaluates and not data_args.validation_files
    named = any(corpus.dataset_name for corpus, _ in corpora_of(data_args)) or data_args.dataset_name
    needs = {
        "train_split": (named, "--dataset_name: files have no splits"),
        "validation_split": (of_dataset, "--dataset_name and an evaluation on it"),
        "max_eval_samples": (evaluates, "an evaluation: give --validation_file or --eval_strategy"),
        "unicode_form": (data_args.metrics, "--metrics"),
    }
    for each in fields(data_args):
        useful, what = needs.get(each.name, (True, ""))
        if not useful and (value := getattr(data_args, each.name)) != each.default:
            raise ArgumentError(f"--{each.name} {value} does nothing without {what}")


def check_trackers(training_args: TrainingArguments) -> None:
    """Checks that there are such trackers, and that they are installed."""
    there = get_available_reporting_integrations() if training_args.report_to else []
    for name in training_args.report_to or ():
        if name not in INTEGRATION_TO_CALLBACK:
            meant = did_you_mean(name, INTEGRATION_TO_CALLBACK) or f"; there are {', '.join(INTEGRATION_TO_CALLBACK)}"
            raise ArgumentError(f"--report_to {name}: no such tracker{meant}")
        if name not in there and name not in ("flyte", "azure_ml"):  # which the library does not look for alone
            package = f"'hf-xformer[{name}]'" if name in TRACKER_EXTRAS else name
            raise ArgumentError(f"--report_to {name}: not installed, or not set up: pip install {package}")


def check_compiler(training_args: TrainingArguments) -> None:
    """Checks that torch's compiler has the backend and the mode, by which nothing is compiled yet."""
    if not training_args.torch_compile:
        return
    backend, mode = training_args.torch_compile_backend, training_args.torch_compile_mode
    where = f"--torch_compile_backend {backend}" + ("" if mode is None else f" with --torch_compile_mode {mode}")
    with blame(where, RuntimeError, ImportError, ValueError):
        torch.compile(torch.nn.Identity(), backend=backend, mode=mode)


def check_checkpointing(training_args: TrainingArguments) -> None:
    """Checks that torch's activation checkpointing takes its arguments, on one number."""
    name = f"{CHECKPOINTING}_kwargs"
    if kwargs := getattr(training_args, name):
        with blame(f"--{name} {kwargs}", TypeError, ValueError):
            number = torch.zeros(1, requires_grad=True)
            checkpoint(torch.nn.Identity(), number, **{"use_reentrant": False, **kwargs})
