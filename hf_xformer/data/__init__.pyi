# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
from .batches import BatchedDataset, PackedWithin, PaddedWithin
from .collators import BatchCollator, DataCollatorForPackedSeq2Seq

__all__ = [
    "BatchCollator",
    "BatchedDataset",
    "DataCollatorForPackedSeq2Seq",
    "PackedWithin",
    "PaddedWithin",
]
