# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Compiled decoding writes what plain decoding does, with few graphs, and says what it cannot compile."""

import copy
import logging
import pickle

import pytest
import torch
from generation_cases import MODES, START, generate, source, variants
from small_models import SIZES, VARIANTS, make_model
from torch.testing import assert_close
from transformers import CompileConfig

from hf_xformer.models.versions_xformer import CACHE


pytestmark = pytest.mark.slow  # every test compiles
SMALL = {"encoder_layers": 1, "decoder_layers": 1}
STATIC = {"cache_implementation": "static"}
# More than the 16 tokens that a cache has room for at first.
OPTIONS = {"eos_token_id": None, "max_new_tokens": 20, "return_dict_in_generate": True, "output_logits": True}
PADDED_PROMPT = torch.tensor([[0, 0, START, 9, 7], [0, START, 5, 6, 8], [START, 5, 9, 11, 8]])
CALLS = {
    **MODES,
    "beams-left-padded": {**source("left"), "num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5},
    "samples-of-one": {"do_sample": True, "num_return_sequences": 3},
    "prompt": {"decoder_input_ids": PADDED_PROMPT, "decoder_attention_mask": (PADDED_PROMPT != 0).long()},
    "ended": {"eos_token_id": 20, "num_beams": 2, "early_stopping": True},
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Counter:
    """A compiler that runs what was traced as it is, and counts how often it was called."""

    def __init__(self):
        self.graphs = 0

    def options(self) -> dict:
        def compiler(graph, inputs):
            self.graphs += 1
            return graph.forward

        return {**STATIC, "compile_config": CompileConfig(backend=compiler, mode=None, fullgraph=True)}


def assert_same(found, expected):
    assert torch.equal(found.sequences, expected.sequences)
    assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)


def ragged(rows: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(4, SIZES["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[1:, : length // 3] = 0
    return {"input_ids": ids, "attention_mask": mask}


@variants
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_steps_with_a_cache_of_one_shape_write_what_plain_ones_do(overrides, call):
    """Without the compiler, which is torch's: all else is as in compiled decoding."""
    model, options = make_model(**overrides), {**source(), **OPTIONS, **call}
    expected = generate(model, **options)
    with torch.compiler.set_stance("force_eager"):
        found = generate(model, **options, **STATIC)
    assert type(getattr(found, CACHE)).__name__ == "GraphCache"
    assert_same(found, expected)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "rope-post-gqa" else pytest.mark.nightly) for name in VARIANTS],
)
def test_sources_and_targets_of_ten_lengths_and_any_number_of_rows_share_one_graph(name):
    model, counter = make_model(**VARIANTS[name]), Counter()
    options = counter.options()
    for rows, length, new in [(2, 5, 12), (3, 11, 14), (2, 8, 20), (5, 16, 35), (4, 17, 9), (3, 1, 4), (2, 30, 40)]:
        batch = {**ragged(rows, length), "max_new_tokens": new, "eos_token_id": None}
        assert torch.equal(model.generate(**batch, **options), model.generate(**batch))
    assert counter.graphs == 1
    for length in (3, 12, 19):  # a row alone has a graph of its own
        batch = {**ragged(1, length), "max_new_tokens": 2 * length, "eos_token_id": None}
        assert torch.equal(model.generate(**batch, **options), model.generate(**batch))
    assert counter.graphs == 2


def test_compiled_steps_of_batches_in_turn_write_what_plain_ones_do():
    """By the real compiler, which freezes weights: a cache taken for one would be the first batch's for ever."""
    model = make_model(**SMALL, num_key_value_heads=2, qk_norm=True)
    for rows, length in ((2, 9), (3, 12), (2, 5)):
        batch = {**ragged(rows, length), **OPTIONS}
        assert_same(model.generate(**batch, **STATIC), model.generate(**batch))
    # Weights changed in place, in a way that leaves no trace.
    model.get_decoder().layers[0].cross_attention.o_proj.weight.data.mul_(-1)
    assert_same(model.generate(**batch, **STATIC), model.generate(**batch))


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["rope-post-gqa", "relative-pre", "rope-pre-blocks"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_beams_write_what_plain_ones_do(name, dtype):
    model = make_model(**VARIANTS[name]).to(dtype)
    for rows, length in ((2, 9), (3, 12), (1, 5)):
        batch = {**ragged(rows, length), **OPTIONS, "num_beams": 3}
        found, expected = model.generate(**batch, **STATIC), model.generate(**batch)
        if dtype == torch.float32:
            assert_same(found, expected)
        else:  # of the second step: rounding has put beams that are nearly as likely in another order
            apart = torch.cdist(found.logits[1].float(), expected.logits[1].float())
            assert apart.amin(dim=1).max() < 0.5


CHANGES = {
    "a step of training": lambda model: torch.optim.SGD(model.parameters(), lr=0.1).step(),
    "loaded weights": lambda model: model.load_state_dict({k: v * 1.5 for k, v in model.state_dict().items()}),
    "weights without a trace": lambda model: model.lm_head.weight.data.mul_(-1),
    "another type": lambda model: model.to(torch.bfloat16),
}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change, id=name, marks=[] if name == "weights without a trace" else pytest.mark.nightly)
        for name, change in CHANGES.items()
    ],
)
def test_changed_weights_are_compiled_anew(change, caplog):
    model, counter = make_model(**SMALL), Counter()
    options, batch = counter.options(), {**ragged(2, 5), "max_new_tokens": 2}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for _ in range(2):
        model.generate(**batch, **options)
    assert counter.graphs == 1 and "compiled anew" not in caplog.text
    change(model)
    model.generate(**batch, **options)
    assert counter.graphs == 2 and caplog.text.count("compiled anew") == 1


