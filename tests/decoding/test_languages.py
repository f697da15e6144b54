# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Languages that are decoded from and into, by tokens before sources or targets."""

from functools import partial

import pytest
from small_models import make_model
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBart50Tokenizer,
    MBartTokenizer,
    NllbTokenizer,
    PLBartTokenizer,
)

from hf_xformer.checkpoints.languages import decoding_options
from hf_xformer.data.encoding import TextEncoder
from hf_xformer.data.pairs import template_of_texts
from hf_xformer.data.templates import remember, remember_beginnings
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding import decoder as decoding
from hf_xformer.decoding.beginnings import TargetEncoder
from hf_xformer.errors import ArgumentError


SYMBOLS = [f"s{number}" for number in range(36)]
TEXTS = ["s1 s2 s3 s4", "", "s9"]
Decoder = partial(decoding.Decoder, max_new_tokens=7)  # an asked length, of which nothing is said


@pytest.fixture
def tokenizer():
    return train_tokenizer((" ".join(SYMBOLS),), "symbol", added_tokens=["<2de>", "<2en>"])


@pytest.fixture(scope="module")
def model():
    made = make_model()
    made.generation_config.max_new_tokens = 7
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


@pytest.mark.parametrize(
    ("templates", "untold"),
    [
        (["s1 {text}"], "with 's1 ': 2, sources 2, 3; the first is: 's9'"),
        (["s9{text}", "s1 s2 {text}"], "with 's1 s2 ' or 's9': 1, source 3; the first is: 's2 s1 s2'"),
        (["s1 {text}", "{text}"], None),  # some of the training begin with anything
        (["{text}"], None),
    ],
)
def test_sources_that_begin_otherwise_than_all_of_the_training_are_said(model, tokenizer, templates, untold, tmp_path):
    remember_beginnings(["s5 {text}"], tokenizer)  # of an earlier training
    remember_beginnings(templates, tokenizer)
    tokenizer.save_pretrained(tmp_path)
    loaded, said = AutoTokenizer.from_pretrained(tmp_path), []
    decoder = Decoder(model, loaded, loaded, say=lambda line: said.append(line) if "do not begin" in line else None)
    list(decoder.decode(["s1 s2 s3", "s9", "s2 s1 s2", ""]))
    assert len(said) == (untold is not None) and all(untold in line for line in said)


def test_a_template_with_more_texts_than_one_takes_whole_sources_alone(model, tokenizer):
    remember(["<2{target_lang}> {context} {source}"], tokenizer)
    with pytest.raises(ArgumentError, match="has 2 fields beside languages: give whole sources"):
        Decoder(model, tokenizer, tokenizer, tgt_lang="de")
    Decoder(model, tokenizer, tokenizer)


def test_languages_of_one_decoder_are_not_anothers():
    tokenizer = NllbTokenizer()
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    stock = M2M100ForConditionalGeneration(M2M100Config(vocab_size=len(tokenizer), **sizes))
    own = ("eng_Latn", "fra_Latn")
    decoders = [Decoder(stock, tokenizer, tokenizer, src_lang=a, tgt_lang=b) for a, b in (own, own[::-1])]
    read = [decoder.encoder(["a"])[0].ids[0] for decoder in decoders]
    assert read == [tokenizer.convert_tokens_to_ids(language) for language in own]


def test_what_a_corpus_puts_before_a_template_stands_there_in_decoding_too(model, tokenizer):
    remember([template_of_texts("<2{target_lang}> {source}", "s3 ")], tokenizer)
    assert Decoder(model, tokenizer, tokenizer, tgt_lang="de").languages("s1") == "s3 <2de> s1"


TARGETS = "<2{target_lang}> {target}"


@pytest.fixture
def told(model, tokenizer):
    """Makes decoders of a model whose targets begin with a language."""
    remember([TARGETS], tokenizer, "target")
    return lambda **options: Decoder(model, tokenizer, tokenizer, **options)


