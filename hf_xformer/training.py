# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run reads and checks before its first step."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainingArguments,
    TrainerState,
    set_seed,
)

from .arguments import ArgumentError, DataArguments, ModelArguments, parse_overrides
from .batching import LengthGroupedDataset
from .checkpoints import check_vocabulary, fit_vocabulary, load_config, load_model, load_tokenizers, position_limit
from .data import load_named_rows, load_rows
from .launch import check_world, layout, tensor_parallel_size
from .metrics import check_metric_names
from .preprocessing import GenerationMetrics, PairTokenizer, prepare_evaluation, prepare_training
from .run_directory import WHOLE, check_layout, find_checkpoint, refuse_another_run
from .sharding import empty_model, initial_weights, is_sent_its_weights, tensor_parallel_options


# Rows of a stream that are held in memory to be drawn from at random.
SHUFFLE_BUFFER = 10_000


@dataclass
class Run:
    """A model, its data and where to resume, all of it checked; of a finished run its state and last checkpoint."""

    model: PreTrainedModel
    source: PreTrainedTokenizerBase
    target: PreTrainedTokenizerBase
    train: Dataset | IterableDataset | LengthGroupedDataset
    validation: Dataset | None
    metrics: GenerationMetrics | None
    checkpoint: str | None
    finished: TrainerState | None


