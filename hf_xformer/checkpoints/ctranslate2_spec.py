# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Translates Xformer models into CTranslate2's specifications, by tables of names; refuses what has no counterpart.

Shapes: B batch, S source, T target, H heads, K head width, V vocabulary.
"""

import copy
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ..errors import ArgumentError
from ..models import XformerConfig


# Names of transformers' activations -> of CTranslate2's.
ACTIVATIONS = {
    "relu": "RELU",
    "gelu": "GELU",
    "gelu_python": "GELU",
    "gelu_new": "GELUTanh",
    "gelu_fast": "GELUTanh",
    "gelu_pytorch_tanh": "GELUTanh",
    "gelu_python_tanh": "GELUTanh",
    "gelu_accurate": "GELUTanh",
    "quick_gelu": "GELUSigmoid",
    "silu": "SWISH",
    "swish": "SWISH",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
}
# Rope types whose frequencies are the same whatever the length.
ROPE_TYPES = ("default", "linear", "yarn", "llama3")

# Places in a layer's specification -> the layer's projections; several are stacked into one.
LINEARS = {
    "self_attention.linear.0": ("self_attention.q_proj", "self_attention.k_proj", "self_attention.v_proj"),
    "self_attention.linear.1": ("self_attention.o_proj",),
    "attention.linear.0": ("cross_attention.q_proj",),
    "attention.linear.1": ("cross_attention.k_proj", "cross_attention.v_proj"),
    "attention.linear.2": ("cross_attention.o_proj",),
    "ffn.linear_1": ("feed_forward.down_proj",),
}
FEED_FORWARDS = {
    False: {"ffn.linear_0": ("feed_forward.up_proj",)},
    True: {"ffn.linear_0": ("feed_forward.gate_proj",), "ffn.linear_0_noact": ("feed_forward.up_proj",)},
}
NORMS = {
    "pre": {
        "self_attention.layer_norm": "self_attention_norm",
        "attention.layer_norm": "cross_attention_norm",
        "ffn.layer_norm": "feed_forward_norm",
    },
    "post": {
        "self_attention.layer_norm": "self_attention_residual.norm",
        "attention.layer_norm": "cross_attention_residual.norm",
        "ffn.layer_norm": "feed_forward_residual.norm",
    },
    "sandwich": {
        "input_layer_norm": "self_attention_norm",
        "post_attention_layer_norm": "self_attention_residual.norm",
        "external_pre_encoder_attention_layer_norm": "cross_attention_norm",
        "external_post_encoder_attention_layer_norm": "cross_attention_residual.norm",
        "pre_feedforward_layer_norm": "feed_forward_norm",
        "post_feedforward_layer_norm": "feed_forward_residual.norm",
    },
}
QK_NORMS = {"self_attention.q_norm": "self_attention.q_norm", "self_attention.k_norm": "self_attention.k_norm"}


# Fields of which CTranslate2 does not have every value -> a test for a value that it lacks, and what it has instead.
LACKING = {
    "encoder_layer_types": (
        lambda config: set(config.encoder_layer_types) != {"full_attention"},
        "only 'full_attention'",
    ),
    "decoder_layer_types": (
        lambda config: set(config.decoder_layer_types) != {"full_attention"},
        "only 'full_attention'",
    ),
    "activation_function": (lambda config: config.activation_function not in ACTIVATIONS, ", ".join(ACTIVATIONS)),
    "rope_parameters": (
        lambda config: (
            config.position_embedding_type == "rope" and config.rope_parameters["rope_type"] not in ROPE_TYPES
        ),
        f"the rope types {', '.join(ROPE_TYPES)}",
    ),
    "quantization_config": (
        lambda config: getattr(config, "quantization_config", None) is not None,
        "quantisations of its own: export the checkpoint that this one was made from, with --quantization",
    ),
}


class Tensors:
    """Hands out a model's parameters and buffers by name, as copies, and keeps account of what is left."""

    def __init__(self, model: PreTrainedModel):
        self.tensors = {**dict(model.named_buffers()), **model.state_dict()}
        self.left = set(model.state_dict())

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __call__(self, *names: str) -> torch.Tensor:
        """Returns one tensor, or several joined along their first dimension."""
        self.left.difference_update(names)
        # A single one is copied too, because CTranslate2 quantises in place.
        return torch.cat([self.tensors[name].detach() for name in names])


