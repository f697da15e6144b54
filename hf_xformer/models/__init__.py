# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The models. Each `*_xformer.py` travels to the Hub beside the weights and imports its neighbours only."""

from .cache_xformer import XformerCache
from .compiling_xformer import why_not_compiled_on
from .configuration_xformer import XformerConfig
from .layout_xformer import make_packing
from .modeling_xformer import XformerEncoderModel, XformerForSeq2SeqLM, XformerModel, XformerPreTrainedModel
from .varlen_xformer import why_not_varlen


__all__ = [
    "XformerCache",
    "XformerConfig",
    "XformerEncoderModel",
    "XformerForSeq2SeqLM",
    "XformerModel",
    "XformerPreTrainedModel",
    "make_packing",
    "why_not_compiled_on",
    "why_not_varlen",
]
