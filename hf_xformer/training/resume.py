# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The output folder of a run: where to resume, read once; and what is moved, claimed and copied there."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path, PureWindowsPath

from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerState,
    TrainingArguments,
)

from ..checkpoints.weight_files import read_header, read_tensors
from ..errors import ArgumentError, blame, first_line
from ..files import (
    ADAPTER_WEIGHTS,
    ATTENTION,
    AVERAGES,
    GENERATION_CONFIG,
    TEST_RESULTS,
    TRAINER_STATE,
    checkpoints_of,
    step_of,
    write_whole,
)
from .adapters import configs_of, save_generation_config
from .callbacks import LayoutRecord
from .checks import refuse_averages


class NotWholeError(ArgumentError):
    """A checkpoint that was cut off while it was being saved, or is none."""


@dataclass(frozen=True)
class SavedState:
    """
    A whole checkpoint and the state of the run that wrote it.

    Args:
        layout: How weights and optimizer were divided; "" if an earlier version wrote the checkpoint.
        processes: Among how many.
        batch: What a step worked on, in words.
        seconds: Of training until then, over all starts.
        has_averages: Whether averages of the weights lie beside them.
    """

    checkpoint: Path
    trainer: TrainerState
    layout: str
    processes: int
    batch: str
    seconds: float
    has_averages: bool

    def is_end(self, training_args: TrainingArguments) -> bool:
        """Tells whether the run needs no further step; the Trainer would take one all the same."""
        if training_args.max_steps > 0:
            return self.trainer.global_step >= training_args.max_steps
        return (self.trainer.epoch or 0) >= training_args.num_train_epochs


@dataclass(frozen=True)
class Start:
    """
    Where a run begins.

    Args:
        state: The checkpoint that it goes on from; None at the first step.
        superseded: Checkpoints of an earlier run that have to be moved first.
    """

    state: SavedState | None = None
    superseded: tuple[Path, ...] = ()


