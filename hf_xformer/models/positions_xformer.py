# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Positions of tokens: added to the embeddings, rotating queries and keys, or biasing the scores.

Shapes: B batch, T tokens or queries, S keys, D d_model, H query heads, K head width.
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from .configuration_xformer import XformerConfig


Rotation = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, (B or 1, T, 1, K/2)


class TokenPositions(NamedTuple):
    """Positions of a batch's tokens."""

    ids: torch.Tensor  # (B or 1, T)
    past: int | torch.Tensor  # number of keys before them; a static cache counts in a tensor
    queries: int  # tokens of a row that attend
    keys: int  # tokens of a row that are attended to
    # True if a row holds several texts, with positions from 0 on; None if the mask does not say where its text is.
    segments: bool | None = False

    def lengths(self) -> torch.Tensor:
        """Number of tokens of the text that each token stands in, (B or 1, T or 1); computed on their device."""
        if self.segments is None:
            raise ValueError(
                "rotary positions that depend on a text's length need a mask of tokens, of 2 dimensions: take another "
                "rope_type"
            )
        if not self.segments:
            return self.ids.amax(dim=1, keepdim=True) + 1
        # A text ends in front of the next first token: from behind, the nearest one is the smallest place so far.
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        firsts = torch.where(self.ids == 0, places, len(places)).roll(-1, dims=1)
        firsts[:, -1] = len(places)
        return firsts.flip(1).cummin(dim=1).values.flip(1) - (places - self.ids)


class WithPositions(NamedTuple):
    """Embedded tokens with their positions, and what attention needs to know of these."""

    x: torch.Tensor  # (B, T, D)
    rotation: Rotation | None = None
    biases: tuple[torch.Tensor, ...] = ()  # of the scores, one a layer, (1 or B, H, T, S)


class XformerNoPositions(nn.Module):
    """No positions: the causal mask alone tells the order (Haviv et al. 2022)."""

    def __init__(self, config: XformerConfig, stack: str):
        super().__init__()

    def forward(self, x: torch.Tensor, at: TokenPositions) -> WithPositions:
        """
        Adds positions to embedded tokens, or says how attention takes them into account.

        Args:
            x: Embedded tokens, (B, T, D). at: Their positions.
        """
        return WithPositions(x)


class XformerComputedPositions(nn.Module):
    """Base class of positions with buffers that no checkpoint holds, because they follow from the config."""

    def initialise(self) -> None:
        """Fills the buffers, which `from_pretrained`, and `to_empty` of a model on "meta", leave as they are."""
        raise NotImplementedError

    @torch.no_grad()
    def _apply(self, fn, recurse: bool = True):
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, each in before.items():
            now = self.get_buffer(name)
            # Rounded to 16 bits by `model.half()` or `model.to(dtype)`, the angles of far positions would be others.
            if now.dtype != each.dtype:
                exact = torch.empty_like(each, device=now.device) if each.is_meta else each.to(now.device)
                setattr(self, name, nn.Buffer(exact, persistent=False))
        if any(each.is_meta and not self.get_buffer(name).is_meta for name, each in before.items()):
            self.initialise()
        return self


class XformerSinusoidalPositions(XformerComputedPositions):
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

    def initialise(self) -> None:
        init.copy_(self.table, self.compute_table())

    def forward(self, x: torch.Tensor, at: TokenPositions) -> WithPositions:
        return WithPositions(x + self.table[at.ids].to(x.dtype))


class XformerLearnedPositions(nn.Embedding):
    """One trained vector for each position (Gehring et al. 2017)."""

    def __init__(self, config: XformerConfig, stack: str):
        super().__init__(config.max_position_embeddings, config.d_model)

    def forward(self, x: torch.Tensor, at: TokenPositions) -> WithPositions:  # type: ignore[override]
        return WithPositions(x + super().forward(at.ids))


