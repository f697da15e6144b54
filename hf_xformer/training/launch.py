# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Where a run runs: what `accelerate launch` has asked for, against what this machine has, before anything starts.

The libraries pass over much of it silently: two processes that train apart into one folder, float16 on a CPU that is
float32, sharding on a CPU that shards nothing.
"""

import ctypes
import os
import re
import shutil
import signal
import socket
import sys
import sysconfig
import threading
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import TrainingArguments

from ..errors import LaunchError


# How gloo and NCCL say that a peer is gone.
LOST_CONNECTION = re.compile(r"Connection (reset|closed|refused)|Broken pipe|remote process exited", re.IGNORECASE)


# Layouts of a run: every process holds all weights and all of the optimizer; all weights; a part of each.
WHOLE, OPTIMIZER_SHARDED, TENSOR_PARALLEL = "no sharding", "DeepSpeed ZeRO-1 or ZeRO-2", "tensor parallelism"
# Of the C library's malloc.h: from which size on memory is the system's, and how much is kept at the end.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**25  # larger tensors are given back all the same: kept ones of many sizes leave holes


def has_accelerator() -> bool:
    return torch.accelerator.is_available()


def runs_on_cpu() -> bool:
    """Whether a run that says nothing of it is one for the CPU: there is no accelerator, or one for many processes."""
    if is_set("ACCELERATE_USE_CPU") or not has_accelerator():
        return True
    device = torch.accelerator.current_accelerator()
    return device is not None and device.type == "mps" and int(os.environ.get("WORLD_SIZE", 1)) > 1


def is_set(name: str) -> bool:
    """Whether the launcher has switched something on through the environment."""
    return os.environ.get(name, "").lower() in ("1", "true")


def uses_deepspeed(options: Namespace) -> bool:
    return bool(options.deepspeed) or is_set("ACCELERATE_USE_DEEPSPEED")


def tensor_parallel_size() -> int:
    """Over how many processes the launcher's `parallelism_config` divides each layer."""
    return int(os.environ.get("PARALLELISM_CONFIG_TP_SIZE", 1)) if is_set("ACCELERATE_USE_PARALLELISM_CONFIG") else 1


def layout(training_args: TrainingArguments) -> str:
    """How the run divides weights and optimizer among its processes; a checkpoint resumes in the same only."""
    if training_args.deepspeed_plugin is not None:
        stage = training_args.deepspeed_plugin.zero_stage
        return "DeepSpeed ZeRO-3" if stage == 3 else OPTIMIZER_SHARDED
    if tensor_parallel_size() > 1:
        return TENSOR_PARALLEL
    return "FSDP" if is_set("ACCELERATE_USE_FSDP") or training_args.fsdp else WHOLE


def precision(options: Namespace | TrainingArguments) -> str:
    """ "fp16", "bf16" or "no": the recipe's, else the launcher's."""
    for name in ("fp16", "bf16"):
        if getattr(options, name):
            return name
    return os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def check_launch(options: Namespace) -> None:
    """
    Refuses what would go wrong silently, late or without a word that helps, and prepares DeepSpeed for a CPU.

    Args:
        options: The parsed command line; of it `use_cpu`, `deepspeed`, `fsdp`, `fp16` and `bf16`.

    Raises:
        LaunchError: Something was asked for that is not here.
    """
    if uses_deepspeed(options):
        if find_spec("deepspeed") is None:
            raise LaunchError("DeepSpeed is not installed: pip install 'deepspeed>=0.19', after torch")
        engine = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
        if engine is not None and not Path(engine).is_file():
            raise LaunchError(
                f"{engine}: not found from {Path.cwd()}; `deepspeed_config_file` in the launch configuration counts "
                "from the folder where the command is given"
            )
        # It calls torch by names that torch has given up, and torch says so at every call.
        warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    if options.use_cpu or is_set("ACCELERATE_USE_CPU"):
        if not has_accelerator() and int(os.environ.get("WORLD_SIZE", 1)) > 1:
            say_once(f"no accelerator found: {os.environ['WORLD_SIZE']} processes train on the CPU")
        check_cpu(options)
        if uses_deepspeed(options):
            prepare_deepspeed_for_cpu()
    else:
        check_accelerators(options)
    check_tensor_parallel()


def check_world(training_args: TrainingArguments) -> None:
    """
    Raises:
        LaunchError: The processes that were started have not found each other, and would each train alone.
    """
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started != training_args.world_size:
        raise LaunchError(
            f"{started} processes were started but {training_args.world_size} would train together, each on its own "
            "into one folder; on a CPU give --use_cpu true"
        )


