# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Rates, times and losses of a run: what is counted, that nobody waits for it, and that they are the whole run's."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import VARIANTS, make_batch, make_model
from small_runs import nightly, run, train_results
from small_waits import NoWaits, make_packed
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration, TrainerControl, TrainerState, TrainingArguments

from hf_xformer.commands import train
from hf_xformer.training.arithmetic import Arithmetic, pairs_seen
from hf_xformer.training.throughput import Throughput, measured_peak, peak_of


def tokens_of(task, count: int = 160) -> np.ndarray:
    """Source and target tokens of each training pair, end tokens included, (n, 2)."""
    rows = [json.loads(line) for line in Path(task.train).read_text().splitlines()]
    return np.array([[len(row[side].split()) + 1 for side in ("source", "target")] for row in rows[:count]])


def count_by_hand(pairs: list[tuple[int, int]], arithmetic: Arithmetic) -> list[int]:
    """The counts of pairs of these lengths, one after another."""
    seen = [
        sum(int(pairs_seen(torch.tensor(pair[stack]), kind, size)) for pair in pairs)  # which another test holds
        for stack, kind, size in arithmetic.seen
    ]
    return [sum(s for s, _ in pairs), sum(t for _, t in pairs), len(pairs), sum(s * t for s, t in pairs), *seen]


@pytest.mark.parametrize("variant", [{}, VARIANTS["rope-pre-blocks"]], ids=["full", "blocks"])
def test_padded_and_packed_rows_have_the_counts_of_their_pairs_and_nobody_waits_for_them(variant):
    arithmetic, batch = Arithmetic.of(make_model(**variant)), make_batch()
    pairs = [
        (int(mask.sum()), int((labels != -100).sum()))
        for mask, labels in zip(batch["attention_mask"], batch["labels"], strict=True)
    ]
    expected = count_by_hand(pairs, arithmetic)
    packed_batch = make_packed()
    with NoWaits():
        padded, packed = (arithmetic.count(each, None) for each in (batch, packed_batch))
    assert padded.tolist() == packed.tolist() == expected
    without_mask = {name: each for name, each in batch.items() if name != "attention_mask"}
    assert arithmetic.count(without_mask, 0).tolist() == expected


def flops(model: torch.nn.Module, source: int, target: int) -> float:
    """Operations of forward and backward pass over one pair, as torch counts them: a decoder's half of nothing."""
    model.set_attn_implementation("eager")
    tokens = {"input_ids": torch.full((1, source), 5), "labels": torch.full((1, target), 5)}
    with FlopCounterMode(display=False) as counter:
        model(**tokens).loss.backward()
    return counter.get_total_flops()


def stock() -> torch.nn.Module:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=40, d_model=16, d_kv=8, num_heads=2, d_ff=24, num_layers=2, decoder_start_token_id=0)
    )


@pytest.mark.parametrize("make", [make_model, stock], ids=["ours", "T5"])
def test_the_arithmetic_of_a_pair_is_what_torch_counts(make):
    """But for the half of the decoder's scores that its mask hides, and the first layer's gradient of its input."""
    model = make().train()
    arithmetic = Arithmetic.of(model)
    for source, target in ((7, 5), (40, 11), (9, 50)):
        ours = arithmetic.operations(count_by_hand([(source, target)], arithmetic))
        hidden = sum(each for (stack, *_), each in arithmetic.seen.items() if stack) * target**2
        assert ours + hidden == pytest.approx(flops(model, source, target), rel=0.05)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 7, 12])
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_a_layers_pairs_are_those_of_its_definition(stack, length):
    """But for a decoder's: of two tokens one sees the other, and each sees itself."""
    kinds = ["full_attention", "chunked_attention", "sliding_attention"]
    model = make_model(encoder_layers=3, encoder_layer_types=kinds, decoder_layer_types=kinds, block_size=3)
    place, is_causal = torch.arange(length), stack == "decoder"
    back, is_same = place[:, None] - place, place[:, None] // 3 == place // 3
    dense = [torch.ones_like(is_same), is_same, back < 3 if is_causal else back.abs() <= 3]
    arithmetic = Arithmetic.of(model)
    seen = [kind for of, *kind in arithmetic.seen if of == is_causal]
    for kind, mask in zip(seen, dense, strict=True):
        attended = int((mask & (back >= 0)).sum() * 2 - length if is_causal else mask.sum())
        assert pairs_seen(torch.tensor(length), *kind) == attended


