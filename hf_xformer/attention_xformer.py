# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Where a token stands and what it attends to: norms, positions, multi-head attention.

Shapes: B batch, S source, T target or query, D d_model, H query heads, G key and value heads, K head width.
"""

import copy

import torch
from torch import nn
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_xformer import XformerConfig


NORMS = {"rmsnorm": nn.RMSNorm, "layernorm": nn.LayerNorm}

Rotation = tuple[torch.Tensor, torch.Tensor]


class XformerNoPositions(nn.Module):
    """Order is left to the causal mask (Haviv et al. 2022)."""

    max_positions = None

    def __init__(self, config: XformerConfig, stack: str):
        super().__init__()

    def forward(self, x: torch.Tensor, position_ids: torch.LongTensor) -> tuple[torch.Tensor, Rotation | None]:
        return x, None


class XformerSinusoidalPositions(nn.Module):
    """
    `PE(p, i) = sin(p / 10000^(2i/D))` in the first half of the features and the cosine in the second.

    Vaswani et al. 2017, section 3.5, in the layout of their own code (tensor2tensor) and of Marian; the interleaved
    layout of the paper's text is the same up to a permutation of the features.
    """

    def __init__(self, config: XformerConfig, stack: str):
        super().__init__()
        self.max_positions, self.width = config.max_position_embeddings, config.d_model
        self.table = nn.Buffer(self.compute_table(), persistent=False)

    def compute_table(self) -> torch.Tensor:
        pairs = torch.arange(0, self.width, 2, dtype=torch.float64)
        angles = torch.outer(torch.arange(self.max_positions), 10000.0 ** (-pairs / self.width))
        return torch.cat((angles.sin(), angles.cos()), dim=-1).float()  # (positions, D)

    def forward(self, x: torch.Tensor, position_ids: torch.LongTensor) -> tuple[torch.Tensor, Rotation | None]:
        return x + self.table[position_ids].to(x.dtype), None


class XformerLearnedPositions(nn.Embedding):
    """One trained vector a position (Gehring et al. 2017)."""

    def __init__(self, config: XformerConfig, stack: str):
        super().__init__(config.max_position_embeddings, config.d_model)
        self.max_positions = config.max_position_embeddings

    def forward(self, x: torch.Tensor, position_ids: torch.LongTensor) -> tuple[torch.Tensor, Rotation | None]:
        return x + super().forward(position_ids), None


class XformerRotaryEmbedding(nn.Module):
    """
    Cosine and sine of the angles by which attention turns queries and keys (Su et al. 2021), once per stack.

    The attribute names are those that transformers' rope types and weight initialisation read and write.
    """

    max_positions = None

    def __init__(self, config: XformerConfig, stack: str):
        super().__init__()
        # The library's rope functions read the head width off a config: a copy holds this stack's.
        self.config = copy.copy(config)
        self.config.head_dim = config.heads_of(stack)[1]
        self.rope_type = config.rope_parameters["rope_type"]
        self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings
        init = ROPE_INIT_FUNCTIONS.get(self.rope_type, self.compute_default_rope_parameters)
        inv_freq, self.attention_scaling = init(self.config)
        self.inv_freq = nn.Buffer(inv_freq, persistent=False)  # (K/2,)
        self.original_inv_freq = nn.Buffer(inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(config: XformerConfig, device=None, **kwargs) -> tuple[torch.Tensor, float]:
        pairs = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device)
        return config.rope_parameters["rope_theta"] ** (-pairs / config.head_dim), 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def rotation(self, x: torch.Tensor, position_ids: torch.LongTensor) -> Rotation:
        angles = position_ids[:, None, :, None].float() * self.inv_freq.float()  # (B, 1, T, K/2)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)

    def forward(self, x: torch.Tensor, position_ids: torch.LongTensor) -> tuple[torch.Tensor, Rotation | None]:
        return x, self.rotation(x, position_ids)


POSITIONS = {
    "none": XformerNoPositions,
    "sinusoidal": XformerSinusoidalPositions,
    "learned": XformerLearnedPositions,
    "rope": XformerRotaryEmbedding,
}


def count_positions(attention_mask: torch.Tensor) -> torch.LongTensor:
    """Position of every token among the attended ones of its row, (B, S) -> (B, S): padding shifts nobody."""
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns the pairs `(x_i, x_{i + K/2})` of every head, (B, H, T, K), by their position's angles, (B, 1, T, K/2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def eager_attention(
    module: nn.Module,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    `softmax(q k^T / sqrt(K)) v`, written out (Vaswani et al. 2017, section 3.2.1).

    Args:
        q: (B, H, T, K). k, v: (B, G, S, K). mask: None or added to the scores, (B, 1, T, S).

    Returns:
        The mixed values, (B, T, H, K), and the weights, (B, H, T, S).
    """
    k, v = (y.unsqueeze(2).expand(-1, -1, module.num_key_value_groups, -1, -1).flatten(1, 2) for y in (k, v))
    scores = q @ k.transpose(-1, -2) * scaling  # (B, H, T, S)
    scores = scores if mask is None else scores + mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ v).transpose(1, 2).contiguous(), weights


