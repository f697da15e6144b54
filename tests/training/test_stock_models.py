# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Stock models whose weights are not what transformers says of them: a run saves what it scored, and can go on."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from small_adapters import EXISTING, SAVING
from transformers import (
    AutoTokenizer,
    MarianConfig,
    MarianMTModel,
    PegasusConfig,
    PegasusForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
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
    run = tmp_path / "run"
    options = task.options(run, **EXISTING, model_name_or_path=folder, **best, **evaluating, **more)
    train.main(options)
    state = json.loads((run / "trainer_state.json").read_text())
    saved = load_file(run / "model.safetensors")
    results = json.loads((run / "eval_results.json").read_text())
    assert not torch.equal(saved["lm_head.weight"], saved["shared.weight"])
    assert results["eval_loss"] == pytest.approx(state["best_metric"], abs=1e-5)
    shutil.rmtree(run / "checkpoint-6")
    train.main(options)
    again = load_file(run / "model.safetensors")
    assert all(torch.equal(saved[name], each) for name, each in again.items())


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
    run = tmp_path / "run"
    options = task.options(run, **EXISTING, model_name_or_path=folder, **SAVING, learning_rate=0.1)
    train.main(options)
    saved = load_file(run / "model.safetensors")
    assert tables.keys() == {name for name in saved if "embed_positions" in name}
    assert all(torch.equal(saved[name], each) for name, each in tables.items())
    model = kind.from_pretrained(run)
    computed = kind(model.config).state_dict()  # Marian saves no tables
    assert all(torch.equal(model.state_dict()[name], computed[name]) for name in computed if "embed_positions" in name)
    shutil.rmtree(run / "checkpoint-6")
    train.main(options)
    assert all(torch.equal(saved[name], each) for name, each in load_file(run / "model.safetensors").items())
