# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Prints COMET's scores of the rows on standard input, a JSON list, with the package's version; without rows it only
looks for package and model.

`PYTHON comet_worker.py MODEL` runs in the environment that has `unbabel-comet`, and imports nothing of ours: that
package wants older libraries than this one.
"""

import json
import os
import sys
from importlib import metadata


def main() -> None:
    sys.path.pop(0)  # this folder, whose modules stand in front of others of their names
    from comet import download_model, load_from_checkpoint  # type: ignore[import-not-found]

    name, rows = sys.argv[1], json.loads(sys.stdin.read().strip() or "[]")
    path = name if os.path.isfile(name) else download_model(name)
    scores = []
    if rows:
        import torch

        model = load_from_checkpoint(path)
        scores = model.predict(rows, batch_size=8, gpus=min(1, torch.cuda.device_count())).scores
    print(json.dumps({"scores": [float(score) for score in scores], "version": version()}))


def version() -> str:
    """Returns the package's version, by which scores of one model differ."""
    try:
        return metadata.version("unbabel-comet")
    except metadata.PackageNotFoundError:  # a copy of its source
        return "unknown"


if __name__ == "__main__":
    main()
