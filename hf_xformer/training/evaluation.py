# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation during training: its batches, its loss, generated text and its metrics."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import nn
from transformers import (
    EvalPrediction,
    GenerationConfig,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ..checkpoints.foreign_code import read_description
from ..checkpoints.languages import trained_beginning
from ..checkpoints.saving import check_saveable
from ..data.batches import EvaluationBatches
from ..data.templates import language_fields
from ..decoding.metrics import compute_metrics
from ..decoding.scoring import DEFAULT_SCORING, Scoring
from ..errors import ArgumentError, blame, did_you_mean
from ..files import GENERATION_CONFIG
from .arguments import DataArguments, ModelArguments
from .early_stopping import check_early_stopping
from .observation import (
    IGNORED,
    LABELS_OF_STEP,
    add_before_trackers,
    add_to_log,
    observe_smoothing,
    without_labels_of_step,
)
from .validation_sets import join_scores


# Fields of a generation config by which an evaluation would fail, or score other texts than one of each source, by
# chance or of another length than the run's; and the value that does neither.
EVALUATED = {
    "num_return_sequences": 1,
    "return_dict_in_generate": None,
    **dict.fromkeys(("output_scores", "output_logits", "output_attentions", "output_hidden_states")),
    **dict.fromkeys(("max_new_tokens", "max_time", "stop_strings")),
    "do_sample": False,
    # Without sampling these do nothing, and a checkpoint that holds them cannot be saved.
    **dict.fromkeys(("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")),
}

# Values that a saved configuration may hold though nobody has chosen them: the library's defaults.
UNCHOSEN = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}

# All rows, without a name.
ONE_SET = {"": slice(None)}


def fit_generation(
    model: Any,
    target: PreTrainedTokenizerBase,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
    say: Callable,
) -> GenerationConfig:
    """
    Gives a model the generation config that a run evaluates with, and saves, and returns it: `--generation_config` or
    its own, of the run's length, and without fields that an evaluation or that length cannot have, which are said.
    """
    source: Any = training_args.generation_config
    where = f"the model's {GENERATION_CONFIG}" if source is None else f"--generation_config {source}"
    decoding = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT's has the base generate
    config = decoding.generation_config
    given = {} if source is None else given_fields(source)
    config.update(**given)
    fit_beginning(decoding, target, given, say)
    drop_unevaluated(config, say)
    length = generation_length(data_args, training_args)
    option = "--generation_max_length" if training_args.generation_max_length else "--max_target_length"
    if given.get("max_length") not in (None, length):
        say(f"{where}: max_length {given['max_length']} is left out: {option} makes it {length:,}")
    set_length(config, length, option, say)
    check_saveable(config, where)  # every checkpoint has it: the first one would be refused
    return config


def drop_unevaluated(config: GenerationConfig, say: Callable) -> None:
    """Takes out the fields of a generation config by which an evaluation would fail or score other texts; says so."""
    values = {name: getattr(config, name, None) for name in EVALUATED}
    changed = {name: was for name, was in values.items() if was not in (None, False, EVALUATED[name])}
    for name in changed:
        setattr(config, name, EVALUATED[name])
    chosen = {name: was for name, was in changed.items() if was != UNCHOSEN.get(name)}
    if chosen:
        say(f"an evaluation scores one text of each source, by search: {describe_dropped(chosen)}")


def set_length(config: GenerationConfig, length: int, option: str, say: Callable) -> None:
    """Sets the most tokens of a text, which an option gives, and takes out a least number above it; says so."""
    config.max_length = length
    # A token that starts the decoder counts in lengths, and is not new.
    most = {"min_length": length, "min_new_tokens": length - 1}
    longer = {name: was for name in most if (was := getattr(config, name, None) or 0) > most[name]}
    for name in longer:
        setattr(config, name, None)
    if longer:
        dropped = describe_dropped(longer)
        say(f"generated texts have {length:,} tokens at most: {dropped}; a larger {option} keeps them")


