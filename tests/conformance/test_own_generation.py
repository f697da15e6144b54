# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`generate` against plain loops and against itself: caches, searches, and everything a caller may pass in."""

import itertools

import pytest
import torch
from generation_cases import (
    ENDLESS,
    EOS,
    FULL_LENGTH,
    PAD,
    START,
    count_calls,
    generate,
    log_probabilities,
    modes,
    source,
    target,
    variants,
)
from small_models import SIZES, SOURCE, TARGET, make_model
from torch.testing import assert_close
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig, StaticCache
from transformers.generation import GenerationMixin

from hf_xformer.models.versions_xformer import CACHE


CHUNKS = [[7], [1] * 7, [3, 4], [1, 5, 1], [2, 1, 4]]
LEFT_PADDED = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1]])


@variants
@pytest.mark.parametrize("mask", [None, LEFT_PADDED], ids=["whole", "left-padded"])
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_cached_logits_equal_uncached_ones_in_any_chunking(overrides, mask, chunks):
    model, batch, ids = make_model(**overrides), source(), target()
    full = model(**batch, decoder_input_ids=ids, decoder_attention_mask=mask, use_cache=False).logits
    cache, pieces, end = None, [], 0
    for length in chunks:
        start, end = end, end + length
        output = model(
            **batch,
            decoder_input_ids=ids[:, start:end],
            decoder_attention_mask=None if mask is None else mask[:, :end],
            **{CACHE: cache},
            use_cache=True,
        )
        cache = output[CACHE]
        pieces.append(output.logits)
    attended = torch.ones(3, TARGET, dtype=torch.bool) if mask is None else mask.bool()
    assert_close(torch.cat(pieces, dim=1)[attended], full[attended], atol=1e-5, rtol=1e-5)


@variants
def test_cached_keys_and_values_have_the_documented_shape(overrides):
    model = make_model(**overrides)
    cache = model(**source(), decoder_input_ids=target())[CACHE]
    heads = model.config.num_key_value_heads or model.config.decoder_attention_heads
    width = model.config.head_dim or model.config.d_model // model.config.decoder_attention_heads
    assert isinstance(cache, EncoderDecoderCache) and len(cache) == SIZES["decoder_layers"]
    assert cache.get_seq_length() == TARGET
    # A window holds the next token too, of which there is nothing yet.
    window = min(TARGET, model.config.block_size - 1)
    targets = [TARGET if each == "full_attention" else window for each in model.config.decoder_layer_types]
    sources = [SOURCE] * SIZES["decoder_layers"]
    for part, lengths in ((cache.self_attention_cache, targets), (cache.cross_attention_cache, sources)):
        for layer, length in zip(part.layers, lengths, strict=True):
            assert layer.keys.shape == layer.values.shape == (3, heads, length, width)


@modes
def test_source_is_encoded_and_projected_once(mode):
    model = make_model()
    cross = [layer.cross_attention for layer in model.model.decoder.layers]
    projections = count_calls([module for each in cross for module in (each.k_proj, each.v_proj)])
    steps = count_calls([model.model.encoder, model.lm_head])
    model.generate(**source(), **{**ENDLESS, **mode}, max_new_tokens=6)
    assert projections == [1] * 2 * SIZES["decoder_layers"]
    assert steps == [1, 6]


@variants
def test_reordered_cache_equals_reordered_rows(overrides):
    model, batch, ids = make_model(**overrides), source(), target()
    order = torch.tensor([2, 0, 0])
    cache = model(**batch, decoder_input_ids=ids[:, :5])[CACHE]
    cache.reorder_cache(order)
    batch = {name: tensor[order] for name, tensor in batch.items()}
    cached = model(**batch, decoder_input_ids=ids[order, 5:], **{CACHE: cache}).logits
    full = model(**batch, decoder_input_ids=ids[order], use_cache=False).logits
    assert_close(cached, full[:, 5:], atol=1e-5, rtol=1e-5)


@variants
def test_cropped_cache_continues_as_if_the_rest_had_never_been(overrides):
    model, batch, ids = make_model(**overrides), source(), target()
    cache = EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache())
    # Without it, layers with windows have forgotten what cropping would bring back.
    cache.activate_past_recording()
    model(**batch, decoder_input_ids=ids, **{CACHE: cache})
    cache.crop(4 - TARGET)
    other = ids.flip(0)[:, 4:]
    cached = model(**batch, decoder_input_ids=other, **{CACHE: cache}).logits
    full = model(**batch, decoder_input_ids=torch.cat((ids[:, :4], other), dim=1), use_cache=False).logits
    assert_close(cached, full[:, 4:], atol=1e-5, rtol=1e-5)


