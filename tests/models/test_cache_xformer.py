# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of one source share its keys and values: tokens and scores are those of the library, which repeats them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import make_batch, make_model
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

from hf_xformer.models.cache_xformer import XformerCache
from hf_xformer.models.versions_xformer import CACHE


POSITIONS = ["none", "sinusoidal", "learned", "rope", "relative"]
LAYERS = ["full_attention", "chunked_attention", "sliding_attention"]
SEARCHES = {
    "greedy": {},
    "4 beams": {"num_beams": 4, "num_return_sequences": 3},
    "8 beams": {"num_beams": 8, "length_penalty": 0.6, "early_stopping": True},
    "never": {"num_beams": 3, "early_stopping": "never", "length_penalty": -0.5},
    "samples": {"do_sample": True, "num_return_sequences": 5},
    "beam samples": {"do_sample": True, "num_beams": 4, "num_return_sequences": 2},
    "no cache": {"num_beams": 3, "use_cache": False},
    "logits": {"num_beams": 2, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 4},
}


def sources(padding_side: str) -> dict[str, torch.Tensor]:
    batch = make_batch()
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return {name: each.flip(1) for name, each in given.items()} if padding_side == "left" else given


def library_cache(model) -> EncoderDecoderCache:
    """A cache of the caller's: `generate` expands the source for it, and reorders both of its parts."""
    return EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache())


def decode(model, shares: bool, **options):
    torch.manual_seed(0)
    cache = {} if shares else {CACHE: library_cache(model)}
    options = {name: value for name, value in options.items() if shares or name != "use_cache"}
    more = {"output_logits": True, "return_dict_in_generate": True, "max_new_tokens": 9}
    return model.generate(**options, **cache, **more)


def assert_equal(shared, stock):
    assert torch.equal(shared.sequences, stock.sequences)
    torch.testing.assert_close(torch.stack(shared.logits), torch.stack(stock.logits), rtol=1e-4, atol=1e-4)
    if "sequences_scores" in stock:
        torch.testing.assert_close(shared.sequences_scores, stock.sequences_scores)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_tokens_and_scores_are_those_of_the_librarys_cache(search, padding_side):
    model = make_model()
    options = sources(padding_side) | SEARCHES[search]
    assert_equal(decode(model, True, **options), decode(model, False, **options))


