# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Exports have their checkpoints' vocabularies and decode as their generation configs say; they are measured."""

import json
import sys

import pytest
import torch
from small_exports import END, TEXT_SIDES, Translator, generate, make_rows, make_uneven_model
from small_models import SIZES, VANILLA, make_model
from small_runs import refused
from small_stock_models import make_stock
from transformers import GenerationConfig, MarianTokenizer

from hf_xformer.checkpoints import ctranslate2_export as library
from hf_xformer.checkpoints import ctranslate2_spec, export_model, load_model
from hf_xformer.checkpoints.ctranslate2_export import QUANTIZATIONS, decoding_options, tokens_of
from hf_xformer.checkpoints.engines import TOLERANCE
from hf_xformer.checkpoints.export import export_checkpoint
from hf_xformer.commands import export
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError


pytest.importorskip("ctranslate2")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_in_memory_is_exported_and_left_as_it_is(dtype, checkpoint, tokenizer, tmp_path):
    _, folder = checkpoint(dtype=dtype)
    model = load_model(str(folder), dtype=dtype).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = export_model(model, (tokenizer, tokenizer), tmp_path / "one", "int8")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training and model.dtype == dtype
    assert export_checkpoint(str(folder), tmp_path / "two", "int8") == report
    files = ("model.bin", "config.json", "decoding.json", "shared_vocabulary.json")
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


def test_a_model_that_is_no_xformer_and_a_type_that_there_is_not_are_refused(tokenizer, tmp_path):
    with pytest.raises(ArgumentError, match="model_type 't5' is not 'xformer': .*ct2-transformers-converter"):
        export_model(make_stock("T5"), (tokenizer, tokenizer), tmp_path / "out")
    with pytest.raises(ArgumentError, match="'int4': CTranslate2 has int8,"):
        export_model(make_model(), (tokenizer, tokenizer), tmp_path / "out", "int4")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_report_tells_what_the_weights_cost_from_what_this_cpu_adds(quantization, checkpoint, tmp_path):
    """Without VNNI, oneDNN's products of int8 saturate: on such a CPU the export is right, and its figures are not."""
    _, folder = checkpoint()
    report = export_checkpoint(str(folder), tmp_path / "out", quantization)
    assert report.rounding < {"float32": 1e-4, "float16": 0.01, "int16": 0.03}.get(quantization, 0.3)
    assert report.inexact == (report.difference > max(2 * report.rounding, TOLERANCE))
    if report.compute_type == "float32":
        assert report.difference == report.rounding


def test_the_command_warns_of_a_cpu_that_computes_inexactly(checkpoint, tmp_path, capsys, monkeypatch):
    _, folder = checkpoint()
    exact = library.Comparison.difference

    def inexact(self, folder, compute_type="default"):
        difference, compute_type = exact(self, folder, compute_type)
        return (difference if compute_type == "float32" else difference + 1.0), compute_type

    monkeypatch.setattr(library.Comparison, "difference", inexact)
    export.main([str(folder), str(tmp_path / "out"), "--quantization", "int8"])
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("warning:")]
    assert "this CPU computes int8_float32 inexactly" in line and "CT2_USE_MKL=1" in line
    export.main([str(folder), str(tmp_path / "exact")])
    assert "warning" not in capsys.readouterr().err


def test_vocabularies_are_the_tokenizers_in_order(checkpoint, tokenizer, tmp_path):
    _, folder = checkpoint(encoder_vocab_size=61)
    train_tokenizer(["X Y Z Q"], "symbol").save_pretrained(folder / "target_tokenizer")
    export_checkpoint(str(folder), tmp_path / "out")
    source, target = (json.loads((tmp_path / f"out/{side}_vocabulary.json").read_text()) for side in TEXT_SIDES)
    assert (len(source), len(target)) == (61, 53)
    assert source[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert target[:9] == ["<pad>", "</s>", "<s>", "<unk>", "Q", "X", "Y", "Z", "<unused_0>"]
    assert len(set(source)) == 61 and len(set(target)) == 53
    assert not (tmp_path / "out/shared_vocabulary.json").exists()


def marian_tokenizer(folder, separate: bool) -> MarianTokenizer:
    sentencepiece = pytest.importorskip("sentencepiece")
    options = {"vocab_size": 12, "hard_vocab_limit": False, "minloglevel": 2}
    texts = iter(["A B C D", "E F", "G H"] * 9)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=texts, model_prefix=str(folder / "p"), **options)
    for name, pieces in (("source", "ABCDEFGH"), ("target", "HGFE")):
        vocabulary = {piece: i for i, piece in enumerate(["</s>", "<unk>", "▁", *pieces, "<pad>"])}
        (folder / f"{name}.json").write_text(json.dumps(vocabulary))
    target = {"target_vocab_file": str(folder / "target.json"), "separate_vocabs": True} if separate else {}
    pieces = str(folder / "p.model")
    return MarianTokenizer(pieces, pieces, str(folder / "source.json"), **target)