@pytest.mark.nightly
def test_there_are_more_kinds_of_calls_than_torch_makes_graphs_of_one_function():
    """One row and several, of one source and several, with a mask of the prompt and without, in two modes."""
    model, counter = make_model(**SMALL), Counter()
    for context in (torch.no_grad, torch.inference_mode):
        for rows, beams in ((1, 1), (1, 3), (2, 1), (2, 3)):
            prompt = PADDED_PROMPT[:rows]
            for masked in ({}, {"decoder_input_ids": prompt, "decoder_attention_mask": (prompt != 0).long()}):
                batch = {**ragged(rows, 5), **masked, "num_beams": beams, "max_new_tokens": 3, "eos_token_id": None}
                with context():
                    assert torch.equal(model.generate(**batch, **counter.options()), model.generate(**batch))
    assert counter.graphs > torch._dynamo.config.recompile_limit


def test_a_copy_of_a_model_and_a_pickled_one_compile_for_themselves():
    model, batch = make_model(**SMALL), {**ragged(2, 5), **STATIC, "max_new_tokens": 4}
    with torch.compiler.set_stance("force_eager"):
        expected = model.generate(**batch)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert model.compiled_decoding.steps and not other.compiled_decoding.steps
            assert torch.equal(other.generate(**batch), expected)


def test_autocast_decodes_with_a_cache_of_its_type():
    model, batch = make_model(), {**source(), **OPTIONS}
    with torch.autocast("cpu", torch.bfloat16), torch.compiler.set_stance("force_eager"):
        found, expected = (model.generate(**batch, **options) for options in (STATIC, {}))
    assert getattr(found, CACHE).own[0].keys.dtype == torch.bfloat16
    assert_close(found.logits[1], expected.logits[1], atol=0.2, rtol=0.05)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"output_attentions": True}, "decoding is not compiled: `output_attentions` is given"),
        ({"decoder_position_ids": torch.zeros(3, 1).long()}, "`decoder_position_ids` is given"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_graph_computes_is_decoded_without_one_and_said(options, line, caplog):
    model = make_model(attn_implementation="eager")
    with caplog.at_level(logging.WARNING):
        model.generate(**source(), max_new_tokens=3, **STATIC, **options)
    assert line in caplog.text and not hasattr(model, "compiled_decoding")


def test_a_model_in_training_and_one_under_flex_attention_say_that_they_are_not_compiled():
    model = make_model()
    assert model.why_not_compiled() is None
    assert "model.eval()" in model.train().why_not_compiled()
    model.eval().set_attn_implementation("flex_attention")
    assert 'attn_implementation="flex_attention"' in model.why_not_compiled()


def test_a_machine_without_a_c_compiler_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no C++ compiler no-such-compiler" in make_model().why_not_compiled()


def test_a_cache_of_compiled_decoding_is_for_one_call():
    model = make_model()
    with torch.compiler.set_stance("force_eager"):
        found = model.generate(**source(), **OPTIONS, **STATIC)
        with pytest.raises(ValueError, match="ends with its call"):
            model.generate(**source(), decoder_input_ids=found.sequences, **{CACHE: getattr(found, CACHE)})
