# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run's options must not be, said before anything is read or started."""

from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedTokenizerBase, Seq2SeqTrainingArguments
from transformers.trainer_utils import IntervalStrategy

from ..checkpoints.adapters import base_of, check_peft
from ..checkpoints.loading import load_tokenizers, position_limit
from ..decoding.metrics import check_metric_names
from ..errors import ArgumentError
from ..models import XformerConfig
from .arguments import DataArguments, ModelArguments
from .launch import OPTIMIZER_SHARDED, WHOLE, check_world, layout, tensor_parallel_size


def check_options(
    model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> None:
    """Options that contradict each other, are missing or would do nothing, before anything is read."""
    if (model_args.model_name_or_path is None) == (model_args.config_name is None):
        raise ArgumentError("give either --config_name for a new model or --model_name_or_path to go on with one")
    if model_args.config_name is not None and model_args.tokenizer_name is None:
        raise ArgumentError("a new model needs --tokenizer_name; hf-xformer tokenizer makes a tokenizer")
    if (data_args.train_file is None) == (data_args.dataset_name is None):
        raise ArgumentError("give either --train_file or --dataset_name")
    if data_args.max_source_length < 2 or data_args.max_target_length < 2:
        raise ArgumentError(
            "--max_source_length and --max_target_length must hold a token and the end token: 2 or more"
        )
    for name in ("max_train_samples", "max_eval_samples"):
        if (count := getattr(data_args, name)) is not None and count < 1:
            raise ArgumentError(f"--{name} must be 1 or more, got {count}")
    if model_args.attn_implementation == "flex_attention" and training_args.device.type == "cpu":
        raise ArgumentError("--attn_implementation flex_attention: torch cannot train through it on a CPU; sdpa can")
    base = model_args.model_name_or_path
    if base is not None and Path(base).resolve() == Path(training_args.output_dir).resolve():
        raise ArgumentError(f"--output_dir {training_args.output_dir}: training would overwrite --model_name_or_path")
    check_averaging(model_args, training_args)
    check_lora(model_args, training_args)
    check_trainer_options(data_args, training_args)
    check_evaluation_options(data_args, training_args)


def check_averaging(model_args: ModelArguments, training_args: Seq2SeqTrainingArguments) -> None:
    decay = model_args.ema_decay
    if decay is None:
        return
    if not 0 < decay < 1:
        raise ArgumentError(f"--ema_decay must be between 0 and 1, got {decay}")
    if layout(training_args) not in (WHOLE, OPTIMIZER_SHARDED):
        raise ArgumentError(f"--ema_decay averages whole weights, which {layout(training_args)} divides")


def check_lora(model_args: ModelArguments, training_args: Seq2SeqTrainingArguments) -> None:
    base = model_args.model_name_or_path
    if base is not None and base_of(base) is not None:
        raise ArgumentError(f"--model_name_or_path {base}: an adapter; hf-xformer merge makes a model of it")
    if model_args.lora_rank is None:
        for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
            if (value := getattr(model_args, name)) != getattr(ModelArguments, name):
                raise ArgumentError(f"--{name} {value} does nothing without --lora_rank")
        return
    for name in ("lora_rank", "lora_alpha"):
        if (value := getattr(model_args, name)) < 1:
            raise ArgumentError(f"--{name} must be 1 or more, got {value}")
    if not 0 <= model_args.lora_dropout < 1:
        raise ArgumentError(f"--lora_dropout must be in [0, 1), got {model_args.lora_dropout}")
    if base is None:
        raise ArgumentError(
            f"--lora_rank {model_args.lora_rank} would leave the weights of a new model at random: give "
            "--model_name_or_path instead of --config_name"
        )
    if layout(training_args) not in (WHOLE, OPTIMIZER_SHARDED):
        raise ArgumentError(f"--lora_rank is not possible under {layout(training_args)}, which divides the weights")
    check_peft(f"--lora_rank {model_args.lora_rank}")


def check_trainer_options(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> None:
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if (value := getattr(training_args, name)) < 1:
            raise ArgumentError(f"--{name} must be 1 or more, got {value}")
    if training_args.max_steps <= 0 and not training_args.num_train_epochs > 0:
        raise ArgumentError(f"--num_train_epochs must be above 0, got {training_args.num_train_epochs}")
    if not training_args.learning_rate >= 0:
        raise ArgumentError(f"--learning_rate must not be negative, got {training_args.learning_rate}")
    if not 0 <= training_args.label_smoothing_factor < 1:
        raise ArgumentError(f"--label_smoothing_factor must be in [0, 1), got {training_args.label_smoothing_factor}")
    check_world(training_args)
    if training_args.n_gpu > 1:
        raise ArgumentError(
            f"one process for {training_args.n_gpu} GPUs would copy the model at every step, and weigh packed rows "
            "wrongly: accelerate launch --config_file configs/accelerate/multi-gpu.yaml"
        )
    check_batching(data_args, training_args)
    if training_args.load_best_model_at_end and tensor_parallel_size() > 1:
        raise ArgumentError("--load_best_model_at_end is not possible under tensor parallelism")
    if data_args.streaming and training_args.max_steps <= 0:
        raise ArgumentError("--streaming does not know how long the data are: give --max_steps")
    if training_args.train_sampling_strategy == "group_by_length":
        raise ArgumentError(
            "--train_sampling_strategy group_by_length would shuffle the evaluation too; leave it to --group_by_length"
        )
    planned = data_args.group_by_length or data_args.packing or data_args.max_tokens
    if planned and training_args.dataloader_persistent_workers:
        raise ArgumentError("--dataloader_persistent_workers would repeat the first epoch's order: leave it out")


def check_batching(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> None:
    """Batches that are counted in tokens, or packed."""
    name = "packing" if data_args.packing else "max_tokens"
    if not data_args.packing and data_args.max_tokens is None:
        return
    if data_args.streaming:
        raise ArgumentError(f"--{name} plans the batches of an epoch, which --streaming does not know: leave one out")
    if training_args.train_sampling_strategy != "random":
        raise ArgumentError(f"--{name} makes its own batches, not those of --train_sampling_strategy")
    if data_args.max_tokens is not None:
        if data_args.max_tokens < 1:
            raise ArgumentError(f"--max_tokens must be 1 or more, got {data_args.max_tokens}")
        for side in ("max_source_length", "max_target_length"):
            if data_args.max_tokens < getattr(data_args, side):
                raise ArgumentError(
                    f"--max_tokens {data_args.max_tokens} has no room for --{side} {getattr(data_args, side)}: "
                    "give more or shorten that"
                )
    elif training_args.torch_compile:
        raise ArgumentError("--torch_compile takes packed rows of one length only: give --max_tokens")


def check_evaluation_options(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> None:
    metrics = data_args.metrics or []
    check_metric_names(metrics)
    has_validation = data_args.validation_file is not None or training_args.eval_strategy != "no"
    if has_validation and data_args.validation_file is None and data_args.dataset_name is None:
        raise ArgumentError(
            f"--eval_strategy {IntervalStrategy(training_args.eval_strategy).value} needs --validation_file"
        )
    if metrics and not has_validation:
        raise ArgumentError("--metrics are computed in evaluation: give --validation_file or --eval_strategy")
    best = (training_args.metric_for_best_model or "loss").removeprefix("eval_")
    if best not in ("loss", *metrics):
        raise ArgumentError(
            f"--metric_for_best_model {best}: evaluation gives loss{''.join(f', {m}' for m in metrics)}"
        )


def check_model(
    config: PreTrainedConfig,
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
) -> None:
    """What the model's configuration does not go with."""
    check_lengths(config, data_args)
    check_division(config)
    check_packing(config, model_args, data_args, training_args)
    check_smoothing(config, training_args)


def check_lengths(config: PreTrainedConfig, data_args: DataArguments) -> None:
    limit = position_limit(config)
    for name in ("max_source_length", "max_target_length"):
        if limit is not None and getattr(data_args, name) > limit:
            raise ArgumentError(
                f"--{name} {getattr(data_args, name)} is beyond the model's `max_position_embeddings` of {limit}"
            )


def check_division(config: PreTrainedConfig) -> None:
    """Heads are cut apart by tensor parallelism, and never through."""
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
    """Packed rows are ours, and what a compiled graph can do with them."""
    if not data_args.packing:
        return
    if not isinstance(config, XformerConfig):
        raise ArgumentError(f"--packing: a model of type {config.model_type!r} would mix the pairs of a row")
    types = {*config.encoder_layer_types, *config.decoder_layer_types} - {"full_attention"}
    backend = model_args.attn_implementation or ""
    if types and training_args.torch_compile:
        raise ArgumentError(f"--packing with layers of {sorted(types)} does not go with --torch_compile")
    if types and backend == "flex_attention":
        raise ArgumentError(f"--packing with layers of {sorted(types)} takes sdpa, eager or FlashAttention, not flex")
    if "flash" in backend and training_args.torch_compile:
        raise ArgumentError(f"--packing with --attn_implementation {backend} does not go with --torch_compile")


def check_smoothing(config: PreTrainedConfig, training_args: Seq2SeqTrainingArguments) -> None:
    if training_args.label_smoothing_factor and getattr(config, "label_smoothing", 0):
        raise ArgumentError(
            f"--label_smoothing_factor {training_args.label_smoothing_factor} and the model's `label_smoothing` of "
            f"{config.label_smoothing}: the Trainer's would hide the model's; give one"
        )


def check_own_tokenizer(model_args: ModelArguments, source: PreTrainedTokenizerBase) -> None:
    """Tokens may be added to an existing model's vocabulary; with other tokens its embedding means nothing."""
    if model_args.model_name_or_path is None or model_args.tokenizer_name is None:
        return
    try:
        own, _ = load_tokenizers(model_args.model_name_or_path)
    except ArgumentError:
        return  # a checkpoint without a tokenizer, such as a converted one, which is given one now
    if not own.get_vocab().items() <= source.get_vocab().items():
        raise ArgumentError(
            f"--tokenizer_name {model_args.tokenizer_name}: other tokens than those of {model_args.model_name_or_path}"
        )
