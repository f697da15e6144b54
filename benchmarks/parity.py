# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Prints how far small random stock models are from their conversions; fails if one is too far.

  python benchmarks/parity.py

Per family: the largest difference of the logits (at most 1e-5) and of the gradients of the loss (at most 1e-4), in
float32 on a padded batch; whether greedy search and beam search with four beams give the same tokens; and whether the
conversion, saved and loaded again, gives the same logits to the last bit. Nothing is downloaded. Left out of the
gradients are M2M100's positions, which only the conversion trains.
"""

import sys

from measuring import ROOT


sys.path.insert(0, str(ROOT / "tests"))

from small_stock_models import STOCK, measure  # noqa: E402
from transformers.utils import logging  # noqa: E402


def main() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    said = {True: "equal", False: "DIFFERENT"}
    failed = []
    print(f"{'stock model':31}{'logits':>9}{'gradients':>12}{'greedy':>11}{'4 beams':>11}{'reloaded':>11}")
    for name in STOCK:
        found = measure(name)
        equal = "".join(f"{said[each]:>11}" for each in (found.greedy, found.beams, found.reloaded))
        print(f"{name:31}{found.logits:9.1e}{found.gradients:12.1e}{equal}")
        failed += [] if found.holds else [name]
    if failed:
        raise SystemExit(f"not equal: {', '.join(failed)}")


if __name__ == "__main__":
    main()
