# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""onnxruntime computes from our graphs what the models compute, under the names that others read."""

import numpy as np
import pytest
import torch
from small_exports import END, EXPORTED, START, generate, make_rows, make_uneven_model, rope
from small_models import SIZES, VANILLA, VARIANTS
from torch.testing import assert_close

from hf_xformer.checkpoints.engines import log_probabilities
from hf_xformer.checkpoints.onnx_export import DECODER, ENCODER, save
from hf_xformer.checkpoints.onnx_graphs import write_graphs
from hf_xformer.checkpoints.onnx_sessions import OnnxModel


pytest.importorskip("onnxruntime")

FACTORS = {"long_factor": [2.0] * 4, "short_factor": [1.0] * 4, "original_max_position_embeddings": 9}
WINDOWS = {"encoder_layer_types": ["sliding_attention", "full_attention"], "block_size": 2, "num_global_tokens": 1}
CASES = {
    **EXPORTED,
    "blocks": VARIANTS["rope-pre-blocks"],
    "blocks-unshifted": {**VARIANTS["rope-pre-blocks"], "block_shift": False, "num_global_tokens": 0},
    "windows": WINDOWS,
    # Both sides of the length at which their frequencies change are among the sources.
    "dynamic": {**rope("dynamic", factor=2.0), "max_position_embeddings": 9},
    "longrope": {"head_dim": 8, **rope("longrope", factor=4.0, **FACTORS)},
}


@pytest.fixture
def run(tmp_path):
    """Writes a model's graphs; returns the model and its export, in sessions."""

    def make(int8: bool = False, model=None, **fields):
        model = model or make_uneven_model(**fields)
        graphs, left = write_graphs(model, int8)
        assert left == []
        for stack, name in (("encoder", ENCODER), ("decoder", DECODER)):
            save(graphs[stack], tmp_path / name)
        model.config.to_json_file(tmp_path / "config.json")
        model.generation_config.to_json_file(tmp_path / "generation_config.json")
        return model, OnnxModel(tmp_path, threads=1)

    return make


def worst(model, exported, sources, targets) -> float:
    """Largest difference of log-probabilities."""
    rows = [(source, [START, *target, END]) for source, target in zip(sources, targets, strict=True)]
    pairs = [(exported.log_probabilities(*row), log_probabilities(model, *row).numpy()) for row in rows]
    return max(np.abs(mine - theirs).max() for mine, theirs in pairs)


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_log_probabilities_and_tokens_are_the_models(fields, run):
    model, exported = run(**fields)
    sources = make_rows(model.config.vocab_of("encoder"))  # a ragged batch
    assert worst(model, exported, sources, make_rows(SIZES["vocab_size"], (6, 5, 3))) < 1e-4
    assert exported.generate(sources, 8) == generate(model, sources, max_new_tokens=8)


@pytest.mark.parametrize("name", ["rope-pre", "sinusoidal-post", "blocks", "windows", "dynamic"])
def test_padding_on_either_side_changes_nothing(name, run):
    model, exported = run(**CASES[name])
    ids, mask = torch.tensor([[0, 0, 7, 8, 9, 5, 6, 4], [7, 8, 9, 5, 0, 0, 0, 0]]), None
    mask = (ids != 0).long()
    memory = torch.from_numpy(exported.encode(ids.numpy(), mask.numpy()).numpy())
    with torch.no_grad():
        expected = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    assert_close(memory[mask.bool()], expected[mask.bool()], atol=1e-4, rtol=0)


@pytest.mark.parametrize("fields", [{}, VANILLA, VARIANTS["relative-pre"]], ids=["rope", "sinusoidal", "relative"])
def test_tokens_may_go_in_one_by_one_or_together(fields, run):
    """In the first call a past of any length counts for nothing."""
    _, exported = run(**fields)
    source, mask = np.array([make_rows(53)[0]]), np.ones((1, 11), dtype=np.int64)
    memory, tokens = exported.encode(source, mask), np.array([[START, 9, 8, 7, 6]])
    whole, _ = exported.step(tokens, mask, memory)
    for cuts in ((1, 1, 1, 1, 1), (1, 4), (3, 2)):
        logits, past, first = [], None, 0
        for count in cuts:
            step, past = exported.step(tokens[:, first : first + count], mask, memory, past)
            logits, first = [*logits, step], first + count
        np.testing.assert_allclose(np.concatenate(logits, axis=1), whole, atol=1e-4)
    stale = {name: np.full((1, shape[1], 1, shape[3]), 9, np.float32) for name, shape in exported.past.items()}
    feeds = {"input_ids": tokens, "encoder_attention_mask": mask, "encoder_hidden_states": memory.numpy(), **stale}
    logits = exported.decoder.run(["logits"], {**feeds, "use_cache_branch": np.array([False])})[0]
    np.testing.assert_allclose(logits, whole, atol=1e-5)


def test_graphs_are_valid_and_have_the_names_that_others_read(run):
    from onnx import checker

    model = make_uneven_model(num_key_value_heads=2)
    for graph in write_graphs(model, int8=False)[0].values():
        checker.check_model(graph, full_check=True)
    _, exported = run(model=model)
    names = [each.name for each in exported.encoder.get_inputs() + exported.encoder.get_outputs()]
    assert names == ["input_ids", "attention_mask", "last_hidden_state"]
    cached = [f"{i}.{side}.{part}" for i in range(3) for side in ("decoder", "encoder") for part in ("key", "value")]
    given = ["input_ids", "encoder_attention_mask", "encoder_hidden_states", "use_cache_branch"]
    assert [each.name for each in exported.decoder.get_inputs()] == given + [f"past_key_values.{x}" for x in cached]
    assert [each.name for each in exported.decoder.get_outputs()] == ["logits"] + [f"present.{x}" for x in cached]
    assert exported.decoder.get_inputs()[4].shape == ["batch", 2, "past", 8]


@pytest.mark.parametrize("name", ["rope-pre", "two-vocabularies-untied", "blocks"])
def test_weights_of_8_bits_are_nearly_the_models(name, run):
    model, exported = run(int8=True, **CASES[name])
    sources = make_rows(model.config.vocab_of("encoder"))
    assert 1e-4 < worst(model, exported, sources, make_rows(SIZES["vocab_size"], (6, 5, 3))) < 0.5


def test_texts_end_at_the_last_position(run):
    model, exported = run(**{**VANILLA, "max_position_embeddings": 12})
    model.generation_config.eos_token_id = None
    exported.generation.update(max_length=99, eos_token_id=[])
    (tokens,) = exported.generate([[5, 6, 7]])
    assert len(tokens) == 12
    assert tokens == model.generate(torch.tensor([[5, 6, 7]]), max_length=99)[0, 1:].tolist()


def test_a_tensor_that_has_no_place_is_named():
    model = make_uneven_model()
    model.model.encoder.layers[0].adapter = torch.nn.Linear(32, 32, bias=False)
    assert write_graphs(model, int8=False)[1] == ["model.encoder.layers.0.adapter.weight"]
