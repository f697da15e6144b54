# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Options that do not go with the model are refused before the data are read."""

import pytest
from small_runs import refused_unread


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
