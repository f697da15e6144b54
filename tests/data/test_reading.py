# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Reading pairs of texts: every format gives the same rows; what is wrong is said in one line with its place."""

import gzip
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from hf_xformer.data.reading import load_named_rows, load_rows, read_rows
from hf_xformer.errors import DataError


ROWS = [
    {"source": "Guten Tag", "target": ["good day"]},
    {"source": 'sag "ja", bitte', "target": ['say "yes", please']},
    {"source": " zwei  Räume\u2028für uns", "target": ["two rooms"]},
]

pytestmark = pytest.mark.usefixtures("cache_of_its_own")


def as_jsonl(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_csv() -> str:
    return (
        "source,id,target\r\nGuten Tag,1,good day\r\n"
        '"sag ""ja"", bitte",2,"say ""yes"", please"\r\n zwei  Räume\u2028für uns,3,two rooms\r\n'
    )


def as_tsv() -> str:
    return "id\ttarget\tsource\n" + "".join(f"{i}\t{r['target'][0]}\t{r['source']}\n" for i, r in enumerate(ROWS))


def as_text(side: str) -> str:
    return "\n".join(row[side][0] if side == "target" else row[side] for row in ROWS)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    "contents",
    [
        {"a.jsonl": as_jsonl(ROWS)},
        {"a.json": as_jsonl([{**row, "target": row["target"][0], "id": 7} for row in ROWS]) + "\n\n"},
        {"a.csv": as_csv()},
        {"a.csv": "\ufeff" + as_csv()},
        {"a.TSV": as_tsv()},
        {"a.de": as_text("source"), "a.en": as_text("target") + "\n"},
        {"a.txt": as_text("source").replace("\n", "\r\n"), "b.txt": as_text("target")},
    ],
    ids=["jsonl", "json of strings", "csv", "csv with byte order mark", "tsv", "text", "text from Windows"],
)
def test_every_format_gives_the_same_rows(write, contents, suffix):
    assert list(read_rows([write(name + suffix, text) for name, text in contents.items()])) == ROWS


def test_parquet_gives_the_same_rows_with_strings_and_with_lists(tmp_path):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert list(read_rows([path])) == ROWS
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**r, "target": r["target"][0]} for r in ROWS]), path)
    assert list(read_rows([path])) == ROWS


def test_columns_may_have_other_names_and_lie_inside_objects(write):
    flat = write("flat.jsonl", '{"de": "ja", "en": ["yes", "yea"]}')
    nested = write("nested.jsonl", '{"translation": {"de": "ja", "en": ["yes", "yea"]}}')
    expected = [{"source": "ja", "target": ["yes", "yea"]}]

    assert list(read_rows([flat], "de", "en")) == expected
    assert list(read_rows([nested], "translation.de", "translation.en")) == expected


def test_without_a_target_column_sources_are_enough(write):
    expected = [{"source": "ja"}, {"source": "nein"}]
    assert list(read_rows([write("a.jsonl", '{"de": "ja"}\n{"de": "nein", "en": 3}')], "de", None)) == expected
    assert list(read_rows([write("a.txt", "ja\nnein\n")], "de", None)) == expected
    assert load_rows([write("a.txt", "ja\nnein\n")], target_column=None).to_list() == expected


