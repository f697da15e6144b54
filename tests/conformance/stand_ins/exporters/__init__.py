# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""In place of transformers' `tests/exporters`."""
