# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Number formats of 16 bits on CPUs without instructions for them, where products take many times as long."""

import math
import time
from collections.abc import Callable
from functools import cache

import torch
from transformers import PreTrainedModel


# Square matrices of this size are multiplied so often, and the fastest time counts.
SIZE, TIMES = 128, 3
# A format counts as slow from this multiple of float32's time on. Processors have been seen at 0.5 and at 30.
SLOW = 6.0


@cache
def slowdown(dtype: torch.dtype) -> float:
    """Returns how many times as long as in float32 a matrix product takes on this CPU; measured once."""
    return product_seconds(dtype) / product_seconds(torch.float32)


def product_seconds(dtype: torch.dtype) -> float:
    """Returns the seconds of a matrix product on this CPU."""
    a = torch.full((SIZE, SIZE), 0.5, dtype=dtype)  # drawn numbers would move the random state
    a @ a
    fastest = math.inf
    for _ in range(TIMES):
        begin = time.perf_counter()
        a @ a
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest


def is_slow(dtype: torch.dtype, device: torch.device) -> bool:
    """Returns whether a device is a CPU on which products in a format of 16 bits are far slower than in float32."""
    return device.type == "cpu" and dtype in (torch.bfloat16, torch.float16) and slowdown(dtype) >= SLOW


def describe_slowdown(dtype: torch.dtype) -> str:
    """Returns in words how slow a format is on this CPU."""
    return f"this CPU takes {slowdown(dtype):.0f} times as long for {name_of(dtype)} as for float32"


def name_of(dtype: torch.dtype) -> str:
    """Returns a format's name, such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def in_fast_format(
    model: PreTrainedModel, device: torch.device, wanted: str | torch.dtype, say: Callable[[str], object]
) -> PreTrainedModel:
    """
    Returns a model that is about to decode on a device: in float32, if its own format is slow there and was not asked
    for. Every number of 16 bits is one of float32 too, so no weight changes.

    Args:
        wanted: Type of the weights that was asked for; "auto" if none was.
        say: Is told that the type changes, or that it is slow.
    """
    if not is_slow(model.dtype, device):
        return model
    name, slow = name_of(model.dtype), describe_slowdown(model.dtype)
    if wanted != "auto":
        say(f"dtype {name}: {slow}")
        return model
    say(f"the weights are {name}, and {slow}: they become float32, unless dtype is {name}")
    return model.float()
