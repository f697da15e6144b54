# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Processes, devices and precision of a run, as `accelerate launch`, the options and this machine have them.

`launch_checks` refuses what cannot be.
"""

import ctypes
import os
import re
import signal
import socket
import sys
import sysconfig
import threading
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedConfig, TrainingArguments

from ..errors import say_once
from ..files import checkpoints_of
from ..models import XformerConfig, why_not_varlen
from .output_lock import release_locks


# Messages of gloo and NCCL when a peer is gone.
LOST_CONNECTION = re.compile(r"Connection (reset|closed|refused)|Broken pipe|remote process exited", re.IGNORECASE)
# Layouts of a run: every process holds all weights and all of the optimizer; all weights; a part of each.
WHOLE, OPTIMIZER_SHARDED, TENSOR_PARALLEL = "no sharding", "DeepSpeed ZeRO-1 or ZeRO-2", "tensor parallelism"
# Options of the C library's mallopt: memory kept at the end of the heap, and the size from which on it is mapped.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**25  # larger tensors are given back all the same: kept ones of many sizes leave holes


def has_accelerator() -> bool:
    """Tells whether torch finds a GPU or the like."""
    return torch.accelerator.is_available()


def runs_on_cpu() -> bool:
    """Default for `use_cpu`: there is no accelerator, or the only one cannot be shared by the processes."""
    if is_set("ACCELERATE_USE_CPU") or not has_accelerator():
        return True
    device = torch.accelerator.current_accelerator()
    return device is not None and device.type == "mps" and process_count() > 1


def is_set(name: str) -> bool:
    """Tells whether the launcher has switched something on through the environment."""
    return os.environ.get(name, "").lower() in ("1", "true")


def process_count(name: str = "WORLD_SIZE") -> int:
    """Returns how many processes the launcher has started, in all or, with LOCAL_WORLD_SIZE, on this machine."""
    return int(os.environ.get(name, 1))


def uses_deepspeed(options: Namespace) -> bool:
    """Tells whether the options or the launcher ask for DeepSpeed."""
    return bool(options.deepspeed) or is_set("ACCELERATE_USE_DEEPSPEED")


def tensor_parallel_size() -> int:
    """Returns over how many processes the launcher's `parallelism_config` divides each layer."""
    return int(os.environ.get("PARALLELISM_CONFIG_TP_SIZE", 1)) if is_set("ACCELERATE_USE_PARALLELISM_CONFIG") else 1


def data_parallel_size(training_args: TrainingArguments) -> int:
    """Returns how many batches the processes work on at a time."""
    return training_args.world_size // tensor_parallel_size()


def layout(training_args: TrainingArguments) -> str:
    """Returns how the run divides weights and optimizer among its processes; a checkpoint resumes in the same only."""
    if training_args.deepspeed_plugin is not None:
        stage = training_args.deepspeed_plugin.zero_stage
        return "DeepSpeed ZeRO-3" if stage == 3 else OPTIMIZER_SHARDED
    if tensor_parallel_size() > 1:
        return TENSOR_PARALLEL
    return "FSDP" if is_set("ACCELERATE_USE_FSDP") or training_args.fsdp else WHOLE


def precision(options: Namespace | TrainingArguments) -> str:
    """Returns "fp16", "bf16" or "no": the options' choice, else the launcher's."""
    for name in ("fp16", "bf16"):
        if getattr(options, name):
            return name
    return os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def why_not_train_by_varlen(config: PreTrainedConfig, training_args: TrainingArguments, packing: bool) -> str | None:
    """Returns why a run cannot train by torch's kernel for variable lengths, as the end of a sentence, or None."""
    if not isinstance(config, XformerConfig):
        return f"is for Xformer models, and this one is of type {config.model_type!r}"
    if config.attention_dropout:
        return (
            f"has no dropout of attention weights, and the model's `attention_dropout` is {config.attention_dropout}"
        )
    if precision(training_args) == "no":
        return "computes in half precision, and the run has neither --bf16 nor --fp16"
    if training_args.device.type == "cpu":
        return "needs a GPU, and the run is on the CPU"
    has_global = config.num_global_tokens and set(config.layer_types_of("encoder")) != {"full_attention"}
    if packing and training_args.torch_compile and has_global:
        return "cannot cut blocks with global tokens in a graph of packed rows, as --packing --torch_compile makes it"
    return why_not_varlen(config)


