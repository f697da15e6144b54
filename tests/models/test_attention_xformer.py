# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Attention and positions by themselves: T5's buckets, and FlashAttention with a stand-in for its kernels."""

import pytest
import torch
from small_kernels import StandIn
from small_models import SIZES, gradients, make_batch, make_model, pack
from torch.testing import assert_close
from transformers import modeling_flash_attention_utils as flash_utils
from transformers.models.t5.modeling_t5 import T5Attention

from hf_xformer import XformerConfig
from hf_xformer.models import varlen_xformer
from hf_xformer.models.positions_xformer import XformerRelativePositions


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 20), (10, 33), (6, 4)])
def test_buckets_of_distances_are_those_of_t5(stack, buckets, farthest):
    ours = XformerRelativePositions(
        XformerConfig(relative_attention_num_buckets=buckets, relative_attention_max_distance=farthest), stack
    )
    distance = torch.arange(-3 * farthest, 3 * farthest)
    expected = T5Attention._relative_position_bucket(
        distance, bidirectional=stack == "encoder", num_buckets=buckets, max_distance=farthest
    )
    assert torch.equal(ours.buckets(distance), expected)
    assert ours.buckets(distance).max() == buckets - 1


def test_relative_positions_shared_by_the_layers_are_one_table_and_else_one_each():
    shared, own = (
        make_model(position_embedding_type="relative", relative_attention_per_layer=per_layer)
        for per_layer in (False, True)
    )
    for stack, layers in (("encoder", 2), ("decoder", 3)):
        assert getattr(shared.model, stack).positions.table.weight.shape == (32, 4)
        assert getattr(own.model, stack).positions.table.weight.shape == (32, 4 * layers)
    weights = shared.state_dict()
    for stack, layers in (("encoder", 2), ("decoder", 3)):
        weights[f"model.{stack}.positions.table.weight"] = weights[
            f"model.{stack}.positions.table.weight"
        ].repeat_interleave(layers, dim=1)
    own.load_state_dict(weights)
    batch = make_batch()
    assert_close(own(**batch).logits, shared(**batch).logits)
    own.model.encoder.positions.table.weight.data[:, ::2] += torch.randn(32, 4)  # of the first layer alone
    assert not torch.allclose(own(**batch).logits, shared(**batch).logits, atol=1e-3)


@pytest.fixture
def flash(monkeypatch) -> StandIn:
    stand_in = StandIn()
    functions = (stand_in.func, stand_in.varlen_func, None, flash_utils._pad_input, flash_utils._unpad_input)
    monkeypatch.setattr(flash_utils, "_lazy_imports", lambda *args, **kwargs: functions)
    for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_flash_with_kvcache_fn"):
        monkeypatch.setattr(flash_utils, name, None)
    return stand_in


def with_flash(model):
    # Behind `set_attn_implementation`, which asks for the package and a GPU.
    model.config._attn_implementation = "flash_attention_2"
    return model


VARIANTS = {
    "rope-pre": {},
    "rope-post-gqa-qk-norm": {"norm_position": "post", "num_key_value_heads": 2, "qk_norm": True},
    "learned": {"position_embedding_type": "learned", "norm_type": "layernorm", "use_bias": True},
    "shifted-blocks": {"encoder_layer_types": ["chunked_attention"] * 2, "block_size": 4},
    "blocks-global-tokens": {
        **{"encoder_layer_types": ["chunked_attention"] * 2, "block_size": 3, "num_global_tokens": 2},
        "decoder_layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "decoder-blocks": {"decoder_layer_types": ["chunked_attention"] * 3, "block_size": 3},
    "windows": {
        **{"encoder_layer_types": ["sliding_attention"] * 2, "block_size": 2, "num_key_value_heads": 2},
        "decoder_layer_types": ["sliding_attention"] * 3,
    },
}
variants = pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)


