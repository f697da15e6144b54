# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""One graph: compiled training, compiled decoding and export compute what plain execution does."""

import pytest
import torch
from generation_cases import FULL_LENGTH, source, target
from small_models import SIZES, VANILLA, VARIANTS, gradients, make_batch, make_model
from torch.testing import assert_close
from transformers import DynamicCache, EncoderDecoderCache
from transformers.integrations.executorch import Seq2SeqLMExportableModule

from hf_xformer.models.versions_xformer import CACHE


# Tracing takes seconds a layer.
SMALL = {"encoder_layers": 1, "decoder_layers": 1}
CONFIGS = {
    "modern": {**SMALL, "num_key_value_heads": 2, "qk_norm": True},
    "vanilla": {**VANILLA, **SMALL},
    "relative": {**VARIANTS["relative-pre"], **SMALL},
    # Shifted blocks need a second layer.
    "blocks": {
        **{"encoder_layers": 2, "decoder_layers": 2, "block_size": 3, "num_global_tokens": 2},
        "encoder_layer_types": ["chunked_attention", "chunked_attention"],
        "decoder_layer_types": ["sliding_attention", "chunked_attention"],
    },
}
configs = pytest.mark.parametrize("overrides", CONFIGS.values(), ids=CONFIGS)
# Blocks trace the most of their own; the others share nearly all of it with "modern".
MARKS = {"modern": [], "blocks": pytest.mark.slow, "vanilla": pytest.mark.nightly, "relative": pytest.mark.nightly}
modern_and_slow_others = pytest.mark.parametrize(
    "overrides", [pytest.param(overrides, id=name, marks=MARKS[name]) for name, overrides in CONFIGS.items()]
)
slow_ones = pytest.mark.parametrize(
    "overrides",
    [pytest.param(CONFIGS[name], id=name, marks=MARKS[name] or pytest.mark.slow) for name in CONFIGS],
)
# "aot_eager" traces forward and backward as one graph each but generates no code, which is what takes long.
GRAPHS = [
    *((name, "aot_eager", MARKS[name]) for name in CONFIGS),
    *((name, "inductor", pytest.mark.nightly) for name in CONFIGS),
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class CountGraphs:
    """A compiler that runs what was traced as it is, and counts how often it was called."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


def count_of_graphs(overrides) -> int:
    """One that fills the cross-attention cache, one that reads it, and one for windows that are full."""
    return 2 + any(layer_type != "full_attention" for layer_type in overrides.get("decoder_layer_types", []))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "backend"),
    [pytest.param(CONFIGS[name], backend, marks=marks, id=f"{name}-{backend}") for name, backend, marks in GRAPHS],
)
def test_one_graph_of_forward_and_backward_gives_the_plain_gradients(overrides, backend):
    batch, plain, compiled = make_batch(), make_model(**overrides), make_model(**overrides)
    plain(**batch).loss.backward()
    torch.compile(compiled, fullgraph=True, backend=backend)(**batch).loss.backward()
    assert_close(gradients(compiled), gradients(plain), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@modern_and_slow_others
def test_decoding_steps_of_all_lengths_in_one_bucket_share_one_graph_and_decode_as_plain_ones(overrides):
    model, plain = (make_model(**overrides, tie_word_embeddings=False) for _ in range(2))
    compiler, bucket = CountGraphs(), 12
    model.forward = torch.compile(model.forward, fullgraph=True, backend=compiler)
    options = {**FULL_LENGTH, "max_new_tokens": 7}
    static = {"cache_implementation": "static", "disable_compile": True}
    for length in range(3, 13):
        ids = torch.randint(4, SIZES["vocab_size"], (2, length), generator=torch.Generator().manual_seed(length))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        padded = {name: torch.nn.functional.pad(tensor, (0, bucket - length)) for name, tensor in batch.items()}
        assert torch.equal(model.generate(**padded, **options, **static), plain.generate(**batch, **options))
        # The first call fills the cross-attention cache; the second is the first of six alike, until a window is full.
        assert compiler.graphs == count_of_graphs(overrides)


@slow_ones
def test_nothing_breaks_the_graph_of_a_decoding_step_with_a_cache_that_grows(overrides):
    """The other graphs are whole by `fullgraph`, which the library does not ask for here."""
    model, ids = make_model(**overrides), target()
    inputs = {"attention_mask": source()["attention_mask"], "encoder_outputs": model.get_encoder()(**source())}
    cache = EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache())
    for tokens in (ids[:, :4], ids[:, 4:5]):
        explained = torch._dynamo.explain(model)(**inputs, decoder_input_ids=tokens, **{CACHE: cache})
        assert (explained.graph_count, explained.graph_break_count) == (1, 0)


@pytest.mark.slow
@configs
def test_the_exported_forward_is_the_forward(overrides):
    model = make_model(**overrides)
    inputs = {**source(), "decoder_input_ids": make_batch()["labels"].clamp(min=0), "use_cache": False}
    expected = model(**inputs).logits
    exported = torch.export.export(model, (), inputs, strict=False)
    assert_close(exported.module()(**inputs).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
# The library exports for sources of any length, blocks are for any number of whole ones: see below.
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(CONFIGS[name], id=name, marks=MARKS[name] or pytest.mark.slow)
        for name in CONFIGS
        if name != "blocks"
    ],
)
def test_an_exported_encoder_and_decoding_step_with_a_static_cache_are_the_model(overrides):
    # The library's wrapper calls the decoder and the output layer, between which T5 scales too.
    model = make_model(**{**overrides, "scale_decoder_outputs": False})
    exported = Seq2SeqLMExportableModule(model, batch_size=1, max_hidden_seq_length=20, max_cache_length=16)
    exported = exported.export(decoder_input_ids=torch.tensor([[5]]))
    encoder, step = exported.exported_encoder.module(), exported.exported_decoder.module()
    for row, length in enumerate([11, 8, 5]):
        ids, tokens = source()["input_ids"][row : row + 1, :length], target()[row : row + 1]
        memory = encoder(ids)
        assert_close(memory, model.get_encoder()(ids).last_hidden_state, atol=1e-5, rtol=1e-5)
        logits = [step(tokens[:, i : i + 1], memory, torch.tensor([i])) for i in range(tokens.shape[1])]
        assert_close(torch.cat(logits, dim=1), model(ids, decoder_input_ids=tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_sources_of_ten_lengths_need_a_graph_more_with_blocks_one_for_whole_ones():
    """The first length's own, one of all others that leave a rest in the last block, and one of those that do not."""
    # The target has one length.
    overrides = {**CONFIGS["blocks"], "decoder_layers": 1, "decoder_layer_types": ["chunked_attention"]}
    model, plain = (make_model(**overrides) for _ in range(2))
    compiler = CountGraphs()
    model = torch.compile(model, fullgraph=True, backend=compiler)
    counts = []
    for length in (10, 11, 13, 14, 12, 15, 16, 17, 18, 19):
        ids = torch.randint(4, SIZES["vocab_size"], (2, length), generator=torch.Generator().manual_seed(length))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, :8].clone()}
        batch["attention_mask"][0, -4:] = 0
        assert_close(model(**batch).loss, plain(**batch).loss, atol=1e-5, rtol=1e-5)
        counts.append(compiler.graphs)
    assert counts == [1, 2, 2, 2] + [3] * 6


@pytest.mark.slow
@pytest.mark.parametrize("layer_type", ["chunked_attention", "sliding_attention"])
def test_an_encoder_of_blocks_is_exported_for_sources_of_any_number_of_them(layer_type):
    size = CONFIGS["blocks"]["block_size"]
    encoder = make_model(**{**CONFIGS["blocks"], "encoder_layer_types": [layer_type] * 2}).get_encoder()
    lengths = {1: size * torch.export.Dim("blocks", min=2, max=20)}

    def batch(blocks: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(4, SIZES["vocab_size"], (2, blocks * size), generator=torch.Generator().manual_seed(0))
        mask = torch.arange(blocks * size) < torch.tensor([[blocks * size], [4]])
        return {"input_ids": ids, "attention_mask": mask.long()}

    shapes = {"input_ids": lengths, "attention_mask": lengths}
    exported = torch.export.export(encoder, (), batch(5), dynamic_shapes=shapes, strict=False).module()
    for blocks in (2, 5, 9):
        inputs = batch(blocks)
        attended = inputs["attention_mask"].bool()
        memory, expected = (each(**inputs).last_hidden_state for each in (exported, encoder))
        assert_close(memory[attended], expected[attended], atol=1e-5, rtol=1e-5)
