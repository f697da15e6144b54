# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m hf_xformer` is `hf-xformer`."""

from .cli import main


main()
