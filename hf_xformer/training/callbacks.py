# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Trainer callbacks: what is saved, averaged and pushed beside the stock Trainer's own."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import has_length

from ..checkpoints.averaging import read_averages, trained
from ..files import (
    AVERAGES,
    GENERATION_CONFIG,
    TARGET_TOKENIZER,
    WHOLE_ADAPTER,
    checkpoint_folder,
    fill_folder,
    write_whole,
)
from .adapter_state import whole_of
from .adapters import save_generation_config
from .file_checks import sum_of


class SaveBeside(TrainerCallback):
    """
    Writes what the Trainer leaves out of a checkpoint, whole or not at all, after everything of the Trainer's.

    [`LayoutRecord`] has the names: a checkpoint without one of these files is not finished.
    """

    name: str  # of the file or folder

    def on_save(self, args, state, control, model=None, **kwargs):
        if args.should_save:  # once in each folder, where machines have folders of their own too
            self.save(checkpoint_folder(args.output_dir, state.global_step) / self.name, model)

    def save(self, path: Path, model: Any) -> None:
        """Writes the file or folder."""
        raise NotImplementedError


class SaveGenerationConfig(SaveBeside):
    """Writes how the run decodes beside the adapters of each checkpoint."""

    name = GENERATION_CONFIG

    def save(self, path: Path, model: Any) -> None:
        save_generation_config(model, path.parent)


class SaveWholeAdapter(SaveBeside):
    """Writes beside the adapters of each checkpoint what PEFT leaves out."""

    name = WHOLE_ADAPTER

    def save(self, path: Path, model: Any) -> None:
        write_whole(path, lambda unfinished: save_file(whole_of(model), unfinished))


class ExponentialMovingAverage(SaveBeside):
    """
    Keeps `a <- d a + (1 - d) w` of all weights w that are trained over the steps (Polyak and Juditsky 1992,
    exponentially weighted), evaluates with the averages, and leaves them in the model at the end.

    In the first steps d is smaller, (1 + t) / (10 + t), so that the start is forgotten. Checkpoints hold the weights
    that training goes on from, and the averages beside them.

    Args:
        decay: d, such as 0.999.
        checkpoint: Where the run resumes, if it does.
    """

    name = AVERAGES

    def __init__(self, decay: float, checkpoint: Path | None = None):
        self.decay, self.checkpoint = decay, checkpoint
        self.averages: dict[str, torch.Tensor] = {}
        self.kept: list[torch.Tensor] | None = None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.parameters = trained(model)
        if self.checkpoint is None:
            self.averages = {name: each.detach().float().clone() for name, each in self.parameters.items()}
        else:
            self.averages = read_averages(str(self.checkpoint), self.parameters)

    @torch.no_grad()
    def on_step_end(self, args, state, control, **kwargs):
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        now = [each.detach().float() for each in self.parameters.values()]
        get_ema_multi_avg_fn(decay)(list(self.averages.values()), now, None)
        self.take_places(control)

    def on_epoch_end(self, args, state, control, **kwargs):
        self.take_places(control)

    def take_places(self, control) -> None:
        """Puts the averages in the weights' places, if an evaluation comes next."""
        if control.should_evaluate and self.kept is None:
            self.kept = [each.detach().clone() for each in self.parameters.values()]
            self.write(self.averages.values())

    def on_evaluate(self, args, state, control, **kwargs):
        if self.kept is not None:
            self.write(self.kept)
            self.kept = None

    def save(self, path: Path, model: Any) -> None:
        write_whole(path, lambda unfinished: save_file(self.averages, unfinished))

    def on_train_end(self, args, state, control, **kwargs):
        best = state.best_model_checkpoint if args.load_best_model_at_end else None
        self.write((self.averages if best is None else read_averages(best, self.parameters)).values())

    @torch.no_grad()
    def write(self, tensors: Iterable[torch.Tensor]) -> None:
        """Puts tensors in the weights' places."""
        for parameter, tensor in zip(self.parameters.values(), tensors, strict=True):
            parameter.copy_(tensor)


class LayoutRecord(TrainerCallback, ExportableState):
    """
    Leaves in every checkpoint's `trainer_state.json` what the run's next start has to know of it, the steps of an
    epoch, and checksums of the weight files, which are written first: safetensors has none.

    Args:
        layout: How weights and optimizer are divided among the processes.
        processes: How many there are.
        writers: How many of them write a random state into a checkpoint's folder.
        beside: Names of what is written after this record, by [`SaveBeside`].
    """

    def __init__(self, layout: str, processes: int, writers: int, beside: Iterable[str] = ()):
        self.layout, self.processes, self.writers, self.beside = layout, processes, writers, list(beside)
        self.run: tuple[TrainingArguments, TrainerState] | None = None
        self.sums: tuple[int, dict[str, int]] = (0, {})  # of the last step that was saved
        self.epoch_steps = 0

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        self.run = (args, state)
        if has_length(train_dataloader):
            self.epoch_steps = max(math.ceil(len(train_dataloader) / args.gradient_accumulation_steps), 1)

    def state(self) -> dict:
        """Returns what the Trainer writes into `trainer_state.json`, between the weights and `on_save`."""
        # The one moment at which the weights are there and this is not yet written. They are still in the system's
        # memory: a second for each gigabyte or two, and only the first time that a step's state is asked for.
        if self.run is not None and self.sums[0] != self.run[1].global_step:
            args, state = self.run
            folder = checkpoint_folder(str(args.output_dir), state.global_step)
            sums = {path.name: sum_of(path) for path in sorted(folder.glob("*model*.safetensors"))}
            self.sums = (state.global_step, sums)
        names = ("layout", "processes", "writers", "beside")
        found = {"sums": self.sums[1], "epoch_steps": self.epoch_steps}
        return {"args": {name: getattr(self, name) for name in names}, "attributes": found}


class PlacesOfStates(TrainerCallback):
    """
    Makes places in `trainer_state.json` for the states of all callbacks.

    A state that the stock Trainer or an earlier version has written has none for ours, and the Trainer adds none.

    Args:
        callbacks: The Trainer's list.
    """

    def __init__(self, callbacks: list[TrainerCallback]):
        self.callbacks = callbacks

    def on_train_begin(self, args, state, control, **kwargs):
        for each in self.callbacks:
            if isinstance(each, ExportableState):
                state.stateful_callbacks.setdefault(type(each).__name__, {})


class SaveTargetTokenizer(SaveBeside):
    """Saves a target's own tokenizer with each checkpoint: the Trainer saves the source's alone."""

    name = TARGET_TOKENIZER

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer

    def save(self, path: Path, model: Any) -> None:
        fill_folder(path, self.tokenizer.save_pretrained)


class Publisher(Protocol):
    """Pushes checkpoints in the background; see `hf_xformer.hub.repository.RunPublisher`."""

    def is_busy(self) -> bool:
        """Tells whether a push is under way."""

    def push_checkpoint(self, folder: Path, message: str) -> None:
        """Begins to push a checkpoint."""


class PushToHub(TrainerCallback):
    """
    Pushes every checkpoint that the Trainer saves, in the background, without the pickles that the Trainer sends.

    Args:
        always: Push a checkpoint even if the one before is still being sent.
    """

    def __init__(self, publisher: Publisher, always: bool):
        self.publisher, self.always = publisher, always

    def on_save(self, args: TrainingArguments, state, control, **kwargs):
        if state.is_world_process_zero and (self.always or not self.publisher.is_busy()):
            folder = checkpoint_folder(str(args.output_dir), state.global_step)
            self.publisher.push_checkpoint(folder, f"Training in progress, step {state.global_step}")
