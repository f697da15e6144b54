# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of small models with their tokenizer, and their exports."""

import pytest
import torch
from small_exports import Translator, make_uneven_model

from hf_xformer.checkpoints.export import export_checkpoint
from hf_xformer.data.tokenizers import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return train_tokenizer([" ".join(letters) + " " + " ".join(letters[:15].lower())], "symbol")


@pytest.fixture
def checkpoint(tokenizer, tmp_path):
    """Saves a model with its tokenizers; returns the model and the folder."""

    def save(model=None, dtype=torch.float32, **fields):
        model = model or make_uneven_model(**fields)
        folder = tmp_path / "checkpoint"
        model.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if model.config.encoder_vocab_size:
            tokenizer.save_pretrained(folder / "target_tokenizer")
        return model.float(), folder

    return save


@pytest.fixture
def exported(checkpoint, tmp_path):
    """The same, exported; returns the model and its translator."""

    def make(quantization=None, **fields):
        model, folder = checkpoint(**fields)
        export_checkpoint(str(folder), tmp_path / "out", quantization)
        return model, Translator(tmp_path / "out")

    return make
