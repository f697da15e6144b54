# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The check for a machine with one GPU: its time, what it ends, and what it says of packages that are missing."""

import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from small_kernels import in_a_graph
from small_runs import ROOT

from hf_xformer.models import varlen_xformer


pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks/gpu_check.py").exists(), reason="no benchmarks beside the tests"
)


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A1000", None),
        (None, None),
    ],
)
def test_a_cards_peak_is_found_by_its_name(card, expected):
    assert importlib.import_module("gpu_cases").peak_flops(card) == expected


def test_packed_rows_of_the_benchmark_have_hardly_any_padding():
    cases = importlib.import_module("gpu_cases")
    pairs = [{"input_ids": [5] * a, "labels": [5] * b} for a, b in ((300, 80), (80, 300), (17, 500), (500, 17))]
    batches = cases.batches_of(pairs)
    assert batches["packed"]["input_ids"].shape == batches["packed"]["labels"].shape == (1, 897)
    assert batches["fixed"]["input_ids"].shape == batches["fixed"]["labels"].shape == (1, 960)
    assert "labels" in batches["packed"]["packing"]["sizes"] and "labels" not in batches["fixed"]["packing"]["sizes"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "compiled"), [("padded", ""), ("packed", ""), pytest.param("fixed", "whole", marks=pytest.mark.slow)]
)
def test_ours_train_under_varlen_where_its_kernel_runs(layout, compiled, varlen, monkeypatch):
    cases = importlib.import_module("gpu_cases")
    monkeypatch.setattr(varlen_xformer, "KERNEL_DTYPES", (torch.bfloat16,))
    monkeypatch.setattr(varlen_xformer, "varlen_attn", in_a_graph(varlen.of_torch_2_11))
    monkeypatch.setattr(varlen_xformer, "GROUPED", {})
    torch.compiler.reset()
    pairs = [{"input_ids": [5] * a, "labels": [5] * b} for a, b in ((7, 3), (3, 7))]
    batch = cases.batches_of(pairs)[layout]
    setting = cases.Setting(torch.device("cpu"), tiny=True)
    found = cases.train(setting, cases.OURS, cases.TINY, batch, {"tokens": 20, "flops": 1.0}, compiled)
    assert found["attention"] == "varlen" and found["graphs"] == (1 if compiled else None)
    assert found["padding"] == {"padded": 0.2857, "packed": 0.0, "fixed": 0.8438}[layout]
    assert varlen.varlen_calls


def test_all_parts_fit_the_time_of_the_check():
    check = importlib.import_module("gpu_check")
    beside = max(part.seconds for part in check.PARTS if part.tests)
    assert beside + sum(part.seconds for part in check.PARTS if not part.tests) <= check.SECONDS <= 590


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="processes are found in /proc")
def test_whatever_a_part_has_started_is_ended_and_nothing_else():
    """A process in a session of its own, whose parent has ended before it."""
    check = importlib.import_module("gpu_check")
    sleeper = "import time; print(flush=True); time.sleep(100)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleeper!r}], start_new_session=True)"
    name = f"test-{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, check.MARK: f"{name}-numbers."}
    ) as parent:
        assert parent.wait() == 0
        other = subprocess.Popen([sys.executable, "-c", sleeper], env={**os.environ, check.MARK: f"{name}-loss."})
        parent.stdout.readline()
        start = time.monotonic()
        check.end_marked(f"{name}-numbers.")
        assert parent.stdout.read() == b""  # closed by the last process that had it
        assert time.monotonic() - start < 20
        assert other.poll() is None
        check.end_marked(name)
        assert other.wait() < 0


@pytest.mark.slow
def test_parts_without_their_packages_are_left_out_and_the_wheels_to_bring_named(tmp_path, monkeypatch):
    """A program that cannot import ruamel.yaml runs no tests that need it; the benchmarks do not."""
    check = importlib.import_module("gpu_check")
    assert check.why_left_out(True) is None
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['ruamel.yaml'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(check, "version", version_but_for("ruamel.yaml"))
    assert check.why_left_out(False) is None
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/conftest.py").write_text("import ruamel.yaml\n")  # without all that the tests import beside it
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setattr(check, "ROOT", tmp_path)
    reason = check.why_left_out(True)
    assert "ModuleNotFoundError: import of ruamel.yaml halted" in reason
    assert reason.endswith("; bring wheels of ruamel.yaml>=0.18")


def version_but_for(missing: str):
    def version(name: str) -> str:
        if name == missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.version(name)

    return version
