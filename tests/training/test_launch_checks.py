# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What would go wrong silently, late or without a hint is refused before the processes meet."""

import re
from argparse import Namespace

import pytest
import torch
from transformers import Seq2SeqTrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from hf_xformer import XformerConfig
from hf_xformer.errors import ArgumentError, LaunchError
from hf_xformer.training import launch_checks
from hf_xformer.training.checks import check_division
from hf_xformer.training.launch_checks import check_engine, check_launch


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """These tests say themselves what a launcher has set."""
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_PARALLELISM_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def options(**changes) -> Namespace:
    return Namespace(**{"use_cpu": True, "deepspeed": None, "fsdp": None, "fp16": False, "bf16": False, **changes})


@pytest.mark.parametrize(
    ("changes", "environment", "words"),
    [
        ({"fp16": True}, {}, "fp16 on a CPU"),
        ({}, {"ACCELERATE_MIXED_PRECISION": "fp16"}, "fp16 on a CPU"),
        ({}, {"ACCELERATE_USE_FSDP": "true"}, "FSDP on a CPU"),
        ({"fsdp": "full_shard"}, {}, "zero3.yaml"),
        (
            {},
            {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2", "WORLD_SIZE": "4"},
            "parallelism_config_tp_size 2 with 4 processes",
        ),
    ],
)
def test_what_would_go_wrong_silently_is_refused_before_it_starts(changes, environment, words, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match=re.escape(words)):
        check_launch(options(**changes))


def test_more_processes_than_accelerators_are_refused(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(LaunchError, match="--num_processes 2"):
        check_launch(options(use_cpu=False))


def test_tensor_parallelism_does_not_cut_through_a_head(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_PARALLELISM_CONFIG", "true")
    monkeypatch.setenv("PARALLELISM_CONFIG_TP_SIZE", "2")
    check_division(XformerConfig(num_key_value_heads=2))
    with pytest.raises(ArgumentError, match="`num_key_value_heads` of 1"):
        check_division(XformerConfig(num_key_value_heads=1))


def test_a_missing_deepspeed_is_met_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(launch_checks, "find_spec", lambda name: None)
    with pytest.raises(LaunchError, match="pip install 'deepspeed"):
        check_launch(options(deepspeed="configs/accelerate/zero2.json"))


def test_a_deepspeed_configuration_that_is_not_there_is_named_with_the_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", "configs/accelerate/zero2.json")
    with pytest.raises(LaunchError, match=re.escape(f"zero2.json: not found from {tmp_path}")):
        check_launch(options())


def test_a_deepspeed_configuration_with_another_batch_than_the_options_is_refused_with_both(tmp_path):
    args = Seq2SeqTrainingArguments(output_dir=tmp_path, use_cpu=True, per_device_train_batch_size=3)
    for size, agrees in (("auto", True), (3, True), (4, False)):
        engine = engine_of(args, train_micro_batch_size_per_gpu=size)
        if agrees:
            check_engine(engine, args)
            continue
        with pytest.raises(LaunchError, match="train_micro_batch_size_per_gpu=4 vs hf per_device_train_batch_size=3"):
            check_engine(engine, args)
    check_engine(None, args)


def engine_of(args: Seq2SeqTrainingArguments, **more) -> Namespace:
    """A plugin with a configuration that the options have filled in; None leaves a field of it out."""
    config = {"gradient_clipping": "auto", "zero_optimization": {"stage": 2}, **more}
    engine = HfTrainerDeepSpeedConfig({name: value for name, value in config.items() if value is not None})
    engine.trainer_config_process(args)
    return Namespace(hf_ds_config=engine)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"gradient_clipping": None}, "no `gradient_clipping`, and would clip nothing where --max_grad_norm is 0.5"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": "auto"}}}, "`optimizer`, which overrules --optim"),
        ({"scheduler": {"type": "WarmupLR", "params": {}}}, "`scheduler`, which overrules --lr_scheduler_type"),
    ],
)
def test_a_deepspeed_configuration_that_would_overrule_options_without_a_word_is_refused(more, said, tmp_path):
    args = Seq2SeqTrainingArguments(output_dir=tmp_path, use_cpu=True, max_grad_norm=0.5)
    with pytest.raises(LaunchError, match=re.escape(said)):
        check_engine(engine_of(args, **more), args)
    args.max_grad_norm = 0.0
    if "gradient_clipping" in more:
        check_engine(engine_of(args, **more), args)
