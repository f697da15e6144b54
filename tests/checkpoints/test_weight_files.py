# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint that is not whole is refused or reported with the name of the weight, and never filled at random."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file
from small_models import VARIANTS, make_model
from small_runs import refused
from transformers import AutoConfig, AutoTokenizer

from hf_xformer import XformerEncoderModel
from hf_xformer.checkpoints.loading import load_model
from hf_xformer.checkpoints.weight_files import check_finite, compare, read_header, read_tensors
from hf_xformer.commands import evaluate, generate, info
from hf_xformer.errors import ArgumentError
from hf_xformer.models.versions_xformer import CACHE


KEY = "model.decoder.layers.1.cross_attention.k_proj.weight"


@pytest.fixture
def checkpoint(tmp_path, task) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    tokenizer.save_pretrained(tmp_path)
    make_model(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2, torch.float64])
def test_a_number_that_is_not_finite_is_found_in_any_type_and_file(value, dtype, sharded):
    check_finite(sharded)
    path = next(each for each in sorted(sharded.glob("model-*.safetensors")) if KEY in load_file(each))
    tensors = load_file(path)
    spoiled = tensors[KEY].clone()
    spoiled.flatten()[5] = value
    save_file({**tensors, KEY: spoiled.to(dtype)}, path)
    with pytest.raises(ArgumentError, match=f"{path.name}: `{KEY}` is not finite: 1 of its "):
        check_finite(sharded)


@pytest.fixture
def sharded(tmp_path) -> Path:
    make_model().save_pretrained(tmp_path, max_shard_size="20KB")
    return tmp_path


@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("shards", ["one file", "shards"])
def test_headers_say_what_the_files_hold_and_a_whole_checkpoint_has_no_problem(overrides, shards, tmp_path):
    model = make_model(**overrides)
    model.save_pretrained(tmp_path, **({} if shards == "one file" else {"max_shard_size": "20KB"}))
    stored = read_tensors(tmp_path)
    loaded = {name: each for file in tmp_path.glob("*.safetensors") for name, each in load_file(file).items()}
    assert {name: (each.shape, each.bytes) for name, each in stored.items()} == {
        name: (tuple(each.shape), each.nbytes) for name, each in loaded.items()
    }
    assert not compare(model.config, stored)


@pytest.mark.parametrize("part", ["model", "encoder"])
def test_a_model_without_an_output_layer_is_compared_with_its_own_class(part, tmp_path):
    model = make_model()
    (model.model if part == "model" else XformerEncoderModel(model.config)).save_pretrained(tmp_path)
    assert not compare(AutoConfig.from_pretrained(tmp_path), read_tensors(tmp_path))


def change(weights: dict, how: str) -> None:
    if how == "missing":
        del weights[KEY]
    elif how == "unexpected":
        weights[f"{KEY}_scale"] = torch.ones(3)
    else:
        weights[KEY] = torch.ones(3, 5)


@pytest.mark.parametrize("how", ["missing", "unexpected", "mismatched"])
def test_a_weight_too_few_too_many_or_of_another_shape_is_named_by_every_command(how, checkpoint, task, capsys):
    weights = load_file(checkpoint / "model.safetensors")
    change(weights, how)
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SystemExit) as stop:
        info.main([str(checkpoint)])
    assert stop.value.code == 1 and f"  {how}: {KEY}" in capsys.readouterr().out
    (checkpoint / "words.txt").write_text("A B\n")
    line = refused(generate, [checkpoint, "--input", checkpoint / "words.txt"], capsys)
    assert KEY in line and how in line
    assert KEY in refused(evaluate, [checkpoint, "--test_file", task.validation, "--metrics", "per"], capsys)


@pytest.mark.parametrize("left", [0, 5, 100, 0.5, -1])
def test_a_file_that_is_cut_off_is_refused_with_the_first_weight_that_is_not_whole(left, checkpoint, capsys):
    path = checkpoint / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left) if isinstance(left, float) else left])
    with pytest.raises(ArgumentError, match="model.safetensors: .*cut off") as error:
        load_model(str(checkpoint))
    if left in (0.5, -1):
        assert "`model." in str(error.value) or "`lm_head" in str(error.value)
    assert refused(info, [checkpoint], capsys) == f"error: {error.value}"


def test_a_file_that_is_something_else_is_refused(checkpoint):
    (checkpoint / "model.safetensors").write_bytes((20).to_bytes(8, "little") + b"x" * 40)
    with pytest.raises(ArgumentError, match="model.safetensors: not a safetensors file.*it has 48 bytes"):
        load_model(str(checkpoint))