def find_start(output_dir: Path, resume: str | bool | None, averages: bool, say: Callable) -> Start:
    """
    Finds where a run begins: at the checkpoint that is named, at the last whole one in `output_dir`, or anew.

    Args:
        resume: `--resume_from_checkpoint`: a folder, "false" to start anew, None or "true" to look for one.
        averages: Whether the run averages its weights, so that a checkpoint has to have those too.

    Raises:
        ArgumentError: The one that is named is not whole, or what is there was written with averages and should be
            without, or the other way.
    """
    wish = "true" if resume is None else str(resume)
    if wish.lower() == "false":
        return Start(superseded=tuple(checkpoints_of(output_dir)))
    if wish.lower() != "true":
        try:
            state = read_state(Path(wish))
        except NotWholeError as error:
            raise ArgumentError(f"--resume_from_checkpoint {wish}: not a whole checkpoint: {error}") from error
        if state.has_averages != averages:
            refuse_averages(state.checkpoint, averages)
        return Start(state, superseded=left_behind(state.checkpoint, output_dir))
    others = []
    for checkpoint in reversed(checkpoints_of(output_dir)):
        try:
            state = read_state(checkpoint)
        except NotWholeError as error:
            say(f"passing over {checkpoint}: it was cut off while it was being saved: {error}")
            continue
        if state.has_averages == averages:
            say(f"resuming from {checkpoint}; --resume_from_checkpoint false starts anew")
            return Start(state)
        # Averages are written last: this one may have been cut off before them.
        say(f"passing over {checkpoint}: it was saved with{'out' if averages else ''} averages")
        others.append(checkpoint)
    if others:
        refuse_averages(others[0], averages)
    return Start()


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
    Reads a checkpoint's state, having seen that all processes have written their part. The Trainer waits for none.

    Raises:
        NotWholeError: A file is missing or cut off; the message says which.
        ArgumentError: Another version of the library has written the state.
    """
    path = checkpoint / TRAINER_STATE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))  # the last file that the Trainer writes
    except FileNotFoundError as error:
        raise NotWholeError(f"no {TRAINER_STATE}") from error
    except (OSError, ValueError) as error:
        raise NotWholeError(f"{TRAINER_STATE} cannot be read: {first_line(error)}") from error
    with blame(f"{path}: not a state of this version of transformers", TypeError, AttributeError):
        state = TrainerState(**content)
        if state.best_model_checkpoint is not None:
            # It is beside this one, whatever their folder was called when that was written.
            folder = checkpoint.parent if step_of(checkpoint) is not None else checkpoint.resolve().parent
            state.best_model_checkpoint = str(folder / PureWindowsPath(state.best_model_checkpoint).name)
        record = content.get("stateful_callbacks", {}).get(LayoutRecord.__name__, {}).get("args", {})
    random_states = list(checkpoint.glob("rng_state*.pth"))
    # torch saves zip files, whose last bytes are missing if they are cut off.
    if broken := [path.name for path in random_states if not zipfile.is_zipfile(path)]:
        raise NotWholeError(f"{broken[0]} is cut off")
    if 0 < len(random_states) < record.get("writers", 0):
        raise NotWholeError(f"{len(random_states)} of {record['writers']} processes have written there")
    try:
        read_tensors(checkpoint)
        if (checkpoint / ADAPTER_WEIGHTS).exists():
            read_header(checkpoint / ADAPTER_WEIGHTS)
    except ArgumentError as error:
        raise NotWholeError(str(error)) from error
    return SavedState(
        checkpoint,
        state,
        record.get("layout", ""),
        record.get("processes", 0),
        record.get("batch", ""),
        record.get("seconds", 0.0),
        (checkpoint / AVERAGES).exists(),
    )


def whole(checkpoint: Path) -> bool:
    """Tells whether all files of a checkpoint are whole."""
    try:
        read_state(checkpoint)
    except NotWholeError:
        return False
    return True


def set_aside(output_dir: Path, checkpoints: Sequence[Path], say: Callable) -> None:
    """Moves an earlier run's checkpoints, which would be taken for this run's later on; none is ever deleted."""
    if checkpoints:
        aside = move_aside(output_dir, checkpoints)
        say(f"moved {len(checkpoints)} checkpoints of an earlier run to {aside}")


def set_results_aside(output_dir: Path, say: Callable) -> None:
    """Moves scores of the weights before the run went on, which would be taken for those of its end."""
    if found := [path for name in (TEST_RESULTS, ATTENTION) if (path := output_dir / name).exists()]:
        aside = move_aside(output_dir, found)
        say(f"{' and '.join(path.name for path in found)} of earlier weights: moved to {aside}")


def move_aside(output_dir: Path, paths: Iterable[Path]) -> Path:
    """Moves files and folders into a new `previous-N`, with a number higher than any there is, and returns that."""
    numbers = (re.fullmatch(r"previous-([0-9]+)", name) for name in os.listdir(output_dir))
    for number in count(1 + max((int(match[1]) for match in numbers if match), default=0)):
        aside = output_dir / f"previous-{number}"
        try:
            aside.mkdir()  # which only one can
        except FileExistsError:
            continue
        break
    for path in paths:
        path.rename(aside / path.name)
    return aside


def copy_weights(checkpoint: Path, output_dir: Path) -> None:
    """
    Makes a finished run's checkpoint its result: however the model was divided, weights are saved whole, and the code
    that reads them is beside them.
    """
    of_model = ("model*.safetensors", "*.safetensors.index.json", GENERATION_CONFIG, "*_xformer.py")
    for pattern in (*of_model, "adapter_*"):
        for path in checkpoint.glob(pattern):
            write_whole(output_dir / path.name, partial(shutil.copyfile, path))


def claim(output_dir: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes configuration and tokenizer before training, so that the next start knows whose folder it is."""
    output_dir.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(output_dir)
    for config in configs_of(model):
        config.save_pretrained(output_dir)
    if hasattr(model, "peft_config"):
        save_generation_config(model, output_dir)
