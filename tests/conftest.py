# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test may ask for."""

import base64
import gc
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch


try:
    from hypothesis import settings
except ImportError:  # a machine without the network, with what tests/gpu needs
    settings = None


# Read when the libraries are imported: a name that is no folder fails at once and not after many tries, and DeepSpeed
# does not look for a GPU.
os.environ["HF_HUB_OFFLINE"] = "1"
if not torch.accelerator.is_available():
    os.environ["DS_ACCELERATOR"] = "cpu"
# Where DeepSpeed compiles: what another interpreter or torch has compiled there would be compiled anew, by turns.
os.environ.setdefault(
    "TORCH_EXTENSIONS_DIR",
    str(Path.home() / f".cache/torch_extensions/{torch.__version__}-{zlib.crc32(sys.prefix.encode()):08x}"),
)

from small_kernels import StandIn  # noqa: E402
from small_runs import ROOT, Task, make_task  # noqa: E402
from torch._higher_order_ops.flex_attention import math_attention  # noqa: E402
from torch.nn.attention import flex_attention  # noqa: E402
from transformers import masking_utils  # noqa: E402
from transformers.integrations import flex_attention as flex_integration  # noqa: E402

from hf_xformer.checkpoints import number_formats
from hf_xformer.models import varlen_xformer


# How many random examples a property is tried on.
if settings is not None:
    settings.register_profile("push", max_examples=40, deadline=None, derandomize=True)
    settings.register_profile("nightly", max_examples=2000, deadline=None)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "push"))

# The models here are tiny and the workers several: more threads would only wait for each other.
torch.set_num_threads(1)


# Whatever processor runs the tests, in their own process its formats of 16 bits are as fast as float32.
MEASURED_SLOWDOWN = number_formats.slowdown
number_formats.slowdown = lambda dtype: 1.0

# One pixel, in place of a run's curves.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAHLCMmQAAAABJRU5ErkJggg=="
)

# DeepSpeed's processes on a CPU exchange gradients through files of 69 MB here, and leave them behind.
SHARED_MEMORY, EXCHANGED = Path("/dev/shm"), "deepspeed_allreduce_buffer_*"
BEFORE = pytest.StashKey[set[Path]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[BEFORE] = {*SHARED_MEMORY.glob(EXCHANGED)}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Deletes what this run's DeepSpeed has left, once all workers have ended."""
    if not hasattr(session.config, "workerinput"):
        for path in {*SHARED_MEMORY.glob(EXCHANGED)} - session.config.stash[BEFORE]:
            path.unlink(missing_ok=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts modules that take long first: one that came last would keep one of the workers alone busy."""
    weights: Counter[Path] = Counter()
    for item in items:
        takes_long = item.get_closest_marker("slow") or item.get_closest_marker("distributed")
        weights[item.path] += 30 if takes_long else 1
    items.sort(key=lambda item: -weights[item.path])


def pytest_collection_finish() -> None:
    """
    Has trainings in this process draw no curves, which would take as long as their steps, and takes what the imports
    have made out of the garbage collector's sight: trainings have it look often.
    """
    if train := sys.modules.get("hf_xformer.commands.train"):
        train.plot_curves = lambda log_history, path: path.write_bytes(PIXEL)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the project's source tree."""
    return ROOT


@pytest.fixture(scope="session")
def task(tmp_path_factory) -> Task:
    return make_task(tmp_path_factory.mktemp("backwards"))


@pytest.fixture
def measured_slowdown() -> Callable:
    """The function that times the processor which runs the tests, and has timed nothing yet."""
    MEASURED_SLOWDOWN.cache_clear()
    return MEASURED_SLOWDOWN


@pytest.fixture
def slow_formats(monkeypatch):
    """A processor that has no instructions for 16 bits."""
    monkeypatch.setattr(number_formats, "slowdown", lambda dtype: 31.2)


@pytest.fixture
def plain_flex_masks(monkeypatch):
    """FlexAttention's masks as torch makes them uncompiled. The library compiles each, which takes seconds a mask."""
    plain = flex_attention.create_block_mask
    monkeypatch.setattr(masking_utils, "create_block_mask", lambda **options: plain(**{**options, "_compile": False}))


@pytest.fixture
def traced_flex_attention(plain_flex_masks, monkeypatch):
    """All of it traced and not compiled: that has a backward pass on a CPU, though torch refuses for the other."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(flex_integration.WrappedFlexAttention, "__call__", lambda self: flex_attention.flex_attention)


@pytest.fixture
def plain_flex_attention(traced_flex_attention, monkeypatch):
    """Torch's own reference of it, which is not traced either where torch can leave that out: that takes seconds."""
    if hasattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"):
        monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
        monkeypatch.setattr(flex_attention, "flex_attention_hop", math_attention)


@pytest.fixture
def varlen(monkeypatch) -> StandIn:
    """A stand-in for torch's kernel for variable lengths, which needs a GPU and half precision."""
    stand_in = StandIn()
    monkeypatch.setattr(varlen_xformer, "varlen_attn", stand_in.of_torch_2_13)
    monkeypatch.setattr(varlen_xformer, "GROUPED", varlen_xformer.grouped_heads(stand_in.of_torch_2_13))
    monkeypatch.setattr(varlen_xformer, "missing_kernel", lambda: None)
    monkeypatch.setattr(varlen_xformer, "KERNEL_DEVICE", "cpu")
    monkeypatch.setattr(varlen_xformer, "KERNEL_DTYPES", (torch.float32, torch.float64))
    return stand_in
