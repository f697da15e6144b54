# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Training: a run's options, checks, data, resumption, callbacks and processes."""
