# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Attention by torch's kernel for variable lengths, with a stand-in for the kernel, gives what sdpa gives."""

from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small_kernels import in_a_graph
from small_models import SIZES, VARIANTS, LargestTensor, gradients, make_batch, make_model, pack
from small_runs import nightly
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BartConfig, BartForConditionalGeneration, DynamicCache, EncoderDecoderCache, StaticCache

from hf_xformer.models import make_packing, varlen_xformer
from hf_xformer.models.versions_xformer import CACHE


CHUNKED, SLIDING, FULL = "chunked_attention", "sliding_attention", "full_attention"
MODELS = {
    **{name: overrides for name, overrides in VARIANTS.items() if name != "relative-pre"},
    "none-pre-untied": {**VARIANTS["none-pre-untied"], "head_dim": 16},  # a multiple of 8
    "shifted-blocks": {
        **{"encoder_layer_types": [CHUNKED] * 2, "decoder_layer_types": [CHUNKED] * 3, "block_size": 4},
    },
    "blocks-unshifted": {"encoder_layer_types": [CHUNKED] * 2, "block_size": 3, "block_shift": False},
    "windows": {
        **{"encoder_layer_types": [SLIDING] * 2, "block_size": 2, "num_key_value_heads": 2},
        "decoder_layer_types": [SLIDING] * 3,
    },
    "mixed": {
        **{"encoder_layer_types": [SLIDING, CHUNKED], "decoder_layer_types": [SLIDING, FULL, CHUNKED]},
        **{"block_size": 4, "num_key_value_heads": 1},
    },
}
models = pytest.mark.parametrize("overrides", MODELS.values(), ids=MODELS)
decoders = pytest.mark.parametrize(
    "overrides",
    [MODELS[name] for name in ("rope-post-gqa", "shifted-blocks", "windows", "mixed")],
    ids=["full", "blocks", "windows", "mixed"],
)
sides = pytest.mark.parametrize("side", ["right", "left", "none"])


def with_varlen(model):
    model.set_attn_implementation("varlen")
    return model


def pad_on(side: str, batch: dict) -> dict:
    """The batch, which is padded right, with its padding on one side, of sources and targets, or with none."""
    batch = dict(batch)
    labels = batch.pop("labels")
    batch |= {"decoder_input_ids": labels.clamp(min=0), "decoder_attention_mask": (labels != -100).long()}
    if side == "left":
        batch = {name: x.flip(1) for name, x in batch.items()}
    if side == "none":
        del batch["attention_mask"], batch["decoder_attention_mask"]
    return batch


def attended(batch: dict, logits: torch.Tensor) -> torch.Tensor:
    mask = batch.get("decoder_attention_mask")
    return logits.flatten(0, 1) if mask is None else logits[mask.bool()]


def logits_and_gradients(model, batch: dict) -> tuple[torch.Tensor, dict]:
    logits = attended(batch, model(**batch).logits)
    (logits * torch.arange(logits.shape[-1])).square().mean().backward()
    return logits, gradients(model)


def assert_same(found: tuple[torch.Tensor, dict], expected: tuple[torch.Tensor, dict]):
    assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    scale = max(gradient.abs().max().item() for gradient in expected[1].values())
    assert_close(found[1], expected[1], atol=1e-5 * max(1.0, scale), rtol=1e-4)


@models
@sides
def test_padded_rows_give_what_they_give_under_sdpa_in_logits_and_gradients(overrides, side, varlen):
    batch = pad_on(side, make_batch())
    expected = logits_and_gradients(make_model(**overrides), batch)
    assert_same(logits_and_gradients(with_varlen(make_model(**overrides)), batch), expected)


@models
@pytest.mark.parametrize("layout", [[[2, 0, 1]], [[1], [0, 2]]], ids=["one row", "two rows"])
def test_packed_rows_give_the_gradients_that_padded_ones_give_under_sdpa(overrides, layout, varlen):
    model = make_model(**overrides)
    model(**make_batch()).loss.backward()
    expected = gradients(model)
    model.zero_grad()
    with_varlen(model)(**pack(make_batch(), layout)).loss.backward()
    assert_close(gradients(model), expected, atol=1e-5, rtol=1e-4)