@pytest.mark.parametrize(
    ("kind", "language"), [(NllbTokenizer, "fra_Latn"), (MBartTokenizer, "ro_RO"), (MBart50Tokenizer, "ro_RO")]
)
def test_targets_without_a_language_are_refused_and_do_not_get_the_sources(kind, language):
    tokenizer = kind()
    tokenizer.src_lang = language
    with pytest.raises(ArgumentError, match="has several languages and no `tgt_lang`: set tokenizer.tgt_lang"):
        TextEncoder(tokenizer, target=True)
    assert tokenizer.tgt_lang is None
    # The decoder knows it by the token that texts begin with, and tells nobody else's tokenizer.
    first = tokenizer.convert_tokens_to_ids(language)
    encoder = TargetEncoder(tokenizer, GenerationConfig(forced_bos_token_id=first))
    assert encoder("a")[0] == first and language not in tokenizer.convert_ids_to_tokens(encoder("a")[1:])
    assert tokenizer.tgt_lang is None
    tokenizer.tgt_lang = language
    frame = TextEncoder(tokenizer, target=True).frame
    assert tokenizer.convert_tokens_to_ids(language) in (*frame.prefix, *frame.suffix)


def test_texts_of_plbart_start_with_their_language():
    tokenizer = PLBartTokenizer.__new__(PLBartTokenizer)  # its vocabulary would be of SentencePiece
    assert decoding_options(tokenizer, 7) == {"decoder_start_token_id": 7}


def library_texts(model, tokenizer, texts: list[str], tag: str, **options) -> list[str]:
    """Returns what the library's own loop makes of texts behind a token that it is told, without this token."""
    forced = tokenizer.convert_tokens_to_ids(tag)
    found = []
    for text in texts:
        ids = tokenizer([text], return_tensors="pt").input_ids
        sequence = model.generate(ids, forced_bos_token_id=forced, **options)[0].tolist()
        assert sequence[1] == forced
        found.append(tokenizer.decode(sequence[2:], skip_special_tokens=True))
    return found


@pytest.mark.parametrize("beams", [1, 3])
def test_a_language_is_the_first_token_of_each_target_and_no_part_of_its_text(model, tokenizer, told, beams):
    texts, said = ["s1 s2 s3 s4", "s9"], []
    expected = library_texts(model, tokenizer, texts, "<2en>", num_beams=beams)
    assert [best[0].text for best in told(tgt_lang="en", num_beams=beams, say=said.append).decode(texts)] == expected
    # Row by row too, as an evaluation tells it, among rows of other languages.
    rows, prefixes = [text for text in texts for _ in range(2)], ["<2en>", "<2de>"] * 2
    decoder = told(num_beams=beams, say=said.append, max_new_tokens=6)  # beside the token of a language
    assert [best[0].text for best in decoder.decode(rows, prefixes=prefixes)][::2] == expected and not said
    assert (
        not any("<2" in best[0].text for best in decoder.decode(texts)) and "without a token of a language" in said[0]
    )


def test_a_language_goes_with_prefixes_words_and_allowed_texts(model, tokenizer, told):
    texts, said = ["s1 s2 s3 s4", "s9"], []

    def decoded(prefixes=None, words=None, **options) -> list[str]:
        decoder = told(say=said.append, **options)
        return [best[0].text for best in decoder.decode(texts, prefixes=prefixes, force_words=words)]

    assert all(text.startswith("s5 s6") for text in decoded(["s5 s6"] * 2, tgt_lang="de"))
    assert decoded(["<2de> s5 s6"] * 2) == decoded(["s5 s6"] * 2, tgt_lang="de")
    allowed = ["s7 s8", "s20"]
    assert {*decoded(allowed=allowed, tgt_lang="de"), *decoded(["<2en>"] * 2, allowed=allowed)} <= {*allowed}
    assert all("s30" in text for text in decoded(words=[["s30"]] * 2, tgt_lang="de", num_beams=4))
    assert not said


def test_a_language_elsewhere_in_a_target_is_refused(tokenizer):
    with pytest.raises(ArgumentError, match="a language is its first word, as in '<2{target_lang}> {target}'"):
        remember(["{target} <2{target_lang}>"], tokenizer, "target")


def test_words_that_targets_never_began_with_are_refused(model, tokenizer, told):
    decoder = Decoder(model, other := train_tokenizer((" ".join(SYMBOLS),), "symbol"), other)
    with pytest.raises(ArgumentError, match="trained without languages in its targets"):
        decoder.languages.check_words(["<2de>"], TARGETS)
    with pytest.raises(ArgumentError, match="no token <2fr>; did you mean"):
        told().languages.check_words(["<2de>", "<2fr>"], TARGETS)
