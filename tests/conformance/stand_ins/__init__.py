# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Small replacements of the test modules that transformers leaves out of its source distribution."""
