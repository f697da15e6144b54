# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint that takes the place of an earlier one has nothing of it; other files stay."""

from pathlib import Path

import pytest
import torch
from small_models import make_model
from transformers import GenerationConfig

from hf_xformer.checkpoints.loading import load_model, load_tokenizers
from hf_xformer.checkpoints.saving import check_checkpoint_folder, check_saveable, save_checkpoint
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("shards", [True, False], ids=["shards", "one file"])
def test_nothing_of_an_earlier_checkpoint_is_taken_for_a_part_of_the_new_one(shards, tmp_path):
    source, target = (train_tokenizer([text], "symbol") for text in ("A B C", "D E"))
    model, earlier = make_model(vocab_size=len(source)), make_model(vocab_size=len(source), d_model=16)
    size = {True: "10KB", False: "1GB"}
    out, alone = tmp_path / "out", tmp_path / "alone"
    earlier.save_pretrained(out, max_shard_size=size[shards])
    for tokenizer, folder in ((source, out), (target, out / "target_tokenizer")):
        tokenizer.save_pretrained(folder)
    for name in ("vocab.json", "notes.txt", "run.json"):
        (out / name).write_text("{}")
    assert len(list(out.glob("*.safetensors"))) > 1 or not shards
    # The new one the other way round.
    model.save_pretrained = lambda folder, save=model.save_pretrained: save(folder, max_shard_size=size[not shards])
    for folder in (out, alone):
        save_checkpoint(folder, model, source, source, lambda new: (new / "run.json").write_text("new"), ["run.json"])
    assert names(out) == names(alone) | {"notes.txt"} and (out / "run.json").read_text() == "new"
    loaded, (first, second) = load_model(str(out)), load_tokenizers(str(out))
    assert first is second
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)


def test_folders_that_must_not_be_written_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="would overwrite"):
        check_checkpoint_folder(tmp_path / "a/..", ["user/name", str(tmp_path)], overwrite=True)
    check_checkpoint_folder(tmp_path, [], overwrite=False)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ArgumentError, match="the folder is not empty; --overwrite writes into it all the same"):
        check_checkpoint_folder(tmp_path, [], overwrite=False)
    with pytest.raises(ArgumentError, match="holds an adapter"):
        check_checkpoint_folder(tmp_path, [], overwrite=True)


def test_options_that_the_library_would_not_save_are_refused_before():
    """By its own judgement, of a config that was changed since it was loaded."""
    config = GenerationConfig(max_length=20)
    check_saveable(config, "here")
    config.update(do_sample=False, temperature=0.5, num_beams=1, length_penalty=2.0)
    with pytest.raises(
        ArgumentError, match=r"^here: transformers would not save these options of decoding: .*"
    ) as said:
        check_saveable(config, "here")
    assert "temperature" in str(said.value) and "\n" not in str(said.value)
