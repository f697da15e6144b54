# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Prefixes and prompts by PEFT: they are keys and values, or embeddings, in front, under every kind of positions."""

import json

import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch.testing import assert_close

from hf_xformer import XformerConfig, XformerForSeq2SeqLM
from hf_xformer.models.versions_xformer import CACHE


SOURCE = {
    "input_ids": torch.tensor([[4, 5, 6, 7, 1], [8, 9, 1, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}
MODELS = {
    "rope": {},
    "sinusoidal": {"position_embedding_type": "sinusoidal"},
    "learned": {"position_embedding_type": "learned"},
    "relative": {"position_embedding_type": "relative"},
    "none": {"position_embedding_type": "none"},
    "grouped": {"num_key_value_heads": 1},
}


def small(**fields) -> XformerForSeq2SeqLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "d_model": 16, "encoder_layers": 2, "decoder_layers": 3, "dropout": 0.0}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 32}
    return XformerForSeq2SeqLM(XformerConfig(**{**sizes, **heads, "initializer_range": 0.3, **fields})).eval()


def with_prefix_of(model: XformerForSeq2SeqLM, tokens: torch.Tensor):
    """A model whose prefix is the keys and values of a row of tokens."""
    source = {name: each[:1] for name, each in SOURCE.items()}
    cache = getattr(model(**source, decoder_input_ids=tokens, use_cache=True), CACHE).self_attention_cache
    config = PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=tokens.shape[1])
    adapted = get_peft_model(model, config).eval()
    (weight,) = adapted.prompt_encoder.parameters()
    layers = model.config.decoder_layers  # odd, where PEFT gives each layer vectors of its own
    table = weight.data.view(tokens.shape[1], 2 * layers, -1)
    for number, layer in enumerate(cache.layers):
        for which, each in enumerate((layer.keys, layer.values)):
            table[:, (4 * number + which) % (2 * layers)] = each[0].transpose(0, 1).flatten(1)
    return adapted


@torch.no_grad()
@pytest.mark.parametrize("fields", MODELS.values(), ids=MODELS)
def test_a_prefix_of_tokens_is_as_if_they_stood_in_front(fields):
    # The first layer's keys and values depend on no source, those of later ones do: one source for all.
    model = small(**fields)
    front, rest = torch.tensor([[2, 9, 5]]), torch.tensor([[7, 6, 5, 8]])
    source = {name: each[:1] for name, each in SOURCE.items()}
    expected = model(**source, decoder_input_ids=torch.cat((front, rest), dim=1)).logits[:, 3:]
    adapted = with_prefix_of(model, front)
    assert_close(adapted(**source, decoder_input_ids=rest).logits, expected, atol=1e-5, rtol=1e-5)
    mask = {"decoder_attention_mask": torch.ones(1, 4, dtype=torch.long)}
    assert_close(adapted(**source, decoder_input_ids=rest, **mask).logits, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("how", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_a_prefix_is_not_forgotten_while_decoding(how):
    model = small()
    front = torch.tensor([[2, 9, 5]])
    source = {name: each[:1] for name, each in SOURCE.items()}
    length = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, **how}
    begun = torch.cat((front, torch.tensor([[2]])), dim=1)
    expected = model.generate(**source, decoder_input_ids=begun, **length)[:, 3:]
    assert torch.equal(with_prefix_of(model, front).generate(**source, **length), expected)


@pytest.mark.parametrize("asked", [{"max_new_tokens": 40}, {"max_length": 40}], ids=lambda each: next(iter(each)))
@pytest.mark.parametrize("how", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_a_text_behind_a_prefix_ends_at_the_last_position(how, asked):
    model = small(position_embedding_type="learned", max_position_embeddings=12, eos_token_id=None)
    front = torch.tensor([[2, 9, 5]])
    # The start, and what is behind it: the last token is written and not read. Without a prefix all of them do.
    for each, length in ((with_prefix_of(model, front), 1 + 12 - 3), (model, 1 + 12)):
        assert each.generate(**SOURCE, do_sample=False, **asked, **how).shape[1] == length


def test_a_prefix_that_would_be_forgotten_is_refused():
    adapted = with_prefix_of(small(), torch.tensor([[2, 9, 5]]))
    begun = {"decoder_input_ids": torch.tensor([[0, 2], [2, 7]])}
    with pytest.raises(ValueError, match=r"a mask of 2 tokens beside 3 in the cache"):
        adapted.generate(**SOURCE, **begun, decoder_attention_mask=torch.tensor([[0, 1], [1, 1]]), max_new_tokens=2)
    if CACHE == "cache":
        with pytest.raises(ValueError, match="does not fit a static cache"):
            adapted.generate(**SOURCE, max_new_tokens=2, cache_implementation="static", disable_compile=True)


def test_a_config_without_groups_is_one_for_peft_and_whole_in_its_file(tmp_path):
    """PEFT multiplies by `num_key_value_heads` if there is one; earlier versions need it in the file."""
    for number in (None, 1):
        model = small(num_key_value_heads=number)
        model.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["num_key_value_heads"] == number
        for use_diff in (True, False):
            assert json.loads(model.config.to_json_string(use_diff))["num_key_value_heads"] == number
        assert ("num_key_value_heads" in model.config.to_dict()) == (number is not None)
        assert XformerConfig.from_dict(model.config.to_dict()).num_key_value_heads == number


def test_prompts_are_beside_the_embedding_of_the_source():
    model = small(encoder_vocab_size=20)
    config = PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=2)
    adapted = get_peft_model(model, config).eval()
    assert adapted.word_embeddings is model.get_encoder().embed_tokens
    prompt = adapted.prompt_encoder["default"].embedding.weight[:2].expand(2, -1, -1)
    embeds = torch.cat((prompt, model.get_encoder().embed_tokens(SOURCE["input_ids"])), dim=1)
    mask = torch.nn.functional.pad(SOURCE["attention_mask"], (2, 0), value=1)
    target = {"decoder_input_ids": torch.tensor([[2, 7, 6], [2, 9, 1]])}
    expected = model(inputs_embeds=embeds, attention_mask=mask, **target).logits
    assert torch.equal(adapted(**SOURCE, **target).logits, expected)
