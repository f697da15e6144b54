# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What `generate` returns beside the tokens: scores, logits, attentions, hidden states, caches."""

import itertools

import pytest
import torch
from generation_cases import (
    ENDLESS,
    MODES,
    START,
    generate,
    log_probabilities,
    source,
    variants,
)
from small_blocks import weights_over_rows
from small_models import SIZES, SOURCE, make_model
from torch.testing import assert_close
from transformers.generation import GenerateBeamEncoderDecoderOutput, GenerateEncoderDecoderOutput

from hf_xformer.models import XformerCache
from hf_xformer.models.versions_xformer import CACHE


WANTED = {"return_dict_in_generate": True, **{f"output_{name}": True for name in ("scores", "logits")}}
EVERYTHING = {**WANTED, "output_attentions": True, "output_hidden_states": True}
RETURNED = {
    "greedy": MODES["greedy"],
    "sample": {**MODES["sample"], "num_return_sequences": 2},
    "beam": {**MODES["beam"], "num_return_sequences": 2},
    "beam-sample": MODES["beam-sample"],
}
STEPS = 4


def shapes(tensors) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors]


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("mode", RETURNED.values(), ids=RETURNED)
def test_dictionary_outputs_have_a_tensor_a_step_and_layer(mode, use_cache):
    model = make_model(num_key_value_heads=2, attn_implementation="eager")
    output = generate(
        model, **source(), **{**ENDLESS, **mode}, **EVERYTHING, max_new_tokens=STEPS, use_cache=use_cache
    )
    returned, beams = mode.get("num_return_sequences", 1), mode.get("num_beams", 1)
    heads, width = SIZES["decoder_attention_heads"], SIZES["d_model"]
    encoder_layers, layers = SIZES["encoder_layers"], SIZES["decoder_layers"]
    rows = 3 * max(beams, returned)
    assert output.sequences.shape == (3 * returned, 1 + STEPS)
    assert len(output.scores) == len(output.logits) == STEPS
    assert set(shapes((*output.scores, *output.logits))) == {(rows, SIZES["vocab_size"])}
    assert shapes(output.encoder_attentions) == [(3, heads, SOURCE, SOURCE)] * encoder_layers
    assert shapes(output.encoder_hidden_states) == [(3, SOURCE, width)] * (1 + encoder_layers)
    for name in ("decoder_attentions", "cross_attentions", "decoder_hidden_states"):
        assert len(output[name]) == STEPS
    for step in range(STEPS):
        queries, keys = (1, step + 1) if use_cache else (step + 1, step + 1)
        assert shapes(output.decoder_attentions[step]) == [(rows, heads, queries, keys)] * layers
        assert shapes(output.cross_attentions[step]) == [(rows, heads, queries, SOURCE)] * layers
        assert shapes(output.decoder_hidden_states[step]) == [(rows, queries, width)] * (1 + layers)
    if beams > 1:
        assert type(output) is GenerateBeamEncoderDecoderOutput
        assert output.sequences_scores.shape == (3 * returned,)
        assert output.beam_indices.shape == (3 * returned, STEPS)
    else:
        assert type(output) is GenerateEncoderDecoderOutput
    if use_cache:
        assert_cache_holds(output[CACHE], rows, heads=2, length=STEPS)
    else:
        assert output.get(CACHE) is None


def assert_cache_holds(cache, rows: int, heads: int, length: int):
    """The last token that was chosen has not been read yet; the rows of a source share its keys and values."""
    width = SIZES["d_model"] // SIZES["decoder_attention_heads"]
    assert type(cache) is XformerCache and cache.get_seq_length() == length
    parts = (cache.self_attention_cache, rows, length), (cache.cross_attention_cache, 3, SOURCE)
    for part, rows, keys in parts:
        assert len(part.layers) == SIZES["decoder_layers"]
        for layer in part.layers:
            assert shapes((layer.keys, layer.values)) == [(rows, heads, keys, width)] * 2