def place(spec: Any, path: str) -> Any:
    """Returns a part by its path: `place(layer, "self_attention.linear.0")` is `layer.self_attention.linear[0]`."""
    for name in path.split("."):
        spec = spec[int(name)] if name.isdigit() else getattr(spec, name)
    return spec


def set_linear(spec: Any, tensors: Tensors, *names: str) -> None:
    """Fills a linear layer with the projections of these names, stacked."""
    spec.weight = tensors(*(f"{name}.weight" for name in names))
    if f"{names[0]}.bias" in tensors:
        spec.bias = tensors(*(f"{name}.bias" for name in names))


def set_norm(spec: Any, tensors: Tensors, name: str) -> None:
    """Fills a norm."""
    spec.gamma = tensors(f"{name}.weight")
    if f"{name}.bias" in tensors:
        spec.beta = tensors(f"{name}.bias")


@dataclass(frozen=True)
class Rope:
    """Rotary positions of one stack: divisors of its frequencies, (K/2,), and a factor of its scores."""

    divisors: torch.Tensor | None = None
    score_scale: float = 1.0

    @classmethod
    def of(cls, config: XformerConfig, stack: str) -> "Rope":
        """Computes them from a configuration; neither is needed for the default rope type."""
        rope: Any = config.rope_parameters
        if config.position_embedding_type != "rope" or rope["rope_type"] == "default":
            return cls()
        config = copy.copy(config)
        config.head_dim = config.heads_of(stack)[1]
        frequencies, scale = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config)
        pairs = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        # The scale is applied to queries and to keys.
        return cls(rope["rope_theta"] ** -pairs / frequencies, scale**2)


def make_stack(specs: ModuleType, config: XformerConfig, stack: str) -> Any:
    """Returns the empty specification of the "encoder" or the "decoder"."""
    heads, head_dim = config.heads_of(stack)
    rope: Any = config.rope_parameters
    options = {
        "pre_norm": config.norm_position != "post",
        "pre_post_layer_norm": config.norm_position == "sandwich",
        "rms_norm": config.norm_type == "rmsnorm",
        "layernorm_embedding": config.layernorm_embedding,
        "activation": specs.Activation[ACTIVATIONS[config.activation_function]],
        "ffn_glu": config.gated_ffn,
        "num_heads_kv": config.num_key_value_heads,
        "head_dim": head_dim,
        "qk_norm": config.qk_norm,
        # Without positions, a bias of zeros keeps CTranslate2 from adding sinusoids.
        "relative_attention_bias": config.position_embedding_type in ("relative", "none"),
    }
    if config.position_embedding_type == "rope":
        options["rotary_dim"], options["rotary_interleave"] = head_dim, False
        options["rotary_base"] = rope["rope_theta"]
        # CTranslate2's type "Su" takes a divisor for each frequency, so it expresses all types.
        scaled = Rope.of(config, stack).divisors is not None
        options["rotary_scaling_type"] = specs.RotaryScalingType.Su if scaled else None
    if stack == "decoder":
        options["external_pre_post_encoder_layers"] = config.norm_position == "sandwich"
        return specs.TransformerDecoderSpec(config.decoder_layers, heads, **options)
    return specs.TransformerEncoderSpec(config.encoder_layers, heads, **options)


def relative_bias(config: XformerConfig, tensors: Tensors, stack: str, layer: int) -> tuple[torch.Tensor, int]:
    """Returns a layer's table, (buckets, H), and the distance in tokens beyond which all share a bucket."""
    heads = config.heads_of(stack)[0]
    if config.position_embedding_type == "none":
        return torch.zeros(4, heads), 4
    tables = tensors(f"model.{stack}.positions.table.weight").unflatten(-1, (heads, -1))
    table = tables[..., layer if config.relative_attention_per_layer else 0].contiguous()
    return table, config.relative_attention_max_distance


