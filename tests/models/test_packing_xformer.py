# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Pairs packed into rows give what the same pairs give in rows of their own."""

import pytest
import torch
from small_models import BATCH, SIZES, VANILLA, VARIANTS, LargestTensor, gradients, make_batch, make_model, pack
from small_waits import PACKED_MODELS, make_packed
from torch.testing import assert_close

from hf_xformer import XformerEncoderModel
from hf_xformer.models import packing_xformer


MODELS = {**VARIANTS, "windows": PACKED_MODELS["windows"]}
packed_models = pytest.mark.parametrize("overrides", PACKED_MODELS.values(), ids=PACKED_MODELS)
models = pytest.mark.parametrize("overrides", MODELS.values(), ids=MODELS)
# One row, two, one each; pairs in another order.
LAYOUTS = {"one row": [[2, 0, 1]], "two rows": [[1], [0, 2]], "three rows": [[0], [1], [2]]}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@pytest.fixture(params=[2, 32], ids=["groups", "one-group"])
def short_segment(request, monkeypatch):
    """Segments of the tests share one group, or are told apart by length."""
    monkeypatch.setattr(packing_xformer, "SHORT_SEGMENT", request.param)


def run(model, batch: dict) -> tuple[torch.Tensor, dict]:
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    assert output.logits.isfinite().all()
    return output, gradients(model)


def assert_packed_equals_padded(model, layout: list[list[int]]):
    batch = make_batch()
    padded, expected = run(model, batch)
    packed, found = run(model, pack(batch, layout))
    assert_close(packed.loss, padded.loss, atol=1e-6, rtol=0)
    for row, pairs in enumerate(layout):
        first = 0
        for pair in pairs:
            length = int((batch["labels"][pair] != -100).sum())
            own = packed.logits[row, first : first + length]
            assert_close(own, padded.logits[pair, :length], atol=1e-5, rtol=1e-5)
            first += length
    assert found.keys() == expected.keys()
    error, norm = (
        torch.cat([each.flatten() for each in some.values()]).norm()
        for some in ({name: found[name] - expected[name] for name in expected}, expected)
    )
    assert error <= 5e-6 * norm
    for name, gradient in expected.items():
        # By LayerNorm over residuals as large as these, padding another way alone moves some by 3e-5 of the largest.
        assert_close(found[name], gradient, atol=1e-5 * max(1.0, gradient.abs().max().item()), rtol=1e-4, msg=name)


@models
@layouts
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_packed_rows_give_the_loss_logits_and_gradients_of_padded_ones(overrides, layout, backend, short_segment):
    model = make_model(**overrides)
    model.set_attn_implementation(backend)
    assert_packed_equals_padded(model, layout)


@packed_models
@layouts
def test_packed_rows_under_flex_attention_equal_padded_ones(overrides, layout, plain_flex_attention):
    # In double precision: how far torch's own rounding moves the gradients of relative positions differs between CPUs.
    model = make_model(**overrides).double()
    model.set_attn_implementation("flex_attention")
    assert_packed_equals_padded(model, layout)


@pytest.mark.slow
def test_packed_rows_under_flex_attention_that_is_traced_equal_padded_ones(traced_flex_attention):
    """Windows, shifted and unshifted blocks."""
    model = make_model(**GRAPHS["blocks"]).double()
    model.set_attn_implementation("flex_attention")
    assert_packed_equals_padded(model, [[2, 0, 1]])


def test_another_pair_in_the_row_changes_nothing():
    model, batch = make_model(), pack(make_batch(), [[0, 1, 2]])
    logits = model(**batch).logits
    others = {name: batch[name].clone() for name in batch}
    for name, segments in (("input_ids", "segment_ids"), ("labels", "decoder_segment_ids")):
        others[name][others[segments] == 2] = 5
    changed = model(**others).logits
    is_other = batch["decoder_segment_ids"] == 2
    is_mine = ~is_other & (batch["decoder_segment_ids"] > 0)
    assert torch.equal(changed[is_mine], logits[is_mine])
    assert not torch.allclose(changed[is_other], logits[is_other], atol=1e-3)


