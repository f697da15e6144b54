# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Several validation sets: each has the scores that it has alone, and their means choose the best model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, nightly, refused, run, stop_after, weights

from hf_xformer.commands import evaluate, train
from hf_xformer.commands.training_record import train_files
from hf_xformer.errors import ArgumentError
from hf_xformer.hub.card import scores_of
from hf_xformer.hub.curves import collect_curves, set_and_metric
from hf_xformer.training.arguments import DataArguments
from hf_xformer.training.validation import share_rows, trained_on
from hf_xformer.training.validation_sets import metric_of, parse_sets, score_names


@pytest.fixture
def sets(task, tmp_path) -> dict[str, str]:
    """Two sets of unlike sizes, with rows of unlike lengths, in files of their own."""
    rows = sorted(Path(task.validation).read_text().splitlines(keepends=True), key=len)
    found = {}
    for name, part in {"short": rows[:5], "long-ones": rows[5:]}.items():
        found[name] = str(tmp_path / f"{name}.jsonl")
        Path(found[name]).write_text("".join(part))
    return found


def eval_results(folder: Path) -> dict:
    return json.loads((folder / "eval_results.json").read_text())


def evaluations(folder: Path) -> list[dict]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in history if "eval_loss" in entry]


FIXED = {"metrics": "per"}


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"eval_max_tokens": 30}, *nightly({}, {"label_smoothing_factor": 0.1})])
def test_each_set_has_the_scores_that_it_has_alone(more, sets, task, tmp_path):
    train.main(task.options(tmp_path / "both", **FIXED, validation_sets=json.dumps(sets), **more))
    found = eval_results(tmp_path / "both")
    for name, file in sets.items():
        train.main(task.options(tmp_path / name, **FIXED, validation_file=file, **more))
        alone = eval_results(tmp_path / name)
        assert found[f"eval_{name}_per"] == pytest.approx(alone["eval_per"])
        assert found[f"eval_{name}_loss"] == pytest.approx(alone["eval_loss"], abs=1e-6)
    for metric in ("loss", "per"):
        each = [found[f"eval_{name}_{metric}"] for name in sets]
        assert found[f"eval_{metric}"] == pytest.approx(sum(each) / 2) and each[0] != each[1]
    samples = found["eval_samples_per_second"] * found["eval_runtime"]
    assert samples == pytest.approx(21, abs=0.001 * found["eval_runtime"] + 1e-3)


@pytest.mark.distributed
def test_two_processes_evaluate_the_sets_as_one_does(sets, task, tmp_path):
    options = {**FIXED, "max_steps": 1, "learning_rate": 0.0, "validation_sets": json.dumps(sets)}
    train.main(task.options(tmp_path / "one", **options))
    run(task.options(tmp_path / "two", **options, eval_max_tokens=30), "cpu-2proc")
    one, two = eval_results(tmp_path / "one"), eval_results(tmp_path / "two")
    for name in ("", *(f"{each}_" for each in sets)):
        assert two[f"eval_{name}loss"] == pytest.approx(one[f"eval_{name}loss"], abs=1e-6)
        assert two[f"eval_{name}per"] == one[f"eval_{name}per"]


EVALUATING = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
BEST = {**EVALUATING, "load_best_model_at_end": "true", "metrics": "per"}


@pytest.mark.slow
@pytest.mark.parametrize("best", ["eval_short_per", *nightly("long-ones_loss", "per")])
def test_the_best_model_is_that_of_one_set_or_of_the_mean_and_a_resumed_run_agrees(best, sets, task, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"validation_sets: {{short: [{sets['short']}], long-ones: {sets['long-ones']}}}\n")
    options = {**BEST, "metric_for_best_model": best, "max_steps": 9, "ema_decay": 0.5}
    options |= {"config_overrides": SMALL.replace("dropout=0.0", "dropout=0.1"), "learning_rate": 0.1}
    out = tmp_path / "run"
    train.main([str(recipe), *task.options(out, **options)])
    state, name = json.loads((out / "trainer_state.json").read_text()), best.removeprefix("eval_")
    scores = {entry["step"]: entry[f"eval_{name}"] for entry in evaluations(out)}
    assert len(scores) == 3 and state["best_metric"] == min(scores.values())
    assert eval_results(out)[f"eval_{name}"] == pytest.approx(state["best_metric"])
    unbroken = weights(out)
    stop_after(out, 3)
    train.main([str(recipe), *task.options(out, **options)])
    assert torch.equal(weights(out), unbroken)
    assert {entry["step"]: entry[f"eval_{name}"] for entry in evaluations(out)} == scores


