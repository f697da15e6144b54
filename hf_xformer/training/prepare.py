# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Everything that a training run reads before its first step, checked. Of the output folder nothing is changed."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from transformers import (
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainingArguments,
    set_seed,
)

from ..checkpoints.averaging import note_of_averages
from ..checkpoints.foreign_code import TOKENIZER_CONFIG
from ..checkpoints.lengths import recorded, trained_length
from ..checkpoints.loading import change_config, load_config, load_model, load_tokenizers, read_model_config
from ..checkpoints.vocabulary import check_vocabulary, fit_vocabulary
from ..data.bad_rows import BadRows
from ..data.batches import EvaluationBatches
from ..data.collators import BatchCollator, DataCollatorForPackedSeq2Seq, without_logits
from ..data.encoding import choose_spelt_out
from ..data.pairs import PairTokenizer, template_of_texts
from ..data.probing import check_training
from ..data.templates import check_tokens, remember, remember_beginnings
from ..files import read_json
from ..models import XformerConfig
from .adapter_options import check_fit
from .adapters import add_adapter, make_adapter, tell_moved_base
from .arguments import DataArguments, ModelArguments
from .changes import Recipe, settle, settle_starts
from .checkpoint_files import Needs
from .checks import check_model, check_output_dir, check_own_tokenizer, own_tokenizer
from .early_stopping import has_stopped_early
from .evaluation import GenerationMetrics, check_evaluation_options, fit_generation
from .exact import check_exact
from .fingerprint import recipe_of
from .launch import tensor_parallel_size
from .mixtures import corpora_of, title_of
from .option_checks import check_options
from .parallel import empty_model, initial_weights, is_sent_its_weights, tensor_parallel_options
from .parts import check_parts, freeze, freeze_computed
from .plan import Plan, describe_slow_formats, make_plan
from .r_drop import add_r_drop, doubled
from .recipe import parse_overrides
from .resume import SavedState, Start, check_resumable, find_start, without_lost_best
from .rotation import place_of_best
from .trainer_options import overlooked, settings
from .training_set import TrainingSet, policies, read_training
from .validation import read_validation, sets_of


if TYPE_CHECKING:  # PEFT is an extra
    from peft import PeftConfig


# Tokens, to a multiple of which packed rows are filled up: kernels of 16 bits are made anew for every shape they meet.
ROW_MULTIPLE = 64
# Reasons for an attention that a run has chosen itself.
REASONS = {
    "eager": "the fastest for short texts in bfloat16 on a CPU",
    "varlen": "torch's FlashAttention, which this GPU has; it needs no masks",
}


# Provenance of a start that leaves no record.
UNRECORDED: dict[str, Any] = {"commit": None, "versions": {}, "hardware": {"name": ""}}


