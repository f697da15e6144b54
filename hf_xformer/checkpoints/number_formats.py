# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Number formats of 16 bits on CPUs without instructions for them, where products take many times as long."""

import math
import time
from collections.abc import Callable
from functools import cache

import torch
from transformers import PreTrainedModel


HALVES = (torch.bfloat16, torch.float16)
# Rows of the matrices whose product is timed, and the seconds for which it is repeated.
SIZE, SECONDS = 256, 0.005
# A format counts as slow from this multiple of float32's time on: 0.5 and 30 to 60 have been seen. Between 1 and 6 it
# may still be worth its memory.
SLOW = 6.0


@cache
def slowdown(dtype: torch.dtype) -> float:
    """Returns how many times as long as in float32 a matrix product takes on this CPU; measured once."""
    return product_seconds(dtype) / product_seconds(torch.float32)


def product_seconds(dtype: torch.dtype, size: int = SIZE, seconds: float = SECONDS) -> float:
    """Returns the least time of a product of square matrices on this CPU, which is repeated for so many seconds."""
    a = torch.full((size, size), 0.5, dtype=dtype)  # drawn numbers would move the random state
    a @ a
    fastest, end = math.inf, time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        a @ a
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest


def is_slow(dtype: torch.dtype, device: torch.device) -> bool:
    """Returns whether a device is a CPU on which products in a format of 16 bits are far slower than in float32."""
    return device.type == "cpu" and dtype in HALVES and slowdown(dtype) >= SLOW


def describe_slowdown(dtype: torch.dtype) -> str:
    """Returns in words how slow a format is on this CPU."""
    return f"this CPU takes {slowdown(dtype):.0f} times as long for products in {name_of(dtype)} as in float32"


def name_of(dtype: torch.dtype) -> str:
    """Returns a format's name, such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def in_fast_format(
    model: PreTrainedModel, device: torch.device, wanted: str | torch.dtype | None, say: Callable[[str], object]
) -> PreTrainedModel:
    """
    Converts a model to float32 if its format is slow on the device and nobody asked for it, and returns it.

    Every number of 16 bits is one of float32 too, so no weight changes.

    Args:
        wanted: Type of the weights that was asked for; "auto" or None if none was.
        say: Is told that the type changes, or that it is slow.
    """
    if not is_slow(model.dtype, device):
        return model
    name, slow = name_of(model.dtype), describe_slowdown(model.dtype)
    # The library refuses to convert a model whose weights it has quantised itself.
    if wanted not in ("auto", None) or getattr(model, "is_quantized", False):
        say(f"dtype {name}: {slow}")
        return model
    say(f"{name} weights become float32: {slow}; dtype {name} keeps them")
    return model.float()
