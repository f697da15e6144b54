# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Formats of 16 bits on a CPU that has no instructions for them: float32 in their place, where nobody chose them."""

import copy
import json

import pytest
import torch
from small_models import make_model
from transformers import pipeline

import hf_xformer  # noqa: F401
from hf_xformer.checkpoints import number_formats
from hf_xformer.checkpoints.number_formats import in_fast_format, is_slow, product_seconds
from hf_xformer.commands import evaluate, train
from hf_xformer.decoding import Decoder


HALVES = [torch.bfloat16, torch.float16]
SLOW = "this CPU takes 31 times as long for products in {} as in float32"


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


@pytest.fixture(scope="module")
def checkpoint(task, tmp_path_factory):
    """A trained model, whose weights are saved as bfloat16."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train.main(task.options(folder, max_steps=2))
    decoder = Decoder.from_pretrained(str(folder))
    decoder.model.to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_weights_become_float32_and_none_of_them_changes(dtype, slow_formats):
    model, said = make_model().to(dtype), []
    expected = copy.deepcopy(model.state_dict())
    found = in_fast_format(model, torch.device("cpu"), "auto", said.append)
    assert found.dtype == torch.float32
    assert all(torch.equal(tensor, expected[name].float()) for name, tensor in found.state_dict().items())
    name = name_of(dtype)
    assert said == [f"{name} weights become float32: {SLOW.format(name)}; dtype {name} keeps them"]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_format_that_was_asked_for_stays_and_is_said_to_be_slow(dtype, slow_formats):
    model, said = make_model().to(dtype), []
    assert in_fast_format(model, torch.device("cpu"), dtype, said.append).dtype == dtype
    assert said == [f"dtype {name_of(dtype)}: {SLOW.format(name_of(dtype))}"]


def test_another_device_or_processor_keeps_the_format(slow_formats, monkeypatch):
    assert not is_slow(torch.bfloat16, torch.device("cuda")) and not is_slow(torch.float32, torch.device("cpu"))
    monkeypatch.undo()
    assert in_fast_format(make_model().bfloat16(), torch.device("cpu"), "auto", pytest.fail).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_a_product_is_timed_and_draws_no_numbers(dtype):
    state = torch.get_rng_state()
    assert 0 < product_seconds(dtype, size=8) < float("inf")
    assert torch.equal(torch.get_rng_state(), state)


def test_the_slowdown_is_of_float32s_time_and_measured_once(measured_slowdown, monkeypatch):
    timed = []
    seconds = {torch.float32: 0.5, torch.bfloat16: 3.0}
    monkeypatch.setattr(number_formats, "product_seconds", lambda dtype: timed.append(dtype) or seconds[dtype])
    assert measured_slowdown(torch.bfloat16) == measured_slowdown(torch.bfloat16) == 6.0
    assert timed == [torch.bfloat16, torch.float32]


def test_a_model_that_the_library_has_quantised_stays_as_it_is(slow_formats):
    model, said = make_model().bfloat16(), []
    model.is_quantized = True
    assert in_fast_format(model, torch.device("cpu"), "auto", said.append).dtype == torch.bfloat16
    assert said == [f"dtype bfloat16: {SLOW.format('bfloat16')}"]


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_texts_are_those_of_a_model_loaded_in_float32(quantization, checkpoint, slow_formats):
    said, texts, options = [], ["abc", "fedcba"], {"quantization": quantization, "scores": True}
    found = Decoder.from_pretrained(str(checkpoint), say=said.append, **options)
    wanted = Decoder.from_pretrained(str(checkpoint), dtype="float32", **options)
    assert found.model.dtype == torch.float32
    assert list(found.decode(texts)) == list(wanted.decode(texts))
    assert [SLOW.format("bfloat16") in line for line in said].count(True) == 1


def test_a_pipeline_in_16_bits_is_said_to_be_slow(checkpoint, slow_formats, caplog):
    for dtype, count in (("bfloat16", 1), ("float32", 0)):
        caplog.clear()
        with caplog.at_level("WARNING", "hf_xformer"):
            pipeline("seq2seq", model=str(checkpoint), dtype=dtype, device="cpu")
        assert caplog.text.count(SLOW.format("bfloat16")) == count


@pytest.mark.parametrize(("words", "dtype"), [((), "float32"), (("--dtype", "bfloat16"), "bfloat16")])
def test_results_record_the_format_that_was_computed_in(
    words, dtype, checkpoint, task, slow_formats, tmp_path, capsys
):
    out = tmp_path / "scores.json"
    sample = ("--max_samples", "2", "--metrics", "chrf", "--output_file", str(out))
    evaluate.main([str(checkpoint), "--test_file", task.validation, *sample, *words])
    assert json.loads(out.read_text())["dtype"] == dtype
    assert capsys.readouterr().err.count(SLOW.format("bfloat16")) == 1
