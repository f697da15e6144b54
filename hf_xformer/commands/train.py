# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Trains an encoder-decoder with the stock Seq2SeqTrainer.

  accelerate launch --config_file configs/accelerate/cpu.yaml scripts/train.py configs/train/g2p-quickstart.yaml
  ... scripts/train.py RECIPE.yaml --output_dir runs/wide --config_overrides d_model=256,encoder_layers=4

A recipe is a YAML file of the options below; options on the command line win over it. A run that was stopped goes on
from the last whole checkpoint in --output_dir when it is started again; --resume_from_checkpoint false starts anew.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)
from transformers.trainer_utils import HubStrategy

from ..checkpoints.averaging import load_averages
from ..decoding.attention_maps import can_plot
from ..errors import DataError, one_line_errors
from ..files import CURVES, RECORD, TARGET_TOKENIZER
from ..hub.card import facts_of, is_edited, read_facts, write_card
from ..hub.curves import plot_curves
from ..hub.record import make_record, update_record
from ..hub.repository import RunPublisher, check_pushing
from ..training.arguments import ModelArguments
from ..training.callbacks import (
    ExponentialMovingAverage,
    LayoutRecord,
    PushToHub,
    SaveGenerationConfig,
    SaveTargetTokenizer,
)
from ..training.launch import keep_freed_memory, layout, one_line_when_stopped, tensor_parallel_size
from ..training.parallel import TensorParallelTrainer
from ..training.prepare import Run, prepare
from ..training.recipe import options_beside_recipe, parse_run, recipe_of
from ..training.resume import claim, copy_weights, read_layout, set_results_aside


def main(argv: Sequence[str] | None = None) -> None:
    with one_line_errors():
        model_args, data_args, training_args = parse_run(argv, __doc__)
        facts = read_facts(model_args.card_facts)
        if training_args.device.type == "cpu":
            keep_freed_memory()
        check_pushing(training_args, facts, model_args.model_name_or_path if model_args.lora_rank else None)
        run = prepare(model_args, data_args, training_args)
        hub = start_pushing(training_args)
        trainer = make_trainer(run, model_args, training_args)
        if hub is not None and training_args.hub_strategy == HubStrategy.EVERY_SAVE:
            trainer.add_callback(PushToHub(hub, training_args.hub_always_push))
        if training_args.should_save:
            claim(Path(training_args.output_dir), run.model, run.source)
    if run.finished is None:
        # A stream is checked only as it is read.
        with one_line_errors(DataError), one_line_when_stopped(training_args.output_dir):
            result = trainer.train(resume_from_checkpoint=run.checkpoint)
        trainer.log_metrics("train", result.metrics)
        trainer.save_metrics("train", result.metrics)
        trainer.save_model()
        if training_args.should_save:
            set_results_aside(Path(training_args.output_dir), print)
    else:
        trainer.state = run.finished
        if model_args.ema_decay is not None:
            load_averages(run.model, run.checkpoint)
            if training_args.should_save:
                run.model.save_pretrained(training_args.output_dir)
        elif training_args.should_save:
            copy_weights(run.checkpoint, Path(training_args.output_dir))
    if run.target is not run.source and training_args.should_save:
        run.target.save_pretrained(Path(training_args.output_dir, TARGET_TOKENIZER))
    trainer.save_state()
    if run.validation is not None:
        scores = trainer.evaluate()
        trainer.log_metrics("eval", scores)
        trainer.save_metrics("eval", scores)
    if trainer.is_world_process_zero():
        record = {}
        # What a finished run was is not what it is looked at with.
        if run.finished is None or not Path(training_args.output_dir, RECORD).exists():
            record = make_record(
                trainer,
                recipe_of(argv),
                options_beside_recipe(argv),
                model_args.model_name_or_path,
                data_args.dataset_name or data_args.train_file or [],
                data_args.dataset_name or data_args.validation_file or [],
                run.batch,
                seconds_of(trainer, run),
            )
        report(trainer, record | {"facts": vars(facts)})
    # Processes that leave one by one may take each other's connections with them.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    if hub is not None and trainer.is_world_process_zero():
        for line in hub.push_run(Path(training_args.output_dir)):
            print(line)


def start_pushing(training_args: Seq2SeqTrainingArguments) -> RunPublisher | None:
    """What `push_to_hub` asks for; the Trainer, whose own pushes send pickles, is then told nothing of it."""
    if not training_args.push_to_hub:
        return None
    training_args.push_to_hub = False
    return RunPublisher.of(training_args)


def make_trainer(run: Run, model_args: ModelArguments, training_args: Seq2SeqTrainingArguments) -> Seq2SeqTrainer:
    trainer_class = Seq2SeqTrainer if tensor_parallel_size() == 1 else TensorParallelTrainer
    return trainer_class(
        model=run.model,
        args=training_args,
        train_dataset=run.train,
        eval_dataset=run.validation,
        processing_class=run.source,
        data_collator=run.collator,
        compute_metrics=run.metrics,
        callbacks=make_callbacks(run, model_args, training_args),
    )


def make_callbacks(
    run: Run, model_args: ModelArguments, training_args: Seq2SeqTrainingArguments
) -> list[TrainerCallback]:
    processes = training_args.world_size
    writers = processes if not training_args.save_on_each_node else int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    seconds = 0.0 if run.checkpoint is None else read_layout(Path(run.checkpoint)).get("seconds", 0.0)
    callbacks: list[TrainerCallback] = [LayoutRecord(layout(training_args), processes, writers, run.batch, seconds)]
    if run.target is not run.source:
        callbacks.append(SaveTargetTokenizer(run.target))
    if model_args.lora_rank is not None:
        callbacks.append(SaveGenerationConfig())
    if model_args.ema_decay is not None:
        callbacks.append(ExponentialMovingAverage(model_args.ema_decay, run.checkpoint))
    return callbacks


def seconds_of(trainer: Seq2SeqTrainer, run: Run) -> float:
    """Of training, over all starts; of a run that had ended before, those that its last checkpoint knows of."""
    if run.finished is not None:
        callbacks: Any = run.finished.stateful_callbacks  # as a file has them: by name
        return callbacks.get(LayoutRecord.__name__, {}).get("args", {}).get("seconds", 0.0)
    return next(each.seconds for each in trainer.callback_handler.callbacks if isinstance(each, LayoutRecord))


def report(trainer: Seq2SeqTrainer, record: dict) -> None:
    """What a run leaves for people: the picture of the curves, the model card, a last word on where everything is."""
    output_dir = Path(trainer.args.output_dir)
    update_record(output_dir, record)
    if can_plot():
        plot_curves(trainer.state.log_history, output_dir / CURVES)
    else:
        print(f"{CURVES} is not drawn: pip install 'hf-xformer[plot]'")
    if is_edited(output_dir):
        print(f"{output_dir}/README.md was changed by hand and stays as it is")
    else:
        write_card(output_dir, facts_of(record))
    print(f"checkpoint, tokenizer, results, model card and {CURVES} are in {output_dir}")
