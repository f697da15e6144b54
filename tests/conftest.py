# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test may ask for."""

from pathlib import Path

import pytest
import torch


# The models here are tiny and the workers several: more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the project's source tree."""
    return Path(__file__).resolve().parent.parent
