# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Checks come before anything is read: each option here is refused though the data are not there."""

import pytest
from small_runs import refused, refused_unread

from hf_xformer.commands import train
from hf_xformer.training import option_checks
from hf_xformer.training.arguments import CHECKPOINTING
from hf_xformer.training.recipe import parse_run


BEST = {"metrics": "per", "validation_file": "nowhere.jsonl", "metric_for_best_model": "eval_per"}
BEFORE_READING = {
    "attention": ({"attn_implementation": "foo"}, "--attn_implementation foo: none of eager, sdpa"),
    "misspelt attention": (
        {"attn_implementation": "flash_attention2"},
        "--attn_implementation flash_attention2: none of eager, sdpa, varlen, flex_attention, "
        "flash_attention_2; did you mean",
    ),
    "tracker": ({"report_to": "wandbb"}, "--report_to wandbb: no such tracker; did you mean wandb?"),
    "tracker not installed": ({"report_to": "neptune"}, "--report_to neptune: not installed, or not set up: pip"),
    "schedule": (
        {"lr_scheduler_type": "cosine_with_min_lr"},
        "--lr_scheduler_type cosine_with_min_lr: One of min_lr or min_lr_rate",
    ),
    "schedule's arguments": (
        {"lr_scheduler_kwargs": '{"cycles": 2}'},
        "--lr_scheduler_type linear with --lr_scheduler_kwargs {'cycles': 2}: ",
    ),
    "metric": ({"metrics": "bleu"}, "--metrics: unknown metric 'bleu'"),
    "best metric": (
        {"metrics": "per", "validation_file": "nowhere.jsonl", "metric_for_best_model": "eval_pr"},
        "--metric_for_best_model pr: evaluation gives loss, per; did you mean per?",
    ),
    "best metric that is not computed": (
        {"metrics": "per", "validation_file": "nowhere.jsonl", "metric_for_best_model": "wer"},
        "--metric_for_best_model wer: evaluation gives loss, per; give --metrics wer too",
    ),
    "direction": (
        {**BEST, "greater_is_better": "true"},
        "--greater_is_better true: the smaller value of per is the better one: leave it out",
    ),
    "direction of a schedule": (
        {**BEST, "lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": '{"mode": "max"}'},
        '--lr_scheduler_kwargs {"mode": "max"}: the smaller value of per is the better one: leave it out',
    ),
    "compiler": ({"torch_compile_backend": "foo"}, "--torch_compile_backend foo: Invalid backend: 'foo'"),
    "compiler's mode": (
        {"torch_compile_mode": "foo"},
        "--torch_compile_backend inductor with --torch_compile_mode foo: Unrecognized mode=foo",
    ),
    "arguments of an optimizer": ({"optim_args": "foo"}, "--optim_args: expected 'name=value,...'"),
    "checkpointing": (
        {CHECKPOINTING: "true", f"{CHECKPOINTING}_kwargs": '{"foo": 1}'},
        f"--{CHECKPOINTING}_kwargs {{'foo': 1}}: ",
    ),
    "moments": ({"adam_beta1": "2"}, "--adam_beta1 must be in [0, 1), got 2.0"),
    "beams": ({"generation_num_beams": "0"}, "--generation_num_beams must be 1 or more, got 0"),
    "average": ({"ema_decay": "1"}, "--ema_decay must be between 0 and 1, got 1.0"),
    "workers": ({"preprocessing_num_workers": "0"}, "--preprocessing_num_workers must be 1 or more, got 0"),
    "seed": ({"seed": "-1"}, "--seed must be from 0 to 4294967295, got -1"),
    "large seed": ({"seed": "4294967296"}, "--seed must be from 0 to 4294967295, got 4294967296"),
    "seed of the order": ({"data_seed": "-1"}, "--data_seed must be 0 or more, got -1"),
    "not a number": ({"learning_rate": "nan"}, "--learning_rate must be a finite number, got nan"),
    "infinite": ({"num_train_epochs": "inf"}, "--num_train_epochs must be a finite number, got inf"),
    "infinite rate": ({"learning_rate": "inf"}, "--learning_rate must be a finite number, got inf"),
    "threshold": ({"early_stopping_threshold": "nan"}, "--early_stopping_threshold must be a finite number, got nan"),
    "steps": ({"max_steps": "-6"}, "--max_steps must be 1 or more, or -1 for --num_train_epochs, got -6"),
    **{
        name: ({name: "-3"}, f"--{name} must be above 0, got -3")
        for name in ("logging_steps", "eval_steps", "save_steps")
    },
    "split of files": ({"train_split": "nowhere"}, "--train_split nowhere does nothing without --dataset_name"),
    "configuration of files": (
        {"dataset_config_name": "de"},
        "--dataset_config_name de does nothing without --dataset_name",
    ),
    "split of nothing": ({"validation_split": "dev"}, "--validation_split dev does nothing without --dataset_name"),
    "rows of nothing": ({"max_eval_samples": "3"}, "--max_eval_samples 3 does nothing without an evaluation"),
    "form of nothing": ({"unicode_form": "NFKC"}, "--unicode_form NFKC does nothing without --metrics"),
    "noise of packed rows": (
        {"neftune_noise_alpha": "5", "packing": "true"},
        "--neftune_noise_alpha 5.0: goes by the length of a row",
    ),
    "beams of nothing": ({"generation_num_beams": "5"}, "--generation_num_beams 5: does nothing without --metrics"),
}


