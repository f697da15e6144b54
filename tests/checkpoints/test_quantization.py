# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of 8 and 4 bits decode nearly as the checkpoint's; what cannot be had is refused before anything is read."""

import copy
import importlib.util
import json

import pytest
import torch
from small_exports import make_uneven_model
from small_models import VARIANTS, make_batch
from small_runs import nightly, refused
from small_stock_models import make_stock
from torch import nn

from hf_xformer.checkpoints import load_model, quantization
from hf_xformer.checkpoints.quantization import check_quantization, load_quantized, quantize
from hf_xformer.checkpoints.quantized_linear import Int4Linear, Int8Linear, fits_int4, saturates, usable_backends
from hf_xformer.commands import evaluate, generate
from hf_xformer.decoding import Decoder
from hf_xformer.errors import ArgumentError


CPU = torch.device("cpu")
# Sizes that the kernel for 4 bits takes, and milder weights than the other tests', whose sharp attention multiplies
# every rounding error.
WIDE = {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "initializer_range": 0.05}
# Largest difference of logits, as a share of their standard deviation.
CLOSE = {"int8": 0.15, "int4": 0.8}
bits = pytest.mark.parametrize("name", CLOSE)


@pytest.mark.parametrize("backend", usable_backends())
@pytest.mark.parametrize("bias", [False, True])
def test_layers_of_8_bits_are_nearly_torchs(backend, bias):
    linear = nn.Linear(64, 48, bias=bias)
    x = torch.randn(3, 5, 64)
    quantised = copy.deepcopy(Int8Linear(linear, backend))
    torch.testing.assert_close(quantised(x), linear(x).detach(), atol=0.05, rtol=0)
    assert quantised(x.bfloat16()).dtype == torch.bfloat16
    # A row whose weights are all as large as they can be: where a CPU adds in 16 bits, this is where it is wrong.
    nn.init.constant_(linear.weight, 0.5)
    torch.testing.assert_close(Int8Linear(linear, backend)(x.abs()), linear(x.abs()).detach(), atol=0.5, rtol=0)
    assert isinstance(saturates(backend), bool)


@pytest.mark.parametrize("bias", [False, True])
def test_layers_of_4_bits_are_the_rounded_weights(bias):
    """The kernel gives the exact product where 16 levels hold the weights exactly."""
    linear = nn.Linear(64, 48, bias=bias)
    with torch.no_grad():
        linear.weight.copy_(torch.randint(0, 16, (48, 64)) * 0.25 - 2)
        linear.weight[:, ::32], linear.weight[:, 1::32] = -2, 1.75
    x = torch.randn(3, 5, 64).bfloat16().float()
    torch.testing.assert_close(copy.deepcopy(Int4Linear(linear))(x), linear(x).detach(), atol=0.1, rtol=0.01)
    assert fits_int4(linear) and not fits_int4(nn.Linear(40, 48)) and not fits_int4(nn.Linear(64, 40))


