# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Weight files of a checkpoint: which tensors they hold, by their headers, and whether these are the model's."""

import copy
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..errors import ArgumentError, first_line
from ..files import ADAPTER_WEIGHTS
from ..models import XformerConfig, XformerEncoderModel, XformerForSeq2SeqLM, XformerModel


LENGTH_BYTES = 8  # at the start of a safetensors file, the length of its header
# Classes without an output layer, as a configuration names them.
HEADLESS = {"XformerModel": XformerModel, "XformerEncoderModel": XformerEncoderModel}
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class StoredTensor:
    """Shape and type of one tensor, as a header gives them."""

    shape: tuple[int, ...]
    dtype: str  # as the format names it, such as "F32"

    @property
    def bytes(self) -> int:
        bits = re.search(r"\d+", self.dtype)
        return prod(self.shape) * (int(bits[0]) if bits else 8) // 8  # "BOOL" alone has no number


@dataclass
class Comparison:
    """Differences between a checkpoint's tensors and those of the model that its configuration describes."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)  # with both shapes
    mistyped: list[str] = field(default_factory=list)  # with both types

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def sentences(self) -> Iterable[str]:
        """Yields one line for each tensor that differs."""
        for problem, names in vars(self).items():
            yield from (f"{problem}: {name}" for name in names)


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """
    Returns the tensors of all weight files of a folder, by name; none if there are no safetensors.

    Raises:
        ArgumentError: A file is cut off or is not a safetensors file, or the index names a file outside the folder,
            one that is not there, or a tensor that its file does not hold. The message has the tensor's name.
    """
    if (single := folder / SAFE_WEIGHTS_NAME).exists():
        return read_header(single)
    return read_shards(folder) if is_sharded(folder) else {}


def is_sharded(folder: Path) -> bool:
    """Returns True if a folder's weights are in several files, which an index names."""
    return (folder / SAFE_WEIGHTS_INDEX_NAME).exists() and not (folder / SAFE_WEIGHTS_NAME).exists()


def check_finite(folder: Path) -> None:
    """
    Reads every tensor of a folder's weight files, one at a time, and sees that its numbers are finite.

    Raises:
        ArgumentError: One is infinite or not a number; the message has the tensor's name.
    """
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dictionary
                check_finite_tensor(path, name, file.get_tensor(name))


def check_finite_tensor(where: str | Path, name: str, tensor: torch.Tensor) -> None:
    """Raises ArgumentError, which begins with `where`, if a number of this tensor is not finite."""
    tensor = getattr(tensor, "to_local", lambda: tensor)()  # of a divided one this process's part
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return
    if tensor.element_size() == 1:
        tensor = tensor.float()
    if not finite_sum(tensor).isfinite() and (wrong := int((~tensor.isfinite()).sum())):
        raise ArgumentError(
            f"{where}: `{name}` is not finite: {wrong:,} of its {tensor.numel():,} numbers are infinite or NaN. A "
            "training went wrong: take an earlier checkpoint"
        )


def finite_sum(tensor: torch.Tensor) -> torch.Tensor:
    """
    Returns the sum of a tensor's numbers, without waiting for a device: infinite or NaN if any of them is.

    On a CPU it takes a hundredth of the time of their largest, or of `isfinite`. It is infinite too if the numbers add
    up to more than a float32 holds.
    """
    return tensor.detach().sum(dtype=torch.promote_types(tensor.dtype, torch.float32))


def weight_files(folder: Path) -> Iterator[Path]:
    """Yields the paths of the safetensors files that hold a folder's weights, an adapter's included."""
    for path in (folder / SAFE_WEIGHTS_NAME, folder / ADAPTER_WEIGHTS):
        if path.exists():
            yield path
    if is_sharded(folder):
        yield from sorted({folder / name for name in read_index(folder / SAFE_WEIGHTS_INDEX_NAME).values()})


