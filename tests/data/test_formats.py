# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are none, or not what their name says: refused at once, in bounded memory."""

import gzip
import os
import socket
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest

from hf_xformer.data.bad_rows import BadRows
from hf_xformer.data.reading import load_named_rows, read_rows
from hf_xformer.data.sources import files_of_folder, find_files
from hf_xformer.errors import DataError


ROW = '{"source": "a", "target": "b"}\n'


def refusal(*files, bad_rows=None) -> str:
    with pytest.raises(DataError) as error:
        list(read_rows(files, bad_rows=bad_rows))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    assert "a.jsonl: a pipe, where a file should be: write it to a file first" in refusal(tmp_path / "a.jsonl")
    os.mkfifo(tmp_path / "a.parquet")
    assert "a.parquet: a pipe" in refusal(tmp_path / "a.parquet")
    assert "/dev/zero: a device" in refusal("/dev/zero", "/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "b.csv"))
        assert "b.csv: a socket" in refusal(tmp_path / "b.csv")


def test_a_packed_file_without_an_end_takes_little_memory(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", 1) as file:
        for _ in range(8):
            file.write(bytes(2**24))
    tracemalloc.start()
    assert "a.jsonl.gz:1: a line of more than 16 MiB" in refusal(tmp_path / "a.jsonl.gz")
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", f"[\n {ROW},\n {ROW}]", "a.json:1: an array, where one JSON object a line should be; jq -c '.[]' "),
        ("a.jsonl", f"[{ROW.strip()}]", "a.jsonl:1: an array"),
        ("a.json", '\n{\n  "source": "a"\n}', "a.json:2: an object over several lines"),
        (
            "a.tsv",
            "Guten Tag\tgood day\n",
            "no column 'source': the first row names the columns, and here it is \"Gut",
        ),
        ("a.csv", "source;target\na;b\n", 'here it is "source;target"; --source_column gives the name of another'),
        ("a.csv", "\na,b\n", "here it is none"),
        ("a.csv", "source,target\n" + "a,b\n" * 3 + '"a,b\n' + "a,b\n" * 999, "a.csv:5: a quote opens in this row"),
        (
            "a.csv",
            'source,target\n"a,b\na,b\n"c",d\n',
            "a.csv:2: the quotes that begin in this row go wrong in line 4",
        ),
        ("a.csv", 'source,target\n"a,b\na,b\nc"\n', "a.csv:2: 1 cell under 2 column names, up to line 4"),
        ("a.jsonl", gzip.compress(ROW.encode(), mtime=0), "not UTF-8 (byte 0x8b); gzip's files are named .gz"),
        ("a.jsonl.gz", ROW, "Not a gzipped file"),
        ("a.csv", "source,target\na,b\n".encode("utf-16"), "not UTF-8 (byte 0xff)"),
    ],
)
def test_a_fault_of_the_whole_file_is_refused_whatever_the_policy(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in refusal(path)
    assert refusal(path, bad_rows=BadRows("skip")) == refusal(path)


def test_a_cell_may_be_long_and_hold_lone_carriage_returns(tmp_path):
    long = "x" * 150_000
    (tmp_path / "a.csv").write_text(f'source,target\r\n{long},b\r\n"{long}","b\n"\r\na\rb,"c\rd"\r\n', newline="")
    assert [(row["source"], *row["target"]) for row in read_rows([tmp_path / "a.csv"])] == [
        (long, "b"),
        (long, "b\n"),
        ("a\rb", "c\rd"),
    ]


def test_text_in_parquet_that_is_not_utf_8_is_refused(tmp_path):
    data = pyarrow.array([b"a", b"\xff"]).cast(pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"source": data, "target": data}), tmp_path / "a.parquet")
    assert "a.parquet" in refusal(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"de": ["a"]}), tmp_path / "b.parquet")
    assert "no column 'source'; there are 'de'; --source_column" in refusal(tmp_path / "b.parquet")


def test_a_parquet_column_name_that_occurs_twice_is_refused(tmp_path):
    arrays = [pyarrow.array([text]) for text in "abc"]
    names = ["source", "target", "target"]
    for columns in (dict.fromkeys(["x"]), {"source_column": "all.source", "target_column": "all.target"}):
        inside = [pyarrow.StructArray.from_arrays(arrays, names=names)]
        table = pyarrow.Table.from_arrays(*([arrays, names] if "x" in columns else [inside, ["all"]]))
        pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
        columns.pop("x", None)
        with pytest.raises(DataError, match="a column name occurs twice|duplicate field names"):
            list(read_rows([tmp_path / "rows.parquet"], **columns))


def test_tables_follow_one_another_and_a_folder_is_its_tables_in_order(tmp_path):
    for number in (2, 1, 3):
        (tmp_path / f"part-{number}.jsonl").write_text(ROW.replace('"a"', f'"{number}"'))
    (tmp_path / "LICENSE").touch()
    said: list[str] = []
    assert find_files([tmp_path], said.append) == [tmp_path / f"part-{number}.jsonl" for number in (1, 2, 3)]
    assert said == [f"{tmp_path}: reading 3, part-1.jsonl to part-3.jsonl; not reading LICENSE"]
    assert [row["source"] for row in read_rows([tmp_path])] == ["1", "2", "3"]
    assert [row["source"] for row in read_rows([tmp_path / "part-3.jsonl", tmp_path / "part-1.jsonl"])] == ["3", "1"]
    (tmp_path / "part.csv").touch()
    assert "files of several formats, .csv, .jsonl: name the files" in refusal(tmp_path)


