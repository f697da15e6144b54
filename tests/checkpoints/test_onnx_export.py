# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX exports are whole folders, compared with their checkpoints; what cannot be exported is refused by name."""

import sys

import pytest
import torch
from small_exports import generate, make_rows, make_uneven_model
from small_models import VARIANTS
from small_runs import refused
from small_stock_models import make_stock

from hf_xformer.checkpoints import export_model, load_model, load_tokenizers, onnx_export, onnx_nodes
from hf_xformer.checkpoints.export import export_checkpoint
from hf_xformer.checkpoints.onnx_sessions import OnnxModel
from hf_xformer.commands import export
from hf_xformer.errors import ArgumentError


pytest.importorskip("onnxruntime")

ONNX = ["--engine", "onnx"]
FILES = {"encoder_model.onnx", "decoder_model_merged.onnx", "config.json", "generation_config.json"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_in_memory_is_exported_and_left_as_it_is(dtype, checkpoint, tokenizer, tmp_path):
    _, folder = checkpoint(dtype=dtype)
    model = load_model(str(folder), dtype=dtype).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = export_model(model, (tokenizer, tokenizer), tmp_path / "one", engine="onnx")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training and model.dtype == dtype
    assert report.quantization == "float32" and report.difference < 1e-4
    assert bool(report.notes) == (dtype == torch.bfloat16)
    model.generation_config.update(repetition_penalty=1.5, num_beams=4, forced_bos_token_id=5, length_penalty=2.0)
    left = export_model(model, (tokenizer, tokenizer), tmp_path / "three", engine="onnx")
    assert left.left == {"repetition_penalty": 1.5, "num_beams": 4, "forced_bos_token_id": 5}
    assert sum("does nothing in `OnnxModel.generate`" in note for note in left.notes) == 3
    assert export_checkpoint(str(folder), tmp_path / "two", engine="onnx") == report
    for name in FILES - {"config.json"}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_folder_decodes_with_its_tokenizers(checkpoint, tmp_path):
    model = make_uneven_model(encoder_vocab_size=61)
    model.generation_config.max_length = 9
    model, folder = checkpoint(model=model)
    export_checkpoint(str(folder), tmp_path / "out", engine="onnx")
    source, target = load_tokenizers(str(tmp_path / "out"))
    assert source is not target and {path.name for path in (tmp_path / "out").iterdir()} > FILES
    rows = make_rows(61)
    assert OnnxModel(tmp_path / "out").generate(rows) == generate(model, rows)


def test_8_bits_make_a_smaller_export(checkpoint, tmp_path, capsys):
    _, folder = checkpoint(d_model=64)
    sizes = []
    for name in ("float32", "int8"):
        export.main([str(folder), str(tmp_path / name), *ONNX, "--quantization", name])
        assert f"{name}; log-probabilities" in capsys.readouterr().out
        sizes.append(sum(path.stat().st_size for path in (tmp_path / name).glob("*.onnx")))
    assert sizes[1] < 0.5 * sizes[0]


def test_a_large_graph_has_its_weights_beside_it(checkpoint, tmp_path, monkeypatch):
    model, folder = checkpoint()
    monkeypatch.setattr(onnx_export, "LARGEST_FILE", 1000)
    export_checkpoint(str(folder), tmp_path / "out", engine="onnx")
    assert (tmp_path / "out/encoder_model.onnx_data").stat().st_size > 10_000
    rows = make_rows(53)
    assert OnnxModel(tmp_path / "out").generate(rows, 5) == generate(model, rows, max_new_tokens=5)


def test_the_command_says_what_whole_masks_cost(checkpoint, tmp_path, capsys):
    _, folder = checkpoint(**VARIANTS["rope-pre-blocks"])
    export.main([str(folder), str(tmp_path / "out"), *ONNX])
    assert "chunked_attention and sliding_attention layers attend under a mask" in capsys.readouterr().err


def test_an_export_that_computes_something_else_is_refused(checkpoint, tmp_path, monkeypatch, capsys):
    _, folder = checkpoint()
    monkeypatch.setitem(onnx_nodes.ACTIVATIONS, "silu", lambda graph, x: graph("Relu", x))
    assert "ONNX Runtime computes something else" in refused(export, [folder, tmp_path / "out", *ONNX], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_bad_input_is_one_line_and_writes_nothing(checkpoint, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    make_stock("T5").save_pretrained(tmp_path / "stock")
    _, folder = checkpoint(activation_function="hardswish")
    assert "optimum" in refused(export, [tmp_path / "stock", out, *ONNX], capsys)
    assert "`activation_function='hardswish'`" in refused(export, [folder, out, *ONNX], capsys)
    assert "ONNX Runtime has int8, float32" in refused(export, [folder, out, *ONNX, "--quantization", "int16"], capsys)
    assert "'tensorrt' is none of its choices" in refused(export, [folder, out, "--engine", "tensorrt"], capsys)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'hf-xformer[onnx]'" in refused(export, [folder, out, *ONNX], capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"stock", "checkpoint"}


def test_adapters_and_quantised_checkpoints_are_refused(tokenizer, tmp_path):
    model = make_uneven_model()
    model.config.quantization_config = {"load_in_4bit": True}
    with pytest.raises(ArgumentError, match="`quantization_config=.*load_in_4bit.*--quantization"):
        export_model(model, (tokenizer, tokenizer), tmp_path / "out", engine="onnx")
    adapted = make_uneven_model()
    adapted.model.encoder.layers[0].self_attention.q_proj.lora_A = torch.nn.Linear(32, 2, bias=False)
    with pytest.raises(ArgumentError, match="1 tensors cannot be exported, such as .*lora_A.*: merge adapters first"):
        export_model(adapted, (tokenizer, tokenizer), tmp_path / "out", engine="onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_refused_by_its_name_before_its_base_is_read(tmp_path, capsys):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/no/such/folder"}')
    for engine in ([], ONNX):
        assert "is an adapter: hf-xformer merge it first" in refused(
            export, [tmp_path, tmp_path / "out", *engine], capsys
        )


def test_only_an_export_to_the_same_engine_is_replaced(checkpoint, tokenizer, tmp_path, capsys):
    _, folder = checkpoint()
    out = tmp_path / "out"
    export.main([str(folder), str(out), *ONNX])
    assert "the folder is not empty" in refused(export, [folder, out, *ONNX], capsys)
    export.main([str(folder), str(out), *ONNX, "--overwrite"])
    assert "is not part of one" in refused(export, [folder, out, "--overwrite"], capsys)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert "is not part of one" in refused(export, [folder, tmp_path / "tokenizer", *ONNX, "--overwrite"], capsys)
    assert (tmp_path / "tokenizer/tokenizer.json").exists()
