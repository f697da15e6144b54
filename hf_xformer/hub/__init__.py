# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Publishing a run: its record, its pictures, its model card, what may go to the Hub, and the way there."""
