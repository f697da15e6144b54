# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Training in 16 bits on the device: the train command's runs, and the loss scale of float16."""

import functools
import importlib
import json
from pathlib import Path

import pytest
import torch
from small_models import make_batch, make_model, pack
from small_runs import SMALL, weights
from torch.amp import GradScaler


def trained(task, folder: Path, device: torch.device, **options) -> list[float]:
    """Trains by `hf-xformer train`, in this process, and returns the losses that it logged."""
    for package in ("datasets", "evaluate"):
        pytest.importorskip(package, reason=f"the train command needs {package}, which is not installed")
    train = importlib.import_module("hf_xformer.commands.train")
    use_cpu = "true" if device.type == "cpu" else None
    # Heads as wide as the kernel of varlen takes them, which a run in 16 bits chooses on a GPU.
    model = {"config_overrides": SMALL.replace("d_model=16", "d_model=32")}
    defaults = {"max_steps": 16, "logging_steps": 4, "use_cpu": use_cpu, **model}
    train.main(task.options(folder, **{**defaults, **options}))
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [each["loss"] for each in history if "loss" in each]


@pytest.fixture(scope="module")
def full_precision(task, tmp_path_factory, device) -> list[float]:
    """Losses of the run in float32 that the others are held against."""
    return trained(task, tmp_path_factory.mktemp("float32"), device)


@pytest.mark.parametrize("packing", ["false", "true"])
def test_a_run_in_bfloat16_learns_what_one_in_float32_does(packing, task, tmp_path, device, full_precision):
    losses = trained(task, tmp_path, device, bf16="true", packing=packing)
    assert losses[-1] < 0.95 * losses[0]
    assert losses[-1] == pytest.approx(full_precision[-1], rel=0.1)
    assert weights(tmp_path).isfinite().all()


OPTIONS = {
    "muon": {"optim": "muon", "learning_rate": 3e-3, "packing": "true"},
    "R-Drop": {"r_drop": 1.0, "packing": "true"},
    "parts": {"freeze": "encoder.norm", "lr_multipliers": "encoder=0.5"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_optimizers_and_losses_of_ours_learn_in_bfloat16(options, task, tmp_path, device):
    overrides = SMALL.replace("d_model=16", "d_model=32").replace("dropout=0.0", "dropout=0.05")
    losses = trained(task, tmp_path, device, bf16="true", config_overrides=overrides, **options)
    assert losses[-1] < 0.97 * losses[0] and weights(tmp_path).isfinite().all()


def test_a_run_in_float16_survives_overflow_and_learns(task, tmp_path, device, on_gpu, full_precision, monkeypatch):
    """The loss is scaled so far at first that gradients overflow: those steps are left out, and the scale falls."""
    scales: list[float] = []
    update = GradScaler.update

    def recorded(self, *args, **kwargs):
        update(self, *args, **kwargs)
        scales.append(self.get_scale())

    start = functools.partialmethod(GradScaler.__init__, init_scale=2.0**40)
    monkeypatch.setattr(GradScaler, "__init__", start)
    monkeypatch.setattr(GradScaler, "update", recorded)
    losses = trained(task, tmp_path, device, fp16="true", max_steps=60)
    assert scales[0] < 2.0**40 and scales[-1] == scales[-5] <= 2.0**32
    assert losses[-1] < 0.95 * losses[0]
    assert weights(tmp_path).isfinite().all()


def test_float16_steps_that_overflow_change_nothing_and_the_scale_recovers(device):
    """The same by hand, on any device: padded and packed rows, and the loss without logits."""
    model = make_model(dropout=0.0).to(device).train()
    padded = make_batch()
    batches = [padded, pack(padded, [[0, 1], [2]])]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scaler = GradScaler(device.type, init_scale=2.0**40)
    losses, skipped = [], 0
    for step in range(50):
        batch = {name: each.to(device) for name, each in batches[step % 2].items()}
        with torch.autocast(device.type, torch.float16):
            loss = model(**batch).loss
        scaler.scale(loss).backward()
        before, scale = model.lm_head.weight.detach().clone(), scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        overflowed = scaler.get_scale() < scale
        assert torch.equal(model.lm_head.weight, before) is overflowed
        skipped += overflowed
        losses.append(loss.item())
    assert 3 < skipped < 30
    assert losses[-1] < 0.5 * losses[0]
    assert all(each.isfinite().all() for each in model.parameters())
