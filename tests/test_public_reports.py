# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Faults of other projects' public reports that this one has too; each fails until it is mended."""

import pyarrow
import pyarrow.parquet
import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, LoraConfig, get_peft_model
from small_models import make_batch, make_model

from hf_xformer.checkpoints import load_model
from hf_xformer.data import probing
from hf_xformer.data.reading import read_rows
from hf_xformer.data.sources import find_files
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError, DataError


@pytest.fixture
def tokenizer():
    return train_tokenizer((" ".join(f"s{n}" for n in range(38)),), "symbol")


def test_a_tokenizer_that_draws_at_random_is_refused_or_said():
    made = train_tokenizer(["the cat sat on the mat the cat sat"] * 5, "bpe", vocab_size=300)
    made.backend_tokenizer.model.dropout = 0.3
    try:
        assert probing.check_training(made, made, 64, 64)
    except ArgumentError:
        pass


def test_an_adapter_of_a_resized_model_loads_here_as_in_peft(tmp_path, tokenizer):
    make_model().save_pretrained(tmp_path / "base")
    model = load_model(str(tmp_path / "base"))
    tokenizer.add_tokens([f"<n{n}>" for n in range(4)])
    model.resize_token_embeddings(len(tokenizer))
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", init_lora_weights=False)).eval()
    for each in (adapted, tokenizer):
        each.save_pretrained(tmp_path / "adapter")
    expected = adapted(**make_batch()).logits
    theirs = AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "adapter").eval()
    torch.testing.assert_close(theirs(**make_batch()).logits, expected)
    torch.testing.assert_close(load_model(str(tmp_path / "adapter"))(**make_batch()).logits, expected)


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
