# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
from .conversion import convert_model
from .export import export_model
from .loading import load_model, load_tokenizers
from .onnx_sessions import OnnxModel

__all__ = [
    "OnnxModel",
    "convert_model",
    "export_model",
    "load_model",
    "load_tokenizers",
]
