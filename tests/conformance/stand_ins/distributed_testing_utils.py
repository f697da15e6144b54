# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""In place of transformers' `tests/distributed_testing_utils.py`: several processes on one machine, for one test."""

import faulthandler
import os
import warnings
from collections.abc import Callable
from multiprocessing import set_forkserver_preload

import torch
import torch.distributed as dist
from torch import multiprocessing
from transformers import AutoModelForCausalLM

from hf_xformer import XformerConfig, XformerForSeq2SeqLM


# Each rank is a fork of one process that has imported these, and nothing else: an import takes longer than a test.
set_forkserver_preload(
    ["hf_xformer.models.modeling_xformer", "transformers.testing_utils", "torch.distributed.tensor"]
)


def _get_distributed_device_type() -> str:
    return torch._C._get_accelerator().type


def _get_distributed_backend() -> str:
    return dist.get_default_backend_for_device(_get_distributed_device_type())


def _get_rank_device(rank: int) -> torch.device:
    device_type = _get_distributed_device_type()
    return torch.device(device_type) if device_type == "cpu" else torch.device(device_type, rank)


def _set_rank_device(rank: int):
    if _get_distributed_device_type() != "cpu":
        torch.accelerator.set_device_index(rank)


def _run_rank(rank: int, function: Callable, *args):
    # A rank that dies in C++ shows where it was.
    faulthandler.enable()
    # As many threads as cores in each process would only wait for each other.
    torch.set_num_threads(1)
    # The tests of sharding build every model as a causal one.
    AutoModelForCausalLM.register(XformerConfig, XformerForSeq2SeqLM)
    function(rank, *args)


def _start_rank_processes(function: Callable, args: tuple, nprocs: int):
    """Runs `function(rank, *args)` in `nprocs` processes; raises what the first of them to fail raises."""
    multiprocessing.start_processes(_run_rank, (function, *args), nprocs=nprocs, start_method="forkserver")


def _run_in_group(rank: int, function: Callable, world_size: int, port: int, args: tuple):
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size}
    os.environ.update({name: str(value) for name, value in place.items()})
    _set_rank_device(rank)
    store = dist.TCPStore("localhost", port, is_master=False)
    dist.init_process_group(_get_distributed_backend(), store=store, rank=rank, world_size=world_size)
    try:
        function(rank, *args)
    finally:
        dist.destroy_process_group()


def run_distributed(world_size: int) -> Callable:
    """
    `run_distributed(n)(function)(*args)` runs `function(rank, *args)` in a process group of `n`.

    Once in some hundreds of starts malloc() aborts a rank: no Python of ours, but torch's collectives. Ranks that a
    signal ended are started once more, with a warning.
    """

    def start(function: Callable) -> Callable:
        def run_once(*args):
            # This process keeps the port: nobody can take it between the choice and the use.
            store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
            _start_rank_processes(_run_in_group, (function, world_size, store.port, args), nprocs=world_size)

        def run(*args):
            try:
                run_once(*args)
            except multiprocessing.ProcessExitedException as died:
                if died.signal_name not in ("SIGABRT", "SIGSEGV"):
                    raise
                warnings.warn(f"{function.__name__} is started once more: {died}", stacklevel=2)
                run_once(*args)

        return run

    return start
