# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Languages that are decoded from and into, by tokens before sources."""

import pytest
from small_models import make_model

from hf_xformer.data.templates import remember
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.errors import ArgumentError


SYMBOLS = [f"s{number}" for number in range(36)]
TEXTS = ["s1 s2 s3 s4", "", "s9"]


@pytest.fixture
def tokenizer():
    return train_tokenizer((" ".join(SYMBOLS),), "symbol", added_tokens=["<2de>", "<2en>"])


@pytest.fixture(scope="module")
def model():
    made = make_model()
    made.generation_config.max_length = 8
    return made


def test_a_language_puts_its_token_before_each_source(model, tokenizer):
    remember(["<2{target_lang}> {source}"], tokenizer)
    said: list[str] = []
    told = Decoder(model, tokenizer, tokenizer, tgt_lang="de", say=said.append)
    plain = Decoder(model, tokenizer, tokenizer, say=said.append)
    found = list(told.decode(TEXTS))
    assert found == list(plain.decode([f"<2de> {text}" if text else "" for text in TEXTS])) and not said
    assert found != list(plain.decode(TEXTS))
    (line,) = said
    assert "without a token of a language" in line and "2, sources 1, 3;" in line and "tgt_lang puts it there" in line


def test_both_languages_may_be_wanted_and_others_are_refused(model, tokenizer):
    def decoder(**languages) -> Decoder:
        return Decoder(model, tokenizer, tokenizer, **languages)

    assert decoder(tgt_lang="de").languages("s1") == "<2de> s1"  # by the tokens' names
    other = train_tokenizer((" ".join(SYMBOLS),), "symbol")
    with pytest.raises(ArgumentError, match="tgt_lang de: the tokenizer knows no languages"):
        Decoder(model, other, other, tgt_lang="de")
    remember(["<2{target_lang}> {source}"], tokenizer)
    with pytest.raises(ArgumentError, match="no token <2it>; did you mean <2en>"):
        decoder(tgt_lang="it")
    with pytest.raises(ArgumentError, match="no token <2zhHant>; there are <2de>, <2en>"):
        decoder(tgt_lang="zhHant")
    with pytest.raises(ArgumentError, match="src_lang is missing from the template"):
        decoder(tgt_lang="de", src_lang="en")
    remember(["<2{source_lang}> <2{target_lang}> {text}"], tokenizer)
    with pytest.raises(ArgumentError, match="src_lang is wanted by the template"):
        decoder(tgt_lang="de")
    told = decoder(tgt_lang="de", src_lang="en")
    assert told.languages("s1") == "<2en> <2de> s1"
