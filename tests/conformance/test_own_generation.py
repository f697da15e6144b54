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
    MODES,
    PAD,
    START,
    count_calls,
    generate,
    log_probabilities,
    modes,
    sides,
    source,
    target,
    variants,
)
from small_models import SIZES, SOURCE, TARGET, make_model
from torch.testing import assert_close
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig, StaticCache


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
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        pieces.append(output.logits)
    attended = torch.ones(3, TARGET, dtype=torch.bool) if mask is None else mask.bool()
    assert_close(torch.cat(pieces, dim=1)[attended], full[attended], atol=1e-5, rtol=1e-5)


@variants
def test_cached_keys_and_values_have_the_documented_shape(overrides):
    model = make_model(**overrides)
    cache = model(**source(), decoder_input_ids=target()).past_key_values
    heads = model.config.num_key_value_heads or model.config.decoder_attention_heads
    width = model.config.head_dim or model.config.d_model // model.config.decoder_attention_heads
    assert isinstance(cache, EncoderDecoderCache) and len(cache) == SIZES["decoder_layers"]
    assert cache.get_seq_length() == TARGET
    for part, length in ((cache.self_attention_cache, TARGET), (cache.cross_attention_cache, SOURCE)):
        for layer in part.layers:
            assert layer.keys.shape == layer.values.shape == (3, heads, length, width)


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_source_is_encoded_and_projected_once(options):
    model = make_model()
    cross = [layer.cross_attention for layer in model.model.decoder.layers]
    projections = count_calls([module for each in cross for module in (each.k_proj, each.v_proj)])
    steps = count_calls([model.model.encoder, model.lm_head])
    model.generate(**source(), **{**ENDLESS, **options}, max_new_tokens=6)
    assert projections == [1] * 2 * SIZES["decoder_layers"]
    assert steps == [1, 6]


@variants
def test_reordered_cache_equals_reordered_rows(overrides):
    model, batch, ids = make_model(**overrides), source(), target()
    order = torch.tensor([2, 0, 0])
    cache = model(**batch, decoder_input_ids=ids[:, :5]).past_key_values
    cache.reorder_cache(order)
    batch = {name: tensor[order] for name, tensor in batch.items()}
    cached = model(**batch, decoder_input_ids=ids[order, 5:], past_key_values=cache).logits
    full = model(**batch, decoder_input_ids=ids[order], use_cache=False).logits
    assert_close(cached, full[:, 5:], atol=1e-5, rtol=1e-5)


@variants
def test_cropped_cache_continues_as_if_the_rest_had_never_been(overrides):
    model, batch, ids = make_model(**overrides), source(), target()
    cache = model(**batch, decoder_input_ids=ids).past_key_values
    cache.crop(4 - TARGET)
    other = ids.flip(0)[:, 4:]
    cached = model(**batch, decoder_input_ids=other, past_key_values=cache).logits
    full = model(**batch, decoder_input_ids=torch.cat((ids[:, :4], other), dim=1), use_cache=False).logits
    assert_close(cached, full[:, 4:], atol=1e-5, rtol=1e-5)


@variants
def test_static_cache_generates_what_the_dynamic_one_does(overrides):
    model, options = make_model(**overrides), {**ENDLESS, "max_new_tokens": 9}
    dynamic = model.generate(**source(), **options)
    static = model.generate(**source(), **options, cache_implementation="static", disable_compile=True)
    assert torch.equal(static, dynamic)