def fit_beginning(model: Any, target: PreTrainedTokenizerBase, given: Mapping[str, Any], say: Callable) -> None:
    """
    Has the texts that a model generates begin with the token by which its training starts the decoder, and with the
    language that a multilingual tokenizer puts before targets (transformers issue 41492); says what that replaces.

    Args:
        given: Fields that `--generation_config` gives, which stay.
    """
    for name, token in trained_beginning(model, target).items():
        was = getattr(model.generation_config, name, None)
        if was not in (token, [token]) and name not in given:
            setattr(model.generation_config, name, token)
            if was is not None:
                say(f"generated texts begin as targets do: {name} is {token}, not the generation config's {was}")


def given_fields(source: Any) -> dict[str, Any]:
    """
    Returns the fields that a `--generation_config` gives; a model keeps its others, such as its special tokens.

    Raises:
        ArgumentError: There is no such file, or it has a field that there is not.
    """
    where = f"--generation_config {source}"
    if str(source).endswith(".json") and not Path(source).is_file():
        raise ArgumentError(f"{where}: no such file")
    with blame(where, OSError, ValueError, TypeError):
        found = vars(Seq2SeqTrainer.load_generation_config(source))
    found = {name: value for name, value in found.items() if value is not None and not name.startswith("_")}
    for name in found:
        if name not in (known := vars(GenerationConfig())):
            raise ArgumentError(f"{where}: generate() has no option {name}{did_you_mean(name, known)}")
    return {name: value for name, value in found.items() if name != "transformers_version"}


def describe_dropped(fields: Mapping[str, Any]) -> str:
    """Returns in words that fields of a generation config, with these values, are left out."""
    return f"the generation config's {', '.join(f'{name}={was!r}' for name, was in fields.items())} are left out"


class GenerationMetrics:
    """
    The Trainer's `compute_metrics`: metrics of generated text against the references as they stand in the file.

    Args:
        names: Keys of `METRICS`.
        tokenizer: The target's.
        references: Of every row of the evaluation set, in its order.
        places: Where the prediction for each row is among those that the Trainer has collected.
        scoring: How texts are compared.
        sets: Where each set's rows are among them, by its name.
    """

    def __init__(
        self,
        names: list[str],
        tokenizer: PreTrainedTokenizerBase,
        references: list[list[str]],
        places: np.ndarray,
        scoring: Scoring = DEFAULT_SCORING,
        sets: Mapping[str, slice] = ONE_SET,
    ):
        self.names, self.tokenizer, self.references, self.places = names, tokenizer, references, places
        self.scoring, self.sets = scoring, sets
        self.signatures: dict[str, str] = {}  # of the figures of the last evaluation
        self.forced_end: int | None = None  # place of the end that any text has there, its start token counted

    def expect_texts_of(self, config: GenerationConfig) -> None:
        """Tells by which config texts are generated: where it forces an end token, texts are cut off."""
        self.forced_end = None if config.forced_eos_token_id is None else config.max_length - 1

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        predictions = np.asarray(prediction.predictions)[self.places]
        # -100 fills predictions of unequal lengths, and is no token.
        tokens = np.where(predictions == IGNORED, self.tokenizer.pad_token_id, predictions)
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        self.say_cut(tokens)
        of_sets = {}
        for name, part in self.sets.items():
            scores = compute_metrics(self.names, texts[part], self.references[part], scoring=self.scoring)
            of_sets[name] = {metric: score for metric, score in scores.items() if not isinstance(score, str)}
            kept = {metric: scores[f"{metric}_signature"] for metric in of_sets[name]}
            self.signatures |= {f"{name}_{metric}" if name else metric: str(each) for metric, each in kept.items()}
        return join_scores(of_sets)

    def say_cut(self, tokens: np.ndarray) -> None:
        """Says how many texts, (N, T) with the start token, were ended by the length that they may have."""
        ends = tokens[:, 1 : self.forced_end] == self.tokenizer.eos_token_id
        fillers = tokens[:, -1] == self.tokenizer.pad_token_id
        if cut := int((~ends.any(axis=1) & ~fillers).sum()):
            PartialState().print(
                f"{cut:,} of {len(tokens):,} generated texts were cut off at {tokens.shape[1] - 1:,} tokens, by "
                "--generation_max_length or --max_target_length"
            )


