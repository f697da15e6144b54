# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
The encoder-decoder Transformer as a Hugging Face plugin.

Importing it registers the Auto classes, the pipeline "seq2seq" and, as soon as PEFT is imported too, the layers that
its adapters change by default.
"""

from . import libraries  # isort: skip - first: for a command it refuses what is too old

import wrapt
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoModelForTextEncoding
from transformers.pipelines import PIPELINE_REGISTRY

from .decoding.pipeline import Seq2SeqPipeline
from .models import XformerConfig, XformerEncoderModel, XformerForSeq2SeqLM, XformerModel, XformerPreTrainedModel
from .version import __version__ as __version__


# PEFT's tables, by the middle of their names -> the layers that its adapters change by default.
ADAPTER_TARGETS = {
    "LORA_TARGET": ["q_proj", "v_proj"],
    "ADALORA_TARGET": ["q_proj", "v_proj"],
    "IA3_TARGET": ["k_proj", "v_proj", "down_proj"],
    "IA3_FEEDFORWARD": ["down_proj"],  # of these the inputs are scaled, of the others the outputs
}


@wrapt.when_imported("peft.utils.constants")
def register_adapter_targets(constants) -> None:
    """Tells PEFT the default targets of its adapters, when it is imported: importing it here would cost seconds."""
    for name, targets in ADAPTER_TARGETS.items():
        table = getattr(constants, f"TRANSFORMERS_MODELS_TO_{name}_MODULES_MAPPING", None)
        if isinstance(table, dict):  # a PEFT without this table asks its users for `target_modules`
            table.setdefault("xformer", targets)


AutoConfig.register("xformer", XformerConfig, exist_ok=True)
AutoModel.register(XformerConfig, XformerModel, exist_ok=True)
AutoModelForSeq2SeqLM.register(XformerConfig, XformerForSeq2SeqLM, exist_ok=True)
AutoModelForTextEncoding.register(XformerConfig, XformerEncoderModel, exist_ok=True)

PIPELINE_REGISTRY.register_pipeline("seq2seq", Seq2SeqPipeline, pt_model=AutoModelForSeq2SeqLM, type="text")

libraries.end_importing()

__all__ = [
    "Seq2SeqPipeline",
    "XformerConfig",
    "XformerEncoderModel",
    "XformerForSeq2SeqLM",
    "XformerModel",
    "XformerPreTrainedModel",
]
