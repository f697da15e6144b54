# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The version of the package, which records of runs and results name."""

__version__ = "0.1.0"
