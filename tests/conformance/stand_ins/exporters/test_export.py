# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""In place of transformers' `tests/exporters/test_export.py`."""


class ExportTesterMixin:
    """The base class of the common model tests; `test_own_compile.py` has the tests of exporting."""
