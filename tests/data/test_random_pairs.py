# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Token ids that are drawn anew whenever a row is read: texts come back whole, in other subwords."""

import numpy as np
import pytest
from small_tokenizers import SHAPES, letters
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_xformer.data.encoding import TextEncoder
from hf_xformer.data.noise import make_source_noise
from hf_xformer.data.objective_options import make_objective, read_objective
from hf_xformer.data.objectives import longest_text
from hf_xformer.data.pairs import PairEncoder, PairTokenizer
from hf_xformer.data.random_pairs import NoisyPairs, ObjectivePairs, RegularisedEncoder
from hf_xformer.data.subwords import BpeDropout, UnigramSampling
from hf_xformer.data.tokenizers import train_tokenizer


TEXTS = [
    "The quick brown fox jumps over the lazy dog, the quickest of the foxes.",
    "  Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich!",
    " ".join(stem + ending for stem in ("jump", "box", "quick", "lazi") for ending in ("er", "ing", "est", "ed")),
    "a </s> b <unk> c",
]
SPELT_OUT = ["a <extra_id_1> c", "<extra_id_0>", "a </s> <extra_id_2>"]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    options = {"sentinels": 20, "mask_token": True}
    return {
        "bpe": train_tokenizer(TEXTS, "bpe", 351, **options),
        "unigram": train_tokenizer(TEXTS, "unigram", 87, **options),
    }


KINDS = {"bpe": BpeDropout, "unigram": UnigramSampling}
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_texts_in_other_subwords_decode_to_themselves(tokenizers, kind):
    tokenizer = tokenizers[kind]
    encode = RegularisedEncoder(tokenizer, regularisation=KINDS[kind](tokenizer, 0.3))
    random, drawn = np.random.default_rng(0), set()
    plain = TextEncoder(tokenizer)(TEXTS)
    for _ in range(20):
        encoded = encode(TEXTS, random)
        for text, found, usual in zip(TEXTS, encoded, plain, strict=True):
            drawn.add((text, *found.ids))
            assert found.ids[-1] == tokenizer.eos_token_id and found.ids.count(tokenizer.eos_token_id) == 1
            assert tokenizer.decode(found.ids[:-1]) == tokenizer.decode(usual.ids[:-1])
            assert (found.spelt_out, found.overlong, found.length) == (usual.spelt_out, False, len(found.ids))
    assert len(drawn) > 40


@kinds
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_longer_text_is_cut_where_the_tokenizer_cuts_and_keeps_its_end(tokenizers, kind, side, monkeypatch):
    tokenizer = tokenizers[kind]
    regularisation = KINDS[kind](tokenizer, 0.3)
    whole = RegularisedEncoder(tokenizer, regularisation=regularisation)(TEXTS, np.random.default_rng(0))
    monkeypatch.setattr(tokenizer, "truncation_side", side)
    cut = RegularisedEncoder(tokenizer, 9, regularisation=regularisation)(TEXTS, np.random.default_rng(0))
    for long, short in zip(whole, cut, strict=True):
        inside = long.ids[:-1]
        expected = [*(inside[:8] if side == "right" else inside[-8:]), tokenizer.eos_token_id]
        assert short.ids == expected and short.overlong and short.length == len(long.ids)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_regularisation_texts_are_encoded_as_ever(shape):
    tokenizer, texts = SHAPES[shape](), ["a", "dog </s>", "a much longer text"]
    assert RegularisedEncoder(tokenizer, 12)(texts, np.random.default_rng(0)) == TextEncoder(tokenizer, 12)(texts)


def test_words_are_split_inside_of_a_frame_and_tags_stay_whole():
    tokenizer = train_tokenizer(TEXTS, "bpe", 330)
    tokenizer.add_tokens(["<2de>"])
    dropout = BpeDropout(tokenizer, 0.9)
    (found,) = RegularisedEncoder(tokenizer, regularisation=dropout)(["<2de> jumping"], np.random.default_rng(0))
    assert tokenizer.convert_ids_to_tokens(found.ids)[0] == "<2de>" and len(found.ids) > 6


