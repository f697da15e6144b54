# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration keeps the contract: its fields and defaults, and what it refuses by name and value."""

import json

import pytest
import torch
from small_models import make_batch, make_model
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from hf_xformer import XformerConfig, XformerForSeq2SeqLM
from hf_xformer.models.configuration_xformer import FORMAT_VERSION
from hf_xformer.models.versions_xformer import CACHE


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
        ("attention_multiplier", 0.0),
        ("relative_attention_num_buckets", 3),
        ("relative_attention_max_distance", 16),
        ("encoder_vocab_size", 0),
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


@pytest.mark.parametrize("field", ["encoder_layer_types", "decoder_layer_types"])
def test_relative_positions_are_refused_with_block_layers(field):
    with pytest.raises(Exception, match=r"relative.*chunked_attention"):
        XformerConfig(position_embedding_type="relative", **{field: ["full_attention"] * 5 + ["chunked_attention"]})


CHUNKED = {"encoder_layer_types": ["chunked_attention"] * 2}
# Fields that act only where another has a certain value -> that other, and then a value unlike the default.
UNLIKE_THE_DEFAULT = {
    "vocab_size": ({}, 59),
    "encoder_vocab_size": ({}, 61),
    "d_model": ({}, 24),
    "encoder_layers": ({}, 1),
    "decoder_layers": ({}, 1),
    "encoder_attention_heads": ({}, 2),
    "decoder_attention_heads": ({}, 2),
    "num_key_value_heads": ({}, 2),
    "head_dim": ({}, 6),
    "encoder_ffn_dim": ({}, 39),
    "decoder_ffn_dim": ({}, 39),
    "activation_function": ({}, "relu"),
    "gated_ffn": ({}, False),
    "norm_type": ({}, "layernorm"),
    "norm_position": ({}, "sandwich"),
    "norm_eps": ({}, 1e-2),
    "use_bias": ({}, True),
    "qk_norm": ({}, True),
    "attention_multiplier": ({}, 1.0),
    "position_embedding_type": ({}, "none"),
    "rope_parameters": ({}, {"rope_type": "default", "rope_theta": 50.0}),
    "max_position_embeddings": ({"position_embedding_type": "sinusoidal"}, 63),
    "relative_attention_num_buckets": ({"position_embedding_type": "relative"}, 8),
    "relative_attention_max_distance": (
        {"position_embedding_type": "relative", "relative_attention_num_buckets": 8}, 20,
    ),
    "relative_attention_per_layer": ({"position_embedding_type": "relative"}, True),
    "encoder_layer_types": ({"block_size": 4}, ["full_attention", "chunked_attention"]),
    "decoder_layer_types": ({"block_size": 4}, ["full_attention", "sliding_attention", "full_attention"]),
    "block_size": (CHUNKED, 4),
    "block_shift": (CHUNKED | {"block_size": 4}, False),
    "num_global_tokens": (CHUNKED | {"block_size": 4}, 2),
    "dropout": ({}, 0.3),
    "attention_dropout": ({}, 0.3),
    "activation_dropout": ({}, 0.3),
    "scale_embedding": ({}, False),
    "freeze_pad_embedding": ({}, False),
    "layernorm_embedding": ({}, True),
    "use_final_logits_bias": ({}, True),
    "scale_decoder_outputs": ({}, True),
    "label_smoothing": ({}, 0.1),
    "tie_word_embeddings": ({}, False),
    "initializer_range": ({}, 0.1),
    "use_cache": ({}, False),
    "pad_token_id": ({}, 3),
    "eos_token_id": ({}, 47),  # which the model generates
    "bos_token_id": ({"decoder_start_token_id": None}, 3),
    "decoder_start_token_id": ({}, 3),
}  # fmt: skip


def behaviour(**overrides) -> dict:
    """All that a model with these options has and does, in training, in evaluation and in generation."""
    model, batch = make_model(**overrides), make_batch()
    if model.config.decoder_start_token_id is None:
        batch["decoder_input_ids"] = batch["labels"].clamp(min=0)
    seen = {"weights": model.state_dict(), "buffers": dict(model.named_buffers())}
    seen["evaluation"] = model(**batch).logits
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    seen["tokens"] = model.generate(**source, max_new_tokens=6, do_sample=False)
    seen["cached"] = model(**source, decoder_input_ids=batch["labels"].clamp(min=0)).get(CACHE) is not None
    torch.manual_seed(5)
    seen["training"] = model.train()(**batch).loss
    return seen


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(scope="module")
def without():
    """Behaviour of a model without a field, by the options that the field needs; it is the same a second time."""
    seen = {}

    def behaviour_without(needed: dict) -> dict:
        if str(needed) not in seen:
            seen[str(needed)] = behaviour(**needed)
            assert same(seen[str(needed)], behaviour(**needed))
        return seen[str(needed)]

    return behaviour_without


@pytest.mark.parametrize(("field", "case"), UNLIKE_THE_DEFAULT.items(), ids=UNLIKE_THE_DEFAULT)
def test_every_field_changes_what_the_model_is_or_does(field, case, without):
    needed, value = case
    assert not same(without(needed), behaviour(**needed, **{field: value}))


def test_no_field_is_left_that_does_nothing():
    own = {name for name in XformerConfig.__annotations__ if name in XformerConfig.__dataclass_fields__}
    assert own - UNLIKE_THE_DEFAULT.keys() == {"is_encoder_decoder", "format_version"}


def test_a_checkpoint_of_a_later_version_is_refused_and_what_to_do_is_said(tmp_path):
    XformerConfig().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    assert fields["format_version"] == FORMAT_VERSION
    path.write_text(json.dumps({**fields, "format_version": FORMAT_VERSION + 1}))
    with pytest.raises(
        Exception, match=f"`format_version` is {FORMAT_VERSION + 1}, .*pip install --upgrade hf-xformer"
    ):
        AutoConfig.from_pretrained(tmp_path)


def test_a_decoder_alone_is_refused():
    with pytest.raises(Exception, match="is_encoder_decoder"):
        XformerConfig(is_encoder_decoder=False)


@pytest.mark.parametrize("preset", ["vanilla-base", "modern-base", "long", "tiny"])
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
