# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The Hub: a run's record, its model card, and publishing both with the weights."""
