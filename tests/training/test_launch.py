# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The launch configurations say what the launcher and DeepSpeed understand, and what cannot be here is refused."""

import re
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands import launch as accelerate_launch
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)
from safetensors.torch import save_file
from small_models import make_model
from small_runs import ROOT
from transformers import Seq2SeqTrainingArguments, TrainerState
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from hf_xformer import XformerConfig
from hf_xformer.errors import ArgumentError, LaunchError
from hf_xformer.training import launch
from hf_xformer.training.callbacks import LayoutRecord
from hf_xformer.training.checks import check_division
from hf_xformer.training.launch import check_launch
from hf_xformer.training.resume import check_layout, find_checkpoint


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
    options = yaml.safe_load(path.read_text())
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


def test_the_readme_says_when_to_take_each_configuration():
    readme = (ROOT / "README.md").read_text()
    assert [path.stem for path in CONFIGS if f"`{path.stem}`" not in readme] == []


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


def test_tensor_parallelism_does_not_cut_through_a_head(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_PARALLELISM_CONFIG", "true")
    monkeypatch.setenv("PARALLELISM_CONFIG_TP_SIZE", "2")
    check_division(XformerConfig(num_key_value_heads=2))
    with pytest.raises(ArgumentError, match="`num_key_value_heads` of 1"):
        check_division(XformerConfig(num_key_value_heads=1))


def test_a_missing_deepspeed_is_met_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(LaunchError, match="pip install 'deepspeed"):
        check_launch(options(deepspeed="configs/accelerate/zero2.json"))


def test_a_deepspeed_configuration_that_is_not_there_is_named_with_the_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", "configs/accelerate/zero2.json")
    with pytest.raises(LaunchError, match=re.escape(f"zero2.json: not found from {tmp_path}")):
        check_launch(options())


def test_an_interrupted_run_says_how_to_go_on(capsys):
    with pytest.raises(SystemExit), launch.one_line_when_stopped("runs/mine"):
        raise KeyboardInterrupt
    assert "goes on from the last whole checkpoint in runs/mine" in capsys.readouterr().err


def test_deepspeed_says_why_the_first_run_on_a_cpu_takes_its_time(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    check_launch(options(deepspeed="configs/accelerate/zero2.json"))
    assert str(tmp_path) in capsys.readouterr().err
    (tmp_path / "deepspeed_shm_comm").mkdir()
    (tmp_path / "deepspeed_shm_comm/deepspeed_shm_comm.so").touch()
    check_launch(options(deepspeed="configs/accelerate/zero2.json"))
    assert capsys.readouterr().err == ""


def write_checkpoint(folder, random_states: int, **record) -> str:
    folder.mkdir(parents=True)
    TrainerState(stateful_callbacks=[LayoutRecord(**record)]).save_to_json(folder / "trainer_state.json")
    for rank in range(random_states):
        torch.save({}, folder / f"rng_state_{rank}.pth")
    return str(folder)


def test_a_checkpoint_that_a_process_has_not_finished_is_passed_over(tmp_path):
    record = {"layout": "no sharding", "processes": 2, "writers": 2}
    whole = write_checkpoint(tmp_path / "checkpoint-5", 2, **record)
    write_checkpoint(tmp_path / "checkpoint-10", 1, **record)
    said = []
    assert find_checkpoint(tmp_path, None, False, said.append) == whole
    assert "checkpoint-10: it was cut off" in said[0]


@pytest.mark.parametrize("name", ["rng_state_1.pth", "model.safetensors", "adapter_model.safetensors"])
def test_a_checkpoint_with_a_file_that_was_cut_off_is_passed_over(name, tmp_path):
    record = {"layout": "no sharding", "processes": 2, "writers": 2}
    checkpoint = Path(write_checkpoint(tmp_path / "checkpoint-5", 2, **record))
    cut = checkpoint / name
    if name.endswith("safetensors"):
        save_file({"weight": torch.ones(9)}, cut)
    assert find_checkpoint(tmp_path, None, False, print) == str(checkpoint)
    cut.write_bytes(cut.read_bytes()[:-20])
    assert find_checkpoint(tmp_path, None, False, print) is None


@pytest.mark.parametrize(
    ("layout", "processes", "refused"),
    [
        ("DeepSpeed ZeRO-3", 2, False),
        ("DeepSpeed ZeRO-3", 4, True),
        ("DeepSpeed ZeRO-1 or ZeRO-2", 2, True),
        ("no sharding", 2, True),
    ],
)
def test_a_divided_optimizer_resumes_only_where_it_fits(layout, processes, refused, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c", 2, layout="DeepSpeed ZeRO-3", processes=2, writers=2)
    if refused:
        with pytest.raises(ValueError, match=rf"by 2 processes with DeepSpeed ZeRO-3, this run has {processes} with"):
            check_layout(checkpoint, layout, processes)
    else:
        check_layout(checkpoint, layout, processes)


def test_a_whole_optimizer_resumes_with_any_number_of_processes(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c", 2, layout="no sharding", processes=2, writers=2)
    check_layout(checkpoint, "no sharding", 4)