class XformerRotaryEmbedding(XformerComputedPositions):
    """
    Cosines and sines of the angles by which attention rotates queries and keys (Su et al. 2021), once per stack.

    transformers' weight initialisation reads and writes these attributes by name.
    """

    def __init__(self, config: XformerConfig, stack: str):
        super().__init__()
        # The library's rope functions read the head width from a config: this copy has the stack's.
        self.config = copy.copy(config)
        self.config.head_dim = config.heads_of(stack)[1]
        self.rope_type = config.rope_parameters["rope_type"]
        inv_freq, self.attention_scaling = self.compute_parameters()
        self.inv_freq = nn.Buffer(inv_freq, persistent=False)  # (K/2,)
        self.original_inv_freq = nn.Buffer(inv_freq.clone(), persistent=False)

    def compute_parameters(self) -> tuple[torch.Tensor, float]:
        """Angles between neighbouring positions, (K/2,), and a factor of cosines and sines."""
        compute = ROPE_INIT_FUNCTIONS.get(self.rope_type, self.compute_default_rope_parameters)
        return compute(self.config)

    def initialise(self) -> None:
        for buffer in (self.inv_freq, self.original_inv_freq):
            init.copy_(buffer, self.compute_parameters()[0])

    @staticmethod
    def compute_default_rope_parameters(config: XformerConfig, device=None, **kwargs) -> tuple[torch.Tensor, float]:
        pairs = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device)
        return config.rope_parameters["rope_theta"] ** (-pairs / config.head_dim), 1.0

    def frequencies(self, at: TokenPositions) -> torch.Tensor:
        """Angles between neighbouring positions, (K/2,), or for each token (B or 1, T or 1, K/2)."""
        return self.inv_freq.float()

    @torch.no_grad()
    def forward(self, x: torch.Tensor, at: TokenPositions) -> WithPositions:
        angles = at.ids[:, :, None].float() * self.frequencies(at)  # (B, T, K/2)
        cos, sin = angles.cos()[:, :, None], angles.sin()[:, :, None]
        if self.attention_scaling != 1.0:
            cos, sin = cos * self.attention_scaling, sin * self.attention_scaling
        return WithPositions(x, rotation=(cos.to(x.dtype), sin.to(x.dtype)))


class XformerChangingRotaryEmbedding(XformerRotaryEmbedding):
    """
    Rotary positions whose frequencies depend on the length of a token's text, and on nothing else in the batch.

    In the library they are those of the longest row of this batch or, within limits, of an earlier one.
    """

    def __init__(self, config: XformerConfig, stack: str):
        super().__init__(config, stack)
        self.unchanged = config.rope_unchanged()
        self.change = nn.Buffer(self.compute_change(), persistent=False)  # (K/2,)

    def compute_change(self) -> torch.Tensor:
        """What a long text's frequencies are computed from."""
        raise NotImplementedError

    def initialise(self) -> None:
        super().initialise()
        init.copy_(self.change, self.compute_change())


class XformerDynamicRotaryEmbedding(XformerChangingRotaryEmbedding):
    """
    Frequencies of a base that grows with a text's length beyond `max_position_embeddings`, "NTK-aware".

    The library's function of one length, for many: the base's growth is taken out of the power.
    """

    def compute_change(self) -> torch.Tensor:
        width = self.config.head_dim
        return -torch.arange(0, width, 2, dtype=torch.float32) / (width - 2)

    def frequencies(self, at: TokenPositions) -> torch.Tensor:
        excess = (at.lengths() / self.unchanged - 1).clamp(min=0)  # (B or 1, T or 1)
        growth = 1 + self.config.rope_parameters["factor"] * excess[:, :, None]
        return self.inv_freq.float() * growth**self.change


class XformerLongRotaryEmbedding(XformerChangingRotaryEmbedding):
    """Frequencies by `long_factor` for texts of more than `original_max_position_embeddings`, or by `short_factor`."""

    def compute_change(self) -> torch.Tensor:
        return ROPE_INIT_FUNCTIONS[self.rope_type](self.config, seq_len=self.unchanged + 1)[0]

    def frequencies(self, at: TokenPositions) -> torch.Tensor:
        return torch.where(at.lengths()[:, :, None] > self.unchanged, self.change, self.inv_freq.float())


