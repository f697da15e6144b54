# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The loss without logits against the loss of logits: values, gradients, memory, and when there are logits."""

import pytest
import torch
from small_models import SIZES, VANILLA, VARIANTS, LargestTensor, gradients, make_batch, make_model
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from hf_xformer.models import output_xformer
from hf_xformer.models.output_xformer import XformerOutputLayer
from hf_xformer.models.varlen_xformer import text_of


TOKENS, WIDTH, VOCABULARY = 29, 12, 41


def make_layer(bias: bool, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(0)
    layer = XformerOutputLayer(WIDTH, VOCABULARY, bias=bias).to(dtype)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).to(dtype)
    x = torch.randn(TOKENS, WIDTH, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    labels[::7] = -100
    return layer, x, labels


def derivatives(loss: torch.Tensor, layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    return [loss, *torch.autograd.grad(loss * 0.3, [x, *layer.parameters()])]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tokens", [1, 8, 29, 100])
def test_loss_and_gradients_are_those_of_torchs_cross_entropy(bias, smoothing, tokens, monkeypatch):
    monkeypatch.setattr(output_xformer, "CHUNK_ELEMENTS", tokens * VOCABULARY)
    layer, x, labels = make_layer(bias)
    expected = nn.functional.cross_entropy(layer(x), labels, reduction="sum", label_smoothing=smoothing)
    assert_close(
        derivatives(layer(x, labels, smoothing), layer, x), derivatives(expected, layer, x), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("how", ["autocast", "weights"])
@pytest.mark.parametrize("tokens", [1, 29], ids=["chunks", "one-chunk"])
def test_in_bfloat16_it_errs_no_more_than_the_loss_of_logits_does(how, tokens, monkeypatch):
    monkeypatch.setattr(output_xformer, "CHUNK_ELEMENTS", tokens * VOCABULARY)
    layer, x, labels = make_layer(True)
    exact = derivatives(nn.functional.cross_entropy(layer(x), labels, reduction="sum"), layer, x)
    if how == "weights":
        layer, x, labels = make_layer(True, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        rounded = derivatives(nn.functional.cross_entropy(layer(x).float(), labels, reduction="sum"), layer, x)
        found = derivatives(layer(x, labels), layer, x)
    for one, other, truth in zip(found, rounded, exact, strict=True):
        assert one.dtype == other.dtype
        assert (one - truth).norm() <= 1.5 * (other - truth).norm() + 1e-3 * truth.norm()


def test_float16_does_not_overflow_over_many_tokens_of_one_label():
    layer = XformerOutputLayer(WIDTH, VOCABULARY, bias=False).half()
    x = torch.full((40_000, WIDTH), 3.0).half().requires_grad_()
    loss = layer(x, torch.ones(40_000, dtype=torch.long)) / 40_000
    (grad,) = torch.autograd.grad(loss, layer.weight)
    assert grad.isfinite().all() and grad[1].abs().max() > 1


@pytest.mark.slow
def test_float16_keeps_the_small_gradients_of_many_tokens():
    """Of a mean over so many tokens each would be below what float16 can hold."""
    torch.manual_seed(0)
    x, labels = torch.randn(20_000, WIDTH), torch.randint(2000, (20_000,))
    layer = XformerOutputLayer(WIDTH, 2000, bias=False)
    (exact,) = torch.autograd.grad(layer(x, labels) / 20_000, layer.weight)
    layer = layer.half()
    (found,) = torch.autograd.grad(layer(x.half(), labels) / 20_000, layer.weight)
    assert (found - exact).norm() < 2e-3 * exact.norm()


def test_a_second_derivative_is_refused():
    layer, x, labels = make_layer(False)
    (grad,) = torch.autograd.grad(layer(x, labels) ** 2, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_a_second_backward_pass_is_refused():
    layer, x, labels = make_layer(False)
    loss = layer(x, labels)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="output_logits=True"):
        loss.backward()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_loss_that_nobody_differentiates_costs_no_gradients(mode, monkeypatch):
    model = make_model()
    expected = model(**make_batch(), output_logits=False).loss
    monkeypatch.setattr(output_xformer, "add_product", None)
    with mode():
        assert torch.equal(model(**make_batch(), output_logits=False).loss, expected)


def test_an_evaluations_loss_multiplies_no_more_than_its_logits_do():
    model, batch = make_model(), make_batch()
    batch["labels"] = batch["labels"].clamp(min=0)  # at every position, as the logits are
    counted = []
    for output_logits in (True, False):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(**batch, output_logits=output_logits)
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] > 0


def test_a_batch_without_labels_has_a_loss_of_zero():
    batch = make_batch()
    batch["labels"] = torch.full_like(batch["labels"], -100)
    decoder_inputs = make_batch()["labels"].clamp(min=3)
    for output_logits in (True, False):
        loss = make_model().train()(**batch, decoder_input_ids=decoder_inputs, output_logits=output_logits).loss
        loss.backward()
        assert loss == 0


def test_a_frozen_output_layer_gets_no_gradient():
    layer, x, labels = make_layer(True)
    layer.requires_grad_(False)
    layer(x, labels).backward()
    assert x.grad.isfinite().all() and layer.weight.grad is None and layer.bias.grad is None


MODELS = {
    "modern": {},
    "vanilla": VANILLA,
    "scaled": VARIANTS["relative-pre"],
    "bias-untied": {"use_final_logits_bias": True, "tie_word_embeddings": False},
}


@pytest.mark.parametrize("overrides", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("items", [None, 50, torch.tensor(50)], ids=["mean", "number", "tensor"])
def test_training_on_labels_has_no_logits_and_the_loss_and_gradients_of_logits(overrides, smoothing, items):
    model = make_model(**overrides, dropout=0.0, label_smoothing=smoothing).train()
    batch = {**make_batch(), "num_items_in_batch": items}
    with_logits = model(**batch, output_logits=True)
    with_logits.loss.backward()
    expected = gradients(model)
    model.zero_grad()
    without = model(**batch)
    without.loss.backward()
    assert without.logits is None
    assert_close(without.loss, with_logits.loss)
    assert_close(gradients(model), expected, atol=1e-5, rtol=1e-4)
    reference = nn.functional.cross_entropy(
        with_logits.logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum", label_smoothing=smoothing
    )
    assert_close(without.loss, reference / (17 if items is None else 50))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_in_one_graph_it_has_the_gradients_of_the_plain_loss(backend):
    torch.compiler.reset()
    plain, model = (make_model(dropout=0.0).train() for _ in "ab")
    expected = plain(**make_batch()).loss
    expected.backward()
    loss = torch.compile(model, fullgraph=True, backend=backend)(**make_batch()).loss
    loss.backward()
    assert_close(loss, expected)
    assert_close(gradients(model), gradients(plain), atol=1e-5, rtol=1e-4)


def test_logits_are_there_in_evaluation_without_labels_and_on_demand():
    model, batch = make_model(label_smoothing=0.2), make_batch()
    assert model(**batch).logits is not None and model(**batch, output_logits=False).logits is None
    # Smoothing is for training: in evaluation the loss is comparable.
    expected = nn.functional.cross_entropy(model(**batch).logits.flatten(0, 1), batch["labels"].flatten())
    assert_close(model(**batch).loss, expected)
    assert_close(model(**batch, output_logits=False).loss, expected)
    model.train()
    labels = batch.pop("labels")
    assert model(**batch, decoder_input_ids=labels.clamp(min=0)).logits is not None
    assert model(**batch, labels=labels, output_logits=True).logits is not None


def test_checks_on_the_device_fail_with_words_that_torchs_compiler_can_put_into_cpp(monkeypatch):
    """It does not escape double quotes, and the step would not compile."""
    said = []
    monkeypatch.setattr(torch, "_assert_async", lambda condition, words: said.append(words))
    make_model().train()(**make_batch())
    text_of(torch.ones(1, 3))
    assert len({*said}) == 4 and not [words for words in said if '"' in words or "\\" in words]


@pytest.mark.parametrize("tied", [True, False])
def test_a_resized_vocabulary_still_has_its_loss_without_logits(tied):
    model = make_model(use_final_logits_bias=True, tie_word_embeddings=tied)
    model.resize_token_embeddings(SIZES["vocab_size"] + 9)
    assert model.lm_head.out_features == SIZES["vocab_size"] + 9
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    assert model.train()(**make_batch()).logits is None


def test_no_tensor_of_a_training_step_is_larger_than_a_chunk_of_logits(monkeypatch):
    """At 3,000 tokens of vocabulary and 512 labels; with logits the same watch sees them."""
    monkeypatch.setattr(output_xformer, "CHUNK_ELEMENTS", 40 * 3000)
    model = make_model(vocab_size=3000, max_position_embeddings=512).train()
    labels = torch.randint(4, 3000, (1, 512))
    with LargestTensor() as largest:
        model(input_ids=labels[:, :9], labels=labels).loss.backward()
    # Attention's 512 x 512 scores of four heads aside, which sdpa does not make.
    assert largest.elements <= 40 * 3000
    with LargestTensor() as largest:
        model(input_ids=labels[:, :9], labels=labels, output_logits=True).loss.backward()
    assert largest.elements >= 512 * 3000