@pytest.mark.slow
def test_a_marian_tokenizer_may_hold_two_vocabularies(tmp_path):
    one, two = (marian_tokenizer(tmp_path, separate) for separate in (False, True))
    assert tokens_of(one, 13, "target") == ["</s>", "<unk>", "▁", *"ABCDEFGH", "<pad>", "<unused_0>"]
    assert tokens_of(two, 12, "source") == tokens_of(one, 12, "target")
    assert tokens_of(two, 9, "target") == ["</s>", "<unk>", "▁", *"HGFE", "<pad>", "<unused_0>"]


@pytest.mark.parametrize("separate", [False, True], ids=["one", "two"])
def test_a_converted_marian_exports_with_its_tokenizer(separate, tmp_path):
    tokens = {"pad_token_id": 11, "eos_token_id": 0, "decoder_start_token_id": 11, "bos_token_id": None}
    sizes = {"vocab_size": 12, "encoder_vocab_size": 13 if separate else None}
    folder = tmp_path / "checkpoint"
    make_uneven_model(**VANILLA, **tokens, **sizes).save_pretrained(folder)
    tokenizer = marian_tokenizer(tmp_path, separate)
    tokenizer.save_pretrained(folder)
    export_checkpoint(str(folder), tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["eos_token"], config["unk_token"]) == ("</s>", "<unk>")
    tokens = json.loads((tmp_path / f"out/{'target' if separate else 'shared'}_vocabulary.json").read_text())
    assert tokens == tokens_of(tokenizer, 12, "target") and config["decoder_start_token"] == tokens[11]


def test_an_unused_row_takes_no_token_s_name(checkpoint, tokenizer, tmp_path):
    _, folder = checkpoint()
    train_tokenizer(["A <unused_0> B"], "symbol").save_pretrained(folder)
    export_checkpoint(str(folder), tmp_path / "out")
    tokens = json.loads((tmp_path / "out/shared_vocabulary.json").read_text())
    assert tokens.count("<unused_0>") == 1 and len(set(tokens)) == 53


GENERATION = {
    "nothing": {},
    "lengths": {"max_length": 9, "min_length": 6},
    "new-tokens": {"max_new_tokens": 5, "min_new_tokens": 4},
    "forced-end": {"max_length": 7, "forced_eos_token_id": END},
    "forbidden": {"bad_words_ids": [[5], [9, 31]], "suppress_tokens": [7, 11, 40]},
    "two-ends": {"eos_token_id": [END, 30]},
    "inactive": {"do_sample": False, "repetition_penalty": 1.0, "early_stopping": False},
}


@pytest.mark.parametrize("fields", GENERATION.values(), ids=GENERATION)
def test_the_arguments_beside_a_model_decode_as_its_generation_config(fields, checkpoint, tmp_path):
    model = make_uneven_model(use_final_logits_bias=True)
    model.lm_head.bias.data[[END, 30]] = torch.tensor([3.0, 2.0])
    for name, value in fields.items():
        setattr(model.generation_config, name, value)
    model, folder = checkpoint(model=model)
    assert export_checkpoint(str(folder), tmp_path / "out").left == {}
    sources = make_rows(SIZES["vocab_size"], range(3, 11))
    expected = generate(model, sources)
    assert Translator(tmp_path / "out").translate(sources) == expected
    assert len(set(map(len, expected))) > 1 or fields.keys() & {"max_new_tokens", "forced_eos_token_id"}


def test_positions_limit_the_length(exported):
    model, translator = exported(**VANILLA)
    assert decoding_options(GenerationConfig(max_length=999), vocabulary_of("x"), 64)[0]["max_decoding_length"] == 64
    (ids,) = translator.translate([make_rows(53)[0]], max_decoding_length=64, min_decoding_length=64)
    assert len(ids) == 64


