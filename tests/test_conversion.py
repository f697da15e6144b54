# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Conversions compute what their stock models do; what cannot be converted is refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_stock_models import (
    BART_SIZES,
    GEMMA_DECODER,
    GEMMA_STACK,
    STOCK,
    make_stock,
    make_stock_batch,
    measure,
)
from torch.testing import assert_close
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BlenderbotConfig,
    GenerationConfig,
    M2M100Config,
    MBart50Tokenizer,
    MBartConfig,
    MBartTokenizer,
    NllbTokenizer,
    PreTrainedConfig,
    T5GemmaConfig,
)

from hf_xformer.arguments import ArgumentError
from hf_xformer.commands import convert, generate
from hf_xformer.conversion import FAMILIES, convert_config, convert_model
from hf_xformer.tokenization import train_tokenizer


families = pytest.mark.parametrize("name", STOCK)


@families
def test_logits_gradients_and_tokens_equal_the_stock_models(name):
    found = measure(name)
    assert found.logits <= 1e-5 and found.gradients <= 1e-4
    assert found.greedy and found.beams and found.reloaded


@families
def test_the_tokens_compared_are_not_all_alike(name):
    stock = make_stock(name)
    batch = make_stock_batch(stock.config)
    tokens = stock.generate(batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=15)
    assert len(tokens.unique()) > 15 and len(tokens.unique(dim=0)) == len(tokens)


class Watched:
    """A config that remembers which of its fields were read, `encoder.` and `decoder.` before those of its stacks."""

    def __init__(self, config: PreTrainedConfig, read: set[str], prefix: str = ""):
        self.config, self.read, self.prefix = config, read, prefix

    def __getattr__(self, name: str):
        self.read.add(self.prefix + name)
        value = getattr(self.config, name)
        return Watched(value, self.read, f"{name}.") if isinstance(value, PreTrainedConfig) else value


NOT_COMPUTED = {
    # Of training, or of other heads than the one that is converted.
    *("encoder_layerdrop", "decoder_layerdrop", "classifier_dropout", "classifier_dropout_rate", "initializer_factor"),
    # Of generation, and in its config.
    *("forced_eos_token_id", "is_decoder", "is_encoder_decoder"),
    # Read through `dense_act_fn` and `is_gated_act`; and what each stack of T5Gemma has for itself.
    *("feed_forward_proj", "decoder_vocab_size", "vocab_size"),
}
NOT_COMPUTED_IN_STACKS = {
    # T5Gemma overwrites or ignores them in favour of its whole config's, and the window where no layer slides.
    *("is_decoder", "attention_dropout", "tie_word_embeddings", "initializer_range", "sliding_window"),
    *("use_cache", "eos_token_id", "bos_token_id"),
}


@families
def test_every_field_of_a_stock_config_is_read_or_known_not_to_matter(name):
    config, read = STOCK[name](), set()
    FAMILIES[config.model_type].fields(Watched(config, read))
    # The same fields are read by the names of the class that the config is of.
    fields = {field for field in type(config).__annotations__ if field not in ("encoder", "decoder")}
    assert fields - read - set(convert_config(config).to_dict()) <= NOT_COMPUTED
    for stack in ("encoder", "decoder") if config.model_type == "t5gemma" else ():
        stack_fields = set(type(getattr(config, stack)).__annotations__)
        assert {field for field in stack_fields if f"{stack}.{field}" not in read} <= NOT_COMPUTED_IN_STACKS
