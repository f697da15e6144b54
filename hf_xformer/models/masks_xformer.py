# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Attention masks: they split an attention into calls of the backend and join the results.

Shapes: B batch, T queries, S keys, H query heads, G key and value heads, K head width.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch.nn.attention.flex_attention import BlockMask


MASKED = -1000.0  # what is added to the score of a key that is not attended to, or less: `exp` of it is nothing
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


def attended_by_any(mask: Any) -> Any:
    """
    Returns a mask of the keys that any query attends to, (B, 1, 1, S), for one of four dimensions; others as they are.

    Args:
        mask: True or 1 for what is attended to, or added to the scores; what it adds to those that are attended to is
            the queries' own.
    """
    if not isinstance(mask, torch.Tensor) or mask.ndim != 4 or mask.shape[1:3] == (1, 1):
        return mask
    attended = mask > MASKED if mask.is_floating_point() else mask.bool()
    return attended.amax(dim=(1, 2), keepdim=True)


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
