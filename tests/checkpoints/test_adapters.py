# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters are found, loaded and merged with the logits of the trained model, or refused by name."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from small_adapters import (
    EXISTING,
    SAVING,
    WEIGHTS,
    adapter_options,
    adapter_weights,
    files,
    logits,
    train_adapter,
    train_and_keep,
    train_base,
)
from small_models import make_batch, make_model, save_checkpoint
from small_runs import refused
from small_stock_models import make_stock
from torch.testing import assert_close
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_xformer.checkpoints import adapters
from hf_xformer.checkpoints.loading import load_model
from hf_xformer.commands import evaluate, generate, info, merge, train
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError
from hf_xformer.training.adapters import add_adapter, make_adapter
from hf_xformer.training.arguments import ModelArguments


@pytest.fixture(scope="module")
def base(task, tmp_path_factory) -> Path:
    return train_base(task, tmp_path_factory.mktemp("base") / "run")


@pytest.fixture
def options(task, base):
    return partial(adapter_options, task, base)


@pytest.fixture(scope="module")
def adapter(task, base, tmp_path_factory) -> Path:
    return train_adapter(task, base, tmp_path_factory.mktemp("adapter") / "run")


@pytest.mark.slow
def test_an_adapter_finds_its_model_from_another_folder(options, base, tmp_path, monkeypatch):
    monkeypatch.chdir(base.parent)
    train.main(options(tmp_path / "run", model_name_or_path=base.name))
    monkeypatch.chdir(tmp_path)
    written = json.loads((tmp_path / "run/adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(base.resolve())
    assert torch.equal(logits(load_model("run")), logits(AutoPeftModelForSeq2SeqLM.from_pretrained("run")))


LAYERS = {"default": {}, "all-linear": {"lora_target_modules": "all-linear"}}


@pytest.mark.slow
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_every_way_of_loading_gives_the_logits_of_the_trained_model(layers, options, base, tmp_path, monkeypatch):
    trained = train_and_keep(monkeypatch, options(tmp_path / "run", **layers))
    expected = logits(trained)
    assert (logits(load_model(str(base))) - expected).abs().max() > 1e-2
    for load in (AutoPeftModelForSeq2SeqLM, AutoModelForSeq2SeqLM):
        assert torch.equal(logits(load.from_pretrained(tmp_path / "run")), expected)
    assert torch.equal(logits(load_model(str(tmp_path / "run"))), expected)
    merge.main([str(tmp_path / "run"), str(tmp_path / "merged")])
    merged = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged")
    assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)
    assert merged.state_dict().keys() == load_model(str(base)).state_dict().keys()


@pytest.mark.slow
def test_two_vocabularies_and_their_tokenizers_come_along(task, tmp_path, monkeypatch):
    source = tmp_path / "tokenizer"
    train_tokenizer(["A B C D E F G H"], "symbol").save_pretrained(source)
    train_tokenizer(["H G F E D C B A Z"], "symbol").save_pretrained(source / "target_tokenizer")
    train.main(task.options(tmp_path / "base", tokenizer_name=source))
    run = {"model_name_or_path": tmp_path / "base", "lora_rank": 2, **SAVING, **EXISTING}
    expected = logits(train_and_keep(monkeypatch, task.options(tmp_path / "run", **run)))
    merge.main([str(tmp_path / "run"), str(tmp_path / "merged")])
    for folder in ("run", "run/checkpoint-3", "merged"):
        assert len(AutoTokenizer.from_pretrained(tmp_path / folder / "target_tokenizer")) == 13
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged").config.tie_word_embeddings
    for folder in ("run", "merged"):
        assert_close(logits(load_model(str(tmp_path / folder))), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits(AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "run")), expected)