CHANGING = {"dynamic": XformerDynamicRotaryEmbedding, "longrope": XformerLongRotaryEmbedding}


def rotary_positions(config: XformerConfig, stack: str) -> XformerRotaryEmbedding:
    """
    Makes the rotary positions of a stack.

    Those of a decoder are constant: its cache holds keys that were rotated while the text was shorter, and a token's
    features would depend on the tokens behind it. The config limits its texts to those that are short enough.
    """
    changing = CHANGING if stack == "encoder" else {}
    return changing.get(config.rope_parameters["rope_type"], XformerRotaryEmbedding)(config, stack)


class XformerRelativePositions(nn.Module):
    """
    A trained bias of the scores for each head and each bucket of distances (Raffel et al. 2020, section 2.1).

    The layers of a stack share one table, or each has its own (Chung et al. 2023). The biases are computed once per
    forward. The columns of a head are adjacent, so that tensor parallelism can give each process some of the heads.
    """

    def __init__(self, config: XformerConfig, stack: str):
        super().__init__()
        heads, layers = config.heads_of(stack)[0], len(config.layer_types_of(stack))
        self.tables, self.shared_by = (layers, 1) if config.relative_attention_per_layer else (1, layers)
        self.table = nn.Embedding(config.relative_attention_num_buckets, heads * self.tables)
        self.config = config
        self.directions = 2 if stack == "encoder" else 1
        self.max_distance = config.relative_attention_max_distance

    def keep_layers(self, kept: Sequence[int]) -> None:
        """Takes the tables of all other layers out."""
        if self.tables == 1:
            self.shared_by = len(kept)
            return
        columns = self.table.weight.unflatten(-1, (-1, self.tables))[:, :, list(kept)]  # (buckets, H, tables)
        self.tables = len(kept)
        self.table.weight = nn.Parameter(columns.detach().flatten(1).clone(), self.table.weight.requires_grad)
        self.table.embedding_dim = self.table.weight.shape[1]

    def buckets(self, distance: torch.Tensor) -> torch.Tensor:
        """Buckets of `key - query`: half of each direction's hold one distance, the others logarithmically more."""
        size = self.table.num_embeddings // self.directions
        ahead = (distance > 0) * size * (self.directions - 1)
        distance = distance.abs() if self.directions == 2 else (-distance).clamp(min=0)
        exact = size // 2
        share = (distance.clamp(min=1).float() / exact).log() / math.log(self.max_distance / exact)
        wide = (exact + (share * (size - exact)).long()).clamp(max=size - 1)
        return ahead + torch.where(distance < exact, distance, wide)

    def forward(self, x: torch.Tensor, at: TokenPositions) -> WithPositions:
        # Distances in the row, not between positions: they are the same wherever the attended tokens are contiguous.
        queries = torch.arange(at.queries, device=x.device) + at.past
        distance = torch.arange(at.keys, device=x.device) - queries[:, None]  # (T, S)
        biases = self.table(self.buckets(distance)).unflatten(-1, (-1, self.tables))  # (T, S, H, tables)
        # FlexAttention indexes the rows of the bias; the other backends broadcast it.
        rows = x.shape[0] if self.config._attn_implementation == "flex_attention" else 1
        biases = biases.permute(3, 2, 0, 1).unsqueeze(1).expand(-1, rows, -1, -1, -1)  # (tables, rows, H, T, S)
        return WithPositions(x, biases=biases.unbind() * self.shared_by)


POSITIONS = {
    "none": XformerNoPositions,
    "sinusoidal": XformerSinusoidalPositions,
    "learned": XformerLearnedPositions,
    "rope": rotary_positions,
    "relative": XformerRelativePositions,
}


def count_positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Position of each token among the attended tokens of its row, (B, S) -> (B, S): padding shifts none."""
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
