# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Averaged weights: over the steps of a run, resumed and evaluated with; and over checkpoints."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_adapters import EXISTING
from small_models import make_model
from small_runs import has_code, refused, weights
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_xformer.checkpoints.averaging import load_averages, trained
from hf_xformer.checkpoints.export import export_checkpoint
from hf_xformer.commands import attention, average, info, train
from hf_xformer.errors import ArgumentError
from hf_xformer.files import AVERAGES


EVALUATION = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}


@pytest.fixture
def options(task):
    def make(output_dir, **more) -> list[str]:
        return task.options(output_dir, **{**EVALUATION, "validation_file": task.validation, **more})

    return make


def tensors(folder, name="model.safetensors") -> dict[str, torch.Tensor]:
    return dict(sorted(load_file(folder / name).items()))


@pytest.mark.slow
def test_the_result_is_the_average_of_the_weights_after_every_step(options, task, tmp_path):
    train.main(options(tmp_path / "plain", save_steps=1, eval_strategy="no", validation_file=None))
    train.main(options(tmp_path / "averaged", ema_decay=0.5))
    # The decay of the first steps: (1 + t) / (10 + t), 0.5 at most. Before them stand the initial weights.
    train.main(options(tmp_path / "start", max_steps=1, learning_rate=0.0))
    expected = tensors(tmp_path / "start")
    for step in range(1, 7):
        decay = min(0.5, (1 + step) / (10 + step))
        now = tensors(tmp_path / f"plain/checkpoint-{step}")
        expected = {name: decay * expected[name] + (1 - decay) * now[name] for name in now}
    found = tensors(tmp_path / "averaged")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5)
    # Training itself has gone on from the weights and not from their averages.
    assert torch.equal(weights(tmp_path / "averaged/checkpoint-6"), weights(tmp_path / "plain/checkpoint-6"))


@pytest.mark.slow
def test_evaluation_is_of_the_averages(options, tmp_path):
    train.main(options(tmp_path / "plain"))
    train.main(options(tmp_path / "averaged", ema_decay=0.9))
    history = json.loads((tmp_path / "averaged/trainer_state.json").read_text())["log_history"]
    last = [entry["eval_loss"] for entry in history if "eval_loss" in entry and entry["step"] == 6]
    at_end = json.loads((tmp_path / "averaged/eval_results.json").read_text())["eval_loss"]
    plain = json.loads((tmp_path / "plain/eval_results.json").read_text())["eval_loss"]
    assert last[0] == pytest.approx(at_end, abs=1e-6) and at_end != pytest.approx(plain, abs=1e-4)


@pytest.mark.slow
def test_the_best_checkpoints_averages_are_what_a_run_ends_with(options, tmp_path):
    best = {"load_best_model_at_end": "true", "metric_for_best_model": "loss", "learning_rate": 0.3}
    train.main(options(tmp_path, ema_decay=0.5, **best))
    chosen = json.loads((tmp_path / "trainer_state.json").read_text())["best_model_checkpoint"]
    averages = tensors(tmp_path / chosen, AVERAGES)
    found = tensors(tmp_path)
    assert all(torch.equal(found[name], averages[name]) for name in found)


@pytest.mark.slow
def test_a_resumed_run_has_the_averages_of_an_unbroken_one(options, tmp_path):
    train.main(options(tmp_path / "unbroken", ema_decay=0.9))
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken/checkpoint-6")
    shutil.rmtree(tmp_path / "broken/checkpoint-4")
    train.main(options(tmp_path / "broken", ema_decay=0.9))
    assert torch.equal(weights(tmp_path / "broken"), weights(tmp_path / "unbroken"))
    # And a finished one that is started again still ends with them.
    (tmp_path / "broken/model.safetensors").unlink()
    train.main(options(tmp_path / "broken", ema_decay=0.9))
    assert torch.equal(weights(tmp_path / "broken"), weights(tmp_path / "unbroken"))


@pytest.mark.slow
def test_averages_that_a_checkpoint_does_not_have_are_missed(options, tmp_path, capsys):
    train.main(options(tmp_path))
    shutil.rmtree(tmp_path / "checkpoint-6")
    capsys.readouterr()
    line = refused(train, options(tmp_path, ema_decay=0.9), capsys)
    assert "checkpoint-4: it was written without --ema_decay: it cannot go on with it" in line
    assert (tmp_path / "checkpoint-4").exists()


@pytest.mark.slow
def test_a_run_with_averages_does_not_end_with_the_weights_by_mistake(options, tmp_path, capsys):
    train.main(options(tmp_path, ema_decay=0.9))
    averages = weights(tmp_path)
    capsys.readouterr()
    assert "was written with --ema_decay: it cannot go on without" in refused(train, options(tmp_path), capsys)
    assert torch.equal(weights(tmp_path), averages)


@pytest.mark.slow
def test_a_checkpoint_that_was_cut_off_before_its_averages_is_passed_over(options, tmp_path, capsys):
    train.main(options(tmp_path, ema_decay=0.9))
    whole = weights(tmp_path)
    (tmp_path / "checkpoint-6" / AVERAGES).unlink()
    train.main(options(tmp_path, ema_decay=0.9))
    said = capsys.readouterr().out
    assert f"passing over {tmp_path}/checkpoint-6" in said and f"resuming from {tmp_path}/checkpoint-4" in said
    assert torch.equal(weights(tmp_path), whole)


@pytest.mark.parametrize("decay", ["0", "1", "-0.5", "2"])
def test_a_decay_that_is_none_is_refused(decay, options, tmp_path, capsys):
    assert f"got {float(decay)}" in refused(train, options(tmp_path, ema_decay=decay), capsys)


