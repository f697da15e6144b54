# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Judges the adapters in a checkpoint: they are all there, and of the run."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.averaging import trained
from ..checkpoints.weight_files import read_header
from ..files import WHOLE_ADAPTER
from .adapter_state import is_saved_in_part
from .file_checks import UnfinishedError, UnfitError, check_tensors, damage_named, differences, some_of


if TYPE_CHECKING:  # PEFT is an extra
    from peft import PeftConfig


def compare_adapters(model: Any, stored: dict[str, tuple[int, ...]], adapter: "PeftConfig") -> list[str]:
    """Returns the differences between stored tensors of adapters and those of the run's model, one a line."""
    from peft import get_peft_model_state_dict

    wanted = {name: tuple(each.shape) for name, each in get_peft_model_state_dict(model).items()}
    if adapter.peft_type.value == "ADALORA":  # whose ranks become smaller; `whole_checks` knows their shapes
        wanted |= {name: shape for name, shape in stored.items() if name in wanted}
    return differences(wanted, stored)


def whole_checks(checkpoint: Path, adapter: "PeftConfig", model: Any) -> Iterator[Callable[[], None]]:
    """Yields the check of what PEFT leaves out of its file, having seen that it is there and of the run's adapters."""
    if not is_saved_in_part(adapter):
        return
    path = checkpoint / WHOLE_ADAPTER
    if not path.exists():
        raise UnfinishedError(f"{path.name}: missing")
    with damage_named(path):
        if path.is_dir():
            raise IsADirectoryError
        stored = {name: each.shape for name, each in read_header(path).items() if ":" not in name}
    if problems := differences({name: tuple(each.shape) for name, each in trained(model).items()}, stored):
        raise UnfitError(f"{path.name}: not the adapters of this run: {some_of(problems)}")
    yield partial(check_tensors, path)
