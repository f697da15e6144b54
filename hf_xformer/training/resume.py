# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The output folder of a run: whose it is, where to resume, what must not be overwritten."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..checkpoints.loading import IGNORED_FIELDS
from ..checkpoints.weight_files import read_header, read_tensors
from ..errors import ArgumentError
from ..files import ADAPTER_CONFIG, AVERAGES
from .adapters import check_adapter, configs_of
from .callbacks import LayoutRecord
from .launch import WHOLE


if TYPE_CHECKING:
    from peft import LoraConfig


def find_checkpoint(output_dir: Path, resume: str | None, averages: bool, say: Callable) -> str | None:
    """
    The checkpoint to resume from: the one that is named, or the last whole one in `output_dir`, or None.

    The Trainer writes `trainer_state.json` last, so a folder without a readable one was cut off while it was saved.

    Args:
        resume: `--resume_from_checkpoint`: a folder, "false" to start anew, None or "true" to look for one.
        averages: Whether the run averages its weights, so that a checkpoint has to have those too.

    Raises:
        ArgumentError: The one that is named is not whole, or what is there was written with averages and should be
            without, or the other way.
    """
    if resume is not None and resume.lower() not in ("true", "false"):
        if not whole(Path(resume)):
            raise ArgumentError(f"--resume_from_checkpoint {resume}: not a whole checkpoint (no trainer_state.json)")
        check_averages([Path(resume)], averages)
        return resume
    checkpoints = checkpoints_of(output_dir)
    if resume is not None and resume.lower() == "false":
        if checkpoints:
            set_aside(output_dir, checkpoints, say)
        return None
    found = [checkpoint for checkpoint in checkpoints if whole(checkpoint)]
    check_averages(found, averages)
    for checkpoint in reversed(checkpoints):
        # Averages are written last.
        if checkpoint in found and (checkpoint / AVERAGES).exists() == averages:
            say(f"resuming from {checkpoint}; --resume_from_checkpoint false starts anew")
            return str(checkpoint)
        say(f"passing over {checkpoint}: it was cut off while it was being saved, or not all processes write there")
    return None


def check_averages(checkpoints: list[Path], averages: bool) -> None:
    if not checkpoints or any((checkpoint / AVERAGES).exists() == averages for checkpoint in checkpoints):
        return
    was, now = ("with", "without") if not averages else ("without", "with")
    raise ArgumentError(f"{checkpoints[-1]} was written {was} --ema_decay: it cannot go on {now} it")


def checkpoints_of(output_dir: Path) -> list[Path]:
    """In the order of their steps."""
    found = [path for path in output_dir.glob("checkpoint-*") if path.name.partition("-")[2].isdecimal()]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def whole(checkpoint: Path) -> bool:
    """Whether all processes have written their part. The Trainer waits for none of them."""
    try:
        was = read_layout(checkpoint)
    except (OSError, ValueError):
        return False
    # What torch saves is a zip file, whose end says whether it is whole.
    files = list(checkpoint.glob("rng_state*.pth"))
    if not all(map(zipfile.is_zipfile, files)):
        return False
    try:
        read_tensors(checkpoint)
        for path in checkpoint.glob("adapter_model.safetensors"):
            read_header(path)
    except ArgumentError:
        return False
    random_states = len(files)
    return not was or not 0 < random_states < was["writers"]


def read_layout(checkpoint: Path) -> dict:
    """What `LayoutRecord` left in a checkpoint; nothing in one of an earlier version."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return state.get("stateful_callbacks", {}).get(LayoutRecord.__name__, {}).get("args", {})


def check_layout(checkpoint: str, layout: str, processes: int) -> None:
    """
    Args:
        layout, processes: How this run divides weights and optimizer, and among how many processes.

    Raises:
        ArgumentError: The checkpoint was divided otherwise, so that the libraries would stop with a riddle, or
            silently begin with an empty optimizer.
    """
    was = read_layout(Path(checkpoint))
    if was and (was["layout"] != layout or (was["processes"] != processes and layout != WHOLE)):
        raise ArgumentError(
            f"{checkpoint} was written by {was['processes']} processes with {was['layout']}, this run has {processes} "
            f"with {layout}: its optimizer cannot be divided anew. Go on as it was written, or begin a new run from "
            f"its weights: --model_name_or_path {checkpoint} and another --output_dir"
        )


def set_aside(output_dir: Path, checkpoints: list[Path], say: Callable) -> None:
    """An earlier run's checkpoints would be taken for this run's later on; they are moved, never deleted."""
    number = 1 + sum(1 for path in output_dir.glob("previous-*") if path.is_dir())
    aside = output_dir / f"previous-{number}"
    aside.mkdir()
    for checkpoint in checkpoints:
        checkpoint.rename(aside / checkpoint.name)
    say(f"moved {len(checkpoints)} checkpoints of an earlier run to {aside}")


def set_results_aside(output_dir: Path, say: Callable) -> None:
    """Scores of the weights that were there before the run went on would be taken for those of its end."""
    for name in ("test_results.json", "attention.png"):
        path = output_dir / name
        if path.exists():
            path.replace(output_dir / f"previous-{name}")
            say(f"{path} is of earlier weights: it is now previous-{name}")


def refuse_another_run(
    output_dir: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, lora: "LoraConfig | None"
) -> None:
    """
    Raises:
        ArgumentError: `output_dir` holds a run of a model with another configuration, other adapters or another
            vocabulary.
    """
    if not any((output_dir / name).exists() for name in ("config.json", ADAPTER_CONFIG)):
        return
    advice = "choose another folder or remove that one"
    check_adapter(output_dir, "--output_dir", lora)
    ours = {} if lora is not None else config.to_dict()
    theirs = {} if lora is not None else type(config).from_pretrained(output_dir).to_dict()
    for name in sorted(ours.keys() - IGNORED_FIELDS):
        if theirs.get(name) != ours[name]:
            raise ArgumentError(
                f"--output_dir {output_dir}: holds a run with {name}={theirs.get(name)!r}, this one has "
                f"{ours[name]!r}; {advice}"
            )
    if AutoTokenizer.from_pretrained(output_dir).get_vocab() != tokenizer.get_vocab():
        raise ArgumentError(f"--output_dir {output_dir}: holds a run with another tokenizer; {advice}")


def copy_weights(checkpoint: str, output_dir: Path) -> None:
    """
    Makes a finished run's checkpoint its result: however the model was divided, weights are saved whole, and the code
    that reads them is beside them.
    """
    of_model = ("model*.safetensors", "*.safetensors.index.json", "generation_config.json", "*_xformer.py")
    for pattern in (*of_model, "adapter_*"):
        for path in Path(checkpoint).glob(pattern):
            shutil.copyfile(path, output_dir / path.name)


def claim(output_dir: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes configuration and tokenizer before training, so that the next start knows whose folder it is."""
    output_dir.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(output_dir)
    for config in configs_of(model):
        config.save_pretrained(output_dir)
