# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Every kind of tokenizer: fixed special tokens, nothing lost, the same again when trained or loaded again."""

import unicodedata
from itertools import pairwise

import pytest
from transformers import AutoTokenizer

from hf_xformer.data.tokenizers import SPECIALS, TRAINERS, train_tokenizer
from hf_xformer.errors import ArgumentError, DataError


TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich!",
    "pack my box with five dozen liquor jugs",
    "  two  spaces, and  one at the end ",
    "Ça va ? Déjà vu… naïve café",
    " ".join(stem + ending for stem in ("jump", "box", "quick", "lazi") for ending in ("er", "ing", "est", "ed")),
]
PHONEMES = ["K U B", "K UW B", "B E R", "B ER", "R U B E", "ER K"]
SIZES = {"bpe": 300, "unigram": 76, "char": 100, "symbol": 100}
kinds = pytest.mark.parametrize("kind", TRAINERS)
lossless_kinds = pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])


def train(kind: str, texts=TEXTS, **options):
    return train_tokenizer(texts, kind, **{"vocab_size": SIZES[kind], **options})


@kinds
def test_special_tokens_have_the_ids_of_the_config_and_every_text_ends_with_the_end_token(kind):
    tokenizer = train(kind)
    ids = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id]
    assert ids == [0, 1, 2, 3] == tokenizer.convert_tokens_to_ids(SPECIALS)
    for text in TEXTS[0], "":
        encoded = tokenizer(text)["input_ids"]
        assert encoded[-1] == 1 and encoded.count(1) == 1


@kinds
def test_ids_have_no_gap_even_when_the_texts_spell_out_special_tokens(kind):
    tokenizer = train(kind, [*TEXTS, *(f"{token} is a token" for token in SPECIALS)])
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert tokenizer.convert_tokens_to_ids(SPECIALS) == [0, 1, 2, 3]


@lossless_kinds
@pytest.mark.parametrize(
    "text",
    [*TEXTS[:5], " ", "", " leading", "trailing  ", "a   b", "jagen,quer", "cafe\u0301", "Zwo\u0308lf"],
    ids=repr,
)
def test_decoding_gives_the_text_back_in_composed_form(kind, text):
    tokenizer = train(kind)
    decoded = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    assert decoded == unicodedata.normalize("NFC", text)


def test_bytes_know_every_character():
    text = "日本語 👩‍🚀\t\n\u2028"
    tokenizer = train("bpe")
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@kinds
def test_folding_case_folds_it_in_what_is_decoded(kind):
    tokenizer = train(kind, lowercase=True)
    assert tokenizer("The QUICK Über")["input_ids"] == tokenizer("the quick über")["input_ids"]
    assert tokenizer.unk_token_id not in tokenizer("THE QUICK")["input_ids"]


@kinds
def test_training_twice_gives_the_same_tokenizer(kind):
    assert train(kind)._tokenizer.to_str() == train(kind)._tokenizer.to_str()


@kinds
def test_a_saved_tokenizer_loads_by_itself_and_encodes_alike(kind, tmp_path):
    tokenizer = train(kind, max_length=77)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)

    assert loaded.is_fast
    assert loaded.model_max_length == 77
    assert loaded.padding_side == "right"
    assert loaded._tokenizer.to_str() == tokenizer._tokenizer.to_str()
    batch = loaded([TEXTS[0], "fox"], padding=True, return_tensors="pt")
    assert set(batch) == {"input_ids", "attention_mask"}
    assert batch["attention_mask"].sum(dim=1).tolist() == [
        len(tokenizer(text)["input_ids"]) for text in (TEXTS[0], "fox")
    ]
    assert batch["input_ids"][1, -1] == loaded.pad_token_id
    assert loaded.batch_decode(batch["input_ids"], skip_special_tokens=True)[0] == TEXTS[0]


@kinds
def test_truncation_keeps_the_end_token(kind):
    ids = train(kind, max_length=7)(TEXTS[0], truncation=True)["input_ids"]
    assert len(ids) == 7 and ids[-1] == 1


