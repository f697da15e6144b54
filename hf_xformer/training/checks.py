# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Checks of a run's options, by subject: what cannot be done, would do nothing, or would go wrong silently is refused.

The options are checked before anything is read, the model's configuration before the data are, and the folders before
anything is moved; the launch has been checked before (`launch_checks`). Nothing here writes.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Seq2SeqTrainingArguments,
    TrainingArguments,
    get_scheduler,
)
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.trainer_utils import IntervalStrategy, SchedulerType

from ..checkpoints.adapters import base_of, check_peft
from ..checkpoints.loading import IGNORED_FIELDS, check_length, load_tokenizer, load_tokenizers, read_config
from ..checkpoints.vocabulary import check_decoder_start, check_same_tokens
from ..decoding.metrics import check_metric_names
from ..errors import ArgumentError, blame, did_you_mean
from ..files import ADAPTER_CONFIG, CONFIG, read_json
from ..models import XformerConfig
from .arguments import DataArguments, ModelArguments
from .launch import OPTIMIZER_SHARDED, WHOLE, layout, tensor_parallel_size, why_not_train_by_varlen
from .launch_checks import check_world


if TYPE_CHECKING:  # PEFT is an extra
    from peft import LoraConfig

COUNTS = (
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "max_tokens"),
    *("max_train_samples", "max_eval_samples", "preprocessing_num_workers", "lora_rank", "lora_alpha"),
)
# Possible values of numbers, and their name in messages.
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(COUNTS, (lambda value: value >= 1, "1 or more")),
    **dict.fromkeys(
        ("max_source_length", "max_target_length"), (lambda value: value >= 2, "2 or more: a token and the end token")
    ),
    **dict.fromkeys(("lora_dropout", "label_smoothing_factor"), (lambda value: 0 <= value < 1, "in [0, 1)")),
    "ema_decay": (lambda value: 0 < value < 1, "between 0 and 1"),
    "learning_rate": (lambda value: value >= 0, "0 or more"),
}
# Extras of ours that bring what logs a run.
TRACKER_EXTRAS = ("tensorboard", "trackio")
# Two trainings of adapters are different if these fields of PEFT's file are; the options that they come from.
ADAPTER_OPTIONS = {
    "base_model_name_or_path": "model_name_or_path",
    "r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "lora_target_modules",
}


def refuse(table: Iterable[tuple[Any, str]]) -> None:
    """Raises the first message whose condition is true."""
    for wrong, message in table:
        if wrong:
            raise ArgumentError(message)


# The options, before anything is read.


def check_options(
    model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> None:
    """Refuses options that contradict each other, are missing or would do nothing."""
    check_sources(model_args, data_args, training_args)
    check_attention_name(model_args, training_args)
    check_lora(model_args, training_args)
    for arguments in (model_args, data_args, training_args):
        for name, (is_possible, words) in RANGES.items():
            value = getattr(arguments, name, None)
            if value is not None and not is_possible(value):
                raise ArgumentError(f"--{name} must be {words}, got {value}")
    if model_args.ema_decay is not None and layout(training_args) not in (WHOLE, OPTIMIZER_SHARDED):
        raise ArgumentError(f"--ema_decay averages whole weights, which {layout(training_args)} divides")
    check_world(training_args)
    check_steps(data_args, training_args)
    check_batching(data_args, training_args)
    check_evaluation(data_args, training_args)
    check_trackers(training_args)
    check_schedule(training_args)


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
            (data_args.train_file is None) == (data_args.dataset_name is None),
            "give either --train_file or --dataset_name",
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


def check_lora(model_args: ModelArguments, training_args: Seq2SeqTrainingArguments) -> None:
    """Checks that adapters have a model to be trained for, and that nobody trains those of another."""
    base, rank = model_args.model_name_or_path, model_args.lora_rank
    if base is not None and base_of(base) is not None:
        raise ArgumentError(f"--model_name_or_path {base}: an adapter; hf-xformer merge makes a model of it")
    if rank is None:
        for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
            if (value := getattr(model_args, name)) != getattr(ModelArguments, name):
                raise ArgumentError(f"--{name} {value} does nothing without --lora_rank")
        return
    table = [
        (
            base is None,
            f"--lora_rank {rank} would leave the weights of a new model at random: give --model_name_or_path instead "
            "of --config_name",
        ),
        (
            layout(training_args) not in (WHOLE, OPTIMIZER_SHARDED),
            f"--lora_rank is not possible under {layout(training_args)}, which divides the weights",
        ),
    ]
    refuse(table)
    check_peft(f"--lora_rank {rank}")


def check_steps(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> None:
    """Checks how long the run is, and in which order it meets the data."""
    endless = training_args.max_steps <= 0
    planned = data_args.group_by_length or data_args.plans_batches
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
        (data_args.streaming and endless, "--streaming does not know how long the data are: give --max_steps"),
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
            planned and training_args.dataloader_persistent_workers,
            "--dataloader_persistent_workers would repeat the first epoch's order: leave it out",
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
            data_args.streaming,
            f"--{name} plans the batches of an epoch, which --streaming does not know: leave one out",
        ),
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
    check_metric_names(metrics, "--metrics")
    evaluates = data_args.evaluates(training_args)
    best = (training_args.metric_for_best_model or "loss").removeprefix("eval_")
    computed = ["loss", *metrics]
    table = [
        (
            evaluates and data_args.validation_file is None and data_args.dataset_name is None,
            f"--eval_strategy {IntervalStrategy(training_args.eval_strategy).value} needs --validation_file",
        ),
        (
            metrics and not evaluates,
            "--metrics are computed in evaluation: give --validation_file or --eval_strategy",
        ),
        (
            best not in computed,
            f"--metric_for_best_model {best}: evaluation gives {', '.join(computed)}{did_you_mean(best, computed)}",
        ),
    ]
    refuse(table)


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


def check_schedule(training_args: TrainingArguments) -> None:
    """Checks that the learning rate's schedule has the arguments that it needs and no others, on one of 100 steps."""
    kwargs: Any = training_args.lr_scheduler_kwargs
    name = SchedulerType(training_args.lr_scheduler_type).value
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=training_args.learning_rate)
    with blame(f"--lr_scheduler_type {name} with --lr_scheduler_kwargs {kwargs}", TypeError, ValueError):
        get_scheduler(name, optimizer, training_args.get_warmup_steps(100), 100, kwargs)