def test_info_says_which_adapter_it_is_and_of_which_model(tmp_path, capsys):
    base = save_checkpoint(tmp_path / "base")
    options = {"r": 3, "target_modules": ["v_proj", "q_proj"]}
    adapted = get_peft_model(load_model(str(base)), LoraConfig(task_type="SEQ_2_SEQ_LM", **options))
    adapted.save_pretrained(tmp_path / "adapter")

    def said() -> dict[str, str]:
        info.main([str(tmp_path / "adapter")])
        return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())

    found, trained = said(), adapted.get_nb_trainable_parameters()[0]
    assert found["adapter"].startswith(f"LoRA of {trained:,} parameters in ")
    assert found["options"] == "r=3, lora_alpha=8, target_modules=['q_proj', 'v_proj']"
    assert found["model"] == f"{base} (xformer)" and "hf-xformer merge" in found["merging"]
    assert found["tokenizer"].startswith("WARNING: ")  # PEFT saves none
    shutil.move(base, tmp_path / "moved")
    assert said()["model"].startswith(f"WARNING: {base}: there is no such file or folder")
    (tmp_path / "adapter" / WEIGHTS).write_bytes(b"broken")
    assert f"{WEIGHTS}: not a safetensors file" in refused(info, [tmp_path / "adapter"], capsys)
    (tmp_path / "adapter" / WEIGHTS).unlink()
    assert "there are no weights of the adapter" in refused(info, [tmp_path / "adapter"], capsys)


@pytest.mark.slow
def test_scores_go_along_with_the_weights_that_were_tested_alone(adapter, tmp_path, capsys):
    run = shutil.copytree(adapter, tmp_path / "run")
    (run / "test_results.json").write_text(json.dumps({"metrics": ["per"], "per": 7.5}))
    for dtype, goes_along in (("float32", True), ("bfloat16", False)):
        merge.main([str(run), str(tmp_path / dtype), "--dtype", dtype])
        for name in ("eval_results.json", "test_results.json"):
            assert (tmp_path / dtype / name).exists() is goes_along
        stay = "eval_results.json, test_results.json stay behind: scores of weights in float32"
        assert (stay in capsys.readouterr().out) is not goes_along


@pytest.mark.slow
def test_adapters_decode_as_in_training_and_merged_as_apart(task, adapter, tmp_path, capsys):
    merge.main([str(adapter), str(tmp_path / "merged")])
    words = tmp_path / "words.txt"
    words.write_text("A B C\nH G F E D C B A A\n")
    said = []
    for folder in (adapter, tmp_path / "merged"):
        results = tmp_path / "results.json"
        evaluate.main([str(folder), "--test_file", task.validation, "--metrics", "per", "--output_file", str(results)])
        expected = json.loads((adapter / "eval_results.json").read_text())["eval_per"]
        assert json.loads(results.read_text())["per"] == pytest.approx(expected, abs=1e-3)
        capsys.readouterr()
        generate.main([str(folder), "--input", str(words), "--num_beams", "3", "--n_best", "2"])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and len(said[0].splitlines()) == 4
    # The run's, whose targets are shorter than the base model's may be.
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged").generation_config.max_length == 13
    broken = shutil.copytree(adapter, tmp_path / "broken") / "generation_config.json"
    for content, problem in (("{", "not valid JSON"), ('{"num_beams": 0}', "`num_beams` "), ("[]", "expected a JSON")):
        broken.write_text(content)
        with pytest.raises(ArgumentError, match=f"generation_config.json: {problem}"):
            load_model(str(broken.parent))


def test_merging_leaves_the_output_layer_tied_where_the_source_has_an_embedding_of_its_own(tmp_path):
    stock = make_stock("Marian, separate vocabularies")
    stock.save_pretrained(tmp_path / "stock")
    chosen = {"lora_rank": 2, "lora_target_modules": ["q_proj"]}
    lora = make_adapter(ModelArguments(model_name_or_path=str(tmp_path / "stock"), **chosen), stock.config)
    merged = adapters.merge_adapter(add_adapter(stock, lora, None, print), "")
    expected = logits(merged)
    merged.save_pretrained(tmp_path / "merged")
    assert torch.equal(logits(load_model(str(tmp_path / "merged"))), expected)


