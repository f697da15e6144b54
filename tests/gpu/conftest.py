# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Fixtures of the tests for a GPU, which run on a CPU too, so that on the day there is a GPU nothing fails for a typo.

XFORMER_TEST_DEVICE says where they run ("cuda" by default) and XFORMER_TEST_TINY=1 that they do only enough to have
run every line; `make gpu-check` sets both.
"""

import gc
import os
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before tests are deselected by their marks
def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test."""
    chosen = torch.device(os.environ.get("XFORMER_TEST_DEVICE", "cuda"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU; XFORMER_TEST_DEVICE=cpu runs these tests on the CPU")
    return chosen


@pytest.fixture(scope="session")
def tiny() -> bool:
    """Tells whether sizes are to be the smallest that run every line."""
    return os.environ.get("XFORMER_TEST_TINY", "") in ("1", "true")


@pytest.fixture
def on_gpu(device):
    """Skips a test of what a CPU does not have."""
    if device.type != "cuda":
        pytest.skip(f"of a GPU alone, and this is {device}")


@pytest.fixture(autouse=True)
def on_gpu_unless_any_device(request):
    """Skips on a CPU the tests that do not ask for a device: they name the GPU themselves."""
    if "device" not in request.fixturenames:
        request.getfixturevalue("on_gpu")


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations have made and that still exist, and the most at any time."""

    live = peak = 0

    def __init__(self):
        super().__init__()
        self.counted: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # Memory that is taken already is not the run's.
        known = {each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if torch.is_tensor(each)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if torch.is_tensor(tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in known | self.counted:
                    self.counted.add(storage._cdata)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self.forget, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return out

    def forget(self, key: int, size: int) -> None:
        self.counted.discard(key)
        self.live -= size


@pytest.fixture
def peak_bytes(device) -> Callable[[Callable], int]:
    """Runs a function and returns the most memory in bytes that its tensors had at a time."""

    def measure(run: Callable) -> int:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - before
        with LiveBytes() as counter:
            run()
        return counter.peak

    return measure
