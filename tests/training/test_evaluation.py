# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation while training: no batches change its results, it is not done twice, and it may stop the run."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_models import make_model
from small_runs import refused, run, weights
from small_tokenizers import letters
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    GenerationConfig,
    Seq2SeqTrainingArguments,
    TrainerControl,
    TrainerState,
)

from hf_xformer.checkpoints.folder_checks import check_folder
from hf_xformer.commands import train
from hf_xformer.files import checkpoints_of
from hf_xformer.training.arguments import DataArguments
from hf_xformer.training.early_stopping import EarlyStopping
from hf_xformer.training.evaluation import GenerationMetrics, fit_generation


def eval_results(folder: Path) -> dict:
    return json.loads((folder / "eval_results.json").read_text())


def evaluations(folder: Path) -> list[dict]:
    """The entries of a run's history that are evaluations."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in history if "eval_loss" in entry]


def mean_loss(folder: Path, data: str) -> float:
    """The mean over all labels of a validation set, in one padded batch."""
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    pairs = [
        {"input_ids": tokenizer(r["source"])["input_ids"], "labels": tokenizer(r["target"])["input_ids"]} for r in rows
    ]
    with torch.no_grad():
        return model(**DataCollatorForSeq2Seq(tokenizer, model=model)(pairs)).loss.item()


BATCHES = {
    "rows": {"per_device_eval_batch_size": 5},
    "one row": {"per_device_eval_batch_size": 1},
    "tokens": {"eval_max_tokens": 30},
    "tokens of the training": {"max_tokens": 40, "packing": "true"},
}


@pytest.mark.slow
def test_no_batches_change_the_loss_and_the_metrics(task, tmp_path, capsys):
    """The learning rate is zero, so that the weights are the same though training has other batches."""
    data = str(tmp_path / "validation.jsonl")
    Path(data).write_text("".join(Path(task.validation).read_text().splitlines(keepends=True)[:8]))
    fixed = {"max_steps": 1, "learning_rate": 0.0, "validation_file": data, "metrics": "per"}
    found = {}
    for name, more in BATCHES.items():
        train.main(task.options(tmp_path / name, **fixed, **more))
        found[name] = eval_results(tmp_path / name)
        said = capsys.readouterr().out
        expected = {
            "rows": "5 rows",
            "one row": "1 row ",
            "tokens": "at most 30",
            "tokens of the training": "at most 40",
        }
        assert f"{expected[name]}" in next(line for line in said.splitlines() if "per evaluation batch" in line)
    by_hand = mean_loss(tmp_path / "rows", data)
    for results in found.values():
        assert results["eval_loss"] == pytest.approx(by_hand, abs=1e-6)
        assert results["eval_per"] == found["rows"]["eval_per"]
        samples = results["eval_samples_per_second"] * results["eval_runtime"]
        assert samples == pytest.approx(8, abs=0.001 * results["eval_runtime"])


@pytest.mark.slow
def test_an_evaluation_does_not_smooth_labels_whoever_smooths_them_in_training(task, tmp_path):
    fixed = {"max_steps": 1, "learning_rate": 0.0, "validation_file": task.validation, "label_smoothing_factor": 0.1}
    losses = []
    for name, more in {"rows": {}, "one row": {"per_device_eval_batch_size": 1}}.items():
        train.main(task.options(tmp_path / name, **fixed, **more))
        losses.append(eval_results(tmp_path / name)["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[0] == pytest.approx(mean_loss(tmp_path / "rows", task.validation), abs=1e-5)


@pytest.mark.distributed
def test_two_processes_evaluate_as_one_does(task, tmp_path):
    fixed = {"max_steps": 1, "learning_rate": 0.0, "validation_file": task.validation, "metrics": "per"}
    options = task.options(tmp_path / "one", **fixed)
    train.main(options)
    run(task.options(tmp_path / "two", **fixed, eval_max_tokens=30), "cpu-2proc")
    one, two = eval_results(tmp_path / "one"), eval_results(tmp_path / "two")
    assert two["eval_loss"] == pytest.approx(one["eval_loss"], abs=1e-6)
    assert two["eval_per"] == one["eval_per"]


EVALUATING = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.5}], ids=["plain", "averages"])
def test_the_last_step_is_evaluated_once(more, task, tmp_path):
    train.main(task.options(tmp_path, validation_file=task.validation, metrics="per", **EVALUATING, **more))
    assert [entry["step"] for entry in evaluations(tmp_path)] == [3, 6]
    last = evaluations(tmp_path)[-1]
    assert eval_results(tmp_path) == {name: value for name, value in last.items() if name != "step"}
    if not more:
        assert last["eval_loss"] == pytest.approx(mean_loss(tmp_path, task.validation), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.5}], ids=["plain", "averages"])
def test_another_evaluation_of_a_finished_run_leaves_its_generation_config(more, task, tmp_path):
    evaluated = {"validation_file": task.validation, "metrics": "per", **EVALUATING, **more}
    train.main(task.options(tmp_path, **evaluated))
    before = (tmp_path / "generation_config.json").read_bytes()
    train.main(task.options(tmp_path, **evaluated, generation_num_beams=3, generation_max_length=5))
    assert json.loads((tmp_path / "run.json").read_text())["validation_decoding"]["num_beams"] == 3
    assert (tmp_path / "generation_config.json").read_bytes() == before


@pytest.mark.slow
def test_a_best_checkpoint_that_is_not_the_last_is_evaluated(task, tmp_path):
    """So large a learning rate makes the model worse and worse."""
    best = {"load_best_model_at_end": "true", "learning_rate": 30, "lr_scheduler_type": "constant"}
    train.main(task.options(tmp_path, validation_file=task.validation, **{**EVALUATING, **best, "max_steps": 9}))
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["best_global_step"] < 9 and eval_results(tmp_path)["epoch"] == evaluations(tmp_path)[-1]["epoch"]
    assert eval_results(tmp_path)["eval_loss"] == pytest.approx(state["best_metric"], abs=1e-6)


def test_a_length_in_a_generation_config_that_is_not_the_runs_is_said(tmp_path):
    path, said = tmp_path / "generation.json", []
    for length in (12, 21, None):
        path.write_text(json.dumps({"num_beams": 3, "max_length": length}))
        args = Seq2SeqTrainingArguments(tmp_path / "run", generation_config=path)
        fit_generation(make_model(), letters(), DataArguments(max_target_length=20), args, said.append)
    (line,) = said
    assert "max_length 12 is left out: --max_target_length makes it 21" in line


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"min_length": 56, "min_new_tokens": 55}, {}),
        ({"min_length": 22}, {}),
        ({"min_length": 21, "min_new_tokens": 20}, {"min_length": 21, "min_new_tokens": 20}),
    ],
    ids=["far above", "just above", "at the length"],
)
def test_a_bases_least_length_above_the_runs_is_left_out_and_said(given, kept, tmp_path):
    """Else all texts would be of full length, and the checkpoint of the run refused by every verb."""
    model, said = make_model(), []
    model.generation_config = GenerationConfig(**given)
    args = Seq2SeqTrainingArguments(tmp_path / "run")
    fit_generation(model, letters(), DataArguments(max_target_length=20), args, said.append)
    model.save_pretrained(tmp_path / "model")
    saved = json.loads((tmp_path / "model/generation_config.json").read_text())
    assert {name: saved[name] for name in given if saved.get(name) is not None} == kept and saved["max_length"] == 21
    check_folder(tmp_path / "model", model.config)
    assert [f"{name}={given[name]}" in "".join(said) for name in given] == [name not in kept for name in given]
    assert all("21 tokens at most" in line and "--max_target_length" in line for line in said)


STOPPING = {**EVALUATING, "load_best_model_at_end": "true", "early_stopping_patience": 2}
# Without a learning rate no evaluation is better than the first.
STANDING = {**STOPPING, "learning_rate": 0, "eval_steps": 2}


@pytest.mark.slow
def test_an_early_stop_between_two_saved_steps_is_the_end_of_the_run(task, tmp_path, capsys):
    stopping = {**STANDING, "max_steps": 20, "save_steps": 4}
    options = task.options(tmp_path, validation_file=task.validation, **stopping)
    train.main(options)
    assert capsys.readouterr().out.count("stopped early at step 6 of 20: none of the last 2 evaluations") == 1
    assert json.loads((tmp_path / "run.json").read_text())["stopped_early"]
    train.main(options)
    assert "checkpoint-2 is the end of this run" in capsys.readouterr().out
    assert [path.name for path in checkpoints_of(tmp_path)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


@pytest.mark.parametrize(
    ("greater", "scores", "counts"),
    [
        (False, (3.0, 2.95, 2.91, 2.85, 2.86, 2.8), (0, 1, 2, 0, 1, 2)),
        (True, (10, 10.05, 10.09, 10.11, 10.3, 9), (0, 1, 2, 0, 0, 1)),
        (False, (float("nan"), 3.0, float("nan"), 2.0), (1, 0, 1, 0)),
    ],
    ids=["smaller is better", "greater is better", "no number"],
)
def test_gains_below_the_threshold_add_up_and_are_known_after_a_resume(greater, scores, counts):
    arguments = SimpleNamespace(
        metric_for_best_model="eval_x", greater_is_better=greater, load_best_model_at_end=True, eval_strategy="steps"
    )
    state, better, found = TrainerState(), max if greater else min, []
    for score in scores:
        stopping = EarlyStopping(9, 0.1)
        stopping.on_train_begin(arguments, state, TrainerControl())
        stopping.on_evaluate(arguments, state, TrainerControl(), metrics={"eval_x": score})
        found.append(stopping.early_stopping_patience_counter)
        if score == score:
            state.best_metric = score if state.best_metric is None else better(score, state.best_metric)
        state.stateful_callbacks = {"EarlyStopping": stopping.state()}
    assert tuple(found) == counts
    state.best_metric = None  # as where scores are of another kind from here on
    stopping.on_train_begin(arguments, state, TrainerControl())
    stopping.on_evaluate(arguments, state, TrainerControl(), metrics={"eval_x": 50.0})
    assert stopping.early_stopping_patience_counter == 0 and stopping.score_to_beat == 50.0


@pytest.mark.slow
def test_a_run_that_saves_its_best_steps_alone_is_known_to_have_ended(task, tmp_path, capsys):
    best = {"save_strategy": "best", "metric_for_best_model": "loss", "learning_rate": 0, "eval_steps": 2}
    more = {"eval_strategy": "steps", "load_best_model_at_end": "true", "max_steps": 6}
    options = task.options(tmp_path, validation_file=task.validation, **{**best, **more})
    train.main(options)
    assert [path.name for path in checkpoints_of(tmp_path)] == ["checkpoint-2", "checkpoint-6"]
    train.main(options)
    assert "checkpoint-2 is the end of this run" in capsys.readouterr().out


@pytest.mark.parametrize(("forced", "cut"), [(None, 1), (4, 2)])
def test_texts_whose_end_was_forced_count_as_cut_off(forced, cut, task, capsys):
    """Three texts may have five tokens: one ends before the last of them, one there, and one has no end."""
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    metrics = GenerationMetrics(["exact_match"], tokenizer, [["A"]] * 3, np.arange(3))
    metrics.forced_end = forced
    metrics.say_cut(np.array([[2, 7, 8, end, pad], [2, 7, 8, 9, end], [2, 7, 8, 9, 9]]))
    assert f"{cut} of 3 generated texts were cut off at 4 tokens" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("longest", "forced"), [(4, {}), (None, {}), (4, {"forced_eos_token_id": 1})])
def test_validation_texts_that_are_cut_off_are_counted(longest, forced, task, tmp_path, capsys):
    """By a model that has learnt nothing, whose texts hardly end within three tokens."""
    (tmp_path / "decoding.json").write_text(json.dumps(forced))
    options = {"validation_file": task.validation, "metrics": "per", "max_steps": 1, "learning_rate": 0}
    options |= {"generation_config": tmp_path / "decoding.json"} if forced else {}
    train.main(task.options(tmp_path / "run", generation_max_length=longest, **options))
    found = re.search(r"([\d,]+) of ([\d,]+) generated texts were cut off at (\d+) tokens", capsys.readouterr().out)
    assert found is not None and 0 < int(found[1]) <= int(found[2])
    assert int(found[3]) == (3 if longest else 12)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [4, 6], ids=["patience left", "patience spent with the last step"])
def test_a_run_of_all_its_steps_has_not_stopped_early(steps, task, tmp_path, capsys):
    whole = {**STANDING, "max_steps": steps, "save_steps": 2}
    train.main(task.options(tmp_path, validation_file=task.validation, **whole))
    assert "stopped early" not in capsys.readouterr().out
    assert not json.loads((tmp_path / "run.json").read_text())["stopped_early"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"early_stopping_patience": 0}, "--early_stopping_patience must be 1 or more, got 0"),
        ({"early_stopping_threshold": -1}, "--early_stopping_threshold must be 0 or more, got -1"),
        ({"early_stopping_patience": None, "early_stopping_threshold": 0.1}, "does nothing without"),
        ({"load_best_model_at_end": None}, "give --load_best_model_at_end true"),
        (
            {"load_best_model_at_end": None, "eval_strategy": "no"},
            "give --eval_strategy steps or epoch and --load_best_model_at_end true",
        ),
        ({"eval_max_tokens": 40, "per_device_eval_batch_size": 4}, "give one of them"),
        ({"eval_max_tokens": 11}, "--eval_max_tokens 11 has no room for --max_source_length 12"),
        (
            {"eval_max_tokens": 40, "validation_file": None, "eval_strategy": "no", "load_best_model_at_end": None},
            "needs an evaluation",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_options_of_an_evaluation_that_cannot_be_are_one_line(changes, said, task, tmp_path, capsys):
    options = {"validation_file": task.validation, **STOPPING, **changes}
    assert said in refused(train, task.options(tmp_path / "run", **options), capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_stops_where_evaluations_no_longer_improve_killed_or_not(task, tmp_path, capsys):
    """Nothing is learnt, so that the first evaluation stays the best."""
    options = {"validation_file": task.validation, **STOPPING, "learning_rate": 0.0, "max_steps": 30}
    train.main(task.options(tmp_path / "unbroken", **options))
    assert [entry["step"] for entry in evaluations(tmp_path / "unbroken")] == [3, 6, 9]
    # Killed after one evaluation without gain: one more is left.
    for name, kept in (("after one", 6), ("after all", 9)):
        broken = tmp_path / name
        shutil.copytree(tmp_path / "unbroken", broken)
        for path in broken.glob("checkpoint-*"):
            if int(path.name.partition("-")[2]) > kept:
                shutil.rmtree(path)
        state = broken / f"checkpoint-{kept}/trainer_state.json"  # whose paths are those of the other folder
        state.write_text(state.read_text().replace(str(tmp_path / "unbroken"), str(broken)))
        capsys.readouterr()
        train.main(task.options(broken, **options))
        assert ("is the end of this run" in capsys.readouterr().out) == (kept == 9)
        assert json.loads((broken / "trainer_state.json").read_text())["global_step"] == 9
        assert torch.equal(weights(broken), weights(tmp_path / "unbroken"))


@pytest.mark.slow
def test_patience_may_be_given_where_a_run_resumes_without(task, tmp_path):
    options = {"validation_file": task.validation, **STOPPING, "learning_rate": 0.0}
    train.main(task.options(tmp_path, **{**options, "early_stopping_patience": None, "max_steps": 3}))
    train.main(task.options(tmp_path, **{**options, "max_steps": 30, "change_recipe": "true"}))
    assert json.loads((tmp_path / "trainer_state.json").read_text())["global_step"] == 9