@pytest.mark.slow
@given(st.data())
def test_any_model_and_search_decode_alike(data):
    positions = data.draw(st.sampled_from(POSITIONS))
    layers = LAYERS[:1] if positions == "relative" else LAYERS  # which go with full attention only
    model = make_model(
        position_embedding_type=positions,
        decoder_layer_types=data.draw(st.lists(st.sampled_from(layers), min_size=3, max_size=3)),
        block_size=4,
        num_key_value_heads=data.draw(st.sampled_from([None, 2])),
        norm_position=data.draw(st.sampled_from(["pre", "post", "sandwich"])),
        attn_implementation=data.draw(st.sampled_from(["eager", "sdpa"])),
    )
    search = data.draw(st.sampled_from([*SEARCHES]))
    options = sources(data.draw(st.sampled_from(["left", "right"]))) | SEARCHES[search]
    if data.draw(st.booleans()):
        options["decoder_input_ids"] = torch.tensor([[2, 7, 9]] * len(options["input_ids"]))
    stock = decode(model, False, **options)
    if data.draw(st.booleans()):
        model.fuse_projections()
    assert_equal(decode(model, True, **options), stock)


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_target_rows_attend_to_the_source_that_they_share(attn_implementation):
    """A forward of three rows a source, several tokens each, equals one of repeated sources, weights included."""
    model, given = make_model(attn_implementation=attn_implementation), sources("right")
    targets = torch.randint(4, 53, (9, 4), generator=torch.Generator().manual_seed(2))
    repeated = {name: each.repeat_interleave(3, dim=0) for name, each in given.items()}
    weights = {"output_attentions": attn_implementation == "eager"}
    with torch.no_grad():
        memory = model.get_encoder()(**given)
        shared = model(encoder_outputs=memory, **given, decoder_input_ids=targets, **weights)
        apart = model(**repeated, decoder_input_ids=targets, **weights)
    torch.testing.assert_close(shared.logits, apart.logits, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(shared.cross_attentions or (), apart.cross_attentions or (), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_cache_holds_a_source_once():
    output = decode(make_model(), True, **sources("right"), num_beams=4)
    cache = output[CACHE]
    assert isinstance(cache, XformerCache)
    assert [each.layers[0].keys.shape[0] for each in (cache.cross_attention_cache, cache.self_attention_cache)] == [
        3,
        12,
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_a_text_goes_on_with_the_cache_that_it_has(count):
    model, given = make_model(), sources("right")
    options = {"num_return_sequences": count, "do_sample": True, "top_k": 1, "eos_token_id": None}
    begun = decode(model, True, **given, **options, min_new_tokens=9)
    whole = model.generate(**given, **options, max_new_tokens=15)
    prompt = {"decoder_input_ids": begun.sequences[::count], CACHE: begun[CACHE]}
    assert torch.equal(model.generate(**given, **options, **prompt, max_new_tokens=6), whole)


def test_the_mask_of_the_sources_is_made_anew_for_others():
    """A step after a source has left, and one with two tokens, see the padding that is theirs."""
    model, given = make_model(), sources("right")
    memory = model.get_encoder()(**given).last_hidden_state
    cache = XformerCache(DynamicCache(config=model.config), DynamicCache())
    tokens, kept = torch.full((3, 4), 7), torch.tensor([1, 2])

    def step(rows, first, last, cache=None):
        rest = {"encoder_outputs": (memory[rows],), "attention_mask": given["attention_mask"][rows]}
        with torch.no_grad():
            return model(**rest, decoder_input_ids=tokens[rows, first:last], **{CACHE: cache}).logits

    step(torch.arange(3), 0, 1, cache)
    cache.reorder_cache(kept)
    cache.keep_sources(kept)
    for first, last in ((1, 2), (2, 4)):
        whole = step(kept, 0, last)[:, first:last]
        torch.testing.assert_close(step(kept, first, last, cache), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_an_empty_cache_of_a_decoder_alone_becomes_the_targets_and_any_other_is_refused(beams):
    model, options = make_model(), {**sources("right"), "eos_token_id": None, "num_beams": beams, "max_new_tokens": 6}
    expected, cache = model.generate(**options), DynamicCache()
    found = model.generate(**options, **{CACHE: cache}, return_dict_in_generate=True)
    assert torch.equal(found.sequences, expected) and cache.get_seq_length() == 6
    assert isinstance(found[CACHE], EncoderDecoderCache)
    with pytest.raises(ValueError, match="a DynamicCache, of a decoder alone: .*`EncoderDecoderCache"):
        model.generate(**options, **{CACHE: cache})
    with pytest.raises(ValueError, match="a StaticCache, of a decoder alone"):
        model.generate(**options, **{CACHE: StaticCache(model.config, 9)})


def test_a_forward_makes_an_empty_cache_of_a_decoder_alone_the_targets():
    model, target = make_model(), torch.tensor([[2, 9, 7], [2, 8, 8], [2, 4, 5]])
    whole = model(**sources("right"), decoder_input_ids=target).logits
    first = model(**sources("right"), decoder_input_ids=target[:, :2], **{CACHE: DynamicCache()})
    last = model(**sources("right"), decoder_input_ids=target[:, 2:], **{CACHE: first[CACHE]})
    torch.testing.assert_close(last.logits, whole[:, 2:], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="of a decoder alone"):
        model(**sources("right"), decoder_input_ids=target[:, 2:], **{CACHE: first[CACHE].self_attention_cache})


def test_rows_of_no_source_are_refused():
    model, given = make_model(), sources("right")
    memory = model.get_encoder()(**given)
    with pytest.raises(ValueError, match="the target has 4 rows, which is no multiple of the source's 3"):
        model(encoder_outputs=memory, **given, decoder_input_ids=torch.full((4, 2), 5))


@pytest.mark.parametrize("attention", ["sdpa", "flex_attention"])
@torch.no_grad()
def test_sources_that_leave_take_their_mask_along(attention):
    """Three rows of three sources, and then of one, without a mask of the source's tokens."""
    decoder = make_model(attn_implementation=attention).get_decoder()
    memory, first, second = torch.randn(3, 9, 32), torch.tensor([[2]] * 3), torch.tensor([[7], [8], [9]])
    cache = XformerCache(DynamicCache(config=decoder.config), DynamicCache())
    with torch.compiler.set_stance("force_eager"):
        decoder(first, encoder_hidden_states=memory, **{CACHE: cache})
        cache.reorder_cache(torch.tensor([1, 1, 1]))
        cache.keep_sources(torch.tensor([1]))
        found = decoder(second, encoder_hidden_states=memory[1:2], **{CACHE: cache}).last_hidden_state
        both = torch.cat([first, second], dim=1)
        expected = decoder(both, encoder_hidden_states=memory[[1, 1, 1]], use_cache=False).last_hidden_state
    torch.testing.assert_close(found, expected[:, -1:], rtol=1e-4, atol=1e-4)
