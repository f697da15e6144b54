# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Decoding with a static cache, compiled or not, gives the tokens of plain decoding."""

import pytest
import torch
from small_models import SIZES, VANILLA, make_model
from transformers import CompileConfig


MODELS = {
    "modern": {"num_key_value_heads": 2, "qk_norm": True},
    "vanilla": VANILLA,
    "blocks": {
        **{"encoder_layers": 2, "decoder_layers": 2, "block_size": 3},
        "encoder_layer_types": ["chunked_attention", "chunked_attention"],
        "decoder_layer_types": ["sliding_attention", "full_attention"],
    },
}
models = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def decode(name: str, device: torch.device, dtype: torch.dtype = torch.float32, **options) -> torch.Tensor:
    """Tokens of two sources, of which one is padded left; eight of each, so that no stopping rule hides a fault."""
    model = make_model(**{**MODELS[name], "d_model": 64, "tie_word_embeddings": False}).to(device, dtype)
    ids = torch.randint(4, SIZES["vocab_size"], (2, 11), generator=torch.Generator().manual_seed(3))
    attention_mask = torch.ones_like(ids)
    attention_mask[1, :4] = 0
    inputs = {"input_ids": (ids * attention_mask).to(device), "attention_mask": attention_mask.to(device)}
    return model.generate(**inputs, max_new_tokens=8, eos_token_id=None, do_sample=False, **options).cpu()


@pytest.mark.parametrize("num_beams", [1, 3])
@models
def test_a_static_cache_decodes_as_a_growing_one_does_on_the_cpu(name, num_beams, device):
    options = {"cache_implementation": "static", "disable_compile": True, "num_beams": num_beams}
    expected = decode(name, torch.device("cpu"), num_beams=num_beams)
    assert torch.equal(decode(name, device, **options), expected)


@models
def test_compiled_decoding_gives_the_tokens_of_plain_decoding(name, device, tiny):
    if tiny and name != "modern":
        pytest.skip("tiny: modern alone")
    # On a CPU traced but not made into code, which takes a minute there.
    config = CompileConfig(fullgraph=True) if device.type == "cuda" else CompileConfig(True, backend="aot_eager")
    config._compile_all_devices = True
    found = decode(name, device, cache_implementation="static", compile_config=config)
    assert torch.equal(found, decode(name, device))


@models
def test_decoding_in_bfloat16_repeats_itself(name, device):
    """Whatever the kernels: equal inputs give equal tokens, and no row depends on what the allocator left behind."""
    assert torch.equal(decode(name, device, torch.bfloat16), decode(name, device, torch.bfloat16))
