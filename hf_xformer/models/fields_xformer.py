# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a config's content that its fields' types cannot express, and which the library leaves out."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers.generation import GenerationConfig
from transformers.utils import logging


logger = logging.get_logger(__name__)

MOST = 2**31 - 1  # of every size and every number of a rotary embedding, but for these
MOST_OF = {"norm_eps": 1, "encoder_layers": 4096, "decoder_layers": 4096}
MOST_POSITIONS = 2**28  # numbers in a table of sinusoidal positions, 1 GiB
MOST_LABELS = 10**6
# Keys of each rope type beside `rope_type` and `rope_theta`: those that it needs, and those that it may have.
ROPE_TYPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ("original_max_position_embeddings",)),
    "dynamic": (("factor",), ("original_max_position_embeddings",)),
    "yarn": (
        ("factor", "original_max_position_embeddings"),
        ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    ),
    "llama3": (("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"), ()),
    "longrope": (
        ("short_factor", "long_factor", "original_max_position_embeddings"),
        ("attention_factor", "factor"),
    ),
}
# Those whose frequencies depend on the length of a text.
ROPE_CHANGING = ("dynamic", "longrope")
# In each pair the first must be below the second.
ROPE_ORDER = (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast"))
# With other names than fields, these mean something to the library or to this code.
KNOWN = {
    "_name_or_path",
    "name_or_path",
    "model_type",
    "auto_map",
    "quantization_config",
    "transformers_weights",
    "_commit_hash",
    "torch_dtype",
    "rope_theta",
    "rope_scaling",
    "num_labels",
    "attn_implementation",
    "output_attentions",
    "experts_implementation",
}
# Attributes by which the library recognises a config of several models.
PARTS = {"text_config", "decoder", "generator", "encoder", "text_encoder"}


def shown(value: Any) -> str:
    """Returns a value for a message, cut to one short line."""
    # A whole number of thousands of digits cannot even be printed.
    return f"a number of {value.bit_length()} bits" if is_long(value) else " ".join(repr(value).split())[:80]


def is_long(value: Any) -> bool:
    return isinstance(value, int) and value.bit_length() > 128


def is_number(value: Any) -> bool:
    """Returns True if a value is a positive, finite number; booleans are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MOST


def check_rope(parameters: Mapping[str, Any], pairs: int) -> None:
    """
    Checks rotary parameters, of most of which the library only warns.

    Args:
        pairs: Pairs of features of a head, which are rotated together.

    Raises:
        ValueError: The type is unknown, a key is missing or unknown, or its value is none that it can have.
    """
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    if not isinstance(rope_type, str) or rope_type not in ROPE_TYPES:
        raise ValueError(f"`rope_parameters`: unknown rope_type {shown(rope_type)}; known are {', '.join(ROPE_TYPES)}")
    if parameters.get("type", rope_type) != rope_type:
        raise ValueError(f"`rope_parameters` has rope_type {rope_type!r} and type {shown(parameters['type'])}")
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError("`rope_parameters`: `partial_rotary_factor` is not supported; whole heads are rotated")
    needed, others = ROPE_TYPES[rope_type]
    if missing := [name for name in ("rope_theta", *needed) if name not in parameters]:
        raise ValueError(f"`rope_parameters` of rope_type {rope_type!r} lacks {', '.join(missing)}")
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *needed, *others}
    if unknown := [str(name) for name in parameters if name not in known]:
        raise ValueError(f"`rope_parameters` of rope_type {rope_type!r} has no {shown(unknown)}")
    for name in ("rope_theta", *needed, *others):
        if name in others and (name not in parameters or parameters[name] is None and name != "truncate"):
            continue
        if wanted := unfit_rope_value(name, parameters[name], pairs):
            raise ValueError(f"`rope_parameters`: `{name}` must be {wanted}, got {shown(parameters[name])}")
    for lower, upper in ROPE_ORDER:
        low, high = parameters.get(lower), parameters.get(upper)
        if low is not None and high is not None and not low < high:
            raise ValueError(f"`rope_parameters`: `{lower}` must be below `{upper}`, got {low} and {high}")
    if rope_type == "dynamic" and pairs < 2:
        raise ValueError("`rope_parameters` of rope_type 'dynamic' need heads wider than 2")


def unfit_rope_value(name: str, value: Any, pairs: int) -> str:
    """Returns what a rotary parameter's value must be, or nothing if it is."""
    if name in ("short_factor", "long_factor"):
        fits = isinstance(value, list) and len(value) == pairs and all(map(is_number, value))
        return "" if fits else f"a list of {pairs} positive numbers, one for each pair of features"
    if name == "truncate":
        return "" if isinstance(value, bool) else "true or false"
    if name == "original_max_position_embeddings":
        return "" if is_number(value) and isinstance(value, int) and value > 1 else "a whole number above 1"
    if name == "factor":
        return "" if is_number(value) and value >= 1 else "a number, 1 or more"
    return "" if is_number(value) else "a positive, finite number"


def check_without_fields(config: Any, others: dict[str, Any]) -> None:
    """
    Checks what the library would fail or never end with, before it looks at it.

    Args:
        config: With its fields set and nothing else.
        others: What was given beside the fields.

    Raises:
        ValueError: A value cannot be used.
    """
    for depth in (config.encoder_layers, config.decoder_layers, others.get("num_hidden_layers")):
        most = MOST_OF["encoder_layers"]
        if depth is not None and (type(depth) is not int or depth > most):  # before a list of so many is made
            raise ValueError(f"a stack must have 1 to {most:,} layers, got {shown(depth)}")
    classes = config.architectures
    if classes is not None and not (isinstance(classes, (list, tuple)) and all(isinstance(x, str) for x in classes)):
        raise ValueError(f"`architectures` must list names of classes, got {shown(classes)}")
    for name in (config.dtype, others.get("torch_dtype")):
        if name is None:
            continue
        dtype = getattr(torch, name, None) if isinstance(name, str) else name
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(f"`dtype` must be a floating-point type such as 'float32', got {shown(name)}")
    for each in (config.rope_parameters, others.get("rope_scaling")):
        if each is not None and not isinstance(each, Mapping):
            raise ValueError(f"`rope_parameters` must be an object with rope_type and rope_theta, got {shown(each)}")
        if nested := [name for name in each or () if str(name).endswith("_attention")]:
            raise ValueError(f"`rope_parameters` are those of all layers: {shown(nested)} cannot have its own")
    labels = others.get("num_labels")
    if labels is not None and (type(labels) is not int or not 0 <= labels <= MOST_LABELS):
        raise ValueError(f"`num_labels` must be a whole number of at most {MOST_LABELS:,}, got {shown(labels)}")
    if any(not str(name).removeprefix("-").isdecimal() for name in config.id2label or ()):
        raise ValueError(f"`id2label` must have numbers for keys, got {shown(list(config.id2label))}")
    packing = others.get("quantization_config")
    if packing is not None and not (
        isinstance(packing, Mapping) and "quant_method" in packing or hasattr(packing, "to_dict")
    ):
        raise ValueError(f"`quantization_config` must be an object with `quant_method`, got {shown(packing)}")
    ours = {*KNOWN, *type(config).attribute_map}
    for name in others:
        # An attribute of that name would stand in front of a method, or make the library look elsewhere for fields.
        if name not in ours and (hasattr(type(config), name) or name in PARTS):
            raise ValueError(f"`{name}` is no field: delete it")
    if others.get("per_layer_config") is not None:
        raise ValueError("`per_layer_config` is not supported: all layers of a stack are alike but in their types")


def check_whole(content: Mapping[str, Any], fields: list[str], aliases: Mapping[str, str]) -> None:
    """
    Checks that a config's file says each thing once, and all of them if it was saved with weights.

    Args:
        content: The file's.
        fields: Names that every saved config has. One that is added later must be left out.
        aliases: Other names of fields.

    Raises:
        ValueError: A field is missing, whose default could silently be another model, or has two values.
    """
    for alias, name in {**aliases, "rope_scaling": "rope_parameters"}.items():
        if alias in content and name in content and content[alias] != content[name]:
            raise ValueError(
                f"`{name}` is {shown(content[name])}, but {shown(content[alias])} under its other name `{alias}`: "
                "delete one of them"
            )
    if content.get("architectures") is None:  # written by hand, for a new model
        return
    given = {aliases.get(name, name) for name in content}
    rope = content.get("rope_parameters")
    missing = [name for name in fields if name not in given]
    missing += [
        f"{stack}_layer_types" for stack in ("encoder", "decoder") if content.get(f"{stack}_layer_types", 0) is None
    ]
    if isinstance(rope, Mapping):
        missing += [f"rope_parameters.{name}" for name in ("rope_type", "rope_theta") if name not in rope]
    elif rope is None and "rope_parameters" in content:
        missing.append("rope_parameters")
    if missing:
        raise ValueError(
            f"a config that was saved with weights has no {', '.join(missing[:3])}: it was changed since; take the "
            "file from the checkpoint's origin, or set what is missing to what the model was trained with"
        )


def types_of_depths(
    content: Mapping[str, Any], changes: Mapping[str, Any], aliases: Mapping[str, str]
) -> dict[str, list[str]]:
    """
    Returns the layer types of stacks whose depth is changed where a config is loaded: those of the first layers.

    Args:
        content: The config's. changes: Keyword arguments of loading. aliases: Other names of fields.

    Raises:
        ValueError: Nothing says of which type further layers are, or the weights have a part for each layer.
    """
    changed = {aliases.get(name, name): value for name, value in changes.items()}
    known = {aliases.get(name, name): value for name, value in content.items()}
    found = {}
    for stack in ("encoder", "decoder"):
        depth, types, name = changed.get(f"{stack}_layers"), known.get(f"{stack}_layer_types"), f"{stack}_layer_types"
        if type(depth) is not int or not types or depth == len(types) or name in changed or depth < 1:
            continue
        if depth > MOST_OF[f"{stack}_layers"]:
            raise ValueError(f"a stack must have 1 to {MOST_OF[f'{stack}_layers']:,} layers, got {shown(depth)}")
        if known.get("relative_attention_per_layer") and known.get("position_embedding_type") == "relative":
            raise ValueError(
                f"`{stack}_layers={depth}`: each of the {len(types)} layers has its own relative positions: load the "
                f"model as it is and take layers out, model.keep_layers({stack}=[...])"
            )
        if depth > len(types) and len(set(types)) > 1:
            raise ValueError(
                f"`{stack}_layers={depth}` is more than the {len(types)} layers of the checkpoint, which differ: give "
                f"`{name}` too, {depth} names"
            )
        found[name] = [*types, *types[:1] * depth][:depth]
    return found


def warn_of_ignored(config: Any, others: dict[str, Any]) -> None:
    """Says in a line which of the names that were given beside the fields mean nothing to a model."""
    generation = set(vars(GenerationConfig()))
    known = {*KNOWN, *type(config).attribute_map, *vars(type(config))}
    if ignored := sorted(name for name in others if name not in known):
        hint = " (decoding is set in generation_config.json)" if generation.intersection(ignored) else ""
        logger.warning_once(f"{type(config).__name__} has no field {', '.join(ignored)[:200]}: ignored{hint}")