def test_a_table_that_is_named_twice_is_said(tmp_path):
    table, link, text = (tmp_path / name for name in ("a.jsonl", "link.jsonl", "a.txt"))
    table.write_text(ROW)
    link.symlink_to(table)
    text.write_text("a\n")
    said: list[str] = []
    assert find_files([table, link], said.append) == [table, link]
    assert said == [f"{link}: this file is named twice, and each of its rows counts twice"]
    assert find_files([text, text], said.append) == [text, text] and len(said) == 1  # sources that are the targets


def test_a_folder_of_several_splits_is_a_dataset_and_no_training_file(tmp_path):
    for name in ("train.jsonl", "test.jsonl", "validation.jsonl"):
        (tmp_path / name).write_text(ROW)
    assert "files of several splits, test, train, validation: name the files" in refusal(tmp_path)
    assert files_of_folder(tmp_path, None, "test") == [tmp_path / "test.jsonl"]
    with pytest.raises(DataError, match="no split 'dev'; there are 'train', 'validation', 'test'"):
        files_of_folder(tmp_path, None, "dev")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("corpus.jsonl", "test.jsonl"), "the split test, test.jsonl, beside files of none, corpus.jsonl: name the"),
        (("a.csv", "b.csv", "Dev.csv"), "the split validation, Dev.csv, beside files of none, a.csv: name the"),
        (("train-1.tsv.gz", "more.tsv.gz"), "the split train, train-1.tsv.gz, beside files of none, more.tsv.gz"),
        (("x.jsonl", "x.jsonl.gz"), "x.jsonl and x.jsonl.gz: the same table twice, as it seems: name or keep one"),
        (("run.json", "trainer_state.json"), "a run's folder, where data should be"),
        (("run.json", "notes.txt"), "a run's folder, where data should be"),
    ],
)
def test_a_folder_that_is_not_one_set_of_data_is_refused(tmp_path, names, message):
    for name in names:
        (tmp_path / name).write_text(ROW)
    assert message in refusal(tmp_path)


def test_a_table_of_a_split_is_not_read_packed_and_unpacked(tmp_path):
    for name in ("train.jsonl", "train.jsonl.gz"):
        (tmp_path / name).write_text(ROW)
    with pytest.raises(DataError, match=r"train.jsonl and train.jsonl.gz: the same table twice"):
        files_of_folder(tmp_path, None, "train")


def test_shards_of_a_split_are_read_in_order(tmp_path):
    (tmp_path / "data").mkdir()
    shards = [tmp_path / f"data/train-0000{number}-of-00002.parquet" for number in (0, 1)]
    for shard in reversed(shards):
        pyarrow.parquet.write_table(pyarrow.table({"source": [shard.name], "target": ["b"]}), shard)
    assert files_of_folder(tmp_path, None, "train") == shards


def test_a_description_of_a_folder_changes_no_row(tmp_path):
    (tmp_path / "train.tsv").write_bytes(b"source\ttarget\na\tx\rq\n")
    (tmp_path / "test.jsonl").write_text(ROW * 2)
    rows = [{"source": "a", "target": ["x\rq"]}]
    plain = "# card\n"
    tagged = "---\nlanguage: de\n---\n"
    one = "---\nconfigs:\n- config_name: one\n  data_files: train.tsv\n---\n"
    splits = "---\nconfigs:\n- config_name: two\n  data_files:\n  - split: train\n    path: [tr*.tsv]\n---\n"
    moved = "---\nconfigs:\n- config_name: x\n  data_dir: .\n- config_name: y\n  data_files: test.jsonl\n---\n"
    for card, name in ((plain, None), (tagged, None), (one, None), (one, "one"), (splits, None), (moved, "x")):
        (tmp_path / "README.md").write_text(card)
        assert files_of_folder(tmp_path, name, "train") == [tmp_path / "train.tsv"]
        assert list(load_named_rows(str(tmp_path), name)) == rows
    assert list(load_named_rows(str(tmp_path), "y")) == [{"source": "a", "target": ["b"]}] * 2
    # A description that says more than which files there are is for `datasets`.
    for card in (one.replace("train.tsv", 'train.tsv\n  sep: ";"'), one.replace("[", "{"), "---\nconfigs: 3\n---\n"):
        (tmp_path / "README.md").write_text(card)
        assert (files_of_folder(tmp_path, None, "train") is None) == (card != one)


def test_no_table_of_a_split_is_dropped_and_what_is_none_is_said(tmp_path):
    (tmp_path / "train.tsv").write_text("source\ttarget\na\tb\n")
    (tmp_path / "train_notes.txt").write_text("notes\n")
    (tmp_path / "test.jsonl").write_text(ROW)
    said: list[str] = []
    assert files_of_folder(tmp_path, None, "train", said.append) == [tmp_path / "train.tsv"]
    assert said == [f"dataset {str(tmp_path)!r}: reading train.tsv; not reading train_notes.txt"]
    assert files_of_folder(tmp_path, None, "test") == [tmp_path / "test.jsonl"]
    (tmp_path / "train-2.jsonl").write_text(ROW)
    for streaming in (False, True):
        with pytest.raises(DataError, match="files of several formats in the split 'train': train-2.jsonl, train.tsv"):
            load_named_rows(str(tmp_path), streaming=streaming)
