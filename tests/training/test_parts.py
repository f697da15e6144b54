# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of a model by name: frozen ones stay as they were, others have learning rates of their own."""

import json
import shutil

import pytest
import torch
from accelerate.utils import DeepSpeedPlugin
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from small_models import make_model
from small_runs import SMALL, nightly, refused, refused_unread, run, stop_after, weights
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

from hf_xformer.commands import train
from hf_xformer.errors import ArgumentError
from hf_xformer.training.arguments import ModelArguments
from hf_xformer.training.option_checks import check_optimizing
from hf_xformer.training.parts import freeze, multipliers_of, parse_multipliers


def frozen(model) -> set[str]:
    return {name for name, each in model.named_parameters() if not each.requires_grad}


def test_a_part_is_a_module_a_weight_or_a_pattern():
    names = [name for name, _ in make_model(tie_word_embeddings=False).named_parameters()]
    for patterns, expected in {
        ("decoder.layers.0",): {name for name in names if ".decoder.layers.0." in name},
        ("model.decoder.layers.0.*",): {name for name in names if ".decoder.layers.0." in name},
        ("*.q_proj", "lm_head"): {name for name in names if "q_proj" in name or "lm_head" in name},
        ("encoder.norm.weight",): {"model.encoder.norm.weight"},
        ("embeddings",): {"model.encoder.embed_tokens.weight"},
    }.items():
        model = make_model(tie_word_embeddings=False)
        freeze(model, patterns)
        assert frozen(model) == expected and expected


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["encodr"], r"--freeze encodr: no weight of the model has such a name; did you mean encoder\?"),
        (["decoder.layers.9"], r"did you mean decoder\.layers\.\d"),
        (["lm_head"], "one weight: give all of its names, or embeddings"),
        (["*"], "leaves none to train"),
    ],
)
def test_a_pattern_that_means_nothing_is_refused(patterns, message):
    with pytest.raises(ArgumentError, match=message):
        freeze(make_model(), patterns)


STOCK = {"vocab_size": 40, "d_model": 16}


@pytest.mark.parametrize(
    "make",
    [
        make_model,
        lambda: BartForConditionalGeneration(BartConfig(**STOCK, encoder_layers=1, decoder_layers=1)),
        lambda: T5ForConditionalGeneration(T5Config(**STOCK, d_ff=16, num_layers=1)),
    ],
    ids=["xformer", "bart", "t5"],
)
def test_a_tied_embedding_is_trained_where_one_of_its_owners_is_frozen_and_that_is_said(make):
    said: list[str] = []
    model = make()
    freeze(model, ["encoder"], said.append)
    assert model.get_input_embeddings().weight.requires_grad and model.get_output_embeddings().weight.requires_grad
    assert frozen(model) and all("encoder." in name for name in frozen(model))
    count = sum(each.numel() for each in model.parameters() if not each.requires_grad)
    assert f"{count:,} of {sum(each.numel() for each in model.parameters()):,} parameters" in said[0]
    assert "trained all the same: it is tied to" in said[1] and "lm_head.weight" in said[1]
    freeze(model, ["embeddings", "encoder"], said.append)
    assert not model.get_output_embeddings().weight.requires_grad


def test_factors_of_overlapping_parts_multiply():
    model = make_model(encoder_vocab_size=29)
    found = multipliers_of(model, {"encoder": 0.1, "embeddings": 0.5, "*.norm.weight": 3.0})
    by_name = {name: found[each] for name, each in model.named_parameters()}
    assert by_name["model.encoder.embed_tokens.weight"] == pytest.approx(0.05)
    assert by_name["model.decoder.embed_tokens.weight"] == 0.5
    assert by_name["model.encoder.norm.weight"] == pytest.approx(0.3)
    assert by_name["model.decoder.layers.0.self_attention.q_proj.weight"] == 1.0


def test_factors_are_a_mapping_or_a_text():
    expected = {"encoder": 0.1, "*.q_proj": 2.0}
    assert parse_multipliers("encoder=0.1,*.q_proj=2") == expected
    assert parse_multipliers('{"encoder": 0.1, "*.q_proj": 2}') == parse_multipliers(expected) == expected