@cache
def whole_file() -> bytes:
    return save(
        {"a": torch.ones(3, 5), "b": torch.ones(7, dtype=torch.bfloat16), "c": torch.ones(2).bool()}, {"x": "y"}
    )


def with_header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


broken_files = st.one_of(
    st.integers(0, len(whole_file()) - 1).map(lambda size: whole_file()[:size]),
    st.binary(max_size=300),
    st.binary(max_size=300).map(with_header),
    st.recursive(
        st.none() | st.integers(-9, 2**70) | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "dtype", "shape"]), inner),
        max_leaves=8,
    )
    .filter(bool)
    .map(lambda content: with_header(json.dumps(content).encode())),
)


@pytest.mark.slow
@given(broken_files)
@example(with_header(b"[" * 100_000))
@example((2**63).to_bytes(8, "little") + b"{}")
@example(with_header(b'{"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 1e300]}}'))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_broken_file_holds_it_is_refused_in_one_line(tmp_path, data):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ArgumentError) as error:
        read_header(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_prefix_says_which_tensor_is_cut_off_and_a_whole_file_is_read(tmp_path):
    path, data = tmp_path / "model.safetensors", whole_file()
    path.write_bytes(data)
    stored = read_header(path)
    assert {name: (each.shape, each.dtype, each.bytes) for name, each in stored.items()} == {
        "a": ((3, 5), "F32", 60), "b": ((7,), "BF16", 14), "c": ((2,), "BOOL", 2)
    }  # fmt: skip
    for left, name in ((1, "c"), (3, "b"), (17, "a"), (76, "a")):
        path.write_bytes(data[:-left])
        with pytest.raises(ArgumentError, match=f"cut off: `{name}` ends at byte .*, the file at {len(data) - left}"):
            read_header(path)


def test_a_folder_or_nothing_in_a_files_place_is_refused(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    for name in ("model.safetensors", "other.safetensors"):
        with pytest.raises(ArgumentError, match=f"{name}: not a safetensors file"):
            read_header(tmp_path / name)


def rewrite_index(folder: Path, change) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "..", "a\\b", "", None])
def test_an_index_that_points_out_of_its_folder_is_refused_with_weight_and_path(name, sharded, capsys):
    rewrite_index(sharded, lambda where: where.update({KEY: name}))
    with pytest.raises(ArgumentError, match=f"`{KEY}` is said to be in {name!r}".replace("\\", r"\\")):
        load_model(str(sharded))
    assert KEY in refused(info, [sharded], capsys)


def test_an_index_that_names_a_file_or_a_weight_that_is_not_there_is_refused(sharded):
    shards = sorted(path.name for path in sharded.glob("model-*.safetensors"))
    where = json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"]
    other = next(name for name in shards if name != where[KEY])
    rewrite_index(sharded, lambda where: where.update({KEY: other}))
    with pytest.raises(ArgumentError, match=f"`{KEY}` should be in {other}, which does not hold it"):
        load_model(str(sharded))
    (sharded / other).unlink()
    with pytest.raises(ArgumentError, match=f"is said to be in {other}, which is not there"):
        load_model(str(sharded))


def test_info_says_what_a_checkpoint_is(checkpoint, capsys):
    with pytest.raises(SystemExit) as stop:
        info.main([str(checkpoint)])
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert stop.value.code == 0
    model = load_model(str(checkpoint))
    assert said["model"] == f"XformerForSeq2SeqLM of {model.num_parameters():,} parameters"
    assert said["decoder"] == "3 full_attention; width 32, 4 heads of 8, feed-forward 48"
    assert said["options"] == "max_position_embeddings=64, initializer_range=0.2"
    cache = model.generate(torch.tensor([[5, 6]]), max_new_tokens=4, return_dict_in_generate=True)[CACHE]
    layers = cache.cross_attention_cache.layers
    a_token = sum(each.keys.nbytes + each.values.nbytes for each in layers) / layers[0].keys.shape[-2]
    assert f"cache of {a_token:.0f} bytes a token" in said["memory"]
    assert said["code"].endswith("as here") and said["weights"].endswith("all of the model's")
    (checkpoint / "modeling_xformer.py").unlink()
    with pytest.raises(SystemExit):
        info.main([str(checkpoint)])
    assert "loads only where hf_xformer is installed" in capsys.readouterr().out


def test_info_refuses_what_is_no_checkpoint(tmp_path, task, capsys):
    assert "cannot read its configuration" in refused(info, [task.folder], capsys)
    assert "no such file or folder" in refused(info, [tmp_path / "nothing"], capsys)
    make_model().config.save_pretrained(tmp_path)
    assert "there are no weights" in refused(info, [tmp_path], capsys)
