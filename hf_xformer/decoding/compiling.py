# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Compiled decoding: which models and options have it, and what else is refused by name."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from ..errors import ArgumentError
from ..models import XformerForSeq2SeqLM, why_not_compiled_on


# Options of `generate()` that make a step one that no graph computes.
OTHER_STEPS = (
    "assistant_model",
    "prompt_lookup_num_tokens",
    "assistant_early_exit",
    "output_attentions",
    "output_hidden_states",
    "prefill_chunk_size",
    "custom_generate",
)


def check_compiling(device: str | torch.device, options: Mapping[str, Any]) -> None:
    """
    Checks, before a model is loaded, that its decoding can be compiled.

    Args:
        device: Where it will be. options: Those of `generate()`.

    Raises:
        ArgumentError: The machine cannot compile for the device, or an option does not go with it.
    """
    if (reason := why_not_compiled_on(torch.device(device))) is not None:
        raise ArgumentError(f"compile: {reason}")
    for name in OTHER_STEPS:
        if options.get(name):
            raise ArgumentError(f"{name} does not go with compile: leave one of them out")
    if options.get("cache_implementation") not in (None, "static"):
        raise ArgumentError(
            f"cache_implementation {options['cache_implementation']} does not go with compile, which has a static one"
        )
    if options.get("use_cache") is False or options.get("disable_compile"):
        name = "disable_compile" if options.get("disable_compile") else "use_cache=False"
        raise ArgumentError(f"{name} does not go with compile: leave one of them out")


def compiled(model: PreTrainedModel, config: GenerationConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    Returns the options with which `generate()` compiles its steps.

    Args:
        config: The one that `generate()` will go by. options: Those that were given.

    Raises:
        ArgumentError: The decoding of this model, or with one of its own options, cannot be compiled.
    """
    check_compiling(model.device, {**{name: getattr(config, name, None) for name in OTHER_STEPS}, **options})
    adapted: Any = model
    own = adapted.get_base_model() if hasattr(model, "get_base_model") else model  # of PEFT's
    if not isinstance(own, XformerForSeq2SeqLM):
        raise ArgumentError(f"compile is for models of this package: {type(model).__name__} is none, leave it out")
    if (reason := own.why_not_compiled()) is not None:
        raise ArgumentError(f"compile: {reason}")
    return {"cache_implementation": "static", "disable_compile": False}
