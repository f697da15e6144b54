# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Positions: a text's rotation is its own, whatever stands beside it and came before it; buffers stay exact."""

import pytest
import torch
from small_models import VANILLA, make_model
from transformers import GenerationConfig, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from hf_xformer import XformerConfig, XformerForSeq2SeqLM
from hf_xformer.models import generation_xformer
from hf_xformer.models.positions_xformer import TokenPositions


UNCHANGED, PAIRS = 12, 4  # tokens up to which frequencies are constant; pairs of features of a head
ROPES: dict[str, dict] = {
    "default": {},
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 3.3},
    "yarn": {"factor": 2.0, "original_max_position_embeddings": UNCHANGED},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": UNCHANGED,
    },
    "longrope": {
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.5, 3.0, 5.0, 8.0],
        "original_max_position_embeddings": UNCHANGED,
    },
}
BLOCKS = {
    "encoder_layer_types": ["chunked_attention", "sliding_attention"],
    "decoder_layer_types": ["sliding_attention", "full_attention", "chunked_attention"],
    "block_size": 3,
}
rope_types = pytest.mark.parametrize("rope_type", ROPES)


def fields_of(rope_type: str) -> dict:
    # With longrope what is unchanged is the original length, and the other is beyond all texts.
    longest = 48 if "original_max_position_embeddings" in ROPES[rope_type] else UNCHANGED
    rope = {"rope_type": rope_type, "rope_theta": 100.0, **ROPES[rope_type]}
    return {"head_dim": 2 * PAIRS, "max_position_embeddings": longest, "rope_parameters": rope}


def make_texts(count: int) -> list[torch.Tensor]:
    """Texts of random lengths on both sides of `UNCHANGED`, the first two just at it and beyond it."""
    generator = torch.Generator().manual_seed(count)
    lengths = [UNCHANGED, UNCHANGED + 1, *torch.randint(1, 33, (count,), generator=generator).tolist()][:count]
    return [torch.randint(4, 53, (length,), generator=generator) for length in lengths]


def pad(texts: list[torch.Tensor], is_left: bool = False) -> dict[str, torch.Tensor]:
    longest = max(map(len, texts))
    rows, mask = torch.zeros(2, len(texts), longest, dtype=torch.long)
    for row, seen, text in zip(rows, mask, texts, strict=True):
        place = slice(longest - len(text), None) if is_left else slice(len(text))
        row[place], seen[place] = text, 1
    return {"input_ids": rows, "attention_mask": mask}


