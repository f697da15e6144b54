# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Dropout on a CPU: the right share, everywhere alike, by the generator of torch; what torch's does else."""

import math

import pytest
import torch
from torch.nn.functional import dropout

from hf_xformer.models.dropout_xformer import XformerDropout, drop


TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.5, 0.9])
def test_each_of_the_four_numbers_of_a_draw_drops_its_share(p):
    """Each by itself, both of two neighbours, and over rows: within five standard deviations of independent draws."""
    torch.manual_seed(0)
    is_dropped = (drop(torch.ones(2000, 1000), p) == 0).double()
    lanes = is_dropped.view(-1, 4)

    def check(share: torch.Tensor, expected: float, count: int) -> None:
        assert (share - expected).abs().max() < 5 * math.sqrt(expected * (1 - expected) / count)

    check(lanes.mean(dim=0), p, len(lanes))
    check((lanes * lanes.roll(1, dims=1)).mean(dim=0), p * p, len(lanes))
    check(is_dropped.mean(dim=0), p, 2000)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(7, 5), (3, 1, 2), (1,), (0, 4)], ids=str)
def test_what_is_kept_grows_by_what_is_dropped_and_gradients_follow(dtype, shape):
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype).requires_grad_()
    y = drop(x, 0.25)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y.dtype == dtype and y.shape == x.shape
    torch.testing.assert_close(y, x * gradient)
    assert set(gradient.flatten().tolist()) <= {0.0, torch.tensor(4 / 3, dtype=dtype).item()}


def test_the_seed_decides_and_the_mean_stays():
    torch.manual_seed(3)
    first, second = drop(torch.ones(1000, 1000), 0.3), drop(torch.ones(1000, 1000), 0.3)
    torch.manual_seed(3)
    assert torch.equal(first, drop(torch.ones(1000, 1000), 0.3)) and not torch.equal(first, second)
    assert first.mean().item() == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.3, False), (1.0, True)])
def test_all_or_nothing_is_as_torch_has_it(p, training):
    x = torch.randn(3, 4)
    torch.testing.assert_close(drop(x, p, training), dropout(x, p, training))


def test_not_contiguous_inputs_and_layers_in_evaluation():
    layer, x = XformerDropout(0.5), torch.randn(4, 6).T
    y = layer(x)
    assert y.shape == x.shape and torch.equal(y != 0, y == 2 * x)
    assert layer.eval()(x) is x
