# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A tokenizer's probe finds what it was made to do, and refuses what a model could not learn from."""

import pytest
from small_tokenizers import SHAPES, Marking, Slow, Uncut, letters, wordpiece

from hf_xformer import XformerConfig
from hf_xformer.checkpoints.vocabulary import check_vocabulary
from hf_xformer.data.probing import check_training, probe
from hf_xformer.data.tokenizers import TRAINERS, train_tokenizer
from hf_xformer.errors import ArgumentError


FRAMES = {
    **dict.fromkeys(["plain", "T5", "ByT5", "slow", "slow, left truncation"], "... </s>"),
    **dict.fromkeys(["BART", "left truncation"], "<s> ... </s>"),
    **{"mBART": "... </s> en_XX", "NLLB": "en_XX ... </s>", "BERT": "[CLS] ... [SEP]"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_stock_shape_is_known_for_what_it_is(shape):
    found = probe(SHAPES[shape](), "target")
    assert (found.framed, found.ends, found.cuts) == (FRAMES[shape], True, True)
    tokenizer = SHAPES[shape]()
    said = check_training(tokenizer, tokenizer, 8, 8)
    assert any("frames each text" in line for line in said) == (FRAMES[shape] != "... </s>")
    assert any("truncates texts at their beginning" in line for line in said) == ("left" in shape)


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_tokenizer_that_is_trained_here_has_nothing_to_be_said_of(kind):
    texts = ["ab cd <s>", "bc da </s> <pad> <unk>"]
    tokenizer = train_tokenizer(texts, kind, vocab_size=17 if kind == "unigram" else 270)
    assert check_training(tokenizer, tokenizer, 8, 8) == []
    assert set(probe(tokenizer, "source").spelt_out.values()) == {1}


UNFIT = {
    "no end": (lambda: letters("$A"), "target tokenizer does not end texts with its end token </s> (1)"),
    "another end": (lambda: letters("$A <s>"), "ends texts with <s> and not with its end token </s> (1)"),
    "end in front": (lambda: letters("</s> $A"), "does not end texts with its end token </s> (1)"),
    "no end token": (wordpiece, "has no `eos_token`: set one, such as tokenizer.eos_token = '[SEP]'"),
    "no padding": (lambda: letters(pad_token=None), "has no `pad_token`: set one"),
    "lost when cut": (Uncut, "loses special tokens, ... </s>, where it truncates"),
    "cut by itself": (Marking, "loses special tokens, ... </s>, where it truncates"),
    "no room": (lambda: letters("<s> <s> <s> <s> $A <s> <s> <s> </s>"), "--max_source_length 8 has no room"),
}


@pytest.mark.parametrize(("make", "line"), UNFIT.values(), ids=UNFIT)
def test_a_tokenizer_that_a_model_could_not_learn_from_is_refused_in_one_line(make, line):
    tokenizer = make()
    with pytest.raises(ArgumentError) as error:
        check_training(tokenizer, tokenizer, 8, 8)
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("dropout", [0.02, 0.3])
def test_a_tokenizer_that_draws_at_random_is_refused(dropout):
    made = train_tokenizer(["the cat sat on the mat with words of many letters"] * 5, "bpe", 400)
    assert check_training(made, made, 64, 64) == []
    made.backend_tokenizer.model.dropout = dropout
    with pytest.raises(ArgumentError, match="draws at random how it splits a text, in decoding too: set "):
        check_training(made, made, 64, 64)


def test_a_source_needs_no_end():
    check_training(letters("$A"), letters(), 8, 8)


def test_padding_before_texts_is_turned_and_said():
    tokenizer = letters(padding_side="left")
    assert any("pads before texts" in line for line in check_training(tokenizer, tokenizer, 8, 8))
    assert tokenizer.padding_side == "right"


def test_padding_is_masked_whatever_inputs_a_tokenizer_names():
    tokenizer = letters(model_input_names=["input_ids"])
    check_training(tokenizer, tokenizer, 8, 8)
    assert tokenizer.pad({"input_ids": [[4], [4, 5]]})["attention_mask"] == [[1, 0], [1, 1]]


def test_two_tokens_with_one_id_and_ids_that_the_model_lacks_are_refused():
    size = len(letters())
    config = XformerConfig(vocab_size=size, d_model=32, pad_token_id=0, eos_token_id=1, bos_token_id=2)
    check_vocabulary(config, letters(), letters())
    with pytest.raises(ArgumentError, match="two tokens, 'a' and 'b', the id 5"):
        check_vocabulary(config, Slow(doubled=True), Slow(doubled=True))
    gap = Slow()
    gap.entries["é"] = size + 4
    config = XformerConfig(vocab_size=size + 2, d_model=32, pad_token_id=0, eos_token_id=1, bos_token_id=2)
    gap.__class__ = type("Gap", (Slow,), {"__len__": lambda self: len(self.get_vocab())})
    with pytest.raises(ArgumentError, match=f"'é' the id {size + 4}.*--config_overrides vocab_size={size + 5}"):
        check_vocabulary(config, gap, gap)