PACKED_GRAPHS = {
    "full": {"encoder_layers": 1, "decoder_layers": 1},
    "blocks": {
        **{"encoder_layers": 2, "encoder_layer_types": [SLIDING, CHUNKED]},
        **{"decoder_layers": 1, "decoder_layer_types": [CHUNKED], "block_size": 3},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "backend"),
    # "aot_eager" traces the backward pass too.
    [(PACKED_GRAPHS["blocks"], "eager"), *nightly((PACKED_GRAPHS["full"], "aot_eager"))],
    ids=["blocks", "full-backward"],
)
def test_one_graph_serves_packed_rows_of_one_shape(overrides, backend, varlen, monkeypatch):
    """By a layout for a graph, of which two batches have the same sizes; the numbers are those without a graph."""
    torch.compiler.reset()
    compilations = CompileCounterWithBackend(backend)
    batches = [pack(make_batch(), layout, (32, 24)) for layout in ([[0, 1, 2]], [[2, 0]], [[0, 2, 1]])]
    expected = []
    plain = make_model(**overrides, dropout=0.0).train()
    for batch in batches:
        plain.zero_grad()
        loss = plain(**batch).loss
        loss.backward()
        expected.append({"loss": loss, **gradients(plain)})
    monkeypatch.setattr(varlen_xformer, "varlen_attn", in_a_graph(varlen.of_torch_2_11))
    monkeypatch.setattr(varlen_xformer, "GROUPED", {})
    model = with_varlen(make_model(**overrides, dropout=0.0).train())
    graph = torch.compile(model, backend=compilations, fullgraph=True)
    sizes = set()
    for batch, each in zip(batches, expected, strict=True):
        packing = make_packing(*(batch[name] for name in ("segment_ids", "decoder_segment_ids")), fixed=True)
        sizes.add(str(packing["sizes"]))
        for how in (model, graph):
            model.zero_grad()
            loss = how(**batch, packing=packing).loss
            loss.backward()
            assert_close({"loss": loss, **gradients(model)}, each, atol=1e-5, rtol=1e-4)
    assert compilations.frame_count <= len(sizes) < len(batches)


@pytest.mark.parametrize("version", ["2.11", "2.13"])
def test_grouped_heads_are_told_to_a_kernel_that_wants_to_know(version, varlen, monkeypatch):
    kernel = getattr(varlen, f"of_torch_{version.replace('.', '_')}")
    monkeypatch.setattr(varlen_xformer, "varlen_attn", kernel)
    monkeypatch.setattr(varlen_xformer, "GROUPED", varlen_xformer.grouped_heads(kernel))
    assert bool(varlen_xformer.GROUPED) == (version == "2.13")
    batch, expected = make_batch(), make_model(num_key_value_heads=2)(**make_batch()).logits
    assert_close(with_varlen(make_model(num_key_value_heads=2))(**batch).logits, expected, atol=1e-5, rtol=1e-5)


def test_a_segment_is_a_text_and_none_is_put_together_from_pieces(varlen):
    """Every query of the target meets the keys of its own source, and in the encoder a text its own tokens."""
    model = with_varlen(make_model())
    model(**make_batch())
    assert varlen.varlen_calls.count(([7, 7, 7], [11, 8, 5])) == SIZES["decoder_layers"]
    assert varlen.varlen_calls.count(([11, 8, 3, 5, 6], [11, 8, 3, 5, 6])) == SIZES["encoder_layers"]
    # The targets have no mask: sdpa takes them.
    assert len(varlen.varlen_calls) == SIZES["decoder_layers"] + SIZES["encoder_layers"]


def test_rows_without_padding_are_left_to_sdpa(varlen):
    batch = pad_on("none", make_batch())
    assert_close(with_varlen(make_model())(**batch).logits, make_model()(**batch).logits)
    assert not varlen.varlen_calls


def test_the_kernel_has_the_windows_of_each_stack(varlen):
    """In the encoder so many keys on both sides, in the decoder so many with the token's own."""
    with_varlen(make_model(**MODELS["windows"]))(**make_batch())
    assert varlen.windows == {(False, (2, 2)), (False, (1, 0)), (False, (-1, -1))}


