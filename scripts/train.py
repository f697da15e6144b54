# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`hf-xformer train` as a file, for `accelerate launch scripts/train.py RECIPE.yaml`."""

from hf_xformer.commands.train import main


if __name__ == "__main__":
    main()
