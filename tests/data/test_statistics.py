# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Statistics against numpy, counting by hand and the tokenizers themselves; options that follow do what they say."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_xformer.data.advice import length_limits, recipe_options, tokenizer_options
from hf_xformer.data.duplicates import Overlap, Repeats, Shared, hash_of
from hf_xformer.data.scripts import script_of
from hf_xformer.data.statistics import MOST_WORDS, Lengths, Statistics
from hf_xformer.data.text_forms import one_space_apart
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.word_splitting import tokenizer_for


TEXTS = st.text("ab é", min_size=1, max_size=3)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=40)
LENGTHS = st.lists(st.integers(0, 30) | st.integers(0, 10**6), min_size=1, max_size=60)


def rows_of(pairs) -> list[dict]:
    return [{"source": source, "target": [target]} for source, target in pairs]


def statistics_of(pairs, *tokenizers, overlap=None) -> Statistics:
    statistics = Statistics(*tokenizers, overlap=overlap)
    statistics.add(rows_of(pairs))
    return statistics


def value_of(options, name):
    return next((each.value for each in options if each.name == name), None)


@given(LENGTHS, st.sampled_from([1, 25, 50, 90, 99, 99.5, 99.9, 100]))
def test_percentiles_are_numpys(values, percent):
    assert Lengths(values).percentile(percent) == np.percentile(values, percent, method="inverted_cdf")
    assert Lengths(values).mean == pytest.approx(np.mean(values))
    assert Lengths(values).above(7) == sum(value > 7 for value in values)


@given(LENGTHS, st.sampled_from([2, 12, 60]))
def test_each_value_is_in_the_one_bin_that_has_it(values, most):
    bins = Lengths(values).bins(most)
    assert len(bins) <= most and bins[-1][1] >= max(values)
    assert [first for first, _, _ in bins[1:]] == [last + 1 for _, last, _ in bins[:-1]]
    assert [count for *_, count in bins] == [sum(first <= v <= last for v in values) for first, last, _ in bins]


@given(PAIRS)
def test_repeated_pairs_and_several_targets_are_those_that_counting_finds(pairs):
    report = statistics_of(pairs).report()["duplicates"]
    compared = Counter((one_space_apart(source), one_space_apart(target)) for source, target in pairs)
    targets = Counter(source for source, _ in compared)
    assert report["distinct_pairs"] == len(compared)
    assert report["repeated_pairs"] == len(pairs) - len(compared)
    assert report["sources_with_several_targets"] == sum(count > 1 for count in targets.values())
    assert report["estimated_from"] == 1


@given(PAIRS, PAIRS)
def test_the_overlap_is_what_looking_each_text_up_finds(here, there):
    report = statistics_of(here, overlap=Overlap(rows_of(there))).overlap.report()
    parts = {"pairs": lambda pair: pair, "sources": lambda pair: pair[0], "targets": lambda pair: pair[1]}
    for kind, part in parts.items():
        mine, theirs = ([part(tuple(map(one_space_apart, pair))) for pair in pairs] for pairs in (here, there))
        assert report[kind]["here"] == sum(text in theirs for text in mine)
        assert report[kind]["there"] == sum(text in mine for text in theirs)
        assert (report[kind]["of_here"], report[kind]["of_there"]) == (len(here), len(there))


def test_texts_in_another_form_are_the_same_text():
    decomposed, composed = "cafe\u0301  x", "caf\u00e9 x"
    statistics = statistics_of([(decomposed, "a"), (composed, "a ")], overlap=Overlap(rows_of([(composed, "b")])))
    assert statistics.report()["duplicates"]["repeated_pairs"] == 1
    assert statistics.overlap.report()["sources"]["here"] == 2
    kinds = {each["kind"]: each["count"] for each in statistics.report()["unusual"]}
    assert kinds["sources: not in Unicode's normal form C"] == 1 and kinds["targets: white space at an end"] == 1


def test_beyond_the_room_counts_are_estimated_from_what_fits():
    repeats, shared = Repeats(room=1000), Shared(room=1000)
    for number in range(20_000):  # every pair twice, every fourth source with a second target
        key = hash_of(str(number))
        for target in (1, 1, 2 if number % 4 == 0 else 1):
            repeats.add("s", "t", key, target)
        assert repeats.pairs <= 1000
        shared.add_other(key)
        assert len(shared.other) <= 1000
    for number in range(10_000, 40_000):
        shared.look_up(hash_of(str(number)), "x")
    report = repeats.report()
    assert report["estimated_from"] < 0.1
    assert report["distinct_pairs"] == pytest.approx(25_000, rel=0.2)
    assert report["repeated_pairs"] == pytest.approx(35_000, rel=0.2)
    assert report["sources_with_several_targets"] == pytest.approx(5000, rel=0.3)
    assert shared.report()["there"] == pytest.approx(10_000, rel=0.2)
    assert shared.report()["here"] == pytest.approx(10_000, rel=0.2)