@variants
@modes
def test_static_cache_generates_what_the_dynamic_one_does(overrides, mode):
    model, options = make_model(**overrides), {**ENDLESS, **mode, "max_new_tokens": 9}
    dynamic = generate(model, **source(), **options)
    static = generate(model, **source(), **options, cache_implementation="static", disable_compile=True)
    assert torch.equal(static, dynamic)


@variants
def test_a_static_cache_of_the_users_may_be_longer_and_is_empty_after_a_reset(overrides):
    model, batch = make_model(**overrides), source()
    sizes = {"self": SIZES["max_position_embeddings"], "cross": SOURCE}
    cache = EncoderDecoderCache(*(StaticCache(config=model.config, max_cache_len=size) for size in sizes.values()))
    for ids in (batch["input_ids"], batch["input_ids"].flip(0)):
        inputs = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
        expected = model.generate(**inputs, **ENDLESS, max_new_tokens=6)
        static = model.generate(**inputs, **ENDLESS, max_new_tokens=6, **{CACHE: cache}, disable_compile=True)
        assert torch.equal(static, expected)
        cache.reset()


def test_a_quantized_cache_is_refused_by_name():
    with pytest.raises(ValueError, match="does not support the quantized cache"):
        make_model().generate(**source(), max_new_tokens=3, cache_implementation="quantized")


@pytest.mark.parametrize("name", ["offloaded", "offloaded_static"])
def test_a_cache_beside_a_gpu_is_refused_on_a_cpu(name):
    with pytest.raises(ValueError, match=f'`cache_implementation="{name}"` .* on a CPU: leave it out'):
        make_model().generate(**source(), max_new_tokens=3, cache_implementation=name)


def test_the_sources_keys_stay_where_attention_reads_them_in_a_cache_that_leaves_the_gpu():
    model, cross = make_model(), DynamicCache()
    expected = model.generate(**source(), **ENDLESS, max_new_tokens=5)
    cross.offloading = True  # nothing else of it works without a GPU
    cache = EncoderDecoderCache(DynamicCache(config=model.config), cross)
    assert torch.equal(model.generate(**source(), **ENDLESS, max_new_tokens=5, **{CACHE: cache}), expected)
    assert not cache.cross_attention_cache.offloading


def test_a_cache_of_the_users_is_filled_and_continued():
    model, batch = make_model(), source()
    whole = model.generate(**batch, **ENDLESS, max_new_tokens=9)
    cache = EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))
    begun = model.generate(**batch, **ENDLESS, max_new_tokens=4, **{CACHE: cache})
    assert cache.get_seq_length() == 4
    # By the length of the mask the library knows that the ids hold the cached tokens too.
    continued = {"decoder_input_ids": begun, "decoder_attention_mask": torch.ones_like(begun)}
    ended = model.generate(**batch, **ENDLESS, max_new_tokens=5, **{CACHE: cache}, **continued)
    assert torch.equal(begun, whole[:, :5]) and torch.equal(ended, whole)


@variants
def test_sixty_steps_from_a_source_of_one_token_equal_the_uncached_forward(overrides):
    model, ids = make_model(**overrides), torch.tensor([[17]])
    output = model.generate(
        ids, **FULL_LENGTH, max_new_tokens=60, return_dict_in_generate=True, output_logits=True, use_cache=True
    )
    full = model(ids, decoder_input_ids=output.sequences[:, :-1], use_cache=False).logits
    assert output.sequences.shape == (1, 61)
    assert_close(torch.stack(output.logits, dim=1), full, atol=1e-4, rtol=1e-4)