def prepare_launch(options: Namespace) -> None:
    """
    Says where the run will be, and prepares DeepSpeed, which looks for an accelerator when it is imported.

    Args:
        options: Checked by `launch_checks.check_launch`.
    """
    on_cpu = options.use_cpu or is_set("ACCELERATE_USE_CPU")
    if on_cpu and not has_accelerator() and process_count() > 1:
        say_once(f"no accelerator found: {process_count()} processes train on the CPU")
    if not on_cpu and torch.cuda.is_available() and torch.backends.cuda.cudnn_sdp_enabled():
        torch.backends.cuda.enable_cudnn_sdp(False)
        say_once("cuDNN's kernel of sdpa is off: its gradients behind a mask can be NaN (pytorch issue 196678)")
    if not uses_deepspeed(options):
        return
    # It calls torch by names that torch has given up, and torch says so at every call.
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # Else it starts a program that counts the processors at every reduction.
        os.environ.setdefault("LOCAL_SIZE", str(process_count("LOCAL_WORLD_SIZE")))
        if compiles_deepspeed():
            say_once(
                f"DeepSpeed compiles its communication for this CPU into {extensions_folder()}: one or two minutes, "
                "and as long again for its optimizer if that is offloaded; the next run finds them there"
            )


def going_on(output_dir: str) -> str:
    """Returns what to do where a run was stopped, and what that does."""
    then = "begins anew: no checkpoint was saved yet"
    if checkpoints_of(Path(output_dir)):
        then = f"goes on from the last whole checkpoint in {output_dir}"
    return f"Start the same command again, and it {then}"


@contextmanager
def one_line_when_stopped(output_dir: str, has_begun: bool = True) -> Iterator[None]:
    """
    Ends this process with a line of advice when it is interrupted, or when another of the run has died.

    Either the launcher ends it by SIGTERM then or the connection to the other breaks, whichever comes first. A thread
    waits for the signal: the main one may hang in a library that waits for the process that has died.

    Args:
        has_begun: Whether SIGTERM makes a line too. Before a run has begun, the launcher sends it when another process
            has refused the start, in a line of its own.
    """
    if process_count() == 1:
        try:
            yield
        except KeyboardInterrupt:
            print(f"stopped. {going_on(output_dir)}", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None
        return

    ending = threading.Lock()

    def end(why: str) -> None:
        ending.acquire()  # for good: who comes second waits for the end
        print(
            f"error: rank {os.environ['RANK']} stops: another process of the run has died, or it was told to stop "
            f"({why}); the launcher says which. {going_on(output_dir)}",
            file=sys.stderr,
            flush=True,
        )
        release_locks()
        os._exit(128 + signal.SIGTERM)

    # Around the errors too: the signal may come while one is on its way, before its line is printed.
    with calling_when_told_to_stop(partial(end, "SIGTERM")) if has_begun else nullcontext():
        try:
            yield
        except KeyboardInterrupt:
            end("Ctrl-C")
        except RuntimeError as error:
            if not LOST_CONNECTION.search(str(error)):
                raise
            end(str(error).splitlines()[0])


@contextmanager
def calling_when_told_to_stop(end: Callable[[], None]) -> Iterator[None]:
    """Calls a function, in a thread of its own, when SIGTERM comes in a block."""

    def wait_for_signal() -> None:
        while arrived := receiver.recv(1):
            if arrived[0] == signal.SIGTERM:
                end()

    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    own, handler = os.getpid(), signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(sender.fileno())
    # A data loader's workers are ended by the same signal, which is none of the run's business.
    os.register_at_fork(after_in_child=lambda: forget_signal() if os.getppid() == own else None)
    threading.Thread(target=wait_for_signal, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, handler)
        sender.close()


def forget_signal() -> None:
    """Lets SIGTERM end a forked process as it ends any other."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def keep_freed_memory() -> None:
    """
    Tells the C library to keep what is freed, unless the environment says how it should (MALLOC_...).

    By default it gives large tensors back to the system at once, and gets them again, zeroed page by page, in the next
    operation: a tenth of the time of a training on a CPU.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        with suppress(OSError, AttributeError):  # a C library without it
            c_library = ctypes.CDLL("libc.so.6")
            if c_library.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES) == 1:
                c_library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def compiles_deepspeed() -> bool:
    """Tells whether DeepSpeed has still to compile its communication for a CPU."""
    name = "deepspeed_shm_comm"
    return not (extensions_folder() / name / f"{name}.so").exists()


def extensions_folder() -> Path:
    """Returns where torch keeps the extensions that it compiles; TORCH_EXTENSIONS_DIR says another place."""
    if folder := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(folder)
    from torch.utils.cpp_extension import get_default_build_root  # which imports setuptools

    build = "cpu" if torch.version.cuda is None else f"cu{torch.version.cuda.replace('.', '')}"
    return Path(get_default_build_root(), f"py{sysconfig.get_config_var('py_version_nodot')}_{build}")
