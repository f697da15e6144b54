# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of a layer besides attention: norms, feed-forward, residuals.

Shapes: B batch, T length, D d_model, F inner feed-forward width.
"""

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.activations import ACT2FN

from .configuration_xformer import XformerConfig
from .dropout_xformer import XformerDropout
from .fusing_xformer import XformerProjecting


class RootMeanSquareNorm(torch.autograd.Function):
    """`w x / sqrt(mean(x^2) + eps)` (Zhang and Sennrich 2019), in fewer passes over memory than torch's on a CPU."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        scale = x.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
        normed = x * scale
        ctx.save_for_backward(normed, weight, scale)
        return normed * weight

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        normed, weight, scale = ctx.saved_tensors
        product = grad * normed
        # The norm removes what changes along x, and with it that part of the gradient.
        along = (product @ weight).div_(-normed.shape[-1]).unsqueeze(-1)
        grad_x = torch.addcmul(grad * weight, normed, along).mul_(scale)
        return grad_x, product.reshape(-1, len(weight)).sum(dim=0), None


class XformerRMSNorm(nn.RMSNorm):
    """torch's RMSNorm, but for training in float32 on a CPU, where torch has no kernel for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        is_slow = torch.is_grad_enabled() and x.device.type == "cpu" and x.dtype == self.weight.dtype == torch.float32
        if is_slow and not torch.compiler.is_compiling():
            return RootMeanSquareNorm.apply(x, self.weight, self.eps)
        return super().forward(x)


NORMS = {"rmsnorm": XformerRMSNorm, "layernorm": nn.LayerNorm}


def make_norm(config: XformerConfig) -> nn.Module:
    return NORMS[config.norm_type](config.d_model, eps=config.norm_eps)


def make_input_norm(config: XformerConfig) -> nn.Module:
    """The norm in front of a sublayer and behind a stack; none for post-norm, whose residuals are normed already."""
    return nn.Identity() if config.norm_position == "post" else make_norm(config)


class XformerFeedForward(XformerProjecting):
    """`down(act(up(x)))` (Vaswani et al. 2017, section 3.3)."""

    joint: tuple[tuple[str, ...], ...] = (("up_proj",), ("down_proj",))

    def __init__(self, config: XformerConfig, ffn_dim: int):
        super().__init__()
        self.up_proj = nn.Linear(config.d_model, ffn_dim, bias=config.use_bias)
        self.down_proj = nn.Linear(ffn_dim, config.d_model, bias=config.use_bias)
        self.act = ACT2FN[config.activation_function]
        self.dropout = XformerDropout(config.activation_dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (y,) = self.project(x, "up_proj")
        return self.down(self.act(y))

    def down(self, y: torch.Tensor) -> torch.Tensor:
        """Inner features (B, T, F) to features (B, T, D)."""
        (x,) = self.project(self.dropout(y) if self.training else y, "down_proj")
        return x


class XformerGatedFeedForward(XformerFeedForward):
    """`down(act(gate(x)) * up(x))` (Shazeer 2020)."""

    joint = (("gate_proj", "up_proj"), ("down_proj",))

    def __init__(self, config: XformerConfig, ffn_dim: int):
        super().__init__(config, ffn_dim)
        self.gate_proj = nn.Linear(config.d_model, ffn_dim, bias=config.use_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, y = self.project(x, "gate_proj", "up_proj")
        return self.down(self.act(gate) * y)


FEED_FORWARDS = {False: XformerFeedForward, True: XformerGatedFeedForward}


class XformerResidual(nn.Module):
    """`x + y`, the path around a sublayer `f`: with `y = f(norm(x))` it is pre-norm (Xiong et al. 2020)."""

    def __init__(self, config: XformerConfig):
        super().__init__()
        self.dropout = XformerDropout(config.dropout)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + self.thinned(y)

    def thinned(self, y: torch.Tensor) -> torch.Tensor:
        """Applies dropout, in training; decoding would spend a hundredth of its time on calls that do nothing."""
        return self.dropout(y) if self.training else y


class XformerPostNormResidual(XformerResidual):
    """`norm(x + y)`, where `y = f(x)` (Vaswani et al. 2017, section 3.1)."""

    def __init__(self, config: XformerConfig):
        super().__init__(config)
        self.norm = make_norm(config)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.thinned(y))


class XformerSandwichResidual(XformerPostNormResidual):
    """`x + norm(y)`, where `y = f(norm(x))` (Ding et al. 2021, section 2.3)."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + self.thinned(self.norm(y))


RESIDUALS = {"pre": XformerResidual, "post": XformerPostNormResidual, "sandwich": XformerSandwichResidual}
