# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Texts become the ids that the tokenizer itself makes, keep their frame when cut, and come back as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import LETTERS, SHAPES, Marking, Slow, Uncut, letters, unigram
from transformers import AutoTokenizer

from hf_xformer.data.encoding import SpeltOut, TextEncoder, choose_spelt_out
from hf_xformer.data.pairs import PairTokenizer
from hf_xformer.data.tokenizers import SPECIALS, TRAINERS, train_tokenizer
from hf_xformer.errors import DataError


shapes = pytest.mark.parametrize("shape", SHAPES)
MADE = {name: make() for name, make in SHAPES.items()}
PLAIN = st.text(st.sampled_from([each for each in LETTERS if each not in "<>[]/"]), max_size=30)
SPELT = st.lists(st.one_of(st.sampled_from(SPECIALS), st.text(st.sampled_from("ab <>/spunkd"), max_size=6))).map(
    "".join
)
TEXTS = ["x <s>old</s> y", "<pad> <unk> </s> ab <s>", "a<b> c/d kpu", "the fox [jumps]"]
SIZES = {"bpe": 290, "unigram": 31, "char": 100, "symbol": 100}
TRAINED = {kind: train_tokenizer(TEXTS, kind, vocab_size=size) for kind, size in SIZES.items()}


@shapes
@given(text=PLAIN, limit=st.integers(4, 12))
def test_an_ordinary_text_has_the_ids_that_the_tokenizer_makes_cut_as_it_cuts(shape, text, limit):
    tokenizer = MADE[shape]
    for target in (False, True):
        name = "text_target" if target else "text"
        (each,) = TextEncoder(tokenizer, limit, target)([text])
        whole = tokenizer(**{name: text}, verbose=False)["input_ids"]
        assert each.ids == tokenizer(**{name: text}, truncation=True, max_length=limit)["input_ids"]
        assert each.overlong == (len(whole) > limit) and each.spelt_out == SpeltOut.NONE


@shapes
def test_a_text_that_is_cut_keeps_its_frame_and_its_length_is_exact(shape):
    encode = TextEncoder(MADE[shape], 6, target=True)
    exact, long = encode(["a" if shape == "BERT" else "ab"[: 6 - len(encode.frame)], "a b c d e f g h i j"])
    assert not exact.overlong and long.overlong and len(long.ids) == 6
    for each in (exact, long):
        assert tuple(each.ids[: len(encode.frame.prefix)]) == encode.frame.prefix
        assert tuple(each.ids[len(each.ids) - len(encode.frame.suffix) :]) == encode.frame.suffix


def test_the_frame_of_mbart_stays_whole_in_training_labels():
    tokenizer = MADE["mBART"]
    rows = PairTokenizer(tokenizer, tokenizer, 5, 4)({"source": ["abcdefgh"], "target": [["hgfedcba"]]})
    end = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("en_XX")]
    assert rows["labels"][0][2:] == end == rows["input_ids"][0][3:]
    assert rows["overlong"] == [True]


def test_a_left_truncation_side_cuts_the_beginning():
    (each,) = TextEncoder(MADE["left truncation"], 5)(["abcdefgh"])
    assert MADE["left truncation"].decode(each.ids) == "<s>fgh</s>"


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
@given(text=SPELT)
def test_a_text_that_spells_out_special_tokens_comes_back_as_it_was(kind, text):
    tokenizer = TRAINED[kind]
    (each,) = TextEncoder(tokenizer, target=True)([text])
    assert tokenizer.decode(each.ids, skip_special_tokens=True) == text
    assert (each.spelt_out == SpeltOut.AS_TEXT) == any(token in text for token in SPECIALS)


@given(text=SPELT)
def test_symbols_that_spell_out_special_tokens_keep_their_characters(text):
    tokenizer = TRAINED["symbol"]
    (each,) = TextEncoder(tokenizer)([text])
    assert "".join(tokenizer.decode(each.ids, skip_special_tokens=True).split()) == "".join(text.split())


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape not in ("T5", "BERT")])
@given(text=SPELT)
def test_other_tokenizers_give_spelt_out_special_tokens_back_too(shape, text):
    (each,) = TextEncoder(MADE[shape], target=True)([text])
    assert MADE[shape].decode(each.ids, skip_special_tokens=True) == text
    assert each.spelt_out != SpeltOut.AS_TOKENS


def test_what_a_tokenizer_cannot_take_as_text_is_read_and_counted():
    each, plain = TextEncoder(unigram())(["a </s> b", "a b"])
    assert (each.spelt_out, plain.spelt_out) == (SpeltOut.AS_TOKENS, SpeltOut.NONE)
    assert each.ids == unigram()("a </s> b")["input_ids"]


@pytest.mark.parametrize("make", [lambda: letters(tags=("<2de>",)), lambda: letters()], ids=["special", "added"])
def test_tags_are_read_in_every_text(make):
    tokenizer = make()
    tokenizer.add_tokens(["<2de>"])
    tag = tokenizer.convert_tokens_to_ids("<2de>")
    plain, both = TextEncoder(tokenizer)(["<2de> ab", "<2de> a <s> b"])
    assert plain.ids[0] == both.ids[0] == tag and plain.spelt_out == SpeltOut.NONE
    # A special one would be split with the others.
    is_special = tag in tokenizer.all_special_ids
    assert both.spelt_out == (SpeltOut.AS_TOKENS if is_special else SpeltOut.AS_TEXT)


def test_reading_special_tokens_is_kept_with_the_tokenizer(tmp_path):
    tokenizer = letters()
    choose_spelt_out("read", tokenizer)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    (each,) = TextEncoder(loaded)(["a <s> b"])
    assert each.ids == loaded("a <s> b")["input_ids"] and each.spelt_out == SpeltOut.AS_TOKENS
    choose_spelt_out(None, loaded)
    assert TextEncoder(loaded)(["a <s> b"])[0].ids == each.ids
    choose_spelt_out("literal", loaded)
    assert TextEncoder(loaded)(["a <s> b"])[0].spelt_out == SpeltOut.AS_TEXT


@pytest.mark.parametrize("shape", ["plain", "mBART", "T5"])
def test_encoding_leaves_a_tokenizer_as_it_was(shape):
    tokenizer = SHAPES[shape]()
    encode = TextEncoder(tokenizer, 6)
    before = tokenizer.backend_tokenizer.to_str()
    encode(["a <s> b c d e f", "abcdefgh"])
    assert tokenizer.backend_tokenizer.to_str() == before
    assert tokenizer("a <s> b")["input_ids"] == SHAPES[shape]()("a <s> b")["input_ids"]


def test_a_tokenizer_that_does_not_truncate_is_refused_where_it_has_to():
    assert len(TextEncoder(Uncut(), 5)(["abcd"])[0].ids) == 5
    with pytest.raises(DataError, match="source tokenizer does not truncate: it makes 6 tokens of 'abcde' where 5"):
        TextEncoder(Uncut(), 5)(["abcde"])


def test_a_frame_is_found_where_a_tokenizer_ends_texts_whatever_it_is_told():
    assert TextEncoder(Marking()).frame == TextEncoder(Slow()).frame
    assert TextEncoder(Marking())(["ab"])[0].spelt_out == SpeltOut.NONE


def test_no_texts_are_no_tokens():
    assert TextEncoder(letters())([]) == [] and set(TRAINERS) == set(TRAINED)
