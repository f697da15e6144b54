# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The table of the stock Trainer's options that would break a run: each row is refused or set, and said."""

import json
from collections import Counter

import pytest
from small_runs import refused_file, refused_unread
from transformers import GenerationConfig, Seq2SeqTrainingArguments

from hf_xformer.commands import train
from hf_xformer.training.arguments import DataArguments
from hf_xformer.training.trainer_options import REFUSED, RULES, overlooked


EVALUATION = {"validation_file": "nowhere.jsonl", "eval_strategy": "steps", "eval_steps": 3, "metrics": "per"}
# Changes by which each row is refused, and the end of the line.
REFUSALS = {
    "dataloader_drop_last": ({**EVALUATION, "dataloader_drop_last": "true"}, "the last rows out of the evaluation"),
    "dataloader_in_order": (
        {**EVALUATION, "dataloader_in_order": "false", "dataloader_num_workers": "2"},
        "other rows' references",
    ),
    "prediction_loss_only": ({**EVALUATION, "prediction_loss_only": "true"}, "computes no --metrics"),
    "predict_with_generate": ({"predict_with_generate": "true"}, "texts that nothing scores"),
    "load_best_model_at_end": ({"load_best_model_at_end": "true"}, "give --eval_strategy"),
    "save_strategy": ({"save_strategy": "best", "metric_for_best_model": "loss"}, "give --eval_strategy"),
    "save_strategy ": ({**EVALUATION, "save_strategy": "best"}, "best needs --metric_for_best_model"),
    "auto_find_batch_size": ({"auto_find_batch_size": "true"}, "halve --max_tokens"),
    "accelerator_config ": (
        {"accelerator_config": '{"gradient_accumulation_kwargs": {"num_steps": 4}}'},
        "--gradient_accumulation_steps is the option",
    ),
    "train_sampling_strategy": (
        {"group_by_length": "false", "train_sampling_strategy": "batch_rebalance"},
        "the same order by every seed",
    ),
    "optim": ({"optim": "schedule_free_adamw"}, "take another, with --ema_decay"),
    "accelerator_config": ({"accelerator_config": '{"split_batches": true}'}, "split_batches would cut"),
    "accelerator_config  ": (
        {"accelerator_config": '{"even_batches": false}'},
        'accelerator_config {"even_batches": false}: even_batches',
    ),
    "dataloader_drop_last ": ({"dataloader_drop_last": "true", "max_tokens": 64}, "does nothing to batches"),
    "neftune_noise_alpha": ({"neftune_noise_alpha": "5", "packing": "true"}, "packed rows hold many pairs"),
    "generation_num_beams": ({"generation_num_beams": "5"}, "does nothing without --metrics"),
    "length_column_name": ({"length_column_name": "size"}, "lengths are counted"),
    "sortish_sampler": ({"sortish_sampler": "true"}, "does nothing"),
    "do_predict": ({"do_predict": "true"}, "hf-xformer evaluate"),
    "do_eval": ({"do_eval": "true"}, "--validation_file"),
    "eval_on_start": ({"eval_on_start": "true"}, "--validation_file"),
    "optim_target_modules": ({"optim_target_modules": "q_proj"}, "is for the optimizers of GaLore"),
    "use_liger_kernel": ({"use_liger_kernel": "true"}, "pip install liger-kernel"),
    "debug": ({"debug": "tpu_metrics_debug"}, "is for TPUs"),
}
SET = {
    "eval_do_concat_batches": "false",
    "batch_eval_metrics": "true",
    "include_for_metrics": "inputs",
    "include_num_input_tokens_seen": "true",
    "label_names": "text",
    "remove_unused_columns": "false",
}


def test_every_row_of_the_table_has_a_test():
    tested = Counter(name.strip() for name in [*REFUSALS, *SET, "generation_config"])
    not_here = {"past_index": 1, "use_liger_kernel": 2}  # of earlier releases; where its package is installed
    assert Counter(rule.name for rule in RULES) == tested | Counter(not_here)


@pytest.mark.parametrize("name", REFUSALS)
def test_an_option_that_would_break_the_run_is_refused_before_the_data_are_read(name, task, tmp_path, capsys):
    changes, said = REFUSALS[name]
    line = refused_unread(task, tmp_path / "run", capsys, **changes)
    assert line.startswith(f"error: --{name.strip()} ") and said in line


@pytest.mark.slow
def test_options_that_are_set_are_said_and_the_evaluation_is_as_without_them(task, tmp_path, capsys):
    unfit = {"num_return_sequences": 3, "return_dict_in_generate": True, "do_sample": True, "temperature": 0.7}
    GenerationConfig(**unfit).to_json_file(tmp_path / "generation.json")
    given = {**SET, "generation_config": tmp_path / "generation.json"}
    options = {"validation_file": task.validation, "metrics": "per", "per_device_eval_batch_size": 4}
    results = []
    for name, more in (("without", {}), ("with", given)):
        train.main(task.options(tmp_path / name, **options, **more))
        scores = json.loads((tmp_path / name / "eval_results.json").read_text())
        results.append((scores["eval_loss"], scores["eval_per"]))
    assert results[0] == results[1]
    said = capsys.readouterr().out
    for rule in RULES:
        if rule.value is not REFUSED:
            assert f"--{rule.name} " in said and rule.why in said
    assert "num_return_sequences=3, return_dict_in_generate=True, do_sample=True, temperature=0.7 are left out" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "'list' object is not a mapping"),
        ('{"num_beam": 3}', "generate() has no option num_beam; did you mean num_beams?"),
        ("{", "not a valid JSON file"),
        (None, "no such file"),
    ],
)
def test_a_generation_config_that_cannot_be_is_refused(content, said, task, tmp_path, capsys):
    assert said in refused_file(task, tmp_path / "generation.json", content, "generation_config", capsys)


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"max_steps": 5, "num_train_epochs": 30}, ["--num_train_epochs 30 does nothing beside --max_steps 5"]),
        (
            {"max_steps": 5, "max_tokens": 64, "group_by_length": False},
            ["--group_by_length false does nothing beside --max_tokens 64, which sorts by length"],
        ),
        (
            {"save_strategy": "epoch", "save_steps": 3, "eval_strategy": "epoch", "eval_steps": 2},
            [
                "--eval_steps 2 does nothing with --eval_strategy epoch",
                "--save_steps 3 does nothing with --save_strategy epoch",
            ],
        ),
        (
            {"max_tokens": 64, "per_device_train_batch_size": 4},
            ["--per_device_train_batch_size 4 does nothing beside --max_tokens 64"],
        ),
        ({"num_train_epochs": 30, "per_device_train_batch_size": 4}, []),
        ({"max_steps": 5, "max_tokens": 64}, []),
    ],
)
def test_an_option_that_another_leaves_without_effect_is_said(options, lines):
    of_data = {name: options[name] for name in ("max_tokens", "group_by_length") if name in options}
    others = {name: value for name, value in options.items() if name not in of_data}
    training_args = Seq2SeqTrainingArguments(output_dir="run", use_cpu=True, **others)
    assert list(overlooked(DataArguments(train_file="train.jsonl", **of_data), training_args)) == lines
