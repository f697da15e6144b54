# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""CTranslate2 computes from our specifications what the models compute; the rest is refused by name."""

import pytest
import torch
from small_exports import (
    END,
    EXPORTED,
    RELATIVE,
    SCALED,
    START,
    YARN,
    Translator,
    generate,
    make_rows,
    make_uneven_model,
    rope,
    worst,
)
from small_models import SIZES, VANILLA, make_model
from small_runs import refused
from torch.testing import assert_close

from hf_xformer.checkpoints.ctranslate2_spec import ACTIVATIONS, make_spec
from hf_xformer.checkpoints.export import export_checkpoint
from hf_xformer.commands import export
from hf_xformer.errors import ArgumentError


pytest.importorskip("ctranslate2")

variants = pytest.mark.parametrize("fields", EXPORTED.values(), ids=EXPORTED)


@variants
def test_log_probabilities_and_tokens_are_the_checkpoints(fields, exported):
    model, translator = exported(**fields)
    sources = make_rows(model.config.vocab_of("encoder"))
    assert worst(model, translator, sources, make_rows(SIZES["vocab_size"], (6, 9, 3))) < 1e-4
    # Each token once, or a random model would say the same one over and over. Of the start token, the library takes
    # the first for a repetition.
    greedy = generate(model, sources, max_length=10, no_repeat_ngram_size=1, bad_words_ids=[[START]])
    once = {"no_repeat_ngram_size": 1, "suppress_sequences": [["<s>"]]}
    assert translator.translate(sources, max_decoding_length=9, **once) == greedy
    assert len(set(map(tuple, greedy))) > 1 and max(map(len, greedy)) > 3
    # Under `early_stopping=True` and any length penalty the two searches are one.
    beams = generate(model, sources, max_length=10, num_beams=4, early_stopping=True, length_penalty=1.0)
    assert translator.translate(sources, max_decoding_length=9, beam_size=4) == beams


