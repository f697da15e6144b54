# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Files that come with the package and are no code: `configs/` and `model_cards/`."""

from pathlib import Path


PACKAGE = Path(__file__).parent
# Inside an installed package; in the source tree they are beside it.
ROOTS = (PACKAGE / "share", PACKAGE.parent)


def find(path: str | Path) -> Path:
    """The path as it is where it leads somewhere; else the package's own file of that name, if there is one."""
    path = Path(path)
    if path.exists() or path.parts[:1] not in (("configs",), ("model_cards",)):
        return path
    return next((root / path for root in ROOTS if (root / path).exists()), path)
