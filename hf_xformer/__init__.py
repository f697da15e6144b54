# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
The encoder-decoder Transformer as a Hugging Face plugin.

Importing it registers the Auto classes, the pipeline "seq2seq" and, where PEFT is installed, the layers that its
adapters change by default.
"""

from contextlib import suppress

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoModelForTextEncoding
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_xformer import XformerConfig
from .modeling_xformer import XformerEncoderModel, XformerForSeq2SeqLM, XformerModel, XformerPreTrainedModel
from .pipeline import Seq2SeqPipeline


__version__ = "0.1.0"

AutoConfig.register("xformer", XformerConfig, exist_ok=True)
AutoModel.register(XformerConfig, XformerModel, exist_ok=True)
AutoModelForSeq2SeqLM.register(XformerConfig, XformerForSeq2SeqLM, exist_ok=True)
AutoModelForTextEncoding.register(XformerConfig, XformerEncoderModel, exist_ok=True)

PIPELINE_REGISTRY.register_pipeline("seq2seq", Seq2SeqPipeline, pt_model=AutoModelForSeq2SeqLM, type="text")

# Nobody who does not use PEFT should be stopped by one that is broken.
with suppress(Exception):
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.setdefault("xformer", ["q_proj", "v_proj"])

__all__ = [
    "Seq2SeqPipeline",
    "XformerConfig",
    "XformerEncoderModel",
    "XformerForSeq2SeqLM",
    "XformerModel",
    "XformerPreTrainedModel",
]
