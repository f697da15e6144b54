# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What the loss is of, and where its gradient goes."""

import pytest
import torch
from small_models import SIZES, VANILLA, VARIANTS, gradients, make_batch, make_model
from torch.testing import assert_close
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging


variants = pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)


@variants
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_every_parameter_gets_a_finite_gradient(overrides, tied):
    model = make_model(**{**overrides, "tie_word_embeddings": tied, "use_final_logits_bias": True}).train()
    model(**make_batch()).loss.backward()
    for name, parameter in model.named_parameters():
        # Softmax ignores what all keys have in common, so this one's gradient is zero but for rounding.
        if not name.endswith("k_proj.bias"):
            assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_padding_and_masked_labels_give_no_gradient():
    # Untied, so that the output layer gives the embedding no gradient of its own.
    model, batch = make_model(tie_word_embeddings=False), make_batch()
    unused = SIZES["vocab_size"] - 1
    for name in ("input_ids", "labels"):
        batch[name][batch[name] == unused] = 4
    batch["input_ids"][batch["attention_mask"] == 0] = unused
    model(**batch).loss.backward()
    grads = model.get_input_embeddings().weight.grad
    assert not grads[unused].any() and grads[batch["input_ids"][batch["attention_mask"] == 1]].any(dim=-1).all()


@variants
def test_accumulated_gradients_equal_those_of_the_whole_batch(overrides):
    batch = make_batch()
    items = (batch["labels"] != -100).sum()
    whole, pieces = make_model(**overrides), make_model(**overrides)
    whole(**batch).loss.backward()
    for rows in (slice(0, 1), slice(1, 3)):
        part = {name: tensor[rows] for name, tensor in batch.items()}
        pieces(**part, num_items_in_batch=items).loss.backward()
    assert_close(gradients(pieces), gradients(whole), atol=1e-6, rtol=1e-4)


@variants
def test_labels_alone_stand_for_their_decoder_input(overrides):
    model, batch = make_model(**overrides), make_batch()
    implicit = model(**batch)
    decoder_input_ids = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    assert decoder_input_ids[:, 0].tolist() == [model.config.decoder_start_token_id] * 3
    assert not (decoder_input_ids == -100).any()
    explicit = model(**batch, decoder_input_ids=decoder_input_ids)
    assert torch.equal(explicit.loss, implicit.loss) and torch.equal(explicit.logits, implicit.logits)
    embeds = model.get_input_embeddings()(decoder_input_ids)
    assert torch.equal(model(**batch, decoder_inputs_embeds=embeds).logits, implicit.logits)


@variants
def test_autocast_in_bfloat16_is_near_full_precision(overrides):
    model, batch = make_model(**overrides), make_batch()
    expected = model(**batch).loss.item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    assert_close(loss.item(), expected, atol=0, rtol=0.05)
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in gradients(model).values())


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [{}, VANILLA], ids=["modern", "vanilla"])
def test_a_small_model_learns_a_batch_by_heart_and_generates_it(overrides):
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0, "initializer_range": 0.05}
    model, batch = make_model(**{**overrides, **sizes}).train(), make_batch()
    end = model.config.eos_token_id
    for row, length in enumerate([7, 4, 6]):
        batch["labels"][row, length - 1] = end
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 20
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    generated = model.eval().generate(**source, max_new_tokens=SIZES["max_position_embeddings"] // 4, do_sample=False)
    expected = batch["labels"].masked_fill(batch["labels"] == -100, model.config.pad_token_id)
    assert torch.equal(generated[:, 1:], expected)


@pytest.mark.slow
def test_the_stock_trainer_learns_alike_with_checkpointed_gradients_and_nearly_so_in_bfloat16(tmp_path):
    batch = make_batch()
    rows = [{name: tensor[row] for name, tensor in batch.items()} for row in range(3)]

    def losses(**options) -> list[float]:
        arguments = Seq2SeqTrainingArguments(
            tmp_path, per_device_train_batch_size=3, max_steps=12, learning_rate=5e-3, logging_steps=1,
            save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, **options,
        )  # fmt: skip
        model = make_model(dropout=0.0)
        trainer = Seq2SeqTrainer(model, arguments, train_dataset=rows)
        trainer.train()
        assert model.is_gradient_checkpointing == options.get("gradient_checkpointing", False)
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    plain = losses()
    assert len(plain) == 12 and plain[-1] < plain[0] / 2
    assert_close(losses(gradient_checkpointing=True), plain, atol=1e-4, rtol=1e-4)
    assert_close(losses(gradient_checkpointing=True, bf16=True), plain, atol=0.1, rtol=0.1)


TIES = {
    "one embedding": {},
    "an output layer of its own": {"tie_word_embeddings": False},
    "two vocabularies": {"encoder_vocab_size": SIZES["vocab_size"] + 8},
}


@pytest.mark.slow
@pytest.mark.parametrize("overrides", TIES.values(), ids=TIES)
def test_the_stock_trainer_misses_no_weight_that_is_saved_once(overrides, tmp_path):
    batch = make_batch()
    rows = [{name: tensor[row] for name, tensor in batch.items()} for row in range(3)]
    options = {"save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    with CaptureLogger(logging.get_logger("transformers.trainer")) as log:
        for steps in (1, 2):
            arguments = Seq2SeqTrainingArguments(
                tmp_path, max_steps=steps, report_to="none", use_cpu=True, disable_tqdm=True, **options
            )
            trainer = Seq2SeqTrainer(make_model(**overrides), arguments, train_dataset=rows, eval_dataset=rows)
            trainer.train(resume_from_checkpoint=steps > 1)
    assert "missing keys" not in log.out


def test_an_output_layer_that_was_put_in_a_tied_ones_place_is_saved(tmp_path):
    model = make_model()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() + 1)
    model.config.tie_word_embeddings = False
    model.save_pretrained(tmp_path)
    assert_close(type(model).from_pretrained(tmp_path).lm_head.weight, model.lm_head.weight)
