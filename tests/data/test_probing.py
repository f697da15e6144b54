# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A tokenizer's probe finds what it was made to do, and refuses what a model could not learn from."""

import unicodedata
from collections import Counter

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import SHAPES, Marking, Slow, Uncut, letters, wordpiece

from hf_xformer import XformerConfig
from hf_xformer.checkpoints.vocabulary import check_vocabulary
from hf_xformer.data.pairs import PairTokenizer, prepare_training
from hf_xformer.data.probing import check_training, harm, probe, round_trip, way
from hf_xformer.data.tokenizers import TRAINERS, train_tokenizer
from hf_xformer.decoding.metrics import compute_metrics
from hf_xformer.decoding.scoring import Scoring
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


def test_a_source_needs_no_end():
    check_training(letters("$A"), letters(), 8, 8)


def test_padding_before_texts_is_turned_and_said():
    tokenizer = letters(padding_side="left")
    assert any("pads before texts" in line for line in check_training(tokenizer, tokenizer, 8, 8))
    assert tokenizer.padding_side == "right"


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


WAYS = {
    "in another Unicode form": (["cafe\u0301", "한국어 \u1112\u1161\u11ab"], {}),
    "in lower case": (["Ab c", "ABC"], {"lowercase": True}),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_a_tokenizer_changes_has_its_name(way):
    texts, options = WAYS[way]
    found = round_trip(train_tokenizer([*texts, *map(str.lower, texts)], "char", 100, **options), texts)
    assert set(found.ways) == {way} and found.first is not None and found.first[0] in texts


def test_each_way_of_coming_back_as_another_is_told_apart():
    texts = ["abc", "ÄB", "ab  c", "ab\U0001f600", "[SEP]"]
    found = round_trip(wordpiece(eos_token="[SEP]"), texts)
    wanted = {
        "in lower case without accents": 1,
        "with other spaces between the same words": 1,
        "in lower case": 1,
        "with unknown tokens": 1,
    }
    assert found.ways == Counter(wanted) and found.first == ("ÄB", "ab")
    assert "4 of 5 texts come back as others when decoded" in str(found) and "first 'ÄB' as 'ab'" in str(found)


@pytest.mark.parametrize(
    ("text", "back", "name", "harm_of_it", "equal"),
    [
        ("cafe\u0301 a b c", "café a b c", "in another Unicode form", "one form", ["exact_match", "per", "sacrebleu"]),
        ("a  b c d", "a b c d", "with other spaces between the same words", "exact_match never", ["per", "sacrebleu"]),
        ("ab c d e", "a bc d e", "with other spaces", "look at spaces never", ["chrf"]),
        ("Ab c d e", "ab c d e", "in lower case", "no metric but ter", ["ter"]),
        ("ﬁ c d e", "fi c d e", "with compatible characters", "with --unicode_form NFKC only", []),
        ("é c d e", "e c d e", "without accents", "no prediction can equal these", []),
    ],
)
def test_what_is_said_of_a_way_is_what_the_metrics_find(text, back, name, harm_of_it, equal):
    assert way(text, back, False) == name and harm_of_it in harm([name])
    best = {"exact_match": 100, "per": 0, "sacrebleu": 100, "chrf": 100, "ter": 0}
    scores = compute_metrics(list(best), [back], [[text]])
    looks_at_spaces = [each for each in best if each != "chrf"]
    found = [each for each in best if scores[each] == pytest.approx(best[each])]
    if name == "with other spaces":
        assert not set(found) & set(looks_at_spaces)
    assert set(equal) <= set(found) and ("exact_match" in found) == ("exact_match" in equal)
    assert bool(found) == bool(equal)
    if name == "with compatible characters":
        assert (
            compute_metrics(["exact_match"], [back], [[text]], None, Scoring(unicode_form="NFKC"))["exact_match"]
            == 100
        )
    assert harm([name, "in other words"]).startswith(f"{name}: ") == (name != "without accents")


@given(texts=st.lists(st.text(max_size=12), max_size=8))
def test_bytes_come_back_in_form_c(texts):
    tokenizer = SHAPES["plain"]() if not texts else train_tokenizer(["a"], "bpe", 260)
    found = round_trip(tokenizer, texts)
    changed = [text for text in texts if unicodedata.normalize("NFC", text) != text]
    assert found.ways == (Counter({"in another Unicode form": len(changed)}) if changed else Counter())


def test_a_training_says_what_spells_out_special_tokens_and_what_does_not_come_back():
    rows = Dataset.from_dict({"source": ["ab", "x <s>old</s> y", "cd"], "target": [["ab"], ["b"], ["é \U0001f600"]]})
    lines: list[str] = []
    prepare_training(rows, PairTokenizer(letters(), letters(), 20, 20), "truncate", None, lines.append)
    said = "\n".join(lines)
    assert "1 training pairs spell out special tokens, which are taken as text; the first: 'x <s>old</s> y'" in said
    assert "the target tokenizer: 1 of 3 texts come back as others when decoded (1 with unknown tokens)" in said
    assert "no prediction can equal these" in said
    lines.clear()
    prepare_training(rows, PairTokenizer(SHAPES["T5"](), SHAPES["T5"](), 20, 20), "truncate", None, lines.append)
    assert "the tokenizer cannot take them as text" in "\n".join(lines)
