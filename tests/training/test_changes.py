# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A recipe that was changed on the way: the new values are in force from the checkpoint on, and the record says so."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, launch, nightly, output_of, refused, run, weights
from torch.optim import AdamW
from transformers import AutoModelForSeq2SeqLM, TrainerState, TrainingArguments

from hf_xformer.commands import train
from hf_xformer.training.changes import Recipe, RecipeRecord, settle
from hf_xformer.training.resume import SavedState


SAVING = {"max_steps": 20, "save_strategy": "steps", "save_steps": 10, "logging_steps": 1}
BEFORE = {**SAVING, "config_overrides": SMALL.replace("dropout=0.0", "dropout=0.1")}
AFTER = {
    "config_overrides": SMALL,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "weight_decay": 0.3,
    "adam_beta1": 0.8,
    "adam_beta2": 0.9,
    "adam_epsilon": 1e-3,
    "max_grad_norm": 0.5,
}


@pytest.fixture(scope="module")
def finished(task, tmp_path_factory) -> Path:
    """The output folder of a run of 20 steps, for tests that only read it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train.main(task.options(folder, **BEFORE))
    return folder


@pytest.fixture
def stopped(finished, tmp_path) -> Path:
    """A copy of it as if it had been stopped after step 10."""
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-20", "*.json", "README.md"))
    shutil.copytree(finished / "checkpoint-10", tmp_path / "run/checkpoint-10", dirs_exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(finished / name, tmp_path / "run" / name)
    return tmp_path / "run"


def log(folder: Path, name: str) -> dict[int, float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry[name] for entry in history if name in entry}


def prepared(words: list[str], monkeypatch) -> train.Run:
    """What a start comes to before it makes a Trainer."""
    made = []
    with monkeypatch.context() as patch:
        patch.setattr(train, "make_trainer", lambda run, *args: made.append(run) or exit())
        with pytest.raises(SystemExit) as stop:
            train.main(words)
    assert stop.value.code is None
    return made[0]


def train_plainly(checkpoint: Path, batches: list[dict], changes: dict) -> torch.Tensor:
    """The weights after steps from 11 to 20 by a loop over torch's own optimizer, with the state of a checkpoint."""
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dropout=0.0).train()
    decayed = [each for name, each in model.named_parameters() if "norm" not in name and "bias" not in name]
    others = [each for name, each in model.named_parameters() if "norm" in name or "bias" in name]
    groups = [{"params": decayed, "weight_decay": changes["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    betas = (changes["adam_beta1"], changes["adam_beta2"])
    optimizer = AdamW(groups, lr=changes["learning_rate"], betas=betas, eps=changes["adam_epsilon"])
    stored = torch.load(checkpoint / "optimizer.pt")["state"]
    for number, parameter in enumerate([*decayed, *others]):
        optimizer.state[parameter] = stored[number]
    for step, batch in enumerate(batches, start=10):
        for group in optimizer.param_groups:
            group["lr"] = changes["learning_rate"] * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 20)).item())
        optimizer.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), changes["max_grad_norm"])
        optimizer.step()
    model.save_pretrained(checkpoint.parent / "plain")
    return weights(checkpoint.parent / "plain")