def test_symbols_are_kept_whole_and_other_words_fall_into_their_characters():
    tokenizer = train("symbol", PHONEMES)

    def tokens(text: str) -> list[str]:
        return tokenizer.tokenize(text)

    assert tokens("K UW B ER") == ["K", "UW", "B", "ER"]
    assert tokens("K U B E R") == tokens("KUBER") == ["K", "U", "B", "E", "R"]
    assert tokens("KUWX") == ["K", "U", "W", "<unk>"]
    assert tokenizer.decode(tokenizer("  K  UW B ER ")["input_ids"], skip_special_tokens=True) == "K UW B ER"


def test_symbols_are_counted_as_they_are_cut():
    """Python's `split` takes U+001F for white space, and the tokenizer's library does not."""
    assert train("symbol", ["AB\x1fCD EF"]).tokenize("AB\x1fCD EF") == ["AB\x1fCD", "EF"]


def test_a_full_symbol_vocabulary_keeps_the_characters_and_the_most_frequent_symbols():
    tokenizer = train("symbol", ["AB AB AB CD CD EF"], vocab_size=4 + 6 + 2)
    assert tokenizer.tokenize("AB CD EF") == ["AB", "CD", "E", "F"]


@pytest.mark.parametrize("kind", ["char", "symbol"])
def test_what_is_rarer_than_the_minimum_is_unknown(kind):
    tokenizer = train(kind, ["a b b", "a b"], min_frequency=3)
    assert tokenizer.tokenize("a") == ["<unk>"]
    assert tokenizer.tokenize("b") == ["b"]


def test_byte_pairs_rarer_than_the_minimum_are_not_merged():
    assert train("bpe", ["ab ab cd"]).tokenize("cd") == ["cd"]
    assert train("bpe", ["ab ab cd"], min_frequency=2).tokenize("cd") == ["c", "d"]
    assert train("bpe", ["ab ab cd"], min_frequency=2).tokenize("ab") == ["ab"]


LETTERS = ["abcdefghij" * 2]


@pytest.mark.parametrize(
    ("kind", "options", "numbers"),
    [
        ("bpe", {"vocab_size": 259}, ["259", "256", "260"]),
        ("char", {"vocab_size": 13}, ["13", "10", "14"]),
        ("symbol", {"vocab_size": 13}, ["13", "10", "14"]),
        ("unigram", {"vocab_size": 14}, ["14", "11", "15"]),
        ("unigram", {"vocab_size": 5000}, ["5000 is too large"]),
        ("char", {"max_length": 1}, ["max_length 1"]),
        ("words", {"vocab_size": 50}, ["--model_type words", "bpe, unigram, char, symbol"]),
    ],
)
def test_what_cannot_be_is_refused_with_the_numbers(kind, options, numbers):
    with pytest.raises(ArgumentError) as error:
        train(kind, LETTERS, **options) if kind in SIZES else train_tokenizer(LETTERS, kind, **options)
    assert all(number in str(error.value) for number in numbers)


@pytest.mark.parametrize(("kind", "smallest"), [("bpe", 260), ("char", 14), ("symbol", 14), ("unigram", 15)])
def test_the_smallest_vocabulary_that_is_not_refused_has_no_entry_to_spare(kind, smallest):
    assert len(train(kind, LETTERS, vocab_size=smallest)) == smallest


@kinds
@pytest.mark.parametrize("texts", [[], [""], ["  ", ""]], ids=["none", "empty", "spaces"])
def test_no_text_is_refused(kind, texts):
    with pytest.raises(DataError, match="no text"):
        train(kind, texts)


def test_texts_may_be_read_only_once():
    assert len(train("unigram", iter(TEXTS))) == SIZES["unigram"]


def test_frequent_pairs_merge_first():
    sizes = [len(train("bpe", vocab_size=size).tokenize(TEXTS[0])) for size in (260, 300, 400)]
    assert all(larger > smaller for larger, smaller in pairwise(sizes))