@pytest.mark.parametrize("is_gated", [True, False], ids=["gated", "plain"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_the_checkpoints(name, is_gated, exported):
    model, translator = exported(activation_function=name, gated_ffn=is_gated, encoder_layers=1, decoder_layers=1)
    assert worst(model, translator, make_rows(SIZES["vocab_size"]), make_rows(SIZES["vocab_size"])) < 1e-5


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
def test_searches_that_end_are_the_same(penalty, exported):
    model = make_uneven_model(use_final_logits_bias=True)
    model.lm_head.bias.data[END] = 3.0
    model, translator = exported(model=model)
    sources = make_rows(SIZES["vocab_size"], range(3, 13))
    options = {"num_beams": 4, "early_stopping": True, "length_penalty": penalty, "max_length": 15}
    expected = generate(model, sources, **options)
    assert sum(len(ids) < 14 for ids in expected) > 3
    found = translator.translate(sources, beam_size=4, length_penalty=penalty, max_decoding_length=14)
    assert found == expected


@pytest.mark.parametrize("fields", [{}, VANILLA, RELATIVE], ids=["rope", "sinusoidal", "relative"])
def test_padding_in_a_batch_changes_nothing(fields, exported):
    _, translator = exported(**fields)
    sources, targets = make_rows(SIZES["vocab_size"]), make_rows(SIZES["vocab_size"], (4, 7, 2))
    for beams in (1, 3):
        alone = [translator.translate([ids], beam_size=beams)[0] for ids in sources]
        assert translator.translate(sources, beam_size=beams) == alone
    alone = [translator.score([s], [t])[0] for s, t in zip(sources, targets, strict=True)]
    for one, other in zip(translator.score(sources, targets), alone, strict=True):
        assert_close(one, other, atol=1e-5, rtol=0)


LONG = {
    "rope": {},
    "yarn": YARN,
    "llama3": EXPORTED["llama3"],
    "relative": {**RELATIVE, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
    "none": {"position_embedding_type": "none"},
}


@pytest.mark.parametrize("fields", LONG.values(), ids=LONG)
def test_positions_are_right_far_out(fields, exported):
    model, translator = exported(**fields)
    rows = [make_rows(SIZES["vocab_size"], lengths) for lengths in ((500, 301), (400, 203))]
    assert worst(model, translator, *rows) < 1e-4


@pytest.mark.parametrize("rope_type", ["linear", "yarn"])
def test_half_precision_does_not_round_the_angles(rope_type, exported):
    fields = rope(rope_type, factor=3.3, original_max_position_embeddings=256)
    model, halved = exported("float16", head_dim=64, **fields)
    for parameter in model.parameters():
        parameter.data = parameter.half().float()
    assert worst(model, halved, *[make_rows(SIZES["vocab_size"], (length,)) for length in (500, 400)]) < 1e-4


# Largest difference that rounding the weights to this type makes.
ROUNDING = {"int8": 0.3, "int8_float32": 0.3, "int16": 0.03, "float16": 0.01, "bfloat16": 0.1}


@pytest.mark.parametrize(("quantization", "most"), ROUNDING.items(), ids=ROUNDING)
def test_quantised_weights_are_small_and_nearly_the_checkpoints(quantization, most, checkpoint, tmp_path):
    """In exact arithmetic with these weights. What this CPU's own arithmetic adds to it, the export measures."""
    model, folder = checkpoint()
    whole, small = (
        export_checkpoint(str(folder), tmp_path / kind, kind) and tmp_path / kind for kind in ("float32", quantization)
    )
    sources, targets = make_rows(SIZES["vocab_size"]), make_rows(SIZES["vocab_size"], (6, 9, 3))
    assert 1e-4 < worst(model, Translator(small), sources, targets) < most
    assert (small / "model.bin").stat().st_size < 0.6 * (whole / "model.bin").stat().st_size


def test_quantisation_leaves_the_model_as_it_is():
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    spec = make_spec(model)
    for register in (spec.register_source_vocabulary, spec.register_target_vocabulary):
        register([str(i) for i in range(SIZES["vocab_size"])])
    spec.validate()
    spec.optimize("int8")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_without_quantisation_the_weights_keep_their_type(dtype, checkpoint, tmp_path):
    _, folder = checkpoint(dtype=dtype)
    assert export_checkpoint(str(folder), tmp_path / "out").quantization == str(dtype).removeprefix("torch.")
    model = make_uneven_model()
    for parameter in model.parameters():
        parameter.data = parameter.to(dtype).float()
    rows = make_rows(SIZES["vocab_size"])
    assert worst(model, Translator(tmp_path / "out"), rows, rows) < 1e-4


REFUSED = {
    "encoder_layer_types": {"encoder_layer_types": ["full_attention", "chunked_attention"]},
    "decoder_layer_types": {"decoder_layer_types": ["full_attention", "sliding_attention", "full_attention"]},
    "activation_function": {"activation_function": "mish"},
    "rope_parameters": rope("dynamic", factor=2.0),
}


def values_of(value) -> list:
    return list(value.values()) if isinstance(value, dict) else [value]


@pytest.mark.parametrize(("field", "fields"), REFUSED.items(), ids=REFUSED)
def test_what_ctranslate2_lacks_is_refused_by_field_and_value(field, fields, checkpoint, tmp_path, capsys):
    _, folder = checkpoint(**fields)
    line = refused(export, [folder, tmp_path / "out"], capsys)
    assert f"`{field}=" in line and all(repr(value) in line for value in values_of(fields[field]))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_longrope_and_quantised_checkpoints_are_refused(checkpoint):
    factors = {"long_factor": [2.0] * 4, "short_factor": [1.0] * 4}
    model = make_model(head_dim=8, **rope("longrope", **SCALED, **factors))
    with pytest.raises(ArgumentError, match="`rope_parameters=.*longrope"):
        make_spec(model)
    model = make_model()
    model.config.quantization_config = {"load_in_4bit": True}
    with pytest.raises(ArgumentError, match="`quantization_config=.*load_in_4bit.*--quantization"):
        make_spec(model)


def test_a_tensor_that_has_no_place_is_refused():
    model = make_model()
    model.model.encoder.layers[0].adapter = torch.nn.Linear(32, 32, bias=False)
    with pytest.raises(ArgumentError, match=r"1 tensors.*model.encoder.layers.0.adapter.weight"):
        make_spec(model)
