# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Faults of other projects' public reports that this one has too; each fails until it is mended."""

import pyarrow
import pyarrow.parquet
import pytest

from hf_xformer.data import probing
from hf_xformer.data.reading import read_rows
from hf_xformer.data.sources import find_files
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError, DataError


def test_a_tokenizer_that_draws_at_random_is_refused_or_said():
    made = train_tokenizer(["the cat sat on the mat the cat sat"] * 5, "bpe", vocab_size=300)
    made.backend_tokenizer.model.dropout = 0.3
    try:
        assert probing.check_training(made, made, 64, 64)
    except ArgumentError:
        pass


def test_a_parquet_column_name_that_occurs_twice_is_refused(tmp_path):
    arrays = [pyarrow.array([text]) for text in "abc"]
    table = pyarrow.Table.from_arrays(arrays, names=["source", "target", "target"])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError):
        list(read_rows([tmp_path / "rows.parquet"]))


def test_a_folder_of_training_tables_and_a_test_set_is_refused(tmp_path):
    for name in ("corpus.jsonl", "test.jsonl"):
        (tmp_path / name).write_text('{"source": "a", "target": "b"}\n')
    with pytest.raises(DataError):
        find_files([tmp_path])
