# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A local Hub for the tests of a file."""

import pytest
from hub_server import HubServer


@pytest.fixture(scope="module")
def hub():
    """A Hub on this machine that has been asked for nothing that it does not know."""
    with HubServer() as server:
        yield server
        assert not server.unknown