# All defaults, which a run's generation config spells out.
AS_THE_TRAINER_SAVES = {
    **{"min_length": 0, "do_sample": False, "early_stopping": False, "num_beams": 1, "temperature": 1.0, "top_k": 50},
    **{"top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0},
    **{"encoder_no_repeat_ngram_size": 0, "num_return_sequences": 1, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0},
    **{"encoder_repetition_penalty": 1.0, "num_assistant_tokens": 20, "num_assistant_tokens_schedule": "constant"},
    **{"assistant_confidence_threshold": 0.4, "assistant_lookbehind": 10, "target_lookbehind": 10, "max_length": 41},
    **{"diversity_penalty": 0.0, "num_beam_groups": 1, "remove_invalid_values": False, "use_cache": True},
}


def vocabulary_of(*tokens: str) -> library.Vocabulary:
    return library.Vocabulary([*tokens], [*tokens], tokens[0], [tokens[-1]], tokens[0])


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"no_repeat_ngram_size": 3}, {"no_repeat_ngram_size": 3}),
        ({"forced_bos_token_id": 0}, {"forced_bos_token_id": 0}),
        ({"do_sample": True, "top_p": 0.9}, {"do_sample": True, "top_p": 0.9}),
        ({"top_p": 0.9}, {}),
        ({**AS_THE_TRAINER_SAVES, "num_beams": 4, "early_stopping": True}, {}),
        ({"num_beams": 4}, {"early_stopping": False}),
        ({"num_beams": 4, "length_penalty": 0.0}, {}),
        ({"num_beams": 4, "early_stopping": True}, {}),
        ({"num_beams": 4, "early_stopping": True, "min_length": 3}, {"min_length": 3}),
        ({"num_beams": 4, "early_stopping": True, "bad_words_ids": [[0]]}, {"bad_words_ids": [[0]]}),
    ],
)
def test_what_the_arguments_do_not_stand_for_is_said(given, left):
    assert decoding_options(GenerationConfig(**given), vocabulary_of("x", "y"), None)[1] == left


def test_the_command_says_what_it_did(checkpoint, tmp_path, capsys):
    model = make_model()
    model.generation_config.num_beams = 4
    _, folder = checkpoint(model=model)
    export.main([str(folder), str(tmp_path / "new/out"), "--quantization", "int8"])
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{tmp_path / 'new/out'}: int8; log-probabilities")
    assert "`early_stopping=False` is not, or not exactly, in decoding.json" in captured.err
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["decoder_start_token_id", "eos_token_id"])
def test_a_target_without_a_start_or_an_end_is_refused(name, tokenizer):
    model = make_model()
    setattr(model.generation_config, name, None)
    setattr(model.config, name, None)
    if name == "eos_token_id":
        tokenizer = train_tokenizer(["A"], "symbol")
        tokenizer.eos_token = None
    with pytest.raises(ArgumentError, match=f"`{name}=None`"):
        library.Vocabulary.of(model, tokenizer, tokenizer)


def test_an_export_that_computes_something_else_is_refused(checkpoint, tmp_path, monkeypatch, capsys):
    _, folder = checkpoint()
    monkeypatch.setitem(ctranslate2_spec.ACTIVATIONS, "silu", "RELU")
    assert "CTranslate2 computes something else" in refused(export, [folder, tmp_path / "out"], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_bad_input_is_one_line_and_writes_nothing(checkpoint, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    make_stock("T5").save_pretrained(tmp_path / "stock")
    _, folder = checkpoint()
    assert "no such file" in refused(export, ["/no/such/folder", out], capsys)
    line = refused(export, [tmp_path / "stock", out], capsys)
    assert "model_type 't5'" in line and "ct2-transformers-converter" in line and "hf-xformer convert" in line
    assert "int4" in refused(export, [folder, out, "--quantization", "int4"], capsys)
    train_tokenizer([" ".join(map(chr, range(200, 300)))], "symbol").save_pretrained(folder)
    assert "more than the model's `vocab_size`" in refused(export, [folder, out], capsys)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer" in refused(export, [folder, out], capsys)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    assert "pip install 'hf-xformer[export]'" in refused(export, [folder, out], capsys)
    assert not out.exists() and {path.name for path in tmp_path.iterdir()} == {"stock", "checkpoint"}


def test_a_folder_in_use_is_replaced_only_if_it_is_an_export(checkpoint, tmp_path, capsys):
    _, folder = checkpoint()
    out = tmp_path / "out"
    out.mkdir()
    export.main([str(folder), str(out)])
    (out / "source_vocabulary.json").touch()  # of an earlier export with two vocabularies
    assert f"{out}: the folder is not empty" in refused(export, [folder, out], capsys)
    export.main([str(folder), str(out), "--overwrite"])
    files = ["config.json", "decoding.json", "model.bin", "shared_vocabulary.json"]
    assert sorted(path.name for path in out.iterdir()) == files
    (out / "notes.txt").write_text("precious")
    assert "notes.txt" in refused(export, [folder, out, "--overwrite"], capsys)
    assert (out / "notes.txt").exists()
    assert "is not part of one" in refused(export, [folder, folder, "--overwrite"], capsys)
    assert "not a folder" in refused(export, [folder, out / "notes.txt"], capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "out"}