def fill_attention(spec: Any, config: XformerConfig, tensors: Tensors, stack: str, i: int) -> None:
    """Fills scale, rotary divisors and relative bias of layer i's attention."""
    rope = Rope.of(config, stack)
    scale = config.attention_multiplier or config.heads_of(stack)[1] ** -0.5
    attention = spec.self_attention
    attention.queries_scale = float(scale * rope.score_scale)
    if rope.divisors is not None:
        attention.rotary_scaling_long_factor = attention.rotary_scaling_short_factor = rope.divisors
    if config.position_embedding_type in ("relative", "none"):
        bias, distance = relative_bias(config, tensors, stack, i)
        attention.relative_attention_bias = bias
        attention.relative_attention_max_distance = np.int32(distance)
    if stack == "decoder":
        spec.attention.queries_scale = float(scale)
        if config.qk_norm:
            del spec.attention.q_norm, spec.attention.k_norm


def fill_stack(spec: Any, config: XformerConfig, tensors: Tensors, stack: str) -> None:
    """Fills the specification of the "encoder" or the "decoder" with a model's tensors."""
    prefix = f"model.{stack}"
    embeddings = spec.embeddings if stack == "decoder" else spec.embeddings[0]
    embeddings.weight = tensors(f"{prefix}.embed_tokens.weight")
    spec.scale_embeddings = config.scale_embedding
    for table in ("positions.weight", "positions.table"):  # learned, sinusoidal
        if f"{prefix}.{table}" in tensors:
            spec.position_encodings.encodings = tensors(f"{prefix}.{table}")
    for path, name in (("layernorm_embedding", "layernorm_embedding"), ("layer_norm", "norm")):
        if f"{prefix}.{name}.weight" in tensors:
            set_norm(place(spec, path), tensors, f"{prefix}.{name}")
    linears = {**LINEARS, **FEED_FORWARDS[config.gated_ffn]}
    norms = {**NORMS[config.norm_position], **(QK_NORMS if config.qk_norm else {})}
    for i, layer in enumerate(spec.layer):
        for path, names in linears.items():
            if stack == "decoder" or not names[0].startswith("cross"):
                set_linear(place(layer, path), tensors, *(f"{prefix}.layers.{i}.{name}" for name in names))
        for path, name in norms.items():
            if stack == "decoder" or not name.startswith("cross"):
                set_norm(place(layer, path), tensors, f"{prefix}.layers.{i}.{name}")
        fill_attention(layer, config, tensors, stack, i)


def check_config(config: XformerConfig) -> None:
    """
    Checks that CTranslate2 has what a configuration asks for.

    Raises:
        ArgumentError: It has no counterpart of a field's value.
    """
    for field, (lacks, known) in LACKING.items():
        if lacks(config):
            raise ArgumentError(f"`{field}={getattr(config, field)!r}` cannot be exported: CTranslate2 has {known}")


def make_spec(model: PreTrainedModel) -> Any:
    """
    Returns a model as `ctranslate2.specs.TransformerSpec`, without vocabularies.

    Raises:
        ArgumentError: A field or a tensor has no counterpart, or ctranslate2 is not installed.
    """
    specs, tensors = load_ctranslate2().specs, Tensors(model)
    config: Any = model.config
    check_config(config)
    stacks = {stack: make_stack(specs, config, stack) for stack in ("encoder", "decoder")}
    for stack, spec in stacks.items():
        fill_stack(spec, config, tensors, stack)
    set_linear(stacks["decoder"].projection, tensors, "lm_head")
    if config.scale_decoder_outputs:
        stacks["decoder"].scale_outputs = float(config.d_model**-0.5)
    if tensors.left:
        raise ArgumentError(
            f"{len(tensors.left)} tensors cannot be exported, such as {min(tensors.left)}: merge adapters first"
        )
    spec = specs.TransformerSpec(stacks["encoder"], stacks["decoder"])
    spec.config.layer_norm_epsilon = config.norm_eps
    return spec


def load_ctranslate2() -> ModuleType:
    """
    Imports ctranslate2.

    Raises:
        ArgumentError: It is not installed.
    """
    try:
        return importlib.import_module("ctranslate2")
    except ImportError as error:
        raise ArgumentError(f"ctranslate2 is not installed: pip install 'hf-xformer[export]' ({error})") from error