@bits
@pytest.mark.parametrize("fields", [{}, VARIANTS["sinusoidal-post"], VARIANTS["none-pre-untied"]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_logits_are_nearly_the_models(name, fields, dtype):
    model = make_uneven_model(**{**WIDE, **fields, "head_dim": 16}).to(dtype)
    batch = make_batch() | {"labels": None, "decoder_input_ids": torch.tensor([[2, 9, 8]] * 3)}
    with torch.inference_mode():
        expected = model(**batch).logits.float()
        said = []
        quantised = quantize(copy.deepcopy(model), name, said.append)
        found = quantised(**batch).logits
    assert found.dtype == dtype and said == []
    difference = (found.float() - expected).abs().max() / expected.std()
    assert 1e-4 < difference < CLOSE[name]
    assert not any(isinstance(layer, nn.Linear) for layer in quantised.modules())
    assert isinstance(quantised.lm_head, Int8Linear)
    assert any(isinstance(layer, Int4Linear) for layer in quantised.modules()) == (name == "int4")
    embedding = quantised.get_input_embeddings().weight
    assert torch.equal(embedding, model.get_input_embeddings().weight)


@bits
def test_a_quantised_model_decodes_and_does_nothing_else(name, tmp_path):
    model = quantize(make_uneven_model(**WIDE), name, print)
    batch = {key: value for key, value in make_batch().items() if key != "labels"}
    model.generation_config.eos_token_id = None
    tokens = model.generate(**batch, max_new_tokens=5, num_beams=2)
    assert tokens.shape == (3, 6) and not model.training
    assert torch.equal(tokens, model.generate(**batch, max_new_tokens=5, num_beams=2))
    for call, what in (
        (model.train, "trained"),
        (lambda: model.save_pretrained(tmp_path / "out"), "saved"),
        (lambda: model.resize_token_embeddings(60), "resized"),
        (lambda: model.keep_layers(encoder=[0]), "cut"),
    ):
        with pytest.raises(ArgumentError, match=f"weights of {name} decode and cannot be {what}"):
            call()
    assert list(tmp_path.iterdir()) == [] and model.eval() is model


@bits
def test_a_quantised_model_has_nothing_to_join_and_changes_its_type(name):
    model = quantize(make_uneven_model(**WIDE), name, print)
    batch = make_batch() | {"labels": None, "decoder_input_ids": torch.tensor([[2, 9, 8]] * 3)}
    with torch.inference_mode():
        expected = model(**batch).logits
        model.fuse_projections()
        assert torch.equal(model(**batch).logits, expected)
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            logits = model.to(dtype)(**batch).logits
            assert (logits.float() - expected).std() < CLOSE[name] * expected.std() and logits.dtype == dtype


@pytest.mark.slow
@pytest.mark.parametrize("name", ["int8", *nightly("int4")])
def test_a_copy_compiles_into_one_graph(name):
    model = make_uneven_model(**WIDE, encoder_layers=1, decoder_layers=1)
    model = copy.deepcopy(quantize(model, name, print))  # whose original is gone
    batch = make_batch() | {"labels": None, "decoder_input_ids": torch.tensor([[2, 9, 8]] * 3)}
    with torch.inference_mode():
        expected = model(**batch).logits
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)(**batch).logits
    torch.testing.assert_close(compiled, expected, atol=1e-4, rtol=0)


def test_layers_of_other_sizes_have_8_bits_which_is_said(checkpoint):
    _, folder = checkpoint()  # of 32, 40 and 48 features
    said = []
    model = load_quantized(str(folder), "int4", CPU, said.append)
    assert "layers have 8 bits, for their sizes, such as model.encoder.layers.0.feed_forward" in said[0]
    assert any(isinstance(layer, Int4Linear) for layer in model.modules())


@pytest.mark.slow
@bits
def test_the_commands_decode_in_so_many_bits(name, checkpoint, tmp_path, capsys):
    model = make_uneven_model(**WIDE)
    model.generation_config.max_new_tokens = 4
    _, folder = checkpoint(model=model)
    (tmp_path / "in").write_text("A B C\nD E\n")
    generate.main([str(folder), "--input", str(tmp_path / "in"), "--quantization", name, "--device", "cpu"])
    lines = capsys.readouterr().out.splitlines()
    decoder = Decoder.from_pretrained(str(folder), device="cpu", quantization=name)
    assert [best[0].text for best in decoder.decode(["A B C", "D E"])] == lines
    (tmp_path / "test.jsonl").write_text(json.dumps({"source": "A B", "target": "C"}) + "\n")
    data = [
        "--test_file",
        str(tmp_path / "test.jsonl"),
        "--metrics",
        "per",
        "--output_file",
        str(tmp_path / "out.json"),
    ]
    evaluate.main([str(folder), *data, "--quantization", name, "--device", "cpu"])
    assert json.loads((tmp_path / "out.json").read_text())["quantization"] == name


REFUSED = {
    "'int2' is none of its choices": ("int2", CPU),
    "int8 on the device mps: there are kernels for cpu and cuda alone": ("int8", torch.device("mps")),
    "int4 on the device cuda:0 needs bitsandbytes: pip install": ("int4", torch.device("cuda:0")),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_a_device_has_not_is_refused_before_anything_is_read(message, monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=message):
        check_quantization("/no/such/folder", *REFUSED[message])


def test_a_torch_without_kernels_is_refused(monkeypatch):
    monkeypatch.setattr(quantization, "INT4_OPERATOR", "no_such_operator")
    with pytest.raises(ArgumentError, match="no kernel for 4 bits; take int8"):
        check_quantization("/no/such/folder", "int4", CPU)
    monkeypatch.setattr(quantization, "usable_backends", lambda: [])
    with pytest.raises(ArgumentError, match="has no kernel for it; its quantised engines are "):
        check_quantization("/no/such/folder", "int8", CPU)


def test_checkpoints_that_cannot_be_quantised_are_refused_before_their_weights_are_read(checkpoint, tmp_path, capsys):
    _, folder = checkpoint()
    (folder / "model.safetensors").write_text("no weights")
    make_stock("T5").save_pretrained(tmp_path / "stock")
    with pytest.raises(ArgumentError, match="model_type 't5' is not 'xformer': hf-xformer convert first"):
        check_quantization(str(tmp_path / "stock"), "int8", CPU)
    config = json.loads((folder / "config.json").read_text())
    packed = config | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    (folder / "config.json").write_text(json.dumps(packed))
    options = ["--quantization", "int8", "--device", "cpu", "--input", tmp_path / "in"]
    (tmp_path / "in").write_text("A\n")
    assert "is quantised already" in refused(generate, [folder, *options], capsys)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    with pytest.raises(ArgumentError, match="is an adapter: hf-xformer merge it first"):
        check_quantization(str(adapter), "int4", CPU)
    with pytest.raises(ArgumentError, match="no such file"):
        load_model("/no/such/folder")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="an extra")
@bits
def test_bitsandbytes_takes_the_same_options(name, checkpoint, monkeypatch):
    """As on a GPU: bitsandbytes has kernels for a CPU too."""
    _, folder = checkpoint(model=make_uneven_model(**WIDE))
    monkeypatch.setattr(quantization, "is_by_torch", lambda device: False)
    model = load_quantized(str(folder), name, CPU, print)
    linear = type(model.model.decoder.layers[0].cross_attention.k_proj).__name__
    assert linear == {"int8": "Linear8bitLt", "int4": "Linear4bit"}[name]
    batch = {key: value for key, value in make_batch().items() if key != "labels"}
    assert model.generate(**batch, max_new_tokens=5, min_new_tokens=5).shape == (3, 6)
