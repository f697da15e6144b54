# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Nodes compute what torch's modules compute, by the reference evaluator of ONNX, which shares no code with ours."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers.activations import ACT2FN

from hf_xformer.checkpoints.onnx_nodes import ACTIVATIONS, Graph


pytest.importorskip("onnx")

X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


def evaluate(graph: Graph, value: str, **inputs) -> torch.Tensor:
    from onnx import checker, reference

    graph.output("y", value, ("a", "b", "c"))
    model = graph.model()
    checker.check_model(model, full_check=True)
    (y,) = reference.ReferenceEvaluator(model).run(None, {name: each.numpy() for name, each in inputs.items()})
    return torch.from_numpy(np.asarray(y))


def graph_of_features(int8: bool = False) -> tuple[Graph, str]:
    graph = Graph("test", int8)
    return graph, graph.input("x", "float32", X.shape)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_the_librarys(name):
    graph, x = graph_of_features()
    assert_close(evaluate(graph, ACTIVATIONS[name](graph, x), x=3 * X), ACT2FN[name](3 * X), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", [nn.RMSNorm(8, eps=1e-2), nn.LayerNorm(8, eps=1e-2), nn.Identity()], ids=str)
def test_norms_are_torchs(norm):
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    graph, x = graph_of_features()
    y = evaluate(graph, graph("Add", graph.norm(x, "norm", norm), 0.0), x=X)
    assert_close(y, norm(X).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("bias", [False, True])
def test_stacked_layers_stand_side_by_side(int8, bias):
    layers = [nn.Linear(8, width, bias=bias) for width in (5, 3)]
    graph, x = graph_of_features(int8)
    y = evaluate(graph, graph.linear(x, "both", *layers), x=X)
    expected = torch.cat([layer(X) for layer in layers], dim=-1).detach()
    assert_close(y, expected, atol=0.05 if int8 else 1e-5, rtol=0)
    assert graph.used == {id(each) for layer in layers for each in (layer.weight, layer.bias)}


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
def test_a_tied_table_is_written_once(int8):
    table = nn.Linear(8, 11, bias=False)
    graph = Graph("test", int8)
    ids = graph.input("ids", "int64", (2, 3))
    y = graph.linear(graph.embedding(ids, "table", table.weight), "table", table)
    tokens = torch.tensor([[1, 0, 10], [4, 4, 7]])
    assert_close(evaluate(graph, y, ids=tokens), table(table.weight[tokens]).detach(), atol=0.05, rtol=0)
    assert sum(name.startswith("table") for name in graph.tensors) == 1 + int8
