# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters in checkpoints: finding, loading and merging them (Hu et al. 2021), with PEFT."""

import json
import warnings
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import (
    GenerationConfig,
    PreTrainedModel,
)
from transformers.utils import find_adapter_config_file

from ..errors import ArgumentError, first_line
from ..files import ADAPTER_CONFIG


if TYPE_CHECKING:  # PEFT is an extra
    from peft import PeftModel


def check_peft(wanted: str) -> None:
    """
    Args:
        wanted: What needs it, for the message.

    Raises:
        ArgumentError: PEFT is not installed.
    """
    if find_spec("peft") is None:
        raise ArgumentError(f"{wanted} needs PEFT: pip install 'hf-xformer[peft]'")


def base_of(name_or_path: str, **hub) -> str | None:
    """
    The model that an adapter's folder or Hub name belongs to; None of what is no adapter.

    Args:
        hub: As `from_pretrained` has them, such as `revision`.

    Raises:
        ArgumentError: The folder holds a whole model too, or does not say which model it belongs to.
    """
    try:
        found = find_adapter_config_file(name_or_path, **hub)
    except OSError:
        found = None  # neither a folder nor a possible Hub name: whoever loads it says so
    if found is None:
        return None
    if Path(name_or_path, "config.json").exists():
        raise ArgumentError(f"{name_or_path}: holds both a model and an adapter: move one of them elsewhere")
    base = json.loads(Path(found).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ArgumentError(f"{name_or_path}: {ADAPTER_CONFIG} does not say which model it is an adapter of")
    return base


def load_adapter(model: PreTrainedModel, name_or_path: str, **hub) -> "PeftModel":
    """
    The model with an adapter from a folder or the Hub, frozen, and the generation config that lies beside the adapter.

    Raises:
        ArgumentError: There is no such adapter, it does not fit, or a weight of it is missing. PEFT would leave a
            missing one at random.
    """
    from peft import PeftConfig, get_peft_model

    try:
        config = PeftConfig.from_pretrained(name_or_path, **hub)
        config.inference_mode = True
        adapted = get_peft_model(model, config)
    except Exception as error:  # of a dozen types, as those of models are
        raise ArgumentError(f"{name_or_path}: cannot load an adapter: {first_line(error)}") from error
    load_weights(adapted, name_or_path, **hub)
    with suppress(OSError):  # of PEFT's own adapters, which have none
        model.generation_config = GenerationConfig.from_pretrained(name_or_path, **hub)
    return adapted.eval()


def load_weights(adapted: "PeftModel", name_or_path: str, **hub) -> None:
    """
    Puts an adapter's weights in their places.

    Raises:
        ArgumentError: There are none, or one is missing, unexpected or of another shape.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from peft.utils import load_peft_weights

    try:
        weights = load_peft_weights(name_or_path, device="cpu", **hub)
    except Exception as error:
        raise ArgumentError(f"{name_or_path}: cannot load an adapter: {first_line(error)}") from error
    own = get_peft_model_state_dict(adapted)
    problems = {
        "missing": own.keys() - weights.keys(),
        "unexpected": weights.keys() - own.keys(),
        "mismatched": {name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape},
    }
    for problem, names in problems.items():
        if names:
            some = ", ".join(sorted(names)[:3])
            raise ArgumentError(f"{name_or_path}: {len(names)} {problem} weights of the adapter, such as {some}")
    set_peft_model_state_dict(adapted, weights)


def merge_adapter(adapted: "PreTrainedModel | PeftModel", name_or_path: str) -> PreTrainedModel:
    """
    A model with what its adapters add in its own weights.

    Raises:
        ArgumentError: It has no adapters, or such as cannot be put into weights.
    """
    merge = getattr(adapted, "merge_and_unload", None)
    if merge is None:
        raise ArgumentError(f"{name_or_path}: not an adapter that can be merged")
    tied = adapted.config.tie_word_embeddings
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
        merged = merge(safe_merge=True)
    # PEFT calls every model untied whose source has an embedding of its own, and knows of no embedding for each stack.
    if hasattr(merged, "match_config_to_embeddings"):
        merged.match_config_to_embeddings()
    elif all(merged.get_parameter(a) is merged.get_parameter(b) for a, b in merged.all_tied_weights_keys.items()):
        merged.config.tie_word_embeddings = tied
    return merged
