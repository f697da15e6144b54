# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Finds, loads and merges adapters, with PEFT."""

import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel
from transformers.utils import find_adapter_config_file, logging

from ..errors import ArgumentError, blame, first_line
from ..files import ADAPTER_CONFIG, CONFIG, read_json
from .foreign_code import ADAPTERS, say_unsafe
from .weight_files import check_finite_tensor


if TYPE_CHECKING:  # PEFT is an extra
    from peft import PeftModel


logger = logging.get_logger(__name__)

PREFIX = "base_model.model."  # of the model's own weights in an adapter's file
# PEFT's kinds that a run can train, and their names for people.
KINDS = {
    "LORA": "LoRA",
    "ADALORA": "AdaLoRA",
    "IA3": "IA3",
    "PREFIX_TUNING": "prefix tuning",
    "PROMPT_TUNING": "prompt tuning",
    "P_TUNING": "P-tuning",
}
MERGEABLE = ("LORA", "ADALORA", "IA3")


def check_peft(wanted: str) -> None:
    """
    Checks that PEFT is there.

    Args:
        wanted: The option or the file that needs it, for the message.

    Raises:
        ArgumentError: PEFT is not installed.
    """
    if find_spec("peft") is None:
        raise ArgumentError(f"{wanted} needs PEFT: pip install 'hf-xformer[peft]'")


def base_of(name_or_path: str, **hub) -> str | None:
    """
    Returns the folder or Hub name of the model that an adapter belongs to; None if it is not an adapter.

    Args:
        hub: As `from_pretrained` takes them, such as `revision`.

    Raises:
        ArgumentError: The folder holds a whole model too, or its configuration does not name the adapter's model.
    """
    try:
        found = find_adapter_config_file(name_or_path, **hub)
    except OSError:
        found = None  # neither a folder nor a possible Hub name: loading it says so
    if found is None:
        return None
    if Path(name_or_path, CONFIG).exists():
        raise ArgumentError(f"{name_or_path}: holds both a model and an adapter: move one of them elsewhere")
    base = read_json(Path(found)).get("base_model_name_or_path")
    if not base:
        raise ArgumentError(f"{name_or_path}: {ADAPTER_CONFIG} does not say which model it is an adapter of")
    return base


def revision_of_base(name_or_path: str, **hub) -> dict[str, str]:
    """Returns the revision of its model that an adapter names, as an option of `from_pretrained`, if it names one."""
    revision = read_json(Path(str(find_adapter_config_file(name_or_path, **hub)))).get("revision")
    return {} if revision is None else {"revision": revision}


def is_moved(earlier: str, now: str) -> bool:
    """Returns whether a base model's folder seems to have been moved: it is gone, and another has its name."""
    was, is_now = Path(earlier), Path(now)
    return was.is_absolute() and not was.exists() and is_now.is_dir() and was.name == is_now.name


def load_adapter(model: PreTrainedModel, name_or_path: str, **hub) -> "PeftModel":
    """
    Returns the model with an adapter from a folder or the Hub, frozen.

    Raises:
        ArgumentError: There is no such adapter, it does not fit, or one of its weights is missing. PEFT would leave
            that at random.
    """
    from peft import PeftConfig, get_peft_model

    try:
        config = PeftConfig.from_pretrained(name_or_path, **hub)
        config.inference_mode = True
        weights = read_weights(name_or_path, **hub)
        resize_vocabulary(model, name_or_path, weights)
        adapted = get_peft_model(model, config)
    except ArgumentError:
        raise
    except Exception as error:  # of a dozen types, as when a model is loaded
        raise ArgumentError(f"{name_or_path}: cannot load an adapter: {first_line(error)}") from error
    load_weights(adapted, name_or_path, weights)
    return adapted.eval()


def read_weights(name_or_path: str, **hub) -> dict[str, torch.Tensor]:
    """
    Returns an adapter's weights by their names.

    Raises:
        ArgumentError: There are none, or they cannot be read.
    """
    from peft.utils import load_peft_weights

    say_unsafe(name_or_path, ADAPTERS, **hub)
    try:
        return load_peft_weights(name_or_path, device="cpu", **hub)
    except Exception as error:
        raise ArgumentError(f"{name_or_path}: cannot load an adapter: {first_line(error)}") from error


