# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Training steps of packed rows: on a GPU torch itself refuses to wait, and one graph serves several layouts."""

from contextlib import contextmanager

import pytest
import torch
from accelerate.utils import send_to_device
from small_models import gradients, make_batch, make_model, pack
from small_waits import PACKED_MODELS, autocast, make_packed, train_step
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close
from torch.utils.data import DataLoader

from hf_xformer.models import make_packing, why_not_varlen


# Backend, and the type that autocast computes in.
STEPS = [("eager", None), ("sdpa", None), ("sdpa", torch.bfloat16), ("varlen", torch.bfloat16)]


def with_backend(model, backend: str):
    """Sets a model's backend; skips what varlen does not have, on a CPU all of it."""
    if backend == "varlen" and (reason := why_not_varlen(model.config)):
        pytest.skip(f"varlen {reason}")
    model.set_attn_implementation(backend)
    return model


@contextmanager
def no_waits(device: torch.device):
    """Has torch refuse to wait for a GPU."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("backend", "dtype"), STEPS)
@pytest.mark.parametrize("overrides", PACKED_MODELS.values(), ids=PACKED_MODELS)
def test_a_training_step_of_packed_rows_never_waits_for_the_gpu(overrides, backend, dtype, device):
    model = with_backend(make_model(**overrides, dropout=0.0), backend)
    is_cuda = device.type == "cuda"
    (batch,) = DataLoader([make_packed()], batch_size=1, collate_fn=lambda batches: batches[0], pin_memory=is_cuda)
    assert batch["packing"]["index"].is_pinned() == is_cuda
    batch = send_to_device(batch, device, non_blocking=True)
    train_step(model, batch, device.type, dtype)  # the first step sets up libraries
    with no_waits(device):
        loss = train_step(model, batch, device.type, dtype)
    # A model that is given no layout waits, and computes the same.
    del batch["packing"]
    with autocast(device.type, dtype):
        assert_close(model(**batch, num_items_in_batch=17).loss, loss)


def fixed_batches(device: torch.device) -> list[dict]:
    """Returns rows of one shape with other pairs in them, with the layout that a graph can read."""
    batches = [pack(make_batch(), layout, (32, 19)) for layout in ([[0, 1, 2]], [[1, 0]])]
    names = ("segment_ids", "decoder_segment_ids", "labels")
    batches = [{**each, "packing": make_packing(*(each[name] for name in names), fixed=True)} for each in batches]
    return send_to_device(batches, device)


def test_one_graph_under_varlen_serves_two_layouts_of_packed_rows(device, on_gpu):
    torch.compiler.reset()
    plain = make_model(dropout=0.0).to(device).train()
    model = with_backend(make_model(dropout=0.0).to(device).train(), "varlen")
    compilations = CompileCounterWithBackend("inductor")
    graph = torch.compile(model, backend=compilations, fullgraph=True)
    for batch in fixed_batches(device):
        plain.zero_grad()
        model.zero_grad()
        expected = plain(**{name: each for name, each in batch.items() if name != "packing"}).loss
        expected.backward()
        with autocast(device.type, torch.bfloat16):
            loss = graph(**batch).loss
        loss.backward()
        assert_close(loss.float(), expected, atol=0, rtol=2e-2)
        found, exact = (torch.cat([each.flatten() for each in gradients(x).values()]) for x in (model, plain))
        assert (found - exact).norm() < 0.1 * exact.norm()
    assert compilations.frame_count == 1
