# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A run goes on whatever becomes of its pushes."""

import pytest
from huggingface_hub import HfApi
from transformers import Seq2SeqTrainingArguments, TrainerControl, TrainerState

from hf_xformer.hub.repository import EMPTY_CARD, Repository, RunPublisher
from hf_xformer.training.callbacks import PushToHub


def test_a_checkpoint_that_cannot_be_read_is_a_warning(tmp_path, capsys):
    publisher = RunPublisher(Repository(HfApi(endpoint="http://127.0.0.1:9", token="hf_x"), "tester/x"))
    pushes = PushToHub(publisher, always=True)
    args = Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True)
    # One has been removed; of the other a file is a link to elsewhere.
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2/config.json").symlink_to(tmp_path / "nothing")
    for step, missing, reason in (
        (1, "checkpoint-1", "No such file or directory\n"),
        (2, "checkpoint-2/config.json", f"a link out of the folder, to {tmp_path / 'nothing'}: put the file itself"),
    ):
        pushes.on_save(args, TrainerState(global_step=step, is_world_process_zero=True), TrainerControl())
        said = f"WARNING: a push to tester/x failed: {tmp_path / missing}: {reason}"
        assert capsys.readouterr().out.startswith(said) and not publisher.is_busy()


@pytest.mark.parametrize(
    "card", ["", "---\n---\n", "---\nlicense: apache-2.0\n---\n", "---\r\nlicense: mit\r\n---\r\n"]
)
def test_a_card_of_the_hubs_form_is_nobodys(card):
    assert EMPTY_CARD.fullmatch(card.encode())
    assert not EMPTY_CARD.fullmatch(card.encode() + b"# By hand\n")
