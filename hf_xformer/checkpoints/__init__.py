# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: loading, checking, averaging, converting and exporting them."""

import lazy_loader


# The names are in the stub beside this file; a module is imported when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