@variants
@pytest.mark.parametrize("side", ["right", "left"])
def test_flash_attention_to_padded_sources_equals_eager_in_logits_and_gradients(overrides, side, flash):
    batch = make_batch()
    if side == "left":
        batch |= {name: batch[name].flip(1) for name in ("input_ids", "attention_mask")}
    logits, grads = {}, {}
    for backend in ("eager", "flash"):
        model = make_model(**overrides, attn_implementation="eager")
        model = with_flash(model) if backend == "flash" else model
        output = model(**batch)
        output.loss.backward()
        logits[backend], grads[backend] = output.logits.detach(), gradients(model)
    assert_close(logits["flash"], logits["eager"], atol=1e-5, rtol=1e-5)
    assert_close(grads["flash"], grads["eager"], atol=1e-5, rtol=1e-4)
    # Every query of the target, and the keys of its own source without the padding.
    assert flash.varlen_calls.count(([7, 7, 7], [11, 8, 5])) == SIZES["decoder_layers"]


@variants
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("beams", [1, 3])
def test_flash_attention_generates_what_eager_generates(overrides, beams, cache, flash):
    batch = make_batch()
    del batch["labels"]
    options = {"max_new_tokens": 9, "num_beams": beams}
    expected = make_model(**overrides, attn_implementation="eager").generate(**batch, **options)
    model = with_flash(make_model(**overrides))
    generated = model.generate(**batch, **options, cache_implementation=cache, disable_compile=True)
    assert torch.equal(generated, expected)
    assert flash.varlen_calls


def test_flash_attention_over_whole_sources_needs_no_lengths(flash):
    batch = make_batch()
    del batch["attention_mask"]
    expected = make_model(attn_implementation="eager")(**batch).logits
    assert_close(with_flash(make_model())(**batch).logits, expected, atol=1e-5, rtol=1e-5)
    assert flash.varlen_calls == []


def test_flash_attention_has_the_windows_of_each_stack(flash):
    """In the encoder so many keys on both sides, in the decoder so many with the token's own."""
    with_flash(make_model(**VARIANTS["windows"]))(**make_batch())
    assert flash.windows == {(False, (2, 2)), (True, (1, 1)), (False, (-1, -1))}


@pytest.mark.slow
def test_flash_attention_generates_over_three_windows_what_eager_does(flash):
    model = make_model(**VARIANTS["windows"], attn_implementation="eager")
    prefix = torch.tensor([[2, 14, 31, 8, 9, 22, 40], [0, 0, 2, 40, 9, 5, 7], [0, 0, 0, 0, 0, 2, 11]])
    options = {"max_new_tokens": 7, "eos_token_id": None, "decoder_attention_mask": (prefix != 0).long()}
    options |= {"decoder_input_ids": prefix, "no_repeat_ngram_size": 1}
    expected = model.generate(make_batch()["input_ids"], **options, use_cache=False)
    for cache in ({}, {"cache_implementation": "static", "disable_compile": True}, {"use_cache": False}):
        assert torch.equal(with_flash(model).generate(make_batch()["input_ids"], **options, **cache), expected)