@pytest.mark.slow
def test_a_set_that_no_longer_improves_stops_the_run(sets, task, tmp_path):
    more = {**BEST, "metric_for_best_model": "short_loss", "early_stopping_patience": 2, "learning_rate": 0.0}
    train.main(task.options(tmp_path / "run", **{**more, "max_steps": 30}, validation_sets=json.dumps(sets)))
    assert [entry["step"] for entry in evaluations(tmp_path / "run")] == [3, 6, 9]


@pytest.mark.slow
def test_record_card_and_curves_have_every_set(sets, task, tmp_path):
    train.main(task.options(tmp_path / "run", **{**BEST, "validation_sets": json.dumps(sets)}))
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert {name: Path(files).name for name, files in record["evaluated_sets"].items()} == {
        name: Path(file).name for name, file in sets.items()
    }
    scores, found = scores_of(tmp_path / "run"), eval_results(tmp_path / "run")
    assert scores["validation"] == {"loss": found["eval_loss"], "per": found["eval_per"]}
    assert scores["validation: short"] == {"loss": found["eval_short_loss"], "per": found["eval_short_per"]}
    card = (tmp_path / "run/README.md").read_text()
    assert "| validation (`the mean of short and long-ones`) | per |" in card
    assert "| validation: long-ones (" in card
    curves = collect_curves(json.loads((tmp_path / "run/trainer_state.json").read_text())["log_history"])
    assert {name: set(lines) for name, lines in curves.items()} == {
        "loss": {"training", "validation", "short", "long-ones"},
        "per": {"validation", "short", "long-ones"},
    }


def test_names_of_scores():
    assert metric_of("eval_news_chrf", ["news"]) == metric_of("chrf", ["news"]) == "chrf"
    assert metric_of("exact_match", ["exact"]) == metric_of("exact_exact_match", ["exact"]) == "exact_match"
    assert metric_of("news_talks_chrf", ["news", "news_talks"]) == "chrf"
    assert metric_of(None, ["news"]) == "loss"
    scores = score_names(["chrf"], ["talks", "news_talks"])
    found = [set_and_metric(each, scores) for each in scores]
    names = [(part, metric) for part in ("", "talks", "news_talks") for metric in ("loss", "chrf")]
    assert found == names
    mapping = {"a": "x.jsonl", "b": {"validation_file": ["y.jsonl"], "prefix": None}}
    assert parse_sets("a=x.jsonl, b=y.jsonl") == parse_sets(json.dumps(mapping)) == parse_sets(mapping)
    assert parse_sets(mapping) == {"a": {"validation_file": ["x.jsonl"]}, "b": {"validation_file": ["y.jsonl"]}}


@pytest.mark.slow
def test_a_set_has_a_prefix_and_columns_of_its_own(sets, task, tmp_path):
    rows = [json.loads(line) for line in Path(sets["short"]).read_text().splitlines()]
    for name, keys in {"baked": ("source", "target"), "named": ("from", "to")}.items():
        with open(tmp_path / f"{name}.jsonl", "w") as output:
            for row in rows:
                text = f"A {row['source']}" if name == "baked" else row["source"]
                output.write(json.dumps(dict(zip(keys, (text, row["target"]), strict=True))) + "\n")
    named = {"validation_file": str(tmp_path / "named.jsonl"), "source_column": "from", "target_column": "to"}
    found = {"baked": str(tmp_path / "baked.jsonl"), "tagged": {**named, "prefix": "A "}, "plain": named}
    train.main(task.options(tmp_path / "run", **FIXED, validation_sets=json.dumps(found)))
    results = eval_results(tmp_path / "run")
    assert results["eval_tagged_loss"] == results["eval_baked_loss"] != results["eval_plain_loss"]
    assert results["eval_tagged_per"] == results["eval_baked_per"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("news", "expected 'name=file,...'"),
        ("a=x,a=y", "--validation_sets: 'a' stands there twice"),
        ("a=x, a=y", "--validation_sets: 'a' stands there twice"),
        ('{"a": "x", "a": "y"}', "'a' stands there twice"),
        ('{"a":', "--validation_sets: line 1"),
        ({"de.en": "x"}, "--validation_sets de.en: a name has letters"),
        ({"eval": "x"}, "--validation_sets eval: the Trainer takes this for its own eval_"),
        ({"eval_news": "x"}, "give another name"),
        ({"news": []}, "--validation_sets news: give validation_file, a file or a list of files"),
        ({"news": {"prefx": "x"}}, "--validation_sets news: unknown option 'prefx'; did you mean prefix"),
        ({"news": {"prefix": "x"}}, "--validation_sets news: give validation_file"),
        ({"news": 3}, "--validation_sets news: validation_file: expected a list of texts, got 3"),
        ("{}", "names no set"),
    ],
)
def test_sets_that_cannot_be_are_refused(given, said):
    with pytest.raises(ArgumentError, match=said):
        parse_sets(given)