@st.composite
def batches(draw):
    """Rows with padding on both sides of the source and the target, and the size of their blocks."""
    size, rows = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    masks = []
    for longest in (15, 12):
        spans = [draw(st.tuples(st.integers(0, 4), st.integers(1, longest - 4))) for _ in range(rows)]
        places = torch.arange(draw(st.integers(max(map(sum, spans)), longest)))
        masks.append(torch.stack([(places >= first) & (places < first + length) for first, length in spans]).long())
    return size, *masks


@pytest.fixture(scope="module")
def of_lengths():
    """One model of each pattern, whose blocks are of the size that is asked for."""
    patterns = [([CHUNKED, CHUNKED], [CHUNKED, FULL, SLIDING]), ([SLIDING, FULL], [SLIDING, CHUNKED, FULL])]
    return lambda size: [
        make_model(encoder_layer_types=encoder, decoder_layer_types=decoder, block_size=size)
        for encoder, decoder in patterns
    ]


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches())
@example((3, torch.tensor([[0, 1, 0, 0]]), torch.tensor([[0, 0, 1]])))
def test_texts_of_all_lengths_and_places_give_what_they_give_under_sdpa(varlen, of_lengths, drawn):
    size, source, target = drawn
    generator = torch.Generator().manual_seed(2)
    draw = partial(torch.randint, 4, SIZES["vocab_size"], generator=generator)
    batch = {"input_ids": draw(source.shape), "attention_mask": source}
    batch |= {"decoder_input_ids": draw(target.shape), "decoder_attention_mask": target, "use_cache": False}
    for model in of_lengths(size):
        expected = logits_and_gradients(model, batch)
        model.zero_grad()
        assert_same(logits_and_gradients(with_varlen(model), batch), expected)


# Decoding


def make_caches(kind: str, model) -> EncoderDecoderCache:
    if kind == "static":
        return EncoderDecoderCache(StaticCache(model.config, 16), StaticCache(make_model().config, 11))
    # One without a config has no windows: the masks have.
    return EncoderDecoderCache(DynamicCache(config=model.config if kind == "dynamic" else None), DynamicCache())


CHUNKS = [[13], [1] * 13, [3, 1, 9]]  # tokens in each call


@decoders
@pytest.mark.parametrize("kind", ["dynamic", "static", "without-windows"])
@pytest.mark.parametrize(
    ("chunks", "is_padded"),
    [*((each, True) for each in CHUNKS), (CHUNKS[-1], False), *nightly(*((each, False) for each in CHUNKS[:-1]))],
)
def test_cached_logits_equal_those_of_sdpa_without_a_cache(overrides, kind, chunks, is_padded, varlen):
    batch, model = make_batch(), make_model(**overrides)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    ids = torch.randint(4, SIZES["vocab_size"], (3, 13), generator=torch.Generator().manual_seed(3))
    mask = (torch.arange(13) >= torch.tensor([0, 2, 9])[:, None]).long() if is_padded else None
    expected = model(**source, decoder_input_ids=ids, decoder_attention_mask=mask, use_cache=False).logits
    cache, pieces, end = make_caches(kind, with_varlen(model)), [], 0
    for length in chunks:
        end += length
        step = {"decoder_input_ids": ids[:, end - length : end], CACHE: cache}
        step["decoder_attention_mask"] = mask if mask is None else mask[:, :end]
        pieces.append(model(**source, **step).logits)
    is_text = slice(None) if mask is None else mask.bool()
    assert_close(torch.cat(pieces, dim=1)[is_text], expected[is_text], atol=1e-5, rtol=1e-5)


@decoders
@pytest.mark.parametrize(
    "cache", [{}, {"cache_implementation": "static", "disable_compile": True}], ids=["dynamic", "static"]
)
@pytest.mark.parametrize("beams", [1, 4])
def test_generate_writes_what_it_writes_under_sdpa(overrides, beams, cache, varlen):
    batch, prefix = make_batch(), torch.tensor([[2, 14, 31, 8], [0, 0, 2, 40], [0, 2, 5, 7]])
    options = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "num_beams": beams}
    options |= {"decoder_input_ids": prefix, "decoder_attention_mask": (prefix != 0).long(), "max_new_tokens": 6}
    expected = make_model(**overrides).generate(**options)
    assert torch.equal(with_varlen(make_model(**overrides)).generate(**options, **cache), expected)
    assert varlen.varlen_calls


