# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Other versions of the models beside this one, so that both are measured in one process."""

import importlib
import sys
from pathlib import Path
from types import ModuleType


PACKAGE = "another_hf_xformer"


def load_version(folder: Path) -> ModuleType:
    """
    Returns the models' module of another version: `XformerConfig`, `XformerForSeq2SeqLM` and the others.

    Args:
        folder: Holds its `*_xformer.py`: `hf_xformer/models` of another checkout, or any checkpoint.
    """
    if not (folder / "modeling_xformer.py").is_file():
        raise SystemExit(f"error: --against {folder}: there is no modeling_xformer.py")
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    module = importlib.import_module(f"{PACKAGE}.modeling_xformer")
    module.XformerConfig = importlib.import_module(f"{PACKAGE}.configuration_xformer").XformerConfig
    return module
