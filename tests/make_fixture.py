# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Writes a checkpoint of this version for `test_travelling.py`, which every later version has to load:

  python tests/make_fixture.py

Run it when `FORMAT_VERSION` goes up, and never over a folder that is there; until 0.1.0 is published, the folders of
format 1 may be deleted and made anew. The code that travels with the weights is left out, because later code has to
load them.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from small_models import VANILLA, VARIANTS, make_model

from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.models.configuration_xformer import FORMAT_VERSION


FIXTURES = Path(__file__).parent / "fixtures"
SMALL = {"d_model": 16, "encoder_ffn_dim": 20, "decoder_ffn_dim": 28}
MODELS = {
    "modern": {**VARIANTS["rope-pre-blocks"], "num_key_value_heads": 2, "qk_norm": True, "norm_position": "sandwich"},
    "vanilla": {**VANILLA, "use_final_logits_bias": True, "layernorm_embedding": True},
}
SOURCES = ["A B C D E F G H", "H", "C A"]


def write(folder: Path, overrides: dict) -> None:
    tokenizer = train_tokenizer((" ".join("ABCDEFGH"),), "symbol")
    model = make_model(**{**SMALL, "vocab_size": len(tokenizer), **overrides})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.glob("*.py"):
        path.unlink()
    batch = tokenizer(SOURCES, padding=True, return_tensors="pt")
    decoder_input_ids = torch.arange(2, 11).reshape(3, 3)
    with torch.no_grad():
        logits = model(**batch, decoder_input_ids=decoder_input_ids).logits
    tokens = model.generate(**batch, max_new_tokens=6)
    expected = {
        "format_version": FORMAT_VERSION,
        "keys": sorted(load_file(folder / "model.safetensors")),
        "sources": SOURCES,
        "decoder_input_ids": decoder_input_ids.tolist(),
        "logits": logits.tolist(),
        "texts": tokenizer.batch_decode(tokens, skip_special_tokens=True),
    }
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    for name, overrides in MODELS.items():
        folder = FIXTURES / f"format-{FORMAT_VERSION}-{name}"
        folder.mkdir(parents=True)
        write(folder, overrides)
