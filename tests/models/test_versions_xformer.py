# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The cache by either of its names, with any of the versions of transformers that are supported."""

import inspect

import pytest
from small_models import gradients, make_batch, make_model
from torch.testing import assert_close
from transformers import DynamicCache, EncoderDecoderCache

from hf_xformer.models.versions_xformer import CACHE


NAMES = ("cache", "past_key_values")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["language model", "model", "decoder"])
def test_the_cache_is_taken_by_either_name(part, name):
    model, batch = make_model(), make_batch()
    target = batch.pop("labels").clamp(min=0)
    memory = model.get_encoder()(**batch)
    source, ids = {"encoder_outputs": memory, "attention_mask": batch["attention_mask"]}, "decoder_input_ids"
    if part == "decoder":
        source = {"encoder_hidden_states": memory[0], "encoder_attention_mask": batch["attention_mask"]}
        ids = "input_ids"
    called = {"language model": model, "model": model.model, "decoder": model.get_decoder()}[part]
    whole = called(**source, **{ids: target}, use_cache=False)[0]
    begun = called(**source, **{ids: target[:, :3]})
    ended = called(**source, **{ids: target[:, 3:], name: begun[CACHE]})
    assert ended[CACHE].get_seq_length() == target.shape[1]
    assert_close(ended[0], whole[:, 3:], atol=1e-5, rtol=1e-5)


def test_a_signature_has_the_librarys_name_only():
    model = make_model()
    for each in (model, model.model, model.get_decoder(), model.get_decoder().layers[0]):
        assert [name for name in inspect.signature(each.forward).parameters if name in NAMES] == [CACHE]


def test_a_checkpointed_layer_gets_no_cache():
    """It would write to it a second time when the backward pass repeats it."""
    plain, checkpointed = (make_model(dropout=0.0).train() for _ in range(2))
    checkpointed.gradient_checkpointing_enable()
    cache = EncoderDecoderCache(DynamicCache(config=plain.config), DynamicCache())
    plain(**make_batch()).loss.backward()
    checkpointed(**make_batch(), **{CACHE: cache}).loss.backward()
    assert cache.get_seq_length() == 0
    assert_close(gradients(checkpointed), gradients(plain), atol=1e-6, rtol=1e-4)
