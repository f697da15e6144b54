# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A model that an option or a verb does not suit is refused with one line that names the one or the other."""

import json
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from small_runs import CHECKPOINT_LINES, SMALL, refused
from transformers import AutoTokenizer, BertConfig, BertModel

from hf_xformer.checkpoints.loading import load_config, load_model
from hf_xformer.commands import merge, train


LIMIT = 8
LONG = "'A B C A B C A B C'"
TRAIN = "train --train_file {data} --output_dir {out} --use_cpu true --max_steps 1"
SHORT = f"{TRAIN} --model_name_or_path {{model}} --max_source_length 8 --max_target_length 8"
BEYOND = f"is beyond the model's `max_position_embeddings` of {LIMIT}"
# A command line, and what it is refused with where the model has few positions.
TOO_LONG = {
    f"attention {{model}} {LONG} --output {{out}}": f"the source has 10 tokens; the model has positions for {LIMIT}",
    f"attention {{model}} A --target {LONG}": f"the target has 10 tokens; the model has positions for {LIMIT}",
    f"card {{model}} --example {LONG}": f"the source has 10 tokens; the model has positions for {LIMIT}",
    "estimate --config_name {model} --max_target_length 8": f"--max_source_length 512 {BEYOND}",
    "estimate --config_name {model} --max_source_length 8": f"--max_target_length 512 {BEYOND}",
    f"{TRAIN} --model_name_or_path {{model}} --max_source_length 9": f"--max_source_length 9 {BEYOND}",
    f"{SHORT} --generation_max_length 10": f"--generation_max_length 10 {BEYOND}",
}
# Of every verb that takes a checkpoint.
LINES = (
    SHORT,
    f"{SHORT} --tokenizer_name {{tokenizer}}",
    f"{SHORT} --tokenizer_name {{tokenizer}} --config_overrides dropout=0.2",
    f"{SHORT} --tokenizer_name {{tokenizer}} --lora_rank 2",
    f"{SHORT} --tokenizer_name {{tokenizer}} --attn_implementation flash_attention_2",
    f"{TRAIN} --config_name {{model}} --tokenizer_name {{tokenizer}}",
    *CHECKPOINT_LINES,
)
SPOILED = "model.encoder.layers.0.feed_forward.up_proj.weight"  # a number of it is infinite


def of_weights(line: str) -> bool:
    """Whether a command line needs the weights of an Xformer: not only a configuration, nor another kind of model."""
    words = line.split()
    others = {"estimate", "convert", "merge", "--config_name", "--attn_implementation"}
    return others.isdisjoint(words)


# What a config.json may have instead, and what the message has of it.
BROKEN = {
    "dropout": ({"dropout": 7}, "`dropout` is a probability"),
    "rope": ({"rope_parameters": {"rope_type": "linear"}, "position_embedding_type": "rope"}, "rope_parameters"),
    "type": ({"d_model": "wide"}, "d_model"),
    "architectures": ({"architectures": 5}, "architectures"),
    "bert": ({}, "BertConfig|model_type 'bert'|convert a 'bert'"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory, task) -> Path:
    """A run's folder of a model with few positions, and the same with other configurations."""
    folder = tmp_path_factory.mktemp("models")
    positions = f"position_embedding_type=learned,max_position_embeddings={LIMIT}"
    lengths = {"max_source_length": LIMIT, "max_target_length": LIMIT}
    run = {"max_steps": 1, "config_overrides": f"{SMALL},{positions}", "overlong": "drop", **lengths}
    train.main(task.options(folder / "short", **run))
    shutil.copytree(task.tokenizer, folder / "tokenizer")
    for name, (fields, _) in BROKEN.items():
        shutil.copytree(folder / "short", folder / name)
        change(folder / name / "config.json", fields)
    shutil.copytree(folder / "short", folder / "infinite")
    tensors = load_file(folder / "infinite/model.safetensors")
    tensors[SPOILED][3, 2] = torch.inf
    save_file(tensors, folder / "infinite/model.safetensors", metadata={"format": "pt"})
    config = load_config(str(folder / "short"), {})
    tokens = {name: getattr(config, name) for name in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")}
    width = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**width, **tokens)).save_pretrained(folder / "bert")
    return folder


def change(path: Path, fields: dict) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(line: str, models: Path, name: str, folder: Path, capsys) -> str:
    """Runs a command line on a model; returns its one line of refusal."""
    (folder / "rows.jsonl").write_text('{"source": "A", "target": "B"}\n')
    adapter = folder / "adapter"
    shutil.copytree(models / "tokenizer", adapter)
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(models / name)}))
    places = {"model": models / name, "adapter": adapter, "data": folder / "rows.jsonl", "out": folder / "out"}
    places |= {"tokenizer": models / "tokenizer", "sound": models / "short"}
    verb, *words = [word.format(**places) for word in shlex.split(line)]
    return refused(import_module(f"hf_xformer.commands.{verb}"), words, capsys)


@pytest.mark.slow
def test_a_checkpoint_records_the_longest_source_that_it_was_trained_on(models, task):
    tokenizer = AutoTokenizer.from_pretrained(models / "short")
    rows = [json.loads(line) for line in Path(task.train).read_text().splitlines()]
    lengths = [len(tokenizer(row["source"])["input_ids"]) for row in rows]
    assert tokenizer.model_max_length == max(length for length in lengths if length <= LIMIT) < max(lengths)


@pytest.mark.parametrize("line", TOO_LONG)
def test_no_option_asks_for_more_positions_than_the_model_has(line, models, tmp_path, capsys):
    said = refusal(line, models, "short", tmp_path, capsys)
    assert TOO_LONG[line] in said


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("line", LINES)
def test_a_configuration_that_no_model_can_have_is_named(line, name, models, tmp_path, capsys):
    said = refusal(line, models, name, tmp_path, capsys)
    assert str(models / name) in said or name == "bert"
    assert re.search(BROKEN[name][1], said)
    assert "--config_overrides" not in said and "cannot load a tokenizer" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("line", [each for each in LINES if of_weights(each)])
def test_weights_that_are_not_finite_are_refused_with_the_tensors_name(line, models, tmp_path, capsys):
    said = refusal(line, models, "infinite", tmp_path, capsys)
    assert f"`{SPOILED}` is not finite: 1 of its " in said and str(models / "infinite") in said
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_is_not_finite_is_not_merged(models, tmp_path, capsys):
    options = {"target_modules": ["q_proj"], "init_lora_weights": False}
    model = load_model(str(models / "short"))
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, **options))
    for name, each in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(each, torch.nan)
    adapted.save_pretrained(tmp_path / "adapter")
    shutil.copytree(models / "tokenizer", tmp_path / "adapter", dirs_exist_ok=True)
    said = refused(merge, [tmp_path / "adapter", tmp_path / "out"], capsys)
    assert f"{tmp_path / 'adapter'}: `base_model.model." in said and "is not finite" in said
    assert not (tmp_path / "out").exists()
