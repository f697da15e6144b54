# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers of one input as a single matrix product while decoding, with weights packed for the processor.

A step of decoding reads every weight for a handful of rows. On a CPU, torch's own product of few rows reads a plain
weight at less than half the speed at which oneDNN reads one that it has packed. The layers and their parameters stay
as they are: the joined and packed weights are copies beside them, made anew when a parameter has changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn


PACKED_TYPES = (torch.float32, torch.bfloat16)
LOOKED_AT = 32  # rows of a weight before each product, for less than a hundredth of a step; all before each text
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by their size in bytes


class XformerProduct:
    """
    The product of an input and the weights of several linear layers, joined.

    Args:
        layers: Linear layers of one input width.
    """

    def __init__(self, *layers: nn.Linear):
        self.layers = layers
        self.sizes = [layer.out_features for layer in layers]
        self.state: list[tuple[int, int]] = []
        self.held: list[torch.Tensor] = []
        self.rows: list[Any] = []  # a number of each row of the parameters
        self.some_rows: list[Any] = []
        self.numbers: list[bytes] = []
        self.some_numbers: list[bytes] = []
        self.weight: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None
        self.packed: torch.Tensor | None = None

    def __reduce__(self):
        # Packed weights can be neither copied nor pickled: a copy makes its own.
        return XformerProduct, self.layers

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns the outputs (..., out_features) of all layers for an input (..., in_features)."""
        if self.state != states(self.layers) or self.some_numbers != [each.tobytes() for each in self.some_rows]:
            self.join()
        if self.packed is not None and x.dtype == self.packed.dtype:
            y = torch.ops.mkldnn._linear_pointwise.default(x, self.packed, self.bias, "none", [], "")
        else:
            y = nn.functional.linear(x, self.weight, self.bias)  # type: ignore[arg-type]
        return (y,) if len(self.sizes) == 1 else y.split(self.sizes, dim=-1)

    def renew(self) -> None:
        """Joins the weights anew if a row of one has changed in a way that leaves no trace."""
        if self.numbers != [each.tobytes() for each in self.rows]:
            self.join()

    @torch.no_grad()
    def join(self) -> None:
        """Copies the layers' weights into one, packed if the processor has a format of its own for it."""
        self.state = states(self.layers)
        # As long as these are held no other tensor takes their place in memory, by which a change is noticed.
        self.held = [each.detach() for layer in self.layers for each in layer.parameters()]
        self.rows = [numbers_of_rows(each) for each in self.held if each.device.type == "cpu"]
        self.some_rows = [each[:: -(-len(each) // LOOKED_AT)] for each in self.rows]
        self.numbers, self.some_numbers = ([each.tobytes() for each in some] for some in (self.rows, self.some_rows))
        biases = [layer.bias.detach() for layer in self.layers if layer.bias is not None]
        self.bias = torch.cat(biases) if biases else None
        weight = torch.cat([layer.weight.detach() for layer in self.layers])
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight) if can_pack(weight) else None
        self.weight = weight if self.packed is None else None


def states(layers: Iterable[nn.Linear]) -> list[tuple[int, int]]:
    """Returns where the parameters of layers lie in memory and how often they were changed there."""
    return [
        (each.data_ptr(), each._version) for layer in layers for each in layer._parameters.values() if each is not None
    ]


def numbers_of_rows(x: torch.Tensor) -> Any:
    """
    Returns a number of each row of a tensor on a CPU, as a view of its bits for NumPy: from another column each if the
    tensor is contiguous, and else from the last.

    They show what `weight.data += update` has changed, as PEFT does to merge adapters: versions do not count that.
    """
    width = x.shape[-1] if x.ndim else 1
    # Steps that are one shorter than a row leave none out.
    numbers = x.view(-1)[:: max(1, width - 1)] if x.is_contiguous() else x[..., -1]
    return numbers.view(INTEGERS[x.element_size()]).numpy()


def can_pack(weight: torch.Tensor) -> bool:
    """Returns whether oneDNN packs such a weight (out, in) here, and multiplies it faster than torch does."""
    if weight.device.type != "cpu" or weight.dtype not in PACKED_TYPES or not torch.backends.mkldnn.is_available():
        return False
    # Only processors of this kind have its fast products; without instructions for bfloat16 it emulates them.
    is_fast = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return is_fast and (weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())


def is_plain(layer: nn.Module | None) -> bool:
    """Returns whether a module is a linear layer and nothing more: no adapter, quantised, divided or watched one."""
    if not isinstance(layer, nn.Linear) or type(layer.weight) is not nn.Parameter or layer.weight.is_inference():
        return False
    return not is_watched(layer) and layer.weight.shape == (layer.out_features, layer.in_features)


def is_watched(layer: nn.Linear) -> bool:
    """Returns whether a layer has hooks, as offloading puts them, or a weight that is computed, as by pruning."""
    has_hooks = layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__
    return bool(has_hooks) or "weight" not in layer._parameters


class XformerProjecting(nn.Module):
    """Base class of modules with linear layers, of which some take the same input."""

    # Names of the layers that make a product.
    joint: tuple[tuple[str, ...], ...] = ()
    products: Mapping[tuple[str, ...], XformerProduct] = {}

    def project(self, x: torch.Tensor, *names: str) -> Sequence[torch.Tensor]:
        """Returns the outputs of the linear layers of these names, for one input (..., in_features)."""
        layers = tuple([self._modules[name] for name in names])
        product = self.products.get(names)
        if product is None or product.layers != layers or wants_parameters() or any(map(is_watched, layers)):  # type: ignore[arg-type]
            return [layer(x) for layer in layers]  # type: ignore[misc]
        return product(x)

    def join_products(self) -> None:
        """Makes the products of the layers that are plain ones; adapters, quantised and divided layers stay apart."""
        self.products = products = {}
        for names in self.joint:
            layers = [self._modules[name] for name in names]
            if not all(is_plain(layer) for layer in layers):
                continue
            if len(names) > 1 or can_pack(layers[0].weight):  # type: ignore[union-attr,arg-type]
                products[names] = XformerProduct(*layers)  # type: ignore[arg-type]
                products[names].join()

    def forget_products(self) -> None:
        """Multiplies by the layers themselves again."""
        self.products = {}


def wants_parameters() -> bool:
    """
    Returns whether the layers' own parameters have to be multiplied: for gradients, in the types of autocast, or in a
    graph, whose compiler joins and packs them itself.
    """
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
