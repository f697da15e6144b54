# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Reads what a checkpoint says of its run, `trainer_state.json`: the Trainer's state and our callbacks' records."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerState

from ..errors import blame
from ..files import TRAINER_STATE, step_of
from .callbacks import LayoutRecord
from .file_checks import NotWholeError, UnfinishedError, damage_named, is_amount, is_count


def is_history(value: Any) -> bool:
    """Returns whether a value is a list of changes of a recipe, as `Recipe` has them."""
    return isinstance(value, list) and all(
        isinstance(each, dict) and is_count(each.get("from_step")) and are_changes(each.get("changes", ...))
        for each in value
    )


def are_starts(value: Any) -> bool:
    """Returns whether a value is a list of a run's starts, as `settle_starts` returns them."""
    return isinstance(value, list) and all(
        isinstance(each, dict)
        and is_count(each.get("from_step"))
        and all(isinstance(each.get(name), dict) for name in ("versions", "hardware"))
        and isinstance(each["hardware"].get("name"), str)
        for each in value
    )


def are_changes(value: Any) -> bool:
    """Returns whether a value has, for each changed option, what it was and what it is; None if nobody knows."""
    return value is None or (
        isinstance(value, dict) and all(isinstance(each, list) and len(each) == 2 for each in value.values())
    )


# Possible values in `trainer_state.json`. A logged loss may be NaN: steps whose gradients overflow are left out.
STATE_FIELDS: dict[str, Callable[[Any], bool]] = {
    "global_step": lambda value: is_count(value) and value > 0,
    "epoch": is_amount,
    "max_steps": is_count,
    "num_train_epochs": is_count,
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), lambda value: is_amount(value) and value > 0),
    "num_input_tokens_seen": is_count,
    "total_flos": is_amount,
    "log_history": lambda value: isinstance(value, list) and all(isinstance(each, dict) for each in value),
    "best_global_step": lambda value: value is None or is_count(value),
    "best_metric": lambda value: value is None or isinstance(value, int | float),
    "best_model_checkpoint": lambda value: value is None or isinstance(value, str),
    "stateful_callbacks": lambda value: isinstance(value, dict),
}
# And in the records of our callbacks there, by their classes, of which some need this module.
RECORD_FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    LayoutRecord.__name__: {
        "layout": lambda value: isinstance(value, str),
        **dict.fromkeys(("processes", "writers", "epoch_steps"), is_count),
        "averages": lambda value: isinstance(value, bool),  # of an earlier version, which knew no `beside`
        "beside": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
        "sums": lambda value: isinstance(value, dict) and all(map(is_count, value.values())),
    },
    "RecipeRecord": {
        "recipe": lambda value: isinstance(value, dict),
        "history": is_history,
        "starts": are_starts,
    },
    "EarlyStopping": {
        "early_stopping_patience_counter": is_count,
        "score_to_beat": lambda value: value is None or isinstance(value, int | float),
    },
}


def read_trainer_state(checkpoint: Path) -> tuple[TrainerState, dict]:
    """
    Returns a checkpoint's state of the Trainer, and in it our record of the run, empty in that of an earlier version.

    Raises:
        NotWholeError: It cannot be read, or a value in it cannot be; an `UnfinishedError` if it is not there, or cut
            off: the Trainer writes it last.
        ArgumentError: Another version of the library has written it.
    """
    path = checkpoint / TRAINER_STATE
    if not path.exists() and not path.is_symlink():
        raise UnfinishedError(f"{path.name}: missing")
    with damage_named(path, RecursionError):
        text = path.read_text(encoding="utf-8")
        if not text or text.startswith("{") and not text.rstrip().endswith("}"):  # the Trainer writes it in place
            raise UnfinishedError(f"{path.name}: {'cut off' if text else 'empty'}")
        content = json.loads(text)
    if not isinstance(content, dict):
        raise NotWholeError(f"{path.name}: expected a JSON object, got {content!r:.40}")
    with blame(f"{path}: not a state of this version of transformers", TypeError, AttributeError):
        state = TrainerState(**content)
    for name, can_be in STATE_FIELDS.items():
        if not can_be(content.get(name)):
            raise NotWholeError(f"{path.name}: `{name}` cannot be {content.get(name)!r:.40}")
    if step_of(checkpoint) not in (None, state.global_step):
        raise NotWholeError(f"{path.name}: is of step {state.global_step}, not of its folder's {step_of(checkpoint)}")
    records = {name: read_record(path, content["stateful_callbacks"], name) for name in RECORD_FIELDS}
    return state, records[LayoutRecord.__name__]


def read_record(path: Path, callbacks: dict, name: str) -> dict:
    """Returns what a callback has left in a checkpoint's state, empty if it has left nothing."""
    callback: Any = callbacks.get(name, {})
    parts = [callback.get(part, {}) for part in ("args", "attributes")] if isinstance(callback, dict) else [None]
    record = {field: value for part in parts if isinstance(part, dict) for field, value in part.items()}
    is_possible = all(can_be(record[field]) for field, can_be in RECORD_FIELDS[name].items() if field in record)
    if not is_possible or not all(isinstance(part, dict) for part in parts):
        raise NotWholeError(f"{path.name}: `{name}` cannot be {callback!r:.80}")
    return record