class XformerAttentionCore(nn.Module):
    """Scaled dot-product attention by the backend that the config names; holds what the backends look up."""

    def __init__(self, config: XformerConfig, layer_idx: int, heads: int, head_dim: int, is_causal: bool):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = is_causal
        self.num_key_value_groups = heads // (config.num_key_value_heads or heads)
        self.scaling = head_dim**-0.5
        self.dropout = config.attention_dropout

    def forward(self, q, k, v, mask, **kwargs) -> tuple[torch.Tensor, torch.Tensor | None]:
        """q (B, H, T, K), k and v (B, G, S, K) -> (B, T, H * K), and the weights (B, H, T, S) if there are any."""
        backend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        dropout = self.dropout if self.training else 0.0
        x, weights = backend(self, q, k, v, mask, dropout=dropout, scaling=self.scaling, **kwargs)
        return x.flatten(2), weights


class XformerAttention(nn.Module):
    """
    `MultiHead(x) = concat(head_1 ... head_H) W_o` (Vaswani et al. 2017, section 3.2.2).

    With fewer key and value heads than query heads it is grouped-query attention (Ainslie et al. 2023).
    """

    def __init__(self, config: XformerConfig, layer_idx: int, stack: str, is_causal: bool):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        heads, self.head_dim = config.heads_of(stack)
        kv_heads = config.num_key_value_heads or heads
        self.q_proj = nn.Linear(config.d_model, heads * self.head_dim, bias=config.use_bias)
        self.k_proj = nn.Linear(config.d_model, kv_heads * self.head_dim, bias=config.use_bias)
        self.v_proj = nn.Linear(config.d_model, kv_heads * self.head_dim, bias=config.use_bias)
        self.o_proj = nn.Linear(heads * self.head_dim, config.d_model, bias=config.use_bias)
        self.core = XformerAttentionCore(config, layer_idx, heads, self.head_dim, is_causal)

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, T, H * K) -> (B, H, T, K)

    def keys_and_values(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.split_heads(self.k_proj(x)), self.split_heads(self.v_proj(x))


class XformerSelfAttention(XformerAttention):
    """Every position attends to those of its own sequence that the mask leaves."""

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None = None,
        rotation: Rotation | None = None,
        cache: Cache | None = None,
        **kwargs,
    ) -> torch.Tensor:
        q, (k, v) = self.split_heads(self.q_proj(x)), self.keys_and_values(x)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        x, _ = self.core(q, k, v, mask, **kwargs)
        return self.o_proj(x)


class XformerCrossAttention(XformerAttention):
    """Every target position attends to the encoder's output, the memory (B, S, D)."""

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
        **kwargs,
    ) -> torch.Tensor:
        q, (k, v) = self.split_heads(self.q_proj(x)), self.keys_and_values_once(memory, cache)
        x, _ = self.core(q, k, v, mask, **kwargs)
        return self.o_proj(x)

    def keys_and_values_once(
        self, memory: torch.Tensor, cache: EncoderDecoderCache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The memory does not change while the target grows: with a cache its projections are computed once."""
        if cache is None:
            return self.keys_and_values(memory)
        if cache.is_updated.get(self.layer_idx):
            layer = cache.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values
        cache.is_updated[self.layer_idx] = True
        return cache.cross_attention_cache.update(*self.keys_and_values(memory), self.layer_idx)
