# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Positions of a run's readers in its streams and mixtures: checkpoints have them, so that little is read again."""

from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback

from ..data.batches import POSITION
from ..data.corpora import Place
from ..data.windows import Position, Windows
from .file_checks import is_count
from .observation import observe_batches
from .resume import SavedState
from .training_set import TrainingSet


STATE = "reader_positions"  # in a checkpoint's `trainer_state.json`


class ReaderPositions(TrainerCallback):
    """
    Keeps where every reader can go on: each worker of each process.

    The step of a checkpoint is logged, and a log comes before it is saved.

    Args:
        windows: What is read.
    """

    def __init__(self, windows: Windows):
        self.known = {key: position.numbers() for key, position in windows.positions.items()}
        self.seen: list[torch.Tensor] = []

    def see(self, batch: dict[str, Any]) -> None:
        """Takes the position out of a batch; nobody waits for the device."""
        if (position := batch.pop(POSITION, None)) is not None:
            self.seen.append(position)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:
            return
        self.known |= {(numbers[0], numbers[1]): numbers for numbers in (each.tolist() for each in self.seen)}
        self.seen.clear()
        for numbers in gather_object(list(self.known.values())):
            own = self.known.setdefault((numbers[0], numbers[1]), numbers)
            self.known[numbers[0], numbers[1]] = max(own, numbers, key=lambda each: each[3])
        state.stateful_callbacks[STATE] = [self.known[key] for key in sorted(self.known)]


def keep_positions(trainer: Trainer, train: TrainingSet, saved: SavedState | None) -> None:
    """
    Has the checkpoints of a run on windows hold where the readers are, and the readers go on where they were.

    Args:
        saved: The checkpoint that the run goes on from; None if that read other rows, or there is none.
    """
    if not isinstance(train, Windows):
        return
    if saved is not None and not trainer.args.ignore_data_skip:
        callbacks: Any = saved.trainer.stateful_callbacks
        found = callbacks.get(STATE)
        size = len(Position(places=(Place(),) * len(train.corpora)).numbers())
        if isinstance(found, list) and all(is_position(each, size) for each in found):
            train.resume(found)
    positions = ReaderPositions(train)
    observe_batches(trainer, positions.see)
    trainer.add_callback(positions)


def is_position(numbers: Any, size: int) -> bool:
    """Returns whether a checkpoint's numbers can be a position in so many corpora, or before the first window."""
    sizes = len(Position().numbers()), size
    return isinstance(numbers, list) and len(numbers) in sizes and all(map(is_count, numbers))
