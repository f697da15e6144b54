# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
from .decoder import Decoder
from .hypotheses import Hypothesis
from .mbr import MinimumBayesRisk
from .search import Search

__all__ = [
    "Decoder",
    "Hypothesis",
    "MinimumBayesRisk",
    "Search",
]