@given(st.lists(TEXTS, min_size=1, max_size=40))
def test_of_texts_without_targets_the_sources_alone_are_counted(texts):
    overlap = Overlap([{"source": text} for text in texts[:3]], one_column=True)
    statistics = Statistics(overlap=overlap, one_column=True)
    statistics.add([{"source": text} for text in texts])
    of_pairs, report = statistics_of([(text, "x") for text in texts]).report(), statistics.report()
    compared = [one_space_apart(text) for text in texts]
    assert report["duplicates"]["repeated_texts"] == len(texts) - len(set(compared))
    assert report["duplicates"]["distinct_texts"] == len(set(compared)) and report["source"] == of_pairs["source"]
    shared = overlap.report()
    assert shared.keys() == {"sources"} and shared["sources"]["here"] == sum(text in compared[:3] for text in compared)


@given(PAIRS)
def test_tokens_are_the_tokenizers_and_unknown_characters_those_outside_its_vocabulary(pairs):
    tokenizer = train_tokenizer(["a b"], "char")
    report = statistics_of(pairs, tokenizer, tokenizer).report()
    for side, texts in zip(("source", "target"), zip(*pairs, strict=True), strict=True):
        lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
        assert report[side]["tokens"]["max"] == max(lengths)
        assert report[side]["tokens"]["mean"] == pytest.approx(np.mean(lengths), abs=0.01)
        unknown = Counter(character for character in "".join(texts) if character == "é")
        assert report[side]["unknown_tokens"]["most_frequent"] == unknown
        assert report[side]["unknown_tokens"]["count"] == unknown.total()


def test_an_unknown_word_of_known_characters_is_named_whole():
    model = models.WordPiece({"<unk>": 0, "ab": 1, "a": 2, "b": 3, "</s>": 4}, unk_token="<unk>")
    words = Tokenizer(model)
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    report = statistics_of([("ab ba x ba", "ab")], tokenizer, tokenizer).report()
    assert report["source"]["unknown_tokens"]["most_frequent"] == {"ba": 2, "x": 1}
    assert report["target"]["unknown_tokens"]["count"] == 0


def test_an_unknown_token_that_is_the_end_token_is_not_counted():
    tokenizer = train_tokenizer(["a b"], "bpe", vocab_size=300)
    tokenizer.unk_token = tokenizer.eos_token
    report = statistics_of([("a ü", "b")], tokenizer, tokenizer).report()
    assert report["source"]["unknown_tokens"]["count"] == 0 and report["source"]["tokens"]["max"] > 3


def test_what_is_unusual_is_counted_with_its_first_example():
    tokenizer = train_tokenizer(["a b"], "char")
    pairs = [("a", "a"), ("x</s>y", "b"), ("a\rb", "b"), ("l\ufffd", "b"), ("m\ufffd", "b")]
    found = {each["kind"]: each for each in statistics_of(pairs, tokenizer, tokenizer).report()["unusual"]}
    assert found["targets: equal to the source"]["example"] == '"a"'
    assert found["sources: a special token of the tokenizer, such as </s>, in the text"]["count"] == 1
    assert found["sources: a line break, tab or other control character"]["example"] == '"a\\rb"'
    lost = found["sources: U+FFFD, which stands for a character that was lost"]
    assert lost["count"] == 2 and lost["example"] == '"l\ufffd"'


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("\ufeffa", "a byte order mark, as files that were joined have inside"),
        ("bü@@ sche", "words cut by subword-nmt, to be joined"),
        ("ka@@", "words cut by subword-nmt, to be joined"),
        ("@@x a@@b", None),
    ],
)
def test_what_texts_are_unusual_by_is_counted(text, kind):
    kinds = {each["kind"]: each["count"] for each in statistics_of([("a", "b"), (text, "b")]).report()["unusual"]}
    assert kinds == ({} if kind is None else {f"sources: {kind}": 1})


