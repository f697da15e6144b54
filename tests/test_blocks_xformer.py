# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Block layers against one dense reference: full attention under a mask that writes the same pattern out."""

import pytest
import torch
from small_models import SIZES, gradients, make_model
from torch.testing import assert_close


CHUNKED, SLIDING, FULL = "chunked_attention", "sliding_attention", "full_attention"
ENCODERS = {
    "blocks": {"encoder_layer_types": [CHUNKED] * 3, "block_shift": False},
    "shifted blocks": {"encoder_layer_types": [CHUNKED] * 3},
    "blocks and global tokens": {"encoder_layer_types": [CHUNKED] * 3, "num_global_tokens": 3},
    "windows": {"encoder_layer_types": [SLIDING] * 3},
    "windows and global tokens": {"encoder_layer_types": [SLIDING] * 3, "num_global_tokens": 3},
    "mixed": {"encoder_layer_types": [CHUNKED, FULL, CHUNKED], "num_key_value_heads": 2, "qk_norm": True},
    "mixed with windows": {"encoder_layer_types": [SLIDING, CHUNKED, CHUNKED], "num_global_tokens": 2},
}
DECODERS = {
    "blocks": {"decoder_layer_types": [CHUNKED] * 3},
    "windows": {"decoder_layer_types": [SLIDING] * 3},
    "mixed": {"decoder_layer_types": [SLIDING, FULL, CHUNKED], "num_key_value_heads": 2},
}
# Blocks of w tokens; rows shorter than a block, of whole blocks, and with a rest.
SHAPES = {1: [5], 4: [3, 8, 11], 64: [40, 128, 150]}
shapes = pytest.mark.parametrize(("w", "length"), [(w, length) for w, lengths in SHAPES.items() for length in lengths])
sides = pytest.mark.parametrize("side", ["right", "left", "none", "holes"])
encoders = pytest.mark.parametrize("overrides", ENCODERS.values(), ids=ENCODERS)
decoders = pytest.mark.parametrize("overrides", DECODERS.values(), ids=DECODERS)


def make_block_model(w: int, **overrides):
    return make_model(**{"encoder_layers": 3, "max_position_embeddings": 256, "block_size": w, **overrides})


def make_mask(side: str, length: int) -> torch.Tensor | None:
    """Rows of all tokens, of about half, and of one, so that a batch has blocks without any; (3, length)."""
    if side == "holes":
        return (torch.arange(length) % torch.tensor([2, 3, 1])[:, None] == 0).long()
    mask = (torch.arange(length) < torch.tensor([length, length // 2 + 1, 1])[:, None]).long()
    return {"right": mask, "left": mask.flip(1), "none": None}[side]


def make_tokens(length: int, rows: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randint(4, SIZES["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(seed))


def dense_mask(config, stack: str, layer: int, attention_mask: torch.Tensor) -> torch.Tensor:
    """Added to the scores of one layer, (B, 1, S, S): what the configuration says, token by token."""
    w, layer_types = config.block_size, getattr(config, f"{stack}_layer_types")
    position = attention_mask.cumsum(1) - 1
    q, k = position[:, :, None], position[:, None]
    seen = torch.ones_like(q == k)
    if layer_types[layer] == CHUNKED:
        is_shifted = stack == "encoder" and config.block_shift and layer_types[:layer].count(CHUNKED) % 2
        border = w // 2 if is_shifted else 0
        seen = (q - border).div(w, rounding_mode="floor") == (k - border).div(w, rounding_mode="floor")
    elif layer_types[layer] == SLIDING:
        seen = (q - k).abs() <= w if stack == "encoder" else q - k < w
    if stack == "encoder":
        seen = seen | (q < config.num_global_tokens) | (k < config.num_global_tokens)
    else:
        seen = seen & (q >= k)
    attended = attention_mask.bool()
    seen = seen & attended[:, None] | ~attended[:, :, None]  # padding looks anywhere: nobody looks at it
    return torch.where(seen, 0.0, float("-inf"))[:, None]


def make_dense(model, stack: str, attention_mask: torch.Tensor):
    """The same weights in a model of full attention by the eager backend, each layer's mask replaced."""
    fields = {**model.config.to_dict(), "encoder_layer_types": None, "decoder_layer_types": None}
    dense = make_model(**fields, attn_implementation="eager")
    dense.load_state_dict(model.state_dict())
    for i, layer in enumerate(getattr(dense.model, stack).layers):
        mask = dense_mask(model.config, stack, i, attention_mask)
        layer.self_attention.register_forward_pre_hook(lambda _, args, mask=mask: (args[0], mask, *args[2:]))
    return dense


def outputs_and_gradients(run, model, attended: torch.Tensor):
    """The features of attended tokens, and the gradients of a random sum of them."""
    x = run(model)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    assert x.isfinite().all()
    (x * weights)[attended].sum().backward()
    return x[attended].detach(), {name: grad for name, grad in gradients(model).items() if grad is not None}


def assert_equal_to_dense(model, stack: str, run, attention_mask: torch.Tensor):
    attended = attention_mask.bool()
    expected, expected_grads = outputs_and_gradients(run, make_dense(model, stack, attention_mask), attended)
    x, grads = outputs_and_gradients(run, model, attended)
    assert_close(x, expected, atol=1e-5, rtol=1e-5)
    largest = max(grad.abs().max() for grad in expected_grads.values())
    assert all(grad.isfinite().all() for grad in grads.values())
    assert_close(grads, expected_grads, atol=1e-5 * largest.item(), rtol=0)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@sides
@shapes
@encoders
def test_encoder_blocks_equal_the_dense_reference(overrides, w, length, side, backend):
    model, mask, tokens = make_block_model(w, **overrides), make_mask(side, length), make_tokens(length)
    model.set_attn_implementation(backend)

    def run(model):
        return model.get_encoder()(tokens, attention_mask=mask).last_hidden_state

    assert_equal_to_dense(model, "encoder", run, torch.ones_like(tokens) if mask is None else mask)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@sides
@shapes
@decoders
def test_decoder_blocks_equal_the_dense_reference(overrides, w, length, side, backend):
    model, mask, tokens = make_block_model(w, **overrides), make_mask(side, length), make_tokens(length)
    model.set_attn_implementation(backend)
    memory = torch.randn(3, 7, SIZES["d_model"], generator=torch.Generator().manual_seed(1))

    def run(model):
        inputs = {"attention_mask": mask, "encoder_hidden_states": memory, "use_cache": False}
        return model.get_decoder()(tokens, **inputs).last_hidden_state

    assert_equal_to_dense(model, "decoder", run, torch.ones_like(tokens) if mask is None else mask)