WRONG = {
    "a misspelt set": ({"metric_for_best_model": "shrt_per"}, "short_loss, short_per; did you mean short_per"),
    "a metric that is not computed": (
        {"metric_for_best_model": "short_chrf"},
        "short_chrf: evaluation gives loss, per, short_loss, short_per; give --metrics chrf too",
    ),
    "the wrong direction": (
        {"metric_for_best_model": "eval_short_per", "greater_is_better": "true"},
        "the smaller value of per is the better one: leave it out",
    ),
    "a tag that is no token": (
        {"validation_sets": '{"tagged": {"validation_file": "x.jsonl", "prefix": "<2de> "}}'},
        "validation set 'tagged': texts begin with <2de>, and the tokenizer",
    ),
    "two kinds": (
        {"validation_file": "x.jsonl"},
        "--validation_file and --validation_sets: both say what",
    ),
}


@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG)
def test_a_score_that_there_is_not_is_refused_before_anything_is_read(changes, said, task, tmp_path, capsys):
    options = {**BEST, "validation_sets": "short=nowhere.jsonl", **changes}
    assert said in refused(train, task.options(tmp_path / "run", **options), capsys)
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_missing_is_named_by_its_path(task, tmp_path, capsys):
    options = {"validation_sets": f"short={task.validation},long=nowhere.jsonl"}
    assert "nowhere.jsonl" in refused(train, task.options(tmp_path / "run", **options), capsys)


@pytest.mark.slow
def test_another_file_for_a_set_is_another_recipe_where_it_chooses_the_best(sets, task, tmp_path, capsys):
    options = {**BEST, "max_steps": 6, "metric_for_best_model": "short_loss"}
    train.main(task.options(tmp_path / "run", **options, validation_sets=json.dumps(sets)))
    stop_after(tmp_path / "run", 3)
    moved = {**sets, "short": str(shutil.copy(sets["short"], tmp_path / "moved.jsonl"))}
    swapped = {"short": sets["long-ones"], "long-ones": sets["short"]}
    line = refused(train, task.options(tmp_path / "run", **options, validation_sets=json.dumps(swapped)), capsys)
    assert "was trained with validation_sets" in line
    train.main(task.options(tmp_path / "run", **options, validation_sets=json.dumps(moved)))


@pytest.mark.slow
def test_a_set_that_is_trained_on_is_said(sets, task, tmp_path, capsys):
    shutil.copy(task.train, tmp_path / "copied.jsonl")
    found = {"seen": task.train, "unseen": sets["short"], "copied": str(tmp_path / "copied.jsonl")}
    options = {"validation_file": None, "metrics": None, "validation_sets": json.dumps(found)}
    train.main(task.options(tmp_path / "run", **options))
    lines = [line for line in capsys.readouterr().out.splitlines() if "is a training file too" in line]
    assert [line.partition(":")[0] for line in lines] == ["validation set 'seen'", "validation set 'copied'"]
    assert lines[0].startswith(f"validation set 'seen': {task.train} is a training file too")


