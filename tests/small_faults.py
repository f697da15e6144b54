# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Ways to damage the files of a checkpoint."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


# Records of our callbacks, in the state of a run that was otherwise whole.
DAMAGED_RECORDS: dict[str, dict] = {
    "recipe record text": {"RecipeRecord": "x"},
    "recipe a list": {"RecipeRecord": {"args": {"recipe": [], "history": []}}},
    "recipe null": {"RecipeRecord": {"args": {"recipe": None, "history": []}}},
    **{
        f"history {kind}": {"RecipeRecord": {"args": {"recipe": {}, "history": history}}}
        for kind, history in {
            "null": None,
            "of numbers": [1],
            "of nothing": [{}],
            "without changes": [{"from_step": 2}],
            "from text": [{"from_step": "2", "changes": {}}],
            "of a list": [{"from_step": 2, "changes": [1]}],
            "of one value": [{"from_step": 2, "changes": {"seed": [1]}}],
            "of a number": [{"from_step": 2, "changes": {"seed": 1}}],
        }.items()
    },
    **{
        f"starts {kind}": {"RecipeRecord": {"args": {"recipe": {}, "history": [], "starts": starts}}}
        for kind, starts in {
            "null": None,
            "of numbers": [1],
            "without hardware": [{"from_step": 1, "versions": {}}],
            "of nameless hardware": [{"from_step": 1, "versions": {}, "hardware": {}}],
        }.items()
    },
    "record a list": {"LayoutRecord": {"args": []}},
    "beside text": {"LayoutRecord": {"args": {"beside": "averages"}}},
    "writers text": {"LayoutRecord": {"args": {"writers": "1"}}},
    "sums text": {"LayoutRecord": {"attributes": {"sums": "1"}}},
    "stopping a list": {"EarlyStopping": []},
    "stopping part text": {"EarlyStopping": {"attributes": "x"}},
    "counter text": {"EarlyStopping": {"attributes": {"early_stopping_patience_counter": "2"}}},
    "score text": {"EarlyStopping": {"attributes": {"score_to_beat": "2"}}},
    "counter null": {"EarlyStopping": {"attributes": {"early_stopping_patience_counter": None}}},
}


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


def lacks(name: str, checkpoint: Path) -> None:
    """
    Has a checkpoint's record tell of what a kill has kept from being written.

    The Trainer knows nothing of these files: the tokenizer of targets, or how adapters decode.
    """
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    state["stateful_callbacks"]["LayoutRecord"]["args"]["beside"].append(name)
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
