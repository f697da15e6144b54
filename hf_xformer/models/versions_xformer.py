# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
All that differs among versions of transformers, found by probes and not by their numbers; a warning outside of them.

Every checkpoint carries this file into later releases, where no installer has compared versions.
"""

import inspect
import re
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, masking_utils
from transformers.utils import logging


logger = logging.get_logger(__name__)

# The oldest and the newest minor release that this code was tested with.
TESTED = {"transformers": ("5.18", "5.24"), "torch": ("2.11", "2.14")}


def minor(version: str) -> tuple[int, ...]:
    """Returns the first two numbers of a version: (5, 24) of "5.24.1"."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def untested(installed: dict[str, str]) -> str:
    """
    Returns a line on the libraries that are outside `TESTED`, and what to do; "" if none is.

    Args:
        installed: Versions by the libraries' names.
    """
    outside = {
        name: (oldest, newest)
        for name, (oldest, newest) in TESTED.items()
        if not minor(oldest) <= minor(installed[name]) <= minor(newest)
    }
    if not outside:
        return ""
    here = " and ".join(f"{name} {installed[name]}" for name in outside)
    tested = " and ".join(f"{name} {oldest} to {newest}" for name, (oldest, newest) in outside.items())
    install = " ".join(f"'{name}=={newest}.*'" for name, (_, newest) in outside.items())
    return f"hf-xformer's models were tested with {tested}, not with {here}; if anything fails: pip install {install}"


def warn_untested() -> None:
    """Warns once in a process of libraries that are outside `TESTED`."""
    if line := untested({"transformers": transformers.__version__, "torch": torch.__version__}):
        logger.warning_once(line)


try:
    from transformers.initialization import copy_  # noqa: F401 - among the names that the models need, the youngest
    from transformers.masking_utils import create_chunked_causal_mask
    from transformers.modeling_layers import GradientCheckpointingLayer
    from transformers.modeling_outputs import Seq2SeqLMOutput
    from transformers.utils.deprecation import deprecate_kwarg
    from transformers.utils.output_capturing import OutputRecorder
except ImportError as error:
    line = untested({"transformers": transformers.__version__, "torch": torch.__version__})
    raise ImportError(f"{line} ({error})") from error

try:
    from transformers.modeling_utils import slice_logits_to_keep
except ImportError:  # up to 5.20

    def slice_logits_to_keep(hidden_states: torch.Tensor, logits_to_keep: int | torch.Tensor) -> torch.Tensor:
        """Keeps the last so many positions of (B, T, D), or those in a tensor; 0 for all."""
        index = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return hidden_states[:, index]


CHUNKS_TAKE = inspect.signature(create_chunked_causal_mask).parameters


def create_masks_for_generate(config: PreTrainedConfig, **options) -> Any:
    """Returns the masks of a decoder with a static cache, by the patterns of its layers."""
    if "block_sequence_ids" in CHUNKS_TAKE:
        return masking_utils.create_masks_for_generate(config=config, **options)
    # Up to 5.19 the library's own gives chunks that argument, which they do not take.
    given = {name: value for name, value in options.items() if name in CHUNKS_TAKE}
    makers = masking_utils.LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING
    return {pattern: makers[pattern](config=config, **given) for pattern in set(config.layer_types)}


# Name of the argument and of the outputs' field, `cache` from 5.24 on. Inside the forwards it is `cache` always.
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


def under_both_names(forward: Callable) -> Callable:
    """
    Accepts the old name with the library's warning, and beside the new one as PEFT's prefix tuning gives it.

    To every step of `generate`, which comes with its own cache, that adds one that holds the prefix alone. The library
    would go by the first, and forget the prefix: it is what decoding begins with.
    """
    renamed = deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")(forward)

    @wraps(forward)
    def with_prefix(*args, **kwargs):
        cache, prefix = kwargs.get("cache"), kwargs.get("past_key_values")
        if cache is not None and prefix is not None:
            if cache.is_compileable:
                raise ValueError("a prefix does not fit a static cache: leave `cache_implementation` out")
            kwargs["cache"] = cache if cache.get_seq_length() else prefix
            del kwargs["past_key_values"]
        return renamed(*args, **kwargs)

    # For models outside of the library `generate` asks for it at every token.
    with_prefix.__signature__ = inspect.signature(renamed)  # type: ignore[attr-defined]
    return with_prefix


# Decorates every forward with a parameter `cache`.
takes_cache = under_both_names if CACHE == "cache" else under_its_name


def recorder_of_layers(layer: type[nn.Module], depth: str) -> OutputRecorder:
    """
    Records the hidden states of a stack.

    Args:
        depth: The config's field for the number of layers. Up to 5.22 nobody can choose hidden states by number.
    """
    is_known = "num_hidden_layers_key" in OutputRecorder.__dataclass_fields__
    options: dict[str, Any] = {"num_hidden_layers_key": depth} if is_known else {}
    return OutputRecorder(layer, **options)


class CheckpointedLayer(GradientCheckpointingLayer):
    """
    A layer that the backward pass computes anew, where it is asked for, instead of keeping what it has computed.

    Without gradients there is no such pass. Up to 5.23 the library drops the cache of a checkpointed layer all the
    same, and `generate` needs it.
    """

    is_checkpointed = False

    @property  # type: ignore[override]
    def gradient_checkpointing(self) -> bool:
        return self.is_checkpointed and torch.is_grad_enabled()

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        self.is_checkpointed = value


def is_divided(model: nn.Module) -> bool:
    """Returns whether `from_pretrained(distributed_config=...)` has given each process a part of the model."""
    divided = getattr(model, "is_distributed_loading_by_transformers", None)
    if divided is None:  # up to 5.18
        return getattr(model, "tp_size", None) is not None
    return bool(divided)
