# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Attention masks: they split an attention into calls of the backend and join the results.

Shapes: B batch, T queries, S keys, H query heads, G key and value heads, K head width.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask


Mask = torch.Tensor | BlockMask | None  # as the backend takes it
Result = tuple[torch.Tensor, torch.Tensor | None]  # mixed values (B, T, H * K); weights if the backend returns them


class Part(NamedTuple):
    """One call of the backend."""

    q: torch.Tensor  # (B, H, T, K)
    k: torch.Tensor  # (B, G, S, K)
    v: torch.Tensor  # (B, G, S, K)
    mask: Mask
    options: dict[str, Any]  # further keyword arguments


class AttentionMask(Protocol):
    """
    The keys that the queries of a layer attend to.

    Every implementation is a named tuple, because accelerate moves the tensors of tuples to the device of a layer.
    """

    def split(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, position_bias: torch.Tensor | None = None
    ) -> Iterable[Part]:
        """
        Splits an attention into calls of the backend.

        Args:
            q: (B, H, T, K). k, v: (B, G, S, K). position_bias: Added to the scores, (1 or B, H, T, S).
        """

    def join(self, results: Iterator[Result]) -> Result:
        """Takes the results of its parts, in their order, and returns the one of the attention that it split."""


class WholeMask(NamedTuple):
    """Attention over whole rows in one call."""

    mask: Mask
    options: dict[str, Any] = {}

    def split(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, position_bias: torch.Tensor | None = None
    ) -> Iterable[Part]:
        return (Part(q, k, v, self.mask, {"position_bias": position_bias, **self.options}),)

    def join(self, results: Iterator[Result]) -> Result:
        return next(results)


class VariableLengthMask(NamedTuple):
    """
    Attention to padded rows of another sequence by FlashAttention.

    The library would cut the queries by the mask of the keys (transformers issue 35032). Given the lengths of both, it
    calls the kernel for variable lengths.
    """

    attended: torch.Tensor  # keys, (B, S)
    lengths: dict[str, torch.Tensor | int]

    @classmethod
    def of(cls, attended: torch.Tensor, queries: int) -> "VariableLengthMask":
        """
        Makes the mask of padded keys and of as many queries in every row.

        Args:
            attended: The keys to attend to are 1, (B, S). queries: Their number in every row, T.
        """
        key_lengths = attended.sum(dim=-1, dtype=torch.int32)
        lengths: dict[str, torch.Tensor | int] = {
            "cu_seq_lens_q": torch.arange(len(attended) + 1, dtype=torch.int32, device=attended.device) * queries,
            "cu_seq_lens_k": nn.functional.pad(key_lengths.cumsum(0, dtype=torch.int32), (1, 0)),
            "max_length_q": queries,
            "max_length_k": int(key_lengths.max()),
        }
        return cls(attended.bool(), lengths)

    def split(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, position_bias: torch.Tensor | None = None
    ) -> Iterable[Part]:
        q = q.transpose(0, 1).flatten(1, 2)[None]  # (1, H, B * T, K)
        k, v = (y.transpose(1, 2)[self.attended].transpose(0, 1)[None] for y in (k, v))  # (1, G, all keys, K)
        return (Part(q, k, v, None, self.lengths),)

    def join(self, results: Iterator[Result]) -> Result:
        x, weights = next(results)  # (1, B * T, H * K)
        return x.unflatten(1, (len(self.attended), -1)).squeeze(0), weights


def mask_across(mask: Mask, queries: int) -> AttentionMask:
    """
    Attention of so many queries a row to keys of another sequence, under a mask as the backend takes it.

    The mask of the keys alone, (B, S), is FlashAttention's.
    """
    if not isinstance(mask, torch.Tensor) or mask.ndim != 2:
        return WholeMask(mask)
    return VariableLengthMask.of(mask, queries)
