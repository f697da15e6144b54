# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A layer of the encoder and of the decoder (Vaswani et al. 2017, section 3.1).

Shapes: B batch, S source, T target, D d_model.
"""

import torch
from transformers.cache_utils import EncoderDecoderCache
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .attention_xformer import XformerCrossAttention, XformerSelfAttention
from .configuration_xformer import XformerConfig
from .masks_xformer import AttentionMask
from .positions_xformer import Rotation
from .sublayers_xformer import FEED_FORWARDS, RESIDUALS, make_input_norm
from .versions_xformer import CheckpointedLayer, takes_cache


class XformerEncoderLayer(CheckpointedLayer):
    """Self-attention and feed-forward, each with its norm and residual."""

    def __init__(self, config: XformerConfig, layer_idx: int):
        super().__init__()
        residual = RESIDUALS[config.norm_position]
        self.self_attention_norm = make_input_norm(config)
        self.self_attention = XformerSelfAttention(config, layer_idx, "encoder", is_causal=False)
        self.self_attention_residual = residual(config)
        self.feed_forward_norm = make_input_norm(config)
        self.feed_forward = FEED_FORWARDS[config.gated_ffn](config, config.encoder_ffn_dim)
        self.feed_forward_residual = residual(config)

    def forward(
        self,
        x: torch.Tensor,
        mask: AttentionMask,
        rotation: Rotation | None = None,
        position_bias: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        y, _ = self.self_attention(self.self_attention_norm(x), mask, rotation, position_bias, **kwargs)
        x = self.self_attention_residual(x, y)
        y = self.feed_forward(self.feed_forward_norm(x))
        x = self.feed_forward_residual(x, y)
        return x


class XformerDecoderLayer(CheckpointedLayer):
    """Causal self-attention, cross-attention to the memory and feed-forward, each with its norm and residual."""

    def __init__(self, config: XformerConfig, layer_idx: int):
        super().__init__()
        residual = RESIDUALS[config.norm_position]
        self.self_attention_norm = make_input_norm(config)
        self.self_attention = XformerSelfAttention(config, layer_idx, "decoder", is_causal=True)
        self.self_attention_residual = residual(config)
        self.cross_attention_norm = make_input_norm(config)
        self.cross_attention = XformerCrossAttention(config, layer_idx, "decoder", is_causal=False)
        self.cross_attention_residual = residual(config)
        self.feed_forward_norm = make_input_norm(config)
        self.feed_forward = FEED_FORWARDS[config.gated_ffn](config, config.decoder_ffn_dim)
        self.feed_forward_residual = residual(config)

    @takes_cache
    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        mask: AttentionMask,
        memory_mask: AttentionMask,
        rotation: Rotation | None = None,
        position_bias: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        own_cache = None if cache is None else cache.self_attention_cache
        y, _ = self.self_attention(self.self_attention_norm(x), mask, rotation, position_bias, own_cache, **kwargs)
        x = self.self_attention_residual(x, y)
        y, _ = self.cross_attention(self.cross_attention_norm(x), memory, memory_mask, cache, **kwargs)
        x = self.cross_attention_residual(x, y)
        y = self.feed_forward(self.feed_forward_norm(x))
        x = self.feed_forward_residual(x, y)
        return x
