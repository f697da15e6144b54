# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Beam search for texts that hold words, against all texts of a small vocabulary, and against beams without words."""

from itertools import product

import pytest
import torch
from small_models import make_model
from transformers import GenerationConfig

from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.decoding.forced_words import Progress, Word, Words
from hf_xformer.errors import ArgumentError


SYMBOLS = [f"s{number}" for number in range(38)]
TEXTS = ["s1 s2 s3 s4", "s9", "s7 s7 s30 s31 s32 s33", "s37 s2", "s5 s5"]
SMALL = ["a", "b", "c"]  # with their characters and the special tokens seven entries


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((" ".join(SYMBOLS),), "symbol")


@pytest.fixture(scope="module")
def model():
    made = make_model()
    special = {"pad_token_id": 0, "decoder_start_token_id": 2}
    made.generation_config = GenerationConfig(eos_token_id=1, max_new_tokens=9, suppress_tokens=[0, 2, 3], **special)
    return made


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("words", [["b"], ["c b"], ["c", "a"], ["a b", "b c"], ["c c"]], ids="+".join)
def test_with_beams_for_all_texts_the_best_text_that_holds_the_words_is_found(words, seed):
    small = train_tokenizer((" ".join(SMALL),), "symbol")
    model = make_model(vocab_size=len(small))
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    special = {"pad_token_id": 0, "decoder_start_token_id": 2, "eos_token_id": 1}
    model.generation_config = GenerationConfig(max_new_tokens=4, suppress_tokens=[0, 2, 3], **special)
    decoder = Decoder(model, small, small, num_beams=81, early_stopping=False, scores=True)
    ((best, *_),) = decoder.decode(["a c"], force_words=[words])
    found = {}
    for symbols in (each for length in range(1, 5) for each in product(SMALL, repeat=length)):
        if all(f" {word} " in f" {' '.join(symbols)} " for word in words):
            tokens = [2, *small(" ".join(symbols))["input_ids"]][:5]  # of four symbols none ends by itself
            logits = model(**small("a c", return_tensors="pt"), decoder_input_ids=torch.tensor([tokens[:-1]])).logits
            steps = logits[0].log_softmax(-1).gather(-1, torch.tensor(tokens[1:])[:, None])
            found[" ".join(symbols)] = (steps.mean().item(), steps.sum().item())
    wanted = max(found, key=lambda text: found[text][0])
    assert best.text == wanted and best.score == pytest.approx(found[wanted][1], abs=1e-3)


@pytest.mark.parametrize("options", [{}, {"length_penalty": 0.0}, {"early_stopping": True, "num_return_sequences": 3}])
def test_sources_without_words_have_the_texts_of_plain_beams_and_others_hold_theirs(options, model, tokenizer):
    decoder = Decoder(model, tokenizer, tokenizer, num_beams=5, scores=True, **options)
    plain = list(decoder.decode(TEXTS))
    words = [[], ["s30"], [], ["s8 s9", "s4"], ["s30 s31", "s31 s32"]]
    found = list(decoder.decode(TEXTS, force_words=words))
    assert [found[0], found[2]] == [plain[0], plain[2]]
    for (best, *_), wanted in zip(found, words, strict=True):
        assert all(f" {word} " in f" {best.text} " for word in wanted)
    # Alone and in company.
    for number in (1, 3, 4):
        (alone,) = decoder.decode([TEXTS[number]], force_words=[words[number]])
        assert [each.text for each in alone] == [each.text for each in found[number]]


def test_words_of_a_prefix_are_there_already(model, tokenizer):
    decoder = Decoder(model, tokenizer, tokenizer, num_beams=4)
    plain = [best.text for best, *_ in decoder.decode(TEXTS, prefixes=["s8 s9"] * 5)]
    held = [best.text for best, *_ in decoder.decode(TEXTS, prefixes=["s8 s9"] * 5, force_words=[["s9"]] * 5)]
    assert held == plain


def test_a_text_that_ends_too_early_for_its_words_is_said(model, tokenizer):
    said: list[str] = []
    decoder = Decoder(model, tokenizer, tokenizer, num_beams=4, max_new_tokens=3, say=said.append)
    (best, *_), *_ = decoder.decode(TEXTS[:2], force_words=[["s1 s2 s3 s4 s5"], ["s3"]], kind="line")
    (line,) = said
    assert line.startswith("texts without all of their words: 1, of line 1") and best.text == "s1 s2 s3"


@pytest.mark.parametrize(
    ("options", "words", "said"),
    [
        ({}, [["s1"]], "force_words needs num_beams of 2 or more"),
        ({"num_beams": 2, "do_sample": True}, [["s1"]], "force_words does not go with sampling"),
        ({"num_beams": 2, "allowed": ["s1", "s2"]}, [["s3"]], "force_words does not go with allowed"),
        ({"num_beams": 2}, [["s1", " "]], "word 2 of source 1 is empty"),
        ({"num_beams": 2}, [[7]], "word 1 of source 1 is 7, and a text is wanted"),
        ({"num_beams": 2}, ["s1"], "words of source 1 are 's1', and a list is wanted"),
        ({"num_beams": 2}, [["H"]], "word 1 of source 1 has a character that the target's tokenizer does not know"),
        ({"num_beams": 2}, [["s1"], ["s2"]], "there are more of them"),
    ],
)
def test_words_that_cannot_be_are_refused(options, words, said, model, tokenizer):
    with pytest.raises(ArgumentError, match=said):
        list(Decoder(model, tokenizer, tokenizer, **options).decode(TEXTS[:1], force_words=words))


def test_progress_counts_words_that_overlap_and_those_at_the_beginning_of_a_text():
    words = Words([Word((1, 2), (9, 1, 2)), Word((2, 3), (2, 3))])
    seen = [Progress()]
    for token in (1, 2, 3):
        seen.append(words.after(seen[-1], token))
    assert [words.bank(each) for each in seen] == [0, 1, 4, 5]  # 2 begins the second word
    assert [words.next_tokens(each) for each in seen] == [{1, 9, 2}, {2, 9}, {3, 2}, set()]
    later = words.after(words.after(Progress(), 5), 1)
    assert later.held == frozenset() and words.next_tokens(later) == {9, 2}