def test_a_step_of_decoding_is_not_compiled_by_generate_itself(varlen):
    model = with_varlen(make_model())
    assert not model._valid_auto_compile_criteria({CACHE: make_caches("static", model)}, model.generation_config)


# Training


@pytest.mark.parametrize("overrides", [{}, MODELS["mixed"]], ids=["full", "mixed"])
def test_gradient_checkpointing_leaves_the_gradients_alone(overrides, varlen):
    batch, found = make_batch(), []
    for is_checkpointed in (False, True):
        model = with_varlen(make_model(**overrides, dropout=0.0)).train()
        if is_checkpointed:
            model.gradient_checkpointing_enable()
        model(**batch).loss.backward()
        found.append(gradients(model))
    assert_close(*found)


class NoSync(TorchDispatchMode):
    """Fails at an operation for which a GPU would be waited for."""

    waits = {"_local_scalar_dense", "nonzero", "is_nonzero", "item", "equal", "unique_consecutive", "_unique2"}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.waits, f"{name} waits for the device"
        assert not (name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1])), (
            "index by a mask"
        )
        return func(*args, **(kwargs or {}))


LARGE = {"max_position_embeddings": 1024, "block_size": 64}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"encoder_layer_types": [CHUNKED] * 2, "decoder_layer_types": [CHUNKED, SLIDING, FULL]},
        {"encoder_layer_types": [SLIDING] * 2, "decoder_layer_types": [SLIDING] * 3},
    ],
    ids=["full", "blocks", "windows"],
)
def test_a_step_of_training_waits_for_nothing_and_makes_no_mask(overrides, side, varlen, monkeypatch):
    lengths = torch.tensor([[700], [512]])
    mask = (torch.arange(700) < lengths).long()
    mask = mask.flip(1) if side == "left" else mask
    model = make_model(**LARGE, **overrides).train()
    # Its reference makes scores.
    monkeypatch.setattr(varlen_xformer, "varlen_attn", lambda q, k, v, *args, **kwargs: q + k.mean() + v.mean())
    with_varlen(model)
    batch = {
        "input_ids": mask * 5,
        "attention_mask": mask,
        "decoder_input_ids": mask * 6,
        "decoder_attention_mask": mask,
    }
    with NoSync(), LargestTensor() as largest:
        model(**batch).logits.mean().backward()
    assert largest.elements <= mask.numel() * SIZES["vocab_size"] < 700 * 700


@pytest.mark.slow
def test_one_graph_serves_padded_rows_of_one_shape_whatever_their_lengths_and_sides(varlen, monkeypatch):
    torch.compiler.reset()
    monkeypatch.setattr(varlen_xformer, "varlen_attn", lambda q, k, v, *args, **kwargs: q + k.mean() + v.mean())
    model = with_varlen(make_model(**PACKED_GRAPHS["blocks"], dropout=0.0)).train()
    graph = torch.compile(model, fullgraph=True, backend="eager")
    with torch.compiler.set_stance("default"), torch._dynamo.config.patch(error_on_recompile=True):
        for side, shorter in (("right", 0), ("right", 2), ("left", 0), ("left", 4)):
            batch = {name: x.contiguous() for name, x in pad_on(side, make_batch()).items()}
            batch["attention_mask"][:, :shorter] = 0
            graph(**batch).logits.mean().backward()


# What it does not take


def test_a_mask_with_padding_inside_a_text_is_refused(varlen):
    batch = make_batch()
    batch["attention_mask"][0, 3] = 0
    with pytest.raises(RuntimeError, match="padding before and behind a text, not inside it: use attn_impl.*'sdpa'"):
        with_varlen(make_model())(**batch)