@pytest.mark.slow
def test_changed_numbers_are_in_force_as_in_a_plain_loop_of_torch(stopped, task, capsys, monkeypatch):
    words = task.options(stopped, **{**BEFORE, **AFTER, "save_steps": 5, "change_recipe": "true"})
    run = prepared(words, monkeypatch)
    batches = [run.collator([run.train[i] for i in range(8 * step, 8 * step + 8)]) for step in range(10, 20)]
    expected = train_plainly(stopped / "checkpoint-10", batches, AFTER)
    capsys.readouterr()
    train.main(words)
    said = capsys.readouterr().out
    assert "steps 1 to 10 with learning_rate 0.01, from 11 with 0.001; " in said
    torch.testing.assert_close(weights(stopped), expected, atol=2e-6, rtol=0)
    assert log(stopped, "learning_rate")[11] == pytest.approx(1e-3 * 0.5)
    assert log(stopped, "learning_rate")[10] == pytest.approx(1e-2 * 11 / 20)
    # And on record.
    (change,) = json.loads((stopped / "run.json").read_text())["recipe_changes"]
    assert change["from_step"] == 11 and change["changes"]["learning_rate"] == [0.01, 0.001]
    assert len(change["changes"]) == len(AFTER)
    assert "| changed at step 11 |" in (stopped / "README.md").read_text()
    # A checkpoint after it is of the new recipe, and knows of the change.
    shutil.rmtree(stopped / "checkpoint-20")
    new = {**BEFORE, **AFTER}
    again = prepared(task.options(stopped, **new), monkeypatch).recipe
    assert (again.changed, again.history) == (frozenset(), [change])
    line = refused(train, task.options(stopped, **{**new, "learning_rate": 1e-2}), capsys)
    assert "checkpoint-15 was trained with learning_rate 0.001, now 0.01." in line
    prepared(task.options(stopped, **{**new, "learning_rate": 1e-2, "change_recipe": "true"}), monkeypatch)
    assert "steps 11 to 15 with learning_rate 0.001, from 16 with 0.01" in capsys.readouterr().out


@pytest.mark.slow
def test_a_changed_seed_draws_other_dropouts(stopped, task, tmp_path):
    shutil.copytree(stopped, tmp_path / "other")
    for folder, seed in ((stopped, 7), (tmp_path / "other", 8)):
        train.main(task.options(folder, **BEFORE, seed=seed, data_seed=42, change_recipe="true"))
    assert log(stopped, "loss")[10] == log(tmp_path / "other", "loss")[10]
    assert log(stopped, "loss")[11] != log(tmp_path / "other", "loss")[11]


@pytest.mark.slow
def test_data_batches_and_loss_change_on_the_way(stopped, task, capsys):
    more = {"packing": "true", "gradient_accumulation_steps": 2, "max_train_samples": 100, "bf16": "true"}
    more |= {"config_overrides": f"{SMALL},label_smoothing=0.1"}
    train.main(task.options(stopped, **{**BEFORE, **more}, change_recipe="true"))
    assert "may come twice or never" in capsys.readouterr().out
    (change,) = json.loads((stopped / "run.json").read_text())["recipe_changes"]
    assert {"packing", "max_train_samples", "precision", "config.label_smoothing"} <= change["changes"].keys()
    assert json.loads((stopped / "config.json").read_text())["label_smoothing"] == 0.1


@pytest.mark.slow
def test_a_checkpoint_without_a_record_is_resumed_with_a_word_and_this_starts_numbers(stopped, task, capsys):
    state = stopped / "checkpoint-10/trainer_state.json"
    content = json.loads(state.read_text())
    del content["stateful_callbacks"]["RecipeRecord"]
    state.write_text(json.dumps(content))
    train.main(task.options(stopped, **{**BEFORE, "learning_rate": 1e-5, "save_steps": 4, "logging_steps": 3}))
    assert "checkpoint-10 has no record of its recipe" in capsys.readouterr().out
    assert log(stopped, "learning_rate")[12] == pytest.approx(1e-5 * 9 / 20)
    assert json.loads((stopped / "run.json").read_text())["recipe_changes"] == [{"from_step": 11, "changes": None}]
    assert "not known: an earlier version" in (stopped / "README.md").read_text()
    # Intervals are this start's, not the checkpoint's; what is saved is logged too.
    assert {path.name for path in stopped.glob("checkpoint-*")} == {f"checkpoint-{step}" for step in (10, 12, 16, 20)}
    assert [step for step in log(stopped, "learning_rate") if step > 10] == [12, 15, 16, 18, 20]


