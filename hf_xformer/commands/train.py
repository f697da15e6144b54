# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Trains an encoder-decoder with the stock Seq2SeqTrainer.

  hf-xformer train --config_file configs/accelerate/cpu.yaml configs/train/g2p-quickstart.yaml
  hf-xformer train RECIPE.yaml --output_dir runs/wide --config_overrides d_model=256,encoder_layers=4
  hf-xformer train --schema > recipe.schema.json

A recipe is a YAML file of the options below; options on the command line win over it. Start a stopped run with the
same command: it resumes from the last whole checkpoint in --output_dir; --resume_from_checkpoint false starts anew.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from accelerate import PartialState
from transformers import PreTrainedModel, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback, set_seed
from transformers.trainer_utils import HubStrategy

from ..checkpoints.averaging import load_averages
from ..checkpoints.weight_files import is_tied_as_configured
from ..data.pictures import can_plot
from ..errors import blame, one_line_errors
from ..files import (
    ALL_RESULTS,
    CARD,
    CURVES,
    GENERATION_CONFIG,
    RECORD,
    TARGET_TOKENIZER,
    read_json,
    with_nulls,
    write_json,
)
from ..hub.card import CardFacts, facts_of, read_facts, why_kept, write_card
from ..hub.curves import plot_curves
from ..hub.privacy import hide_secrets
from ..hub.record import provenance, update_record
from ..hub.repository import RunPublisher, check_pushing
from ..training.adapter_state import AllocateRanks, is_saved_in_part
from ..training.arguments import DataArguments, ModelArguments
from ..training.callbacks import (
    ExponentialMovingAverage,
    LayoutRecord,
    PlacesOfStates,
    PushToHub,
    SaveBeside,
    SaveGenerationConfig,
    SaveTargetTokenizer,
    SaveWholeAdapter,
)
from ..training.changes import RecipeRecord
from ..training.early_stopping import EarlyStopping
from ..training.evaluation import average_over_tokens, scores_at_end
from ..training.exact import ExactResume
from ..training.failures import one_line_failures
from ..training.health import StopIfNotFinite
from ..training.launch import keep_freed_memory, layout, one_line_when_stopped, process_count, tensor_parallel_size
from ..training.launch_checks import check_engine
from ..training.mixtures import names_of
from ..training.observation import average_over_step
from ..training.optimizers import check_optimizer, set_optimizer
from ..training.output_folder import claim, copy_weights, set_aside, set_damaged_aside, set_results_aside
from ..training.output_lock import lock_output, locks_released
from ..training.parallel import TensorParallelTrainer, leave_together
from ..training.parts import parse_multipliers
from ..training.plan import trainer_arguments
from ..training.positions import keep_positions
from ..training.prepare import Run, prepare
from ..training.r_drop import passes_of
from ..training.recipe import parse_run, split_command_line
from ..training.resume import check_end
from ..training.rotation import (
    BestCheckpoint,
    RotateCheckpoints,
    bring_best,
    finish_deletions,
    rotate,
    step_of_best,
    without_word_of_the_best,
)
from ..training.schedules import check_fits, steps_of_epochs, unended_warmup
from ..training.throughput import log_throughput, results_of_end, results_of_training
from .training_record import record_of, train_files, trained_data


@locks_released()
def main(argv: Sequence[str] | None = None) -> None:
    """Trains, evaluates, records and publishes a run, or resumes it where it was stopped."""
    with one_line_errors():
        words = list(sys.argv[1:] if argv is None else argv)
        model_args, data_args, training_args = parse_run(words, __doc__)
        for shown in (sys.argv, sys.orig_argv):
            hide_secrets(shown)
    output_dir = str(training_args.output_dir)
    with one_line_when_stopped(output_dir, has_begun=False), one_line_errors():
        lock_output(training_args)
        facts = read_facts(model_args.card_facts)
        check_pushing(training_args, facts, model_args.model_name_or_path if model_args.adapts else None)
        if training_args.device.type == "cpu":
            keep_freed_memory()
        run = prepare(model_args, data_args, training_args, provenance(split_command_line(words)[0], training_args))
        trainer = make_trainer(run, model_args, data_args, training_args)
        hub = RunPublisher.of(training_args, model_args.hub_overwrite) if training_args.push_to_hub else None
        if hub is not None and training_args.hub_strategy == HubStrategy.EVERY_SAVE:
            trainer.add_callback(PushToHub(hub, training_args.hub_always_push))
        # The limit is none of the Trainer's own arguments, which the plan makes: it would delete by the clock.
        take_folder(run, trainer, training_args.save_total_limit)
    with one_line_when_stopped(output_dir):
        with one_line_failures(output_dir, has_bar=not training_args.disable_tqdm):
            if run.finished is None:
                train(trainer, run)
            else:
                take_up(trainer, run, model_args, names_of(data_args))
            save_rest(trainer, run)
            if run.validation is not None:
                evaluate_at_end(trainer, run)
            if trainer.is_world_process_zero():
                report(trainer, record_of(trainer, run, words, model_args, data_args), facts)
        leave_together(trainer)
        if hub is not None and trainer.is_world_process_zero():
            for line in hub.push_run(Path(output_dir), model_args.trust_remote_code):
                print(line)