def test_noisy_pairs_have_noise_in_the_source_alone_and_other_subwords_on_either_side(tokenizers):
    tokenizer = tokenizers["bpe"]
    tokenize = PairTokenizer(tokenizer, tokenizer, 400, 400)
    noise = make_source_noise(tokenizer, 0.5, 0.0)
    pairs = NoisyPairs(tokenize, "truncate", noise, BpeDropout(tokenizer, 0.3), BpeDropout(tokenizer, 0.3, "target"))
    rows = {"source": TEXTS[:3], "target": [[text] for text in TEXTS[:3]]}
    made = pairs(rows, np.random.default_rng(0))
    plain = tokenize(rows)
    assert made.keys() == {"input_ids", "labels"}
    decode = tokenizer.batch_decode
    assert decode(made["labels"]) == decode(plain["labels"]) and made["labels"] != plain["labels"]
    for spoilt, whole in zip(decode(made["input_ids"]), TEXTS, strict=False):
        assert set(spoilt.removesuffix("</s>").split()) < set(whole.split())
    assert made == pairs(rows, np.random.default_rng(0)) != pairs(rows, np.random.default_rng(1))


def test_pairs_without_any_noise_are_those_of_the_tokenizer(tokenizers):
    tokenize = PairTokenizer(tokenizers["bpe"], tokenizers["unigram"], 12, 16)
    rows = {"source": TEXTS, "target": TEXTS[::-1]}
    for overlong in ("truncate", "drop"):
        plain = PairEncoder(tokenize, overlong)
        made = NoisyPairs(tokenize, overlong)(rows, np.random.default_rng(0))
        assert made == plain(rows, np.random.default_rng(0))


def filled_in(source: list[int], target: list[int], sentinels: set[int]) -> list[int]:
    """Returns the text whose gaps, marked by sentinels, are filled with the spans of a target."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in sentinels:
            spans[last := token] = []
        else:
            spans[last].append(token)
    return [token for each in source for token in spans.get(each, [each])]


@kinds
@pytest.mark.parametrize("regularised", [False, True])
def test_spans_of_texts_put_together_are_the_texts(tokenizers, kind, regularised):
    """A sentinel that a text spells out is a text, and never taken for one of the objective's."""
    tokenizer = tokenizers[kind]
    objective, own = make_objective(read_objective("span_corruption"), tokenizer)
    longest = longest_text(objective, 23, 23)
    regularisation = KINDS[kind](tokenizer, 0.3) if regularised else None
    made = ObjectivePairs(tokenizer, objective, longest, own, regularisation)(
        {"source": TEXTS + SPELT_OUT}, np.random.default_rng(0)
    )
    assert len(made["input_ids"]) > len(TEXTS + SPELT_OUT)
    ids = []
    for source, target in zip(made["input_ids"], made["labels"], strict=True):
        assert source.pop() == target.pop() == tokenizer.eos_token_id
        assert len(source) <= 23 and len(target) <= 23
        ids += filled_in(source, target, own)
    usual = [token for each in TextEncoder(tokenizer, marks=own)(TEXTS + SPELT_OUT) for token in each.ids[:-1]]
    assert tokenizer.decode(ids) == tokenizer.decode(usual)
    assert regularised or ids == usual


def test_a_denoised_text_has_its_frame_on_either_side():
    tokenizer = letters("<s> $A </s>", mask_token="[M]")
    objective, own = make_objective(read_objective("denoising"), tokenizer)
    made = ObjectivePairs(tokenizer, objective, 30, own)({"source": ["one. two. three"]}, np.random.default_rng(0))
    ((source,), (target,)) = made.values()
    assert tokenizer.decode(target) == "<s>one. two. three</s>"
    assert source[0] == target[0] and source[-1] == target[-1] and tokenizer.mask_token_id in source


def test_nothing_of_it_is_saved_with_a_tokenizer(tokenizers, tmp_path):
    """It was, once: a checkpoint's tokenizer then split texts at random while it decoded."""
    for kind, tokenizer in tokenizers.items():
        before = tokenizer.backend_tokenizer.to_str()
        RegularisedEncoder(tokenizer, 9, regularisation=KINDS[kind](tokenizer, 0.5))(TEXTS, np.random.default_rng(0))
        tokenizer.save_pretrained(tmp_path / kind)
        loaded = AutoTokenizer.from_pretrained(tmp_path / kind)
        assert loaded.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str() == before