def prepare(model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> Run:
    """
    Reads and checks everything, and writes nothing but caches.

    Raises:
        ArgumentError, DataError: An option or the data cannot be; one line says which and why.
    """
    say = PartialState().print
    check_options(model_args, data_args, training_args)
    set_seed(training_args.seed)
    say(rows_a_step(training_args))
    tokenizer_name = model_args.tokenizer_name or model_args.model_name_or_path
    source, target = load_tokenizers(tokenizer_name, model_args.target_tokenizer_name)
    config = make_config(model_args, source, target)
    check_own_tokenizer(model_args, source)
    check_lengths(config, data_args)
    check_division(config)
    output_dir = Path(training_args.output_dir)
    refuse_another_run(output_dir, config, source)

    tokenize = PairTokenizer(source, target, data_args.max_source_length, data_args.max_target_length)
    with training_args.main_process_first(desc="reading and tokenising"):
        train_set = read_training(data_args, training_args, tokenize, say)
        validation, metrics = read_validation(data_args, training_args, tokenize, target, say)

    with training_args.main_process_first(training_args.save_on_each_node, desc="looking for a checkpoint"):
        checkpoint = find_checkpoint(output_dir, training_args.resume_from_checkpoint, say)
    if checkpoint is not None:
        check_layout(checkpoint, layout(training_args), training_args.world_size)
    finished = finished_state(checkpoint, training_args)
    if finished is not None:
        checkpoint = training_args.load_best_model_at_end and finished.best_model_checkpoint or checkpoint
        if layout(training_args) in (WHOLE, "tensor parallelism"):
            say(f"{checkpoint} is the end of this run; evaluating it again")
        else:
            # DeepSpeed and FSDP evaluate only what they train.
            say(f"{checkpoint} is the end of this run; scripts/evaluate.py evaluates it again")
            validation = None
        options = tensor_parallel_options()
        model = load_model(checkpoint, attn_implementation=model_args.attn_implementation, **options)
    else:
        model = make_model(model_args, config, output_dir, checkpoint)
    model.generation_config.max_length = training_args.generation_max_length or data_args.max_target_length + 1
    return Run(model, source, target, train_set, validation, metrics, checkpoint, finished)


def rows_a_step(training_args: Seq2SeqTrainingArguments) -> str:
    """The batch that a recipe's numbers come to on these processes, on which learning rate and epochs depend."""
    rows, steps = training_args.train_batch_size, training_args.gradient_accumulation_steps
    batches = training_args.world_size // tensor_parallel_size()
    return f"{rows * batches * steps} rows a step: {rows} at once, {batches} processes, {steps} accumulated"


def check_options(
    model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> None:
    """Options that contradict each other, are missing or would do nothing, before anything is read."""
    if (model_args.model_name_or_path is None) == (model_args.config_name is None):
        raise ArgumentError("give either --config_name for a new model or --model_name_or_path to go on with one")
    if model_args.config_overrides and model_args.config_name is None:
        raise ArgumentError("--config_overrides changes a new model: it needs --config_name")
    if model_args.config_name is not None and model_args.tokenizer_name is None:
        raise ArgumentError("a new model needs --tokenizer_name; scripts/train_tokenizer.py makes a tokenizer")
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
    check_trainer_options(data_args, training_args)
    check_evaluation_options(data_args, training_args)


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
    if training_args.load_best_model_at_end and tensor_parallel_size() > 1:
        raise ArgumentError("--load_best_model_at_end is not possible under tensor parallelism")
    if data_args.streaming and training_args.max_steps <= 0:
        raise ArgumentError("--streaming does not know how long the data are: give --max_steps")
    if training_args.train_sampling_strategy == "group_by_length":
        raise ArgumentError(
            "--train_sampling_strategy group_by_length would shuffle the evaluation too; leave it to --group_by_length"
        )
    if data_args.group_by_length and training_args.dataloader_persistent_workers:
        raise ArgumentError("--dataloader_persistent_workers would repeat the first epoch's order: leave it out")


def check_evaluation_options(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> None:
    metrics = data_args.metrics or []
    check_metric_names(metrics)
    has_validation = data_args.validation_file is not None or training_args.eval_strategy != "no"
    if has_validation and data_args.validation_file is None and data_args.dataset_name is None:
        raise ArgumentError(f"--eval_strategy {training_args.eval_strategy.value} needs --validation_file")
    if metrics and not has_validation:
        raise ArgumentError("--metrics are computed in evaluation: give --validation_file or --eval_strategy")
    best = (training_args.metric_for_best_model or "loss").removeprefix("eval_")
    if best not in ("loss", *metrics):
        raise ArgumentError(
            f"--metric_for_best_model {best}: evaluation gives loss{''.join(f', {m}' for m in metrics)}"
        )


def finished_state(checkpoint: str | None, training_args: Seq2SeqTrainingArguments) -> TrainerState | None:
    """The state of a run that needs no further step, which the Trainer would take all the same; else None."""
    if checkpoint is None:
        return None
    state = TrainerState.load_from_json(str(Path(checkpoint, "trainer_state.json")))
    if training_args.max_steps > 0:
        return state if state.global_step >= training_args.max_steps else None
    return state if state.epoch >= training_args.num_train_epochs else None


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


def make_config(
    model_args: ModelArguments, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> PreTrainedConfig:
    """An existing model's configuration as it is, or a new one fitted to the tokenizers."""
    overrides = parse_overrides(model_args.config_overrides)
    if model_args.model_name_or_path is not None:
        config = AutoConfig.from_pretrained(model_args.model_name_or_path)
    else:
        config = load_config(model_args.config_name, overrides)
        config = fit_vocabulary(config, source, target, overrides)
    check_vocabulary(config, source, target)
    return config


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


def make_model(
    model_args: ModelArguments, config: PreTrainedConfig, output_dir: Path, checkpoint: str | None
) -> PreTrainedModel:
    """A new model or an existing one, of which each process holds its part only, where the launcher says so."""
    # The master weights are in full precision whatever the checkpoint's: bf16 and fp16 are the trainer's options.
    options = {"attn_implementation": model_args.attn_implementation, "dtype": torch.float32}
    if is_sent_its_weights():
        return empty_model(config, **options)
    options |= tensor_parallel_options()
    name_or_path = model_args.model_name_or_path
    if checkpoint is not None and tensor_parallel_size() > 1:
        name_or_path = checkpoint
    if name_or_path is not None:
        return load_model(name_or_path, **options)
    if tensor_parallel_size() > 1:
        with initial_weights(config, output_dir) as folder:
            return load_model(folder, **options)
    # Through the Auto class, which is where DeepSpeed ZeRO-3 partitions a model while it is built.
    return AutoModelForSeq2SeqLM.from_config(config, **options)


def read(data_args: DataArguments, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """The rows of the "train" or the "validation" split, from files or from `datasets.load_dataset`."""
    columns = {"source_column": data_args.source_column, "target_column": data_args.target_column}
    if (files := getattr(data_args, f"{split}_file")) is not None:
        return load_rows(files, streaming=streaming, **columns)
    name = getattr(data_args, f"{split}_split")
    return load_named_rows(data_args.dataset_name, data_args.dataset_config_name, name, streaming=streaming, **columns)


def first(rows: Dataset | IterableDataset, count: int | None) -> Dataset | IterableDataset:
    if count is None:
        return rows
    return rows.take(count) if isinstance(rows, IterableDataset) else rows.select(range(min(count, len(rows))))


def read_training(
    data_args: DataArguments, training_args: Seq2SeqTrainingArguments, tokenize: PairTokenizer, say: Callable
) -> Dataset | IterableDataset | LengthGroupedDataset:
    """The tokenised training pairs, in an order of like lengths unless the Trainer was given a sampler of its own."""
    rows = first(read(data_args, "train", data_args.streaming), data_args.max_train_samples)
    rows = prepare_training(rows, tokenize, data_args.overlong, data_args.preprocessing_num_workers, say)
    seed = training_args.seed if training_args.data_seed is None else training_args.data_seed
    if isinstance(rows, IterableDataset):
        # Else one process cuts the batches for all, before they are padded to one length.
        training_args.accelerator_config.dispatch_batches = False
        return rows.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
    if not data_args.group_by_length or training_args.train_sampling_strategy != "random":
        return rows
    training_args.train_sampling_strategy = "sequential"
    together = training_args.train_batch_size * training_args.world_size // tensor_parallel_size()
    return LengthGroupedDataset(rows, together, seed)


def read_validation(
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
    tokenize: PairTokenizer,
    target: PreTrainedTokenizerBase,
    say: Callable,
) -> tuple[Dataset | None, GenerationMetrics | None]:
    """The validation set and, where metrics are asked for, what computes them."""
    if data_args.validation_file is None and training_args.eval_strategy == "no":
        return None, None
    rows = first(read(data_args, "validation"), data_args.max_eval_samples)
    tokenised = prepare_evaluation(rows, tokenize, data_args.preprocessing_num_workers, say)
    if not data_args.metrics:
        return tokenised, None
    training_args.predict_with_generate = True
    return tokenised, GenerationMetrics(data_args.metrics, target, rows["target"][:])