@pytest.mark.parametrize("more", [{}, {"change_recipe": "true"}], ids=["plain", "change_recipe"])
def test_a_finished_run_is_not_started_again_with_another_recipe(more, finished, task, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    line = refused(train, task.options(finished, **{**BEFORE, "learning_rate": 1e-5}, **more), capsys)
    assert "learning_rate 0.01, now 1e-05" in line and "--resume_from_checkpoint false starts anew" in line
    assert "it has ended" in line
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.slow
def test_a_finished_run_that_is_evaluated_on_other_data_says_so(finished, task, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    train.main(task.options(tmp_path / "run", **BEFORE, validation_file=task.validation))
    now = json.loads((tmp_path / "run/run.json").read_text())
    assert Path(now["evaluated_on"]).name == "validation.jsonl" and record["evaluated_on"] == ""
    assert now["optimisation"] == record["optimisation"]


@pytest.mark.slow
def test_a_finished_run_records_how_it_is_evaluated_now(finished, task, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    more = {"validation_file": task.validation, "metrics": "per", "generation_num_beams": 2, "max_eval_samples": 3}
    train.main(task.options(tmp_path / "run", **BEFORE, **more))
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["evaluated_rows"] == {"": 3} and record["validation_decoding"]["num_beams"] == 2
    text = (tmp_path / "run/README.md").read_text()
    assert "`, 3 rows)" in text and "Validation texts were decoded with num_beams 2" in text


@pytest.mark.slow
def test_other_versions_of_a_later_start_are_said_and_recorded(stopped, task, capsys, monkeypatch):
    begun = train.provenance
    newer = {"torch": "9.9"}
    monkeypatch.setattr(
        train, "provenance", lambda *args: (now := begun(*args)) | {"versions": now["versions"] | newer}
    )
    train.main(task.options(stopped, **BEFORE))
    said = capsys.readouterr().out
    assert re.search(r"was trained with torch \S+, not 9\.9: the run may end with other bits", said)
    starts = json.loads((stopped / "run.json").read_text())["starts"]
    assert starts[0]["from_step"] == 1 < starts[1]["from_step"] and starts[1]["versions"]["torch"] == "9.9"


@pytest.mark.slow
def test_a_run_of_a_constant_rate_is_lengthened_without_a_word(task, tmp_path, capsys):
    options = {"lr_scheduler_type": "constant", "save_strategy": "steps", "save_steps": 2}
    train.main(task.options(tmp_path, **options, max_steps=2))
    train.main(task.options(tmp_path, **options, max_steps=4))
    assert "recipe" not in capsys.readouterr().out
    assert json.loads((tmp_path / "run.json").read_text())["recipe_changes"] == []
    train.main(task.options(tmp_path / "once", **options, max_steps=4))
    assert torch.equal(weights(tmp_path), weights(tmp_path / "once"))


@pytest.mark.slow
def test_scores_of_another_kind_are_not_compared_with_the_best_until_now(task, tmp_path):
    best = {"load_best_model_at_end": "true", "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}
    best |= {"save_steps": 2, "validation_file": task.validation, "metrics": "per"}
    train.main(task.options(tmp_path, **best, max_steps=4, metric_for_best_model="loss"))
    shutil.rmtree(tmp_path / "checkpoint-4")
    other = {**best, "metric_for_best_model": "per", "greater_is_better": "false", "change_recipe": "true"}
    train.main(task.options(tmp_path, **other, max_steps=4))
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["best_metric"] > 10 and state["best_model_checkpoint"].endswith("checkpoint-4")
    (change,) = json.loads((tmp_path / "run.json").read_text())["recipe_changes"]
    assert change["changes"]["metric_for_best_model"] == ["loss", "per"]


@pytest.mark.slow
def test_a_run_of_an_earlier_build_that_chose_by_wer_is_refused_with_both_meanings(task, tmp_path, capsys):
    """There `wer` was the share of wrong rows, and a recipe had the bare name."""
    best = {"load_best_model_at_end": "true", "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}
    best |= {"save_steps": 2, "validation_file": task.validation, "metrics": "wer", "metric_for_best_model": "wer"}
    train.main(task.options(tmp_path, **best, max_steps=4))
    assert "wer: edits per reference word" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "checkpoint-4")
    path = tmp_path / "checkpoint-2/trainer_state.json"
    state = json.loads(path.read_text())
    state["stateful_callbacks"]["RecipeRecord"]["args"]["recipe"]["metric_for_best_model"] = "wer"
    path.write_text(json.dumps(state))
    said = refused(train, task.options(tmp_path, **best, max_steps=4), capsys)
    assert "metric_for_best_model wer, now wer, edits per word (wrong_words is the share of wrong rows)" in said


@pytest.mark.parametrize(
    ("changed", "metric", "other"),
    [
        ({"eval_steps", "eval_strategy", "eval_delay", "metrics"}, "per", ""),
        ({"generation_num_beams", "generation_max_length"}, "loss", ""),
        ({"generation_num_beams", "eval_steps"}, "per", "--generation_num_beams"),
        ({"validation_file", "max_eval_samples"}, "loss", "--max_eval_samples and --validation_file"),
    ],
)
def test_the_best_until_now_goes_on_counting_unless_scores_are_of_another_kind(changed, metric, other, capsys):
    args = TrainingArguments(use_cpu=True, metric_for_best_model=metric)
    best = {"best_metric": 0.5, "best_global_step": 2, "best_model_checkpoint": "run/checkpoint-2"}
    state = TrainerState(global_step=4, max_steps=9, **best)
    RecipeRecord(Recipe({}, [], changed), []).on_train_begin(args, state, None)
    assert {name: getattr(state, name) for name in best} == (dict.fromkeys(best) if other else best)
    line = f"the best until now, checkpoint-2, no longer counts: with another {other} "
    said = capsys.readouterr().out
    assert said.startswith(line) if other else said == ""


@pytest.mark.slow
def test_a_finished_run_is_evaluated_otherwise_and_keeps_its_best(task, tmp_path, capsys):
    best = {"load_best_model_at_end": "true", "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}
    best |= {"save_steps": 2, "validation_file": task.validation, "metrics": "per"}
    train.main(task.options(tmp_path, **best, max_steps=4))
    before = weights(tmp_path)
    train.main(task.options(tmp_path, **best, max_steps=4, generation_num_beams=2, max_eval_samples=5))
    assert "only its evaluation changes, 2 other options: " in capsys.readouterr().out
    assert torch.equal(weights(tmp_path), before)
    other = {"metric_for_best_model": "per", "greater_is_better": "false"}
    assert "it has ended" in refused(train, task.options(tmp_path, **best, **other, max_steps=4), capsys)


def test_a_revision_that_is_not_known_now_stays_that_of_the_last_start(tmp_path, capsys):
    arguments = TrainingArguments(tmp_path, use_cpu=True, max_steps=9)
    recipe = {"dataset_name": "user/words", "dataset_revision": "abc"}
    for name, expected in (("user/words", "abc"), ("user/others", None)):
        callbacks = {"RecipeRecord": {"args": {"recipe": recipe, "history": []}}}
        trainer = TrainerState(global_step=4, stateful_callbacks=callbacks)
        state = SavedState(tmp_path / "checkpoint-4", trainer, {}, "", 1, 0)
        found = settle({"dataset_name": name, "dataset_revision": None}, state, arguments, True, False, print)
        assert found.options["dataset_revision"] == expected
    assert "its revision is not known" in capsys.readouterr().out


def test_callbacks_are_not_restored_over_the_record(stopped, task, capsys):
    more = {"restore_callback_states_from_checkpoint": "true"}
    assert "leave it out" in refused(train, task.options(stopped, **BEFORE, **more), capsys)


@pytest.mark.distributed
@pytest.mark.parametrize("mode", ["cpu-2proc", *nightly("zero2", "zero3")])
def test_two_processes_refuse_in_one_line_and_apply_truly(mode, task, tmp_path):
    options = {"max_steps": 12, "save_strategy": "steps", "save_steps": 6, "logging_steps": 1, "max_train_samples": 64}
    run(task.options(tmp_path, **options), mode)
    shutil.rmtree(tmp_path / "checkpoint-12")
    process = launch(task.options(tmp_path, **options, adam_beta2=0.9), mode)
    lines = [line for line in output_of(process).splitlines() if line.startswith("error:")]
    assert process.returncode != 0 and len(lines) == 1 and "adam_beta2 0.999, now 0.9" in lines[0]
    changed = {**options, "learning_rate": 1e-4, "weight_decay": 0.1, "change_recipe": "true"}
    run(task.options(tmp_path, **changed), mode)
    rates = log(tmp_path, "learning_rate")
    assert (rates[6], rates[7]) == (pytest.approx(1e-2 * 7 / 12), pytest.approx(1e-4 * 6 / 12))