@pytest.mark.slow
def test_checkpoints_are_averaged_weight_by_weight(options, tmp_path, capsys):
    train.main(options(tmp_path / "run"))
    average.main([str(tmp_path / "run"), "--last", "2", "--output_dir", str(tmp_path / "mean")])
    four, six = (tensors(tmp_path / f"run/checkpoint-{step}") for step in (4, 6))
    found = tensors(tmp_path / "mean")
    assert found.keys() == six.keys()
    for name in found:
        torch.testing.assert_close(found[name], (four[name] + six[name]) / 2)
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "mean")
    assert (tmp_path / "mean/tokenizer.json").exists() and has_code(tmp_path / "mean")
    assert "checkpoint-4, checkpoint-6" in capsys.readouterr().out
    record = json.loads((tmp_path / "mean/averaged.json").read_text())
    assert [Path(each).name for each in record["checkpoints"]] == ["checkpoint-4", "checkpoint-6"]


@pytest.mark.parametrize(
    ("steps", "best", "expected"),
    [
        ((2000, 6500, 7000, 7500, 8000), 2000, True),
        ((2000, 6500, 7000, 7500, 8000), 7000, False),
        ((6500, 7000, 7500, 8000), 6500, False),
        ((6500, 7000, 7500, 7800), 6500, False),  # the last one at the end of the run
        ((500, 1000, 2000), 2000, False),
        ((2000, 8000), 2000, False),
        ((2000, 6500, 7000), None, False),
    ],
)
def test_a_best_checkpoint_of_long_before_is_none_of_the_last_ones(steps, best, expected, tmp_path):
    state = {"best_model_checkpoint": None if best is None else f"elsewhere/checkpoint-{best}"}
    for step in steps:
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}/trainer_state.json").write_text(json.dumps(state))
    assert average.is_apart([str(tmp_path / f"checkpoint-{step}") for step in steps]) is expected


@pytest.mark.slow
def test_averages_that_cannot_be_are_refused(options, tmp_path, capsys):
    train.main(options(tmp_path / "run"))
    capsys.readouterr()
    out = ["--output_dir", tmp_path / "mean"]
    assert "3 checkpoints, --last 9" in refused(average, [tmp_path / "run", "--last", 9, *out], capsys)
    assert "--last: must be 2 or more" in refused(average, [tmp_path / "run", "--last", 1, *out], capsys)
    assert "not empty" in refused(average, [tmp_path / "run", "--last", 2, "--output_dir", tmp_path / "run"], capsys)
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "run/checkpoint-2", other)
    make_model(vocab_size=9, eos_token_id=1).save_pretrained(other)
    line = refused(average, [other, tmp_path / "run/checkpoint-6", *out], capsys)
    assert "`d_model` is 32" in line and "it is 16" in line and str(other) in line
    swapped = shutil.copytree(tmp_path / "run/checkpoint-4", tmp_path / "swapped")
    tokenizer = json.loads((swapped / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["Z"] = tokenizer["model"]["vocab"].pop("A")
    (swapped / "tokenizer.json").write_text(json.dumps(tokenizer))
    line = refused(average, [swapped, tmp_path / "run/checkpoint-6", *out], capsys)
    assert f"{swapped}: its source tokens are not those of {tmp_path}/run/checkpoint-6" in line
    assert "--last 3 is for the folder of one run" in refused(average, [other, other, "--last", 3, *out], capsys)
    (tmp_path / "run/checkpoint-2/trainer_state.json").unlink()
    assert "2 checkpoints, --last 3" in refused(average, [tmp_path / "run", "--last", 3, *out], capsys)
    assert not (tmp_path / "mean").exists()


def test_averages_that_are_broken_or_of_another_model_are_refused_with_their_file(tmp_path):
    model = make_model()
    parameters = trained(model)
    name = "model.decoder.norm.weight"
    for change, said in (
        (lambda averages: averages.pop(name), f"no average of `{name}` of shape \\[32\\]"),
        (lambda averages: averages.update({name: torch.ones(3)}), f"no average of `{name}` of shape"),
    ):
        averages = {each: parameter.detach().clone() for each, parameter in parameters.items()}
        change(averages)
        save_file(averages, tmp_path / AVERAGES)
        with pytest.raises(ArgumentError, match=f"{tmp_path}/{AVERAGES}: {said}"):
            load_averages(model, str(tmp_path))
    (tmp_path / AVERAGES).write_bytes(b"broken")
    with pytest.raises(ArgumentError, match=f"{tmp_path}/{AVERAGES}: cannot be read: "):
        load_averages(model, str(tmp_path))


def test_whoever_takes_the_weights_of_a_step_is_told_of_its_averages(task, tmp_path, capsys):
    step, run = tmp_path / "checkpoint-3", tmp_path / "run"
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    tokenizer.save_pretrained(step)
    make_model(vocab_size=len(tokenizer)).save_pretrained(step)
    save_file({"any": torch.zeros(1)}, step / AVERAGES)
    note = f"{step}: its weights are those of the step, not the averages that the run evaluates with"
    with pytest.raises(SystemExit):
        info.main([str(step)])
    assert note in capsys.readouterr().out
    attention.main([str(step), "A B", "--target", "B", "--output", str(tmp_path / "attention.png")])
    assert note in capsys.readouterr().err
    assert note in export_checkpoint(str(step), tmp_path / "out", engine="onnx").notes
    train.main(task.options(run, **EXISTING, model_name_or_path=step, max_steps=1, save_strategy="no"))
    assert note in capsys.readouterr().out
