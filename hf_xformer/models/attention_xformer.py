# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention: of a sequence to itself and to the encoder's output.

Shapes: B batch, S source, T target or query, D d_model, H query heads, G key and value heads, K head width.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_tracing, logging

from .cache_xformer import fold, unfold
from .configuration_xformer import XformerConfig
from .dropout_xformer import drop
from .fusing_xformer import XformerProjecting
from .masks_xformer import AttentionMask
from .positions_xformer import Rotation


logger = logging.get_logger(__name__)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates the pairs `(x_i, x_{i + K/2})` of each head, (B, T, H, K), by its position's angles, (B, T, 1, K/2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)), dim=-1)


def as_addend(mask: torch.Tensor) -> torch.Tensor:
    """Returns a mask in single precision, of finite numbers: a row of which all is masked stays one of numbers."""
    least = torch.finfo(torch.float32).min
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, least)
    return mask.float().clamp(min=least / 2)


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
        mask: Added to the scores, (B, 1, T, S), or None; one of booleans is True for keys to attend to.
        position_bias: Added for each head, (1, H, T, S).

    Returns:
        The mixed values, (B, T, H, K), and the weights, (B, H, T, S).
    """
    k, v = (y.unsqueeze(2).expand(-1, -1, module.num_key_value_groups, -1, -1).flatten(1, 2) for y in (k, v))
    # In full precision: beside the least number of a half one, that of a mask, nothing more can be subtracted.
    scores = (q @ k.transpose(-1, -2) * scaling).float()  # (B, H, T, S)
    if position_bias is not None:
        scores = scores + position_bias
    if mask is not None:
        scores = scores + as_addend(mask)
    weights = scores.softmax(dim=-1).to(q.dtype)
    weights = drop(weights, dropout, module.training)
    return (weights @ v).transpose(1, 2).contiguous(), weights


def with_own_shapes(backend: Callable) -> Callable:
    """
    Returns FlexAttention with a graph for each shape.

    On a CPU torch's graph of shapes that change computes others' attention, or reads behind its numbers.
    """

    def attention(*args, **kwargs):
        from torch._dynamo import config  # takes seconds

        logger.warning_once(
            f"FlexAttention on a CPU has a graph for each shape; torch makes {config.recompile_limit}, and is "
            'slow with others: take attn_implementation="sdpa"'
        )
        with config.patch(automatic_dynamic_shapes=False):
            return backend(*args, **kwargs)

    return attention


class XformerAttention(XformerProjecting):
    """
    `MultiHead(x) = concat(head_1 ... head_H) W_o` (Vaswani et al. 2017, section 3.2.2).

    With fewer key and value heads than query heads it is grouped-query attention (Ainslie et al. 2023).
    """

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

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, self.head_dim))  # (B, T, H * K) -> (B, T, H, K)

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: AttentionMask,
        position_bias: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Scaled dot-product attention by the backend that the config names, one call for each part of the mask.

        Args:
            q: (B, H, T, K). k, v: (B, G, S, K). position_bias: Added to the scores, (1 or B, H, T, S).

        Returns:
            The mixed values, (B, T, H * K), and the weights if the backend returns them: (B, H, T, S), or of the
            shape that the mask says.
        """
        name = self.config._attn_implementation
        backend = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)
        if name == "flex_attention" and q.device.type == "cpu" and not is_tracing(q):
            backend = with_own_shapes(backend)
        kwargs |= {"scaling": self.scaling, "dropout": self.dropout if self.training else 0.0}
        results = []
        # A loop and no comprehension or generator: nothing stands between here and the backend in a traceback.
        for part in mask.split(q, k, v, position_bias):
            x, weights = backend(self, part.q, part.k, part.v, part.mask, **{**kwargs, **part.options})
            if weights is not None and weights.ndim < 4:
                weights = None  # FlexAttention on a GPU: logarithms of the sums, (B, H, T)
            results.append((x.flatten(2), weights))
        return mask.join(iter(results))


class XformerSelfAttention(XformerAttention):
    """Attention of a sequence to itself."""

    joint = (("q_proj", "k_proj", "v_proj"), ("o_proj",))

    def __init__(self, config: XformerConfig, layer_idx: int, stack: str, is_causal: bool):
        super().__init__(config, layer_idx, stack, is_causal)
        self.has_qk_norm = config.qk_norm
        norm = partial(nn.RMSNorm, self.head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity
        self.q_norm, self.k_norm = norm(), norm()
        # For FlashAttention, whose windows in both directions end one token before their size.
        size = config.block_size + (stack == "encoder")
        is_sliding = config.layer_types_of(stack)[layer_idx] == "sliding_attention"
        self.sliding_window = size if is_sliding else None

    def forward(
        self,
        x: torch.Tensor,
        mask: AttentionMask,
        rotation: Rotation | None = None,
        position_bias: torch.Tensor | None = None,
        cache: Cache | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features (B, T, D) to features (B, T, D) and the attention weights if the backend returns them."""
        q, k, v = map(self.split_heads, self.project(x, "q_proj", "k_proj", "v_proj"))
        if self.has_qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        q, k = q.to(v.dtype), k.to(v.dtype)  # autocast leaves norms and rotations in full precision
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))  # (B, H, T, K), (B, G, T, K) twice
        if self.has_qk_norm and q.shape[2] == 1 and is_tracing(q):
            # The norm of one query is compiled by torch 2.11 into strides that kernels of a GPU refuse.
            q = q.clone(memory_format=torch.contiguous_format)
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        x, weights = self.attend(q, k, v, mask, position_bias, sliding_window=self.sliding_window, **kwargs)
        (x,) = self.project(x, "o_proj")
        return x, weights


class XformerCrossAttention(XformerAttention):
    """Attention of the target to the encoder's output, the memory (B, S, D)."""

    joint = (("q_proj",), ("k_proj", "v_proj"), ("o_proj",))

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        mask: AttentionMask,
        cache: EncoderDecoderCache | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Features (B * n, T, D) to features (B * n, T, D) and the attention weights if the backend returns them.

        Args:
            memory: (B, S, D), a row for n adjacent ones of the target, which attend to it as one.
        """
        k, v = self.keys_and_values(memory, cache)
        rows, x = x.shape[0], fold(x, k.shape[0])  # (B, n * T, D)
        (q,) = self.project(x, "q_proj")
        q = self.split_heads(q).transpose(1, 2)
        x, weights = self.attend(q, k, v, mask, **kwargs)
        if weights is not None and rows != k.shape[0]:
            weights = unfold(weights.transpose(1, 2), rows).transpose(1, 2)  # (B * n, H, T, S)
        (x,) = self.project(x, "o_proj")
        return unfold(x, rows), weights

    def keys_and_values(
        self, memory: torch.Tensor, cache: EncoderDecoderCache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Projections of the memory; with a cache they are computed once, because the memory does not change."""
        if cache is not None and cache.is_updated.get(self.layer_idx):
            layer = cache.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values  # type: ignore[union-attr]
        k, v = (self.split_heads(y).transpose(1, 2) for y in self.project(memory, "k_proj", "v_proj"))
        if cache is None:
            return k, v
        cache.is_updated[self.layer_idx] = True
        return cache.cross_attention_cache.update(k, v, self.layer_idx)
