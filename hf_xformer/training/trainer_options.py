# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Options of the stock Trainer that would break a run of this package, or go wrong silently: one table of them.

Each is refused before anything is read, or set to a value that does no harm, which the run says.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from transformers import Seq2SeqTrainingArguments
from transformers.debug_utils import DebugOption
from transformers.integrations.liger import is_liger_kernel_available
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..errors import ArgumentError
from .arguments import DataArguments
from .evaluation import given_fields
from .launch import precision


REFUSED = object()
# Options that do nothing beside others.
OVERRULED = {"num_train_epochs": "max_steps", "per_device_train_batch_size": "max_tokens"}
LAYERWISE = re.compile("galore|apollo")
Condition = Callable[[DataArguments, Seq2SeqTrainingArguments], Any]


@dataclass(frozen=True)
class Rule:
    """
    What is done about an option of the Trainer.

    Args:
        name: The option.
        when: Tells whether it is wrong in a run.
        why: The end of the line that says so; for a refused one with what to do.
        value: What the Trainer is given in its place; REFUSED if the run is refused.
    """

    name: str
    when: Condition
    why: str
    value: Any = REFUSED


def given(name: str, *harmless: Any) -> Condition:
    """Returns a condition: the option has another value than these, or is on if there are none."""
    if not harmless:
        return lambda data, trainer: getattr(trainer, name, None)
    return lambda data, trainer: getattr(trainer, name, harmless[0]) not in harmless


def with_metrics(condition: Condition) -> Condition:
    """Returns a condition that matters only where metrics of generated text are computed."""
    return lambda data, trainer: data.metrics and condition(data, trainer)


def accumulated(accelerator_config: Any) -> int:
    """Returns the batches that Accelerate's own option has in a step."""
    return (getattr(accelerator_config, "gradient_accumulation_kwargs", None) or {}).get("num_steps", 1)


def evaluating(condition: Condition) -> Condition:
    """Returns a condition that matters only in a run with an evaluation."""
    return lambda data, trainer: data.evaluates(trainer) and condition(data, trainer)


RULES = (
    # The evaluation would fail, or be of something else.
    Rule(
        "dataloader_drop_last",
        evaluating(given("dataloader_drop_last")),
        "would leave the last rows out of the evaluation too: leave it out; --packing and --max_tokens make their own "
        "batches",
    ),
    Rule(
        "dataloader_in_order",
        lambda data, trainer: not trainer.dataloader_in_order and trainer.dataloader_num_workers > 1,
        "takes batches as workers finish them: no run could be resumed or repeated, and texts would be scored against "
        "other rows' references: leave it out",
    ),
    Rule("prediction_loss_only", with_metrics(given("prediction_loss_only")), "computes no --metrics: leave one out"),
    Rule(
        "eval_do_concat_batches",
        given("eval_do_concat_batches", True),
        "the metrics take the texts of all batches together",
        True,
    ),
    Rule("batch_eval_metrics", given("batch_eval_metrics"), "the metrics are of the whole set", False),
    Rule("include_for_metrics", given("include_for_metrics"), "no metric of this package uses it", []),
    Rule(
        "include_num_input_tokens_seen",
        lambda data, trainer: trainer.include_num_input_tokens_seen not in (False, "no"),
        "its number counts padding, and no targets; the log and run.json have the tokens that were trained on",
        "no",
    ),
    Rule("label_names", given("label_names", None, ["labels"]), "the labels of a pair are `labels`", None),
    Rule("remove_unused_columns", given("remove_unused_columns", True), "the model takes no other columns", True),
    Rule(
        "predict_with_generate",
        lambda data, trainer: trainer.predict_with_generate and not data.metrics,
        "generates texts that nothing scores: give --metrics, or leave it out",
    ),
    Rule(
        "load_best_model_at_end",
        lambda data, trainer: trainer.load_best_model_at_end and trainer.eval_strategy == IntervalStrategy.NO,
        "needs evaluations while training: give --eval_strategy",
    ),
    Rule(
        "save_strategy",
        lambda data, trainer: (
            trainer.save_strategy == SaveStrategy.BEST and trainer.eval_strategy == IntervalStrategy.NO
        ),
        "best needs evaluations while training: give --eval_strategy",
    ),
    Rule(
        "save_strategy",
        lambda data, trainer: trainer.save_strategy == SaveStrategy.BEST and not trainer.metric_for_best_model,
        "best needs --metric_for_best_model",
    ),
    Rule(
        "generation_config",
        given("generation_config"),
        "the model's own generation config takes over its fields, and the Trainer is given none",
        None,
    ),
    # The training would be of other batches than it says.
    Rule(
        "auto_find_batch_size",
        given("auto_find_batch_size"),
        "would change the batch in the middle of a run, which its batches and its record do not follow: leave it out, "
        "halve --max_tokens or --per_device_train_batch_size and double --gradient_accumulation_steps",
    ),
    Rule(
        "accelerator_config",
        lambda data, trainer: getattr(trainer.accelerator_config, "split_batches", False),
        "split_batches would cut batches that were made for each process: leave it out",
    ),
    Rule(
        "accelerator_config",
        lambda data, trainer: not getattr(trainer.accelerator_config, "even_batches", True),
        "even_batches false gives processes unequal numbers of steps, and those with more wait for ever: leave it out",
    ),
    Rule(
        "accelerator_config",
        lambda data, trainer: accumulated(trainer.accelerator_config) != 1,
        "num_steps would accumulate more batches than the run plans and records: --gradient_accumulation_steps is the "
        "option",
    ),
    Rule(
        "train_sampling_strategy",
        given("train_sampling_strategy", "random", "sequential", "group_by_length"),
        "draws the same order by every seed, and another one when a run is resumed: leave it out; --group_by_length "
        "is on by default",
    ),
    Rule(
        "optim",
        lambda data, trainer: plain(trainer.optim).startswith("schedule_free"),
        "trains other weights than those that count, and the Trainer saves either of them: take another, with "
        "--ema_decay for an average",
    ),
    Rule(
        "neftune_noise_alpha",
        lambda data, trainer: trainer.neftune_noise_alpha is not None and data.packing,
        "goes by the length of a row, and packed rows hold many pairs: leave one of it and --packing out",
    ),
    # What would do nothing.
    Rule(
        "dataloader_drop_last",
        lambda data, trainer: trainer.dataloader_drop_last and (data.endless or data.plans_batches),
        "does nothing to batches that this package makes, of which none is left out: leave it out",
    ),
    Rule(
        "length_column_name",
        given("length_column_name", "length"),
        "does nothing, for lengths are counted as the data are read: leave it out",
    ),
    Rule(
        "generation_num_beams",
        lambda data, trainer: trainer.generation_num_beams is not None and not data.metrics,
        "does nothing without --metrics, for which texts are decoded: leave it out",
    ),
    Rule("sortish_sampler", given("sortish_sampler"), "does nothing; --group_by_length is on by default"),
    Rule("do_predict", given("do_predict"), "does nothing: hf-xformer evaluate tests a trained model"),
    Rule(
        "do_eval",
        lambda data, trainer: trainer.do_eval and not data.evaluates(trainer),
        "needs --validation_file",
    ),
    Rule(
        "eval_on_start",
        lambda data, trainer: trainer.eval_on_start and not data.evaluates(trainer),
        "needs --validation_file",
    ),
    Rule(
        "past_index",
        given("past_index", None, -1),
        "is not for encoder-decoders: leave it out",
    ),
    Rule(
        "optim_target_modules",
        lambda data, trainer: trainer.optim_target_modules and not LAYERWISE.search(plain(trainer.optim)),
        "is for the optimizers of GaLore and APOLLO: leave it out",
    ),
    # What is not here, or not for these models.
    Rule(
        "use_liger_kernel",
        lambda data, trainer: trainer.use_liger_kernel and not is_liger_kernel_available(),
        "its package is not installed: pip install liger-kernel",
    ),
    Rule(
        "use_liger_kernel",
        given("use_liger_kernel"),
        "has no kernels for these models; the loss of an Xformer is computed without logits anyway: leave it out",
    ),
    Rule(
        "debug",
        lambda data, trainer: DebugOption.TPU_METRICS_DEBUG in trainer.debug,
        "tpu_metrics_debug is for TPUs: leave it out",
    ),
)