@dataclass(frozen=True)
class Run:
    """
    A model, its data and where to begin, all of it checked.

    Args:
        plan: What the Trainer is told beside the options.
        recipe: Everything that decides the weights, and how it has changed on the way.
        start: The state to resume, and checkpoints that have to be moved first.
        needs: What checkpoints of the run have to hold.
        finished: The checkpoint that a finished run ends with; None if there are steps to take.
        best: Where the best checkpoint until now will be in the output folder of a run that resumes; None without one.
        bad_rows: Those of the training and of the validation set that were left out.
        starts: As `settle_starts` returns them.
    """

    model: PreTrainedModel
    source: PreTrainedTokenizerBase
    target: PreTrainedTokenizerBase
    train: TrainingSet
    collator: Callable
    validation: EvaluationBatches | None
    metrics: GenerationMetrics | None
    plan: Plan
    recipe: Recipe
    start: Start
    needs: Needs
    finished: Path | None
    best: Path | None
    bad_rows: dict[str, BadRows]
    starts: list[dict]

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint that training goes on from."""
        return None if self.start.state is None else self.start.state.checkpoint


def prepare(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
    begun: dict[str, Any] = UNRECORDED,
) -> Run:
    """
    Reads and checks everything. It writes caches, and under tensor parallelism a new model's weights for a moment.

    Args:
        begun: What is recorded of this start: the recipe's commit, versions and hardware; by default nothing.

    Raises:
        ArgumentError, DataError: An option or the data cannot be; one line says which and why.
    """
    say = PartialState().print
    check_options(model_args, data_args, training_args)
    check_evaluation_options(data_args, training_args)
    check_resumable(training_args)
    check_exact(data_args, training_args)
    set_seed(training_args.seed)
    source, target, remarks = read_tokenizers(model_args, data_args)
    config, adapter = make_configs(model_args, data_args, training_args, source, target)
    output_dir = Path(training_args.output_dir)
    check_output_dir(output_dir, config, (source, target), adapter, model_args.trust_remote_code)
    if adapter is not None:
        tell_moved_base(output_dir, adapter, say)

    needs = Needs.of(config, adapter, model_args, training_args)
    check_parts(needs.model, model_args)
    start, finished = find_beginning(output_dir, needs, data_args, training_args, say)
    state, is_end = start.state, finished is not None
    plan = make_plan(model_args, data_args, training_args, is_end, config)
    now = recipe_of(model_args, data_args, training_args, plan, config, source, target)
    recipe = settle(now, state, training_args, data_args.change_recipe, is_end, say)
    starts = settle_starts(state, begun, is_end, say)
    announce(plan, finished, remarks, model_args, data_args, training_args, say)

    tokenize = PairTokenizer(source, target, data_args.max_source_length, data_args.max_target_length)
    bad_rows = policies(data_args, plan.evaluates)
    with training_args.main_process_first(desc="reading and tokenising"):
        known = trained_before(model_args, source, state if recipe.changed or recipe.history else None)
        # The validation set first: it is small, and what is wrong with it should not be found behind hours of reading.
        validation, metrics = None, None
        if plan.evaluates:
            validation, metrics = read_validation(data_args, training_args, plan, tokenize, target, bad_rows, say)
        train_set = read_training(data_args, training_args, plan, tokenize, known, bad_rows, say)

    model = make_trained(model_args, config, plan, adapter, output_dir, start, finished, say)
    generation = fit_generation(model, target, data_args, training_args, say)
    if metrics is not None:
        metrics.expect_texts_of(generation)
    return Run(
        model=model,
        source=source,
        target=target,
        train=train_set,
        collator=make_collator(source, model, model_args, data_args, training_args),
        validation=validation,
        metrics=metrics,
        plan=plan,
        recipe=recipe,
        start=start,
        needs=needs,
        finished=finished,
        best=None if state is None or is_end else place_of_best(state.trainer, training_args),
        bad_rows=bad_rows,
        starts=starts,
    )


def read_tokenizers(
    model_args: ModelArguments, data_args: DataArguments
) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase, list[str]]:
    """Returns the tokenizers of source and target, fit to train with, and what has to be said of them."""
    name = model_args.tokenizer_name or model_args.model_name_or_path
    source, target = load_tokenizers(name, model_args.target_tokenizer_name, model_args.trust_remote_code)
    choose_spelt_out(data_args.special_tokens_in_text, source, target)
    corpora = corpora_of(data_args)
    sources = [template_of_texts(of_corpus.source_column, corpus.prefix) for corpus, of_corpus in corpora]
    remember(sources, source)
    # An objective's sources need not begin as its texts do.
    plain = ["{text}" if each.objective else text for text, (_, each) in zip(sources, corpora, strict=True)]
    remember_beginnings(plain, source)
    remember([each.target_column for _, each in corpora if each.objective is None], target, "target")
    check_tags(data_args, source, target)
    return source, target, check_training(source, target, data_args.max_source_length, data_args.max_target_length)


def check_tags(data_args: DataArguments, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase) -> None:
    """Checks that tags which a recipe puts before all texts of a corpus or of a validation set are tokens."""
    corpora = [(title_of(corpus, options), options, corpus.prefix) for corpus, options in corpora_of(data_args)]
    sets = [
        (f"validation set {name!r}" if name else "validation", options, prefix)
        for name, options, prefix in sets_of(data_args)
    ]
    for title, options, prefix in [*corpora, *sets]:
        check_tokens((), template_of_texts(options.source_column, prefix), source, title)
        if options.objective is None:
            check_tokens((), template_of_texts(options.target_column, ""), target, title)


def trained_before(model_args: ModelArguments, source: PreTrainedTokenizerBase, state: SavedState | None) -> int:
    """
    Returns the tokens of the longest source that a model has met before this start, 0 for a new one.

    Args:
        source: The tokenizer of the run as it was loaded.
        state: The state that was trained by another recipe, and perhaps on longer texts; None without one.
    """
    known = [0]
    if model_args.model_name_or_path is not None:
        own = own_tokenizer(model_args) if model_args.tokenizer_name is not None else source
        known += [] if own is None else [trained_length(own) or 0]
    if state is not None and (path := state.checkpoint / TOKENIZER_CONFIG).exists():
        known.append(recorded(read_json(path).get("model_max_length", 0)))
    return max(known)


def find_beginning(
    output_dir: Path,
    needs: Needs,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
    say: Callable,
) -> tuple[Start, Path | None]:
    """Returns where a run begins, and the checkpoint that it ends with if that is its end already."""
    start = find_start(output_dir, training_args.resume_from_checkpoint, needs, say)
    state = start.state
    is_end = state is not None and (state.is_end(training_args) or has_stopped_early(state.trainer, data_args))
    if training_args.load_best_model_at_end:
        start = without_lost_best(start, output_dir, is_end, needs, say)
    return start, end_of(state, training_args) if state is not None and is_end else None


def end_of(state: SavedState, training_args: Seq2SeqTrainingArguments) -> Path:
    """Returns the checkpoint that a finished run ends with: its best one, if that was asked for, or its last."""
    best = state.trainer.best_model_checkpoint if training_args.load_best_model_at_end else None
    return state.checkpoint if best is None else Path(best)


def announce(
    plan: Plan,
    finished: Path | None,
    remarks: list[str],
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
    say: Callable,
) -> None:
    """Says what the run will do, and what its options and its tokenizers, by these remarks, may have overlooked."""
    say(plan.batch)
    if plan.evaluates:
        say(f"{plan.eval_batch} per evaluation batch of a process")
    if plan.attn_implementation is not None and model_args.attn_implementation is None:
        say(f"{plan.attn_implementation} attention: {REASONS[plan.attn_implementation]}")
    if training_args.label_smoothing_factor:
        say(
            "label_smoothing_factor is the Trainer's, which wants all logits of a batch in memory; an Xformer's own "
            "`label_smoothing` does without: --config_overrides label_smoothing=0.1"
        )
    if finished is not None:
        again = "evaluating it again" if plan.evaluates else "hf-xformer evaluate evaluates it again"
        say(f"{finished} is the end of this run; {again}")
    changed = (line for _, _, line in settings(data_args, training_args) if line)
    of_base = filter(None, [note_of_averages(model_args.model_name_or_path or "")])
    options = (*overlooked(data_args, training_args), *describe_slow_formats(training_args))
    for line in (*changed, *options, *of_base, *remarks):
        say(line)


def make_configs(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
    source: PreTrainedTokenizerBase,
    target: PreTrainedTokenizerBase,
) -> tuple[PreTrainedConfig, "PeftConfig | None"]:
    """Returns the configurations of a run's model and of its adapter, checked against the options."""
    config = make_config(model_args, source, target)
    check_own_tokenizer(model_args, source)
    check_model(config, model_args, data_args, training_args)
    adapter = make_adapter(model_args, config, training_args)
    if adapter is not None:
        check_fit(adapter, config, model_args, data_args, training_args)
    return config, adapter