@pytest.mark.parametrize("overrides", [{}, VARIANTS["rope-pre-blocks"]], ids=["full", "blocks"])
def test_gradient_checkpointing_leaves_the_gradients_of_packed_rows_alone(overrides):
    batch, plain = pack(make_batch(), [[0, 2], [1]]), make_model(**overrides, dropout=0.0).train()
    plain(**batch).loss.backward()
    checkpointed = make_model(**overrides, dropout=0.0).train()
    checkpointed.gradient_checkpointing_enable()
    checkpointed(**batch).loss.backward()
    assert_close(gradients(checkpointed), gradients(plain), atol=1e-5, rtol=1e-5)


# Tracing takes seconds a layer.
GRAPHS = {
    **{name: {**PACKED_MODELS[name], "encoder_layers": 1, "decoder_layers": 1} for name in ("rope", "relative")},
    # Windows on both sides and shifted blocks, with global tokens; unshifted blocks.
    "blocks": {
        **{"encoder_layers": 2, "encoder_layer_types": ["sliding_attention", "chunked_attention"]},
        **{"decoder_layers": 1, "decoder_layer_types": ["chunked_attention"]},
        **{"block_size": 3, "num_global_tokens": 1},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "backend"),
    [
        # Runs what was traced as it is; "inductor" traces the backward pass too, and generates code.
        *((overrides, "eager") for overrides in GRAPHS.values()),
        pytest.param({**GRAPHS["blocks"], "attn_implementation": "eager"}, "eager", marks=pytest.mark.nightly),
        pytest.param(
            {**GRAPHS["blocks"], "decoder_layer_types": ["sliding_attention"]}, "eager", marks=pytest.mark.nightly
        ),
        pytest.param(GRAPHS["rope"], "inductor", marks=pytest.mark.nightly),
        pytest.param(GRAPHS["blocks"], "inductor", marks=pytest.mark.slow),
    ],
    ids=[*GRAPHS, "blocks-eager", "windows", "inductor", "blocks-inductor"],
)
def test_one_graph_serves_packed_rows_of_one_shape_whatever_their_segments(overrides, backend):
    torch.compiler.reset()
    # With their layouts, which a graph does not look at.
    batches = [make_packed(layout, (32, 24)) for layout in ([[0, 1, 2]], [[2, 0]], [[1]])]
    plain, compiled = (make_model(**overrides, dropout=0.0).train() for _ in "ab")
    graph = torch.compile(compiled, fullgraph=True, backend=backend)
    with torch.compiler.set_stance("default"), torch._dynamo.config.patch(error_on_recompile=True):
        for batch in batches:
            plain.zero_grad(), compiled.zero_grad()
            expected, output = (model(**batch, output_logits=True) for model in (plain, graph))
            is_text = batch["decoder_segment_ids"] > 0
            assert_close(output.logits[is_text], expected.logits[is_text], atol=1e-5, rtol=1e-5)
            for each in (expected, output):
                each.loss.backward()
            assert_close(gradients(compiled), gradients(plain), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", ["flash_attention_2", "varlen"])
def test_a_graph_of_packed_rows_is_refused_where_pairs_would_mix(backend):
    torch.compiler.reset()
    model = make_model()
    model.config._attn_implementation = backend  # without asking for the package
    with pytest.raises(Exception, match=f"packed rows under {backend} in a graph need their layout"):
        torch.compile(model, backend="eager", fullgraph=True)(**pack(make_batch(), [[0, 1, 2]]))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["graph", "flex"])
def test_rows_longer_than_the_positions_are_no_matter_where_rows_stay_whole(how, plain_flex_attention):
    torch.compiler.reset()
    sizes = {"max_position_embeddings": 11, "encoder_layers": 1, "decoder_layers": 1}
    model, batch = make_model(**{**VANILLA, **sizes}), pack(make_batch(), [[0, 1, 2]])
    expected = model(**batch).loss
    if how == "flex":
        model.set_attn_implementation("flex_attention")
    run = torch.compile(model, backend="eager", fullgraph=True) if how == "graph" else model
    assert_close(run(**batch).loss, expected)


