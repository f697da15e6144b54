# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""R-Drop: the loss of the paper by hand, for padded and packed rows, inside runs that resume."""

import json
from functools import partial

import pytest
import torch
from small_models import make_model
from small_runs import SMALL, nightly, refused, stop_after, train_results, weights
from torch.nn import functional as F
from transformers import AutoTokenizer, DataCollatorForSeq2Seq

from hf_xformer.commands import train
from hf_xformer.data.batches import EvaluationBatch
from hf_xformer.data.collators import BatchCollator, DataCollatorForPackedSeq2Seq
from hf_xformer.training.r_drop import RDropLoss, add_r_drop, doubled


PAIRS = [
    {"input_ids": [5, 6, 7, 2], "labels": [8, 9, 2]},
    {"input_ids": [9, 2], "labels": [5, 6, 7, 9, 8, 2]},
    {"input_ids": [7, 7, 2], "labels": [6, 2]},
]


def batches(task, model) -> dict[str, dict]:
    """The pairs twice, in rows of their own and in one."""
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    padded, packed = DataCollatorForSeq2Seq(tokenizer, model=model), DataCollatorForPackedSeq2Seq(tokenizer)
    return {
        "padded": doubled(BatchCollator(padded, padded), PAIRS),
        "packed": doubled(BatchCollator(packed, padded), [PAIRS]),
    }


def by_hand(logits: torch.Tensor, labels: torch.Tensor, weight: float, smoothing: float) -> torch.Tensor:
    """Half of the paper's loss, a mean over the labels of one pass; the second half of them is the other pass."""
    kept = labels.flatten() != -100
    logits, labels = logits.flatten(0, 1)[kept], labels.flatten()[kept]
    count = len(labels) // 2
    assert torch.equal(labels[:count], labels[count:])
    first, second = logits[:count], logits[count:]
    nll = sum(F.cross_entropy(each, labels[:count], label_smoothing=smoothing) for each in (first, second))
    p, q = (each.log_softmax(-1) for each in (first, second))
    both = [F.kl_div(a, b, log_target=True, reduction="batchmean") for a, b in ((p, q), (q, p))]
    return (nll + weight * sum(both) / 2) / 2


@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_papers_with_two_dropouts(kind, smoothing, task):
    model = make_model(dropout=0.3, label_smoothing=smoothing).train()
    batch = batches(task, model)[kind]
    add_r_drop(model, 2.0)
    torch.manual_seed(3)
    outputs = model(**batch)
    torch.manual_seed(3)
    logits = model(**batch).logits
    expected = by_hand(logits, batch["labels"], 2.0, smoothing)
    torch.testing.assert_close(outputs.loss, expected)
    assert not torch.allclose(by_hand(logits, batch["labels"], 0.0, smoothing), expected, rtol=1e-2)
    outputs.loss.backward()
    ours = [each.grad.clone() for each in model.parameters()]
    model.zero_grad()
    expected.backward()
    for each, gradient in zip(model.parameters(), ours, strict=True):
        torch.testing.assert_close(each.grad, gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_without_dropout_nothing_is_added_and_labels_are_divided_by_as_the_trainer_says(kind, task):
    model = make_model(dropout=0.0).train()
    batch = batches(task, model)[kind]
    count = int((batch["labels"] != -100).sum())
    assert count == 2 * sum(len(pair["labels"]) for pair in PAIRS)
    plain = [model(**batch, num_items_in_batch=number).loss for number in (None, 7 * count)]
    add_r_drop(model, 5.0)
    ours = [model(**batch, num_items_in_batch=number).loss for number in (None, 7 * count)]
    torch.testing.assert_close(ours, plain)
    noisy = RDropLoss(model.loss_function.loss, 1.0)
    logits, labels = torch.randn(1, count, 53, requires_grad=True), torch.randint(0, 53, (1, count))
    whole, part = noisy(logits, labels, 53), noisy(logits, labels, 53, num_items_in_batch=torch.tensor(4 * count))
    torch.testing.assert_close(part, whole / 4)


def test_an_evaluation_has_each_row_once(task):
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    padded = DataCollatorForSeq2Seq(tokenizer)
    collate = partial(doubled, BatchCollator(padded, padded))
    assert len(collate([EvaluationBatch(PAIRS)])["labels"]) == 3
    assert len(collate(PAIRS)["labels"]) == len(collate([PAIRS[:2], PAIRS[2:]])["labels"]) == 6


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"max_tokens": 40, "packing": "true"}, *nightly({})])
def test_a_run_resumes_to_the_bit_and_counts_each_pair_once(more, task, tmp_path, capsys):
    options = {"r_drop": 2.0, "config_overrides": SMALL.replace("dropout=0.0", "dropout=0.2"), **more}
    options |= {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 3}
    options |= {"validation_file": task.validation}
    train.main(task.options(tmp_path / "run", **options))
    assert "each pair twice" in capsys.readouterr().out
    unbroken, results = weights(tmp_path / "run"), train_results(tmp_path / "run")
    evaluated = json.loads((tmp_path / "run/eval_results.json").read_text())["eval_loss"]
    if not more:
        assert results["train_samples"] == 6 * 8 * 2
    assert json.loads((tmp_path / "run/run.json").read_text())["optimisation"]["r_drop"] == 2.0
    stop_after(tmp_path / "run", 3)
    train.main(task.options(tmp_path / "run", **options))
    assert torch.equal(weights(tmp_path / "run"), unbroken)
    train.main(task.options(tmp_path / "plain", **{**options, "r_drop": None}))
    assert not torch.equal(weights(tmp_path / "plain"), unbroken)
    assert train_results(tmp_path / "plain")["train_samples"] == results["train_samples"]
    # The evaluation's loss has no divergence: that of the same weights by another run.
    again = {**options, "r_drop": None, "max_steps": 1, "learning_rate": 0.0, "config_name": None}
    again |= {"model_name_or_path": tmp_path / "run", "config_overrides": None}
    train.main(task.options(tmp_path / "again", **again))
    other = json.loads((tmp_path / "again/eval_results.json").read_text())["eval_loss"]
    assert evaluated == pytest.approx(other, abs=1e-5)


WRONG = {
    "no dropout": ({}, "--r_drop 1.0 does nothing without dropout: --config_overrides dropout=0.1"),
    "a negative weight": ({"r_drop": -1}, "--r_drop must be above 0, got -1"),
    "the Trainer's smoothing": (
        {"label_smoothing_factor": 0.1},
        "--r_drop does not go with --label_smoothing_factor; the model's own `label_smoothing` does",
    ),
    "compiled": ({"torch_compile": "true"}, "--r_drop does not go with --torch_compile"),
}


@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG)
def test_what_r_drop_cannot_do_is_one_line(changes, said, task, tmp_path, capsys):
    assert said in refused(train, task.options(tmp_path / "run", **{"r_drop": 1.0, **changes}), capsys)
    assert not (tmp_path / "run").exists()