def test_a_cache_of_the_users_is_filled_and_continued():
    model, batch = make_model(), source()
    whole = model.generate(**batch, **ENDLESS, max_new_tokens=9)
    cache = EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))
    begun = model.generate(**batch, **ENDLESS, max_new_tokens=4, past_key_values=cache)
    assert cache.get_seq_length() == 4
    # By the length of the mask the library knows that the ids hold the cached tokens too.
    continued = {"decoder_input_ids": begun, "decoder_attention_mask": torch.ones_like(begun)}
    ended = model.generate(**batch, **ENDLESS, max_new_tokens=5, past_key_values=cache, **continued)
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
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beam"])
def test_a_batch_generates_what_its_rows_do_alone(overrides, options):
    model, batch = make_model(**overrides), source()
    together = model.generate(**batch, **ENDLESS, **options, max_new_tokens=8)
    for row, length in enumerate([11, 8, 5]):
        alone = model.generate(batch["input_ids"][row : row + 1, :length], **ENDLESS, **options, max_new_tokens=8)
        assert torch.equal(together[row : row + 1], alone)


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
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beam"])
def test_a_ragged_decoder_prefix_continues_as_each_row_alone(overrides, options):
    model, batch = make_model(**overrides), source()
    prefix = torch.tensor([[START, 14, 31, 8], [PAD, START, 40, 9], [PAD, PAD, PAD, START]])
    options = {**ENDLESS, **options, "max_new_tokens": 6}
    together = model.generate(
        **batch, decoder_input_ids=prefix, decoder_attention_mask=(prefix != PAD).long(), **options
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


@variants
def test_beam_scores_are_summed_log_probabilities(overrides):
    model, batch = make_model(**overrides), source()
    options = {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.0, "max_new_tokens": 5}
    output = model.generate(**batch, **ENDLESS, **options, return_dict_in_generate=True, output_scores=True)
    assert all(len(beams.unique(dim=0)) == 4 for beams in output.sequences.view(3, 4, 6))
    repeated = {name: tensor.repeat_interleave(4, dim=0) for name, tensor in batch.items()}
    expected = log_probabilities(model, repeated, output.sequences)
    assert_close(output.sequences_scores, expected.sum(dim=-1), atol=1e-4, rtol=1e-4)
    assert (output.sequences_scores.view(3, 4).diff(dim=-1) <= 0).all()
    scores = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
    assert_close(scores, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_dictionary_outputs_have_a_tensor_a_step_and_layer(options, use_cache):
    model, steps = make_model(), 4
    model.set_attn_implementation("eager")
    beams = options.get("num_beams", 1)
    wanted = ("scores", "logits", "attentions", "hidden_states")
    output = model.generate(
        **source(),
        **{**ENDLESS, **options},
        max_new_tokens=steps,
        use_cache=use_cache,
        return_dict_in_generate=True,
        **{f"output_{name}": True for name in wanted},
    )
    rows, heads, width = 3 * beams, SIZES["decoder_attention_heads"], SIZES["d_model"]
    encoder_layers, layers = SIZES["encoder_layers"], SIZES["decoder_layers"]
    assert output.sequences.shape == (3, 1 + steps)
    assert len(output.scores) == len(output.logits) == steps
    assert all(step.shape == (rows, SIZES["vocab_size"]) for step in (*output.scores, *output.logits))
    assert [each.shape for each in output.encoder_attentions] == [(3, heads, SOURCE, SOURCE)] * encoder_layers
    assert [each.shape for each in output.encoder_hidden_states] == [(3, SOURCE, width)] * (1 + encoder_layers)
    for step in range(steps):
        queries, keys = (1, step + 1) if use_cache else (step + 1, step + 1)
        assert [each.shape for each in output.decoder_attentions[step]] == [(rows, heads, queries, keys)] * layers
        assert [each.shape for each in output.cross_attentions[step]] == [(rows, heads, queries, SOURCE)] * layers
        assert [each.shape for each in output.decoder_hidden_states[step]] == [(rows, queries, width)] * (1 + layers)
    assert (output.past_key_values is not None) == use_cache


class Forbid(LogitsProcessor):
    """Forbids a token, and keeps the sequences that it was shown."""

    def __init__(self, token: int):
        self.token, self.shown = token, []

    def __call__(self, input_ids, scores):
        self.shown.append(input_ids.clone())
        return scores.index_fill(-1, torch.tensor([self.token]), -torch.inf)


def test_processors_see_the_target_and_decide_the_next_token():
    model, batch = make_model(), source()
    free = model.generate(**batch, **ENDLESS, max_new_tokens=6)
    processor = Forbid(int(free[0, 2]))
    output = model.generate(**batch, **ENDLESS, max_new_tokens=6, logits_processor=[processor])
    assert processor.token not in output
    assert torch.equal(output[0, :2], free[0, :2]) and not torch.equal(output[0], free[0])
    assert [shown.tolist() for shown in processor.shown] == [output[:, :length].tolist() for length in range(1, 7)]


def test_built_in_constraints_hold():
    model, batch = make_model(), source()
    options = {**FULL_LENGTH, "max_new_tokens": 12}
    for beams in (1, 3):
        repeated = model.generate(**batch, **options, num_beams=beams, no_repeat_ngram_size=2)
        for row in repeated.tolist():
            assert len(set(itertools.pairwise(row))) == len(row) - 1
        fresh = model.generate(**batch, **options, num_beams=beams, encoder_no_repeat_ngram_size=1)
        for row, words in zip(fresh.tolist(), batch["input_ids"].tolist(), strict=True):
            assert not set(row[1:]) & set(words)
    forced = model.generate(**batch, max_new_tokens=5, forced_bos_token_id=33, forced_eos_token_id=EOS)
    assert (forced[:, 1] == 33).all() and (forced[:, -1] == EOS).all()


def test_min_new_tokens_puts_the_end_off():
    model = make_model(use_final_logits_bias=True)
    model.lm_head.bias.data[EOS] = 1e4
    generated = model.generate(**source(), do_sample=False, max_new_tokens=9, min_new_tokens=4)
    assert generated.shape == (3, 6) and (generated[:, -1] == EOS).all() and not (generated[:, :-1] == EOS).any()


class Collect(BaseStreamer):
    def __init__(self):
        self.tokens, self.ended = [], False

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        self.ended = True


def test_a_streamer_gets_every_token_in_order():
    streamer, model = Collect(), make_model()
    generated = model.generate(source()["input_ids"][:1], **ENDLESS, max_new_tokens=6, streamer=streamer)
    assert streamer.ended and streamer.tokens == generated[0].tolist()


class StopAt(StoppingCriteria):
    """Ends row `i` when the target has `lengths[i]` tokens."""

    def __init__(self, *lengths: int):
        self.lengths = torch.tensor(lengths)

    def __call__(self, input_ids, scores, **kwargs):
        return input_ids.shape[1] >= self.lengths


def test_stopping_criteria_end_each_row_on_its_own():
    model, batch = make_model(), source()
    free = model.generate(**batch, **ENDLESS, max_new_tokens=9)
    # The library pads finished rows only if there is an end token at all.
    options = {**ENDLESS, "eos_token_id": EOS}
    stopped = model.generate(**batch, **options, max_new_tokens=9, stopping_criteria=[StopAt(4, 7, 5)])
    assert stopped.shape == (3, 7)
    for row, length in enumerate([4, 7, 5]):
        assert stopped[row].tolist() == free[row, :length].tolist() + [PAD] * (7 - length)


@pytest.mark.parametrize("overrides", [{}, VARIANTS["sinusoidal-post"]], ids=["rope-pre", "sinusoidal-post"])
@pytest.mark.parametrize("draft", ["assistant", "prompt-lookup"])
def test_assisted_decoding_equals_greedy(overrides, draft):
    model, ids = make_model(**overrides), source()["input_ids"][:1]
    # An assistant that is right at times: cropping the cache is part of the test.
    assistant = make_model(**overrides)
    with torch.no_grad():
        for parameter in assistant.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    options = {"assistant": {"assistant_model": assistant}, "prompt-lookup": {"prompt_lookup_num_tokens": 3}}[draft]
    expected = model.generate(ids, **ENDLESS, max_new_tokens=15)
    assert torch.equal(model.generate(ids, **ENDLESS, max_new_tokens=15, **options), expected)


def test_sampling_follows_the_distribution():
    model, ids = make_model(vocab_size=5), torch.tensor([[4, 3, 4]])
    torch.manual_seed(6)
    drawn = model.generate(ids, do_sample=True, top_k=0, max_new_tokens=1, num_return_sequences=4000)[:, 1]
    expected = model(ids, decoder_input_ids=torch.tensor([[START]])).logits[0, -1].softmax(dim=-1)
    assert_close(drawn.bincount(minlength=5) / 4000, expected, atol=0.03, rtol=0)


def test_keywords_of_the_users_reach_the_forward():
    model = make_model()
    inputs = model.prepare_inputs_for_generation(
        target(), next_sequence_length=1, attention_mask=source()["attention_mask"], a_new_keyword=3, use_cache=True
    )
    assert inputs["a_new_keyword"] == 3 and "input_ids" not in inputs
    assert "decoder_input_ids" in inputs and "attention_mask" in inputs


@pytest.mark.parametrize("overrides", [{}, VARIANTS["sinusoidal-post"]], ids=["rope-pre", "sinusoidal-post"])
def test_bfloat16_generates_and_its_cache_agrees(overrides):
    model, batch = make_model(**overrides).to(torch.bfloat16), source()
    output = model.generate(**batch, **ENDLESS, max_new_tokens=9, return_dict_in_generate=True, output_logits=True)
    full = model(**batch, decoder_input_ids=output.sequences[:, :-1], use_cache=False).logits
    assert full.dtype == torch.bfloat16 and full.isfinite().all()
    scale = full.float().std()
    # generate hands its logits out in float32
    assert_close(torch.stack(output.logits, dim=1) / scale, full.float() / scale, atol=0.1, rtol=0)


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
