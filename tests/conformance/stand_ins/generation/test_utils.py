# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""In place of transformers' `tests/generation/test_utils.py`."""


class GenerationTesterMixin:
    """Says that a test class covers `generate`; `test_own_generation.py` has the tests themselves."""