# The model's configuration, before the data are read.


def check_model(
    config: PreTrainedConfig,
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
) -> None:
    """Refuses options that do not go with the model's configuration."""
    for name in ("max_source_length", "max_target_length"):
        check_length(config, getattr(data_args, name), f"--{name} {getattr(data_args, name)}")
    if (longest := training_args.generation_max_length) is not None:
        check_length(config, longest - 1, f"--generation_max_length {longest}")  # which counts the start token
    check_decoder_start(config)
    check_division(config)
    check_packing(config, model_args, data_args, training_args)
    if training_args.label_smoothing_factor and getattr(config, "label_smoothing", 0):
        raise ArgumentError(
            f"--label_smoothing_factor {training_args.label_smoothing_factor} and the model's `label_smoothing` of "
            f"{config.label_smoothing}: the Trainer's would hide the model's; give one"
        )
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
    # By the class and not by from_config, which under ZeRO-3 would divide the weights.
    with torch.device("meta"), blame(f"--attn_implementation {name}", ImportError, ValueError, RuntimeError):
        model_class: Any = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING[type(config)]
        model_class(tried)


def check_own_tokenizer(model_args: ModelArguments, source: PreTrainedTokenizerBase) -> None:
    """Checks that an existing model keeps its tokens; more may be added, to others its embedding means nothing."""
    if model_args.model_name_or_path is None or model_args.tokenizer_name is None:
        return
    try:
        own, _ = load_tokenizers(model_args.model_name_or_path, trust_remote_code=model_args.trust_remote_code)
    except ArgumentError:
        return  # a checkpoint without a tokenizer, such as a converted one, which is given one now
    check_same_tokens(own, source, f"--tokenizer_name {model_args.tokenizer_name}")


# The folders, before anything in them is moved.


def check_output_dir(
    output_dir: Path,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    lora: "LoraConfig | None",
    trust_remote_code: bool,
) -> None:
    """
    Checks that a folder is new or this run's.

    Raises:
        ArgumentError: It holds a run of a model with another configuration, other adapters or another vocabulary.
    """
    if not any((output_dir / name).exists() for name in (CONFIG, ADAPTER_CONFIG)):
        return
    where, advice = f"--output_dir {output_dir}", "choose another folder or remove that one"
    check_adapter(output_dir, "--output_dir", lora)
    if lora is None:
        theirs, ours = read_config(str(output_dir), "--output_dir", trust_remote_code).to_dict(), config.to_dict()
        for name in sorted(ours.keys() - IGNORED_FIELDS):
            if theirs.get(name) != ours[name]:
                raise ArgumentError(
                    f"{where}: holds a run with {name}={theirs.get(name)!r}, this one has {ours[name]!r}; {advice}"
                )
    if load_tokenizer(str(output_dir), trust_remote_code).get_vocab() != tokenizer.get_vocab():
        raise ArgumentError(f"{where}: holds a run with another tokenizer; {advice}")


def check_adapter(folder: str | Path, where: str, lora: "LoraConfig | None") -> None:
    """
    Checks that a folder's weights are of the adapters that the run trains, or of a whole model.

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
    theirs = read_json(path)
    for field, option in ADAPTER_OPTIONS.items():
        stored, wanted = (
            sorted(value) if isinstance(value, (list, set)) else value
            for value in (theirs.get(field), getattr(lora, field))
        )
        if stored != wanted:
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


def refuse_averages(checkpoint: Path, averages: bool) -> None:
    """Refuses a checkpoint that was written with averages where the run has none, or the other way round."""
    was, now = ("without", "with") if averages else ("with", "without")
    raise ArgumentError(f"{checkpoint} was written {was} --ema_decay: it cannot go on {now} it")
