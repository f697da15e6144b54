# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint with a random fault in a file loads the same model or is refused in one line."""

import json
import re

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import HealthCheck, given, settings
from mutated_configs import changed_configs, changed_generation_configs
from mutated_weights import changed_indices, changed_weights
from mutations import judge, original, through_the_library
from safetensors.torch import load_file, save_file
from small_models import make_model
from transformers import AutoTokenizer, pipeline

from hf_xformer import XformerConfig
from hf_xformer.checkpoints.folder_checks import check_generation
from hf_xformer.checkpoints.loading import load_config, load_model
from hf_xformer.errors import ArgumentError
from hf_xformer.models.configuration_xformer import LEFT_OUT


anew = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@anew
@given(changed_configs())
def test_a_changed_config_loads_the_same_model_or_is_refused_by_every_way_of_loading(tmp_path, changed):
    kind, _, data = changed
    folder = original(kind).copy(tmp_path, {"config.json": data})
    judge(original(kind), folder)
    judge(original(kind), folder, through_the_library)


@pytest.mark.slow
@anew
@given(changed_weights())
def test_a_changed_weight_file_loads_the_same_model_or_is_refused(tmp_path, changed):
    dtype, _, data = changed
    before = original("rope-pre", dtype)
    judge(before, before.copy(tmp_path, {"model.safetensors": data}))


@pytest.mark.slow
@anew
@given(changed_indices())
def test_a_changed_index_loads_the_same_model_or_is_refused(tmp_path, changed):
    before = original("rope-pre", shards=True)
    judge(before, before.copy(tmp_path, changed[1]))


@anew
@given(changed_generation_configs())
def test_a_changed_generation_config_decodes_the_same_or_is_refused(tmp_path, changed):
    before = original("rope-pre")
    judge(before, before.copy(tmp_path, {"generation_config.json": changed[1]}), decode=True)


@pytest.mark.parametrize(
    "more", [{"suppress_tokens": []}, {"begin_suppress_tokens": []}, {"temperature": 0.0, "do_sample": False}]
)
def test_what_is_switched_off_decodes_the_same(tmp_path, more):
    before = original("rope-pre")
    content = json.dumps({**before.read("generation_config.json"), **more}).encode()
    folder = before.copy(tmp_path, {"generation_config.json": content})
    judge(before, folder, decode=True)
    load_model(str(folder))
    with pytest.raises(ArgumentError, match="`temperature` must be"):
        check_generation({"temperature": 0.0, "do_sample": True}, XformerConfig(), "a file")


def refused(kind: str, folder, **fields) -> str:
    """The line by which a config with other fields is refused; None stands for a field that is taken out."""
    content = {**original(kind).read("config.json"), **fields}
    content = {name: value for name, value in content.items() if fields.get(name, 0) is not None}
    original(kind).copy(folder, {"config.json": json.dumps(content).encode()})
    with pytest.raises(ArgumentError) as error:
        load_model(str(folder))
    return str(error.value)


