# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Models of which no process holds more than it must: tensor parallelism, and the start of FSDP2.

ZeRO-3 needs nothing of this: it cuts a model up while the Auto classes build it.
"""

import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from accelerate import ParallelismConfig, PartialState
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel, Seq2SeqTrainer, Trainer
from transformers.distributed import DistributedConfig
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_utils import SaveStrategy

from ..files import OPTIMIZER_SHARDS
from .launch import is_set, tensor_parallel_size


def is_sent_its_weights() -> bool:
    """Tells whether this process gets its share of all weights from the first one, as FSDP2 can be told to."""
    sends = is_set("ACCELERATE_USE_FSDP") and is_set("FSDP_CPU_RAM_EFFICIENT_LOADING")
    return sends and not PartialState().is_main_process


def empty_model(config: PreTrainedConfig, trust_remote_code: bool = False, **options) -> PreTrainedModel:
    """
    Returns a model whose weights are tensors that nobody has written to, and so take no memory; buffers are computed.

    Args:
        trust_remote_code: Whether code that comes with the configuration may run.
        options: As `from_config` has them.
    """
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=trust_remote_code, **options)
    modules = list(model.modules())
    for module in modules:
        for name, each in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty_like(each, device="cpu"))
    model.apply(model._init_weights)  # computes the buffers; weights without memory it leaves alone
    weights: dict[nn.Parameter, nn.Parameter] = {}  # each once, for those that are tied
    for module in modules:
        for name, each in list(module.named_parameters(recurse=False)):
            empty = nn.Parameter(torch.empty_like(each, device="cpu"), each.requires_grad)
            setattr(module, name, weights.setdefault(each, empty))
    return model


@contextmanager
def initial_weights(config: PreTrainedConfig, output_dir: Path) -> Iterator[str]:
    """
    Yields a folder with a new model's random weights, which one process of each machine makes whole for all to read.

    The folder is in `output_dir`, which has the room, and goes again; so does `output_dir` if it was not there.
    """
    folder = output_dir / f"initial-weights-{os.environ.get('GROUP_RANK', 0)}"
    state, was_there = PartialState(), output_dir.exists()
    if state.is_local_main_process:
        AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32, trust_remote_code=False).save_pretrained(folder)
    state.wait_for_everyone()
    try:
        yield str(folder)
        state.wait_for_everyone()
    finally:
        if state.is_local_main_process:
            shutil.rmtree(folder, ignore_errors=True)
            if not was_there:
                with suppress(OSError):  # another machine's is there
                    output_dir.rmdir()


def tensor_parallel_options() -> dict:
    """Returns the options of `from_pretrained` that read a part of each layer; none without tensor parallelism."""
    size = tensor_parallel_size()
    return {} if size == 1 else {"distributed_config": DistributedConfig(tp_size=size)}


class UncheckedParallelism(ParallelismConfig):
    """Accelerate's configuration on a CPU too, which it refuses only because nobody has tried."""

    def _validate_accelerator(self, accelerator) -> None:
        pass


def leave_together(trainer: Trainer) -> None:
    """Ends a run's part in a group of processes; all of them do it together."""
    # Processes that leave one by one may take each other's connections with them.
    trainer.accelerator.wait_for_everyone()
    # First what holds the group from outside of Python, as DistributedDataParallel does. Collected after the group, it
    # may wait for gloo's threads for ever, while they wait for Python's lock: pytorch/pytorch#56297.
    model: Any = trainer.model
    trainer.model_wrapped = model
    trainer.accelerator.free_memory()
    gc.collect()
    trainer.accelerator.end_training()


class TensorParallelTrainer(Seq2SeqTrainer):
    """
    The stock trainer, which trains a model in parts but refuses to resume one: checkpoints hold the optimizer's parts.

    To resume, the model has to have been read from the checkpoint, each process its part, before the trainer is made.
    """

    model: PreTrainedModel
    optimizer: AcceleratedOptimizer
    lr_scheduler: LambdaLR

    def __init__(self, *, args, **options):
        strategy, args.save_strategy = args.save_strategy, SaveStrategy.NO
        args.parallelism_config = UncheckedParallelism(tp_size=options["model"].tp_size)
        super().__init__(args=args, **options)
        args.save_strategy = strategy

    @property
    def gather_function(self):
        """Collects an evaluation's batch from the processes: each has seen the whole of it."""
        return lambda tensors: tensors

    @gather_function.setter
    def gather_function(self, function):
        """The trainer sets it to accelerate's, after every evaluation again."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """Does nothing: the model has been read from there."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        Path(output_dir, OPTIMIZER_NAME).unlink(missing_ok=True)  # the main process's part alone
        dcp.save(self.optimizer_shards(), checkpoint_id=Path(output_dir, OPTIMIZER_SHARDS))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        shards = self.optimizer_shards()
        dcp.load(shards, checkpoint_id=Path(checkpoint, OPTIMIZER_SHARDS))
        set_optimizer_state_dict(self.model, self.optimizer.optimizer, shards["optimizer"])
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, SCHEDULER_NAME), weights_only=True))

    def optimizer_shards(self) -> dict:
        """Returns this process's part of the optimizer's state."""
        return {"optimizer": get_optimizer_state_dict(self.model, self.optimizer.optimizer)}
