# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of tests that read data."""

import gzip
from collections.abc import Callable

import datasets
import pytest


@pytest.fixture
def cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def write(tmp_path) -> Callable[[str, str | bytes], str]:
    """Writes text or bytes under a name, packed by gzip if the name ends in `.gz`, and returns the path."""

    def write_file(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        raw = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return str(path)

    return write_file