@pytest.mark.parametrize("pairs", [1, 4, 63, 200])
def test_a_step_has_no_more_pairs_than_there_are(pairs):
    statistics = statistics_of([("a b " * 380, "c d " * 380)] * pairs)
    (found,) = (each for each in recipe_options(statistics, 0, 99.5) if each.name == "max_tokens")
    assert (found.why == "all pairs in one step") == (found.value // 761 >= pairs)
    assert found.value <= 2 * max(4 * 768, 761 * pairs)


def test_each_reference_is_a_pair_as_in_training():
    statistics = Statistics()
    statistics.add([{"source": "a", "target": ["b", "c"]}, {"source": "d", "target": ["e"]}])
    report = statistics.report()
    assert (report["rows"], report["pairs"], report["rows_with_several_references"]) == (2, 3, 1)
    assert report["duplicates"]["sources_with_several_targets"] == 1


SYMBOLS = [(" ".join("abc"[i % 3 :] + "xyz"), " ".join(["K", "UW", "É"][: 2 + i % 2])) for i in range(200)]
NAMES = [(f"name{i}", f"nom{i}") for i in range(MOST_WORDS + 1)]
SENTENCES = [(f"a{i} sentence of words", f"un{i} phrase de mots") for i in range(MOST_WORDS + 1)]


@pytest.mark.parametrize(
    ("pairs", "kinds"),
    [
        (SYMBOLS, ["symbol"]),
        (NAMES, ["char"]),
        (SENTENCES, ["bpe"]),
        ([(source, SYMBOLS[0][1]) for source, _ in NAMES], ["char", "symbol"]),
        ([(source, SYMBOLS[0][1]) for source, _ in SENTENCES], ["bpe", "symbol"]),
        ([(f"我喜欢中文{chr(0x4E00 + i)}", "x") for i in range(2000)], ["bpe", "char"]),
    ],
)
def test_the_tokenizer_that_is_proposed_suits_the_texts_and_has_room_for_all_of_them(pairs, kinds):
    statistics = statistics_of(pairs)
    proposed = tokenizer_options(statistics)
    assert [each.model_type for each in proposed] == kinds
    for each in proposed:
        if each.model_type != "bpe":
            texts = [
                text
                for pair in pairs
                for side, text in zip(("source", "target"), pair, strict=True)
                if side in each.sides
            ]
            tokenizer = train_tokenizer(texts, each.model_type, vocab_size=each.vocab_size)
            assert len(tokenizer) == len(train_tokenizer(texts, each.model_type, vocab_size=10**6))
            if len(kinds) == 1:
                assert len(tokenizer) == each.vocab_size
            for side in zip(*pairs, strict=True):  # the command trains the other side's too
                train_tokenizer(side, each.model_type, vocab_size=each.vocab_size)
            assert not any(tokenizer.unk_token_id in tokenizer(text)["input_ids"] for text in texts)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=50), st.sampled_from([50, 99.5, 100]))
def test_the_limits_cover_as_many_texts_as_was_asked_for(lengths, coverage):
    tokenizer = train_tokenizer(["a"], "char")
    statistics = statistics_of([("a" * length, "a") for length in lengths], tokenizer, tokenizer)
    limit = length_limits(statistics, coverage)["source"]
    assert limit % 8 == 0 and np.mean([length + 1 <= limit for length in lengths]) >= coverage / 100
    options = recipe_options(statistics, 0, coverage)
    assert value_of(options, "max_tokens") >= limit


@pytest.mark.parametrize(
    ("target", "tokenize"),
    [
        ("犬が好きです。", "ja-mecab"),
        ("東京都大学院工学研究科長の報告書", "ja-mecab"),  # one kana of sixteen
        ("나는 개를 좋아한다", "ko-mecab"),
        ("我喜欢狗。", "zh"),
        ("ฉันชอบสุนัข", "char"),
        ("ຂ້ອຍມັກໝາ", "char"),
        ("ខ្ញុំចូលចិត្តឆ្កែ", "char"),
        ("dogs, 犬", None),
        ("ich mag Hunde", None),
    ],
)
def test_data_and_evaluate_have_one_mind_of_a_script(target, tokenize):
    targets = [f"{target}{number}" if tokenize else f"{target} {number}" for number in range(MOST_WORDS + 1)]
    statistics = statistics_of([("I like dogs", text) for text in targets])
    options = recipe_options(statistics, 0, 99.5)
    assert value_of(options, "sacrebleu_tokenize") == tokenize and value_of(options, "metrics")[0] == "sacrebleu"
    assert tokenizer_for(targets) == (tokenize or "13a")
    assert tokenizer_options(statistics)[-1].model_type == "bpe"
    language = script_of(targets) if tokenize else None
    assert statistics.report()["target"]["script"] == (language and language.language)


def test_uneven_pairs_get_a_ratio_that_leaves_the_usual_ones():
    usual = [("a" * 30, "b" * 40)] * 999
    even = recipe_options(statistics_of(usual), 0, 99.5)
    assert value_of(even, "max_length_ratio") is None and value_of(even, "on_bad_row") is None
    uneven = recipe_options(statistics_of([*usual, ("a" * 300, "b")]), 2, 99.5)
    assert 4 / 3 < value_of(uneven, "max_length_ratio") < 30 and value_of(uneven, "on_bad_row") == "skip"
