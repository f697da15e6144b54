# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Checks come before anything is read: each option here is refused though the data are not there."""

import pytest
from small_runs import refused, refused_unread

from hf_xformer.commands import train
from hf_xformer.training import option_checks


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
        "--lr_scheduler_type cosine_with_min_lr with --lr_scheduler_kwargs None: ",
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
    "average": ({"ema_decay": "1"}, "--ema_decay must be between 0 and 1, got 1.0"),
    "workers": ({"preprocessing_num_workers": "0"}, "--preprocessing_num_workers must be 1 or more, got 0"),
    "not a number": ({"learning_rate": "nan"}, "--learning_rate must be 0 or more, got nan"),
}


@pytest.mark.parametrize(("changes", "said"), BEFORE_READING.values(), ids=BEFORE_READING)
def test_an_option_is_refused_with_its_name_before_the_data_are_read(changes, said, task, tmp_path, capsys):
    assert refused_unread(task, tmp_path / "run", capsys, **changes).startswith(f"error: {said}")


def test_a_missing_tracker_of_ours_is_met_with_the_extra_that_brings_it(task, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(option_checks, "get_available_reporting_integrations", list)
    line = refused(train, task.options(tmp_path / "run", report_to="tensorboard"), capsys)
    assert "--report_to tensorboard: not installed, or not set up: pip install 'hf-xformer[tensorboard]'" in line


def test_an_optimizer_whose_package_is_missing_is_refused_before_the_folder_is_taken(task, tmp_path, capsys):
    line = refused(train, task.options(tmp_path / "run", optim="galore_adamw"), capsys)
    assert line.startswith("error: --optim galore_adamw: ") and not (tmp_path / "run").exists()
