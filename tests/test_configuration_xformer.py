# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration keeps the contract: its fields and defaults, and what it refuses by name and value."""

import json

import pytest
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from hf_xformer import XformerConfig, XformerForSeq2SeqLM


CONTRACT = {
    "vocab_size": 32000, "encoder_vocab_size": None, "d_model": 512, "encoder_layers": 6, "decoder_layers": 6,
    "encoder_attention_heads": 8, "decoder_attention_heads": 8, "num_key_value_heads": None, "head_dim": None,
    "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "activation_function": "silu", "gated_ffn": True,
    "norm_type": "rmsnorm", "norm_position": "pre", "norm_eps": 1e-6, "use_bias": False, "qk_norm": False,
    "position_embedding_type": "rope", "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "max_position_embeddings": 2048, "encoder_layer_types": ["full_attention"] * 6,
    "decoder_layer_types": ["full_attention"] * 6, "block_size": 64, "block_shift": True, "num_global_tokens": 0,
    "dropout": 0.1, "attention_dropout": 0.0, "activation_dropout": 0.0, "scale_embedding": True,
    "layernorm_embedding": False, "use_final_logits_bias": False, "tie_word_embeddings": True,
    "initializer_range": 0.02, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip


def test_defaults_are_the_contract():
    config = XformerConfig()
    assert {name: getattr(config, name) for name in CONTRACT} == CONTRACT
    assert config.model_type == "xformer" and config.is_encoder_decoder


def test_aliases_read_and_write_the_same_field():
    config = XformerConfig(hidden_size=96, decoder_layers=4)
    assert config.d_model == config.hidden_size == 96
    assert config.num_hidden_layers == config.decoder_layers == 4
    assert config.attention_chunk_size == config.sliding_window == config.block_size


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoder_layers", -1),
        ("decoder_layers", 0),
        ("vocab_size", 0),
        ("dropout", 5.0),
        ("attention_dropout", -0.1),
        ("encoder_attention_heads", 7),
        ("num_key_value_heads", 3),
        ("head_dim", 5),
        ("activation_function", "sillu"),
        ("norm_type", "batchnorm"),
        ("norm_position", "middle"),
        ("position_embedding_type", "alibi"),
        ("block_size", 0),
        ("num_global_tokens", -1),
        ("d_model", "512"),
        ("initializer_range", 0.0),
        ("encoder_layer_types", ["full_attention"]),
        ("decoder_layer_types", ["block_attention"] * 6),
        ("rope_parameters", {"rope_type": "spiral", "rope_theta": 1e4}),
        ("rope_parameters", {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [], "long_factor": []}),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
    ],
)
def test_values_out_of_range_are_refused_with_the_value(field, value):
    # The library's validators raise classes of their own, which share no base but Exception.
    with pytest.raises(Exception) as refused:  # noqa: B017
        XformerConfig(**{field: value})
    shown = value if not isinstance(value, dict) else value["rope_type"] if "partial" not in str(value) else "partial"
    assert str(shown) in str(refused.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("position_embedding_type", "relative"),
        ("encoder_layer_types", ["chunked_attention"] * 6),
        ("decoder_layer_types", ["sliding_attention"] * 6),
        ("qk_norm", True),
        ("num_global_tokens", 4),
        ("encoder_vocab_size", 100),
    ],
)
def test_what_is_not_implemented_yet_is_refused_by_name(field, value):
    with pytest.raises(NotImplementedError, match=field):
        XformerConfig(**{field: value})


@pytest.mark.parametrize("preset", ["vanilla-base", "modern-base", "tiny"])
def test_presets_are_files_of_known_fields_that_build_through_the_auto_classes(preset, repository):
    path = repository / f"configs/model/{preset}.json"
    known = XformerConfig.__dataclass_fields__
    assert [name for name in json.loads(path.read_text()) if name not in known and name != "model_type"] == []
    config = AutoConfig.from_pretrained(path, vocab_size=40)
    config.encoder_layer_types = config.decoder_layer_types = ["full_attention"]
    config.encoder_layers = config.decoder_layers = 1
    assert isinstance(AutoModelForSeq2SeqLM.from_config(config), XformerForSeq2SeqLM)


def test_vanilla_base_is_the_papers(repository):
    """Vaswani et al. 2017, sections 3, 5.1 and 5.4, table 3 (base)."""
    config = XformerConfig.from_json_file(repository / "configs/model/vanilla-base.json")
    paper = {
        "d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
        "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "dropout": 0.1,
        "attention_dropout": 0.0, "activation_function": "relu", "norm_position": "post", "norm_type": "layernorm",
        "position_embedding_type": "sinusoidal", "use_bias": True, "gated_ffn": False, "scale_embedding": True,
        "tie_word_embeddings": True, "vocab_size": 37000,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in paper} == paper