@pytest.mark.parametrize("backend", ["sdpa", "flex_attention"])
@pytest.mark.parametrize(
    ("ids", "said"),
    [([1, 2, 1], "`segment_ids` has 1 in two places of row 0"), ([1, -2, 3], "0 for padding, got -2")],
    ids=["twice", "negative"],
)
def test_ids_that_are_no_segments_are_refused(ids, said, backend, plain_flex_attention):
    model = make_model()
    model.set_attn_implementation(backend)
    segments = torch.tensor([ids]).repeat_interleave(3, dim=1)
    with pytest.raises(ValueError, match=said):
        model(input_ids=segments.abs(), labels=segments.abs(), segment_ids=segments, decoder_segment_ids=segments)


@pytest.mark.parametrize("overrides", [{}, VARIANTS["rope-pre-blocks"]], ids=["full", "blocks"])
def test_no_tensor_has_the_square_of_the_rows_length(overrides):
    """Forward and backward of a row of 96 segments of 16 tokens."""
    model = make_model(**{**overrides, "max_position_embeddings": 2048})
    ids = torch.randint(4, SIZES["vocab_size"], (1, 1536))
    segments = torch.arange(96).repeat_interleave(16)[None] + 1
    with LargestTensor() as largest:
        batch = {"input_ids": ids, "labels": ids, "segment_ids": segments, "decoder_segment_ids": segments}
        model(**batch).loss.backward()
    assert largest.elements < 1536**2 / 4


def test_the_encoder_alone_takes_packed_rows():
    torch.manual_seed(0)
    model, batch = XformerEncoderModel(make_model().config).eval(), make_batch()
    padded = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    packed = pack(batch, [[2, 0, 1]])
    x = model(input_ids=packed["input_ids"], segment_ids=packed["segment_ids"]).last_hidden_state
    assert_close(x[0, 5:16], padded[0], atol=1e-5, rtol=1e-5)


def test_labels_are_shifted_behind_a_start_token_in_every_segment():
    model = make_model()
    labels, segments = torch.tensor([[5, 6, 7, 8, -100, 9, -100]]), torch.tensor([[1, 1, 1, 2, 2, 2, 0]])
    start, pad = model.config.decoder_start_token_id, model.config.pad_token_id
    expected = torch.tensor([[start, 5, 6, start, 8, pad, start]])
    assert torch.equal(model.prepare_decoder_input_ids_from_labels(labels, segments), expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"decoder_segment_ids": None}, "`decoder_segment_ids` is missing"),
        ({"segment_ids": None}, "`segment_ids` is missing"),
        ({"segment_ids": torch.ones(1, 5, dtype=torch.long)}, r"`segment_ids` must be \(1, 27\).*got \(1, 5\)"),
        ({"segment_ids": torch.ones(1, 27, dtype=torch.long)}, r"\[1\] in its first row, `decoder_s.*\[1, 2"),
        ({"attention_mask": torch.ones(1, 27)}, "`attention_mask` does not go with"),
        ({"output_attentions": True}, "`output_attentions` does not go with"),
        (
            {name: torch.zeros(1, length, dtype=torch.long) for name, length in
             (("segment_ids", 27), ("decoder_segment_ids", 19))},
            "nothing but padding",
        ),
    ],
    ids=["one side", "other side", "shape", "unequal", "mask", "weights", "empty"],
)  # fmt: skip
@pytest.mark.parametrize("backend", ["sdpa", "flex_attention"])
def test_what_packed_rows_do_not_go_with_is_refused(change, said, backend, plain_flex_attention):
    model = make_model()
    model.set_attn_implementation(backend)
    with pytest.raises(ValueError, match=said):
        model(**{**pack(make_batch(), [list(range(BATCH))]), **change})


def test_a_segment_longer_than_the_positions_is_refused_and_a_longer_row_is_not():
    batch = pack(make_batch(), [[0, 1, 2]])
    make_model(**{**VANILLA, "max_position_embeddings": 11})(**batch)
    with pytest.raises(ValueError, match="11 tokens do not fit `max_position_embeddings=10`"):
        make_model(**{**VANILLA, "max_position_embeddings": 10})(**batch)