def read_shards(folder: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of several weight files, having checked their index; raises as `read_tensors` does."""
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    where = read_index(index)
    shards = {name: read_header(folder / name) for name in sorted(set(where.values()))}
    for tensor, name in where.items():
        if tensor not in shards[name]:
            raise ArgumentError(f"{index}: `{tensor}` should be in {name}, which does not hold it")
    for name, shard in shards.items():
        for tensor in shard:
            if where.get(tensor) != name:  # the library reads whole files, and the last of two wins
                place = f"should be in {where[tensor]}" if tensor in where else "is not named"
                raise ArgumentError(f"{index}: `{tensor}` {place}, but {name} holds it")
    return {tensor: stored for shard in shards.values() for tensor, stored in shard.items()}


def read_index(index: Path) -> dict[str, str]:
    """Returns the name of the file that each tensor is in; raises as `read_tensors` does."""
    try:
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        items = list(where.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArgumentError(f"{index}: not an index of weight files ({error!r:.80})") from error
    for tensor, name in items:
        # A link is fine: the Hub's cache is made of them. A path is not.
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ArgumentError(f"{index}: `{tensor}` is said to be in {name!r}, which is not a file of this folder")
        if not (index.parent / name).is_file():
            raise ArgumentError(f"{index}: `{tensor}` is said to be in {name}, which is not there")
    return where


def read_header(path: Path) -> dict[str, StoredTensor]:
    """
    Returns the tensors of one safetensors file, by name, without reading their values.

    Raises:
        ArgumentError: The file is cut off or is not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
            return {name: StoredTensor(tuple(each.get_shape()), each.get_dtype()) for name, each in slices.items()}
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size if path.is_file() else 0
        tensor, end = first_cut_off(path, size)
        if tensor:
            raise ArgumentError(f"{path}: cut off: `{tensor}` ends at byte {end}, the file at {size}") from error
        raise ArgumentError(
            f"{path}: not a safetensors file, or cut off in its header (it has {size} bytes): {first_line(error)}"
        ) from error


def first_cut_off(path: Path, size: int) -> tuple[str, int]:
    """Returns the first tensor that goes beyond a file's end, and where it would end; `("", 0)` if none is known."""
    with suppress(Exception):  # the file is broken already: whatever its bytes do to a reader, nothing more is known
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            header = json.loads(file.read(min(length, size)))
        ends = {
            name: LENGTH_BYTES + length + entry["data_offsets"][1]
            for name, entry in header.items()
            if name != "__metadata__"
        }
        return min(((name, end) for name, end in ends.items() if end > size), key=lambda each: each[1])
    return "", 0


def compare(config: PreTrainedConfig, stored: dict[str, StoredTensor], trust_remote_code: bool = False) -> Comparison:
    """Compares stored tensors with those of the model that a configuration describes, built without memory."""
    return compare_model(build_without_memory(config, trust_remote_code), stored)


def compare_model(model: PreTrainedModel, stored: dict[str, StoredTensor]) -> Comparison:
    """Compares stored tensors with a model's, which may be without memory."""
    config, tensors = model.config, model.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
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
    weights = {name: stored[name] for name, tensor in tensors.items() if name in stored and tensor.is_floating_point()}
    found.mistyped = mistyped(config, weights)
    return found


def build_without_memory(config: PreTrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    """Returns the model that a configuration describes, on the device that holds no numbers."""
    with torch.device("meta"):
        if not isinstance(config, XformerConfig):
            return AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=trust_remote_code)
        config = copy.deepcopy(config)
        config._attn_implementation = "eager"  # which every machine has
        # Not through the Auto class, where DeepSpeed ZeRO-3 would divide it.
        return HEADLESS.get((config.architectures or [""])[0], XformerForSeq2SeqLM)(config)


def model_class(config: Any, trust_remote_code: bool) -> Any:
    """
    Returns the class of a configuration's model, for who must not build through `from_config`: ZeRO-3 divides there.

    Raises:
        ArgumentError: There is none in the library, nor code beside the configuration that may run.
    """
    if type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        return MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING[type(config)]
    code = (getattr(config, "auto_map", None) or {}).get(AutoModelForSeq2SeqLM.__name__)
    if code is None or not trust_remote_code:
        raise ArgumentError(
            f"{config.name_or_path}: the library has no sequence-to-sequence model of type {config.model_type!r}"
        )
    return get_class_from_dynamic_module(code, config.name_or_path)


def mistyped(config: PreTrainedConfig, stored: dict[str, StoredTensor]) -> list[str]:
    """
    Returns the weights of another type than `dtype` in the configuration, each with both; loading would convert them.

    A model that is not ours may keep some in another precision.
    """
    floats = [tensor.dtype for tensor in stored.values() if tensor.dtype in FLOATS]
    wanted = config.dtype if isinstance(config, XformerConfig) else None
    if isinstance(wanted, str):
        wanted = getattr(torch, wanted)
    if wanted is None:
        wanted = FLOATS[floats[0]] if floats else torch.float32
    own = isinstance(config, XformerConfig)
    return [
        f"{name} {tensor.dtype}, where the model has {str(wanted).removeprefix('torch.')}"
        for name, tensor in stored.items()
        if tensor.dtype not in FLOATS or own and FLOATS[tensor.dtype] != wanted
    ]


def is_one_of(name: str, *lists: Iterable[str] | None) -> bool:
    """Returns True if a tensor's name matches a pattern by which a model's class allows it to be missing or extra."""
    return any(re.search(pattern, name) for patterns in lists for pattern in patterns or ())


def tied_names(model: torch.nn.Module) -> dict[str, set[str]]:
    """Returns, for every tensor that is tied to others, the names of all of them; one stored tensor is enough."""
    groups: dict[int, set[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), set()).add(name)
    return {name: names for names in groups.values() if len(names) > 1 for name in names}


def is_tied_as_configured(model: PreTrainedModel) -> bool:
    """
    Returns whether all weights that a model's configuration ties are one.

    T5 1.1, mT5 and UMT5 have an output layer of their own, and transformers ignores that their configuration says so.
    """
    tensors = dict(model.named_parameters(remove_duplicate=False))
    pairs = model.get_expanded_tied_weights_keys(all_submodels=True)
    return all(tensors.get(a) is tensors.get(b) for a, b in pairs.items())


def count_parameters(stored: dict[str, StoredTensor]) -> int:
    """Returns the number of elements in all tensors."""
    return sum(prod(tensor.shape) for tensor in stored.values())
