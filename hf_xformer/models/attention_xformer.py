# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Where a token stands and what it attends to: positions and multi-head attention.

Shapes: B batch, S source, T target or query, D d_model, H query heads, G key and value heads, K head width.
"""

import copy
import math
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .blocks_xformer import BlockMasks, Mask
from .configuration_xformer import XformerConfig
from .packing_xformer import PackedMasks


Rotation = tuple[torch.Tensor, torch.Tensor]


class Placed(NamedTuple):
    """Embedded tokens that know where they stand, and what attention needs to know of it."""

    x: torch.Tensor  # (B, T, D)
    rotation: Rotation | None = None
    biases: tuple[torch.Tensor, ...] = ()  # of the scores, one a layer, (1 or B, H, T, S)


class XformerNoPositions(nn.Module):
    """Order is left to the causal mask (Haviv et al. 2022)."""

    max_positions = None

    def __init__(self, config: XformerConfig, stack: str):
        super().__init__()

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor, past: int, queries: int, keys: int) -> Placed:
        """
        Args:
            x: Embedded tokens, (B, T, D). position_ids: Their positions, (B or 1, T).
            past: How many keys came before them, which a static cache holds in a tensor.
            queries, keys: How many of a row attend and are attended to.
        """
        return Placed(x)


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

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor, past: int, queries: int, keys: int) -> Placed:
        return Placed(x + self.table[position_ids].to(x.dtype))


class XformerLearnedPositions(nn.Embedding):
    """One trained vector a position (Gehring et al. 2017)."""

    def __init__(self, config: XformerConfig, stack: str):
        super().__init__(config.max_position_embeddings, config.d_model)
        self.max_positions = config.max_position_embeddings

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, position_ids: torch.Tensor, past: int, queries: int, keys: int
    ) -> Placed:
        return Placed(x + super().forward(position_ids))


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
    def rotation(self, x: torch.Tensor, position_ids: torch.Tensor) -> Rotation:
        angles = position_ids[:, :, None, None].float() * self.inv_freq.float()  # (B, T, 1, K/2)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor, past: int, queries: int, keys: int) -> Placed:
        return Placed(x, rotation=self.rotation(x, position_ids))


class XformerRelativePositions(nn.Module):
    """
    A trained bias of the scores for every head and every bucket of distances (Raffel et al. 2020, section 2.1).

    One table serves all layers of a stack, or each has its own (Chung et al. 2023); computed once per forward. The
    columns of a head stand together, so that tensor parallelism can give every process some of the heads.
    """

    max_positions = None

    def __init__(self, config: XformerConfig, stack: str):
        super().__init__()
        heads, layers = config.heads_of(stack)[0], len(config.layer_types_of(stack))
        self.tables, self.shared_by = (layers, 1) if config.relative_attention_per_layer else (1, layers)
        self.table = nn.Embedding(config.relative_attention_num_buckets, heads * self.tables)
        self.config = config
        self.directions = 2 if stack == "encoder" else 1
        self.max_distance = config.relative_attention_max_distance

    def buckets(self, distance: torch.Tensor) -> torch.Tensor:
        """Buckets of `key - query`: half of a direction's for one distance each, the rest logarithmically wider."""
        size = self.table.num_embeddings // self.directions
        ahead = (distance > 0) * size * (self.directions - 1)
        distance = distance.abs() if self.directions == 2 else (-distance).clamp(min=0)
        exact = size // 2
        share = (distance.clamp(min=1).float() / exact).log() / math.log(self.max_distance / exact)
        wide = (exact + (share * (size - exact)).long()).clamp(max=size - 1)
        return ahead + torch.where(distance < exact, distance, wide)

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor, past: int, queries: int, keys: int) -> Placed:
        # Distances in the row, not between positions: they are the same wherever the attended tokens are contiguous.
        places = torch.arange(queries, device=x.device) + past
        distance = torch.arange(keys, device=x.device) - places[:, None]  # (T, S)
        biases = self.table(self.buckets(distance)).unflatten(-1, (-1, self.tables))  # (T, S, H, tables)
        # FlexAttention indexes the rows of the bias; the other backends broadcast it.
        rows = x.shape[0] if self.config._attn_implementation == "flex_attention" else 1
        biases = biases.permute(3, 2, 0, 1).unsqueeze(1).expand(-1, rows, -1, -1, -1)  # (tables, rows, H, T, S)
        return Placed(x, biases=biases.unbind() * self.shared_by)