REFUSED = {
    "relative-positions": {"position_embedding_type": "relative"},
    "windows-and-global-tokens": {
        "encoder_layer_types": ["sliding_attention", "full_attention"], "num_global_tokens": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("overrides", REFUSED.values(), ids=REFUSED)
def test_flash_attention_is_refused_where_its_kernels_would_drop_something(overrides):
    assert not make_model(**overrides)._supports_flash_attn
    with pytest.raises(ValueError, match="does not support Flash Attention 2"):
        make_model(**overrides).set_attn_implementation("flash_attention_2")


@variants
def test_flash_attention_is_not_refused_elsewhere(overrides):
    assert make_model(**overrides)._supports_flash_attn


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_the_attention_multiplier_stands_for_the_scale(backend):
    batch = make_batch()
    expected = make_model(attn_implementation=backend)(**batch).logits
    assert torch.equal(make_model(attention_multiplier=8**-0.5, attn_implementation=backend)(**batch).logits, expected)
    doubled = make_model(attn_implementation=backend)
    for layer in (*doubled.model.encoder.layers, *doubled.model.decoder.layers):
        layer.self_attention.q_proj.weight.data *= 2
    for layer in doubled.model.decoder.layers:
        layer.cross_attention.q_proj.weight.data *= 2
    twice = make_model(attention_multiplier=2 * 8**-0.5, attn_implementation=backend)
    assert_close(twice(**batch).logits, doubled(**batch).logits)


def test_qk_norm_makes_self_attention_blind_to_the_length_of_queries_and_keys():
    batch, model = make_batch(), make_model(qk_norm=True)
    expected = model(**batch).logits
    for layer in (*model.model.encoder.layers, *model.model.decoder.layers):
        layer.self_attention.q_proj.weight.data *= 3
        layer.self_attention.k_proj.weight.data *= 5
    assert_close(model(**batch).logits, expected, atol=1e-4, rtol=1e-4)
    model.model.decoder.layers[0].cross_attention.q_proj.weight.data *= 3
    assert not torch.allclose(model(**batch).logits, expected, atol=1e-2)


@variants
def test_flash_attention_of_packed_rows_equals_eager_of_padded_ones(overrides, flash):
    batch, layout = make_batch(), [[2, 0], [1]]
    model = make_model(**overrides, attn_implementation="eager")
    model(**batch).loss.backward()
    expected = gradients(model)
    model = with_flash(make_model(**overrides, attn_implementation="eager"))
    model(**pack(batch, layout)).loss.backward()
    assert_close(gradients(model), expected, atol=1e-5, rtol=1e-4)
    # One call has all segments, and the padding behind those of a row by itself.
    assert flash.varlen_calls.count(([6, 7, 2, 4, 11], [5, 11, 3, 8, 11])) == SIZES["decoder_layers"]


HALF_MODELS = {
    "full": {},
    "blocks": {
        "encoder_layer_types": ["chunked_attention", "sliding_attention"],
        "decoder_layer_types": ["sliding_attention", "full_attention", "chunked_attention"],
        "block_size": 3,
    },
    "global": {"encoder_layer_types": ["chunked_attention"] * 2, "block_size": 3, "num_global_tokens": 2},
    "relative": {"position_embedding_type": "relative", "initializer_range": 0.5},
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("padding", ["right", "left", "packed"])
@pytest.mark.parametrize("name", HALF_MODELS)
@pytest.mark.parametrize(
    "backend",
    ["eager", "sdpa", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("flex_attention", "varlen"))],
)
def test_half_precision_is_finite_wherever_all_is_padding(
    backend, name, padding, dtype, varlen, plain_flex_attention, monkeypatch
):
    """Rows of mostly padding, so that whole blocks are; the texts' features are those of single precision."""
    if backend == "varlen":
        if name == "relative":
            pytest.skip("refused")
        monkeypatch.setattr(varlen_xformer, "KERNEL_DTYPES", (torch.float32, dtype))
    exact = make_model(**HALF_MODELS[name])
    half = make_model(**HALF_MODELS[name]).to(dtype)
    half.set_attn_implementation(backend)
    lengths, places = torch.tensor([17, 4, 1])[:, None], torch.arange(17)
    mask = (places < lengths if padding != "left" else places >= 17 - lengths).long()
    ids = torch.randint(4, 53, (3, 17), generator=torch.Generator().manual_seed(0)) * mask
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids[:, :9].clamp(min=4)}
    if padding == "packed":
        batch = pack(batch, [[0, 1], [2]], (24, 24))
    outputs = [model(**batch, output_hidden_states=True) for model in (half, exact)]
    for states in ("encoder_hidden_states", "decoder_hidden_states"):
        assert all(each.isfinite().all() for each in outputs[0][states])
    text = batch["segment_ids"] > 0 if padding == "packed" else mask.bool()
    ours, wanted = (output.encoder_last_hidden_state[text].float() for output in outputs)
    assert (ours - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["full", "blocks", "global"])
@torch.no_grad()
def test_large_scores_stay_finite_beside_a_mask_of_half_precision(name, backend):
    """A score of -40 beside the least number of half precision would be an infinity, and a masked row not a number."""
    model = make_model(**HALF_MODELS[name])
    for layer in (*model.model.encoder.layers, *model.model.decoder.layers):
        layer.self_attention.q_proj.weight.mul_(200)
    model = model.half()
    model.set_attn_implementation(backend)
    mask = (torch.arange(17) < torch.tensor([17, 4, 1])[:, None]).long()
    ids = torch.randint(4, 53, (3, 17), generator=torch.Generator().manual_seed(0))
    output = model(ids, attention_mask=mask, decoder_input_ids=ids, decoder_attention_mask=mask)
    assert output.encoder_last_hidden_state.isfinite().all() and output.logits.isfinite().all()


def test_masks_of_booleans_mean_the_same_to_eager_and_sdpa():
    """With queries that attend to nothing, and with relative positions, in half precision too."""
    for dtype in (torch.float32, torch.float16):
        model = make_model(position_embedding_type="relative").to(dtype)
        batch, mask = make_batch(), torch.rand(3, 1, 11, 11, generator=torch.Generator().manual_seed(0)) < 0.5
        mask[0, :, 3] = False
        results = []
        for backend in ("eager", "sdpa"):
            model.set_attn_implementation(backend)
            results.append(model.get_encoder()(batch["input_ids"], attention_mask=mask).last_hidden_state)
        assert all(each.isfinite().all() for each in results)
        # A query without keys has the mean of all values, or none of them.
        rows = mask.any(dim=-1).squeeze(1).all(dim=1)
        assert_close(results[0][rows], results[1][rows], atol=1e-4 if dtype == torch.float32 else 3e-2, rtol=1e-2)


@pytest.mark.slow
@torch.no_grad()
def test_flex_attention_on_a_cpu_is_right_for_sources_of_several_lengths():
    """By the real kernel: torch's graph of shapes that change reads behind its numbers."""
    flex, plain = (make_model(encoder_layer_types=["chunked_attention"] * 2, block_size=3) for _ in range(2))
    flex.set_attn_implementation("flex_attention")
    for rows, length in ((3, 11), (2, 9), (3, 14)):
        ids = torch.randint(4, 53, (rows, length), generator=torch.Generator().manual_seed(length))
        mask = (torch.arange(length) < torch.tensor([[length], [length - 4], [5]])[:rows]).long()
        memory, expected = (each.get_encoder()(ids, attention_mask=mask).last_hidden_state for each in (flex, plain))
        assert_close(memory[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float], ids=str)
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("targets", [5, 11], ids=["fewer targets", "as many targets"])
def test_a_mask_of_four_dimensions_is_the_encoders_and_hides_from_the_target_what_no_token_sees(
    targets, backend, dtype
):
    model, batch = make_model(attn_implementation=backend), make_batch()
    ids, kept = batch["input_ids"], batch["attention_mask"]  # (3, 11)
    target = torch.randint(4, 53, (3, targets), generator=torch.Generator().manual_seed(3))
    mask = kept[:, None, None].bool() & torch.ones(11, 11).tril().bool()  # causal: (3, 1, 11, 11)
    if dtype == torch.float:
        biases = torch.randn(mask.shape, generator=torch.Generator().manual_seed(4))  # the encoder's own
        mask = biases.masked_fill(~mask, torch.finfo(torch.float).min)
    mask = mask.to(dtype)
    memory = model.get_encoder()(ids, attention_mask=mask)
    with torch.no_grad():
        found = model(ids, attention_mask=mask, decoder_input_ids=target).logits
        expected = model(encoder_outputs=memory, attention_mask=kept, decoder_input_ids=target).logits
        whole = model(ids, attention_mask=kept, decoder_input_ids=target).logits
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, whole, atol=1e-2)
