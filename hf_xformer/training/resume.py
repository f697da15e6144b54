# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Finds where a run resumes: the last whole checkpoint of its folder, or one that is named."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from accelerate.utils import gather_object
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from ..checkpoints.weight_files import read_tensors
from ..errors import ArgumentError, InputError
from ..files import ADAPTER_CONFIG, CONFIG, TRAINER_STATE, checkpoints_of, read_json, step_of
from .checkpoint_files import Needs, check_best, check_files
from .checks import check_adapter, check_layout
from .file_checks import NotWholeError, UnfinishedError, UnfitError, damage_named, seen_by_all
from .trainer_state import read_trainer_state


@dataclass(frozen=True)
class SavedState:
    """
    A whole checkpoint and the state of the run that wrote it.

    Args:
        record: What `LayoutRecord` has left there.
        layout: How weights and optimizer were divided; "" if an earlier version wrote the checkpoint.
        processes: Among how many.
        epoch_steps: Steps of an epoch; 0 if it is not known, as of a stream.
    """

    checkpoint: Path
    trainer: TrainerState
    record: dict
    layout: str
    processes: int
    epoch_steps: int

    def is_end(self, training_args: TrainingArguments) -> bool:
        """Tells whether the run needs no further step; the Trainer would take one all the same."""
        if training_args.max_steps > 0:
            return self.trainer.global_step >= training_args.max_steps
        # As the Trainer counts: the epoch of its state may have come to the number before its last step.
        end = math.ceil(training_args.num_train_epochs * self.epoch_steps)
        return 0 < end <= self.trainer.global_step


@dataclass(frozen=True)
class Start:
    """
    Where a run begins.

    Args:
        state: The checkpoint that it goes on from; None at the first step.
        superseded: Checkpoints that the run does not go on from, and that have to be moved first.
    """

    state: SavedState | None = None
    superseded: tuple[Path, ...] = ()


def check_resumable(training_args: TrainingArguments) -> None:
    """Refuses a run that saves checkpoints from which its next start could not go on."""
    anew = str(training_args.resume_from_checkpoint).lower() == "false"
    if training_args.save_only_model and SaveStrategy(training_args.save_strategy) != SaveStrategy.NO and not anew:
        raise ArgumentError(
            "--save_only_model saves weights alone, from which a stopped run cannot go on: leave it out, or give "
            "--resume_from_checkpoint false, and every start begins anew"
        )


def find_start(output_dir: Path, resume: str | bool | None, needs: Needs, say: Callable) -> Start:
    """
    Finds where a run begins: at the checkpoint that is named, at the last whole one in `output_dir`, or anew.

    Args:
        resume: `--resume_from_checkpoint`: a folder, "false" to start anew, None or "true" to look for one.

    Raises:
        ArgumentError: The one that is named is not whole or not of this run; or none of those that are there is, and
            one of them was, to the last file that a save writes.
    """
    wish = "true" if resume is None else str(resume)
    if wish.lower() == "false":
        return Start(superseded=tuple(checkpoints_of(output_dir)))
    if wish.lower() != "true":
        try:
            return Start(read_whole(Path(wish), needs), left_behind(Path(wish), output_dir))
        except (NotWholeError, UnfitError) as error:
            raise ArgumentError(
                f"--resume_from_checkpoint {wish}: {error}; name another checkpoint, or leave the option out to go on "
                "from the last whole one in --output_dir"
            ) from error
    passed, finished = [], ""
    # Machines may see a shared folder at different times.
    for name in sorted(set(gather_object([path.name for path in checkpoints_of(output_dir)])), key=newest_first):
        checkpoint = output_dir / name
        try:
            state = read_whole(checkpoint, needs)
        except (NotWholeError, UnfitError) as error:
            say(f"passing over {checkpoint}: {error}")
            passed.append(checkpoint)
            if not isinstance(error, UnfinishedError):
                finished = finished or f"{checkpoint}: {error}"
            continue
        say(f"resuming from {checkpoint}; --resume_from_checkpoint false starts anew")
        return Start(state, tuple(passed))
    if finished:
        raise ArgumentError(f"{finished}; no other checkpoint is whole; --resume_from_checkpoint false starts anew")
    if passed:
        say(f"no checkpoint in {output_dir} was finished: the run starts anew")
    return Start(superseded=tuple(passed))


def newest_first(name: str) -> int:
    """Returns a checkpoint's step, counted down."""
    return -(step_of(Path(name)) or 0)


