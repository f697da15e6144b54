# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts of the decoder, and those that PEFT puts before texts, take positions of a model too."""

import pytest
import torch
from small_models import VANILLA, make_model
from small_stock_models import STOCK
from transformers import AutoModelForSeq2SeqLM

from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder


SYMBOLS = [f"s{number}" for number in range(38)]
PROMPT = 5


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((" ".join(SYMBOLS),), "symbol")


def make(kind: str):
    """Returns an endless model that has positions for 24 tokens."""
    torch.manual_seed(0)
    stock = AutoModelForSeq2SeqLM.from_config(STOCK["BART"]()) if kind == "stock" else None
    model = stock or make_model(**VANILLA, max_position_embeddings=24)
    model.generation_config.update(eos_token_id=None, forced_eos_token_id=None, max_length=90)
    return model.eval()


@pytest.mark.parametrize("kind", ["stock", "ours"])
@pytest.mark.parametrize(
    ("prompts", "source", "target"),
    [("PromptTuningConfig", 24 - PROMPT, 24), ("PrefixTuningConfig", 24, 24 - PROMPT)],
)
def test_what_an_adapter_puts_before_texts_takes_positions_of_theirs(kind, prompts, source, target, tokenizer):
    peft = pytest.importorskip("peft")
    config = getattr(peft, prompts)(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=PROMPT)
    said: list[str] = []
    decoder = Decoder(peft.get_peft_model(make(kind), config), tokenizer, tokenizer, say=said.append)
    assert len(list(decoder.decode(["s1 s2", " ".join(SYMBOLS)]))) == 2
    assert said[0].startswith(f"cut to {source} tokens: 1 source is longer") and len(said) == 2
    assert said[1].startswith(f"ended at the model's {target} positions, without an end token: the texts of 2 sources")


@pytest.mark.parametrize("kind", ["stock", "ours"])
@pytest.mark.parametrize("length", ["max_length", "max_new_tokens"])
@pytest.mark.parametrize("prompt", [[6, 7, 8], [2, 6, 7]], ids=["without", "with"])
def test_a_prompt_without_a_start_token_takes_a_position_for_it(kind, length, prompt, tokenizer):
    said: list[str] = []
    model = make(kind)
    options = {length: 90, "decoder_input_ids": torch.tensor([prompt])}
    decoder = Decoder(model, tokenizer, tokenizer, say=said.append, **options)
    assert len(list(decoder.decode(["s1 s2"]))) == 1
    assert sum(line.startswith("ended at the model's 24 positions") for line in said) == 1


@pytest.mark.parametrize("kind", ["stock", "ours"])
@pytest.mark.parametrize(
    "options", [{"max_new_tokens": 90}, {"max_length": 90}, {"max_new_tokens": 7}, {"max_length": None}], ids=str
)
@pytest.mark.parametrize("prompt", [None, "s1 s2", "s1 s2 s3 s4 s5 s6"])
def test_a_text_whose_end_is_forced_has_not_ended_by_itself(kind, options, prompt, tokenizer):
    """At the model's positions, at a length that is asked for, and at the library's own."""
    model, prefixes = make(kind), None if prompt is None else [prompt]
    first = torch.tensor([[2, *([] if prompt is None else tokenizer(prompt)["input_ids"][:-1])]])
    most = {"max_length": 24, "decoder_input_ids": first}
    written = model.generate(**tokenizer("s1 s2", return_tensors="pt"), **most)[0].tolist()
    never, third = next(token for token in range(5, 53) if token not in written), written[2 + len(first[0])]
    for end in (never, third):
        model.generation_config.update(eos_token_id=end, forced_eos_token_id=end, **options)
        ((text,),) = Decoder(model, tokenizer, tokenizer).decode(["s1 s2"], prefixes=prefixes)
        assert text.ended == (end == third)
