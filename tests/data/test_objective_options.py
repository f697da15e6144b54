# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Objectives by their names: their options are those of the classes, and what they cannot be is refused."""

import math

import pytest
from small_tokenizers import letters

from hf_xformer.data.objective_options import RANGES, make_objective, options_of, read_objective, sentence_ends
from hf_xformer.data.objectives import Copy, Denoising, Mixture, PrefixLM, SpanCorruption
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError


TEXTS = ["One. Two! Three? 「四。」 five"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, "bpe", 300, sentinels=5, mask_token=True)


def test_a_name_stands_for_the_objective_of_its_paper(tokenizer):
    sentinels = tuple(tokenizer.convert_tokens_to_ids(f"<extra_id_{number}>") for number in range(5))
    corrupt, own = make_objective(read_objective("span_corruption"), tokenizer)
    assert corrupt == SpanCorruption(sentinels, 0.15, 3.0) and own == {*sentinels}
    denoise, own = make_objective(read_objective("denoising"), tokenizer)
    assert denoise == Denoising(tokenizer.mask_token_id, sentence_ends(tokenizer), 0.3, 3.0, 0.0, True) and not own
    assert make_objective(read_objective("prefix_lm"), letters()) == (PrefixLM(), set())
    assert make_objective(read_objective({"name": "copy"}), letters()) == (Copy(), set())


def test_options_are_given_beside_the_name(tokenizer):
    given = {"name": "span_corruption", "noise_density": 0.5, "mean_span": 8}
    assert make_objective(read_objective(given), tokenizer)[0].most(8) == (5, 5)
    given = {"name": "denoising", "deletion": 0.1, "permute_sentences": False, "mask_ratio": 0.2}
    denoise, _ = make_objective(read_objective(given), tokenizer)
    assert (denoise.deletion, denoise.permute_sentences, denoise.mask_ratio) == (0.1, False, 0.2)


SAME = (
    (
        "span_corruption",
        {"name": "span_corruption", "mean_span": 3},
        {"name": "span_corruption", "noise_density": 0.15},
    ),
    ("ul2", {"name": "ul2"}),
    ("copy", {"name": "copy"}),
    (
        {"name": "mixture", "denoisers": ["prefix_lm", {"name": "denoising", "mask_ratio": 0.3, "weight": 2}]},
        {"name": "mixture", "denoisers": [{"name": "prefix_lm", "weight": 1.0}, {"weight": 2.0, "name": "denoising"}]},
    ),
)


def test_one_objective_has_the_same_words_however_it_is_written():
    """By them a run that goes on is compared with its checkpoint, and the card says it."""
    words = [{read_objective(given).words for given in written} for written in SAME]
    assert [len(each) for each in words] == [1] * len(SAME) and len(set.union(*words)) == len(SAME)
    assert words[0] == {"span_corruption (noise_density 0.15, mean_span 3)"}
    others = [{"name": "span_corruption", "mean_span": 4}, {"name": "ul2", "sentinels": "<unused{}>"}]
    assert not {read_objective(given).words for given in others} & set.union(*words)


def test_every_option_of_every_objective_has_a_range():
    names = {option for name in ("span_corruption", "denoising", "prefix_lm", "copy") for option in options_of(name)}
    assert names | {"weight", "tag", "sentinels"} == RANGES.keys()


def test_other_names_of_sentinels_are_found_in_order():
    tokenizer = letters(tags=("<unused1>", "<unused0>", "<unused3>"))
    objective, _ = make_objective(read_objective({"name": "span_corruption", "sentinels": "<unused{}>"}), tokenizer)
    assert tokenizer.convert_ids_to_tokens(list(objective.sentinels)) == ["<unused0>", "<unused1>"]


def test_a_mixture_has_weights_and_tags():
    tokenizer = letters(tags=("<extra_id_0>", "<copy>"))
    given = {
        "name": "mixture",
        "denoisers": [{"name": "span_corruption", "weight": 3}, "prefix_lm", {"name": "copy", "tag": "<copy>"}],
    }
    mixture, own = make_objective(read_objective(given), tokenizer)
    sentinel, tag = tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<copy>"])
    assert mixture == Mixture((SpanCorruption((sentinel,)), PrefixLM(), Copy()), (3, 1.0, 1.0), ((), (), (tag,)))
    assert own == {sentinel, tag}