WRONG = {
    "no part": (
        {"lr_multipliers": "encodr=0.1"},
        "--lr_multipliers encodr: no weight of the model has such a name; did",
    ),
    "zero": ({"lr_multipliers": "encoder=0"}, "expected a number above 0, got 0; --freeze encoder"),
    "no number": ({"lr_multipliers": "encoder=fast"}, "expected a number above 0, got 'fast'"),
    "doubled": ({"lr_multipliers": "encoder=0.1, encoder=0.5"}, "--lr_multipliers: 'encoder' stands there twice"),
    "no mapping": ({"lr_multipliers": '{"a":'}, "--lr_multipliers: line 1, column 6"),
    "no factor": ({"lr_multipliers": "encoder"}, "expected 'part=factor,...'"),
    "one of two names": ({"lr_multipliers": "lm_head=2"}, "one weight: give embeddings"),
    "frozen": ({"freeze": "decodr"}, "--freeze decodr: no weight of the model has such a name; did you mean decoder"),
}


@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG)
def test_wrong_parts_are_one_line_before_the_data_are_read(changes, said, task, tmp_path, capsys):
    assert said in refused(train, task.options(tmp_path / "run", **changes), capsys)
    assert not (tmp_path / "run").exists()


SAVING = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "weight_decay": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [({}, "this run trains 26: another --freeze?"), ({"ema_decay": 0.5}, "not the averages of this run's model")],
    ids=["plain", "averages"],
)
def test_frozen_parts_stay_as_they_were_and_a_resumed_run_ends_alike(more, said, task, tmp_path, capsys):
    dropout = SMALL.replace("dropout=0.0", "dropout=0.1")
    options = {**SAVING, "freeze": "encoder", "config_overrides": dropout, **more}
    out = tmp_path / "run"
    train.main(task.options(out, **options))
    assert "--freeze encoder: " in capsys.readouterr().out
    first, last = load_file(out / "checkpoint-3/model.safetensors"), load_file(out / "checkpoint-6/model.safetensors")
    for name in first:
        assert torch.equal(first[name], last[name]) == name.startswith(("model.encoder.layers", "model.encoder.norm"))
    for path in out.glob("checkpoint-6/averages.safetensors"):
        assert not any(name.startswith("model.encoder.layers") for name in load_file(path))
    assert json.loads((out / "run.json").read_text())["optimisation"]["freeze"].startswith("encoder (")
    assert "| freeze | encoder (" in (out / "README.md").read_text()
    unbroken = weights(out)
    stop_after(out, 3)
    train.main(task.options(out, **options))
    assert torch.equal(weights(out), unbroken)
    stop_after(out, 3)
    options |= {"freeze": None, "change_recipe": "true"}
    assert said in (line := refused(train, task.options(out, **options), capsys))
    assert "--resume_from_checkpoint false starts anew" in line


@pytest.mark.slow
def test_parts_train_at_their_own_rates_as_with_torch_alone(task, tmp_path):
    """At the first step AdamW moves every weight by the learning rate, whatever its gradient."""
    options = {"max_steps": 1, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "weight_decay": 0.0}
    more = {"lr_multipliers": "encoder=0.1,embeddings=0.5,lm_head=3"}
    overrides = f"{SMALL},tie_word_embeddings=false,encoder_vocab_size=12"
    for name, given in (("before", {"learning_rate": 0.0}), ("plain", {}), ("parts", more)):
        train.main(task.options(tmp_path / name, **{**options, "config_overrides": overrides, **given}))
    before, plain, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("before", "plain", "parts"))
    for name, weight in before.items():
        factor = 1.0
        factor *= 0.1 if ".encoder." in name else 1.0
        factor *= 0.5 if "embed_tokens" in name else 1.0
        factor *= 3.0 if "lm_head" in name else 1.0
        torch.testing.assert_close(parts[name] - weight, factor * (plain[name] - weight), atol=2e-8, rtol=1e-3)