def test_frozen_weights_need_no_gradient_of_their_own():
    model = make_model()
    whole = Arithmetic.of(model)
    for weight in model.parameters():
        weight.requires_grad_(False)
    assert Arithmetic.of(model).of_source == pytest.approx(whole.of_source * 2 / 3)


def test_the_peak_of_a_cpu_is_measured_once_and_moves_no_random_state():
    before = torch.get_rng_state()
    assert peak_of(torch.device("cpu"), "no") == measured_peak(torch.float32) > 1e8
    assert torch.equal(torch.get_rng_state(), before)
    assert peak_of(torch.device("mps"), "bf16") is None


@pytest.mark.slow
def test_an_unknown_peak_is_said_and_leaves_the_other_rates(task, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_xformer.training.throughput.peak_of", lambda *args: None)
    train.main(task.options(tmp_path))
    results = train_results(tmp_path)
    assert "train_mfu" not in results and results["train_samples_per_second"] > 0
    assert "the peak of cpu in float32 is not known" in capsys.readouterr().out


BATCHES = {
    "grouped": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "packed": {"packing": "true"},
    "packed within": {"packing": "true", "max_tokens": 64},
    "smoothed by the Trainer": {"label_smoothing_factor": 0.1},
    "packed and smoothed by the Trainer": {"label_smoothing_factor": 0.1, "packing": "true"},
}


@pytest.mark.slow
@pytest.mark.parametrize("more", BATCHES.values(), ids=BATCHES)
def test_an_epochs_counts_are_those_of_the_data_and_rates_are_counts_over_the_time(more, task, tmp_path):
    train.main(task.options(tmp_path, max_steps=-1, num_train_epochs=1, **more))
    results, (source, target) = train_results(tmp_path), tokens_of(task).sum(axis=0)
    counted = {"train_source_tokens": source, "train_target_tokens": target, "train_samples": 160}
    assert {name: results[name] for name in counted} == counted
    for name, count in counted.items():
        rate = results[f"{name}_per_second"]
        assert rate * results["train_runtime"] == pytest.approx(count, abs=0.001 * results["train_runtime"])
    assert 0 < results["train_mfu"] < 1 and results["total_flos"] > 0
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    logs = [entry for entry in history if "loss" in entry]
    rates = {"source_tokens_per_second", "target_tokens_per_second", "pairs_per_second", "mfu"}
    assert all(rates <= set(entry) for entry in logs)
    losses = np.array([entry["loss"] for entry in logs])
    steps = np.diff([0, *(entry["step"] for entry in logs)])
    assert results["train_loss"] == pytest.approx((losses * steps).sum() / steps.sum(), rel=1e-6)


@pytest.mark.slow
def test_a_resumed_runs_losses_counts_and_time_are_those_of_all_its_starts(task, tmp_path):
    """Steps are logged, saved and evaluated in intervals that do not fit each other."""
    intervals = {"logging_steps": 4, "save_strategy": "steps", "save_steps": 3, "packing": "true", "max_steps": 10}
    train.main(task.options(tmp_path / "unbroken", **intervals))
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    for step in (6, 9, 10):
        shutil.rmtree(tmp_path / f"broken/checkpoint-{step}")
    state = tmp_path / "broken/checkpoint-3/trainer_state.json"
    content = json.loads(state.read_text())
    content["stateful_callbacks"]["throughput"]["seconds"] = 1000.0
    state.write_text(json.dumps(content))
    train.main(task.options(tmp_path / "broken", **intervals))
    one, two = (train_results(tmp_path / name) for name in ("unbroken", "broken"))
    same = ("train_loss", "train_source_tokens", "train_target_tokens", "train_samples", "total_flos")
    assert {name: one[name] for name in same} == {name: two[name] for name in same}
    assert one["train_runtime"] < 1000 < two["train_runtime"] < 1000 + 600
    assert two["train_steps_per_second"] == pytest.approx(10 / two["train_runtime"], abs=0.001)
    for name, results in (("unbroken", one), ("broken", two)):  # one clock
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert record["seconds"] == pytest.approx(results["train_runtime"], abs=0.11)
    histories = [
        [(entry["step"], entry["loss"]) for entry in json.loads((tmp_path / name / "trainer_state.json").read_text())[
            "log_history"] if "loss" in entry]
        for name in ("unbroken", "broken")
    ]  # fmt: skip
    assert histories[0] == histories[1]


@pytest.mark.slow
def test_a_checkpoint_without_counts_is_said(task, tmp_path, capsys):
    options = task.options(tmp_path, save_strategy="steps", save_steps=3)
    train.main(options)
    shutil.rmtree(tmp_path / "checkpoint-6")
    state = tmp_path / "checkpoint-3/trainer_state.json"
    content = json.loads(state.read_text())
    # As the stock Trainer leaves them; the run saves once more, with its own.
    content["stateful_callbacks"] = {"TrainerControl": content["stateful_callbacks"]["TrainerControl"]}
    state.write_text(json.dumps(content))
    train.main(options)
    assert "the checkpoint has no counts" in capsys.readouterr().out
    assert train_results(tmp_path)["train_samples"] == 3 * 8
    saved = json.loads((tmp_path / "checkpoint-6/trainer_state.json").read_text())["stateful_callbacks"]
    assert {"LayoutRecord", "RecipeRecord", "TrainerControl", "throughput"} <= set(saved) and all(saved.values())


SUMS = {"counts": [4, 4, 1, 16, 0, 0], "loss_sum": 2.5, "seconds": 3.0, "steps": 2}
NO_SUMS = {
    "fewer counts": {"counts": [4, 4]},
    "counts NaN": {"counts": [4, 4, 1, 16, 0, float("nan")]},
    "counts text": {"counts": "444444"},
    "loss NaN": {"loss_sum": float("nan")},
    "seconds null": {"seconds": None},
    "steps text": {"steps": "2"},
}


@pytest.mark.parametrize("changes", [{}, *NO_SUMS.values()], ids=["whole", *NO_SUMS])
def test_sums_of_another_arithmetic_or_garbage_are_none_and_said(changes):
    said: list[str] = []
    throughput = Throughput(make_model(), said.append)
    counts = SUMS["counts"][: len(throughput.earlier)] + [0] * (len(throughput.earlier) - 6)
    saved = {**SUMS, "counts": counts, **changes}
    state = TrainerState(global_step=2, stateful_callbacks={"throughput": saved})
    throughput.on_train_begin(TrainingArguments(use_cpu=True), state, TrainerControl())
    assert throughput.earlier == (counts if not changes else [0] * len(counts))
    assert [line for line in said if line.startswith("the checkpoint has no counts")] == said[: bool(changes)]


def test_no_seconds_of_training_divide_nothing_by_zero():
    throughput = Throughput(make_model())
    state = TrainerState(global_step=0, stateful_callbacks={})
    throughput.on_train_begin(TrainingArguments(use_cpu=True), state, TrainerControl())
    throughput.start = None
    assert throughput.of_run(float("nan"), 0)["train_steps_per_second"] == 0


@pytest.mark.slow
def test_a_stream_is_counted(task, tmp_path):
    train.main(task.options(tmp_path, streaming="true", max_steps=5))
    assert train_results(tmp_path)["train_samples"] == 5 * 8


def test_a_pass_in_evaluation_or_generation_is_not_counted():
    model = make_model()
    throughput = Throughput(model)
    model.register_forward_pre_hook(throughput.see, with_kwargs=True)
    model.eval()(**make_batch())
    with torch.no_grad():
        model.train()(**make_batch())
    assert throughput.counts is None


@pytest.mark.distributed
@pytest.mark.parametrize("config", ["cpu-2proc", *nightly("tp2", "zero2")])
def test_two_processes_count_every_pair_once(config, task, tmp_path):
    run(task.options(tmp_path, max_steps=-1, num_train_epochs=1, per_device_train_batch_size=10), config)
    results, (source, target) = train_results(tmp_path), tokens_of(task).sum(axis=0)
    assert (results["train_samples"], results["train_source_tokens"]) == (160, source)
    assert results["train_target_tokens"] == target and results["train_mfu"] > 0