def load_weights(adapted: "PeftModel", name_or_path: str, weights: dict[str, torch.Tensor]) -> None:
    """
    Loads an adapter's weights into a model that has its layers.

    Raises:
        ArgumentError: A weight is missing, unexpected, of another shape or not finite.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    # PEFT saves the embeddings too of a model that was resized, or that has adapters there.
    choices = [get_peft_model_state_dict(adapted, save_embedding_layers=is_saved) for is_saved in (True, False)]
    own = min(choices, key=lambda choice: len(choice.keys() ^ weights.keys()))
    problems = {
        "missing": own.keys() - weights.keys(),
        "unexpected": weights.keys() - own.keys(),
        "mismatched": {name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape},
    }
    for problem, names in problems.items():
        if names:
            some = ", ".join(sorted(names)[:3])
            raise ArgumentError(f"{name_or_path}: {len(names)} {problem} weights of the adapter, such as {some}")
    for name, tensor in weights.items():
        check_finite_tensor(name_or_path, name, tensor)
    set_peft_model_state_dict(adapted, weights)


def embeddings_of(model: PreTrainedModel) -> dict[str, int]:
    """Returns the sizes of a model's embedding and output layer by their possible names in an adapter's file."""
    sizes: dict[str, int] = {}
    for layer in filter(None, (model.get_input_embeddings(), model.get_output_embeddings())):
        (name,) = (name for name, module in model.named_modules() if module is layer)
        # An embedding that has an adapter itself stands one layer deeper.
        for deeper in ("", ".base_layer"):
            sizes[f"{PREFIX}{name}{deeper}.weight"] = getattr(layer, "num_embeddings", None) or layer.out_features
    return sizes


def resize_vocabulary(model: PreTrainedModel, name_or_path: str, weights: dict[str, torch.Tensor]) -> None:
    """Gives a model the vocabulary of an adapter whose model was resized before it was trained, and says so."""
    had = {name: size for name, size in embeddings_of(model).items() if name in weights}
    sizes = {len(weights[name]) for name in had} - set(had.values())
    # The decoder's own embedding, where it is tied to nothing, is not in the file.
    is_whole = getattr(model.config, "encoder_vocab_size", None) is None or model.config.tie_word_embeddings
    if is_whole and len(sizes) == 1:
        (size,) = sizes
        model.resize_token_embeddings(size, mean_resizing=False)
        logger.warning(
            f"{name_or_path}: the adapter has {size:,} tokens, its model {max(had.values()):,}: the adapter's are used"
        )


def place_of(name: str) -> str:
    """Returns where a weight or an adapter's layer stands in a model without adapters."""
    return re.sub(r"\.(base_layer|original_module|token_adapter|weight)(?=\.|$)", "", name.removeprefix(PREFIX))


def check_unshared(adapted: Any, name_or_path: str) -> None:
    """
    Checks that no weight which adapters change has a use which they change otherwise or not at all. New rows of tied
    embeddings may be the same in all uses.

    Raises:
        ArgumentError: One has.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    places: dict[int, set[str]] = {}
    for name, weight in adapted.named_parameters(remove_duplicate=False):
        places.setdefault(id(weight), set()).add(place_of(name))
    changes: dict[int, dict[str, int]] = {}
    for name, layer in adapted.named_modules(remove_duplicate=False):
        if isinstance(layer, BaseTunerLayer):
            weight = getattr(layer.get_base_layer(), "weight", None)
            changes.setdefault(id(weight), {})[name] = id(getattr(layer, "trainable_tokens_delta", layer))
    for weight, changed in changes.items():
        uses = places.get(weight, set())
        if len(uses) > 1 and (len(set(changed.values())) > 1 or set(map(place_of, changed)) != uses):
            raise ArgumentError(
                f"{name_or_path}: an adapter changes a weight with several uses ({', '.join(sorted(uses))}), and "
                "merged would change each of them, or change it several times: decode with the adapter as it is"
            )


def merge_adapter(adapted: "PreTrainedModel | PeftModel", name_or_path: str) -> PreTrainedModel:
    """
    Adds what a model's adapters have learned to its own weights, and returns the model without adapters.

    Raises:
        ArgumentError: It has no adapters, or they cannot be merged.
    """
    merge = getattr(adapted, "merge_and_unload", None)
    if merge is None:
        raise ArgumentError(
            f"{name_or_path}: not an adapter that can be merged: LoRA, AdaLoRA and IA3 change weights, prompts "
            "and prefixes do not"
        )
    check_unshared(adapted, name_or_path)
    tied = adapted.config.tie_word_embeddings
    with warnings.catch_warnings(), blame(name_or_path, ValueError):  # weights that are not finite
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
        merged = merge(safe_merge=True)
    # PEFT calls every model untied whose source has an embedding of its own, and knows of no embedding for each stack.
    if hasattr(merged, "match_config_to_embeddings"):
        merged.match_config_to_embeddings()
    elif all(merged.get_parameter(a) is merged.get_parameter(b) for a, b in merged.all_tied_weights_keys.items()):
        merged.config.tie_word_embeddings = tied
    return merged