def read_whole(checkpoint: Path, needs: Needs) -> SavedState:
    """
    Reads the state of a checkpoint that this run can go on from; all processes come to the same result.

    Raises:
        NotWholeError, UnfitError: A file is not as it has to be; the message says which and why.
        ArgumentError: The checkpoint is of another layout, of other adapters or of another version of the library.
    """
    seen_by_all(TRAINER_STATE, os.path.lexists(checkpoint / TRAINER_STATE), needs.apart)
    state, fault = None, None
    try:
        state = read_state(checkpoint)
        check_layout(checkpoint, state.layout, state.processes, needs.layout, needs.processes)
        with damage_named(checkpoint / ADAPTER_CONFIG):
            has_adapters = bool(read_json(checkpoint / ADAPTER_CONFIG))
        if has_adapters or (checkpoint / CONFIG).exists():
            check_adapter(checkpoint, "--resume_from_checkpoint", needs.adapter)
        check_files(checkpoint, state.record, needs)
    except (NotWholeError, UnfitError) as error:
        fault = error
    raise_first(fault)
    assert state is not None
    return state


def raise_first(fault: InputError | None) -> None:
    """Raises, in all processes alike, one fault that any of them has found, and rather one that stops a start anew."""
    if faults := [each for each in gather_object([fault]) if each is not None]:
        raise min(faults, key=lambda each: isinstance(each, UnfinishedError))


def without_lost_best(start: Start, output_dir: Path, is_end: bool, needs: Needs, say: Callable) -> Start:
    """
    Returns the start of a run that is to end with its best checkpoint, which is moved first if it is damaged.

    Args:
        is_end: Whether the run needs no further step.

    Raises:
        ArgumentError: It has no further step to find a better one, and its best is gone or damaged; or that is damaged
            and lies in another folder, of which nothing is moved.
    """
    state = start.state
    if state is None or state.trainer.best_model_checkpoint is None:
        return start
    best, fault = Path(state.trainer.best_model_checkpoint), None
    try:
        check_best(best, needs)
    except (NotWholeError, UnfitError) as error:
        fault = error
    try:
        raise_first(fault)
    except (NotWholeError, UnfitError) as error:
        if is_end or (best.is_dir() and best.parent.resolve() != output_dir.resolve()):
            raise ArgumentError(lost_best(best, error)) from error
        say(f"the best checkpoint until now, {best}, is lost: {error}; a better one or the last will be the end")
        state.trainer.best_model_checkpoint = None
        moved = (best,) if best.is_dir() and best not in start.superseded else ()
        return Start(state, (*start.superseded, *moved))
    return start


def check_end(best: Path, needs: Needs) -> None:
    """Refuses to end a training with its best checkpoint if that is gone or damaged."""
    fault = None
    try:
        check_best(best, needs)
    except (NotWholeError, UnfitError) as error:
        fault = ArgumentError(lost_best(best, error))
    raise_first(fault)


def lost_best(best: Path, error: ArgumentError) -> str:
    """Returns what to say of a best checkpoint that a run cannot end with."""
    return f"the run ends with its best checkpoint, {best}: {error}; --load_best_model_at_end false takes its last"


def left_behind(checkpoint: Path, output_dir: Path) -> tuple[Path, ...]:
    """
    Returns the checkpoints in a run's folder that do not lead to one which is named to go on from: those of later
    steps, or all if it lies elsewhere. The next start would take them for later ones of this run.
    """
    others = checkpoints_of(output_dir)
    if checkpoint.resolve().parent != output_dir.resolve():
        return tuple(others)
    return tuple(each for each in others if (step_of(each) or 0) > (step_of(checkpoint.resolve()) or 0))


def read_state(checkpoint: Path) -> SavedState:
    """
    Reads a checkpoint's state of the Trainer, in which our record of the run is.

    Raises:
        NotWholeError: It is missing, cut off or damaged: no checkpoint, or one that was being saved.
        ArgumentError: Another version of the library has written the state.
    """
    trainer, record = read_trainer_state(checkpoint)
    if trainer.best_model_checkpoint is not None:
        # It is beside this one, whatever their folder was called when that was written.
        folder = checkpoint.parent if step_of(checkpoint) is not None else checkpoint.resolve().parent
        trainer.best_model_checkpoint = str(folder / PureWindowsPath(trainer.best_model_checkpoint).name)
    names = {"layout": "", "processes": 0, "epoch_steps": epoch_steps(trainer)}
    return SavedState(checkpoint, trainer, record, **{name: record.get(name, value) for name, value in names.items()})


def epoch_steps(trainer: TrainerState) -> int:
    """
    Returns the steps of an epoch of a run whose checkpoint does not have their number; 0 if nothing tells it.

    The last step of an epoch may be of fewer batches than the others, so that the epoch, which counts batches, is
    ahead of the steps, by less than one of them.
    """
    return math.ceil(round(trainer.global_step / trainer.epoch, 6)) if trainer.epoch else 0


def whole(checkpoint: Path) -> bool:
    """Tells whether a checkpoint's weights were saved whole, whatever else there is to go on from."""
    try:
        read_state(checkpoint)
        read_tensors(checkpoint)
    except ArgumentError:
        return False
    return True
