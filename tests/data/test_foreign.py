# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Rows that `datasets` itself reads have the rules of files that are read here."""

import pytest
from torch.utils.data import DataLoader

from hf_xformer.data.bad_rows import BadRows
from hf_xformer.data.reading import load_named_rows
from hf_xformer.errors import DataError, say_once


pytestmark = pytest.mark.usefixtures("cache_of_its_own")

# A separator is what only `datasets` reads by.
CARD = '---\nconfigs:\n- config_name: default\n  data_files: "{}"\n  sep: "\\t"\n---\n'


@pytest.mark.parametrize("streaming", [False, True], ids=["stored", "streaming"])
def test_what_datasets_reads_has_the_same_rules(write, tmp_path, streaming):
    write("folder/rows.tsv", 'source\ttarget\n"open\ty\nb"\tz\nnull\t5\n\tx\n')
    write("folder/README.md", CARD.format("rows.tsv"))
    for _ in range(2):
        counted = BadRows("skip")
        rows = load_named_rows(str(tmp_path / "folder"), streaming=streaming, bad_rows=counted)
        assert [(row["source"], *row["target"]) for row in rows] == [('"open', "y"), ('b"', "z"), ("null", "5")]
        if not streaming:
            assert counted.counts == {"empty source": 1}
    with pytest.raises(DataError, match="split 'train', row 4: empty source"):
        list(load_named_rows(str(tmp_path / "folder"), streaming=streaming))


def test_rows_of_a_file_that_was_written_again_are_the_new_ones(write, tmp_path):
    write("folder/README.md", CARD.format("rows.tsv"))
    for text in "xyz":
        write("folder/rows.tsv", f"source\ttarget\na\t{text}\n")
        assert [row["target"] for row in load_named_rows(str(tmp_path / "folder"))] == [[text]]


@pytest.mark.parametrize("shards", [1, 2])
def test_a_stream_through_datasets_says_what_a_pass_left_out(write, tmp_path, shards, capsys):
    for shard in range(shards):
        write(f"folder/rows-{shard}.tsv", "source\ttarget\n" + "a\tb\n\tc\n" * 13)
    write("folder/README.md", CARD.format("rows-*.tsv"))
    rows = load_named_rows(str(tmp_path / "folder"), streaming=True, bad_rows=BadRows("skip"))
    assert rows.num_shards == shards
    assert len(list(rows)) == 13 * shards
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert [line.partition(" (")[0] for line in said] == ["left out 13 bad rows of 26"] * shards
    assert all(f"shard {number} of 2, row 2" in line for number, line in enumerate(said, 1) if shards == 2)
    assert len(list(rows)) == 13 * shards and not capsys.readouterr().err  # a pass that leaves out the same
    loader = DataLoader(rows, num_workers=2, batch_size=None)
    assert len(list(loader)) == 13 * shards


def test_workers_that_divide_shards_say_each_what_they_have_left_out(write, tmp_path, capfd):
    """Only the second worker meets bad rows."""
    write("folder/rows-0.tsv", "source\ttarget\n" + "a\tb\n" * 26)
    write("folder/rows-1.tsv", "source\ttarget\n" + "a\tb\n\tc\n" * 13)
    write("folder/README.md", CARD.format("rows-*.tsv"))
    rows = load_named_rows(str(tmp_path / "folder"), streaming=True, bad_rows=BadRows("skip"))
    assert len(list(DataLoader(rows, num_workers=2, batch_size=None))) == 39
    assert "left out 13 bad rows of 26" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("rank", "processes", "shards", "says"),
    [(0, 2, 1, True), (1, 2, 1, False), (1, 2, 2, True), (1, 2, 3, False), (0, 2, 3, True)],
)
def test_a_process_says_what_it_alone_has_read(rank, processes, shards, says, monkeypatch, capsys):
    """`datasets` gives each process shards of its own if there are as many for each, and else all rows to all."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    say_once("left out", shards)
    assert bool(capsys.readouterr().err) == says


@pytest.mark.parametrize("streaming", [False, True], ids=["stored", "streaming"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_carriage_return_ends_a_line_only_before_a_line_feed(write, tmp_path, streaming, end):
    lines = ["n;source;target", "1;a;x\ry", '2;"b\rb";5', "3;c;z"]

    def load(name, *more):
        write(f"{name}/rows.csv", end.join([*lines, *more, ""]))
        write(f"{name}/README.md", CARD.replace("\\t", ";").format("rows.csv"))
        return load_named_rows(str(tmp_path / name), streaming=streaming)

    rows = load("folder")
    assert [(row["source"], *row["target"]) for row in rows] == [("a", "x\ry"), ("b\rb", "5"), ("c", "z")]
    assert len(list(load("empty-line", ""))) == 3
    with pytest.raises(DataError, match="row 4: empty source"):
        list(load("empty-cells", ";;"))


@pytest.mark.parametrize("streaming", [False, True], ids=["stored", "streaming"])
def test_a_byte_order_mark_is_no_part_of_a_folders_plain_text(write, tmp_path, streaming):
    write("folder/train.txt", "\ufeffone\ntwo\n")
    rows = load_named_rows(str(tmp_path / "folder"), source_column="text", target_column=None, streaming=streaming)
    assert [row["source"] for row in rows] == ["one", "two"]


@pytest.mark.parametrize("streaming", [False, True], ids=["stored", "streaming"])
def test_rows_of_more_cells_than_column_names_are_refused(write, tmp_path, streaming):
    write("folder/rows.csv", "source;target\n1;a;x\n2;b;y\n")
    write("folder/README.md", CARD.replace("\\t", ";").format("rows.csv"))
    with pytest.raises(DataError, match="rows have more cells than the first row has column names"):
        list(load_named_rows(str(tmp_path / "folder"), streaming=streaming))
