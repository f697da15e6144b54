# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What a config and a checkpoint must keep, and what loading must say when something is missing."""

import copy
import json
import pickle

import pytest
import torch
from accelerate import disk_offload
from safetensors.torch import load_file, save_file
from small_models import SIZES, VARIANTS, make_batch, make_model
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoModelForTextEncoding

from hf_xformer import XformerConfig, XformerEncoderModel, XformerForSeq2SeqLM, XformerModel


variants = pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
SHARED = ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")

# No field at its default.
EVERY_FIELD = {
    **SIZES,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "activation_function": "gelu",
    "gated_ffn": False,
    "norm_type": "layernorm",
    "norm_position": "post",
    "norm_eps": 1e-5,
    "use_bias": True,
    "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0},
    "encoder_vocab_size": 50,
    "qk_norm": True,
    "attention_multiplier": 0.5,
    "position_embedding_type": "learned",
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "relative_attention_per_layer": True,
    "scale_decoder_outputs": True,
    "dropout": 0.2,
    "attention_dropout": 0.3,
    "activation_dropout": 0.4,
    "scale_embedding": False,
    "freeze_pad_embedding": False,
    "encoder_layer_types": ["chunked_attention", "sliding_attention"],
    "decoder_layer_types": ["sliding_attention", "full_attention", "chunked_attention"],
    "block_size": 5,
    "block_shift": False,
    "num_global_tokens": 3,
    "layernorm_embedding": True,
    "use_final_logits_bias": True,
    "tie_word_embeddings": False,
    "use_cache": False,
    "pad_token_id": 3,
    "eos_token_id": [4, 5],
    "bos_token_id": 6,
    "decoder_start_token_id": 7,
}
CONFIGS = {"defaults": {}, "every-field": EVERY_FIELD, **{name: {**SIZES, **VARIANTS[name]} for name in VARIANTS}}


def same(config) -> dict:
    """What must be the same: everything but where the config was read from."""
    return {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS)
def test_a_config_round_trip_keeps_everything(fields, tmp_path):
    config = XformerConfig(**fields)
    config.save_pretrained(tmp_path)
    assert same(XformerConfig.from_dict(json.loads(config.to_json_string(use_diff=False)))) == same(config)
    assert same(XformerConfig(**config.to_diff_dict())) == same(config)
    assert same(AutoConfig.from_pretrained(tmp_path)) == same(config)
    assert same(pickle.loads(pickle.dumps(config))) == same(copy.deepcopy(config)) == same(config)
    for name, value in fields.items():
        assert getattr(config, name) == value, name


def test_every_field_really_differs_from_its_default():
    default = XformerConfig()
    assert [name for name, value in EVERY_FIELD.items() if getattr(default, name) == value] == []


def test_aliases_read_and_write_the_fields_they_stand_for():
    config = XformerConfig(hidden_size=24, num_attention_heads=2, num_hidden_layers=3, encoder_attention_heads=4)
    assert (config.d_model, config.decoder_attention_heads, config.decoder_layers) == (24, 2, 3)
    assert len(config.layer_types) == len(config.decoder_layer_types) == 3
    config.hidden_size = 32
    assert config.d_model == 32 and "hidden_size" not in config.to_dict()


@variants
@pytest.mark.parametrize("base", [False, True], ids=["language-model", "base-model"])
def test_loading_reports_nothing_and_changes_nothing(overrides, base, tmp_path):
    model = make_model(**overrides)
    model = model.model if base else model
    model.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert_same(loaded, model)


def assert_same(loaded, model):
    expected, got = model.state_dict(), loaded.state_dict()
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    batch = make_batch()
    batch["decoder_input_ids"] = batch.pop("labels").clamp(min=0)
    assert torch.equal(loaded(**batch)[0], model(**batch)[0])


@variants
def test_a_sharded_checkpoint_is_the_model(overrides, tmp_path):
    model = make_model(**overrides)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) > 2 and (tmp_path / "model.safetensors.index.json").exists()
    stored = [name for file in files for name in load_file(file)]
    assert len(stored) == len(set(stored))
    loaded, info = XformerForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert_same(loaded, model)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize(
    ("overrides", "tied"),
    [({}, True), ({"tie_word_embeddings": False}, False), (VARIANTS["rope-pre-blocks"], True)],
    ids=["tied", "untied", "blocks"],
)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled], ids=["copy", "pickle"])
def test_a_copy_is_equal_tied_alike_and_independent(duplicate, overrides, tied):
    model = make_model(**overrides)
    twin = duplicate(model)
    assert_same(twin, model)
    embedding = twin.get_input_embeddings()
    assert twin.model.decoder.embed_tokens is embedding and (twin.lm_head.weight is embedding.weight) == tied
    before = model.get_input_embeddings().weight.clone()
    embedding.weight.data.zero_()
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_auto_classes_know_the_package(tmp_path):
    config = AutoConfig.for_model("xformer", **SIZES)
    assert type(config) is XformerConfig
    assert type(AutoModel.from_config(config)) is XformerModel
    model = AutoModelForSeq2SeqLM.from_config(config)
    assert type(model) is XformerForSeq2SeqLM
    model.eval().save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is XformerConfig
    assert_same(AutoModel.from_pretrained(tmp_path), model.model)
    assert_same(AutoModelForSeq2SeqLM.from_pretrained(tmp_path), model)
    assert type(AutoModelForTextEncoding.from_pretrained(tmp_path)) is XformerEncoderModel