def test_a_mask_of_more_dimensions_is_refused(varlen):
    batch = make_batch()
    batch["attention_mask"] = torch.ones(3, 1, 11, 11)
    with pytest.raises(
        ValueError, match='a mask of tokens, of 2 dimensions and not of 4: use attn_implementation="sdpa"'
    ):
        with_varlen(make_model())(**batch)


REFUSED = {
    "relative-positions": ({"position_embedding_type": "relative"}, "cannot add relative positions to the scores"),
    "windows-and-global-tokens": (
        {"encoder_layer_types": [SLIDING, FULL], "num_global_tokens": 1}, "has no windows with global tokens",
    ),
    "odd heads": ({"head_dim": 10}, r"heads of a multiple of 8 and at most 256 features, and these have \[10\]"),
    "wide heads": ({"head_dim": 264}, r"these have \[264\]"),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "said"), REFUSED.values(), ids=REFUSED)
def test_a_model_that_the_kernel_would_fail_is_refused_when_it_is_made_or_told(overrides, said, varlen):
    with pytest.raises(ValueError, match=f'attn_implementation="varlen" .*{said}.*: use "sdpa"'):
        make_model(**overrides, attn_implementation="varlen")
    with pytest.raises(ValueError, match=said):
        with_varlen(make_model(**overrides))


@pytest.mark.parametrize(
    ("kernel", "capability", "said"),
    [
        (None, (9, 0), f"needs torch 2.11 or newer, and this is {torch.__version__}"),
        (print, None, "needs a GPU, and there is none"),
        (print, (7, 5), "needs a GPU of compute capability 8.0 or higher, and this one has 7.5"),
    ],
    ids=["old torch", "no GPU", "old GPU"],
)
def test_a_machine_without_the_kernel_is_named_in_one_line(kernel, capability, said, monkeypatch):
    monkeypatch.setattr(varlen_xformer, "varlen_attn", kernel)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    with pytest.raises(ValueError, match="attn_implementation") as refusal:
        make_model(attn_implementation="varlen")
    assert str(refusal.value) == f'attn_implementation="varlen" {said}: use "sdpa"'


def test_what_the_kernel_would_ignore_or_fail_at_is_refused_in_the_forward(varlen, monkeypatch):
    with pytest.raises(ValueError, match="no dropout of attention weights, and `attention_dropout` is 0.1"):
        with_varlen(make_model(attention_dropout=0.1)).train()(**make_batch())
    stock = BartForConditionalGeneration(BartConfig(d_model=16, vocab_size=53, encoder_layers=1, decoder_layers=1))
    with pytest.raises(ValueError, match="is for Xformer models"):
        with_varlen(stock)(**make_batch())
    monkeypatch.setattr(varlen_xformer, "KERNEL_DTYPES", (torch.bfloat16,))
    with pytest.raises(
        ValueError, match=r"trains with `bf16=True` or `fp16=True`, and these features are torch.float32"
    ):
        with_varlen(make_model())(**make_batch())
    monkeypatch.setattr(varlen_xformer, "KERNEL_DEVICE", "cuda")
    with pytest.raises(ValueError, match="needs a model on a GPU, and this one is on cpu"):
        with_varlen(make_model())(**make_batch())


def test_features_in_single_precision_are_computed_in_half_without_gradients(varlen, monkeypatch, caplog):
    """As those of the encoder in the Trainer's `generate`, which runs it outside of autocast."""
    monkeypatch.setattr(varlen_xformer, "KERNEL_DTYPES", (torch.bfloat16,))
    model, batch = with_varlen(make_model()), make_batch()
    with torch.no_grad():
        logits = model(**batch).logits
    assert logits.dtype == torch.float32
    expected = make_model()(**batch).logits
    assert_close(logits, expected, atol=0.1 * expected.std().item(), rtol=0)
    assert not torch.allclose(logits, expected, atol=1e-5)


def test_dropout_in_a_config_is_no_matter_where_nothing_is_trained(varlen):
    batch, model = make_batch(), make_model(attention_dropout=0.1)
    expected = model(**batch).logits
    assert_close(with_varlen(model)(**batch).logits, expected, atol=1e-5, rtol=1e-5)