def test_ul2_has_seven_denoisers_with_mode_tags_where_the_tokenizer_has_them(tokenizer):
    said: list[str] = []
    mixture, _ = make_objective(read_objective("ul2"), tokenizer, said.append)
    numbers = [(each.noise_density, each.mean_span) for each in mixture.objectives]
    assert numbers == [(0.15, 3), (0.15, 8), (0.25, math.inf), (0.5, 3), (0.5, 8), (0.15, 64), (0.5, 64)]
    assert mixture.weights == (1.0,) * 7 and mixture.tags == ((),) * 7
    assert len(said) == 1 and "no token '[NLU]', '[S2S]', '[NLG]'" in said[0]
    tagged = letters(tags=("<extra_id_0>", "[NLU]", "[S2S]", "[NLG]"))
    mixture, _ = make_objective(read_objective("ul2"), tagged, said.append)
    tags = [tagged.convert_ids_to_tokens(list(tag)) for tag in mixture.tags]
    assert tags == [["[NLU]"]] * 2 + [["[S2S]"]] + [["[NLG]"]] * 4 and len(said) == 1


def test_sentences_end_with_their_stops(tokenizer):
    ends = tokenizer.batch_decode([[each] for each in sentence_ends(tokenizer)])
    assert {".", "!", "?"} <= set(ends) and not {"a", ",", "-"} & set(ends)


def test_a_sentence_may_end_within_a_token_and_a_tokenizer_without_ends_is_said():
    texts = ["He ran away. Did she, e-mail? Yes!"]
    words = train_tokenizer(texts, "symbol", mask_token=True)
    ends = words.convert_ids_to_tokens(sorted(sentence_ends(words)))
    assert sorted(ends) == ["!", ".", "?", "Yes!", "away.", "e-mail?"]
    said: list[str] = []
    make_objective(read_objective("denoising"), train_tokenizer(["a b"], "symbol", mask_token=True), said.append)
    assert len(said) == 1 and "no token of the source tokenizer" in said[0] and "ends a sentence" in said[0]


WRONG = {
    "no such objective": ("span_coruption", "did you mean span_corruption?"),
    "no name": ({"noise_density": 0.1}, "--objective: name None is none of its choices"),
    "no such option": (
        {"name": "denoising", "mask_ration": 0.1},
        "mask_ration: no such option; did you mean mask_ratio?",
    ),
    "an option of another": ({"name": "copy", "mean_span": 3}, "--objective copy: mean_span: no such option"),
    "a share": (
        {"name": "span_corruption", "noise_density": 15},
        "noise_density must be a number between 0 and 1, got 15",
    ),
    "a text": ({"name": "span_corruption", "mean_span": "3"}, "mean_span must be a number of 1 or more, got '3'"),
    "no tokens lost": ({"name": "denoising", "deletion": 1}, "deletion must be a number in"),
    "no denoisers": ({"name": "mixture"}, "denoisers: expected a list"),
    "a mixture in a mixture": ({"name": "mixture", "denoisers": ["ul2"]}, "name 'ul2' is none of its choices"),
    "no weight": (
        {"name": "mixture", "denoisers": [{"name": "copy", "weight": 0}]},
        "weight must be a number above 0",
    ),
    "names without a number": ({"name": "ul2", "sentinels": "<X>"}, "sentinels must be a name with {}"),
    "a name of a list": ({"name": ["copy"]}, "name ['copy'] is none of its choices"),
    "a denoiser's name of a list": ({"name": "mixture", "denoisers": [{"name": ["copy"]}]}, "is none of its choices"),
    "names for nothing": ({"name": "copy", "sentinels": "<x_{}>"}, "sentinels are of span_corruption alone"),
    "options of ul2": ({"name": "ul2", "mean_span": 3}, "--objective ul2: mean_span: no such option"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_what_an_objective_cannot_be_is_refused_by_name(given, message):
    with pytest.raises(ArgumentError) as refusal:
        read_objective(given)
    assert message in str(refusal.value) and str(refusal.value).startswith("--objective")


LACKING = {
    "sentinels": ("span_corruption", "no sentinel '<extra_id_0>': hf-xformer tokenizer --sentinels 100 makes one"),
    "sentinels of ul2": ("ul2", "--objective ul2: the source tokenizer"),
    "mask": ("denoising", "no `mask_token`: hf-xformer tokenizer --mask_token makes"),
    "tag": ({"name": "mixture", "denoisers": [{"name": "copy", "tag": "[C]"}]}, "has no token '[C]'"),
}


@pytest.mark.parametrize(("given", "message"), LACKING.values(), ids=LACKING)
def test_a_tokenizer_that_lacks_tokens_is_refused_with_what_to_type(given, message):
    with pytest.raises(ArgumentError) as refusal:
        make_objective(read_objective(given), letters())
    assert message in str(refusal.value)