def test_files_and_splits_that_are_trained_on_are_found_wherever_they_lie(task, tmp_path):
    (tmp_path / "parts").mkdir()
    for name, file in (("1", task.train), ("2", task.validation)):
        shutil.copy(file, tmp_path / f"parts/{name}.jsonl")
    folder, part = str(tmp_path / "parts"), str(tmp_path / "parts/2.jsonl")

    def said(**options) -> list[str]:
        args = DataArguments(**options)
        return trained_on(args, args)

    assert said(train_file=[folder], validation_file=[part]) == [f"{part} is a training file"]
    assert said(train_file=[folder], validation_file=[task.validation]) == [f"{task.validation} is a training file"]
    assert said(train_file=[task.train], validation_file=[folder]) == [f"{folder}/1.jsonl is a training file"]
    assert not said(train_file=[task.train], validation_file=[part])
    shutil.copy(task.train, tmp_path / "parts/train.jsonl")
    for name in "12":
        (tmp_path / f"parts/{name}.jsonl").unlink()
    assert said(dataset_name=folder, validation_file=[task.train]) == [f"{task.train} is a training file"]
    assert not said(dataset_name=folder, validation_file=[task.validation])
    shutil.copy(task.validation, tmp_path / "parts/test.jsonl")
    both = {"dataset_name": folder, "train_split": "train[:90%] + test"}
    assert said(**both, validation_file=[task.validation]) == [f"{task.validation} is a training file"]
    assert [Path(each).name for each in train_files(DataArguments(**both))] == ["train.jsonl", "test.jsonl"]
    splits = {"dataset_name": "some/words", "train_split": "train"}
    assert said(**splits, validation_split="train") == ["the split train of some/words is trained on"]
    assert not said(**splits, validation_split="validation")
    several = splits | {"train_split": "train[:90%]+validation[100:]"}
    for part in ("train[85%:]", "validation", "validation[-5%:]", "train[1000:]", "train[:10]+test", "all"):
        (line,) = said(**several, validation_split=part)
        assert line == f"rows of the split {part} of some/words are trained on"
    for part in ("train[90%:]", "train[-5%:]", "validation[:100]", "test", "train[no]"):
        assert not said(**several, validation_split=part)
    for part in ("train[-1000:]", "validation[:10%]", "all[:10%]"):  # it depends on the number of rows
        assert said(**several, validation_split=part) == [f"rows of the split {part} of some/words may be trained on"]


@pytest.mark.parametrize(
    ("split", "other", "shared"),
    [
        ("train[300:400]", "train[10%:15%]", {True, False}),  # from 2,001 rows to 3,999
        ("train[40_000:]", "train[:40000]", {False}),
        ("train[1__0:]", "train", set()),
        ("train[:-1000]", "train[-1000:]", {False}),
        ("train[:90%]", "train[-10%:]", {False}),
        ("train2[10:20]", "train[10:20]", {False}),
        ("train[20%:30%]+test[:5]", "test[4:9]", {True}),
        ("all[:10%]", "train", {True, False}),
        ("train[:10%]", "validation+all[5:]", {True, False}),
        ("all", "train[:10%]", {True}),
        ("train", "train[:120%]", set()),
    ],
)
def test_rows_that_two_splits_share_are_found(split, other, shared):
    assert share_rows(split, other) == share_rows(other, split) == shared


@pytest.mark.slow
def test_sources_without_the_prefix_of_the_training_are_said(sets, task, tmp_path, capsys):
    rows = [json.loads(line) for line in Path(sets["short"]).read_text().splitlines()]
    baked = "".join(json.dumps(row | {"source": f"A {row['source']}"}) + "\n" for row in rows)
    (tmp_path / "baked.jsonl").write_text(baked)
    found = {"plain": sets["short"], "told": {"validation_file": sets["short"], "prefix": "A "}}
    found |= {"baked": str(tmp_path / "baked.jsonl")}

    def said(**corpus) -> list[str]:
        corpora = json.dumps([{"train_file": task.train, **corpus}])
        given = {"train_file": None, "datasets": corpora, "validation_sets": json.dumps(found)}
        train.main(task.options(tmp_path / "run", **given, resume_from_checkpoint="false"))
        return [line for line in capsys.readouterr().out.splitlines() if "do not begin as" in line]

    (line,) = said(prefix="A ")
    without = [row["source"] for row in rows if not row["source"].startswith("A ")]
    assert line.startswith(f"validation set 'plain': {len(without)} of {len(rows)} sources do not begin as")
    assert repr(without[0]) in line
    for column, untold in (("source", len(without)), ("A {source}", 0)):
        words = ("--test_file", sets["short"], "--metrics", "per", "--source_column", column)
        evaluate.main([str(tmp_path / "run"), *words])
        lines = [line for line in capsys.readouterr().err.splitlines() if "do not begin as" in line]
        assert [f"with 'A ': {untold:,}, " in line for line in lines] == [True] * bool(untold)
    assert said(source_column="A {source}") == [line]  # a template says it too, and the set's own column has none
    assert said() == []
