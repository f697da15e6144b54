# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Positions of stock models against the models themselves, and the length of sources that a training records."""

import pytest
import torch
from small_stock_models import BART_SIZES, STOCK
from transformers import (
    AutoModelForSeq2SeqLM,
    BigBirdPegasusConfig,
    BlenderbotConfig,
    BlenderbotSmallConfig,
    FSMTConfig,
    LEDConfig,
    MvpConfig,
    PLBartConfig,
)

from hf_xformer.checkpoints.lengths import check_length, position_limit, record_trained_length, trained_length
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.errors import ArgumentError


OF_EACH_STACK = {"max_encoder_position_embeddings": 16, "max_decoder_position_embeddings": 12, "attention_window": 4}
MORE = {
    "BigBird-Pegasus": lambda: BigBirdPegasusConfig(**BART_SIZES),
    "Blenderbot": lambda: BlenderbotConfig(**BART_SIZES),
    "Blenderbot, small": lambda: BlenderbotSmallConfig(**BART_SIZES),
    "FSMT": lambda: FSMTConfig(**BART_SIZES, src_vocab_size=53, tgt_vocab_size=53, langs=["a", "b"]),
    "LED": lambda: LEDConfig(**BART_SIZES, **OF_EACH_STACK),
    "MVP": lambda: MvpConfig(**BART_SIZES),
    "PLBart": lambda: PLBartConfig(**BART_SIZES),
}
MAKE = {**STOCK, **MORE}


def reads(model, stack: str, length: int) -> bool:
    """Tells whether a model has positions for a text of so many tokens."""
    long, short = torch.full((1, length), 5), torch.full((1, 4), 5)
    source, target = (long, short) if stack == "encoder" else (short, long)
    try:
        with torch.no_grad():
            model(input_ids=source, attention_mask=torch.ones_like(source), decoder_input_ids=target)
    except IndexError:
        return False
    return True


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_a_stock_model_reads_as_many_tokens_as_its_limit_says_and_no_more(name, stack):
    model = AutoModelForSeq2SeqLM.from_config(MAKE[name]()).eval()
    limit = position_limit(model.config, stack)
    if limit is None:
        assert reads(model, stack, 60)
        return
    assert limit in (12, 16, 24) and reads(model, stack, limit) and not reads(model, stack, limit + 1)
    with pytest.raises(ArgumentError, match=f"here is beyond the model's `max_.*position_embeddings` of {limit}"):
        check_length(model.config, limit + 1, "here", stack)


@pytest.mark.parametrize("length", [{"max_length": 90}, {"max_new_tokens": 90}, {}], ids=str)
@pytest.mark.parametrize("name", ["BART", "Marian, shared vocabulary", "T5"])
def test_a_stock_model_decodes_sources_and_targets_of_any_length(name, length):
    symbols = [f"s{number}" for number in range(30)]
    tokenizer = train_tokenizer((" ".join(symbols),), "symbol")
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(STOCK[name]()).eval()
    model.generation_config.update(eos_token_id=None, forced_eos_token_id=None, **length)
    said: list[str] = []
    decoder = Decoder(model, tokenizer, tokenizer, say=said.append)
    texts = ["s1 s2", " ".join(symbols)]
    assert len(list(decoder.decode(texts))) == 2
    assert any(line.startswith("cut to 24 tokens: 1 source is longer") for line in said) == (name != "T5")
    assert any(line.startswith("ended at the model's 24 positions") for line in said) == (
        name != "T5" and length != {}
    )


@pytest.mark.parametrize(("before", "known", "after"), [(10**30, 0, 7), (10**30, 10**30, 7), (5, 5, 7), (9, 9, 9)])
def test_a_training_records_its_longest_source_or_a_longer_one_of_before_but_no_number_without_meaning(
    before, known, after
):
    tokenizer = train_tokenizer(("a b",), "symbol")
    tokenizer.model_max_length = before
    assert trained_length(tokenizer) == (before if before < 100 else None)
    record_trained_length(tokenizer, 7, known)
    assert trained_length(tokenizer) == after