def check_cpu(options: Namespace) -> None:
    if precision(options) == "fp16":
        raise LaunchError("fp16 on a CPU would silently be float32: give --bf16 true, or a configuration without fp16")
    if is_set("ACCELERATE_USE_FSDP") or options.fsdp:
        raise LaunchError(
            "FSDP on a CPU would silently hold the whole model in every process: take configs/accelerate/zero3.yaml, "
            "which shards there too, or configs/accelerate/cpu-2proc.yaml"
        )


def check_accelerators(options: Namespace) -> None:
    processes, devices = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.accelerator.device_count()
    if processes > devices > 0:
        raise LaunchError(
            f"{processes} processes on a machine with {devices} accelerators: "
            f"accelerate launch --num_processes {devices}"
        )
    if precision(options) == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(False):
        raise LaunchError(
            f"bf16: {torch.cuda.get_device_name()} has none; fp16 is what it has (configs/accelerate/gpu-fp16.yaml)"
        )


def check_tensor_parallel() -> None:
    size, world = tensor_parallel_size(), int(os.environ.get("WORLD_SIZE", 1))
    if size > 1 and size != world:
        raise LaunchError(
            f"parallelism_config_tp_size {size} with {world} processes: tensor parallel training here takes all of "
            "them; for more GPUs take configs/accelerate/zero3.yaml or fsdp2.yaml"
        )


@contextmanager
def one_line_when_stopped(output_dir: str) -> Iterator[None]:
    """
    Ends this process with a line of advice when it is interrupted, or when another of the run has died.

    Either the launcher ends it by SIGTERM then or the connection to the other breaks, whichever comes first. A thread
    waits for the signal: the main one may hang in a library that waits for the process that has died.
    """
    where = f"Start the same command again, and it goes on from the last whole checkpoint in {output_dir}"
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        try:
            yield
        except KeyboardInterrupt:
            print(f"stopped. {where}", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None
        return

    ending = threading.Lock()

    def end(why: str) -> None:
        ending.acquire()  # for good: who comes second waits for the end
        print(
            f"error: rank {os.environ['RANK']} stops: another process of the run has died, or it was told to stop "
            f"({why}); the launcher says which. {where}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(128 + signal.SIGTERM)

    def wait_for_signal() -> None:
        while arrived := receiver.recv(1):
            if arrived[0] == signal.SIGTERM:
                end("SIGTERM")

    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    own, handler = os.getpid(), signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(sender.fileno())
    # A data loader's workers are ended by the same signal, which is none of the run's business.
    os.register_at_fork(after_in_child=lambda: forget_signal() if os.getppid() == own else None)
    threading.Thread(target=wait_for_signal, daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        end("Ctrl-C")
    except RuntimeError as error:
        if not LOST_CONNECTION.search(str(error)):
            raise
        end(str(error).splitlines()[0])
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, handler)
        sender.close()


def forget_signal() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def keep_freed_memory() -> None:
    """
    Tells the C library to keep what is freed, unless the environment says how it should (MALLOC_...). By default it
    gives large tensors back to the system at once, and gets them again, zeroed page by page, in the next operation: a
    tenth of the time of a training on a CPU.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        with suppress(OSError, AttributeError):  # a C library without it
            c_library = ctypes.CDLL("libc.so.6")
            if c_library.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES) == 1:
                c_library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def prepare_deepspeed_for_cpu() -> None:
    """DeepSpeed looks for an accelerator when it is imported, and compiles what it needs on a CPU on the first run."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if is_built("deepspeed_shm_comm"):
        return
    if shutil.which("c++") is None and shutil.which("g++") is None:
        raise LaunchError("DeepSpeed on a CPU compiles its communication on the first run: install g++")
    say_once(
        f"DeepSpeed compiles its communication for this CPU into {extensions_folder()}: one or two minutes, and as "
        "long again for its optimizer if that is offloaded; the next run finds them there"
    )


def say_once(line: str) -> None:
    """On stderr, and of all processes by the first."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr)


def extensions_folder() -> Path:
    """Where torch keeps the extensions that it compiles; TORCH_EXTENSIONS_DIR says another place."""
    if folder := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(folder)
    from torch.utils.cpp_extension import get_default_build_root  # which imports setuptools

    build = "cpu" if torch.version.cuda is None else f"cu{torch.version.cuda.replace('.', '')}"
    return Path(get_default_build_root(), f"py{sysconfig.get_config_var('py_version_nodot')}_{build}")


def is_built(extension: str) -> bool:
    return (extensions_folder() / extension / f"{extension}.so").exists()