@pytest.mark.slow
def test_rates_of_parts_resume_and_change_on_the_way(task, tmp_path):
    options = {**SAVING, "lr_multipliers": '{"encoder": 0.1, "decoder.layers.0": 2}', "logging_steps": 1}
    out = tmp_path / "run"
    train.main(task.options(out, **options))
    unbroken = weights(out)
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert history[0]["learning_rate"] == pytest.approx(1e-2)  # of the weights without a factor
    groups = torch.load(out / "checkpoint-3/optimizer.pt")["param_groups"]
    assert [group["lr_multiplier"] for group in groups] == pytest.approx([1.0, 1.0, 0.1, 2.0, 0.1, 2.0])
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.1, 0.1, 0.0, 0.0]
    stop_after(out, 3)
    shutil.copytree(out, tmp_path / "other")
    train.main(task.options(out, **options))
    assert torch.equal(weights(out), unbroken)
    changed = {**options, "learning_rate": 1e-4, "weight_decay": 0.2, "change_recipe": "true"}
    train.main(task.options(tmp_path / "other", **changed))
    groups = torch.load(tmp_path / "other/checkpoint-6/optimizer.pt")["param_groups"]
    assert [group["initial_lr"] for group in groups] == pytest.approx(
        [1e-4 * group["lr_multiplier"] for group in groups]
    )
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0, 0.2, 0.2, 0.0, 0.0]


def test_adapters_leave_nothing_to_freeze_and_have_factors_by_their_names(task, tmp_path, capsys):
    adapted = {"lora_rank": 2, "model_name_or_path": ".", "config_name": None, "config_overrides": None}
    line = refused_unread(task, tmp_path / "run", capsys, freeze="encoder", **adapted)
    assert "--freeze: adapters leave all weights of the model as they are" in line
    model = get_peft_model(make_model(), LoraConfig(target_modules=["q_proj"]))
    found = multipliers_of(model, {"*.lora_B": 16.0})
    factors = {found[each] for name, each in model.named_parameters() if "lora_B" in name}
    assert factors == {16.0} and {found[each] for each in model.parameters()} == {1.0, 16.0}


@pytest.mark.distributed
@pytest.mark.parametrize("mode", ["zero2", *nightly("cpu-2proc", "zero3")])
def test_two_processes_train_parts_as_one_does(mode, task, tmp_path):
    train.main(task.options(tmp_path / "base", max_steps=1))
    options = {"model_name_or_path": tmp_path / "base", "config_name": None, "config_overrides": None}
    options |= {"tokenizer_name": None, "learning_rate": 1e-3, "weight_decay": 0.1}
    options |= {"freeze": "encoder.norm", "lr_multipliers": "encoder=0.1,embeddings=0.5"}
    train.main(task.options(tmp_path / "one", **options, per_device_train_batch_size=16))
    run(task.options(tmp_path / "two", **options, per_device_train_batch_size=8), mode)
    one, two, base = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "base"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-5, rtol=0)
        assert torch.equal(weight, base[name]) == (name == "model.encoder.norm.weight")
    moved = [(one[name] - weight).abs().max() for name, weight in base.items() if "q_proj" in name]
    assert moved[-1] < moved[0] / 5  # the decoder's come first


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("optimizer", {"type": "AdamW", "params": {"lr": 1e-3}}),
        ("scheduler", {"type": "WarmupLR", "params": {"warmup_num_steps": 5}}),
    ],
)
def test_rates_that_deepspeed_would_pass_over_are_refused(name, own, tmp_path):
    pytest.importorskip("deepspeed")
    args = Seq2SeqTrainingArguments(tmp_path, use_cpu=True)
    args.deepspeed_plugin = DeepSpeedPlugin(hf_ds_config={"zero_optimization": {"stage": 1}, name: own})
    with pytest.raises(ArgumentError, match=f"--lr_multipliers: DeepSpeed's own `{name}` knows one rate"):
        check_optimizing(ModelArguments(lr_multipliers={"encoder": 0.1}), args)
    check_optimizing(ModelArguments(), args)
