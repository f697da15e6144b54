# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Code that comes with a model, a tokenizer, an adapter's model or a data set does not run unless it is asked for."""

import io
import json
import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from small_models import save_checkpoint
from small_records import make_record
from small_runs import CHECKPOINT_LINES, ROOT, python, refused
from transformers import BartConfig, BartForConditionalGeneration

from hf_xformer.checkpoints.foreign_code import which_of
from hf_xformer.checkpoints.loading import load_model
from hf_xformer.cli import VERBS


CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

class PlantedConfig(BartConfig):
    model_type = "planted"

class PlantedModel(BartForConditionalGeneration):
    config_class = PlantedConfig

class PlantedTokenizer(PreTrainedTokenizerFast):
    pass

def generate(model, *args, **kwargs):
    raise AssertionError
"""
AUTO_MAP = {"AutoConfig": "planted.PlantedConfig", "AutoModelForSeq2SeqLM": "planted.PlantedModel"}
TRAIN = "train --train_file {data} --output_dir {out} --use_cpu true --max_steps 1 --report_to none"
# Of every verb that takes a checkpoint; `{model}` has the code.
LINES = (
    f"{TRAIN} --model_name_or_path {{model}}",
    f"{TRAIN} --model_name_or_path {{model}} --tokenizer_name {{tokenizer}}",
    f"{TRAIN} --model_name_or_path {{model}} --tokenizer_name {{tokenizer}} --lora_rank 2",
    f"{TRAIN} --config_name {{model}} --tokenizer_name {{tokenizer}}",
    *CHECKPOINT_LINES,
    "generate {adapter} --input {data} --output {out}",
)
# Reads a tokenizer and no model.
LOOK = "data {data} --tokenizer {model} --output_file {out}"
# Of every verb that reads a tokenizer, with a tokenizer that has the code.
TOKENIZERS = (
    f"{TRAIN} --model_name_or_path {{model}}",
    f"{TRAIN} --model_name_or_path {{plain}} --tokenizer_name {{model}}",
    f"{TRAIN} --model_name_or_path {{plain}} --target_tokenizer_name {{model}} --tokenizer_name {{tokenizer}}",
    *(line for line in LINES if line.split()[0] in ("generate", "evaluate", "export", "average", "distill")),
    *(line for line in LINES if line.split()[0] in ("attention", "card")),
    LOOK,
)
DATASETS = (
    "train --dataset_name {dataset} --model_name_or_path {plain} --output_dir {out} --use_cpu true --max_steps 1",
    "tokenizer --dataset_name {dataset} --output_dir {out}",
)


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = save_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    (folder / "run.json").write_text(json.dumps(make_record()))
    return folder


@pytest.fixture
def places(checkpoint, tmp_path, monkeypatch) -> dict[str, Path]:
    """Folders to be spoiled, and a standard input that would consent to everything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"y\n" * 100)))
    (tmp_path / "rows.jsonl").write_text('{"source": "A", "target": "B"}\n' * 4)
    for name in ("model", "plain", "tokenizer", "adapter"):
        shutil.copytree(checkpoint, tmp_path / name)
    for path in (*(tmp_path / "tokenizer").iterdir(), *(tmp_path / "adapter").iterdir()):
        if not path.name.startswith("tokenizer"):
            path.unlink()
    adapter = {"base_model_name_or_path": str(tmp_path / "model"), "peft_type": "LORA"}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(adapter))
    (tmp_path / "model/planted.py").write_text(CODE.format(marker=str(tmp_path / "marker")))
    names = ("model", "plain", "tokenizer", "adapter", "out", "dataset", "marker")
    found = {name: tmp_path / name for name in names} | {"data": tmp_path / "rows.jsonl"}
    return found | {"sound": found["plain"]}


def start(line: str, places: dict[str, Path], *more: str) -> None:
    verb, *words = [word.format(**places) for word in shlex.split(line)]
    import_module(f"hf_xformer.commands.{verb}").main([*words, *more])


def refusal(line: str, places: dict[str, Path], capsys) -> str:
    verb, *words = [word.format(**places) for word in shlex.split(line)]
    said = refused(import_module(f"hf_xformer.commands.{verb}"), words, capsys)
    assert not places["marker"].exists() and not places["out"].exists()
    return said


def test_every_verb_is_tried():
    assert {line.split()[0] for line in (*LINES, *DATASETS, LOOK)} == set(VERBS)


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_code_of_another_model_is_refused_with_its_files(line, places, capsys):
    change(places["model"] / "config.json", model_type="planted", auto_map=AUTO_MAP)
    said = refusal(line, places, capsys)
    assert "names code of its own that would run here, planted.py" in said and "--trust_remote_code" in said
    assert "take `auto_map` out" not in said


@pytest.mark.parametrize("line", TOKENIZERS)
def test_code_of_a_tokenizer_is_refused_with_its_file(line, places, capsys):
    auto_map = {"AutoTokenizer": [None, "planted.PlantedTokenizer"]}
    change(places["model"] / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="PlantedTokenizer")
    if "{adapter}" in line:
        shutil.copy(places["model"] / "tokenizer_config.json", places["adapter"])
    said = refusal(line, places, capsys)
    assert "its tokenizer_config.json names code of its own that would run here, planted.py" in said