def make_config(
    model_args: ModelArguments, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> PreTrainedConfig:
    """Returns an existing model's configuration as it is, or a new one fitted to the tokenizers."""
    overrides = parse_overrides(model_args.config_overrides)
    base, trusted = model_args.model_name_or_path, model_args.trust_remote_code
    if base is not None:
        config = change_config(read_model_config(base, "--model_name_or_path", trusted), overrides)
    else:
        new = load_config(model_args.config_name, overrides, trusted)
        config = fit_vocabulary(new, source, target, overrides)
    check_vocabulary(config, source, target)
    return config


def make_trained(
    model_args: ModelArguments,
    config: PreTrainedConfig,
    plan: Plan,
    adapter: "PeftConfig | None",
    output_dir: Path,
    start: Start,
    finished: Path | None,
    say: Callable,
) -> PreTrainedModel:
    """Returns a run's model, or that of a finished run's end: with its adapter and its loss, its parts frozen."""
    trusted, state = model_args.trust_remote_code, start.state
    if finished is not None and adapter is None:
        options: dict[str, Any] = {"attn_implementation": plan.attn_implementation, "dtype": torch.float32}
        model = load_model(str(finished), trust_remote_code=trusted, **options, **tensor_parallel_options())
    else:
        model = make_model(model_args.model_name_or_path, plan.attn_implementation, config, output_dir, start, trusted)
    add_r_drop(model, model_args.r_drop)
    if adapter is not None:
        model = add_adapter(model, adapter, finished or (None if state is None else state.checkpoint), say)
    freeze(model, model_args.freeze, say)
    return model


def make_model(
    name_or_path: str | None,
    attn_implementation: str | None,
    config: PreTrainedConfig,
    output_dir: Path,
    start: Start,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """
    Returns a new model, or an existing one, of which each process holds its part only where the launcher says so.

    Args:
        name_or_path: An existing model; None for a new one.
        trust_remote_code: Whether code that comes with it may run.
    """
    # The master weights are in full precision whatever the checkpoint's: bf16 and fp16 are the trainer's options.
    options: dict[str, Any] = {"attn_implementation": attn_implementation, "dtype": torch.float32}
    if is_sent_its_weights():
        return empty_model(config, trust_remote_code, **options)
    options |= tensor_parallel_options()
    if start.state is not None and tensor_parallel_size() > 1:
        name_or_path = str(start.state.checkpoint)
    if name_or_path is not None:
        model = load_model(name_or_path, trust_remote_code=trust_remote_code, config=config, **options)
        with torch.device("meta"):
            freeze_computed(model, type(model)(deepcopy(model.config)))
        return model
    if tensor_parallel_size() > 1:
        with initial_weights(config, output_dir) as folder:
            return load_model(folder, **options)
    # Through the Auto class, which is where DeepSpeed ZeRO-3 partitions a model while it is built.
    return AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=trust_remote_code, **options)


def make_collator(
    source: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
) -> Callable:
    """Returns what makes tensors of a batch, in training packed or of each pair twice if that was asked for."""
    # The decoder's input, which only the Trainer's own label smoothing needs, costs nothing.
    padded = DataCollatorForSeq2Seq(source, model=model)
    evaluation: Callable = padded
    if isinstance(model.config, XformerConfig) and not training_args.label_smoothing_factor:
        evaluation = partial(without_logits, padded)
    training: Callable = padded
    if data_args.packing:
        options: dict[str, Any] = {"pad_to_multiple_of": ROW_MULTIPLE}
        if training_args.torch_compile:
            options = {"row_length": data_args.max_tokens, "fixed": True}
        training = DataCollatorForPackedSeq2Seq(source, model=model, **options)
    collate = BatchCollator(training, evaluation)
    return collate if model_args.r_drop is None else partial(doubled, collate)
