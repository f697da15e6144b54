# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What a user runs, one verb a module, each with `main(argv=None)`. Commands never import one another."""
