# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run reads and checks before its first step."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainingArguments,
    TrainerState,
    set_seed,
)

from ..checkpoints.loading import change_config, load_config, load_model, load_tokenizers
from ..checkpoints.vocabulary import check_vocabulary, fit_vocabulary
from ..data.batches import BatchedDataset, LengthGroupedDataset, OfCount, PackedWithin, PaddedWithin, Planner
from ..data.collators import BatchCollator, DataCollatorForPackedSeq2Seq, without_logits
from ..data.pairs import PairTokenizer, prepare_evaluation, prepare_training
from ..data.reading import load_named_rows, load_rows
from ..models import XformerConfig
from .adapters import add_lora, check_adapter, make_lora
from .arguments import DataArguments, ModelArguments
from .checks import check_model, check_options, check_own_tokenizer
from .evaluation import GenerationMetrics
from .launch import TENSOR_PARALLEL, WHOLE, layout, precision, tensor_parallel_size
from .parallel import empty_model, initial_weights, is_sent_its_weights, tensor_parallel_options
from .recipe import parse_overrides
from .resume import check_layout, find_checkpoint, read_layout, refuse_another_run


# Rows of a stream that are held in memory to be drawn from at random.
SHUFFLE_BUFFER = 10_000
# Tokens, to a multiple of which packed rows are filled up: kernels of 16 bits are made anew for every shape they meet.
ROW_MULTIPLE = 64
# Tokens. Up to here the scores of a row, which eager attention holds, are no more than its features.
EAGER_LENGTH = 512


@dataclass
class Run:
    """A model, its data and where to resume, all of it checked; of a finished run its state and last checkpoint."""

    model: PreTrainedModel
    source: PreTrainedTokenizerBase
    target: PreTrainedTokenizerBase
    train: Dataset | IterableDataset | LengthGroupedDataset | BatchedDataset
    collator: Callable
    validation: Dataset | None
    metrics: GenerationMetrics | None
    batch: str
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
    batch = batch_a_step(data_args, training_args)
    say(batch)
    if training_args.label_smoothing_factor:
        say(
            "label_smoothing_factor is the Trainer's, which wants all logits of a batch in memory; an Xformer's own "
            "`label_smoothing` does without: --config_overrides label_smoothing=0.1"
        )
    tokenizer_name = model_args.tokenizer_name or model_args.model_name_or_path
    source, target = load_tokenizers(tokenizer_name, model_args.target_tokenizer_name)
    config = make_config(model_args, source, target)
    check_own_tokenizer(model_args, source)
    check_model(config, model_args, data_args, training_args)
    output_dir = Path(training_args.output_dir)
    lora = make_lora(model_args, config)
    refuse_another_run(output_dir, config, source, lora)

    tokenize = PairTokenizer(source, target, data_args.max_source_length, data_args.max_target_length)
    with training_args.main_process_first(desc="reading and tokenising"):
        train_set = read_training(data_args, training_args, tokenize, say)
        validation, metrics = read_validation(data_args, training_args, tokenize, target, say)

    with training_args.main_process_first(training_args.save_on_each_node, desc="looking for a checkpoint"):
        resume, averages = training_args.resume_from_checkpoint, model_args.ema_decay is not None
        checkpoint = find_checkpoint(output_dir, resume, averages, say)
    if checkpoint is not None:
        check_adapter(checkpoint, "--resume_from_checkpoint", lora)
        check_layout(checkpoint, layout(training_args), training_args.world_size)
    finished = finished_state(checkpoint, training_args)
    was = None if checkpoint is None or finished else read_layout(Path(checkpoint)).get("batch")
    if was and was != batch:
        say(f"WARNING: {checkpoint} had {was}; this run has {batch}: some pairs of this epoch may come twice or never")
    if finished is not None:
        checkpoint = training_args.load_best_model_at_end and finished.best_model_checkpoint or checkpoint
        if layout(training_args) in (WHOLE, TENSOR_PARALLEL):
            say(f"{checkpoint} is the end of this run; evaluating it again")
        else:
            # DeepSpeed and FSDP evaluate only what they train.
            say(f"{checkpoint} is the end of this run; hf-xformer evaluate evaluates it again")
            validation, training_args.eval_strategy = None, "no"
    if finished is not None and lora is None:
        options = tensor_parallel_options()
        model = load_model(checkpoint, attn_implementation=model_args.attn_implementation, **options)
    else:
        model_args.attn_implementation = choose_attention(model_args, data_args, training_args)
        model = make_model(model_args, config, output_dir, checkpoint)
    if lora is not None:
        model = add_lora(model, lora, checkpoint, say)
    model.generation_config.max_length = training_args.generation_max_length or data_args.max_target_length + 1
    collator = make_collator(source, model, data_args, training_args)
    return Run(model, source, target, train_set, collator, validation, metrics, batch, checkpoint, finished)


