# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
The verbs of `hf-xformer`, each a module with `main(argv=None)`; options that they share are in `options`, and a
training's record is in `training_record`.
"""

import os

import torch


# Where DeepSpeed is installed the libraries import it, and it writes to standard output that it has found no GPU.
if not torch.accelerator.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
