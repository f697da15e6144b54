# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""YAML is read as its version 1.2 says, whatever it holds."""

import io
import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hf_xformer.errors import ArgumentError
from hf_xformer.yaml_files import read_yaml, read_yaml_file


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
# Words that some YAML or other takes for something else than text.
RIDDLES = ["no", "yes", "on", "off", "12:30", "1:1", "010", "0o7", "1_000", "1e-4", ".5", "~", "null", "=", "<<", "*a"]
DOCUMENTS = st.recursive(
    SCALARS | st.sampled_from(RIDDLES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(DOCUMENTS)
def test_what_a_yaml_1_2_writer_writes_is_read_back(content):
    writer, stream = YAML(typ="safe", pure=True), io.StringIO()
    writer.version, writer.default_flow_style = (1, 2), False  # in braces it writes `{:0: null}`, which it cannot read
    writer.dump(content, stream)
    assert read_yaml(stream.getvalue()) == content


@given(DOCUMENTS)
def test_json_is_yaml(content):
    assert read_yaml(json.dumps(content, ensure_ascii=False)) == read_yaml(json.dumps(content)) == content


@pytest.mark.parametrize("text", [r'{"x": "\ud83d\ude00"}', r'"\ud83d\ude00": x', r"""{x: '\ud83d\ude00'}"""])
def test_a_character_that_json_escapes_in_two_halves_is_one(text):
    assert read_yaml(text) in ({"x": "\U0001f600"}, {"\U0001f600": "x"}, {"x": r"\ud83d\ude00"})


@pytest.mark.parametrize("text", ['{"a:1": }', "{a:1: null}", "a:1:", "{x: a:1}", "[a:1]", "{'a:1'}"])
def test_a_colon_may_be_in_a_name_or_text_that_is_meant(text):
    assert read_yaml(text) in ({"a:1": None}, {"x": "a:1"}, ["a:1"])


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("12:30", "12:30"),
        ("010", 10),
        ("0o10", 8),
        ("no", "no"),
        ("yes", "yes"),
        ("true", True),
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        (".inf", math.inf),
        ("2026-11-26", "2026-11-26"),
        ("~", None),
        ("", None),
    ],
)
def test_plain_words_mean_what_yaml_1_2_says(word, value):
    assert read_yaml(f"key: {word}") == {"key": value}


@given(st.text())
def test_any_text_is_read_or_refused_on_one_line(text):
    try:
        read_yaml(text)
    except ArgumentError as error:
        assert str(error) and len(str(error).splitlines()) == 1


BOMB = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]\n" for last, name in zip("abcdefghij", "bcdefghijk", strict=True)
)
REFUSED = {
    "aliases": (BOMB, "line 2, column 8: alias *a: write the value out"),
    "lists in lists": ("[" * 60_000, "line 1, column 31: nested more than 30 deep"),
    "mappings in mappings": ("{a: " * 15_000, "nested more than 30 deep"),
    "lists of lines": ("- " * 30_000, "nested more than 30 deep"),
    "a long text": ("a" * 100_000, "100,000 characters; 65,536 are read at most"),
    "a key twice": ("a: 1\nb: {c: 1, c: 2}", "line 2, column 11: 'c' stands there twice"),
    "a key twice, once escaped": ('{"\U0001f600": 1, "\\ud83d\\ude00": 2}', "stands there twice"),
    "no space behind a colon": ("a:\n- {b: 1, c:1}", "line 2, column 10: 'c:1': YAML wants a space behind the colon"),
    "a list that does not end": ("a: [", "line 1, column 5: "),
    "two documents": ("a: 1\n---\nb: 2", "line 2, column 1: "),
    "an older YAML": ("%YAML 1.1\n---\na: no", "only YAML 1.2 is read"),
    "a tag": ("a: !!python/name:os.system x", "python/name:os.system: write the value without one"),
    "a tab": ("a:\n\tb: 1", "line 2, column 1: "),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_yaml_that_nobody_needs_is_refused_at_once_with_its_place(text, said, tmp_path):
    path, start = tmp_path / "recipe.yaml", time.monotonic()
    path.write_text(text)
    with pytest.raises(ArgumentError) as refusal:
        read_yaml_file(path)
    assert time.monotonic() - start < 10  # without the checks it would be hours
    assert said in str(refusal.value) and str(refusal.value).startswith(f"{path}: ") and "\n" not in str(refusal.value)
