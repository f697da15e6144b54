# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Lines about pairs before a training: special tokens that they spell out, targets that do not come back."""

import numpy as np
import pytest
from datasets import Dataset
from small_tokenizers import SHAPES, letters

from hf_xformer.data.pairs import (
    STREAM_SAMPLE,
    PairEncoder,
    PairTokenizer,
    prepare_stream,
    prepare_training,
    say_split_tags,
)
from hf_xformer.data.tokenizers import train_tokenizer


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


@pytest.mark.parametrize("count", [2, STREAM_SAMPLE + 50])
@pytest.mark.parametrize("shape", ["plain", "T5"])
def test_a_stream_says_of_its_first_pairs_what_spells_out_special_tokens(shape, count):
    texts = ["ab", *["a </s> b"] * (count - 1)]
    rows = Dataset.from_dict({"source": texts, "target": [["ab"]] * count})
    said: dict[str, list[str]] = {"stream": [], "whole": []}
    tokenize = PairTokenizer(SHAPES[shape](), SHAPES[shape](), 20, 20)
    prepare_stream(rows.to_iterable_dataset(), tokenize, "truncate", said["stream"].append)
    prepare_training(rows, tokenize, "truncate", None, said["whole"].append)
    lines = {kind: [line for line in found if "spell out" in line] for kind, found in said.items()}
    first = min(count, STREAM_SAMPLE)
    (whole,) = lines["whole"]
    assert lines["stream"] == [whole.replace(f"{count - 1} training", f"{first - 1} of the first {first} training")]
    assert ("taken as text" in whole) == (shape == "plain") and "the first: 'a </s> b' and 'ab'" in whole
    said = {"stream": []}
    prepare_stream(rows.select([0]).to_iterable_dataset(), tokenize, "truncate", said["stream"].append)
    assert not any("spell out" in line for line in said["stream"])


@pytest.mark.parametrize("overlong", ["truncate", "drop"])
def test_a_stream_is_encoded_as_rows_in_memory(overlong):
    rows = Dataset.from_dict({"source": ["ab", "abcdefgh", "c"], "target": [["a", "b"], ["c"], ["abcdefgh"]]})
    tokenize = PairTokenizer(letters(), letters(), 5, 5)
    whole = prepare_training(rows, tokenize, overlong, None, lambda line: None)
    texts = prepare_stream(rows.to_iterable_dataset(), tokenize, overlong, lambda line: None)
    found = PairEncoder(tokenize, overlong)(next(iter(texts.iter(10))), np.random.default_rng())
    assert found == {side: whole[side][:] for side in ("input_ids", "labels")}


@pytest.mark.parametrize("is_stream", [False, True], ids=["in memory", "stream"])
def test_tags_that_a_tokenizer_takes_apart_are_said(is_stream):
    tokenizer = train_tokenizer(["a word"], "char", added_tokens=["<2de>"])
    texts = ["<2de> <bt> word", "<bt><noise> a", "</s> a", "a <word> [a]", "< word>"]
    rows = Dataset.from_dict({"source": texts})

    def said(prefix: str) -> list[str]:
        lines: list[str] = []
        tokenize = PairTokenizer(tokenizer, tokenizer, 9, 9).with_prefix(prefix)
        say_split_tags(rows.to_iterable_dataset() if is_stream else rows, tokenize, lines.append)
        return lines

    bt, noise = said("")
    assert bt.startswith("2 sources begin with <bt>, which the source tokenizer takes apart, <")
    assert bt.endswith("hf-xformer tokenizer --added_tokens '<bt>' makes it one token")
    assert noise.startswith("1 source begins with <noise>,")
    assert [line.split(",")[0] for line in said("[sum] ")][0] == "5 sources begin with [sum]"
    assert said("summarise: ") == []
