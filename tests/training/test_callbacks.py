# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Files beside those of the stock Trainer are in every checkpoint's folder, on every machine."""

from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.training.callbacks import SaveTargetTokenizer


@pytest.mark.parametrize("writes", [True, False])
def test_each_machine_that_saves_into_a_folder_of_its_own_writes_them(writes, tmp_path):
    """The first process of a second machine, and a process that leaves saving to another."""
    args = SimpleNamespace(should_save=writes, output_dir=str(tmp_path))
    state = SimpleNamespace(is_world_process_zero=False, global_step=3)
    tokenizer = train_tokenizer(["A B"], "symbol")
    SaveTargetTokenizer(tokenizer).on_save(args, state, None, model=None)
    folder = tmp_path / "checkpoint-3/target_tokenizer"
    assert folder.exists() == writes
    if writes:
        assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()