def test_without_peft_one_line_says_how_to_install_it(options, adapter, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    advice = "needs PEFT: pip install 'hf-xformer[peft]'"
    # Before the data are read.
    assert f"--lora_rank 4 {advice}" in refused(train, options(tmp_path / "run", train_file="nowhere"), capsys)
    for command, more in ((generate, []), (merge, [tmp_path / "merged"])):
        assert f"{adapter}, an adapter, {advice}" in refused(command, [adapter, *more], capsys)
    assert not (tmp_path / "merged").exists()


def broken(adapter: Path, folder: Path) -> dict[str, torch.Tensor]:
    """A copy of an adapter, and its weights."""
    shutil.copytree(adapter, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    return adapter_weights(folder)


@pytest.mark.slow
def test_a_weight_that_does_not_fit_is_refused_with_its_name(task, adapter, tmp_path, capsys):
    weights = broken(adapter, tmp_path / "broken")
    name = sorted(weights)[3]
    for problem, changed in {
        "missing": {each: weights[each] for each in weights if each != name},
        "unexpected": {**weights, name.replace("layers.0", "layers.7"): weights[name].clone()},
        "mismatched": {**weights, name: weights[name][:, :-1].contiguous()},
    }.items():
        save_file(changed, tmp_path / "broken" / WEIGHTS)
        for command, more in {generate: ["--input", task.train], merge: [tmp_path / "merged"]}.items():
            line = refused(command, [tmp_path / "broken", *more], capsys)
            assert f"{tmp_path}/broken: 1 {problem} weights of the adapter, such as " in line
            assert name.replace("layers.0", "layers.7") in line if problem == "unexpected" else name in line
    (tmp_path / "broken" / WEIGHTS).write_bytes(b"no tensors")
    assert f"{tmp_path}/broken: cannot load an adapter" in refused(generate, [tmp_path / "broken"], capsys)
    (tmp_path / "broken" / WEIGHTS).unlink()
    assert f"{tmp_path}/broken: cannot load an adapter" in refused(generate, [tmp_path / "broken"], capsys)
    assert not (tmp_path / "merged").exists()


def test_an_adapter_whose_model_is_gone_or_not_whole_is_refused(base, adapter, tmp_path, capsys):
    shutil.copytree(base, tmp_path / "base")
    broken(adapter, tmp_path / "broken")
    path = tmp_path / "broken/adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": str(tmp_path / "base")}))
    load_model(str(tmp_path / "broken"))
    weights = load_file(tmp_path / "base/model.safetensors")
    name = next(name for name in weights if name.endswith("o_proj.weight"))
    save_file({each: weights[each] for each in weights if each != name}, tmp_path / "base/model.safetensors")
    line = refused(generate, [tmp_path / "broken"], capsys)
    why = f"the model that it is an adapter of, as its adapter_config.json says: {tmp_path}/base: 1 missing"
    assert f"{tmp_path}/broken: {why}" in line and name in line
    shutil.rmtree(tmp_path / "base")
    line = refused(generate, [tmp_path / "broken"], capsys)
    assert f"{tmp_path}/broken" in line and f"{tmp_path}/base: there is no such file or folder" in line
    path.write_text(json.dumps({**config, "base_model_name_or_path": None}))
    assert "does not say which model it is an adapter of" in refused(generate, [tmp_path / "broken"], capsys)
    path.write_text(json.dumps(config))
    shutil.copy(base / "config.json", tmp_path / "broken")
    assert "holds both a model and an adapter" in refused(generate, [tmp_path / "broken"], capsys)


def test_what_cannot_be_merged_is_refused_and_nothing_overwritten(base, adapter, tmp_path, capsys):
    assert f"{base}: not an adapter" in refused(merge, [base, tmp_path / "out"], capsys)
    assert "nowhere" in refused(merge, [tmp_path / "nowhere", tmp_path / "out"], capsys)
    for taken in (adapter, base):
        before = files(taken)
        assert f"would overwrite {taken}" in refused(merge, [adapter, taken, "--overwrite"], capsys)
        assert files(taken) == before
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    assert "--overwrite writes into it all the same" in refused(merge, [adapter, tmp_path / "out"], capsys)
    assert os.listdir(tmp_path / "out") == ["notes.txt"]
    train_tokenizer(["Z"], "symbol").save_pretrained(tmp_path / "out/target_tokenizer")  # an earlier model's
    merge.main([str(adapter), str(tmp_path / "out"), "--overwrite"])
    load_model(str(tmp_path / "out"))
    merge.main([str(adapter), str(tmp_path / "alone")])
    assert set(os.listdir(tmp_path / "out")) == {*os.listdir(tmp_path / "alone"), "notes.txt"}
    assert "not a folder" in refused(merge, [adapter, tmp_path / "out/notes.txt"], capsys)


