# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The plan of a run: what follows from its options, decided once and before the data are read."""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedConfig, Seq2SeqTrainingArguments
from transformers.trainer_utils import IntervalStrategy

from ..checkpoints.loading import attention_on
from ..checkpoints.number_formats import describe_slowdown, is_slow
from .arguments import DataArguments, ModelArguments
from .evaluation import batch_of_an_evaluation
from .launch import TENSOR_PARALLEL, WHOLE, data_parallel_size, layout, precision, why_not_train_by_varlen
from .muon import MUON
from .optimizers import optimizer_name
from .trainer_options import settings


# Tokens. Up to here the scores of a row, which eager attention holds, are no more than its features.
EAGER_LENGTH = 512


@dataclass(frozen=True)
class Plan:
    """
    Decisions on a run that its options leave open; `run.json` keeps them.

    Args:
        batch: Pairs or tokens that a step works on, in words. Learning rate and epochs depend on it.
        attn_implementation: The model's; None leaves it to the library.
        batches: "planned" (batches are packed, or of so many tokens), "grouped" (of pairs of like lengths) or "drawn"
            (at random). The dataset gives whole ones if they are planned, of streams and of mixtures; else rows.
        evaluates: Whether the run evaluates at all; it does so at the end, whatever `eval_strategy`.
        eval_batch: Rows or tokens of an evaluation's batch, in words. To the Trainer a whole batch is one item.
        eval_rows, eval_tokens: The most that it has; None for the one that does not decide.
        train_sampling_strategy, per_device_train_batch_size, dispatch_batches, eval_strategy, predict_with_generate:
            As the Trainer is told them.
        settings: Options that the Trainer is given another value of than was asked for, see `trainer_options`.
    """

    batch: str
    attn_implementation: str | None
    batches: str
    evaluates: bool
    eval_batch: str
    eval_rows: int | None
    eval_tokens: int | None
    train_sampling_strategy: str
    per_device_train_batch_size: int
    dispatch_batches: bool | None
    eval_strategy: str
    predict_with_generate: bool
    settings: dict[str, Any] = field(default_factory=dict)


def make_plan(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
    is_finished: bool = False,
    config: PreTrainedConfig | None = None,
) -> Plan:
    """
    Decides what the options leave open.

    Args:
        is_finished: Whether the run needs no further step and is only evaluated. DeepSpeed and FSDP evaluate only what
            they train.
        config: The model's; None where it is not known yet.
    """
    batches = "drawn"
    if training_args.train_sampling_strategy == "random" and (data_args.plans_batches or data_args.group_by_length):
        batches = "planned" if data_args.plans_batches else "grouped"
    gives_batches = batches == "planned" or data_args.endless is not None
    accelerator: Any = training_args.accelerator_config
    strategy = IntervalStrategy(training_args.eval_strategy).value
    evaluates = data_args.evaluates(training_args)
    if is_finished and layout(training_args) not in (WHOLE, TENSOR_PARALLEL):
        evaluates = False
    rows, tokens, words = batch_of_an_evaluation(model_args, data_args, training_args)
    return Plan(
        batch=batch_of_a_step(model_args, data_args, training_args),
        attn_implementation=model_args.attn_implementation or choose_attention(config, data_args, training_args),
        batches=batches,
        evaluates=evaluates,
        eval_batch=words,
        eval_rows=rows,
        eval_tokens=tokens,
        # The dataset's own order.
        train_sampling_strategy=training_args.train_sampling_strategy if batches == "drawn" else "sequential",
        per_device_train_batch_size=1 if gives_batches else training_args.per_device_train_batch_size,
        # Else one process would make a stream's or a mixture's batches for all.
        dispatch_batches=False if data_args.endless else accelerator.dispatch_batches,
        eval_strategy=strategy if evaluates else IntervalStrategy.NO.value,
        predict_with_generate=training_args.predict_with_generate or (evaluates and bool(data_args.metrics)),
        settings={name: value for name, value, _ in settings(data_args, training_args)},
    )


