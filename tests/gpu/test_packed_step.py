# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A training step of packed rows on a GPU, where torch itself refuses to wait."""

import pytest
import torch
from accelerate.utils import send_to_device
from small_models import make_model
from small_waits import PACKED_MODELS, make_packed, train_step
from torch.testing import assert_close
from torch.utils.data import DataLoader


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("overrides", PACKED_MODELS.values(), ids=PACKED_MODELS)
def test_a_training_step_of_packed_rows_never_waits_for_the_gpu(overrides, backend):
    (batch,) = DataLoader([make_packed()], batch_size=1, collate_fn=lambda batches: batches[0], pin_memory=True)
    assert batch["packing"]["index"].is_pinned()
    batch, model = send_to_device(batch, "cuda", non_blocking=True), make_model(**overrides, dropout=0.0)
    model.set_attn_implementation(backend)
    train_step(model, batch, "cuda")  # the first step sets up libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = train_step(model, batch, "cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # A model that is given no layout waits, and computes the same.
    del batch["packing"]
    assert_close(model(**batch, num_items_in_batch=17).loss, loss)
