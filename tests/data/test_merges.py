# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of merges that are there cut words as the algorithm of the paper does, and give them back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_xformer.commands.tokenizer import main
from hf_xformer.data.merges import read_merges, tokenizer_of_merges
from hf_xformer.errors import ArgumentError


MERGES = [("e", "r</w>"), ("l", "o"), ("lo", "w"), ("w", "e"), ("n", "e"), ("ne", "w"), ("low", "er</w>"), ("a", "a")]
TEXTS = ["lower newer low lowest wide", "naan"]


def cut(word: str) -> list[str]:
    """Pieces by Sennrich et al. (2016): the pair of neighbours that was merged first is joined, over and over."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while pairs := [pair for pair in zip(pieces, pieces[1:], strict=False) if pair in MERGES]:
        best = min(pairs, key=MERGES.index)
        joined, i = [], 0
        while i < len(pieces):
            both = tuple(pieces[i : i + 2]) == best
            joined.append("".join(best) if both else pieces[i])
            i += 1 + both
        pieces = joined
    return pieces


@given(st.lists(st.text("loweraniwdst", min_size=1, max_size=12), min_size=1, max_size=6))
def test_words_are_cut_and_joined_as_the_paper_says(words):
    tokenizer = tokenizer_of_merges(TEXTS, MERGES)
    text = " ".join(words)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [piece for word in words for piece in cut(word)] + ["</s>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("merges", "text", "cuts"),
    [
        ([("a", "b"), ("b", "c</w>"), ("a", "b")], "abc", ["ab", "c</w>"]),  # the first of equal merges
        ([("0", "0</w>"), ("0", "\u00a0")], "10\u00a0000 x\u3000y", None),
        ([("a", "\u2028</w>")], "a\u2028 \ta", ["a\u2028</w>", "\t", "a</w>"]),
        ([("u", "n"), ("un", "k"), ("<", "unk"), ("<unk", ">"), ("<unk>", "x</w>")], "a <unk> <unk>x </s>", None),
    ],
    ids=["twice", "no-break space", "separators", "special tokens"],
)
def test_words_end_at_spaces_alone_and_merges_count_once(merges, text, cuts):
    tokenizer = tokenizer_of_merges([text], [*merges, ("z", "z</w>")])
    ids = tokenizer(text, split_special_tokens=True)["input_ids"][:-1]
    assert cuts is None or tokenizer.convert_ids_to_tokens(ids) == cuts
    assert tokenizer.decode(ids, skip_special_tokens=True) == text and set(ids).isdisjoint(range(4))
    # Beside a character that it does not know there is no merge either.
    assert "x" not in text or tokenizer.tokenize("Hx") == ["<unk>", "x</w>"]


def test_the_special_tokens_come_first_and_ids_have_no_gap():
    tokenizer = tokenizer_of_merges(TEXTS, MERGES)
    assert tokenizer.convert_tokens_to_ids(["<pad>", "</s>", "<s>", "<unk>"]) == [0, 1, 2, 3]
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "begins with ''"),
        ("e r</w>\n", "begins with 'e r</w>'"),
        ("#version: 0.1\ne r\n", "begins with '#version: 0.1'"),
        ("#version: 0.2\ne r</w>\nlo\n", r":3: no two symbols with a space between: 'lo'"),
        ("#version: 0.2\n\na b\nabc\n", r":4: no two symbols with a space between: 'abc'"),
        ("#version: 0.2\ne r s\n", r":2: no two symbols with a space between: 'e r s'"),
        ("#version: 0.2\nĠ t\nh e\nĠt he\n", "no merge ends a word by </w>"),
    ],
)
def test_other_files_are_refused(content, said, tmp_path):
    (tmp_path / "code").write_text(content)
    with pytest.raises(ArgumentError, match=said):
        read_merges(tmp_path / "code")


def test_the_command_takes_merges_and_refuses_options_of_training(tmp_path, capsys):
    code, texts, folder = tmp_path / "code", tmp_path / "train.jsonl", tmp_path / "tokenizer"
    code.write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in MERGES))
    texts.write_text('{"source": "lower newer", "target": "low"}\n')
    words = ["--train_file", str(texts), "--merges", str(code), "--output_dir", str(folder)]
    main(words)
    assert "lower|n|e|w" not in capsys.readouterr().out and (folder / "tokenizer.json").is_file()
    with pytest.raises(SystemExit):
        main([*words, "--overwrite", "--vocab_size", "50", "--lowercase"])
    assert "--vocab_size and --lowercase would do nothing" in capsys.readouterr().err