def check_trainer_options(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> None:
    """Refuses options by the table, and a generation config that cannot be read; raises ArgumentError."""
    source: Any = training_args.generation_config
    if source is not None:
        given_fields(source)
    for rule in RULES:
        if rule.value is REFUSED and rule.when(data_args, training_args):
            raise ArgumentError(f"--{rule.name} {shown(getattr(training_args, rule.name))}: {rule.why}")


def settings(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> Iterator[tuple[str, Any, str]]:
    """Yields the options that the Trainer is given another value of than was asked for: name, value, and a line."""
    for rule in RULES:
        if rule.value is not REFUSED and rule.when(data_args, training_args):
            asked = shown(getattr(training_args, rule.name))
            yield rule.name, rule.value, f"--{rule.name} {asked} is set to {shown(rule.value)}: {rule.why}"
    # Else a loss that is not finite would be hidden in the log. Under fp16 such steps are skipped, and are normal.
    if precision(training_args) != "fp16":
        yield "logging_nan_inf_filter", False, ""


def overlooked(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> Iterator[str]:
    """Yields a line for each option that does nothing beside another; at its default it was not asked for."""
    defaults = {each.name: each.default for each in fields(Seq2SeqTrainingArguments)}
    given = {"max_steps": max(0, training_args.max_steps), "max_tokens": data_args.max_tokens}
    for name, other in OVERRULED.items():
        asked = getattr(training_args, name)
        if given[other] and asked != defaults[name]:
            yield f"--{name} {asked:g} does nothing beside --{other} {given[other]}"
    if not data_args.group_by_length and data_args.max_tokens is not None and not data_args.packing:
        yield f"--group_by_length false does nothing beside --max_tokens {data_args.max_tokens}, which sorts by length"
    for name in ("logging", "eval", "save"):
        strategy, steps = plain(getattr(training_args, f"{name}_strategy")), getattr(training_args, f"{name}_steps")
        if strategy != "steps" and steps != defaults[f"{name}_steps"]:
            yield f"--{name}_steps {steps:g} does nothing with --{name}_strategy {strategy}"


def shown(value: Any) -> str:
    """Returns an option's value as a recipe has it."""
    if isinstance(value, list):
        value = [plain(each) for each in value]
    if isinstance(value, AcceleratorConfig):
        value = {each.name: own for each in fields(value) if (own := getattr(value, each.name)) != each.default}
    value = plain(value)
    return json.dumps(value) if isinstance(value, bool | list | dict) or value is None else str(value)


def plain(value: Any) -> Any:
    """Returns an enumeration's value."""
    return getattr(value, "value", value)
