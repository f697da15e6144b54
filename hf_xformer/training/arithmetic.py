# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Operations that a model needs for its pairs, counted from the sizes of its layers and the lengths of the texts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .observation import IGNORED


# Projections of the memory to keys and values, in our names and the stock models'.
OF_MEMORY = re.compile(r"(cross_attention|cross_attn|encoder_attn|EncDecAttention)\.(k|v)(_proj)?\b")
QUERY = re.compile(r"\b(q|q_proj)(\.base_layer)?$")
CROSS = re.compile(r"cross_attention|cross_attn|encoder_attn|EncDecAttention")


@dataclass(frozen=True)
class Arithmetic:
    """
    Operations of forward and backward pass that the pairs need, padding and recomputation left out.

    Six a weight and token (Kaplan et al. 2020): two forward, two for the gradient of the input, two for that of the
    weight, if it is trained. Source tokens meet the encoder's weights and the decoder's projections of the memory,
    labels the rest. Attention has 12 d for each query and key that it may see.

    Args:
        of_source, of_target: For a source token, and for a label.
        of_both: For a source and a target token that meet in cross-attention.
        seen: For a query and a key that it sees in self-attention, `{(stack, type of layer, size): operations}`; the
            encoder is stack 0, and [`pairs_seen`] tells what size is and counts such pairs.
    """

    of_source: float
    of_target: float
    of_both: float
    seen: dict[tuple[int, str, int], float]

    @classmethod
    def of(cls, model: Any) -> "Arithmetic":
        """Returns a model's arithmetic, from the sizes of its linear layers. Stock models count as attending fully."""
        of_token, of_both = [0.0, 0.0], 0.0
        seen: dict[tuple[int, str, int], float] = {}
        of_encoder = {id(each) for each in model.get_encoder().modules()}
        modules: dict[str, Any] = dict(model.named_modules())
        for name, layer in modules.items():
            if not hasattr(layer, "in_features") or not hasattr(layer, "out_features") or any(layer.children()):
                continue
            stack = 0 if id(layer) in of_encoder else 1
            is_trained = any(weight.requires_grad for weight in layer.parameters(recurse=False))
            products = (6 if is_trained else 4) * layer.in_features * layer.out_features
            of_token[0 if OF_MEMORY.search(name) else stack] += products
            if not QUERY.search(name):
                continue
            scores = 12 * layer.out_features
            if CROSS.search(name):
                of_both += scores
            else:
                attention = modules[name.removesuffix(".base_layer").rpartition(".")[0]]
                key = stack, *type_of_layer(model.config, attention, stack)
                # A decoder's query sees half of the keys, those before it.
                seen[key] = seen.get(key, 0.0) + scores / (2 if stack else 1)
        return cls(of_token[0], of_token[1], of_both, seen)

    def count(self, inputs: Mapping[str, Any], pad_token_id: int | None) -> torch.Tensor:
        """
        Returns the counts of a batch, padded or packed, as one tensor on its device, for which nobody waits.

        They are source tokens, labels, pairs, meetings in cross-attention, and queries times keys for each of `seen`.
        """
        labelled = inputs["labels"] != IGNORED
        if inputs.get("segment_ids") is not None:
            segments, decoder_segments = inputs["segment_ids"], inputs["decoder_segment_ids"]
            most = max(segments.shape[1], decoder_segments.shape[1])
            texts = [lengths_of(segments, most), lengths_of(decoder_segments, most)]  # (B, most)
        else:
            texts = [source_mask(inputs, pad_token_id).sum(1), labelled.sum(1)]  # (B,)
        source, target = texts
        of_attention = [pairs_seen(texts[stack], kind, size).sum() for stack, kind, size in self.seen]
        return torch.stack([source.sum(), labelled.sum(), (source > 0).sum(), (source * target).sum(), *of_attention])

    def operations(self, counts: list[int]) -> float:
        """Returns the operations for counts of batches."""
        source, target, _, both, *of_attention = counts
        total = self.of_source * source + self.of_target * target + self.of_both * both
        return total + sum(each * count for each, count in zip(self.seen.values(), of_attention, strict=True))


def type_of_layer(config: Any, attention: Any, stack: int) -> tuple[str, int]:
    """Returns the type of the layer with this self-attention, and its size for [`pairs_seen`]."""
    if not hasattr(config, "layer_types_of"):
        return "full_attention", 0
    kind = config.layer_types_of(("encoder", "decoder")[stack])[attention.layer_idx]
    if kind == "full_attention":
        return kind, 0
    # A decoder's window counts the token itself, an encoder's does not.
    return kind, config.block_size - (1 if stack and kind == "sliding_attention" else 0)


def pairs_seen(lengths: torch.Tensor, kind: str, size: int) -> torch.Tensor:
    """
    Returns how many queries and keys meet in one self-attention of texts of so many tokens, without a causal mask.

    Global tokens and the shift of blocks are left out: both add little to blocks that are worth having.

    Args:
        size: Tokens of a block, or those that a window has before a token and behind it.
    """
    if kind == "chunked_attention":
        return lengths // size * size**2 + (lengths % size) ** 2
    if kind == "sliding_attention":
        reach = (lengths - 1).clamp(0, size)
        return lengths + reach * (2 * lengths - reach - 1)  # a token itself, and the neighbours that there are
    return lengths**2


def lengths_of(segments: torch.Tensor, most: int) -> torch.Tensor:
    """Returns the tokens of each text in packed rows (B, T) of at most so many texts, (B, most)."""
    lengths = segments.new_zeros(len(segments), most + 1, dtype=torch.long)
    return lengths.scatter_add_(1, segments.long(), torch.ones_like(segments, dtype=torch.long))[:, 1:]


def source_mask(inputs: Mapping[str, Any], pad_token_id: int | None) -> torch.Tensor:
    """Returns where padded rows have a token, (B, S)."""
    if inputs.get("attention_mask") is not None:
        return inputs["attention_mask"] != 0
    tokens = inputs["input_ids"]
    return torch.ones_like(tokens) if pad_token_id is None else tokens != pad_token_id