@variants
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_logits_attentions_and_hidden_states_of_the_steps_are_rows_of_one_forward(overrides, use_cache):
    model, batch = make_model(**overrides, attn_implementation="eager"), source()
    output = generate(model, **batch, **ENDLESS, **EVERYTHING, max_new_tokens=STEPS, use_cache=use_cache)
    asked = {"output_attentions": True, "output_hidden_states": True, "use_cache": False}
    full = model(**batch, decoder_input_ids=output.sequences[:, :-1], **asked)
    assert_close(torch.stack(output.logits, dim=1), full.logits, atol=1e-5, rtol=1e-5)
    assert_close(output.encoder_attentions, full.encoder_attentions)
    assert_close(output.encoder_hidden_states, full.encoder_hidden_states)
    for step, layer in itertools.product(range(STEPS), range(SIZES["decoder_layers"])):
        rows = slice(step, step + 1) if use_cache else slice(step + 1)
        place = (slice(None), slice(None), rows)
        expected, weights = full.decoder_attentions[layer], output.decoder_attentions[step][layer]
        expected = weights_over_rows(expected, model.config, "decoder", layer, STEPS)[place][..., : step + 1]
        weights = weights_over_rows(weights, model.config, "decoder", layer, step + 1)
        # A window's keys are the row's last.
        weights = torch.nn.functional.pad(weights, (step + 1 - weights.shape[-1], 0))
        assert_close(weights, expected, atol=1e-5, rtol=1e-5)
        assert_close(output.cross_attentions[step][layer], full.cross_attentions[layer][place], atol=1e-5, rtol=1e-5)
        expected = full.decoder_hidden_states[1 + layer][:, rows]
        assert_close(output.decoder_hidden_states[step][1 + layer], expected, atol=1e-5, rtol=1e-5)


@variants
def test_continuing_from_a_cache_equals_generating_without_a_break(overrides):
    model, batch = make_model(**overrides), source()
    whole = generate(model, **batch, **ENDLESS, **WANTED, max_new_tokens=9)
    begun = generate(model, **batch, **ENDLESS, **WANTED, max_new_tokens=STEPS)
    ended = generate(
        model,
        **batch,
        **ENDLESS,
        **WANTED,
        max_new_tokens=9 - STEPS,
        decoder_input_ids=begun.sequences,
        # By the length of the mask the library knows that the ids hold the cached tokens too.
        decoder_attention_mask=torch.ones_like(begun.sequences),
        **{CACHE: begun[CACHE]},
    )
    assert torch.equal(begun.sequences, whole.sequences[:, : 1 + STEPS])
    assert torch.equal(ended.sequences, whole.sequences)
    assert_close((*begun.logits, *ended.logits), whole.logits, atol=1e-5, rtol=1e-5)
    for part in ("self_attention_cache", "cross_attention_cache"):
        layers, expected = (getattr(output[CACHE], part).layers for output in (ended, whole))
        for layer, other in zip(layers, expected, strict=True):
            assert_close((layer.keys, layer.values), (other.keys, other.values), atol=1e-5, rtol=1e-5)


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


@variants
def test_scores_of_single_sequences_are_log_probabilities(overrides):
    model, batch = make_model(**overrides), source()
    options = {"do_sample": False, "eos_token_id": None, "max_new_tokens": 5}
    output = generate(model, **batch, **options, **WANTED)
    scores = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    assert_close(scores, log_probabilities(model, batch, output.sequences), atol=1e-5, rtol=1e-5)


def test_sampling_follows_the_distribution():
    model, ids = make_model(vocab_size=5), torch.tensor([[4, 3, 4]])
    torch.manual_seed(6)
    drawn = model.generate(ids, do_sample=True, top_k=0, max_new_tokens=1, num_return_sequences=4000)[:, 1]
    expected = model(ids, decoder_input_ids=torch.tensor([[START]])).logits[0, -1].softmax(dim=-1)
    assert_close(drawn.bincount(minlength=5) / 4000, expected, atol=0.03, rtol=0)
