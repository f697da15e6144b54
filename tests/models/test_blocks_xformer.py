# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Block layers against one dense reference: full attention under a mask that writes the same pattern out."""

import contextlib
from functools import cache, partial

import pytest
import torch
from small_blocks import weights_over_rows
from small_models import SIZES, LargestTensor, gradients, make_batch, make_model
from torch.testing import assert_close
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_xformer.models.masks_xformer import WholeMask


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
# Blocks of w tokens; rows shorter than a block, of whole blocks, and with a rest; where their padding is.
CASES = [
    *((1, 5, side) for side in ("right", "left")),
    *((4, length, side) for length in (3, 8, 11) for side in ("right", "left", "none", "holes")),
    *((64, length, side) for length in (40, 128, 150) for side in ("right", "left")),
]
cases = pytest.mark.parametrize(("w", "length", "side"), CASES)
backends = pytest.mark.parametrize("backend", ["eager", "sdpa"])


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


@cache
def model_and_dense(stack: str, name: str, w: int):
    """A model with block layers, and its weights in one of full attention by the eager backend."""
    model = make_block_model(w, **{"encoder": ENCODERS, "decoder": DECODERS}[stack][name])
    fields = {**model.config.to_dict(), "encoder_layer_types": None, "decoder_layer_types": None}
    dense = make_model(**fields, attn_implementation="eager")
    dense.load_state_dict(model.state_dict())
    return model, dense


@contextlib.contextmanager
def dense_masks(dense, config, stack: str, attention_mask: torch.Tensor):
    """Puts, in each layer, the mask that `config` describes in the place of its own."""
    hooks = []
    for i, layer in enumerate(getattr(dense.model, stack).layers):
        mask = WholeMask(dense_mask(config, stack, i, attention_mask))
        replace = partial(lambda mask, module, args: (args[0], mask, *args[2:]), mask)
        hooks.append(layer.self_attention.register_forward_pre_hook(replace))
    yield
    for hook in hooks:
        hook.remove()


def outputs_and_gradients(run, model, attended: torch.Tensor):
    """The features of attended tokens, and the gradients of a random sum of them."""
    model.zero_grad()
    x = run(model)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    assert x.isfinite().all()
    (x * weights)[attended].sum().backward()
    grads = gradients(model)
    assert all(grad.isfinite().all() for grad in grads.values())
    return x[attended].detach(), grads


def assert_equal_to_dense(stack: str, name: str, w: int, backend: str, run, attention_mask: torch.Tensor):
    model, dense = model_and_dense(stack, name, w)
    model.set_attn_implementation(backend)
    attended = attention_mask.bool()
    x, grads = outputs_and_gradients(run, model, attended)
    with dense_masks(dense, model.config, stack, attention_mask):
        expected, expected_grads = outputs_and_gradients(run, dense, attended)
    assert_close(x, expected, atol=1e-5, rtol=1e-5)
    largest = max(grad.abs().max().item() for grad in expected_grads.values())
    assert_close(grads, expected_grads, atol=1e-5 * max(largest, 1.0), rtol=0)


@backends
@cases
@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_blocks_equal_the_dense_reference(name, w, length, side, backend):
    mask, tokens = make_mask(side, length), make_tokens(length)

    def run(model):
        return model.get_encoder()(tokens, attention_mask=mask).last_hidden_state

    assert_equal_to_dense("encoder", name, w, backend, run, torch.ones_like(tokens) if mask is None else mask)


@backends
@cases
@pytest.mark.parametrize("name", DECODERS)
def test_decoder_blocks_equal_the_dense_reference(name, w, length, side, backend):
    mask, tokens = make_mask(side, length), make_tokens(length)
    memory = torch.randn(3, 7, SIZES["d_model"], generator=torch.Generator().manual_seed(1))

    def run(model):
        inputs = {"attention_mask": mask, "encoder_hidden_states": memory, "use_cache": False}
        return model.get_decoder()(tokens, **inputs).last_hidden_state

    assert_equal_to_dense("decoder", name, w, backend, run, torch.ones_like(tokens) if mask is None else mask)


def largest_tensor(model, source: int, target: int, side: str) -> int:
    """In a training step of one row of `source` tokens, a few of them padding, and `target` labels."""
    input_ids, labels = make_tokens(source, rows=1), make_tokens(target, rows=1)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[:, slice(-5, None) if side == "right" else slice(5)] = 0
    with LargestTensor() as largest:
        model(input_ids=input_ids, attention_mask=attention_mask, labels=labels).loss.backward()
    return largest.elements


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_no_tensor_grows_with_the_square_of_the_length(side, backend):
    length = 8192
    blocks = {"encoder_layer_types": [CHUNKED, SLIDING, CHUNKED], "decoder_layer_types": [CHUNKED, SLIDING]}
    model = make_block_model(32, **blocks, num_global_tokens=3, decoder_layers=2, attn_implementation=backend)
    for source, target in ((length, 9), (9, length)):
        assert largest_tensor(model, source, target, side) < length**2 / 16


