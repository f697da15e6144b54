# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Where in a row the queries and keys of blocks stand, counted one by one."""

import itertools

import torch

from hf_xformer import XformerConfig


def weights_over_rows(
    weights: torch.Tensor, config: XformerConfig, stack: str, layer: int, length: int
) -> torch.Tensor:
    """
    The attention weights of a layer, within blocks (B, n, H, w, c), over whole rows, (B, H, S, S), the attended tokens
    first. Weights that are of whole rows already are returned as they are.
    """
    if weights.ndim == 4:
        return weights
    rows, blocks, heads, w, keys = weights.shape
    layer_types, is_encoder = getattr(config, f"{stack}_layer_types"), stack == "encoder"
    leading = min(config.num_global_tokens, length) if is_encoder else 0
    is_shifted = is_encoder and config.block_shift and layer_types[:layer].count("chunked_attention") % 2
    before = -(w // 2) % w if is_shifted and layer_types[layer] == "chunked_attention" else 0
    behind = w if layer_types[layer] == "sliding_attention" else 0
    spread = weights.new_zeros(rows, heads, length, length)
    for block, place, slot in itertools.product(range(blocks), range(w), range(keys)):
        first = block * w - before
        query, key = first + place, slot if slot < leading else first - behind + slot - leading
        if 0 <= query < length and 0 <= key < length:
            spread[:, :, query, key] += weights[:, block, :, place, slot]
    return spread
