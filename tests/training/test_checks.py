# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Options that do not go with the model are refused before the data are read."""

import pytest
from small_runs import refused, refused_unread

from hf_xformer.commands import train
from hf_xformer.data.tokenizers import train_tokenizer


BEFORE_READING = {
    "attention not installed": (
        {"attn_implementation": "flash_attention_2"},
        "--attn_implementation flash_attention_2",
    ),
    "varlen in single precision": (
        {"attn_implementation": "varlen"},
        "--attn_implementation varlen computes in half precision, and the run has neither --bf16 nor --fp16: ",
    ),
    "varlen on a CPU": (
        {"attn_implementation": "varlen", "bf16": "true"},
        "--attn_implementation varlen needs a GPU, and the run is on the CPU: take sdpa",
    ),
    "varlen with dropout": (
        {"attn_implementation": "varlen", "bf16": "true", "config_overrides": "attention_dropout=0.1"},
        "--attn_implementation varlen has no dropout of attention weights, and the model's `attention_dropout` is 0.1",
    ),
    "configuration": ({"config_overrides": "d_model=-8"}, "--config_overrides: `d_model` must be positive, got -8"),
}


@pytest.mark.parametrize(("changes", "said"), BEFORE_READING.values(), ids=BEFORE_READING)
def test_what_does_not_go_with_the_model_is_refused_before_the_data_are_read(changes, said, task, tmp_path, capsys):
    assert refused_unread(task, tmp_path / "run", capsys, **changes).startswith(f"error: {said}")


def test_a_folder_of_a_run_with_another_target_tokenizer_is_not_taken(task, tmp_path, capsys):
    """The source's is the same."""
    run, other = tmp_path / "run", tmp_path / "other"
    for folder, texts in ((other, ["q w e"]), (tmp_path / "own", ["A B C D E F G H I J K L"])):
        train_tokenizer(texts, "symbol", max_length=12).save_pretrained(folder)
    options = {"save_strategy": "no", "max_steps": 1}
    train.main(task.options(run, target_tokenizer_name=tmp_path / "own", **options))
    line = refused(train, task.options(run, target_tokenizer_name=other, **options), capsys)
    assert "holds a run with" in line


def test_a_base_whose_own_tokenizer_cannot_be_read_is_refused(task, tmp_path, capsys):
    """Nobody knows whether the given one has its tokens."""
    base = tmp_path / "base"
    train.main(task.options(base, save_strategy="no", max_steps=1))
    path = base / "tokenizer.json"
    path.write_text(path.read_text()[:99])
    options = {"config_name": None, "config_overrides": None, "model_name_or_path": base}
    assert f"{base}: cannot load a tokenizer" in refused(train, task.options(tmp_path / "run", **options), capsys)
