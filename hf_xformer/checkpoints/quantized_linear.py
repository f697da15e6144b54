# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Linear layers with weights of 8 or 4 bits, by torch's own kernels for a CPU. They decode and do not train.

Shapes: N input features, M output features, C groups of a row.
"""

import functools
import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import torch
from torch import nn


INT8_LARGEST = 127
INT4_LEVELS = 16
# Features that share a scale and an offset, and the multiple that the kernel wants of the rows.
GROUP, ROWS = 32, 16
# Backends of torch's quantised operators that take 8 bits a channel, the fastest first.
BACKENDS = ("fbgemm", "x86", "onednn")


def usable_backends() -> list[str]:
    """Returns those of `BACKENDS` that this torch has on this machine."""
    if not hasattr(torch, "quantize_per_channel"):  # which later releases of torch are to lose
        return []
    return [name for name in BACKENDS if name in torch.backends.quantized.supported_engines]


@contextmanager
def quantised_backend(name: str) -> Iterator[None]:
    """Makes torch pack weights for a backend within a block."""
    earlier = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        with warnings.catch_warnings():
            # It says that the types of quantised tensors will go; there is no other way to pack weights yet.
            warnings.filterwarnings("ignore", message=".*quantized tensor creation functions.*")
            yield
    finally:
        torch.backends.quantized.engine = earlier


# Graphs hold tensors and numbers, and no weights that torch has packed into objects of its own.
NUMBERS = itertools.count()
LAYERS: "WeakValueDictionary[int, Int8Linear]" = WeakValueDictionary()


@torch.library.custom_op("hf_xformer::int8_product", mutates_args=())
def int8_product(x: torch.Tensor, layer: int, width: int) -> torch.Tensor:
    """The product of a layer, by its number, as one operator of a compiled graph."""
    return LAYERS[layer].product(x)


@int8_product.register_fake
def shape_of_product(x: torch.Tensor, layer: int, width: int) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], width)


class Int8Linear(nn.Module):
    """
    A linear layer in 8 bits: one scale a row of the weights, and inputs that are rounded to 8 bits as they come.

    Args:
        linear: Is copied.
        backend: One of `usable_backends`.
    """

    def __init__(self, linear: nn.Linear, backend: str):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        bias = None if linear.bias is None else linear.bias.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / INT8_LARGEST  # (M,)
        with quantised_backend(backend):
            rounded = torch.quantize_per_channel(weight, scale, torch.zeros_like(scale).long(), 0, torch.qint8)
            self.packed = torch.ops.quantized.linear_prepack(rounded, bias)
        self.reduce_range = saturates(backend)
        self.register()

    def __setstate__(self, state):
        super().__setstate__(state)
        self.register()  # a copy is another one

    def register(self) -> None:
        """Gives the layer a number, by which a compiled graph finds it."""
        self.number = next(NUMBERS)
        LAYERS[self.number] = self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():
            return int8_product(x.float(), self.number, self.out_features).to(x.dtype)
        return self.product(x.float()).to(x.dtype)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.quantized.linear_dynamic(x, self.packed, self.reduce_range)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


@functools.cache
def saturates(backend: str) -> bool:
    """
    Returns whether this CPU adds products of 8 bits in 16, as those without VNNI do: inputs then have one bit less.

    Found out by sums that are too large for 16 bits.
    """
    with quantised_backend(backend):
        scale = torch.full((ROWS,), 1 / INT8_LARGEST)
        ones = torch.quantize_per_channel(torch.ones(ROWS, 64), scale, torch.zeros_like(scale).long(), 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(ones, None)
    return bool((torch.ops.quantized.linear_dynamic(torch.ones(1, 64), packed, False) < 60).any())


class Int4Linear(nn.Module):
    """
    A linear layer with weights of 4 bits, a scale and an offset for each 32 features of a row. It computes in
    bfloat16, for which torch has a fast kernel.

    Args:
        linear: Is copied; its sizes are those of [`fits_int4`].
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        groups = linear.weight.detach().float().unflatten(1, (-1, GROUP))  # (M, C, GROUP)
        least, half = groups.amin(dim=-1), INT4_LEVELS // 2
        scale = (groups.amax(dim=-1) - least).clamp(min=1e-12) / (INT4_LEVELS - 1)  # (M, C)
        # The kernel counts levels from the middle one, and has scale and offset in bfloat16.
        offsets = torch.stack((scale, least + scale * half), dim=-1).bfloat16()  # (M, C, 2)
        scale, middle = (each[..., None].float() for each in offsets.unbind(dim=-1))
        levels = ((groups - middle) / scale + half).round().clamp(0, INT4_LEVELS - 1)
        self.packed = nn.Buffer(torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels.flatten(1).int(), 1))
        self.offsets = nn.Buffer(offsets.transpose(0, 1).contiguous())  # (C, M, 2)
        self.bias = None if linear.bias is None else nn.Buffer(linear.bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, self.in_features).bfloat16()
        offsets = self.offsets.bfloat16()  # a model's `float()` and `half()` change them
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, offsets)
        y = y.to(x.dtype).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def fits_int4(linear: nn.Linear) -> bool:
    """Returns whether the kernel for 4 bits takes a layer's sizes."""
    return linear.in_features % GROUP == 0 and linear.out_features % ROWS == 0