def batch_of_a_step(
    model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> str:
    """Returns the batch that the options' numbers come to on these processes."""
    processes, accumulated = data_parallel_size(training_args), training_args.gradient_accumulation_steps
    together = processes * accumulated
    if data_args.max_tokens is None:
        pairs = training_args.train_batch_size * together
        size = f"{pairs:,} pair{'' if pairs == 1 else 's'}"
    else:
        tokens = f"{data_args.max_tokens * together:,}"
        size = f"at most {tokens} source and {tokens} target tokens"
    details = [
        "1 process" if processes == 1 else f"{processes} processes",
        "no accumulation" if accumulated == 1 else f"{accumulated} batches accumulated",
        *(["packed"] if data_args.packing else []),
        *(["each pair twice"] if model_args.r_drop is not None else []),
    ]
    return f"{size} per step ({', '.join(details)})"


def choose_attention(
    config: PreTrainedConfig | None, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> str | None:
    """
    Returns varlen on a GPU that has its kernel, for a model that it trains; eager where torch's own attention is wrong
    or slow, as its backward pass in bfloat16 on a CPU is; else None.
    """
    if given := attention_on(training_args.device):
        return given["attn_implementation"]
    if config is not None and why_not_train_by_varlen(config, training_args, data_args.packing) is None:
        return "varlen"
    in_bf16 = precision(training_args) == "bf16" and training_args.device.type == "cpu"
    is_short = max(data_args.max_source_length, data_args.max_target_length) <= EAGER_LENGTH
    return "eager" if in_bf16 and is_short and not is_slow(torch.bfloat16, training_args.device) else None


def describe_slow_formats(training_args: Seq2SeqTrainingArguments) -> Iterator[str]:
    """Yields a line for each use that a run makes of 16 bits, or would make, on a CPU where they are slow."""
    device = training_args.device
    if precision(training_args) == "bf16" and is_slow(torch.bfloat16, device):
        asked = "--bf16" if training_args.bf16 else "mixed_precision bf16 of the launch configuration"
        yield f"{asked}: {describe_slowdown(torch.bfloat16)}; the run is faster without it"
    for name, dtype in (("bf16_full_eval", torch.bfloat16), ("fp16_full_eval", torch.float16)):
        if getattr(training_args, name) and is_slow(dtype, device):
            yield f"--{name}: {describe_slowdown(dtype)}; evaluations are faster without it"
    if optimizer_name(training_args) == MUON and is_slow(torch.bfloat16, device):
        yield f"--optim {MUON} orthogonalises in float32, not in bfloat16: {describe_slowdown(torch.bfloat16)}"


def trainer_arguments(
    training_args: Seq2SeqTrainingArguments, plan: Plan, resumes: bool = False
) -> Seq2SeqTrainingArguments:
    """
    Returns the arguments that the Trainer is given: a copy with the plan's decisions, and without its own pushes
    and deletions.

    The one place where arguments are set after they were made. `dataclasses.replace` would make them anew, and with
    them the process group, devices and DeepSpeed's engine; a copy shares those.

    Args:
        resumes: Whether steps have been taken: the evaluation before the first one is not done again.
    """
    given = copy(training_args)
    given.train_sampling_strategy = plan.train_sampling_strategy
    given.per_device_train_batch_size = plan.per_device_train_batch_size
    given.per_device_eval_batch_size = 1
    given.predict_with_generate = plan.predict_with_generate
    given.eval_strategy = IntervalStrategy(plan.eval_strategy)
    for name, value in plan.settings.items():
        setattr(given, name, value)
    given.eval_on_start = given.eval_on_start and not resumes
    accelerator: Any = copy(training_args.accelerator_config)
    accelerator.dispatch_batches = plan.dispatch_batches
    given.accelerator_config = accelerator
    # The Trainer would send pickles; `PushToHub` pushes.
    given.push_to_hub = False
    # It would delete by the clock; `RotateCheckpoints` goes by the steps.
    given.save_total_limit = None
    return given
