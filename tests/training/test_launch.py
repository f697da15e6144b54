# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The launch configurations say what the launcher and DeepSpeed understand, and a run sees where it runs."""

import re
from argparse import Namespace

import pytest
import torch
from accelerate.commands import launch as accelerate_launch
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)
from small_models import make_model
from small_runs import ROOT
from transformers import Seq2SeqTrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from hf_xformer.training import launch
from hf_xformer.yaml_files import read_yaml


CONFIGS = sorted((ROOT / "configs/accelerate").glob("*.yaml"))
ENGINES = sorted((ROOT / "configs/accelerate").glob("*.json"))
by_name = {"ids": lambda path: path.stem}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """These tests say themselves what a launcher has set."""
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_PARALLELISM_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def environment(path, monkeypatch) -> dict[str, str]:
    """What the launcher would hand to the training processes."""
    monkeypatch.chdir(ROOT)
    parser = accelerate_launch.launch_command_parser()
    args = parser.parse_args(["--config_file", str(path), "--main_process_port", "0", "scripts/train.py", "recipe"])
    args, _, _ = accelerate_launch._validate_launch_command(args)
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ""
        return prepare_deepspeed_cmd_env(args)[1]
    if args.multi_gpu or args.use_fsdp:
        return prepare_multi_gpu_env(args)
    return prepare_simple_launcher_cmd_env(args)[1]


@pytest.mark.parametrize("path", CONFIGS, **by_name)
def test_a_launch_configuration_is_short_and_explains_every_key(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) <= 14 and all("  # " in line for line in lines)
    keys = re.findall(r"^ *(\w+):", "\n".join(lines), re.MULTILINE)
    assert len(keys) == len(lines)


@pytest.mark.parametrize("path", CONFIGS, **by_name)
def test_the_launcher_passes_on_what_a_configuration_says(path, monkeypatch):
    options = read_yaml(path.read_text())
    found = environment(path, monkeypatch)
    kind = options["distributed_type"]
    assert (found.get("ACCELERATE_USE_DEEPSPEED") == "true") == (kind == "DEEPSPEED")
    assert (found.get("ACCELERATE_USE_FSDP") == "true") == (kind == "FSDP")
    if kind == "DEEPSPEED":
        assert (ROOT / found["ACCELERATE_DEEPSPEED_CONFIG_FILE"]).is_file()
    else:
        assert found["ACCELERATE_MIXED_PRECISION"] == options["mixed_precision"]
    for name, value in options.get("fsdp_config", {}).items():
        name = name.removeprefix("fsdp_").upper()
        assert found[f"FSDP_{name}"].lower() == str(value).lower()
    size = options.get("parallelism_config", {}).get("parallelism_config_tp_size")
    assert found.get("PARALLELISM_CONFIG_TP_SIZE", "1") == str(size or 1)


@pytest.mark.parametrize("path", ENGINES, **by_name)
def test_the_trainer_fills_in_all_that_a_deepspeed_configuration_leaves_to_it(path, tmp_path):
    args = Seq2SeqTrainingArguments(output_dir=tmp_path, use_cpu=True, bf16=True, per_device_train_batch_size=3)
    config = HfTrainerDeepSpeedConfig(str(path))
    assert not {"optimizer", "scheduler"} & config.config.keys()
    config.trainer_config_process(args)
    config.trainer_config_finalize(args, make_model(), num_training_steps=5)
    assert '"auto"' not in str(config.config).replace("'", '"')
    assert config.config["train_micro_batch_size_per_gpu"] == 3 and config.config["bf16"]["enabled"]


def test_each_deepspeed_configuration_has_a_launch_configuration_of_its_name():
    assert {path.stem for path in ENGINES} <= {path.stem for path in CONFIGS}


def test_the_documents_say_when_to_take_each_configuration():
    page = (ROOT / "docs/cluster.md").read_text()
    assert [path.stem for path in CONFIGS if f"`{path.stem}`" not in page] == []


@pytest.mark.parametrize(
    ("accelerator", "environment", "expected"),
    [
        (None, {}, True),
        ("cuda", {}, False),
        ("cuda", {"ACCELERATE_USE_CPU": "True"}, True),
        ("mps", {}, False),
        ("mps", {"WORLD_SIZE": "2"}, True),
    ],
)
def test_a_run_is_for_the_cpu_where_nothing_else_will_do(accelerator, environment, expected, monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: Namespace(type=accelerator))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launch.runs_on_cpu() is expected


@pytest.mark.parametrize("saved", [True, False])
def test_an_interrupted_run_says_how_to_go_on(saved, tmp_path, capsys):
    if saved:
        (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(SystemExit), launch.one_line_when_stopped(str(tmp_path)):
        raise KeyboardInterrupt
    line = capsys.readouterr().err
    assert (f"goes on from the last whole checkpoint in {tmp_path}" in line) == saved
    assert ("begins anew: no checkpoint was saved yet" in line) != saved


def test_deepspeed_says_why_the_first_run_on_a_cpu_takes_its_time(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    options = Namespace(use_cpu=True, deepspeed="configs/accelerate/zero2.json")
    launch.prepare_launch(options)
    assert str(tmp_path) in capsys.readouterr().err
    (tmp_path / "deepspeed_shm_comm").mkdir()
    (tmp_path / "deepspeed_shm_comm/deepspeed_shm_comm.so").touch()
    launch.prepare_launch(options)
    assert capsys.readouterr().err == ""
