# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Which checkpoints of a run stay, by their steps, and which of them is the best.

The Trainer goes by the times of folders, so that a clock that is set back has it delete the newest ones, and by the
path that the best one had when it was saved, so that a folder that was moved or copied loses it.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

from ..errors import one_line
from ..files import checkpoint_folder, checkpoints_of, fill_folder, flush_to_disk, remove, step_of


DELETING = ".deleting-"  # begins the name of a checkpoint while it is deleted


def surplus(checkpoints: list[Path], limit: int, step: int, best: int | None) -> list[Path]:
    """
    Returns the checkpoints that a run can do without, the earliest first.

    The one that was just saved and the best one stay, whatever the limit. Those of later steps are not this run's.

    Args:
        checkpoints: In the order of their steps.
        limit: How many may stay.
        step, best: Steps of the one that was just saved and of the best one; None if there is none.
    """
    earlier = [each for each in checkpoints if (step_of(each) or 0) <= step]
    spare = [each for each in earlier if step_of(each) not in (step, best)]
    return spare[: max(0, len(earlier) - limit)]


class RotateCheckpoints(TrainerCallback):
    """
    Deletes the earliest checkpoints beyond `save_total_limit`, in place of the Trainer.

    It comes after every callback that writes into a checkpoint: an earlier one goes only when the new one is whole,
    and on the disk.

    Args:
        limit: How many stay.
    """

    def __init__(self, limit: int):
        self.limit = limit

    def on_save(self, args: TrainingArguments, state: TrainerState, control, **kwargs):
        PartialState().wait_for_everyone()  # others may still write their parts
        if not args.should_save:
            return
        rotate(Path(str(args.output_dir)), self.limit, state)


def rotate(output_dir: Path, limit: int | None, state: TrainerState) -> None:
    """
    Deletes the earliest checkpoints beyond a limit.

    Args:
        limit: How many stay, at least one; None for all.
        state: That of the newest checkpoint of the run.
    """
    if limit is None:
        return
    best = state.best_model_checkpoint
    best_step = None if best is None else step_of(Path(best))
    gone = surplus(checkpoints_of(output_dir), limit, state.global_step, best_step)
    if gone:
        new = checkpoint_folder(output_dir, state.global_step)
        for path in (*new.rglob("*"), new, output_dir):
            flush_to_disk(path)
    for checkpoint in gone:
        try:
            delete(checkpoint)
        except OSError as error:
            print(f"WARNING: {checkpoint} is beyond --save_total_limit and cannot be deleted: {one_line(error)}")


def delete(checkpoint: Path) -> None:
    """
    Deletes a checkpoint, renamed first, so that what a kill leaves of it is not taken for a checkpoint.

    A link goes alone; the folder that it leads to stays.
    """
    doomed = checkpoint.with_name(DELETING + checkpoint.name)
    if os.path.lexists(doomed):
        remove(doomed)
    checkpoint.rename(doomed)
    remove(doomed)


def finish_deletions(output_dir: Path) -> None:
    """Deletes what a kill has left of checkpoints that were being deleted; says in a line what cannot be."""
    for doomed in output_dir.glob(f"{DELETING}checkpoint-*"):
        try:
            remove(doomed)
        except OSError as error:
            print(f"WARNING: {doomed}, of a checkpoint that was deleted, cannot be deleted: {one_line(error)}")


def is_not_about_the_best(record: logging.LogRecord) -> bool:
    """Returns False for the Trainer's warning that the best checkpoint is not where it was when it was saved."""
    return not record.getMessage().startswith("The best checkpoint ")


@contextmanager
def without_word_of_the_best() -> Iterator[None]:
    """Keeps that warning back in a block: `BestCheckpoint` tells the Trainer where the best one is."""
    log = logging.getLogger("transformers.trainer")
    log.addFilter(is_not_about_the_best)
    try:
        yield
    finally:
        log.removeFilter(is_not_about_the_best)


class BestCheckpoint(TrainerCallback):
    """
    Sees to the best checkpoint of a run: tells the Trainer where it is now, and checks it before the Trainer loads it.

    All processes go by what the first one sees: the Trainer sets the best by whether a folder is there, and all check
    and load it together.

    Args:
        check: Raises for a folder that is gone or damaged, for which the Trainer's own words are a traceback.
        resumes: Whether the Trainer reads the state of a checkpoint.
        best: Where the best checkpoint until then is; None if there is none any more.
    """

    def __init__(self, check: Callable[[Path], None], resumes: bool, best: Path | None):
        self.check, self.resumes, self.best = check, resumes, best

    def on_train_begin(self, args, state, control, **kwargs):
        if self.resumes:
            state.best_model_checkpoint = of_first_process(None if self.best is None else str(self.best))

    def on_log(self, args, state, control, logs=None, **kwargs):
        is_last = "train_runtime" in (logs or {})  # the Trainer's sum of a training, before it loads
        if not is_last or not args.load_best_model_at_end:
            return
        state.best_model_checkpoint = of_first_process(state.best_model_checkpoint)
        best = None if state.best_model_checkpoint is None else Path(state.best_model_checkpoint)
        if best is not None:
            self.check(best)
        step = None if best is None else step_of(best)
        if state.best_global_step not in (None, step) and state.is_world_process_zero:
            end = f"the last weights, of step {state.global_step}" if best is None else f"those of {best}"
            print(
                f"WARNING: the best evaluation was that of step {state.best_global_step}, of which there is no "
                f"checkpoint: the run ends with {end}"
            )


def of_first_process(value: Any) -> Any:
    """Returns the first process's value in all of them."""
    return broadcast_object_list([value])[0]


def place_of_best(trainer: TrainerState, training_args: TrainingArguments) -> Path | None:
    """
    Returns where the best checkpoint will be in the output folder of a run that resumes, see [`bring_best`].

    Args:
        trainer: The state that the run resumes, whose best checkpoint is beside it.
    """
    if trainer.best_model_checkpoint is None:
        return None
    output_dir, recorded = Path(str(training_args.output_dir)), Path(trainer.best_model_checkpoint)
    if not recorded.is_dir():
        return None
    if recorded.parent.resolve() != output_dir.resolve() and not training_args.load_best_model_at_end:
        return None  # nobody will ask for it
    return output_dir / recorded.name


def bring_best(trainer: TrainerState, place: Path | None, say: Callable) -> None:
    """Copies the best checkpoint to its place in the output folder, if the run goes on from another folder's."""
    if place is None or place.is_dir():
        return
    recorded = Path(str(trainer.best_model_checkpoint))
    fill_folder(place, lambda new: shutil.copytree(recorded, new, dirs_exist_ok=True))
    say(f"copied {recorded}, the best checkpoint until step {trainer.global_step}, to {place}")


def step_of_best(trainer: Trainer) -> int | None:
    """Returns the step of the best checkpoint where a run ends with its weights."""
    state = trainer.state
    if not trainer.args.load_best_model_at_end or state.best_model_checkpoint is None:
        return None
    return state.best_global_step