def make_trainer(
    run: Run, model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> Seq2SeqTrainer:
    """Returns the stock Trainer of a run, having seen that it takes the options."""
    given = trainer_arguments(training_args, run.plan, resumes=run.checkpoint is not None)
    if run.finished is None:  # else it is the last start's, whose data may be others
        run.starts[-1] |= {"trained_on": trained_data(data_args), "train_files": train_files(data_args)}
    trainer_class = Seq2SeqTrainer if tensor_parallel_size() == 1 else TensorParallelTrainer
    check_optimizer(given, run.model)
    if isinstance(run.model, PreTrainedModel) and is_tied_as_configured(run.model):
        # Xformers say so themselves: tied weights are saved once, and the Trainer would warn that others are missing.
        # Where the names that are missing are these, it ties them by the configuration, which may be wrong.
        ignored = run.model._keys_to_ignore_on_save or ()
        run.model._keys_to_ignore_on_save = {*ignored, *run.model.all_tied_weights_keys}
    with blame("options of the Trainer", ImportError, ValueError):
        trainer = trainer_class(
            model=run.model,
            args=given,
            train_dataset=run.train,
            eval_dataset=run.validation,
            processing_class=run.source,
            data_collator=run.collator,
            compute_metrics=run.metrics,
            callbacks=make_callbacks(run, model_args, data_args, training_args),
        )
    set_optimizer(trainer, parse_multipliers(model_args.lr_multipliers))
    trainer.add_callback(PlacesOfStates(trainer.callback_handler.callbacks))
    check_engine(trainer.accelerator.state.deepspeed_plugin, given)
    average_over_step(trainer)
    if run.validation is not None:
        average_over_tokens(trainer, run.validation)
    if run.finished is None:
        steps = given.max_steps if given.max_steps > 0 else steps_of_epochs(given, len(run.train))
        check_fits(given, steps)
        if line := unended_warmup(given, steps):
            trainer.accelerator.print(line)
        keep_positions(trainer, run.train, None if run.recipe.changed else run.start.state)
        log_throughput(trainer, trainer.accelerator.print, passes_of(model_args), names_of(data_args))
    return trainer


def make_callbacks(
    run: Run, model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> list[TrainerCallback]:
    """Returns what a run saves and averages beside the Trainer."""
    processes = training_args.world_size
    writers = processes if not training_args.save_on_each_node else process_count("LOCAL_WORLD_SIZE")
    state = run.start.state
    callbacks: list[TrainerCallback] = [
        ExactResume(),
        BestCheckpoint(partial(check_end, needs=run.needs), state is not None and run.finished is None, run.best),
    ]
    callbacks.append(RecipeRecord(run.recipe, run.starts))
    if run.target is not run.source:
        callbacks.append(SaveTargetTokenizer(run.target))
    if (adapter := run.needs.adapter) is not None:
        callbacks.append(SaveGenerationConfig())
        if is_saved_in_part(adapter):
            callbacks.append(SaveWholeAdapter())
        if adapter.peft_type.value == "ADALORA":
            callbacks.append(AllocateRanks())
    if model_args.ema_decay is not None:
        callbacks.append(ExponentialMovingAverage(model_args.ema_decay, run.checkpoint))
    if data_args.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(data_args.early_stopping_patience, data_args.early_stopping_threshold))
    # Behind the averages, which take the weights' places.
    callbacks.append(StopIfNotFinite(every_step=training_args.device.type == "cpu"))
    if training_args.save_total_limit is not None:
        callbacks.append(RotateCheckpoints(training_args.save_total_limit))
    beside = (each.name for each in callbacks if isinstance(each, SaveBeside))
    return [LayoutRecord(layout(training_args), processes, writers, beside), *callbacks]


def take_folder(run: Run, trainer: Seq2SeqTrainer, limit: int | None) -> None:
    """
    Moves what is of an earlier run or end and claims the output folder, now that all options are checked.

    Args:
        limit: How many checkpoints a finished run keeps; None for all.
    """
    # All processes have looked at what is there.
    PartialState().wait_for_everyone()
    if trainer.args.should_save:
        output_dir = Path(trainer.args.output_dir)
        finish_deletions(output_dir)
        set_aside(output_dir, run.start.superseded, print)
        if run.finished is not None and run.start.state is not None:
            # A kill may have come between the last checkpoint and the deletion of an earlier one.
            rotate(output_dir, limit, run.start.state.trainer)
        elif run.start.state is not None:
            bring_best(run.start.state.trainer, run.best, print)
        set_damaged_aside(output_dir, print)
        if run.finished is None:
            set_results_aside(output_dir, print, *([] if why_kept(output_dir) else [CARD]))
        claim(output_dir, run.model, run.source)


def train(trainer: Seq2SeqTrainer, run: Run) -> None:
    """Trains from the first step or from a checkpoint, and saves the model."""
    with without_word_of_the_best():
        trainer.train(resume_from_checkpoint=None if run.checkpoint is None else str(run.checkpoint))
    if (best := step_of_best(trainer)) is not None:
        trainer.accelerator.print(
            f"the run ends with its best weights, those of step {best}, by {trainer.args.metric_for_best_model}: "
            f"{trainer.state.best_metric:.6g}"
        )
    results = results_of_training(trainer)
    trainer.log_metrics("train", results)
    trainer.save_metrics("train", with_nulls(results))
    trainer.save_model()


def take_up(trainer: Seq2SeqTrainer, run: Run, model_args: ModelArguments, corpora: Sequence[str]) -> None:
    """Takes up a finished run as it ended: its state, its results, and the weights of its last or best checkpoint."""
    trainer.state = run.start.state.trainer
    trainer.state.is_local_process_zero = trainer.is_local_process_zero()
    trainer.state.is_world_process_zero = trainer.is_world_process_zero()
    output_dir = Path(trainer.args.output_dir)
    results = results_of_end(trainer, output_dir, trainer.accelerator.print, passes_of(model_args), corpora)
    trainer.log(dict(results))
    trainer.save_metrics("train", with_nulls(results))
    if model_args.ema_decay is not None:
        load_averages(run.model, str(run.finished))
        if trainer.args.should_save:
            run.model.save_pretrained(output_dir)
            # Options of this evaluation are in the model's generation config, and are not the run's.
            copy_weights(run.finished, output_dir, GENERATION_CONFIG)
    elif trainer.args.should_save:
        copy_weights(run.finished, output_dir)


def save_rest(trainer: Seq2SeqTrainer, run: Run) -> None:
    """Saves the target's own tokenizer and the Trainer's state beside the model."""
    if run.target is not run.source and trainer.args.should_save:
        run.target.save_pretrained(Path(trainer.args.output_dir, TARGET_TOKENIZER))
    trainer.save_state()


def evaluate_at_end(trainer: Seq2SeqTrainer, run: Run) -> None:
    """Evaluates the weights that a run ends with, unless the last evaluation in training was of them."""
    scores = scores_at_end(trainer) if run.finished is None else None
    if scores is None:
        set_seed(trainer.args.seed)  # as in every evaluation before: its samples depend on the weights alone
        scores = trainer.evaluate()
    trainer.log_metrics("eval", scores)
    path = Path(trainer.args.output_dir, ALL_RESULTS)
    if trainer.is_world_process_zero() and path.exists():  # an evaluation before may have had other metrics and sets
        write_json(path, {name: value for name, value in read_json(path).items() if not name.startswith("eval_")})
    trainer.save_metrics("eval", with_nulls(scores))


def report(trainer: Seq2SeqTrainer, record: dict, facts: CardFacts) -> None:
    """Leaves for people: the record, the picture of the curves, the model card, and where everything is."""
    output_dir = Path(trainer.args.output_dir)
    # Facts that a card was given since stay, unless the run has its own.
    earlier = read_json(output_dir / RECORD).get("facts")
    record = record | {"facts": vars(facts) if earlier is None or facts != read_facts(None) else earlier}
    update_record(output_dir, record)
    if can_plot():
        plot_curves(trainer.state.log_history, output_dir / CURVES)
    else:
        print(f"{CURVES} is not drawn: pip install 'hf-xformer[plot]'")
    if reason := why_kept(output_dir):
        print(f"{output_dir / CARD} {reason} and stays as it is")
    else:
        write_card(output_dir, facts_of(record))
    print(f"checkpoint, tokenizer, results and model card are in {output_dir}")