BAD_FILES = {
    "no row": ({"a.csv": "source,target\n"}, "a.csv: there are no rows"),
    "nothing": ({"a.jsonl": ""}, "a.jsonl: the file is empty"),
    "nothing packed": ({"a.jsonl.gz": ""}, "a.jsonl.gz: the file is empty"),
    "broken JSON": ({"a.jsonl": as_jsonl(ROWS) + '{"source": "a",'}, "a.jsonl:4: invalid JSON: Expecting property"),
    "half a character": ({"a.jsonl": '{"source": "\\ud83d", "target": "b"}'}, "a.jsonl:1: invalid JSON: half"),
    "not an object": (
        {"a.jsonl": as_jsonl(ROWS) + '["a", "b"]'},
        'a.jsonl:4: not a JSON object: ["a", "b"]; --on_bad_row skip',
    ),
    "no field": ({"a.jsonl": '{"source": "a", "en": "b"}'}, "a.jsonl:1: no field 'target': there are 'source', 'en'"),
    "no column": ({"a.csv": "source,en\na,b\n"}, "a.csv:1: no column 'target': the first row names"),
    "a number too long": (
        {"a.jsonl": '{"source": ' + "9" * 5000 + "}\n"},
        "a.jsonl:1: invalid JSON: Exceeds the limit",
    ),
    "brackets without end": (
        {"a.jsonl": as_jsonl(ROWS) + "[" * 100_000},
        "a.jsonl:4: invalid JSON: maximum recursion depth",
    ),
    "a column twice": ({"a.csv": "source,target,target\na,b,c\n"}, "a.csv:1: a column name occurs twice"),
    "number": ({"a.jsonl": '{"source": 5, "target": "b"}'}, "a.jsonl:1: source is not a text: 5"),
    "null": (
        {"a.jsonl": '{"source": "a", "target": null}'},
        "a.jsonl:1: target is not a text or a list of texts: null",
    ),
    "no references": (
        {"a.jsonl": '{"source": "a", "target": []}'},
        "a.jsonl:1: target is not a text or a list of texts: []",
    ),
    "mixed references": ({"a.jsonl": '{"source": "a", "target": ["b", 1]}'}, 'of texts: ["b", 1]'),
    "empty source": ({"a.tsv": "source\ttarget\na\tb\n \tb\n"}, "a.tsv:3: empty source"),
    "too many cells": (
        {"a.csv": "source,target\na,b\na,b,c\n"},
        "a.csv:3: wrong number of cells: 3 cells under 2 column names",
    ),
    "too few cells": ({"a.tsv": "source\ttarget\na\n"}, "a.tsv:2: wrong number of cells: 1 cell under 2 column names"),
    "open quote": ({"a.csv": 'source,target\n"a,b\n'}, "a.csv:2: a quote opens in this row and is never closed"),
    "unequal counts": ({"a.de": "a\nb\nc\n", "a.en": "a\nb\n"}, "a.de has 3 lines but"),
    "empty line": (
        {"a.de": "a\n\nc\n", "a.en": "a\nb\nc\n"},
        "a.de:2: empty source; --on_bad_row skip leaves such a row out",
    ),
    "not UTF-8": ({"a.csv": "source,target\na,b\nä,b\n".encode("latin-1")}, "a.csv:3: not UTF-8 (byte 0xe4)"),
    "not Parquet": ({"a.parquet": "PAR?"}, "a.parquet: "),
    "unknown kind": ({"a.xlsx": "PK"}, "unknown extension '.xlsx'; a single file must be .jsonl, .json, .csv, .tsv"),
    "a table and a text": ({"a.csv": "source\na", "b.en": "target\nb"}, "tables and plain text do not go together"),
    "three files": ({"a.de": "a", "a.en": "b", "a.fr": "c"}, "3 files where tables or two plain-text files should be"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_in_one_line_that_names_the_place(write, case):
    contents, message = BAD_FILES[case]
    files = [write(name, content) for name, content in contents.items()]
    with pytest.raises(DataError) as read_error:
        list(read_rows(files))
    assert message in str(read_error.value)
    assert "\n" not in str(read_error.value)
    assert files[0] in str(read_error.value)

    with pytest.raises(DataError) as load_error:
        load_rows(files)
    assert str(load_error.value) == str(read_error.value)


def test_a_file_that_is_missing_or_cut_short_is_refused(write, tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: No such file"):
        list(read_rows([tmp_path / "none.csv"]))
    with pytest.raises(DataError, match="a folder without a file of .jsonl"):
        list(read_rows([tmp_path], target_column=None))
    path = write("a.jsonl.gz", "")
    with open(path, "wb") as file:
        file.write(gzip.compress(as_jsonl(ROWS).encode())[:-12])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: Compressed file ended"):
        list(read_rows([path]))


@pytest.mark.parametrize("streaming", [False, True], ids=["stored", "streaming"])
def test_a_dataset_holds_the_rows_of_the_file(write, streaming):
    dataset = load_rows([write("a.jsonl", as_jsonl(ROWS))], streaming=streaming)
    assert isinstance(dataset, datasets.IterableDataset if streaming else datasets.Dataset)
    assert list(dataset) == ROWS
    assert list(dataset) == ROWS


def test_streaming_does_not_deal_parallel_files_out_to_workers(write):
    files = [write("a.de", as_text("source")), write("a.en", as_text("target"))]
    assert load_rows(files, streaming=True).num_shards == 1


def test_streaming_finds_unequal_line_counts_before_the_first_row(write):
    with pytest.raises(DataError, match="3 lines"):
        load_rows([write("a.de", as_text("source")), write("a.en", "one\ntwo")], streaming=True)


def test_streaming_raises_the_data_error_when_it_reaches_the_row(write):
    dataset = load_rows([write("a.jsonl", as_jsonl(ROWS) + "{}\n")], streaming=True)
    with pytest.raises(DataError, match=r"a\.jsonl:4: no field 'source': there are none"):
        list(dataset)


@pytest.fixture
def folder(tmp_path):
    """A folder that `datasets.load_dataset` understands, with the nested columns that translation sets have."""
    path = tmp_path / "folder"
    path.mkdir()
    records = [{"id": i, "translation": {"de": r["source"], "en": r["target"][0]}} for i, r in enumerate(ROWS)]
    (path / "train.jsonl").write_text(as_jsonl(records))
    (path / "test.jsonl").write_text(as_jsonl([*records, {"id": 3, "translation": {"de": "", "en": "x"}}]))
    return str(path)


@pytest.mark.parametrize("streaming", [False, True], ids=["stored", "streaming"])
def test_a_named_dataset_is_brought_to_the_same_columns(folder, streaming):
    columns = {"source_column": "translation.de", "target_column": "translation.en"}
    dataset = load_named_rows(folder, streaming=streaming, **columns)
    assert list(dataset) == ROWS
    with pytest.raises(DataError, match=r"test\.jsonl:4: empty source: in 'translation.de'"):
        list(load_named_rows(folder, split="test", streaming=streaming, **columns))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "dev"}, "dev"),
        ({"target_column": "translation.fr"}, "train.jsonl:1: no field 'fr': in 'translation' there are 'de', 'en'"),
        ({"source_column": "text"}, "train.jsonl:1: no field 'text': there are 'id', 'translation'"),
        ({"config_name": "tiny"}, "tiny"),
        ({"name": "no/such/folder"}, "no/such/folder"),
    ],
    ids=["split", "inner column", "column", "config", "name"],
)
@pytest.mark.parametrize("streaming", [False, True], ids=["stored", "streaming"])
def test_what_a_named_dataset_lacks_is_said_in_one_line(folder, streaming, changes, message):
    arguments = {"name": folder, "source_column": "translation.de", "target_column": "translation.en"} | changes
    with pytest.raises(DataError) as error:
        load_named_rows(streaming=streaming, **arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