@pytest.mark.parametrize(("changes", "said"), BEFORE_READING.values(), ids=BEFORE_READING)
def test_an_option_is_refused_with_its_name_before_the_data_are_read(changes, said, task, tmp_path, capsys):
    assert refused_unread(task, tmp_path / "run", capsys, **changes).startswith(f"error: {said}")


def in_the_way(folder, kind: str) -> str:
    """A path that no run can write to."""
    path = folder / "path"
    if kind == "a link to nothing":
        path.symlink_to("nowhere")
    elif kind == "below a link to nothing":
        path.symlink_to("nowhere")
        return str(path / "run")
    elif kind == "below a read-only file system":
        return "/proc/runs/one"
    else:
        path.write_text("")
    return str(path / "run") if kind == "below a file" else str(path)


PLACES = {
    "a file": "not a folder",
    "below a file": "path is a file",
    "a link to nothing": "path is a link to nowhere, which is not there",
    "below a link to nothing": "path is a link to nowhere, which is not there",
    "below a read-only file system": "cannot be written: /proc: ",
}


@pytest.mark.parametrize("kind", PLACES)
def test_an_output_folder_that_cannot_be_written_is_refused_before_the_data_are_read(kind, task, tmp_path, capsys):
    place = in_the_way(tmp_path, kind)
    line = refused(train, task.options(place, train_file="nowhere.jsonl"), capsys)
    assert line.startswith(f"error: --output_dir {place}: ") and PLACES[kind] in line


@pytest.mark.parametrize("metric", ["loss", "per", "sacrebleu"])
def test_the_direction_of_a_metric_is_known_to_the_trainer_and_to_schedules_that_go_by_it(metric, task, tmp_path):
    best = {"load_best_model_at_end": "true", "metric_for_best_model": metric, "eval_strategy": "steps"}
    schedule = {"save_strategy": "steps", "lr_scheduler_type": "reduce_lr_on_plateau", "metrics": "per"}
    _, _, arguments = parse_run(task.options(tmp_path, **best, **schedule), "")
    assert arguments.greater_is_better is (metric == "sacrebleu")
    assert arguments.lr_scheduler_kwargs == {"mode": "max" if metric == "sacrebleu" else "min"}


def test_arguments_of_an_optimizer_may_be_a_mapping(task, tmp_path):
    (tmp_path / "recipe.yaml").write_text("optim_args: {beta1: 0.9, clip_threshold: 2}")
    _, _, arguments = parse_run([str(tmp_path / "recipe.yaml"), *task.options(tmp_path, optim="adafactor")], "")
    assert arguments.optim_args == "beta1=0.9,clip_threshold=2"


@pytest.mark.parametrize(
    ("optim", "given", "said"),
    [
        ("adamw_torch", "foo=1", "error: --optim adamw_torch with --optim_args foo=1: "),
        ("adafactor", "foo=1", "error: --optim adafactor with --optim_args foo=1: "),
        ("sgd", "momentum=0.9,neserov=true", "does not take neserov: leave it out"),
    ],
)
def test_arguments_that_an_optimizer_does_not_take_are_refused_by_name(optim, given, said, task, tmp_path, capsys):
    assert said in refused(train, task.options(tmp_path / "run", optim=optim, optim_args=given), capsys)


def test_a_missing_tracker_of_ours_is_met_with_the_extra_that_brings_it(task, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(option_checks, "get_available_reporting_integrations", list)
    line = refused(train, task.options(tmp_path / "run", report_to="tensorboard"), capsys)
    assert "--report_to tensorboard: not installed, or not set up: pip install 'hf-xformer[tensorboard]'" in line


def test_an_optimizer_whose_package_is_missing_is_refused_before_the_folder_is_taken(task, tmp_path, capsys):
    line = refused(train, task.options(tmp_path / "run", optim="galore_adamw"), capsys)
    assert line.startswith("error: --optim galore_adamw: ") and not (tmp_path / "run").exists()
