# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The library's name for the cache of keys and values: `past_key_values` up to 5.23, `cache` from 5.24 on."""

import inspect
from collections.abc import Callable
from functools import wraps

from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils.deprecation import deprecate_kwarg


# Name of the argument and of the outputs' field. Inside the forwards the variable is always `cache`.
CACHE = "cache" if "cache" in Seq2SeqLMOutput.__dataclass_fields__ else "past_key_values"


def under_its_name(forward: Callable) -> Callable:
    """Gives a forward's parameter `cache` the library's name, by which `generate` knows what it may pass."""

    @wraps(forward)
    def renamed(*args, **kwargs):
        if CACHE in kwargs:
            kwargs["cache"] = kwargs.pop(CACHE)
        return forward(*args, **kwargs)

    signature = inspect.signature(forward)
    parameters = [each.replace(name=CACHE) if each.name == "cache" else each for each in signature.parameters.values()]
    renamed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return renamed


# Decorates every forward with a parameter `cache`. From 5.24 on the old name is accepted with the library's warning.
takes_cache = deprecate_kwarg("past_key_values", "5.40.0", new_name="cache") if CACHE == "cache" else under_its_name
