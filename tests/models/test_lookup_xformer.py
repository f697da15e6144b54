# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Drafts looked up in the source: what is drafted, and the same tokens as greedy search in fewer steps."""

import pytest
import torch
from small_models import VARIANTS, make_model
from small_runs import nightly
from transformers import GenerationConfig

from hf_xformer.models.lookup_xformer import SourceLookup


SOURCES = [torch.randint(5, 53, (1, 3 + n), generator=torch.Generator().manual_seed(n)) for n in range(6)]


FEW = ("rope-pre", "learned-pre", "rope-pre-blocks")


@pytest.mark.slow
@pytest.mark.parametrize("variant", [*FEW, *nightly(*(name for name in VARIANTS if name not in FEW))])
def test_the_tokens_are_those_of_greedy_search(variant):
    model = make_model(**VARIANTS[variant])
    for source in SOURCES:
        for options in ({}, {"min_new_tokens": 6}, {"repetition_penalty": 1.5}, {"eos_token_id": [1, 7, 9, 30, 44]}):
            options = {"max_new_tokens": 12, **options}
            expected = model.generate(source, **options)
            for count in (1, 4):
                assert torch.equal(model.generate(source, prompt_lookup_num_tokens=count, **options), expected)


@pytest.mark.parametrize(
    ("text", "longest", "draft"),
    [
        ([2], 20, [11, 12, 13]),  # a text begins as its source does
        ([2, 12], 20, [13, 14, 15]),
        ([2, 15, 12, 13], 20, [14, 15, 16]),
        ([2, 16], 20, []),  # the end token is no draft: the model writes it
        ([2, 40], 20, []),
        ([2, 40, 41, 40], 20, [41, 40]),  # in the text
        ([2, 12], 5, [13, 14]),  # one position is left for the token behind the draft
        ([2, 12], 3, []),
    ],
)
def test_what_follows_in_the_source_is_drafted_before_what_follows_in_the_text(text, longest, draft):
    config = GenerationConfig(prompt_lookup_num_tokens=3, eos_token_id=1, max_length=longest)
    lookup = SourceLookup(config, torch.tensor([[11, 12, 13, 14, 15, 16, 1]]))
    found, logits = lookup.get_candidates(torch.tensor([text]))
    assert found.tolist() == [text + draft] and logits is None


def test_a_text_that_copies_its_source_takes_fewer_steps_and_none_beyond_the_last_position():
    model = make_model(position_embedding_type="learned", max_position_embeddings=16)
    steps = []
    model.get_decoder().register_forward_hook(lambda *args: steps.append(args))
    saved = 0
    for source in SOURCES:
        text = model.generate(source, max_new_tokens=16)
        steps.clear()
        drafted = model.generate(source, prompt_lookup_num_tokens=8, max_new_tokens=16)
        assert torch.equal(drafted, text)
        saved += text.shape[1] - 1 - len(steps)
    assert saved > 0


def test_a_model_of_two_vocabularies_looks_into_the_text_alone():
    model = make_model(encoder_vocab_size=90)
    source = torch.randint(60, 90, (1, 7), generator=torch.Generator().manual_seed(1))
    expected = model.generate(source, max_new_tokens=12)
    assert torch.equal(model.generate(source, prompt_lookup_num_tokens=4, max_new_tokens=12), expected)


@pytest.mark.parametrize("name", ["prompt_lookup_num_tokens", "assistant_model"])
def test_drafts_do_without_a_static_cache_and_say_so(name, caplog):
    model, drafts = make_model(), {name: 3 if name == "prompt_lookup_num_tokens" else make_model()}
    expected = model.generate(SOURCES[2], max_new_tokens=12, eos_token_id=None)
    options = {"max_new_tokens": 12, "eos_token_id": None, "cache_implementation": "static"}
    for library in ({}, {"disable_compile": True}):
        assert torch.equal(model.generate(SOURCES[2], **drafts, **options, **library), expected)
    assert f"decoding is not compiled: `{name}` is given" in caplog.text


def test_an_encoded_source_without_its_tokens_is_looked_up_in_the_text_and_goes_to_no_assistant():
    model, source = make_model(), SOURCES[2]
    encoded, options = {"encoder_outputs": model.get_encoder()(source)}, {"max_new_tokens": 12, "eos_token_id": None}
    expected = model.generate(source, **options)
    assert torch.equal(model.generate(**encoded, **options, prompt_lookup_num_tokens=4), expected)
    with pytest.raises(ValueError, match="reads the source itself: give `input_ids`"):
        model.generate(**encoded, **options, assistant_model=make_model())
    assert torch.equal(model.generate(source, **encoded, **options, assistant_model=make_model()), expected)
