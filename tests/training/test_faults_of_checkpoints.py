# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
A table of faults of a checkpoint: each is passed over with one line, refused in one line, or changes no bit of the end.

The judgement is tried on every fault, and some are trained through to the end, to show that the Trainer takes up what
was judged.
"""

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import SMALL, refused, weights

from hf_xformer.commands import train
from hf_xformer.errors import ArgumentError
from hf_xformer.training.checkpoint_files import Needs
from hf_xformer.training.resume import find_start


# With dropout, the end has the same bits only if the random states are restored too.
OPTIONS = {
    "config_overrides": SMALL.replace("dropout=0.0", "dropout=0.2"),
    "save_strategy": "steps",
    "save_steps": 2,
    "ema_decay": 0.5,
}


@dataclass(frozen=True)
class Stopped:
    """A run of six steps as if it had been stopped in its fifth, with checkpoints of the second and the fourth."""

    folder: Path
    end: torch.Tensor
    needs: Needs

    def copy(self, folder: Path) -> Path:
        """Copies the run, and returns its last checkpoint."""
        shutil.copytree(self.folder, folder)
        return folder / "checkpoint-4"


@pytest.fixture(scope="module")
def stopped(task, tmp_path_factory) -> Stopped:
    folder, made = tmp_path_factory.mktemp("stopped") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        make = train.make_trainer
        patch.setattr(train, "make_trainer", lambda run, *args: made.append(run) or make(run, *args))
        train.main(task.options(folder, **OPTIONS))
    end = weights(folder)
    shutil.rmtree(folder / "checkpoint-6")
    for path in folder.glob("*.safetensors"):
        path.unlink()
    return Stopped(folder, end, made[0].needs)


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scramble(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flip(path: Path) -> None:
    """Changes one bit in the middle of the longest part of one of torch's files, which are zip files."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as parts:
        longest = parts.read(max(parts.infolist(), key=lambda each: each.file_size))
    content[content.index(longest) + len(longest) // 2] ^= 64
    path.write_bytes(content)


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write(path: Path, text: str) -> None:
    path.write_text(text)


def edit_tensors(path: Path, edit: Callable[[dict], None]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, {"format": "pt"})


def set_first(value: float, tensors: dict) -> None:
    next(iter(tensors.values())).view(-1)[0] = value


def rename_first(tensors: dict) -> None:
    name = next(iter(tensors))
    tensors[f"{name}.other"] = tensors.pop(name)


def widen_first(tensors: dict) -> None:
    name = next(iter(tensors))
    tensors[name] = torch.cat([tensors[name]] * 2).clone()


def edit_saved(path: Path, edit: Callable[[dict], None]) -> None:
    content = torch.load(path, weights_only=False)
    edit(content)
    torch.save(content, path)


def set_state(key: str, value: float, content: dict) -> None:
    content["state"][0][key].view(-1)[0] = value


def of_another_model(content: dict) -> None:
    for name, each in content["state"][0].items():
        if each.dim():
            content["state"][0][name] = torch.zeros(3, 5)


def of_another_optimizer(content: dict) -> None:
    content["state"] = {number: {"momentum_buffer": each["exp_avg"]} for number, each in content["state"].items()}


def forget(key: str, content: dict) -> None:
    del content[key]


def drop_weight(content: dict) -> None:
    content["param_groups"][0]["params"].pop()


STATE, WEIGHTS, OPTIMIZER = "trainer_state.json", "model.safetensors", "optimizer.pt"
SCHEDULE, RANDOM, AVERAGES = "scheduler.pt", "rng_state.pth", "averages.safetensors"
FILES = (STATE, WEIGHTS, OPTIMIZER, SCHEDULE, RANDOM, AVERAGES, "config.json", "generation_config.json")
# Name of the file, and what is done to it.
PASSED_OVER: dict[str, tuple[str, Callable[[Path], None]]] = {
    f"{name}: {fault.__name__}": (name, fault)
    for name in FILES
    for fault in (delete, empty, halve, scramble, make_folder)
} | {f"{name}: flip": (name, flip) for name in (OPTIMIZER, SCHEDULE, RANDOM)}
CONTENTS: list[tuple[str, str, Callable[[Path], None]]] = [
    *((STATE, text, partial(write, text=text)) for text in ("null", "[]", "{}", "4", '"text"', "{" * 50_000)),
    (STATE, "step as text", partial(edit_json, global_step="4")),
    (STATE, "step NaN", partial(edit_json, global_step=float("nan"))),
    (STATE, "step negative", partial(edit_json, global_step=-4)),
    (STATE, "step true", partial(edit_json, global_step=True)),
    (STATE, "step of another folder", partial(edit_json, global_step=2)),
    (STATE, "epoch null", partial(edit_json, epoch=None)),
    (STATE, "epoch infinite", partial(edit_json, epoch=float("inf"))),
    (STATE, "log null", partial(edit_json, log_history=None)),
    (STATE, "log of numbers", partial(edit_json, log_history=[1, 2])),
    (STATE, "save_steps 0", partial(edit_json, save_steps=0)),
    (STATE, "best a list", partial(edit_json, best_model_checkpoint=["checkpoint-2"])),
    (STATE, "callbacks null", partial(edit_json, stateful_callbacks=None)),
    (STATE, "record a list", partial(edit_json, stateful_callbacks={"LayoutRecord": {"args": []}})),
    (STATE, "writers text", partial(edit_json, stateful_callbacks={"LayoutRecord": {"args": {"writers": "1"}}})),
    *(
        (name, kind, partial(edit_tensors, edit=edit))
        for name in (WEIGHTS, AVERAGES)
        for kind, edit in (
            ("NaN", partial(set_first, float("nan"))),
            ("infinity", partial(set_first, float("-inf"))),
            ("another name", rename_first),
            ("another shape", widen_first),
            ("no tensors", dict.clear),
        )
    ),
    (OPTIMIZER, "NaN", partial(edit_saved, edit=partial(set_state, "exp_avg", float("nan")))),
    (OPTIMIZER, "infinity", partial(edit_saved, edit=partial(set_state, "exp_avg_sq", float("inf")))),
    (OPTIMIZER, "another model", partial(edit_saved, edit=of_another_model)),
    (OPTIMIZER, "another optimizer", partial(edit_saved, edit=of_another_optimizer)),
    (OPTIMIZER, "a weight fewer", partial(edit_saved, edit=drop_weight)),
    (OPTIMIZER, "no state", partial(edit_saved, edit=partial(forget, "state"))),
    (OPTIMIZER, "a tensor", lambda path: torch.save(torch.ones(3), path)),
    (SCHEDULE, "empty mapping", lambda path: torch.save({}, path)),
    (SCHEDULE, "a pickle", lambda path: torch.save({"last_epoch": Path("x")}, path)),
    (RANDOM, "no generator", partial(edit_saved, edit=partial(forget, "cpu"))),
    (RANDOM, "another state", partial(edit_saved, edit=lambda content: content.update(cpu=torch.zeros(3)))),
    ("config.json", "{}", partial(write, text="{}")),
    ("config.json", "another type", partial(edit_json, model_type="unheard")),
    ("config.json", "impossible", partial(edit_json, d_model=-16)),
    ("generation_config.json", "[]", partial(write, text="[]")),
]
PASSED_OVER |= {f"{name}: {kind[:20]}": (name, fault) for name, kind, fault in CONTENTS}


def begin(folder: Path, needs: Needs, resume: str | None = None) -> tuple[Path | None, list[str]]:
    """The checkpoint that a run would go on from, and what it says."""
    said: list[str] = []
    start = find_start(folder, resume, needs, said.append)
    return start.state and start.state.checkpoint, said


@pytest.mark.parametrize(("name", "fault"), PASSED_OVER.values(), ids=PASSED_OVER)
def test_a_checkpoint_with_a_fault_is_passed_over_or_refused_by_name_in_one_line(name, fault, stopped, tmp_path):
    checkpoint = stopped.copy(tmp_path / "run")
    fault(checkpoint / name)
    found, said = begin(tmp_path / "run", stopped.needs)
    assert found == tmp_path / "run/checkpoint-2"
    passed, resuming = said
    file = "" if name == AVERAGES and fault is delete else name
    assert passed.startswith(f"passing over {checkpoint}: {file}") and "\n" not in passed
    assert resuming.startswith(f"resuming from {found}")
    with pytest.raises(ArgumentError) as error:
        begin(tmp_path / "run", stopped.needs, str(checkpoint))
    line = str(error.value)
    assert line.startswith(f"--resume_from_checkpoint {checkpoint}: {file}") and "leave the option out" in line
    assert "\n" not in line and len(line) < 400
