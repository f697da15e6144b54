# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Configurations and models that cannot be had are refused in one line that says by whom and for what."""

import importlib.util
import re

import pytest
import torch
from small_models import make_model

from hf_xformer import XformerConfig
from hf_xformer.checkpoints.loading import (
    attention_on,
    change_config,
    load_config,
    load_model,
    load_tokenizer,
    read_config,
)
from hf_xformer.checkpoints.vocabulary import check_decoder_start, check_same_tokens, check_vocabulary, fit_vocabulary
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError


@pytest.fixture
def tiny(tmp_path) -> str:
    XformerConfig(d_model=16, encoder_layers=1, decoder_layers=1).to_json_file(tmp_path / "tiny.json")
    return str(tmp_path / "tiny.json")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"d_modle": 8}, "--config_overrides: XformerConfig has no field d_modle; did you mean d_model?"),
        ({"num_global_tokens": -3}, "--config_overrides: `num_global_tokens` must not be negative, got -3"),
        ({"dropout": "much"}, "--config_overrides: Field 'dropout' with value 'much'"),
        ({"dropout": 5.0}, "--config_overrides: `dropout` is a probability between 0 and 1, got 5.0"),
        ({"block_size": "3x"}, "--config_overrides: Field 'block_size' expected int, got str (value: '3x')"),
    ],
)
def test_a_field_that_is_refused_is_said_to_be_of_the_overrides(overrides, said, tiny):
    with pytest.raises(ArgumentError) as error:
        load_config(tiny, overrides)
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "valid JSON"),
        ("[]", ""),
        ('{"model_type": "xfromer"}', "xfromer"),
        ('{"model_type": "t5"}', "model_type 't5' is not 'xformer'"),
        ('{"model_type": "xformer", "num_global_tokens": -1}', "must not be negative, got -1"),
        ('{"model_type": "xformer", "dropout": "much"}', "'much'"),
        ('{"model_type": "xformer", "d_modle": 1}', "no field d_modle"),
    ],
)
def test_a_file_that_is_refused_is_said_to_be_of_its_option(content, said, tmp_path):
    (tmp_path / "tiny.json").write_text(content)
    with pytest.raises(ArgumentError, match=f"^--config_name {tmp_path}/tiny.json: ") as error:
        load_config(str(tmp_path / "tiny.json"), {})
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_value_that_is_refused_of_an_existing_or_a_fitted_model_is_said_so():
    with pytest.raises(ArgumentError, match="--config_overrides: `dropout` is a probability .*got 7"):
        change_config(make_model().config, {"dropout": 7.0})
    tokenizer = train_tokenizer(["A B"], "symbol")
    with pytest.raises(ArgumentError, match="--config_overrides: .*decoder_start_token_id.*got 55"):
        fit_vocabulary(XformerConfig(), tokenizer, tokenizer, {"decoder_start_token_id": 55})


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="FlashAttention is installed")
def test_an_attention_that_is_not_installed_is_an_input_error(tmp_path):
    make_model().save_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match=f"{tmp_path}: cannot load a model: .*[Ff]lash"):
        load_model(str(tmp_path), attn_implementation="flash_attention_2")


def test_a_name_that_is_nowhere_is_answered_with_the_folder_that_there_is_not(tmp_path, monkeypatch):
    """The Hub is out of reach here, or has no such repository."""
    monkeypatch.chdir(tmp_path)
    for beside, meant in (("other", ""), ("no-such-models", "; did you mean no-such-models?")):
        (tmp_path / beside).mkdir()
        said = re.escape(f"(nor is there a folder {tmp_path / 'no-such-model'}{meant})")
        for load in (load_model, load_tokenizer, read_config):
            with pytest.raises(ArgumentError, match=f"no-such-model: cannot (load|read) .*{said}$"):
                load("no-such-model")


def test_a_tokenizer_that_is_broken_is_an_input_error(tmp_path):
    train_tokenizer(["A B"], "symbol").save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArgumentError, match=f"{tmp_path}: cannot load a tokenizer: "):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(
        ArgumentError, match="tokenizer.json is missing; copy it from the tokenizer that the model was"
    ):
        load_tokenizer(str(tmp_path))


def test_another_tokenizer_may_add_tokens_and_not_change_them():
    own, more, other = (train_tokenizer([text], "symbol") for text in ("A B", "A B", "B C"))
    more.add_tokens(["Z"])
    check_same_tokens(own, more, "--tokenizer_name more")
    with pytest.raises(ArgumentError, match="^--tokenizer_name other: other tokens than those of"):
        check_same_tokens(own, other, "--tokenizer_name other")


@pytest.mark.parametrize("name", ["decoder_start_token_id", "pad_token_id"])
def test_a_model_whose_decoder_cannot_start_is_refused_by_the_fields_name(name):
    config = make_model().config
    check_decoder_start(config)
    setattr(config, name, None)
    with pytest.raises(ArgumentError, match=f"`{name}` is null"):
        check_decoder_start(config)


@pytest.mark.parametrize(
    ("device", "version", "options"),
    [
        ("mps", "2.12.1", {"attn_implementation": "eager"}),
        ("mps", "2.13.0", {}),
        ("cpu", "2.12.1+cpu", {}),
        ("cuda", "2.11.0+cu130", {}),
    ],
)
def test_attention_that_torch_has_wrong_is_not_taken(device, version, options, monkeypatch):
    monkeypatch.setattr(torch, "__version__", version)
    assert attention_on(torch.device(device)) == options


@pytest.mark.parametrize(
    ("own", "remedy"), [(0, ""), (None, "; where it needs none: tokenizer.pad_token = None, and save it")]
)
def test_a_special_token_that_the_model_lacks_may_be_left_out_of_the_tokenizer(own, remedy):
    tokenizer = train_tokenizer(["A B"], "symbol")
    tokenizer.pad_token = "<unk>"
    config = make_model(vocab_size=len(tokenizer)).config
    config.pad_token_id = own
    with pytest.raises(ArgumentError) as error:
        check_vocabulary(config, tokenizer, tokenizer)
    assert str(error.value).endswith(f"has `pad_token_id` 3, the model has {own}{remedy}")
