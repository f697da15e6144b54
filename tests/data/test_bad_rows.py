# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Bad rows: all are counted, the first named; nothing is left out without a number."""

import json
import os
from unittest.mock import patch

import pytest

from hf_xformer.data.bad_rows import BadRows, Fault
from hf_xformer.data.reading import load_rows, read_rows
from hf_xformer.data.rows import Columns, to_row
from hf_xformer.errors import DataError


GOOD = '{"source": "a", "target": "b"}\n'
EMPTY = '{"source": " ", "target": "b"}\n'

pytestmark = pytest.mark.usefixtures("cache_of_its_own")


# Of each kind of file: its content, how many rows are good, and the reasons with their numbers.
MIXED = {
    "a.jsonl": (
        GOOD
        + EMPTY
        + '{"source": 1, "target": "b"}\n{"target": "b"}\n{"source": "a", "target": ["b", ""]}\n[1]\n{"a\n',
        1,
        {
            **{"empty source": 1, "source is not a text": 1, "no field 'source'": 1, "empty target": 1},
            **{"not a JSON object": 1, "invalid JSON": 1},
        },
    ),
    "twice.jsonl": (
        GOOD
        + '{"source": "a", "target": "b", "source": "c"}\n{"source": "a", "target": "b", "x": {"y": 1, "y": 2}}\n',
        1,
        {"a key occurs twice": 2},
    ),
    "deep.jsonl": (
        f'{GOOD}{{"source": {"[" * 900}{"]" * 900}, "target": "b"}}\n{{"source": {"9" * 5000}, "target": "b"}}\n',
        1,
        {"source is not a text": 1, "invalid JSON": 1},
    ),
    "a.csv": (
        'source,target\na,b\na,b,c\n\n,b\n"a"b,c\nd,e\n',
        2,
        {"wrong number of cells": 1, "empty line": 1, "empty source": 1, "broken quotes": 1},
    ),
    "a.tsv": (
        "source\ttarget\na\tb\na\n\t\na\t \n",
        1,
        {"wrong number of cells": 1, "empty source": 1, "empty target": 1},
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_every_bad_row_is_counted_by_its_reason_and_the_others_are_kept(write, name):
    content, good, reasons = MIXED[name]
    path, skipped = write(name, content), BadRows("skip")
    assert list(read_rows([path], bad_rows=skipped)) == [
        {"source": row[0], "target": [row[1]]} for row in ("ab", "de")[:good]
    ]
    assert dict(skipped.counts) == reasons
    assert skipped.total == sum(reasons.values()) == skipped.rows - good

    with pytest.raises(DataError) as error:
        list(read_rows([path]))
    assert f"{skipped.total} bad rows of {skipped.rows}: " in str(error.value)
    assert all(example in str(error.value) for example in skipped.examples)
    assert "\n" not in str(error.value) and "--on_bad_row skip" in str(error.value)


@pytest.mark.parametrize(
    ("name", "head", "row", "empty"),
    [
        ("a.jsonl", "", GOOD, "\n"),
        ("a.jsonl", "", GOOD, " \t\r\n"),
        ("a.csv", "source,target\n", "a,b\n", "\n"),
        ("a.csv", "source\n", "a\n", "\r\n"),
        ("a.tsv", "source\ttarget\n", "a\tb\n", "\n"),
        ("a.tsv", "source\n", "a\n", "\r\n"),
    ],
)
def test_empty_lines_are_bad_rows_but_at_the_end_of_a_table(write, name, head, row, empty):
    path, counted = write(name, head + row + empty * 2 + row + empty * 3), BadRows("skip")
    target_column = "target" if "target" in head + row else None
    rows = list(read_rows([path], target_column=target_column, bad_rows=counted))
    assert [row["source"] for row in rows] == ["a", "a"]
    first = 2 + bool(head)
    assert counted.examples == [f"{path}:{first}: empty line", f"{path}:{first + 1}: empty line"]
    assert counted.rows == 4 and counted.counts == {"empty line": 2}
    with pytest.raises(DataError, match="2 bad rows of 4: 2 empty line"):
        list(read_rows([path], target_column=target_column))


def test_an_empty_line_inside_of_quotes_is_text(write):
    path = write("a.csv", 'source,target\n"a\n\nb",c\n\n\n')
    assert list(read_rows([path])) == [{"source": "a\n\nb", "target": ["c"]}]


@pytest.mark.parametrize("policy", ["error", "skip"])
@pytest.mark.parametrize("streaming", [False, True], ids=["stored", "streaming"])
def test_a_field_that_every_row_lacks_is_a_misnamed_column(write, policy, streaming):
    path = write("a.jsonl", GOOD.replace("source", "sources") * 30)
    with pytest.raises(DataError) as error:
        load_rows([path], streaming=streaming, bad_rows=BadRows(policy))
    assert "there are 'sources', 'target'; did you mean sources?" in str(error.value)
    assert "--source_column gives the name of another" in str(error.value) and str(error.value).count(path) <= 2
    with pytest.raises(DataError) as error:
        list(read_rows([write("b.jsonl", GOOD + GOOD.replace("target", "tgt"))]))
    assert "b.jsonl:2: no field 'target'" in str(error.value) and "_column" not in str(error.value)


@pytest.mark.parametrize("streaming", [False, True], ids=["stored", "streaming"])
def test_a_file_of_several_is_not_left_out_whole_for_the_names_of_its_columns(write, streaming):
    good, other = write("a.jsonl", GOOD * 3), write("b.jsonl", GOOD.replace("source", "from") * 3 + "[]\n")
    with pytest.raises(
        DataError, match=r"b\.jsonl: none of its rows is left: 3 no field 'source', 1 .*--source_column"
    ):
        list(load_rows([good, other, good], streaming=streaming, bad_rows=BadRows("skip")))
    some = write("c.jsonl", GOOD.replace("source", "from") * 3 + GOOD)
    assert len(list(load_rows([good, some], streaming=streaming, bad_rows=BadRows("skip")))) == 4


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_lines_that_cannot_be_read_do_not_hide_that_a_column_is_misnamed(write, policy):
    row = '{"en": "b", "source": "a"}\n'
    path = write("b.jsonl", row + "\n[]\n" + row * 20)
    with pytest.raises(DataError) as error:
        list(read_rows([path], bad_rows=BadRows(policy)))
    assert "--target_column gives the name of another" in str(error.value) and "b.jsonl:4" not in str(error.value)


@pytest.mark.parametrize("text", ["\u200b", "\ufeff", " \u200b\u2060\u00a0", "\u00ad\u200e\t"])
def test_a_text_of_which_nothing_can_be_seen_is_empty(text):
    for record in ({"source": text, "target": "b"}, {"source": "a", "target": ["b", text]}):
        fault = to_row(record, Columns())
        assert isinstance(fault, Fault) and fault.reason.startswith("empty ")
    assert to_row({"source": f"{text}a{text}", "target": "b"}, Columns()) == {
        "source": f"{text}a{text}",
        "target": ["b"],
    }


def test_empty_lines_of_parallel_texts_leave_out_their_pairs(write):
    counted = BadRows("skip")
    files = [write("a.de", "a\n\nc\nd\n"), write("a.en", "1\n2\n\n4\n")]
    assert [row["target"] for row in read_rows(files, bad_rows=counted)] == [["1"], ["4"]]
    assert counted.counts == {"empty source": 1, "empty target": 1}


def test_the_first_ten_of_many_are_named_and_all_are_counted(write):
    path = write("a.jsonl", GOOD + EMPTY * 1234)
    with pytest.raises(DataError) as error:
        list(read_rows([path]))
    assert "1,234 bad rows of 1,235: 1,234 empty source; " in str(error.value)
    assert str(error.value).count(path) == 10 and f"{path}:11: empty source" in str(error.value)


def test_a_file_of_bad_rows_alone_is_refused_with_their_reasons(write):
    with pytest.raises(DataError, match=r"a\.jsonl: no row is left: left out 2 bad rows of 2 .*: 2 empty source; "):
        list(read_rows([write("a.jsonl", EMPTY * 2)], bad_rows=BadRows("skip")))


def test_a_stream_refuses_the_first_bad_row_or_counts_them_while_it_is_read(write, capsys):
    path = write("a.jsonl", GOOD + EMPTY * 12 + GOOD)
    with pytest.raises(DataError, match=r"a\.jsonl:2: empty source; a stream stops at its first bad row: --on_"):
        list(load_rows([path], streaming=True))
    with pytest.raises(DataError, match=r"'src'.*; --source_column gives the name of another; a stream stops at"):
        list(load_rows([path], "src", streaming=True))
    rows = load_rows([path], streaming=True, bad_rows=BadRows("skip"))
    assert len(list(rows)) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in said] == [
        "so far left out 1 bad row of 2",
        "so far left out 10 bad rows of 11",
        "left out 12 bad rows of 14",
    ]
    assert len(list(rows)) == 2 and capsys.readouterr().err == ""  # a later pass that leaves out the same
    again = load_rows([path], streaming=True, bad_rows=BadRows("skip"))
    with patch.dict(os.environ, RANK="1"):
        assert len(list(again)) == 2
    assert capsys.readouterr().err == ""
    again = load_rows([path], streaming=True, bad_rows=BadRows("skip"))  # another stream is another matter
    assert len(list(again)) == 2 and capsys.readouterr().err.splitlines() == said


@pytest.mark.parametrize(
    ("source", "target", "is_good"),
    [
        ("ja", "yes, of course", True),  # 14 characters beside 2, which count as 10
        ("ja", "x" * 30, True),
        ("ja", "x" * 31, False),
        ("x" * 31, " ja ", False),
        ("x" * 20, "y" * 60, True),
        ("x" * 20, "y" * 61, False),
    ],
)
def test_a_pair_is_uneven_beyond_the_ratio_with_ten_characters_at_least(write, source, target, is_good):
    path = write("a.jsonl", GOOD + json.dumps({"source": source, "target": [source, target]}))
    counted = BadRows("skip", max_length_ratio=3)
    assert len(list(read_rows([path], bad_rows=counted))) == 1 + is_good
    assert counted.total == (not is_good)
    assert len(list(read_rows([path]))) == 2
