# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Builds ONNX graphs node by node, of standard operators alone: values by name, tensors once, layers and activations.

Shapes: B batch, T tokens, N input features, M output features.
"""

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import ArgumentError


OPSET = 17  # the first with LayerNormalization
IR_VERSION = 8  # that of this opset
INT8_LARGEST, INT8_ZERO = 127, 128
# Shape of one axis: a number, or the name of one that a call decides.
Shape = Sequence[int | str]


def load_onnx() -> ModuleType:
    """
    Imports onnx.

    Raises:
        ArgumentError: It is not installed.
    """
    return load_extra("onnx")


def load_extra(name: str) -> ModuleType:
    """
    Imports a library of the extra `onnx`.

    Raises:
        ArgumentError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ArgumentError(f"{name} is not installed: pip install 'hf-xformer[onnx]' ({error})") from error


class Graph:
    """
    A graph under construction. A value is named by a string; numbers and lists of them become constants.

    `graph("MatMul", x, w)` adds a node and returns the name of its output, or with `outputs=3` three names.

    Args:
        name: Of the graph.
        int8: Write weights in 8 bits, one scale a row, and multiply them in integers by inputs that are rounded to 8
            bits as they come, one scale a tensor.
    """

    def __init__(self, name: str, int8: bool = False):
        self.onnx, self.name, self.int8 = load_onnx(), name, int8
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.tensors: dict[str, Any] = {}
        self.rounded: dict[str, tuple[str, str, str]] = {}  # inputs in 8 bits, with scale and zero
        self.used: set[int] = set()  # ids of the parameters that are in the graph
        self.types = {
            np.dtype("float32"): self.onnx.TensorProto.FLOAT,
            np.dtype("int64"): self.onnx.TensorProto.INT64,
            np.dtype("bool"): self.onnx.TensorProto.BOOL,
        }

    def __call__(self, operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        made = [f"{operator}_{len(self.nodes)}.{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(operator, names, made, name=made[0], **attributes))
        return made[0] if outputs == 1 else tuple(made)

    def constant(self, value: Any) -> str:
        """Returns the name of a constant: numbers with a point are float32, others int64."""
        array = np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        return self.tensor(f"constant {array.dtype} {array.tolist()}", array)

    def tensor(self, name: str, value: torch.Tensor | np.ndarray) -> str:
        """Returns the name of a tensor, which is written once."""
        if name not in self.tensors:
            array = value.detach().numpy() if isinstance(value, torch.Tensor) else value
            self.tensors[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def parameter(self, name: str, value: torch.Tensor) -> str:
        """Returns the name of a model's parameter, of which account is kept."""
        self.used.add(id(value))
        return self.tensor(name, value)

    def input(self, name: str, dtype: str, shape: Shape) -> str:
        """Declares an input."""
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, self.types[np.dtype(dtype)], list(shape)))
        return name

    def output(self, name: str, value: str, shape: Shape) -> None:
        """Declares a value, of float32, to be an output of that name."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [value], [name], name=name))
        self.outputs.append(
            self.onnx.helper.make_tensor_value_info(name, self.types[np.dtype("float32")], list(shape))
        )

    def cast(self, x: str, dtype: str) -> str:
        """Converts a value to a type of `types`."""
        return self("Cast", x, to=self.types[np.dtype(dtype)])

    def linear(self, x: str, name: str, *layers: nn.Linear) -> str:
        """Applies linear layers that read the same features, (B, T, N), and returns theirs side by side, (B, T, M)."""
        weight = torch.cat([layer.weight.detach() for layer in layers])  # (M, N)
        self.used |= {id(parameter) for layer in layers for parameter in (layer.weight, layer.bias)}
        y = self.product(x, name, weight)
        if layers[0].bias is None:
            return y
        return self("Add", y, self.tensor(f"{name}.bias", torch.cat([layer.bias for layer in layers])))

    def product(self, x: str, name: str, weight: torch.Tensor) -> str:
        """Multiplies features (B, T, N) by a weight (M, N)."""
        if not self.int8:
            return self("MatMul", x, self.tensor(f"{name}.weight", weight.T))
        if x not in self.rounded:
            self.rounded[x] = self("DynamicQuantizeLinear", x, outputs=3)
        rounded, scale, zero = self.rounded[x]
        y = self("MatMulInteger", rounded, self.int8_weight(name, weight), zero, self.int8_zero())
        return self("Mul", self.cast(y, "float32"), self("Mul", scale, f"{name}.scale"))

    def int8_weight(self, name: str, weight: torch.Tensor) -> str:
        """
        Writes a weight (M, N) in 8 bits, as (N, M), and the scale of each row, (M,); returns the first's name.

        Its numbers are unsigned, as the inputs are: processors without VNNI add products of unsigned and signed
        numbers in 16 bits, and cut off what is larger.
        """
        scale = weight.detach().abs().amax(dim=1).clamp(min=1e-12) / INT8_LARGEST
        rounded = (weight.detach() / scale[:, None]).round() + INT8_ZERO
        self.tensor(f"{name}.scale", scale)
        return self.tensor(f"{name}.weight", rounded.to(torch.uint8).T)

    def int8_zero(self) -> str:
        """Returns the name of the number that stands for 0 in weights of 8 bits."""
        return self.tensor("zero of weights", np.asarray(INT8_ZERO, np.uint8))

    def embedding(self, ids: str, name: str, table: torch.Tensor) -> str:
        """
        Looks tokens (B, T) up in a table (M, N), and returns (B, T, N).

        The table is written as the weight of a linear layer is, so that a tied one is written once.
        """
        self.used.add(id(table))
        if not self.int8:
            columns = self("Gather", self.tensor(f"{name}.weight", table.T), ids, axis=1)  # (N, B, T)
            return self("Transpose", columns, perm=[1, 2, 0])
        columns = self.cast(self("Gather", self.int8_weight(name, table), ids, axis=1), "float32")
        columns = self("Sub", columns, float(INT8_ZERO))
        scale = self("Unsqueeze", self("Gather", f"{name}.scale", ids), [-1])  # (B, T, 1)
        return self("Mul", self("Transpose", columns, perm=[1, 2, 0]), scale)

    def norm(self, x: str, name: str, layer: nn.Module) -> str:
        """Applies a norm; the identity adds no node."""
        if isinstance(layer, nn.LayerNorm):
            weights = (self.parameter(f"{name}.{key}", value) for key, value in layer.named_parameters())
            return self("LayerNormalization", x, *weights, axis=-1, epsilon=layer.eps)
        if isinstance(layer, nn.RMSNorm):
            assert layer.eps is not None
            return self.rms_norm(x, self.parameter(f"{name}.weight", layer.weight), layer.eps)
        return x

    def rms_norm(self, x: str, weight: str, eps: float) -> str:
        """`w x / sqrt(mean(x^2) + eps)`, in the nodes in which onnxruntime finds it."""
        mean = self("ReduceMean", self("Pow", x, 2.0), axes=[-1], keepdims=1)
        return self("Mul", self("Div", x, self("Sqrt", self("Add", mean, eps))), weight)

    def range(self, first: Any, end: Any) -> str:
        """Whole numbers from one scalar to the one before another."""
        return self("Range", first, end, 1)

    def length(self, x: str, axis: int) -> str:
        """Size of an axis, a scalar."""
        return self("Squeeze", self("Shape", x, start=axis, end=axis + 1), [0])

    def model(self) -> Any:
        """Returns the whole as an `onnx.ModelProto`."""
        graph = self.onnx.helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, list(self.tensors.values())
        )
        opset = self.onnx.helper.make_opsetid("", OPSET)
        return self.onnx.helper.make_model(
            graph, producer_name="hf-xformer", ir_version=IR_VERSION, opset_imports=[opset]
        )


def gelu(graph: Graph, x: str) -> str:
    share = graph("Erf", graph("Div", x, 2.0**0.5))
    return graph("Mul", graph("Mul", x, graph("Add", share, 1.0)), 0.5)


def gelu_tanh(graph: Graph, x: str) -> str:
    cubed = graph("Mul", graph("Pow", x, 3.0), 0.044715)
    share = graph("Tanh", graph("Mul", graph("Add", x, cubed), (2 / np.pi) ** 0.5))
    return graph("Mul", graph("Mul", x, graph("Add", share, 1.0)), 0.5)


def silu(graph: Graph, x: str) -> str:
    return graph("Mul", x, graph("Sigmoid", x))


def quick_gelu(graph: Graph, x: str) -> str:
    return graph("Mul", x, graph("Sigmoid", graph("Mul", x, 1.702)))


def mish(graph: Graph, x: str) -> str:
    return graph("Mul", x, graph("Tanh", graph("Softplus", x)))


def squared_relu(graph: Graph, x: str) -> str:
    return graph("Pow", graph("Relu", x), 2.0)


# Names of transformers' activations -> their nodes.
ACTIVATIONS: dict[str, Callable[[Graph, str], str]] = {
    **dict.fromkeys(("gelu", "gelu_python"), gelu),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"), gelu_tanh),
    **dict.fromkeys(("silu", "swish"), silu),
    "quick_gelu": quick_gelu,
    "mish": mish,
    "relu": lambda graph, x: graph("Relu", x),
    "relu2": squared_relu,
    "sigmoid": lambda graph, x: graph("Sigmoid", x),
    "tanh": lambda graph, x: graph("Tanh", x),
    "linear": lambda graph, x: x,
}
