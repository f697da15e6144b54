# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Stock models whose weights or losses are not what transformers takes them for: a run does what it says."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from small_adapters import EXISTING, SAVING
from small_runs import run
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    PegasusConfig,
    PegasusForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
    T5GemmaModuleConfig,
)

from hf_xformer.commands import train


SIZES = {"vocab_size": 12, "d_model": 32, "max_position_embeddings": 32}
TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 2}
SMALL_STACKS = {
    f"{stack}_{name}": value
    for stack in ("encoder", "decoder")
    for name, value in {"layers": 1, "attention_heads": 2, "ffn_dim": 32}.items()
}


@pytest.fixture
def base(task, tmp_path):
    """A folder for a stock model, with the tokenizer of the task."""
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base", len(tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.5}], ids=["plain", "averages"])
def test_a_t5_with_an_output_layer_of_its_own_ends_with_the_weights_that_were_scored(more, base, task, tmp_path):
    """transformers has all T5 configurations say that the output layer is the embedding."""
    folder, tokens = base
    sizes = {**SIZES, "vocab_size": tokens, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(**sizes, **TOKENS, feed_forward_proj="gated-gelu"))
    model.lm_head.weight = torch.nn.Parameter(0.2 * torch.randn(tokens, 32))
    model.save_pretrained(folder)
    assert "lm_head.weight" in load_file(folder / "model.safetensors")
    best = {"load_best_model_at_end": "true", "validation_file": task.validation, "learning_rate": 0.1}
    evaluating = {"eval_strategy": "steps", "eval_steps": 3, **SAVING}
    out = tmp_path / "run"
    options = task.options(out, **EXISTING, model_name_or_path=folder, **best, **evaluating, **more)
    train.main(options)
    state = json.loads((out / "trainer_state.json").read_text())
    saved = load_file(out / "model.safetensors")
    results = json.loads((out / "eval_results.json").read_text())
    assert not torch.equal(saved["lm_head.weight"], saved["shared.weight"])
    assert results["eval_loss"] == pytest.approx(state["best_metric"], abs=1e-5)
    shutil.rmtree(out / "checkpoint-6")
    train.main(options)
    again = load_file(out / "model.safetensors")
    assert all(torch.equal(saved[name], each) for name, each in again.items())


def save_stock(kind: str, folder, tokens: int) -> None:
    """Saves a small stock model without dropout."""
    sizes = {**SIZES, "vocab_size": tokens}
    torch.manual_seed(0)
    if kind == "bart":
        none = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)
        model = BartForConditionalGeneration(BartConfig(**sizes, **SMALL_STACKS, **TOKENS, **none))
    elif kind == "t5gemma":
        widths = {"hidden_size": 32, "cross_attention_hidden_size": 32, "intermediate_size": 48, "head_dim": 16}
        counts = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
        module = {"vocab_size": tokens, "query_pre_attn_scalar": 16, **widths, **counts}
        both = {name: T5GemmaModuleConfig(**module) for name in ("encoder", "decoder")}
        none = {"dropout_rate": 0.0, "attention_dropout": 0.0}
        model = T5GemmaForConditionalGeneration(T5GemmaConfig(**both, **TOKENS, **none, vocab_size=tokens))
    else:
        sizes |= {"d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
        model = T5ForConditionalGeneration(T5Config(**sizes, **TOKENS))
    model.save_pretrained(folder)


ADALORA = {"peft_type": "ADALORA", "init_r": 4, "target_r": 2, "total_step": 20, "tinit": 2, "tfinal": 2,
           "target_modules": ["q", "v"]}  # fmt: skip
ONE_STEP = {
    **{"max_steps": 1, "logging_steps": 1, "optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant"},
    **{"max_grad_norm": 0, "group_by_length": "false"},
}


def step_of(folder) -> tuple[dict, dict]:
    """The first logged entry of a run, and its weights."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    (file,) = folder.glob("*model.safetensors")
    return history[0], load_file(file)


def assert_same_step(one, other) -> None:
    (log, weights), (other_log, other_weights) = step_of(one), step_of(other)
    assert other_log["loss"] == pytest.approx(log["loss"], rel=1e-4)
    assert other_log["grad_norm"] == pytest.approx(log["grad_norm"], rel=1e-3)
    for name, each in weights.items():
        torch.testing.assert_close(other_weights[name], each, atol=2e-5, rtol=1e-4)


KINDS = {
    "t5": {},
    "bart": {},
    "t5gemma": {},
    "smoothed": {"label_smoothing_factor": 0.1},
    "adalora": {"peft_config": json.dumps(ADALORA)},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_update_does_not_depend_on_how_a_step_is_shared_out(kind, base, task, tmp_path):
    """Most stock losses are means of each batch, though the Trainer leaves the division to them."""
    folder, tokens = base
    save_stock(kind, folder, tokens)
    options = {**EXISTING, "model_name_or_path": folder, **ONE_STEP, **KINDS[kind]}
    for rows, accumulation in ((8, 1), (2, 4)):
        shared = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulation}
        train.main(task.options(tmp_path / str(rows), **{**options, **shared}))
    assert_same_step(tmp_path / "8", tmp_path / "2")


@pytest.mark.distributed
def test_an_update_of_a_stock_model_does_not_depend_on_the_number_of_processes(base, task, tmp_path):
    folder, tokens = base
    save_stock("t5", folder, tokens)
    options = {**EXISTING, "model_name_or_path": folder, **ONE_STEP}
    train.main(task.options(tmp_path / "one", **options, per_device_train_batch_size=8))
    shared = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    run(task.options(tmp_path / "two", **options, **shared), "cpu-2proc")
    assert_same_step(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "config"), [(MarianMTModel, MarianConfig), (PegasusForConditionalGeneration, PegasusConfig)]
)
def test_tables_that_are_computed_are_not_trained_and_the_run_goes_on(kind, config, base, task, tmp_path):
    """`from_pretrained` forgets that sinusoidal positions have no gradients."""
    folder, tokens = base
    kind(config(**{**SIZES, "vocab_size": tokens}, **SMALL_STACKS, **TOKENS)).save_pretrained(folder)
    tables = {
        name: each for name, each in load_file(folder / "model.safetensors").items() if "embed_positions" in name
    }
    out = tmp_path / "run"
    options = task.options(out, **EXISTING, model_name_or_path=folder, **SAVING, learning_rate=0.1)
    train.main(options)
    saved = load_file(out / "model.safetensors")
    assert tables.keys() == {name for name in saved if "embed_positions" in name}
    assert all(torch.equal(saved[name], each) for name, each in tables.items())
    model = kind.from_pretrained(out)
    computed = kind(model.config).state_dict()  # Marian saves no tables
    assert all(torch.equal(model.state_dict()[name], computed[name]) for name in computed if "embed_positions" in name)
    shutil.rmtree(out / "checkpoint-6")
    train.main(options)
    assert all(torch.equal(saved[name], each) for name, each in load_file(out / "model.safetensors").items())