def batch_a_step(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> str:
    """The batch that a recipe's numbers come to on these processes, on which learning rate and epochs depend."""
    batches, steps = data_parallel_size(training_args), training_args.gradient_accumulation_steps
    size, what, at_most = training_args.train_batch_size, "pairs", ""
    if data_args.max_tokens is not None:
        size, what, at_most = data_args.max_tokens, "tokens a side", "at most "
    packed = ", packed" if data_args.packing else ""
    return (
        f"{at_most}{size * batches * steps:,} {what} a step: {at_most}{size:,} {what} at once, {batches} processes, "
        f"{steps} accumulated{packed}"
    )


def data_parallel_size(training_args: Seq2SeqTrainingArguments) -> int:
    """How many batches the processes work on at a time."""
    return training_args.world_size // tensor_parallel_size()


def finished_state(checkpoint: str | None, training_args: Seq2SeqTrainingArguments) -> TrainerState | None:
    """The state of a run that needs no further step, which the Trainer would take all the same; else None."""
    if checkpoint is None:
        return None
    state = TrainerState.load_from_json(str(Path(checkpoint, "trainer_state.json")))
    if training_args.max_steps > 0:
        return state if state.global_step >= training_args.max_steps else None
    return state if state.epoch >= training_args.num_train_epochs else None


def make_config(
    model_args: ModelArguments, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> PreTrainedConfig:
    """An existing model's configuration as it is, or a new one fitted to the tokenizers."""
    overrides = parse_overrides(model_args.config_overrides)
    if model_args.model_name_or_path is not None:
        config = change_config(AutoConfig.from_pretrained(model_args.model_name_or_path), overrides)
    else:
        config = load_config(model_args.config_name, overrides)
        config = fit_vocabulary(config, source, target, overrides)
    check_vocabulary(config, source, target)
    return config


def choose_attention(
    model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> str | None:
    """What was asked for; else eager where torch's own is slow: its backward in bfloat16 on a CPU."""
    is_slow = precision(training_args) == "bf16" and training_args.device.type == "cpu"
    is_short = max(data_args.max_source_length, data_args.max_target_length) <= EAGER_LENGTH
    return model_args.attn_implementation or ("eager" if is_slow and is_short else None)


def make_model(
    model_args: ModelArguments, config: PreTrainedConfig, output_dir: Path, checkpoint: str | None
) -> PreTrainedModel:
    """A new model or an existing one, of which each process holds its part only, where the launcher says so."""
    # The master weights are in full precision whatever the checkpoint's: bf16 and fp16 are the trainer's options.
    options: dict[str, Any] = {"attn_implementation": model_args.attn_implementation, "dtype": torch.float32}
    if is_sent_its_weights():
        return empty_model(config, **options)
    options |= tensor_parallel_options()
    name_or_path = model_args.model_name_or_path
    if checkpoint is not None and tensor_parallel_size() > 1:
        name_or_path = checkpoint
    if name_or_path is not None:
        return load_model(name_or_path, config=config, **options)
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
) -> Dataset | IterableDataset | LengthGroupedDataset | BatchedDataset:
    """
    The tokenised training pairs: in batches, in an order of like lengths, or for a sampler of the Trainer's, which is
    told of it in `training_args`.
    """
    rows = first(read(data_args, "train", data_args.streaming), data_args.max_train_samples)
    rows = prepare_training(rows, tokenize, data_args.overlong, data_args.preprocessing_num_workers, say)
    seed = training_args.seed if training_args.data_seed is None else training_args.data_seed
    if isinstance(rows, IterableDataset):
        # Else one process cuts the batches for all, before they are padded to one length.
        training_args.accelerator_config.dispatch_batches = False  # type: ignore[union-attr]
        return rows.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
    planned = data_args.group_by_length or data_args.packing or data_args.max_tokens is not None
    if not planned or training_args.train_sampling_strategy != "random":
        return rows
    training_args.train_sampling_strategy = "sequential"
    if data_args.packing or data_args.max_tokens is not None:
        batches = plan_batches(rows, data_args, training_args, seed)
        average = batches.average_tokens()
        say(f"{len(batches):,} batches, on average of {average[0]:,.0f} source and {average[1]:,.0f} target tokens")
        return batches
    return LengthGroupedDataset(rows, training_args.train_batch_size * data_parallel_size(training_args), seed)


def plan_batches(
    rows: Dataset, data_args: DataArguments, training_args: Seq2SeqTrainingArguments, seed: int
) -> BatchedDataset:
    """Whole batches, of which the Trainer is told in `training_args` to take one at a time."""
    if data_args.max_tokens is None:
        planner: Planner = OfCount(training_args.per_device_train_batch_size)
    else:
        planner = (PackedWithin if data_args.packing else PaddedWithin)(data_args.max_tokens)
    training_args.per_device_train_batch_size = 1
    return BatchedDataset(rows, planner, seed, data_parallel_size(training_args))


def make_collator(
    source: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
) -> Callable:
    # The decoder's input, which only the Trainer's own label smoothing needs, costs nothing.
    padded = DataCollatorForSeq2Seq(source, model=model)
    evaluation: Callable = padded
    if isinstance(model.config, XformerConfig) and not training_args.label_smoothing_factor:
        evaluation = partial(without_logits, padded)
    if not data_args.packing:
        return BatchCollator(padded, evaluation)
    options: dict[str, Any] = {"pad_to_multiple_of": ROW_MULTIPLE}
    if training_args.torch_compile:
        options = {"row_length": data_args.max_tokens, "fixed": True}
    return BatchCollator(DataCollatorForPackedSeq2Seq(source, model=model, **options), evaluation)


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
