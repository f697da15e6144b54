# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of processes, devices and precision, which the libraries would let go wrong silently, late or without a hint.

Examples: two processes that train apart into one folder; float16 on a CPU, which is float32; sharding on a CPU, which
shards nothing.
"""

import os
import shutil
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ..errors import LaunchError
from .launch import compiles_deepspeed, is_set, precision, process_count, tensor_parallel_size, uses_deepspeed


def check_launch(options: Namespace) -> None:
    """
    Checks the launch before the training arguments are made.

    Args:
        options: Of a run, of which it reads `use_cpu`, `deepspeed`, `fsdp`, `fp16` and `bf16`.

    Raises:
        LaunchError: Something was asked for that this machine does not have.
    """
    on_cpu = options.use_cpu or is_set("ACCELERATE_USE_CPU")
    if uses_deepspeed(options):
        check_deepspeed(on_cpu)
    if on_cpu:
        check_cpu(options)
    else:
        check_accelerators(options)
    size, world = tensor_parallel_size(), process_count()
    if size > 1 and size != world:
        raise LaunchError(
            f"parallelism_config_tp_size {size} with {world} processes: tensor parallel training takes all of them; "
            "for more GPUs take configs/accelerate/zero3.yaml or fsdp2.yaml"
        )


def check_deepspeed(on_cpu: bool) -> None:
    """Checks that DeepSpeed is installed, has its configuration, and can compile what it needs on a CPU."""
    if find_spec("deepspeed") is None:
        raise LaunchError("DeepSpeed is not installed: pip install 'deepspeed>=0.19', after torch")
    engine = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if engine is not None and not Path(engine).is_file():
        raise LaunchError(
            f"{engine}: not found from {Path.cwd()}; `deepspeed_config_file` in the launch configuration counts from "
            "the folder where the command is given"
        )
    if on_cpu and compiles_deepspeed() and shutil.which("c++") is None and shutil.which("g++") is None:
        raise LaunchError("DeepSpeed on a CPU compiles its communication on the first run: install g++")


def check_engine(plugin: Any, training_args: TrainingArguments) -> None:
    """
    Checks that DeepSpeed's configuration and the options agree, which the library would see late or never.

    Args:
        plugin: Of a Trainer that is made, with its `hf_ds_config` filled in; None without DeepSpeed.
    """
    engine = getattr(plugin, "hf_ds_config", None)
    if engine is None:
        return
    if engine.mismatches:
        differences = "; ".join(each.removeprefix("- ") for each in engine.mismatches)
        raise LaunchError(f'DeepSpeed\'s configuration and the options disagree: {differences}; write "auto" there')
    if training_args.max_grad_norm and engine.config.get("gradient_clipping") is None:
        raise LaunchError(
            f"DeepSpeed's configuration has no `gradient_clipping`, and would clip nothing where --max_grad_norm is "
            f'{training_args.max_grad_norm:g}: write "gradient_clipping": "auto" there'
        )
    for block, option in {"optimizer": "optim", "scheduler": "lr_scheduler_type"}.items():
        if block in engine.config:
            raise LaunchError(f"DeepSpeed's configuration has `{block}`, which overrules --{option}: leave it out")


def check_cpu(options: Namespace) -> None:
    """Checks that nothing is asked for that a CPU passes over silently."""
    if precision(options) == "fp16":
        raise LaunchError("fp16 on a CPU would silently be float32: give --bf16 true, or a configuration without fp16")
    if is_set("ACCELERATE_USE_FSDP") or options.fsdp:
        raise LaunchError(
            "FSDP on a CPU would silently hold the whole model in every process: take configs/accelerate/zero3.yaml, "
            "which shards there too, or configs/accelerate/cpu-2proc.yaml"
        )


def check_accelerators(options: Namespace) -> None:
    """Checks that every process has an accelerator, and that it has the precision."""
    processes, devices = process_count("LOCAL_WORLD_SIZE"), torch.accelerator.device_count()
    if processes > devices > 0:
        raise LaunchError(
            f"{processes} processes on a machine with {devices} accelerators: "
            f"accelerate launch --num_processes {devices}"
        )
    if precision(options) == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(False):
        raise LaunchError(
            f"bf16: {torch.cuda.get_device_name()} does not have it; fp16 is what it has "
            "(configs/accelerate/gpu-fp16.yaml)"
        )


def check_world(training_args: TrainingArguments) -> None:
    """
    Checks that the processes that were started have found each other, and that each drives one GPU.

    Raises:
        LaunchError: They would each train alone, or one process would drive several GPUs.
    """
    started = process_count()
    if started != training_args.world_size:
        raise LaunchError(
            f"{started} processes were started but {training_args.world_size} would train together, each on its own "
            "into one folder; on a CPU give --use_cpu true"
        )
    if training_args.n_gpu > 1:
        raise LaunchError(
            f"one process for {training_args.n_gpu} GPUs would copy the model at every step, and weigh packed rows "
            "wrongly: accelerate launch --config_file configs/accelerate/multi-gpu.yaml"
        )