POSITIONS = {
    "none": XformerNoPositions,
    "sinusoidal": XformerSinusoidalPositions,
    "learned": XformerLearnedPositions,
    "rope": XformerRotaryEmbedding,
    "relative": XformerRelativePositions,
}


def count_positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Position of every token among the attended ones of its row, (B, S) -> (B, S): padding shifts nobody."""
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns the pairs `(x_i, x_{i + K/2})` of every head, (B, T, H, K), by their position's angles, (B, T, 1, K/2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)), dim=-1)


def eager_attention(
    module: "XformerAttention",
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    `softmax(q k^T / sqrt(K)) v`, written out (Vaswani et al. 2017, section 3.2.1).

    Args:
        q: (B, H, T, K). k, v: (B, G, S, K).
        mask: None or added to the scores, (B, 1, T, S). position_bias: The same for each head, (1, H, T, S).

    Returns:
        The mixed values, (B, T, H, K), and the weights, (B, H, T, S).
    """
    k, v = (y.unsqueeze(2).expand(-1, -1, module.num_key_value_groups, -1, -1).flatten(1, 2) for y in (k, v))
    scores = q @ k.transpose(-1, -2) * scaling  # (B, H, T, S)
    for addend in (position_bias, mask):
        scores = scores if addend is None else scores + addend
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ v).transpose(1, 2).contiguous(), weights


def attend(
    attention: "XformerAttention", q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Mask, **kwargs
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    Scaled dot-product attention by the backend that the config names.

    Args:
        attention: The module that attends, from which the backends read what they need.
        q: (B, H, T, K). k, v: (B, G, S, K). mask: As the backend has it.

    Returns:
        The mixed values, (B, T, H * K), and the weights, (B, H, T, S), if the backend has them.
    """
    backend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention)
    dropout = attention.dropout if attention.training else 0.0
    x, weights = backend(attention, q, k, v, mask, dropout=dropout, scaling=attention.scaling, **kwargs)
    return x.flatten(2), weights


def attend_across(
    attention: "XformerAttention", q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Mask, **kwargs
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The same where queries and keys are of two sequences, which FlashAttention has to be told."""
    # Only FlashAttention's masks are those of the keys, (B, S). The library would cut the queries with it too
    # (transformers issue 35032); given the lengths of both, it calls the kernel for variable lengths.
    if not isinstance(mask, torch.Tensor) or mask.ndim != 2:
        return attend(attention, q, k, v, mask, **kwargs)
    rows, queries = q.shape[0], q.shape[2]
    kept, source_lengths = mask.bool(), mask.sum(dim=-1, dtype=torch.int32)
    lengths = {
        "cu_seq_lens_q": torch.arange(rows + 1, dtype=torch.int32, device=q.device) * queries,
        "cu_seq_lens_k": nn.functional.pad(source_lengths.cumsum(0, dtype=torch.int32), (1, 0)),
        "max_length_q": queries,
        "max_length_k": source_lengths.max().item(),
    }
    q = q.transpose(0, 1).flatten(1, 2)[None]  # (1, H, B * T, K)
    k, v = (y.transpose(1, 2)[kept].transpose(0, 1)[None] for y in (k, v))  # (1, G, tokens of all sources, K)
    x, weights = attend(attention, q, k, v, None, **{**kwargs, **lengths})
    return x.unflatten(1, (rows, queries)).squeeze(0), weights


class XformerAttentionCore(nn.Module):
    """Attention of one sequence to itself; a module so that its weights are recorded."""

    def forward(
        self,
        attention: nn.Module,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | BlockMasks | PackedMasks | None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if isinstance(mask, PackedMasks):
            return mask.attend(self.attend_rows, attention, q, k, v, **kwargs)
        return self.attend_rows(attention, q, k, v, mask, **kwargs)

    def attend_rows(self, attention, q, k, v, mask, **kwargs) -> tuple[torch.Tensor, torch.Tensor | None]:
        if isinstance(mask, BlockMasks):
            return mask.pattern.attend(attend_across, attention, q, k, v, mask, **kwargs)
        return attend(attention, q, k, v, mask, **kwargs)


class XformerCrossAttentionCore(XformerAttentionCore):
    """Attention of one sequence to another."""

    def attend_rows(self, attention, q, k, v, mask, **kwargs) -> tuple[torch.Tensor, torch.Tensor | None]:
        return attend_across(attention, q, k, v, mask, **kwargs)


class XformerAttention(nn.Module):
    """
    `MultiHead(x) = concat(head_1 ... head_H) W_o` (Vaswani et al. 2017, section 3.2.2).

    With fewer key and value heads than query heads it is grouped-query attention (Ainslie et al. 2023).
    """

    core_class = XformerAttentionCore

    def __init__(self, config: XformerConfig, layer_idx: int, stack: str, is_causal: bool):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = is_causal
        heads, self.head_dim = config.heads_of(stack)
        kv_heads = config.num_key_value_heads or heads
        self.num_key_value_groups = heads // kv_heads
        self.scaling = config.attention_multiplier or self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(config.d_model, heads * self.head_dim, bias=config.use_bias)
        self.k_proj = nn.Linear(config.d_model, kv_heads * self.head_dim, bias=config.use_bias)
        self.v_proj = nn.Linear(config.d_model, kv_heads * self.head_dim, bias=config.use_bias)
        self.o_proj = nn.Linear(heads * self.head_dim, config.d_model, bias=config.use_bias)
        self.core = self.core_class()

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, self.head_dim))  # (B, T, H * K) -> (B, T, H, K)


