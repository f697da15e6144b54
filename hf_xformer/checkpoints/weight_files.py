# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What the files of a checkpoint hold, by their headers and without loading them, and what is wrong with them."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoModelForTextEncoding, PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..errors import ArgumentError


# Bytes. The format begins with the length of its header, and allows no longer one.
LENGTH_BYTES = 8
LONGEST_HEADER = 100_000_000
# By the class that a configuration names; of all others a checkpoint has an output layer.
HEADLESS = {"XformerModel": AutoModel, "XformerEncoderModel": AutoModelForTextEncoding}


@dataclass(frozen=True)
class StoredTensor:
    """What a header says of one tensor."""

    shape: tuple[int, ...]
    dtype: str  # in the format's words, such as "F32"
    bytes: int


@dataclass
class Comparison:
    """How the tensors of a checkpoint differ from those of the model that its configuration describes."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)  # with both shapes

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched)

    def sentences(self) -> Iterable[str]:
        for problem, names in vars(self).items():
            yield from (f"{problem}: {name}" for name in names)


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """
    The tensors of all weight files of a folder, by name; none where there are no safetensors.

    Raises:
        ArgumentError: A file is cut off or is no safetensors file, or the index names a file outside of the folder,
            one that is not there, or a tensor that its file does not hold. The message has the tensor's name.
    """
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if (folder / SAFE_WEIGHTS_NAME).exists() or not index.exists():
        return read_header(folder / SAFE_WEIGHTS_NAME) if (folder / SAFE_WEIGHTS_NAME).exists() else {}
    where = read_index(index)
    shards = {name: read_header(folder / name) for name in sorted(set(where.values()))}
    for tensor, name in where.items():
        if tensor not in shards[name]:
            raise ArgumentError(f"{index}: `{tensor}` should be in {name}, which does not hold it")
    return {tensor: stored for shard in shards.values() for tensor, stored in shard.items()}


def read_index(index: Path) -> dict[str, str]:
    """Which file of its folder each tensor is in."""
    try:
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        items = list(where.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArgumentError(f"{index}: not an index of weight files ({error!r:.80})") from error
    for tensor, name in items:
        # A link is fine, which is what the Hub's cache is made of; a path is not.
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ArgumentError(f"{index}: `{tensor}` is said to be in {name!r}, which is not a file of this folder")
        if not (index.parent / name).is_file():
            raise ArgumentError(f"{index}: `{tensor}` is said to be in {name}, which is not there")
    return where


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file in the safetensors format, all of whose bytes are there."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        start = LENGTH_BYTES + length
        if size < LENGTH_BYTES or length > LONGEST_HEADER or start > size:
            raise ArgumentError(f"{path}: not a safetensors file, or cut off in its header (it has {size} bytes)")
        try:
            header = json.loads(file.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            spans = {name: tuple(entry["data_offsets"]) for name, entry in tensors.items()}
            stored = {
                name: StoredTensor(tuple(entry["shape"]), entry["dtype"], spans[name][1] - spans[name][0])
                for name, entry in tensors.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ArgumentError(f"{path}: its header is not that of a safetensors file ({error!r:.80})") from error
    for name, (_, end) in sorted(spans.items(), key=lambda item: item[1]):
        if start + end > size:
            raise ArgumentError(f"{path}: cut off: `{name}` ends at byte {start + end}, the file at {size}")
    return stored


def compare(config: PreTrainedConfig, stored: dict[str, StoredTensor]) -> Comparison:
    """
    Args:
        config: Of the model that the tensors should be those of, which is built without memory.
    """
    auto_class = HEADLESS.get((config.architectures or [""])[0], AutoModelForSeq2SeqLM)
    with torch.device("meta"):
        model = auto_class.from_config(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = Comparison()
    together = tied_names(model)
    for name in expected:
        absent = name not in stored and not any(other in stored for other in together.get(name, ()))
        if absent and not is_one_of(name, model._keys_to_ignore_on_save, model._keys_to_ignore_on_load_missing):
            found.missing.append(name)
    for name, tensor in stored.items():
        if name not in expected:
            if not is_one_of(name, model._keys_to_ignore_on_load_unexpected):
                found.unexpected.append(name)
        elif tensor.shape != expected[name]:
            found.mismatched.append(f"{name} {list(tensor.shape)}, where the model has {list(expected[name])}")
    return found


def is_one_of(name: str, *lists: Iterable[str] | None) -> bool:
    """Whether a model's class says, by patterns, that it can do without a tensor or does not mind it."""
    return any(re.search(pattern, name) for patterns in lists for pattern in patterns or ())


def tied_names(model: torch.nn.Module) -> dict[str, set[str]]:
    """Of every name that is tied to others, the names that one tensor is enough for."""
    groups: dict[int, set[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), set()).add(name)
    return {name: names for names in groups.values() if len(names) > 1 for name in names}


def count_parameters(stored: dict[str, StoredTensor]) -> int:
    return sum(prod(tensor.shape) for tensor in stored.values())
