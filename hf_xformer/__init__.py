# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
The encoder-decoder Transformer as a Hugging Face plugin.

Importing it registers the Auto classes, the pipeline "seq2seq" and, once PEFT is imported, the layers that its
adapters change by default.
"""

import wrapt
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoModelForTextEncoding
from transformers.pipelines import PIPELINE_REGISTRY

from .decoding.pipeline import Seq2SeqPipeline
from .models import XformerConfig, XformerEncoderModel, XformerForSeq2SeqLM, XformerModel, XformerPreTrainedModel


__version__ = "0.1.0"

# PEFT's names for its kinds of adapters -> the layers that they change by default.
ADAPTER_TARGETS = {
    "LORA": ["q_proj", "v_proj"],
    "ADALORA": ["q_proj", "v_proj"],
    "IA3": ["k_proj", "v_proj", "down_proj"],
}


@wrapt.when_imported("peft.utils.constants")
def register_adapter_targets(constants) -> None:
    """Tells PEFT the default targets of its adapters. Importing PEFT here would cost seconds."""
    for kind, targets in ADAPTER_TARGETS.items():
        getattr(constants, f"TRANSFORMERS_MODELS_TO_{kind}_TARGET_MODULES_MAPPING", {}).setdefault("xformer", targets)
    feedforward = getattr(constants, "TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING", {})
    feedforward.setdefault("xformer", ["down_proj"])


AutoConfig.register("xformer", XformerConfig, exist_ok=True)
AutoModel.register(XformerConfig, XformerModel, exist_ok=True)
AutoModelForSeq2SeqLM.register(XformerConfig, XformerForSeq2SeqLM, exist_ok=True)
AutoModelForTextEncoding.register(XformerConfig, XformerEncoderModel, exist_ok=True)

PIPELINE_REGISTRY.register_pipeline("seq2seq", Seq2SeqPipeline, pt_model=AutoModelForSeq2SeqLM, type="text")

__all__ = [
    "Seq2SeqPipeline",
    "XformerConfig",
    "XformerEncoderModel",
    "XformerForSeq2SeqLM",
    "XformerModel",
    "XformerPreTrainedModel",
]