@pytest.mark.parametrize("theta", [0, -1, float("nan"), float("inf"), -float("inf"), "x", None, True])
def test_a_base_of_rotary_angles_that_is_no_positive_number_is_refused(theta, tmp_path):
    rope = {"rope_type": "default", "rope_theta": theta}
    line = refused("rope-pre", tmp_path, rope_parameters=rope)
    assert "`rope_theta` must be a positive, finite number" in line or "is no number in JSON" in line
    with pytest.raises(StrictDataclassError, match="`rope_theta` must be a positive, finite number"):
        XformerConfig(rope_parameters=rope)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NaN", "NaN is no number in JSON"),
        ("-Infinity", "-Infinity is no number in JSON"),
        ("1e999", "1e999 is no number in JSON"),
        ('1e-5, "norm_eps": 1e-6', "`norm_eps` is there twice: keep one"),
    ],
)
def test_numbers_that_json_does_not_know_and_names_that_come_twice_are_refused_by_name(text, said, tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(f'{{"model_type": "xformer", "norm_eps": {text}}}')
    with pytest.raises(ArgumentError, match=f"^--config_name {path}: not valid JSON: {said}"):
        load_config(str(path), {})


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("said", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("asked", ["auto", torch.float64])
def test_weights_of_another_type_than_the_config_says_are_refused_whatever_is_asked_for(stored, said, asked, tmp_path):
    before, name = original("rope-pre", stored), str(said).removeprefix("torch.")
    config = {**before.read("config.json"), "dtype": name}
    folder = before.copy(tmp_path, {"config.json": json.dumps(config).encode()})
    if said == stored:
        assert load_model(str(folder), dtype=asked).dtype == (stored if asked == "auto" else asked)
        return
    label = "F32" if stored == torch.float32 else "BF16"
    with pytest.raises(ArgumentError, match=f"mistyped keys, such as .* {label}, where the model has {name}"):
        load_model(str(folder), dtype=asked)


@pytest.mark.parametrize("field", ["d_model", "encoder_ffn_dim", "vocab_size", "encoder_vocab_size", "head_dim"])
def test_a_gigantic_size_is_refused_before_memory_is_taken(field, tmp_path):
    line = refused("rope-pre", tmp_path, **{field: 10**9})
    assert re.search(r"mismatched keys.*\d000000000|missing keys.*embed_tokens", line)
    assert through_the_library(tmp_path) is None


@pytest.mark.parametrize("field", sorted(set(XformerConfig.__annotations__) - set(LEFT_OUT)))
def test_no_field_of_a_saved_config_may_be_missing_because_its_default_may_be_another_model(field, tmp_path):
    assert f"has no {field}" in refused("rope-pre", tmp_path, **{field: None})


def test_a_field_that_a_config_leaves_out_if_it_is_none_shows_in_the_weights(tmp_path):
    assert set(LEFT_OUT) == {"num_key_value_heads"}
    assert "mismatched keys" in refused("rope-post-gqa", tmp_path, num_key_value_heads=None)


def test_two_names_of_a_field_must_agree(tmp_path):
    line = refused("rope-pre-blocks", tmp_path, sliding_window=5)
    assert "`block_size` is 3, but 5 under its other name `sliding_window`" in line
    assert XformerConfig.from_dict({"sliding_window": 5}).block_size == 5


@pytest.mark.parametrize("name", ["text_config", "validate", "heads_of", "base_model_tp_plan"])
def test_a_name_that_would_stand_in_front_of_a_method_is_refused(name, tmp_path):
    assert f"`{name}` is no field: delete it" in refused("rope-pre", tmp_path, **{name: {"a": 1}})


def test_unknown_names_are_said_with_where_options_of_decoding_belong(caplog):
    XformerConfig(num_beams=3, zzz=1)
    assert "no field num_beams, zzz: ignored (decoding is set in generation_config.json)" in caplog.text


def test_a_pipeline_and_a_command_refuse_a_broken_generation_config(tmp_path, task):
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    tokenizer.save_pretrained(tmp_path)
    make_model(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    for content, said in (("{", "not valid JSON"), ('{"num_beams": 0}', "`num_beams` must be a whole number from 1")):
        (tmp_path / "generation_config.json").write_text(content)
        for load in (lambda: pipeline("seq2seq", model=str(tmp_path)), lambda: load_model(str(tmp_path))):
            with pytest.raises(ArgumentError, match=f"generation_config.json: {said}"):
                load()


def test_a_tensor_in_two_shards_or_in_none_of_the_index_is_refused(tmp_path):
    make_model().save_pretrained(tmp_path, max_shard_size="20KB")
    first, second = sorted(tmp_path.glob("model-*.safetensors"))[:2]
    tensors = load_file(first)
    save_file({**tensors, **load_file(second)}, first, metadata={"format": "pt"})
    with pytest.raises(ArgumentError, match=f"should be in {second.name}, but {first.name} holds it"):
        load_model(str(tmp_path))
    save_file({**tensors, "extra": torch.ones(2)}, first, metadata={"format": "pt"})
    with pytest.raises(ArgumentError, match=f"`extra` is not named, but {first.name} holds it"):
        load_model(str(tmp_path))
