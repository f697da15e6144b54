# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Our RMSNorm is torch's, in values and gradients, where it goes its own way."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from hf_xformer.models.sublayers_xformer import XformerRMSNorm


@pytest.mark.parametrize("shape", [(24,), (5, 24), (3, 7, 24), (2, 3, 1, 24)], ids=str)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_rmsnorm_has_the_values_and_gradients_of_torchs(shape, scale):
    torch.manual_seed(0)
    own, theirs = (norm(24, eps=1e-6) for norm in (XformerRMSNorm, nn.RMSNorm))
    own.weight.data = theirs.weight.data = torch.randn(24)
    x, weights, results = torch.randn(shape) * scale, torch.randn(shape), []
    for norm in (own, theirs):
        y = norm(x.requires_grad_())
        results.append((y, *torch.autograd.grad((y * weights).sum(), (x, norm.weight))))
    for one, other in zip(*results, strict=True):
        assert_close(one, other, atol=1e-5 * other.abs().max().item(), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_left_to_torch(dtype):
    own, theirs = (norm(24, eps=1e-6).to(dtype) for norm in (XformerRMSNorm, nn.RMSNorm))
    x = torch.randn(5, 24).to(dtype)
    assert torch.equal(own(x), theirs(x))