class XformerSelfAttention(XformerAttention):
    """Every position attends to those of its own sequence that the mask leaves."""

    def __init__(self, config: XformerConfig, layer_idx: int, stack: str, is_causal: bool):
        super().__init__(config, layer_idx, stack, is_causal)
        norm = partial(nn.RMSNorm, self.head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity
        self.q_norm, self.k_norm = norm(), norm()
        # Read by FlashAttention, whose windows in both directions end one token before their size.
        size = config.block_size + (stack == "encoder")
        is_sliding = getattr(config, f"{stack}_layer_types")[layer_idx] == "sliding_attention"
        self.sliding_window = size if is_sliding else None

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | BlockMasks | PackedMasks | None = None,
        rotation: Rotation | None = None,
        position_bias: torch.Tensor | None = None,
        cache: Cache | None = None,
        **kwargs,
    ) -> torch.Tensor:
        q, k, v = (self.split_heads(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        q, k = q.to(v.dtype), k.to(v.dtype)  # autocast leaves norms and rotations in full precision
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))  # (B, H, T, K), (B, G, T, K) twice
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        x, _ = self.core(
            self, q, k, v, mask, position_bias=position_bias, sliding_window=self.sliding_window, **kwargs
        )
        return self.o_proj(x)


class XformerCrossAttention(XformerAttention):
    """Every target position attends to the encoder's output, the memory (B, S, D)."""

    core_class = XformerCrossAttentionCore

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        mask: torch.Tensor | PackedMasks | None = None,
        cache: EncoderDecoderCache | None = None,
        **kwargs,
    ) -> torch.Tensor:
        q, (k, v) = self.split_heads(self.q_proj(x)).transpose(1, 2), self.keys_and_values(memory, cache)
        x, _ = self.core(self, q, k, v, mask, **kwargs)
        return self.o_proj(x)

    def keys_and_values(
        self, memory: torch.Tensor, cache: EncoderDecoderCache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The memory does not change while the target grows: with a cache its projections are computed once."""
        if cache is not None and cache.is_updated.get(self.layer_idx):
            layer = cache.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values  # type: ignore[union-attr]
        k, v = (self.split_heads(project(memory)).transpose(1, 2) for project in (self.k_proj, self.v_proj))
        if cache is None:
            return k, v
        cache.is_updated[self.layer_idx] = True
        return cache.cross_attention_cache.update(k, v, self.layer_idx)
