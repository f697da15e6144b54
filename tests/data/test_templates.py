# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Templates of columns: rows of every format, tokens of languages, refusals."""

import json

import pytest
from transformers import AutoTokenizer

from hf_xformer.data.bad_rows import BadRows
from hf_xformer.data.reading import load_named_rows, load_rows, read_rows
from hf_xformer.data.templates import TEMPLATES, check_tokens, language_fields, remember, tags_of
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError, DataError


TAGGED = "<2{target_lang}> {text}"
ROWS = [
    {"text": "Haus", "target": "house", "target_lang": "en", "pair": {"both": "de-en"}},
    {"text": "{Haus}", "target": "maison", "target_lang": "fr", "pair": {"both": "de-fr"}},
]
SOURCES = ["<2en> Haus", "<2fr> {Haus}"]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "tsv", "csv", "dataset", "stream"])
def test_a_template_makes_one_text_of_several_columns(kind, table, tmp_path):
    if kind in ("tsv", "csv"):
        mark = {"tsv": "\t", "csv": ","}[kind]
        names = ("text", "target", "target_lang")
        lines = [mark.join(names), *(mark.join(row[name] for name in names) for row in ROWS)]
        (tmp_path / f"rows.{kind}").write_text("\n".join(lines))
    file = tmp_path / f"rows.{kind if kind in ('tsv', 'csv') else 'jsonl'}"
    if kind == "dataset":
        rows = load_named_rows(str(tmp_path), None, "train", TAGGED, "target")
    else:
        rows = load_rows([file], TAGGED, "target", streaming=kind == "stream")
    assert [row["source"] for row in rows] == SOURCES
    assert [row["target"] for row in rows] == [["house"], ["maison"]]


def test_alternatives_get_the_template_each_and_rows_a_group(table):
    table.write_text(json.dumps(ROWS[0] | {"target": ["house", "home"]}))
    (row,) = read_rows([table], TAGGED, "<2{target_lang}> {target}", group="{target_lang}/{pair.both}")
    assert row == {"source": SOURCES[0], "target": ["<2en> house", "<2en> home"], "group": "en/de-en"}


def test_lines_of_texts_have_templates_of_the_other_side_alone(tmp_path):
    for name, text in (("train.de", "Haus\n"), ("train.en", "house\n")):
        (tmp_path / name).write_text(text)
    files = [tmp_path / "train.de", tmp_path / "train.en"]
    assert list(read_rows(files, "<2en> {source}", "de")) == [{"source": "<2en> Haus", "target": ["house"]}]
    with pytest.raises(DataError, match="no field 'target_lang'"):
        list(read_rows(files, "<2{target_lang}> {source}"))


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"target_lang": ""}, "empty 'target_lang' of a template"),
        ({"text": " "}, "empty 'text' of a template"),
        ({"target_lang": 7}, "'target_lang' of a template is not a text"),
        ({"target_lang": ["en"], "text": ["a"]}, "two lists of texts"),
    ],
)
def test_rows_that_a_template_cannot_use_are_bad_rows_and_counted(record, said, table):
    table.write_text(json.dumps(ROWS[0] | record) + "\n" + json.dumps(ROWS[1]) + "\n")
    with pytest.raises(DataError, match=said):
        list(read_rows([table], TAGGED))
    bad_rows = BadRows("skip")
    assert [row["source"] for row in read_rows([table], TAGGED, bad_rows=bad_rows)] == SOURCES[1:]
    assert bad_rows.total == 1


def test_columns_that_are_missing_are_named(table, tmp_path):
    with pytest.raises(DataError, match="no field 'langue': there are 'text', 'target'"):
        list(read_rows([table], "<2{langue}> {text}"))
    (tmp_path / "rows.tsv").write_text("text\ttarget\nHaus\thouse\n")
    with pytest.raises(DataError, match="no column 'target_lang'.*--source_column with {target_lang}"):
        list(read_rows([tmp_path / "rows.tsv"], TAGGED))


@pytest.mark.parametrize("template", ["{text", "text}", "{} a", "{text!r}", "{text:>9}", "{{text}}"])
def test_what_is_no_template_is_refused(template, table):
    with pytest.raises(ArgumentError, match="template"):
        list(read_rows([table], template))


def test_tokens_of_languages_are_looked_for_and_the_template_is_kept_with_the_tokenizer(tmp_path):
    tokenizer = train_tokenizer(["Haus house"], "char", added_tokens=["<2en>", "<2fr>"])
    tags = tokenizer.convert_tokens_to_ids(["<2en>", "<2fr>"])
    for text, tag in zip(SOURCES, tags, strict=True):
        # The space behind it belongs to it.
        assert tokenizer(text)["input_ids"] == [tag, *tokenizer(text.partition(" ")[2])["input_ids"]]
    check_tokens(SOURCES, TAGGED, tokenizer, "train")
    with pytest.raises(
        DataError, match=r"train: texts begin with <2it>, <2es> \(row 3 is the first\).*-added.*'<2it>' '<2es>'"
    ):
        check_tokens([*SOURCES, "<2it> a", "<2es> b"], TAGGED, tokenizer, "train")
    check_tokens(["<2it> a"], "{text}", tokenizer, "train")  # which has no language
    with pytest.raises(DataError, match=r"begin with <bt>, and the tokenizer .*'<bt>' makes it one"):
        check_tokens((), "<bt> <2{target_lang}> {text}", tokenizer, "train")
    remember(["source", TAGGED], tokenizer)
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).init_kwargs[TEMPLATES["source"]] == TAGGED
    assert language_fields("<{a.source_lang}> <2{target_lang}> {text}") == {
        "src_lang": "a.source_lang",
        "tgt_lang": "target_lang",
    }


@pytest.mark.parametrize(
    ("template", "texts", "tags"),
    [
        ("{text}", ["<2de> a"], {}),
        ("<bt> {text}", ["<2de> a"], {"<bt>": 0}),
        ("[S2S]{text} <2de>", [], {"[S2S]": 0}),
        (">>{target_lang}<< {text}", [">>de<< a", ">>fr<< <x>", ">>de<< b"], {">>de<<": 1, ">>fr<<": 2}),
        (
            "<bt> <2{target_lang}> <of_{source_lang}> {text}",
            ["<bt> <2de> <of_en> a"],
            {"<bt>": 0, "<2de>": 1, "<of_en>": 1},
        ),
        ("<{a.tgt_lang}><{a.tgt_lang}>{text}", ["<de><de>a"], {"<de>": 1}),
        ("{target_lang}: {text}", ["de: a"], {"de:": 1}),
        ("translate to {target_lang}: {text}", ["translate to de: a"], {}),  # words
        ("{{x}} (2) {text}", ["{x} (2) a"], {}),
    ],
)
def test_what_is_to_be_a_token_before_texts(template, texts, tags):
    assert tags_of(template, texts) == tags