@pytest.mark.parametrize(("source", "target"), [(600, 9), (9, 600)])
def test_full_attention_does_make_a_tensor_of_the_square_of_the_length(source, target):
    assert largest_tensor(make_block_model(32, attn_implementation="eager"), source, target, "right") >= 600**2


STACKS = [*(("encoder", name) for name in ENCODERS), *(("decoder", name) for name in DECODERS)]


def run_stack(model, stack: str, tokens: torch.Tensor, **inputs):
    if stack == "decoder":
        memory = torch.randn(3, 7, SIZES["d_model"], generator=torch.Generator().manual_seed(1))
        inputs |= {"encoder_hidden_states": memory, "use_cache": False}
    return getattr(model.model, stack)(tokens, **inputs)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("stack", "name"), STACKS)
def test_weights_within_blocks_have_their_shape_and_are_those_of_the_dense_reference(stack, name, side):
    w, length, heads = 4, 11, SIZES["encoder_attention_heads"]
    model, dense = model_and_dense(stack, name, w)
    model.set_attn_implementation("eager")
    mask, tokens, config = make_mask(side, length), make_tokens(length), model.config
    inputs = {"attention_mask": mask, "output_attentions": True}
    with dense_masks(dense, config, stack, mask):
        expected = run_stack(dense, stack, tokens, **inputs).attentions
    attended, order = mask.bool().sort(dim=1, descending=True, stable=True)
    leading = config.num_global_tokens if stack == "encoder" else 0
    keys = {CHUNKED: w + leading, SLIDING: (3 if stack == "encoder" else 2) * w + leading}
    attentions = run_stack(model, stack, tokens, **inputs).attentions
    layer_types = getattr(config, f"{stack}_layer_types")
    for layer, (weights, whole, layer_type) in enumerate(zip(attentions, expected, layer_types, strict=True)):
        if layer_type == FULL:
            assert_close(weights.transpose(1, 2)[mask.bool()], whole.transpose(1, 2)[mask.bool()])
            continue
        # Shifted blocks of 4 begin with one of 2: the 11 tokens are in 4 blocks, or in 3 too.
        assert weights.shape in {(3, blocks, heads, w, keys[layer_type]) for blocks in (3, 4)}
        rows = weights_over_rows(weights, config, stack, layer, length).transpose(1, 2)  # (B, S, H, S)
        whole = whole.gather(2, order[:, None, :, None].expand_as(whole))
        whole = whole.gather(3, order[:, None, None].expand_as(whole)).transpose(1, 2)
        is_local = attended & (torch.arange(length) >= leading)
        assert_close(rows[is_local], whole[is_local], atol=1e-5, rtol=1e-5)
        assert not rows[:, :leading].any()


FLEX_CASES = [
    ("encoder", "blocks and global tokens", 11),
    ("encoder", "mixed with windows", 11),
    ("encoder", "windows and global tokens", 3),
    ("decoder", "mixed", 11),
]


@pytest.mark.parametrize(("stack", "name", "length"), FLEX_CASES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_flex_attention_in_blocks_equals_the_dense_reference(stack, name, length, side, plain_flex_attention):
    mask, tokens = make_mask(side, length), make_tokens(length)

    def run(model):
        return run_stack(model, stack, tokens, attention_mask=mask).last_hidden_state

    assert_equal_to_dense(stack, name, 4, "flex_attention", run, mask)


@pytest.mark.slow
@pytest.mark.parametrize(("stack", "name"), [("encoder", "windows"), ("decoder", "mixed")], ids=["encoder", "decoder"])
def test_compiled_flex_attention_in_blocks_equals_the_dense_reference(stack, name, plain_flex_masks):
    """On a CPU torch compiles no backward, and its forward errs with fewer queries than these, whatever the mask."""
    overrides = {**{"encoder": ENCODERS, "decoder": DECODERS}[stack][name], "head_dim": 16}
    whole = {**overrides, "encoder_layer_types": None, "decoder_layer_types": None}
    model, dense = make_block_model(16, **overrides), make_block_model(16, **whole)
    model.set_attn_implementation("flex_attention")
    dense.set_attn_implementation("eager")
    dense.load_state_dict(model.state_dict())
    mask, tokens = make_mask("left", 40), make_tokens(40)
    with torch.no_grad(), dense_masks(dense, model.config, stack, mask):
        x, expected = (
            run_stack(each, stack, tokens, attention_mask=mask).last_hidden_state for each in (model, dense)
        )
    assert_close(x[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


def test_what_flex_attention_returns_of_a_gpu_is_not_taken_for_weights(monkeypatch):
    """There the library returns the logarithms of the sums, (B, H, T), in place of weights."""

    def with_sums(*args, **kwargs):
        x, _ = sdpa_attention_forward(*args, **kwargs)
        return x, x.new_zeros(x.shape[0], x.shape[2], x.shape[1])

    batch = make_batch()
    model = make_model(**ENCODERS["blocks and global tokens"], encoder_layers=3, block_size=4)
    expected = model(**batch).logits
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", with_sums)
    outputs = model(**batch, output_attentions=True)
    assert_close(outputs.logits, expected)
    assert not outputs.encoder_attentions or set(outputs.encoder_attentions) == {None}
