# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Training from streams: in any batches, by workers, stopped in any pass."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from small_runs import nightly, weights
from transformers import AutoTokenizer

from hf_xformer.commands import train
from hf_xformer.data.corpora import Corpus, EndlessPairs, Reader
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.training.training_set import first


PASS = {"max_steps": 20, "logging_steps": 20, "learning_rate": 1e-3}  # of the small task's 160 pairs, 8 a step
BATCHES = {
    "packed": {"packing": "true", "max_tokens": 40},
    "padded": {"max_tokens": 60, "dataloader_num_workers": 2},
    "packed by pairs": {"packing": "true"},
    "of like lengths": {},
    "drawn": {"group_by_length": "false"},
}


def results(folder: Path) -> dict:
    return json.loads((folder / "train_results.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["packed", *nightly(*list(BATCHES)[1:])])
def test_a_stream_trains_on_the_pairs_of_the_rows_in_memory(kind, task, tmp_path):
    """In another order, and so almost with their loss."""
    more = BATCHES[kind]
    for name in ("false", "true"):
        train.main(task.options(tmp_path / name, streaming=name, **PASS, **more))
    memory, stream = results(tmp_path / "false"), results(tmp_path / "true")
    for count in ("train_samples", "train_source_tokens", "train_target_tokens"):
        assert stream[count] == pytest.approx(memory[count], rel=0.1)
    assert stream["train_loss"] == pytest.approx(memory["train_loss"], rel=0.02)


@pytest.mark.slow
def test_a_stopped_stream_goes_on_with_the_pairs_of_an_unbroken_one_in_its_second_pass(task, tmp_path):
    options = {"streaming": "true", "packing": "true", "max_tokens": 64, "dataloader_num_workers": 2}
    options |= {"max_steps": 45, "save_strategy": "steps", "save_steps": 30}
    train.main(task.options(tmp_path / "unbroken", **options))
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken/checkpoint-45")
    train.main(task.options(tmp_path / "broken", **options))
    assert results(tmp_path / "broken")["train_samples"] > 2 * 160
    assert torch.equal(weights(tmp_path / "broken"), weights(tmp_path / "unbroken"))
    state = json.loads((tmp_path / "broken/trainer_state.json").read_text())
    assert [each[1] for each in state["stateful_callbacks"]["reader_positions"]] == [0, 1]  # of each worker


@pytest.mark.slow
def test_a_stream_with_separate_tokenizers(task, tmp_path):
    source, target = tmp_path / "tokenizer", tmp_path / "tokenizer/target_tokenizer"
    train_tokenizer(["A B C D E F G H"], "symbol").save_pretrained(source)
    train_tokenizer(["H G F E D C B A Z"], "symbol").save_pretrained(target)
    out = tmp_path / "run"
    options = task.options(out, tokenizer_name=source, streaming="true", save_strategy="steps", save_steps=3)
    train.main(options)
    config = json.loads((out / "config.json").read_text())
    assert (config["encoder_vocab_size"], config["vocab_size"]) == (12, 13)
    for folder in (out, out / "checkpoint-3"):
        assert len(AutoTokenizer.from_pretrained(folder / "target_tokenizer")) == 13


def test_the_first_rows_of_a_stream_are_those_of_its_first_shards():
    shards = [{"text": [f"{shard}.{row}" for row in range(size)]} for shard, size in enumerate((5, 50))]
    whole = concatenate_datasets([Dataset.from_dict(each).to_iterable_dataset() for each in shards])
    assert whole.num_shards == 2
    wanted = [row["text"] for row in whole.take(20)]

    def encode(rows, random):
        ids = [list(map(int, text.split("."))) for text in rows["text"]]
        return {"input_ids": ids, "labels": ids}

    for readers in (1, 2):
        found = []
        for number in range(readers):
            pairs = EndlessPairs(Corpus(first(whole, 20), encode), 0, 0, Reader(number, readers))
            found += [f"{a}.{b}" for a, b in (pair.source for pair in pairs.take(20, np.random.default_rng(), True))]
        assert sorted(found) == sorted(wanted)