def test_code_of_a_model_does_not_run_where_only_its_tokenizer_is_read(places):
    change(places["model"] / "config.json", model_type="planted", auto_map=AUTO_MAP)
    start(LOOK, places)
    assert places["out"].exists() and not places["marker"].exists()


@pytest.mark.parametrize("line", DATASETS)
def test_a_data_sets_script_does_not_run(line, places, capsys):
    places["dataset"].mkdir()
    (places["dataset"] / "dataset.py").write_text(CODE.format(marker=str(places["marker"])))
    assert str(places["dataset"]) in refusal(line, places, capsys)


def test_a_type_that_the_library_has_too_is_refused_with_the_other_way_out(places, capsys):
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 99, "max_position_embeddings": 9}
    BartForConditionalGeneration(BartConfig(**sizes)).save_pretrained(places["model"])
    change(places["model"] / "config.json", auto_map={name: f"some/one--{AUTO_MAP[name]}" for name in AUTO_MAP})
    said = refusal("convert {model} {out}", places, capsys)
    assert "planted.py of some/one" in said and "take `auto_map` out of config.json" in said


@pytest.mark.parametrize("line", ["generate {model} --input {data} --output {out}", "info {model}"])
def test_a_class_of_its_own_for_an_xformer_is_refused_or_said_to_be_passed_over(line, places, capsys, caplog):
    change(places["model"] / "config.json", auto_map={"AutoModelForSeq2SeqLM": "planted.PlantedModel"})
    said = refusal(line, places, capsys)
    assert "names code of its own, planted.py, which the commands do not run" in said
    assert "this package's classes are used" not in caplog.text
    try:
        start(line, places, "--trust_remote_code")
    except SystemExit as end:
        assert end.code == 0
    assert "this package's classes are used in place of those of planted.py" in caplog.text
    assert not places["marker"].exists()


def test_an_xformers_own_code_is_passed_over_without_a_word(places, caplog):
    own = {"AutoModelForSeq2SeqLM": "some/one--modeling_xformer.XformerForSeq2SeqLM"}
    change(places["model"] / "config.json", auto_map=own)
    for trusted in (False, True):
        load_model(str(places["model"]), trust_remote_code=trusted)
    assert caplog.text == ""


def test_the_hub_is_asked_once_for_all_files_and_offline_not_at_all(monkeypatch, tmp_path):
    from huggingface_hub import constants

    asked = []
    info = HfApi.model_info
    monkeypatch.setattr(HfApi, "model_info", lambda *args, **more: asked.append(more) or info(*args, **more))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert which_of(["model.safetensors", "pytorch_model.bin"], "some/one") == set() and len(asked) == 1
    assert asked[0]["timeout"] is not None


def test_what_is_asked_for_runs(places, capsys):
    change(places["model"] / "config.json", model_type="planted", auto_map=AUTO_MAP)
    with pytest.raises(SystemExit):  # its weights are not a BART's
        start("generate {model} --input {data} --output {out}", places, "--trust_remote_code")
    assert places["marker"].exists()


def test_a_way_of_decoding_of_its_own_does_not_run_and_that_is_said(places, caplog):
    (places["model"] / "custom_generate").mkdir()
    (places["model"] / "planted.py").rename(places["model"] / "custom_generate/generate.py")
    start("generate {model} --input {data} --output {out}", places)
    assert f"{places['model']}: its custom_generate/generate.py does not run" in caplog.text
    assert places["out"].exists() and not places["marker"].exists()


def test_a_kernel_that_a_configuration_names_is_not_fetched(places, capsys):
    change(places["model"] / "config.json", attn_implementation="some/kernel")
    said = refusal("generate {model} --input {data} --output {out}", places, capsys)
    assert "some/kernel" in said and "--trust_remote_code" in said


def test_pickled_weights_are_read_without_running_them_and_that_is_said(places, caplog):
    class Planted:
        def __reduce__(self):
            return Path.touch, (places["marker"],)

    weights = load_model(str(places["plain"])).state_dict()
    (places["model"] / "model.safetensors").unlink()
    torch.save(weights, places["model"] / "pytorch_model.bin")
    model = load_model(str(places["model"]))
    assert torch.equal(model.lm_head.weight, weights["lm_head.weight"])
    assert f"{places['model']}: its weights are a pickle, pytorch_model.bin" in caplog.text
    torch.save(weights | {"planted": Planted()}, places["model"] / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot load a model"):
        load_model(str(places["model"]))
    assert not places["marker"].exists()


@pytest.mark.slow  # a process of its own
def test_the_first_line_of_the_input_is_no_consent(places):
    change(places["model"] / "config.json", model_type="planted", auto_map=AUTO_MAP)
    done = python("-m", "hf_xformer", "generate", places["model"], cwd=ROOT, input="y\nA B C\n")
    assert done.returncode == 2 and done.stdout == "" and "--trust_remote_code" in done.stderr
    assert not places["marker"].exists()
