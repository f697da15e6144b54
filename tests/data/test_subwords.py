# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Subword regularisation against `tokenizers` itself: the same without chance, the same distribution with it."""

import copy
import json
import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from small_tokenizers import letters, wordpiece
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from hf_xformer.data.subwords import BpeDropout, UnigramSampling
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError


TEXTS = [
    "The quick brown fox jumps over the lazy dog, the quickest of the foxes.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich!",
    " ".join(stem + ending for stem in ("jump", "box", "quick", "lazi") for ending in ("er", "ing", "est", "ed")),
]
PIECES = [*((each, -1.5) for each in "▁jumpingbox"), ("▁jump", -6.0), ("ing", -2.5), ("in", -3.5), ("ump", -4.5)]
PIECES += [("▁box", -5.0), ("bo", -5.0), ("ox", -4.0), ("ng", -3.2), ("▁j", -5.0), ("pin", -5.5)]
DRAWS = 20_000


@pytest.fixture(scope="module")
def bpe() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, "bpe", 330)


@pytest.fixture(scope="module")
def unigram() -> PreTrainedTokenizerFast:
    return unigram_of(PIECES)


def unigram_of(pieces: list[tuple[str, float]]) -> PreTrainedTokenizerFast:
    specials = ["<pad>", "</s>", "<s>", "<unk>"]
    backend = Tokenizer(models.Unigram([*((each, 0.0) for each in specials), *pieces], unk_id=3))
    backend.normalizer = normalizers.Sequence([])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def words(tokenizer: PreTrainedTokenizerFast, text: str) -> list[tuple[int, ...]]:
    """Returns the words of a text as the tokenizer splits them."""
    backend = tokenizer.backend_tokenizer
    text = backend.normalizer.normalize_str(text)
    parts = [part for part, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    return [tuple(token.id for token in backend.model.tokenize(part)) for part in parts]


def compare(ours: Counter, theirs: Counter) -> None:
    """Sees whether two samples of equal size come from one distribution: four standard deviations of a difference."""
    total = sum(ours.values())
    assert total == sum(theirs.values())
    for outcome in ours.keys() | theirs.keys():
        share = (ours[outcome] + theirs[outcome]) / (2 * total)
        assert abs(ours[outcome] - theirs[outcome]) < 4.5 * math.sqrt(2 * total * share * (1 - share)) + 5, outcome


def draw(regularisation, word: tuple[int, ...], count: int = DRAWS) -> Counter:
    split = regularisation.splitter(np.random.default_rng(0))
    return Counter(tuple(split(word)) for _ in range(count))


def test_merging_without_dropout_gives_the_words_of_the_tokenizer(bpe):
    dropout = BpeDropout(bpe, 0.1)
    for text in TEXTS:
        for word in words(bpe, text):
            symbols, _ = dropout.look_up(word)
            assert dropout.merge(symbols)[0] == list(word)
            assert "".join(bpe.convert_ids_to_tokens(symbols)) == "".join(bpe.convert_ids_to_tokens(list(word)))
            assert all(len(token) == 1 for token in bpe.convert_ids_to_tokens(symbols))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_has_the_distribution_of_the_tokenizers_own(bpe, rate):
    """The library draws from a copy, since a tokenizer with dropout would keep it when it is saved."""
    backend = copy.deepcopy(bpe.backend_tokenizer)
    backend.model.dropout = rate
    for text in (" jumping", " quickest"):
        (word,) = words(bpe, text)
        theirs = Counter(tuple(token.id for token in backend.model.tokenize("Ġ" + text.strip())) for _ in range(DRAWS))
        assert len(theirs) > 5
        compare(draw(BpeDropout(bpe, rate), word), theirs)


def test_all_merges_dropped_leave_characters_and_a_seed_repeats_what_it_drew(bpe):
    (word,) = words(bpe, " jumping")
    (symbols,) = draw(BpeDropout(bpe, 1.0), word, 10)
    assert bpe.convert_ids_to_tokens(list(symbols)) == list("Ġjumping")
    assert draw(BpeDropout(bpe, 0.3), word, 50) == draw(BpeDropout(bpe, 0.3), word, 50)


def test_words_that_are_met_first_or_again_are_drawn_alike(bpe):
    """What is remembered of words does not change what is drawn, as it would after a resumed run."""
    known, fresh = BpeDropout(bpe, 0.3), BpeDropout(bpe, 0.3)
    met = [word for text in TEXTS for word in words(bpe, text)]
    for word in met:
        known.look_up(word)
    splits = [each.splitter(np.random.default_rng(3)) for each in (known, fresh)]
    assert [list(splits[0](word)) for word in met] == [list(splits[1](word)) for word in met]


def test_whole_texts_that_are_not_split_into_words_are_not_remembered(unigram):
    """They would fill the memory of every worker."""
    sampling, (word,) = UnigramSampling(unigram, 0.2), words(unigram, "ngi" * 20)
    split = sampling.splitter(np.random.default_rng(0))
    texts = {"".join(unigram.convert_ids_to_tokens(list(split(word)))) for _ in range(50)}
    assert len(texts) == 1 and len(word) > 16 and not sampling.known


def test_prefixes_and_added_tokens_stay_what_they_are():
    """Merges of WordPiece's kind, and a token that was added and could be made by merges."""
    vocabulary = ["[UNK]", "a", "##b", "##c", "ab", "##bc", "abc", "c", "bc", "b"]
    model = models.BPE(
        {token: number for number, token in enumerate(vocabulary)},
        [("a", "##b"), ("##b", "##c"), ("ab", "##c")],
        continuing_subword_prefix="##",
        unk_token="[UNK]",
    )
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    assert {
        tuple(tokenizer.convert_ids_to_tokens(list(ids))) for ids in draw(BpeDropout(tokenizer, 0.5), (6,), 200)
    } == {("abc",), ("ab", "##c"), ("a", "##bc"), ("a", "##b", "##c")}
    tokenizer.add_tokens(["abc"])
    assert draw(BpeDropout(tokenizer, 0.5), (6,), 200) == {(6,): 200}


def ways(sampling: UnigramSampling, text: str) -> dict[tuple[int, ...], float]:
    """Returns every way to split a word and its probability, found by trying all places to cut."""
    found = {}
    for cuts in product([False, True], repeat=len(text) - 1):
        parts, start = [], 0
        for place, cut in enumerate([*cuts, True], start=1):
            if cut:
                parts.append(text[start:place])
                start = place
        if all(part in sampling.pieces for part in parts):
            ids = tuple(sampling.pieces[part][0] for part in parts)
            found[ids] = math.exp(sum(sampling.pieces[part][1] for part in parts))
    total = sum(found.values())
    return {ids: value / total for ids, value in found.items()}


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_unigram_sampling_draws_every_way_by_its_likelihood(unigram, alpha):
    sampling = UnigramSampling(unigram, alpha)
    for text in ("jumping", "box"):
        (word,) = words(unigram, text)
        counts, expected = draw(sampling, word), ways(sampling, f"▁{text}")
        assert counts.keys() <= expected.keys() and len(counts) > 3
        for ids, share in expected.items():
            assert abs(counts[ids] / DRAWS - share) < 4.5 * math.sqrt(share * (1 - share) / DRAWS) + 1e-4


def test_unigram_sampling_is_the_tokenizers_own_where_that_is_right(unigram):
    """At the likelihoods themselves; its other powers are powers of powers."""
    vocabulary = json.loads(unigram.backend_tokenizer.to_str())["model"]["vocab"]
    theirs = models.Unigram([tuple(each) for each in vocabulary[4:]] + [("<unk>", 0.0)], unk_id=len(PIECES), alpha=1.0)
    (word,) = words(unigram, "jumping")
    drawn = Counter(tuple(token.id + 4 for token in theirs.tokenize("▁jumping")) for _ in range(DRAWS))
    compare(draw(UnigramSampling(unigram, 1.0), word), drawn)


def test_a_word_with_an_unknown_character_stays_as_it_is(unigram):
    (word,) = words(unigram, "jump日ing")
    assert unigram.unk_token_id in word
    assert draw(UnigramSampling(unigram, 0.1), word, 50) == {word: 50}


UNFIT = {
    "dropout of pieces": (BpeDropout, lambda: unigram_of(PIECES), "--unigram_sampling is for its kind"),
    "sampling of merges": (
        UnigramSampling,
        lambda: train_tokenizer(TEXTS, "bpe", 300),
        "--bpe_dropout is for its kind",
    ),
    "no merges": (BpeDropout, letters, "has no merges that could be dropped"),
    "WordPiece": (BpeDropout, wordpiece, "has no merges that could be dropped"),
    "bytes": (UnigramSampling, ByT5Tokenizer, "has no likelihoods of pieces"),
}


@pytest.mark.parametrize(("kind", "make", "message"), UNFIT.values(), ids=UNFIT)
def test_a_tokenizer_of_another_kind_is_refused_by_name(kind, make, message):
    with pytest.raises(ArgumentError, match=message):
        kind(make(), 0.1)