@variants
@pytest.mark.parametrize(
    ("side", "options"),
    [("left", {}), ("right", {}), ("right", {"num_beams": 3})],
    ids=["left-greedy", "right-greedy", "right-beam"],
)
def test_a_batch_padded_on_either_side_generates_what_its_rows_do_alone(overrides, side, options):
    model, batch = make_model(**overrides), source(side)
    together = model.generate(**batch, **ENDLESS, **options, max_new_tokens=8)
    for row, mask in enumerate(batch["attention_mask"].bool()):
        alone = model.generate(batch["input_ids"][row : row + 1, mask], **ENDLESS, **options, max_new_tokens=8)
        assert torch.equal(together[row : row + 1], alone)


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"cache_implementation": "static", "disable_compile": True}]
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_attended_to_though_no_mask_is_given(side, options):
    model, batch = make_model(), source(side)
    expected = model.generate(**batch, **ENDLESS, **options, max_new_tokens=6)
    assert torch.equal(model.generate(batch["input_ids"], **ENDLESS, **options, max_new_tokens=6), expected)
    named = model.generate(input_ids=batch["input_ids"], **ENDLESS, **options, max_new_tokens=6)
    assert torch.equal(named, expected)


def test_a_token_is_attended_to_that_may_be_no_padding():
    model, batch, options = make_model(), source(), {**ENDLESS, "max_new_tokens": 6}
    ids, whole = batch["input_ids"], torch.ones_like(batch["input_ids"])
    expected = model.generate(ids, attention_mask=whole, **options)
    assert not torch.equal(expected, model.generate(ids, attention_mask=batch["attention_mask"], **options))
    for others in ({"eos_token_id": [EOS, PAD]}, {"bos_token_id": PAD}, {"pad_token_id": 3}):
        changed = {**options, **others}
        assert torch.equal(model.generate(ids, **changed), model.generate(ids, attention_mask=whole, **changed))
    inside = ids[:1].clone()
    inside[0, 4] = PAD
    for some in (inside, torch.full((1, 3), PAD)):
        wanted = model.generate(some, attention_mask=torch.ones_like(some), **options)
        assert torch.equal(model.generate(some, **options), wanted)


@variants
def test_a_row_ends_with_its_end_token_and_is_padded_behind_it(overrides):
    model, batch = make_model(**overrides), source()
    endless = model.generate(**batch, **ENDLESS, max_new_tokens=9)
    end = int(endless[1, 4])
    generated = model.generate(**batch, **{**ENDLESS, "eos_token_id": end}, max_new_tokens=9)
    expected = endless.clone()
    for row in expected:
        places = (row[1:] == end).nonzero()
        if len(places):
            row[places[0, 0] + 2 :] = PAD
    longest = int((expected != PAD).any(dim=0).nonzero().max()) + 1
    assert (expected[1, -1] == PAD) and torch.equal(generated, expected[:, :longest])


@variants
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beam"])
def test_encoder_outputs_and_inputs_embeds_stand_for_the_source(overrides, options):
    model, batch = make_model(**overrides), source()
    options = {**ENDLESS, **options, "max_new_tokens": 8, "attention_mask": batch["attention_mask"]}
    expected = model.generate(batch["input_ids"], **options)
    encoder_outputs = model.get_encoder()(**batch)
    assert torch.equal(model.generate(encoder_outputs=encoder_outputs, **options), expected)
    inputs_embeds = model.get_input_embeddings()(batch["input_ids"])
    assert torch.equal(model.generate(inputs_embeds=inputs_embeds, **options), expected)


@variants
@pytest.mark.parametrize(
    ("options", "cache"),
    [({}, {}), ({"num_beams": 3}, {}), ({}, {"cache_implementation": "static", "disable_compile": True})],
    ids=["greedy", "beam", "static-greedy"],
)
def test_a_ragged_decoder_prefix_continues_as_each_row_alone(overrides, options, cache):
    model, batch = make_model(**overrides), source()
    prefix = torch.tensor([[START, 14, 31, 8], [PAD, START, 40, 9], [PAD, PAD, PAD, START]])
    options = {**ENDLESS, **options, "max_new_tokens": 6}
    together = model.generate(
        **batch, decoder_input_ids=prefix, decoder_attention_mask=(prefix != PAD).long(), **options, **cache
    )
    assert torch.equal(together[:, :4], prefix)
    for row, begin in enumerate([0, 1, 3]):
        single = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        alone = model.generate(**single, decoder_input_ids=prefix[row : row + 1, begin:], **options)
        assert torch.equal(together[row : row + 1, begin:], alone)


def test_without_a_source_generation_starts_from_the_bos_token():
    model = make_model()
    expected = model.generate(torch.tensor([[model.config.bos_token_id]]), **ENDLESS, max_new_tokens=5)
    assert torch.equal(model.generate(**ENDLESS, max_new_tokens=5), expected)