def rewrite(folder, change):
    """Changes the tensors of a saved checkpoint."""
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", SHARED)
def test_one_name_of_the_shared_embedding_is_enough(name, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    stored = [key for key in load_file(tmp_path / "model.safetensors") if key in SHARED]
    assert len(stored) == 1
    rewrite(tmp_path, lambda weights: {name if key in SHARED else key: each for key, each in weights.items()})
    loaded, info = XformerForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert_same(loaded, model)


def test_a_checkpoint_without_the_embedding_says_so_and_draws_one(tmp_path):
    make_model().save_pretrained(tmp_path)
    rewrite(tmp_path, lambda weights: {name: each for name, each in weights.items() if name not in SHARED})
    loaded, info = XformerForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) & set(SHARED)
    weight = loaded.get_input_embeddings().weight
    assert not weight.is_meta and loaded.lm_head.weight is weight
    assert_close(weight.std().item(), SIZES["initializer_range"], atol=0.03, rtol=0)


def test_a_missing_weight_is_reported(tmp_path):
    make_model().save_pretrained(tmp_path)
    missing = "model.decoder.layers.2.cross_attention.k_proj.weight"
    rewrite(tmp_path, lambda weights: {name: each for name, each in weights.items() if name != missing})
    assert XformerForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)[1]["missing_keys"] == {missing}


def test_an_untied_trained_head_survives_a_reload(tmp_path):
    model = make_model(tie_word_embeddings=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(**make_batch()).loss.backward()
    optimizer.step()
    model.save_pretrained(tmp_path)
    loaded = XformerForSeq2SeqLM.from_pretrained(tmp_path)
    assert not torch.allclose(loaded.lm_head.weight, loaded.get_input_embeddings().weight)
    assert_same(loaded, model)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_resized_vocabulary_survives_a_reload(tied, tmp_path):
    model = make_model(tie_word_embeddings=tied, use_final_logits_bias=True)
    model.resize_token_embeddings(60, mean_resizing=False)
    model.save_pretrained(tmp_path)
    loaded, info = XformerForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert loaded.config.vocab_size == 60 and not any(info.values())
    assert_same(loaded, model)


@variants
def test_each_stack_saves_and_loads_alone(overrides, tmp_path):
    model, batch = make_model(**overrides), make_batch()
    for name, stack in (("encoder", model.get_encoder()), ("decoder", model.get_decoder())):
        stack.save_pretrained(tmp_path / name)
        loaded, info = type(stack).from_pretrained(tmp_path / name, output_loading_info=True)
        assert not any(info.values()), info
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        if name == "decoder":
            inputs["encoder_hidden_states"] = model.get_encoder()(**inputs).last_hidden_state
            inputs["encoder_attention_mask"] = batch["attention_mask"]
        assert torch.equal(loaded(**inputs).last_hidden_state, stack(**inputs).last_hidden_state)


@pytest.mark.parametrize("how", [{"device_map": "cpu"}, {"device_map": "auto"}, {"low_cpu_mem_usage": True}], ids=str)
@variants
def test_loading_through_a_device_map_is_plain_loading(overrides, how, tmp_path):
    model = make_model(**overrides)
    model.save_pretrained(tmp_path)
    loaded = XformerForSeq2SeqLM.from_pretrained(tmp_path, **how).to("cpu")
    assert not any(parameter.is_meta for parameter in loaded.parameters())
    assert_same(loaded, model)


@variants
def test_weights_on_disk_compute_what_weights_in_memory_do(overrides, tmp_path):
    model, batch = make_model(**overrides), make_batch()
    expected = model(**batch).logits
    generated = model.generate(batch["input_ids"], max_new_tokens=5, do_sample=False)
    offloaded = disk_offload(copy.deepcopy(model), tmp_path, execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in offloaded.parameters())
    with torch.no_grad():
        assert_close(offloaded(**batch).logits, expected)
    assert torch.equal(offloaded.generate(batch["input_ids"], max_new_tokens=5, do_sample=False), generated)


def test_modules_that_must_not_be_split_are_the_layers():
    model = make_model()
    classes = {type(layer).__name__ for layer in (*model.model.encoder.layers, *model.model.decoder.layers)}
    assert set(model._no_split_modules) == classes and len(classes) == 2


@variants
def test_positions_keep_full_precision_when_loaded_in_bfloat16(overrides, tmp_path):
    model = make_model(**overrides)
    model.save_pretrained(tmp_path)
    loaded = XformerForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    expected = dict(model.named_buffers())
    for name, buffer in loaded.named_buffers():
        assert torch.equal(buffer, expected[name]), name
