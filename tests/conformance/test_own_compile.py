# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""One graph: compiled training, compiled decoding and export compute what plain execution does."""

import pytest
import torch
from small_models import VANILLA, gradients, make_batch, make_model
from torch.testing import assert_close
from transformers import CompileConfig


# Tracing takes seconds a layer.
SMALL = {"encoder_layers": 1, "decoder_layers": 1}
CONFIGS = {"modern": SMALL, "vanilla": {**VANILLA, **SMALL}}
both = pytest.mark.parametrize("overrides", CONFIGS.values(), ids=CONFIGS)
modern_and_slow_vanilla = pytest.mark.parametrize(
    "overrides",
    [pytest.param(SMALL, id="modern"), pytest.param(CONFIGS["vanilla"], id="vanilla", marks=pytest.mark.slow)],
)
# "aot_eager" traces forward and backward as one graph each but generates no code, which is what takes long.
backends = pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def source() -> dict[str, torch.Tensor]:
    batch = make_batch()
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@modern_and_slow_vanilla
@backends
def test_one_graph_of_forward_and_backward_gives_the_plain_gradients(overrides, backend):
    batch, plain, compiled = make_batch(), make_model(**overrides), make_model(**overrides)
    plain(**batch).loss.backward()
    torch.compile(compiled, fullgraph=True, backend=backend)(**batch).loss.backward()
    assert_close(gradients(compiled), gradients(plain), atol=1e-5, rtol=1e-4)


@modern_and_slow_vanilla
def test_compiled_decoding_steps_share_one_graph_and_decode_as_plain_ones(overrides):
    options = {"max_new_tokens": 7, "do_sample": False, "eos_token_id": None}
    plain, compiled = (make_model(**overrides, tie_word_embeddings=False) for _ in range(2))
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled.forward = torch.compile(compiled.forward, fullgraph=True, backend=count)
    static = {"cache_implementation": "static", "disable_compile": True}
    assert torch.equal(compiled.generate(**source(), **options, **static), plain.generate(**source(), **options))
    # The first call fills the cross-attention cache; the second is the first of six alike.
    assert len(graphs) == 2


@pytest.mark.slow
@both
def test_generate_compiles_itself_with_a_static_cache(overrides):
    model = make_model(**overrides, tie_word_embeddings=False)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    expected = model.generate(**source(), **options)
    compile_config = CompileConfig(fullgraph=True)
    # On a CPU the library compiles only on demand.
    compile_config._compile_all_devices = True
    generated = model.generate(**source(), **options, cache_implementation="static", compile_config=compile_config)
    assert hasattr(model, "_compiled_call") and torch.equal(generated, expected)


@both
def test_the_exported_forward_is_the_forward(overrides):
    model = make_model(**overrides)
    inputs = {**source(), "decoder_input_ids": make_batch()["labels"].clamp(min=0), "use_cache": False}
    expected = model(**inputs).logits
    exported = torch.export.export(model, (), inputs, strict=False)
    assert_close(exported.module()(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