@pytest.mark.slow
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_enough_beams_find_the_best_of_all_sequences(length_penalty):
    words, steps = 6, 3
    model = make_model(vocab_size=words)
    ids = torch.tensor([[3, 5, 4, 3, 3]])
    scores = {}
    for sequence in itertools.product(range(words), repeat=steps):
        ended = sequence.index(EOS) + 1 if EOS in sequence else steps
        sequence = (START, *sequence[:ended])
        if sequence not in scores:
            total = log_probabilities(model, {"input_ids": ids}, torch.tensor([sequence])).sum()
            scores[sequence] = total.item() / ended**length_penalty
    best = max(scores, key=scores.get)
    options = {"num_beams": words**2, "length_penalty": length_penalty, "early_stopping": "never", "do_sample": False}
    output = model.generate(ids, max_new_tokens=steps, **options, return_dict_in_generate=True, output_scores=True)
    assert tuple(output.sequences[0, : len(best)].tolist()) == best
    assert_close(output.sequences_scores[0].item(), scores[best], atol=1e-5, rtol=1e-5)


def test_keywords_of_the_users_reach_the_forward():
    model = make_model()
    inputs = model.prepare_inputs_for_generation(
        target(), next_sequence_length=1, attention_mask=source()["attention_mask"], a_new_keyword=3, use_cache=True
    )
    assert inputs["a_new_keyword"] == 3 and "input_ids" not in inputs
    assert "decoder_input_ids" in inputs and "attention_mask" in inputs


@variants
@pytest.mark.parametrize("precision", ["bfloat16", "float16", "autocast"])
def test_half_precision_generates_and_its_cache_agrees(overrides, precision):
    model, batch = make_model(**overrides), source()
    if precision != "autocast":
        model = model.to(getattr(torch, precision))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        output = model.generate(**batch, **ENDLESS, max_new_tokens=9, return_dict_in_generate=True, output_logits=True)
        full = model(**batch, decoder_input_ids=output.sequences[:, :-1], use_cache=False).logits
    assert full.dtype == (torch.float16 if precision == "float16" else torch.bfloat16) and full.isfinite().all()
    scale = full.float().std()
    # generate hands its logits out in float32
    assert_close(torch.stack(output.logits, dim=1) / scale, full.float() / scale, atol=0.2, rtol=0)


@variants
def test_gradient_checkpointing_does_not_touch_generation(overrides):
    model = make_model(**overrides, dropout=0.0)
    expected = model.generate(**source(), **ENDLESS, max_new_tokens=6)
    model.gradient_checkpointing_enable()
    assert torch.equal(model.generate(**source(), **ENDLESS, max_new_tokens=6), expected)


def test_only_the_language_model_generates_and_inherits_the_mixin_directly():
    model = make_model()
    assert GenerationMixin in type(model).__bases__ and model.can_generate()
    assert not any(each.can_generate() for each in (model.model, model.get_encoder(), model.get_decoder()))


def test_saved_model_generates_the_same_with_its_saved_defaults(tmp_path):
    model, batch = make_model(), source()
    model.generation_config.update(max_new_tokens=8, num_beams=2, eos_token_id=30, do_sample=False)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.generation_config.to_diff_dict() == GenerationConfig.from_pretrained(tmp_path).to_diff_dict()
    generated = loaded.generate(**batch)
    assert torch.equal(generated, model.generate(**batch)) and generated.shape[1] <= 9


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_generation_works_after_the_vocabulary_has_grown_and_shrunk(tied):
    model, batch = make_model(tie_word_embeddings=tied, use_final_logits_bias=True), source()
    expected = model.generate(**batch, **FULL_LENGTH, max_new_tokens=6)
    model.resize_token_embeddings(SIZES["vocab_size"] + 8, mean_resizing=False)
    assert model(**batch, decoder_input_ids=target()).logits.shape[-1] == model.config.vocab_size == 61
    model.lm_head.bias.data[-8:] = -1e4
    assert torch.equal(model.generate(**batch, **FULL_LENGTH, max_new_tokens=6), expected)
    model.lm_head.bias.data[60] = 1e4
    assert (model.generate(**batch, **FULL_LENGTH, max_new_tokens=6)[:, 1:] == 60).all()
    model.resize_token_embeddings(SIZES["vocab_size"])
    assert torch.equal(model.generate(**batch, **FULL_LENGTH, max_new_tokens=6), expected)
