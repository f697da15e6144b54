# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Rows in the cache are those of the files and bring their counts along; each reference may be a row of its own."""

import json
import os

import pytest

from hf_xformer.data import row_datasets
from hf_xformer.data.bad_rows import BadRows
from hf_xformer.data.reading import load_rows
from hf_xformer.data.row_datasets import expand_references
from hf_xformer.errors import DataError


GOOD = '{"source": "a", "target": "b"}\n'
EMPTY = '{"source": " ", "target": "b"}\n'

pytestmark = pytest.mark.usefixtures("cache_of_its_own")


def test_rows_from_the_cache_bring_their_counts_along(write, tmp_path):
    path = write("a.jsonl", GOOD + EMPTY)
    lines = []
    for _ in range(2):
        counted = BadRows("skip")
        assert len(load_rows([path], bad_rows=counted)) == 1
        lines.append(counted.line_or_refuse())
    assert (
        lines
        == [f"left out 1 bad row of 2 (--on_bad_row skip): 1 empty source; the first: {path}:2: empty source"] * 2
    )
    for tally in tmp_path.rglob("bad_rows.json"):  # as if the first start had been killed
        tally.unlink()
    counted = BadRows("skip")
    load_rows([path], bad_rows=counted)
    assert counted.line_or_refuse() == lines[0]
    with pytest.raises(DataError, match="empty source"):  # what was left out is not good by having been left out
        load_rows([path])


def test_a_file_of_the_same_size_and_time_is_read_again(write):
    path = write("a.jsonl", GOOD)
    status = os.stat(path)
    assert load_rows([path])[0]["target"] == ["b"]
    write("a.jsonl", GOOD.replace("b", "c"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load_rows([path])[0]["target"] == ["c"]


def test_rows_that_other_code_has_read_are_read_again(write, monkeypatch):
    """And with them all that is made of them: `datasets` goes by the fingerprint of what it starts from."""
    path = write("a.jsonl", GOOD)
    before = [expand_references(load_rows([path]))._fingerprint for _ in range(2)]
    assert before[0] == before[1] and len({*row_datasets.rules()}) == 3
    monkeypatch.setattr(row_datasets, "rules", lambda: ("other", "1", "2"))
    assert expand_references(load_rows([path]))._fingerprint != before[0]


@pytest.mark.parametrize("streaming", [False, True], ids=["stored", "streaming"])
def test_expanding_references_gives_one_row_per_reference(write, streaming):
    rows = [{"source": "tomato", "target": ["T AH", "T EY"]}, {"source": "cat", "target": ["K AE T"]}]
    dataset = expand_references(
        load_rows([write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))], streaming=streaming)
    )
    assert list(dataset) == [
        {"source": "tomato", "target": "T AH"},
        {"source": "tomato", "target": "T EY"},
        {"source": "cat", "target": "K AE T"},
    ]
