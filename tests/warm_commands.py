# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Imports of the commands, early and late, and a table that transformers makes at its first use, for `warm_start`."""

import datasets  # noqa: F401
import evaluate  # noqa: F401
import matplotlib.backends.backend_agg
import matplotlib.font_manager  # noqa: F401
import peft  # noqa: F401
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from hf_xformer.commands import card, generate, info, push, train  # noqa: F401
from hf_xformer.commands import evaluate as scoring  # noqa: F401
from hf_xformer.hub import curves  # noqa: F401


get_checkpoint_conversion_mapping("xformer")  # it makes a table of all models once, in a second
