# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`generate` with windows and blocks in the decoder, over several of them, and what their caches hold."""

from functools import partial

import pytest
import torch
from generation_cases import ENDLESS, MODES, PAD, START, generate, source
from small_models import SIZES, SOURCE, make_model
from torch.testing import assert_close
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

from hf_xformer.models.versions_xformer import CACHE


SLIDING, CHUNKED, FULL = "sliding_attention", "chunked_attention", "full_attention"
PATTERNS = {"windows": [SLIDING] * 3, "blocks": [CHUNKED] * 3, "mixed": [SLIDING, FULL, CHUNKED]}
patterns = pytest.mark.parametrize("layer_types", PATTERNS.values(), ids=PATTERNS)
SIZE, LENGTH = 4, 13


def make_prefix(begins: list[int], length: int) -> torch.Tensor:
    """Rows of random tokens behind a start token at these places and padding before it."""
    ids = torch.randint(4, SIZES["vocab_size"], (3, length), generator=torch.Generator().manual_seed(3))
    for row, begin in enumerate(begins):
        ids[row, :begin], ids[row, begin] = PAD, START
    return ids


PREFIXES = {
    "start": make_prefix([0, 0, 0], 1),
    "long": make_prefix([0, 0, 0], LENGTH),
    "left-padded": make_prefix([0, 2, 9], LENGTH),
}
CACHES = {"dynamic": {}, "static": {"cache_implementation": "static", "disable_compile": True}}


def make_decoder_of(layer_types: list[str], size: int = SIZE):
    """The encoder has blocks too, so that the memory that is cached comes from them."""
    encoder = {"encoder_layer_types": [CHUNKED] * 2, "num_global_tokens": 1}
    return make_model(**encoder, decoder_layer_types=layer_types, block_size=size)


def begun_with(prefix: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**source(), "decoder_input_ids": prefix, "decoder_attention_mask": (prefix != PAD).long()}


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "greedy") for name in PATTERNS), ("mixed", "beam"), ("mixed", "sample")]
)
@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_cached_generation_is_the_uncached_one_over_three_windows(prefix, name, mode):
    model = make_decoder_of(PATTERNS[name])
    options = {**begun_with(prefix), **ENDLESS, **MODES[mode], "max_new_tokens": LENGTH}
    expected = generate(model, **options, use_cache=False)
    assert expected.shape == (3, prefix.shape[1] + LENGTH)
    for cache in CACHES.values():
        assert torch.equal(generate(model, **options, **cache), expected)


def make_caches(kind: str, model) -> EncoderDecoderCache:
    if kind == "static":
        whole = make_model().config
        return EncoderDecoderCache(StaticCache(model.config, LENGTH + 2), StaticCache(whole, SOURCE))
    # One without a config has no windows: the masks have.
    return EncoderDecoderCache(DynamicCache(config=model.config if kind == "dynamic" else None), DynamicCache())


@pytest.mark.parametrize("kind", ["dynamic", "static", "without-windows"])
@pytest.mark.parametrize("chunks", [[13], [1] * 13, [4, 4, 4, 1], [3, 1, 9]], ids=str)
@patterns
def test_cached_logits_equal_uncached_ones_however_windows_are_crossed(layer_types, chunks, kind):
    model, inputs = make_decoder_of(layer_types), begun_with(PREFIXES["left-padded"])
    ids, mask = inputs.pop("decoder_input_ids"), inputs.pop("decoder_attention_mask")
    full = model(**inputs, decoder_input_ids=ids, decoder_attention_mask=mask, use_cache=False).logits
    cache, pieces = make_caches(kind, model), []
    for end, length in zip(torch.tensor(chunks).cumsum(0).tolist(), chunks, strict=True):
        step = {"decoder_input_ids": ids[:, end - length : end], "decoder_attention_mask": mask[:, :end]}
        pieces.append(model(**inputs, **step, **{CACHE: cache}).logits)
    attended = mask.bool()
    assert_close(torch.cat(pieces, dim=1)[attended], full[attended], atol=1e-5, rtol=1e-5)


def watch_lengths(modules) -> list[list[int]]:
    """How many keys each attention saw, a list a module."""
    seen = [[] for _ in modules]
    for module, lengths in zip(modules, seen, strict=True):
        module.attend = partial(attend_and_note, module.attend, lengths)
    return seen


def attend_and_note(attend, lengths, q, k, v, mask, *args, **kwargs):
    lengths.append(k.shape[2])
    return attend(q, k, v, mask, *args, **kwargs)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("beams", [1, 3])
def test_windows_hold_no_more_than_their_size_and_the_cross_attention_all_of_the_source(beams, cache):
    model = make_decoder_of(PATTERNS["mixed"])
    layers = model.model.decoder.layers
    own = watch_lengths([layer.self_attention for layer in layers])
    cross = watch_lengths([layer.cross_attention for layer in layers])
    options = {**ENDLESS, **CACHES[cache], "num_beams": beams, "max_new_tokens": LENGTH}
    output = generate(model, **source(), **options, return_dict_in_generate=True)
    assert cross == [[SOURCE] * LENGTH] * 3
    grown = list(range(1, LENGTH + 1))
    if cache == "dynamic":
        assert own == [[min(length, SIZE) for length in grown], grown, [min(length, SIZE) for length in grown]]
    else:
        assert own == [[SIZE] * LENGTH, [LENGTH] * LENGTH, [SIZE] * LENGTH]
    held = output[CACHE].self_attention_cache.layers
    assert max(held[0].keys.shape[2], held[2].keys.shape[2]) <= SIZE < held[1].keys.shape[2]


def test_a_cross_attention_cache_with_windows_is_refused():
    """It would forget the source without an error where no mask gives its length away."""
    model, ids = make_decoder_of(PATTERNS["mixed"]), source()["input_ids"]
    for cache in (DynamicCache(config=model.config), StaticCache(model.config, SOURCE)):
        caches = EncoderDecoderCache(DynamicCache(config=model.config), cache)
        with pytest.raises(ValueError, match="would forget the source"):
            model(ids, decoder_input_ids=PREFIXES["start"], **{CACHE: caches})


def test_generate_gives_the_cross_attention_a_cache_of_the_whole_source_in_place_of_the_users():
    model = make_decoder_of(PATTERNS["mixed"])
    expected = model.generate(**source(), **ENDLESS, max_new_tokens=LENGTH)
    cache = EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))
    assert torch.equal(model.generate(**source(), **ENDLESS, max_new_tokens=LENGTH, **{CACHE: cache}), expected)
    assert [layer.keys.shape[2] for layer in cache.cross_attention_cache.layers] == [SOURCE] * 3


@patterns
def test_windows_of_one_token_decode_without_a_cache_or_with_a_static_one_only(layer_types):
    model = make_decoder_of(layer_types, size=1)
    options = {**source(), **ENDLESS, "max_new_tokens": 6}
    expected = model.generate(**options, use_cache=False)
    assert torch.equal(model.generate(**options, **CACHES["static"]), expected)
    with pytest.raises(ValueError, match="block_size=1"):
        model.generate(**options)


def test_flex_attention_generates_what_sdpa_does(plain_flex_attention):
    model = make_decoder_of(PATTERNS["mixed"])
    options = {**begun_with(PREFIXES["left-padded"]), **ENDLESS, "max_new_tokens": 3}
    expected = model.generate(**options)
    model.set_attn_implementation("flex_attention")
    assert torch.equal(model.generate(**options), expected)