@pytest.mark.parametrize("layer", ["embed_tokens", "lm_head"])
def test_an_adapter_of_a_shared_weight_decodes_and_is_not_merged(layer, tmp_path):
    """PEFT adapts one use of the weight, and merging by it changes the others too."""
    make_model().save_pretrained(tmp_path / "base")
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=[layer], init_lora_weights=False)
    adapted = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base"), lora).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    batch = make_batch()
    assert_close(load_model(str(tmp_path / "adapter"))(**batch).logits, adapted(**batch).logits)
    with pytest.raises(ArgumentError, match=rf"a weight with several uses \(.*{layer}"):
        adapters.merge_adapter(adapted, "adapter")


@pytest.mark.parametrize(
    ("fields", "tokens", "merges"),
    [
        ({}, [5, 6], True),
        ({}, {"embed_tokens": [5, 6]}, False),  # PEFT learns other rows for the decoder than for the encoder
        ({"tie_word_embeddings": False}, [5, 6], False),  # and none here
        ({"encoder_vocab_size": 61}, [5, 6], True),
        ({"encoder_vocab_size": 61}, {"embed_tokens": [5, 6]}, False),  # none in the output layer
    ],
)
def test_trained_tokens_are_merged_where_all_uses_have_the_same(fields, tokens, merges):
    model = make_model(**fields).eval()
    batch = make_batch()
    plain = model(**batch).logits
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", trainable_token_indices=tokens)).eval()
    assert_close(adapted(**batch).logits, plain)
    with torch.no_grad():
        for parameter in filter(lambda parameter: parameter.requires_grad, adapted.parameters()):
            parameter.add_(torch.randn_like(parameter) / 10)
    expected = adapted(**batch).logits
    if merges:
        assert_close(adapters.merge_adapter(adapted, "adapter")(**batch).logits, expected, atol=1e-4, rtol=1e-4)
    else:
        with pytest.raises(ArgumentError, match="a weight with several uses"):
            adapters.merge_adapter(adapted, "adapter")


@pytest.mark.parametrize(
    ("fields", "lora"),
    [
        ({}, {"modules_to_save": ["lm_head"]}),
        ({}, {"modules_to_save": ["embed_tokens"]}),
        ({"encoder_vocab_size": 61}, {"target_modules": ["embed_tokens"]}),
    ],
)
def test_an_adapter_of_embeddings_loads_here_as_in_peft(fields, lora, tmp_path):
    make_model(**fields).save_pretrained(tmp_path / "base")
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", init_lora_weights=False, **lora)
    adapted = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base"), lora).eval()
    with torch.no_grad():
        for parameter in filter(lambda parameter: parameter.requires_grad, adapted.parameters()):
            parameter.add_(torch.randn_like(parameter) / 10)
    adapted.save_pretrained(tmp_path / "adapter")
    assert_close(load_model(str(tmp_path / "adapter"))(**make_batch()).logits, adapted(**make_batch()).logits)


def test_an_adapter_of_a_resized_model_loads_here_as_in_peft(tmp_path):
    tokenizer = train_tokenizer((" ".join(f"s{n}" for n in range(38)),), "symbol")
    make_model().save_pretrained(tmp_path / "base")
    model = load_model(str(tmp_path / "base"))
    tokenizer.add_tokens([f"<n{n}>" for n in range(4)])
    model.resize_token_embeddings(len(tokenizer))
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", init_lora_weights=False)).eval()
    for each in (adapted, tokenizer):
        each.save_pretrained(tmp_path / "adapter")
    expected = adapted(**make_batch()).logits
    theirs = AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "adapter").eval()
    assert_close(theirs(**make_batch()).logits, expected)
    assert_close(load_model(str(tmp_path / "adapter"))(**make_batch()).logits, expected)