class TokenMeanLoss(TrainerCallback):
    """
    Makes an evaluation's loss the mean over all labels, which no batches change; the Trainer's is a mean of batches.
    Each of several sets has its own, and the whole their mean.

    Also makes its samples a second those of rows, not of batches.

    Args:
        batches: The evaluation set.
    """

    def __init__(self, batches: EvaluationBatches):
        self.batches, self.rows = batches, len(batches.places)
        self.step = 0  # of this evaluation
        self.sums: torch.Tensor | None = None  # of losses, and of labels, (sets, 2)

    def own_mean(self, model: nn.Module, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict] | None:
        """Hook before the model's forward pass: has its loss be a mean over the batch's own labels."""
        return None if model.training or LABELS_OF_STEP not in inputs else without_labels_of_step(args, inputs)

    def see(self, model: nn.Module, args: tuple, inputs: Mapping[str, Any], outputs: Any) -> None:
        """Hook behind the model's forward pass."""
        if not model.training and inputs.get("labels") is not None:
            self.add(inputs["labels"], outputs["loss"] if isinstance(outputs, dict) else outputs[0])

    def add(self, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """Adds the loss of a batch in evaluation, a mean over its labels."""
        if loss.requires_grad:
            return
        wide = torch.float32 if loss.device.type == "mps" else torch.float64
        count = (labels != IGNORED).sum().to(loss.device, wide)
        if self.sums is None:
            self.sums = torch.zeros(len(self.batches.sets), 2, dtype=wide, device=loss.device)
        sums = torch.stack([torch.where(count > 0, loss.to(wide) * count, 0.0), count])
        self.sums[self.batches.set_of_step[self.step]] += sums.to(self.sums.device)
        self.step += 1

    def on_log(self, args, state, control, logs=None, **kwargs):
        prefix = next((name.removesuffix("_runtime") for name in logs if name.endswith("_runtime")), "train")
        if prefix == "train":
            return
        more = {f"{prefix}_samples_per_second": round(self.rows / max(logs[f"{prefix}_runtime"], 1e-9), 3)}
        if self.sums is not None:
            sums = zip(self.batches.sets, reduce(self.sums, "sum").tolist(), strict=True)
            losses = {name: {"loss": loss / count} for name, (loss, count) in sums if count}
            more |= {f"{prefix}_{name}": loss for name, loss in join_scores(losses).items()}
        add_to_log(state, logs, more)
        self.sums, self.step = None, 0


def average_over_tokens(trainer: Trainer, batches: EvaluationBatches) -> None:
    """Has a Trainer's evaluations give the mean loss over all labels of each set."""
    callback = TokenMeanLoss(batches)
    if not observe_smoothing(trainer, callback.add):
        model: Any = trainer.model
        model.register_forward_pre_hook(torch.compiler.disable(callback.own_mean), with_kwargs=True)
        model.register_forward_hook(torch.compiler.disable(callback.see), with_kwargs=True)
    add_before_trackers(trainer, callback)


def batch_of_an_evaluation(
    model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> tuple[int | None, int | None, str]:
    """
    Returns the most rows and the most tokens of an evaluation's batch on one process, and both in words.

    `eval_max_tokens` decides, else a `per_device_eval_batch_size` other than its default, else `max_tokens`. Where
    texts are generated, short sources are no sign of short texts: tokens bound the rows by the longest there may be.

    Returns:
        None for the one that does not decide.
    """
    size, most = training_args.per_device_eval_batch_size, data_args.eval_max_tokens
    if most is None and size == TrainingArguments.per_device_eval_batch_size:
        most = data_args.max_tokens
    if most is None:
        return size, None, f"{size:,} row{'' if size == 1 else 's'} of like length"
    said = f"at most {most:,} source and {most:,} target tokens"
    if not data_args.metrics:
        return None, most, said
    beams, length = beams_of_an_evaluation(model_args, training_args), generation_length(data_args, training_args)
    rows = max(1, most // (beams * length))
    each = f"{length:,} generated tokens" + (f" in each of {beams} beams" if beams > 1 else "")
    return rows, most, f"{said}, and {rows:,} row{'' if rows == 1 else 's'} with up to {each},"


def beams_of_an_evaluation(model_args: ModelArguments, training_args: Seq2SeqTrainingArguments) -> int:
    """Returns the beams that an evaluation decodes with: the option's, its generation config's or the model's."""
    source: Any = training_args.generation_config
    if training_args.generation_num_beams is not None:
        return training_args.generation_num_beams
    if source is not None:
        return given_fields(source).get("num_beams") or 1
    own = model_args.model_name_or_path
    beams = read_description(own, GENERATION_CONFIG).get("num_beams") if own is not None else None
    return beams if isinstance(beams, int) and beams > 1 else 1


def generation_length(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> int:
    """Returns the most tokens of a text that an evaluation generates, the one that starts the decoder included."""
    return training_args.generation_max_length or data_args.max_target_length + 1


def check_evaluation_options(data_args: DataArguments, training_args: TrainingArguments) -> None:
    """
    Checks the languages and the batches of an evaluation, and that a run that may stop early knows by what.

    Raises:
        ArgumentError: Options contradict each other, or one is missing that another needs.
    """
    check_languages(data_args)
    most, size = data_args.eval_max_tokens, training_args.per_device_eval_batch_size
    if most is not None:
        if not data_args.evaluates(training_args):
            raise ArgumentError(f"--eval_max_tokens {most} needs an evaluation: give --validation_file")
        if size != TrainingArguments.per_device_eval_batch_size:
            raise ArgumentError(f"--eval_max_tokens {most} and --per_device_eval_batch_size {size}: give one of them")
        for side in ("max_source_length", "max_target_length"):
            if most < (length := getattr(data_args, side)):
                raise ArgumentError(
                    f"--eval_max_tokens {most} has no room for --{side} {length}: give more or shorten that"
                )
    check_early_stopping(data_args, training_args)


def check_languages(data_args: DataArguments) -> None:
    """
    Checks that a text which is generated for a metric knows its language.

    Raises:
        ArgumentError: Targets say it in their first word, which the Trainer's `generate()` is not told.
    """
    sets: Any = data_args.validation_sets if isinstance(data_args.validation_sets, dict) else {}
    columns = [data_args.target_column, *(each.get("target_column", "") for each in sets.values())]
    told = next(filter(language_fields, columns), None)
    if data_args.metrics and told is not None:
        raise ArgumentError(
            f"--metrics {' '.join(data_args.metrics)}: the language in --target_column {told!r} is not told to the "
            "texts that an evaluation generates: leave --metrics out, which keeps the loss, and score the model by "
            "hf-xformer evaluate; or put the languages before the sources"
        )


def scores_at_end(trainer: Trainer) -> dict[str, float] | None:
    """Returns the scores of the last evaluation in training if the weights are still those that it was of."""
    state, args = trainer.state, trainer.args
    changed = args.load_best_model_at_end and state.best_global_step != state.global_step
    if changed or args.bf16_full_eval or args.fp16_full_eval:  # which convert the weights after training alone
        return None
    for entry in reversed(state.log_history):
        if entry["step"] < state.global_step:
            return None
        if "eval_loss" in entry:
            return {name: value for name, value in entry.items() if name != "step"}
    return None