def stock_rotation(rope_type: str, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of one text by a new rotary embedding of a stock model, (length, K/2) twice."""
    fields = fields_of(rope_type)
    config = LlamaConfig(hidden_size=16, num_attention_heads=2, **fields)
    cos, sin = LlamaRotaryEmbedding(config)(torch.ones(1), torch.arange(length)[None])
    return cos[0, :, :PAIRS], sin[0, :, :PAIRS]


@rope_types
@pytest.mark.parametrize("are_packed", [False, True], ids=["padded", "packed"])
def test_the_rotation_of_each_text_is_the_stock_one_of_it_alone(rope_type, are_packed):
    encoder = make_model(**fields_of(rope_type)).model.encoder
    lengths = [5, 30, UNCHANGED, UNCHANGED + 1, 1]
    if are_packed:
        ids = torch.cat([torch.arange(length) for length in lengths])[None]
        places = [(0, slice(sum(lengths[:i]), sum(lengths[: i + 1]))) for i in range(len(lengths))]
    else:
        ids = torch.arange(30).expand(5, -1).minimum(torch.tensor(lengths)[:, None] - 1)
        places = [(i, slice(length)) for i, length in enumerate(lengths)]
    at = TokenPositions(ids, 0, 30, 30, are_packed)
    cos, sin = encoder.positions(torch.ones(*ids.shape, 1), at).rotation
    for place, length in zip(places, lengths, strict=True):
        torch.testing.assert_close((cos[place][:, 0], sin[place][:, 0]), stock_rotation(rope_type, length))


@rope_types
@pytest.mark.parametrize("blocks", [{}, BLOCKS], ids=["full", "blocks"])
@pytest.mark.parametrize("is_left", [False, True], ids=["right", "left"])
@torch.no_grad()
def test_a_source_is_read_in_company_as_alone(rope_type, blocks, is_left):
    encoder = make_model(**fields_of(rope_type), **blocks).model.encoder
    for count in (7, 32):
        texts = make_texts(count)
        batch = pad(texts, is_left)
        memory = encoder(**batch).last_hidden_state
        again = encoder(**batch).last_hidden_state
        assert torch.equal(memory, again)
        for row, seen, text in zip(memory, batch["attention_mask"].bool(), texts, strict=True):
            torch.testing.assert_close(row[seen], encoder(text[None]).last_hidden_state[0], atol=2e-5, rtol=1e-4)


@rope_types
@torch.no_grad()
def test_packed_sources_are_read_as_alone(rope_type):
    encoder = make_model(**fields_of(rope_type)).model.encoder
    texts = make_texts(6)
    ids = torch.cat([torch.full((len(text),), i) for i, text in enumerate(texts, start=1)])[None]
    memory = encoder(torch.cat(texts)[None], segment_ids=ids).last_hidden_state[0]
    for part, text in zip(memory.split([len(text) for text in texts]), texts, strict=True):
        torch.testing.assert_close(part, encoder(text[None]).last_hidden_state[0], atol=2e-5, rtol=1e-4)


def scores_of(model, source: dict, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoded tokens and the log-probability of each, a row a text."""
    output = model.generate(**source, return_dict_in_generate=True, output_scores=True, **options)
    beams = getattr(output, "beam_indices", None)
    return output.sequences, model.compute_transition_scores(
        output.sequences, output.scores, beams, normalize_logits=beams is None
    )


@pytest.mark.parametrize(
    ("count", "alone"), [(7, 2), pytest.param(32, 32, marks=pytest.mark.nightly)], ids=["7", "32"]
)
@pytest.mark.parametrize("layers", ["full", "blocks"])
@pytest.mark.parametrize("beams", [1, 4], ids=["greedy", "beams"])
@pytest.mark.parametrize("scheme", [*ROPES, "sinusoidal", "learned", "relative", "none"])
@torch.no_grad()
def test_a_text_is_decoded_in_company_as_alone(scheme, beams, layers, count, alone):
    fields = fields_of(scheme) if scheme in ROPES else {"position_embedding_type": scheme}
    if layers == "blocks" and scheme == "relative":
        pytest.skip("relative positions go with full attention only")
    model = make_model(**fields, **(BLOCKS if layers == "blocks" else {}))
    model.generation_config.update(eos_token_id=None, max_new_tokens=5 if alone == 2 else UNCHANGED, num_beams=beams)
    source = pad(texts := make_texts(count))
    together, scores = scores_of(model, source)
    uncached, uncached_scores = scores_of(model, source, use_cache=False)
    assert torch.equal(together, uncached)
    torch.testing.assert_close(scores, uncached_scores, atol=1e-4, rtol=1e-4)
    for row in range(alone):
        tokens, own_scores = scores_of(model, {"input_ids": texts[row][None]})
        assert torch.equal(tokens[0], together[row])
        torch.testing.assert_close(own_scores[0], scores[row], atol=1e-4, rtol=1e-4)


@rope_types
@torch.no_grad()
def test_cached_steps_are_one_forward(rope_type):
    model = make_model(**fields_of(rope_type))
    source, target = pad(make_texts(7)), torch.randint(4, 53, (7, UNCHANGED))
    whole = model(**source, decoder_input_ids=target).logits
    memory, cache = model.model.encoder(**source), None
    for step in range(UNCHANGED):
        output = model(
            encoder_outputs=memory,
            attention_mask=source["attention_mask"],
            decoder_input_ids=target[:, step : step + 1],
            **{} if cache is None else cache,
        )
        cache = {name: output[name] for name in ("cache", "past_key_values") if name in output}
        torch.testing.assert_close(output.logits[:, 0], whole[:, step], atol=2e-5, rtol=1e-4)


# Schemes of positions that end, with the tokens of a text that they reach.
ENDING = {
    **{rope_type: fields_of(rope_type) for rope_type in ("dynamic", "longrope")},
    **{
        scheme: {"position_embedding_type": scheme, "max_position_embeddings": UNCHANGED}
        for scheme in ("sinusoidal", "learned")
    },
}


@pytest.mark.parametrize("fields", ENDING.values(), ids=ENDING)
@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize(
    "asked",
    [
        {"max_new_tokens": UNCHANGED + 1},
        {"max_length": 10 * UNCHANGED},
        {"generation_config": GenerationConfig(max_new_tokens=40, decoder_start_token_id=2, pad_token_id=0)},
        {},
    ],
    ids=["new tokens", "length", "config", "nothing"],
)
@torch.no_grad()
def test_generate_ends_a_text_at_the_last_position_and_says_so(fields, cache, asked, monkeypatch):
    model = make_model(**fields)
    source = {"input_ids": torch.ones(1, 3, dtype=torch.long)}
    options = {"eos_token_id": None, "cache_implementation": cache, "disable_compile": True}
    said: list[str] = []
    monkeypatch.setattr(generation_xformer.logger, "warning_once", said.append)
    expected = model.generate(**source, max_new_tokens=UNCHANGED, **options)
    assert expected.shape == (1, UNCHANGED + 1)  # the last token needs no position
    assert said == []
    assert torch.equal(model.generate(**source, **asked, **options), expected)
    assert len(said) == 1 and f"beyond the model's {UNCHANGED} positions: texts end there" in said[0]


@pytest.mark.parametrize("fields", ENDING.values(), ids=ENDING)
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("start", [[2], []], ids=["with its start", "without"])
@torch.no_grad()
def test_a_text_that_continues_a_prompt_ends_there_too(fields, beams, start):
    model, source = make_model(**fields), torch.ones(2, 3, dtype=torch.long)
    prompt = torch.tensor([[*start, 7, 8, 9]] * 2)
    tokens = model.generate(source, decoder_input_ids=prompt, max_new_tokens=50, num_beams=beams, eos_token_id=None)
    assert tokens.shape == (2, UNCHANGED + 1)
    assert torch.equal(tokens[:, :4], torch.tensor([[2, 7, 8, 9]] * 2))


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_a_decoder_refuses_a_text_that_would_change_its_frequencies(rope_type):
    model, source = make_model(**fields_of(rope_type)), torch.ones(1, 3, dtype=torch.long)
    long = torch.ones(1, UNCHANGED + 1, dtype=torch.long)
    said = f"target tokens do not fit: with rope_type '{rope_type}' the decoder has positions for {UNCHANGED},"
    for options in ({"decoder_input_ids": long}, {"labels": long}):
        with pytest.raises(ValueError, match=f"{UNCHANGED + 1} {said}"):
            model(source, **options)
    # It puts the start token in front.
    with pytest.raises(ValueError, match=f"{UNCHANGED + 2} {said}"):
        model.generate(source, decoder_input_ids=long, max_new_tokens=2)


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_one_graph_serves_short_and_long_texts(rope_type):
    encoder = make_model(**fields_of(rope_type)).model.encoder
    graph = torch.compile(encoder.positions, backend="eager", fullgraph=True)
    for texts in (make_texts(7), make_texts(8)[:7]):
        at = TokenPositions(pad(texts)["attention_mask"].cumsum(1) - 1, 0, 0, 0)
        x = torch.ones(*at.ids.shape, 1)
        torch.testing.assert_close(graph(x, at).rotation, encoder.positions(x, at).rotation)


def test_masks_that_do_not_say_where_a_text_ends_are_refused():
    encoder = make_model(**fields_of("dynamic")).model.encoder
    with pytest.raises(ValueError, match="a mask of tokens, of 2 dimensions"):
        encoder(torch.ones(1, 3, dtype=torch.long), attention_mask=torch.ones(1, 1, 3, 3, dtype=torch.bool))


def test_every_rope_type_that_a_config_accepts_is_tried_here():
    from hf_xformer.models.fields_xformer import ROPE_TYPES

    assert set(ROPES) == set(ROPE_TYPES)
    assert XformerConfig(**fields_of("dynamic")).longest_of("encoder") is None


COMPUTED = {**{name: fields_of(name) for name in ROPES}, "sinusoidal": VANILLA}
computed = pytest.mark.parametrize("fields", COMPUTED.values(), ids=COMPUTED)


@computed
@pytest.mark.parametrize("is_half", [False, True])
def test_buffers_are_computed_where_memory_is_taken_for_them(fields, is_half):
    """Whoever builds a model on the device "meta" calls `to_empty`, and no state dict holds these."""
    model = make_model(**fields)
    with torch.device("meta"):
        other = XformerForSeq2SeqLM(model.config)
    other = (other.half() if is_half else other).to_empty(device="cpu")
    expected, found = dict(model.named_buffers()), dict(other.named_buffers())
    assert found.keys() == expected.keys() and expected
    for name, buffer in found.items():
        assert torch.equal(buffer, expected[name]), name


@computed
def test_buffers_stay_exact_when_the_weights_are_rounded(fields):
    model, exact = make_model(**fields).bfloat16(), make_model(**fields)
    assert model.dtype == torch.bfloat16
    for name, buffer in exact.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer), name
