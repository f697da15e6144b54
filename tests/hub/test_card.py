# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A card is filled from the run's own files and says what nobody has said yet."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from small_records import make_record
from small_runs import ROOT, refused, refused_file
from transformers import AutoTokenizer, pipeline

from hf_xformer.commands import card, train
from hf_xformer.errors import ArgumentError
from hf_xformer.hub.card import (
    REQUIRED,
    facts_of,
    hub_results,
    missing_facts,
    problems_of,
    read_facts,
    render,
    scores_of,
    write_card,
)
from hf_xformer.hub.commits import commit_of
from hf_xformer.hub.publication import gather
from hf_xformer.training.output_folder import set_results_aside


SHIPPED = sorted((ROOT / "model_cards").glob("*.yaml"))
# Recipes whose own command has not been run to its end; docs/results.md says what is known of them.
NOT_RUN = {"bible"}


def published(run: Path) -> set[str]:
    return {*gather(run).files, "README.md"}


@pytest.fixture(scope="module")
def run(tmp_path_factory, task) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    recipe = folder.parent / "recipe.yaml"
    more = {"validation_file": task.validation, "eval_strategy": "epoch", "metrics": "per"}
    words = task.options(folder, **more, save_strategy="steps", save_steps=6)
    options = dict(zip([word.removeprefix("--") for word in words[::2]], words[1::2], strict=True))
    recipe.write_text(yaml.safe_dump(options))
    train.main([str(recipe), "--seed", "7", "--hub_token", "hf_secret"])
    return folder


@pytest.mark.slow
def test_a_run_records_what_a_card_says_of_it(run, task):
    record = json.loads((run / "run.json").read_text())
    assert record["recipe"] == "recipe.yaml" and record["commit"] is None and record["options"] == "--seed 7"
    # Nobody else has this machine's folders.
    assert (record["trained_on"], record["evaluated_on"]) == ("train.jsonl", "validation.jsonl")
    assert record["steps"] == 6 and record["hardware"]["kind"] == "cpu" and 0 < record["seconds"] < 600
    # The cores that it computed on, which may be fewer than there are.
    assert record["hardware"]["count"] == min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
    libraries = {"transformers", "torch", "accelerate", "datasets", "tokenizers"}
    assert record["versions"].keys() == {"hf-xformer", *libraries}
    assert record["train_files"] == ["train.jsonl"] and record["signatures"].keys() == {"per"}
    # Options of the recipe itself, which no command line had.
    assert record["recipe_options"]["learning_rate"] == 0.01 and record["recipe_options"]["precision"] == "no"
    (start,) = record["starts"]
    assert start == {"from_step": 1} | {name: record[name] for name in start.keys() - {"from_step"}}
    assert {"commit", "versions", "hardware", "trained_on", "train_files"} < start.keys()
    rows = len(Path(task.validation).read_text().splitlines())
    assert record["evaluated_rows"] == {"": rows} and record["validation_decoding"]["num_beams"] == 1
    card_text = (run / "README.md").read_text()
    assert f"validation (validation.jsonl, {rows:,} rows)" in card_text.replace("`", "")
    assert "Validation texts were decoded with num_beams 1, max_length " in card_text


def test_the_card_has_the_runs_figures_and_marks_what_no_file_says(run):
    text = (run / "README.md").read_text()
    record = json.loads((run / "run.json").read_text())
    metadata = ModelCard(text).data
    per = json.loads((run / "eval_results.json").read_text())["eval_per"]
    assert {each.metric_type: each.metric_value for each in metadata.eval_results}["per"] == round(per, 4)
    grams = record["seconds"] / 3600 * 10 * record["hardware"]["count"] / 1000 * 480
    assert metadata.co2_eq_emissions["emissions"] == pytest.approx(grams, rel=0.01)
    for figure in (
        f"{record['parameters']:,}",
        record["hardware"]["name"],
        record["recipe"],
        "0.01",
        "target tokens a second, ",
        "![training and",
    ):
        assert figure in text
    assert problems_of(text, published(run)) == [
        "`language` is not filled in", "`license` is not filled in",
        *(f"`{name}` is not filled in" for name in ("summary", "intended_use", "limits", "data", "data_license")),
    ]  # fmt: skip


def test_a_run_that_goes_on_keeps_no_scores_of_earlier_weights(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    (tmp_path / "test_results.json").write_text(json.dumps({"metrics": ["per"], "per": 1.5, "test_file": ["a"]}))
    (tmp_path / "attention.png").write_text("")
    assert scores_of(tmp_path)["test"] == {"per": 1.5}
    set_results_aside(tmp_path, print)
    assert "test" not in scores_of(tmp_path) and not (tmp_path / "attention.png").exists()
    assert (tmp_path / "previous-1/test_results.json").exists() and "earlier weights" in capsys.readouterr().out


@pytest.mark.slow
def test_a_finished_run_looked_at_again_keeps_its_record(run):
    before = json.loads((run / "run.json").read_text())
    train.main([str(run.parent / "recipe.yaml"), "--seed", "7"])
    assert json.loads((run / "run.json").read_text()) == before


@pytest.mark.slow
def test_an_evaluation_by_other_metrics_leaves_no_scores_of_the_one_before(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    words = ["--seed", "7", "--output_dir", str(tmp_path / "run"), "--metrics", "chrf"]
    train.main([str(run.parent / "recipe.yaml"), *words])
    found = json.loads((tmp_path / "run/all_results.json").read_text())
    assert "eval_chrf" in found and "eval_per" not in found and "train_loss" in found


def test_the_card_of_two_vocabularies_reads_the_text_with_the_targets(run, tmp_path):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    AutoTokenizer.from_pretrained(run).save_pretrained(tmp_path / "target_tokenizer")
    text = str(render(tmp_path, read_facts(SHIPPED[0]), str(tmp_path)))
    assert 'subfolder="target_tokenizer"' in text and "print(target.decode(" in text


def test_a_cards_code_runs(run, capsys):
    facts = read_facts(SHIPPED[0])
    text = str(render(run, facts, str(run)))
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "card", "exec"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert f"'generated_text': '{second.strip()}'" in first
    assert pipeline("seq2seq", model=str(run))(facts.example)[0]["generated_text"] == second.strip()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_facts_of_every_shipped_recipe_are_complete_and_the_hub_takes_the_card(path, run):
    facts = read_facts(path)
    assert missing_facts(facts) == []
    assert f"card_facts: model_cards/{path.name}" in (ROOT / "configs/train" / path.name).read_text()
    text = str(render(run, facts, "user/model"))
    assert problems_of(text, published(run)) == [] and ModelCard(text).data.license == "apache-2.0"


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.stem not in NOT_RUN], ids=lambda path: path.stem)
def test_every_recipe_that_was_run_has_the_card_of_a_run(path):
    folder = path.with_suffix("")
    text = (folder / "README.md").read_text()
    assert problems_of(text, {each.name for each in folder.iterdir()}) == []
    assert f"configs/train/{path.stem}.yaml`, commit `" in text and "with changes" not in text and '"/' not in text
    assert {"(curves.png)", "(attention.png)"} <= set(re.findall(r"\(\w+.png\)", text))


def test_every_shipped_recipe_has_facts():
    assert {path.stem for path in (ROOT / "configs/train").glob("*.yaml")} == {path.stem for path in SHIPPED}


@pytest.mark.slow
def test_the_command_draws_the_example_and_writes_the_card(run, tmp_path, capsys):
    facts = tmp_path / "facts.yaml"
    facts.write_text(yaml.safe_dump(dict.fromkeys(REQUIRED, "known") | {"language": "en", "license": "mit"}))
    card.main([str(run), "--card_facts", str(facts), "--example", "A B C"])
    text = (run / "README.md").read_text()
    assert (run / "attention.png").exists() and "(attention.png)" in text and '"A B C"' in text
    (written,) = pipeline("seq2seq", model=str(run))("A B C")
    assert f"\nThe model writes `{written['generated_text']}`.\n" in text
    assert "The model writes" not in str(render(run, replace(read_facts(facts), example="A B"), str(run)))
    assert problems_of(text, published(run)) == [] and "is not filled in" not in capsys.readouterr().out
    assert f'model="{run.name}"' in text and str(run.parent) not in text
    card.main([str(run)])  # with the facts that it was given, and no mark of a change by hand
    assert (run / "README.md").read_text() == text


@pytest.mark.slow
def test_facts_that_a_card_was_given_stay_when_the_run_is_evaluated_again(task, tmp_path):
    run, facts = tmp_path / "run", tmp_path / "facts.yaml"
    facts.write_text(yaml.safe_dump(dict.fromkeys(REQUIRED, "known") | {"language": "en", "license": "mit"}))
    options = task.options(run, validation_file=task.validation, save_strategy="steps", save_steps=6)
    train.main(options)
    card.main([str(run), "--card_facts", str(facts), "--example", "A B C"])
    given = json.loads((run / "run.json").read_text())["facts"]
    train.main([*options, "--metrics", "per"])
    assert json.loads((run / "run.json").read_text())["facts"] == given and given["license"] == "mit"
    assert "\nlicense: mit\n" in (run / "README.md").read_text()


def test_a_card_changed_by_hand_stays(run, capsys):
    text = (run / "README.md").read_text()
    (run / "README.md").write_text(text + "\nMore.\n")
    with pytest.raises(ArgumentError, match="was changed by hand; --overwrite"):
        write_card(run, read_facts(None))
    assert (run / "README.md").read_text() == text + "\nMore.\n"
    (run / "README.md").write_text(text)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("summary: [", "not a readable YAML file: line 1, column 11"),
        ("just words", "expected lines of 'field: text'"),
        ("licence: mit", "no field licence; did you mean license?; there are summary"),
        ("watts: many", "watts must be a number above 0, got 'many'"),
        ("carbon_intensity: 0", "carbon_intensity must be a number above 0, got 0"),
    ],
)
def test_facts_that_cannot_be_are_refused_with_file_and_value(content, said, tmp_path, task, capsys):
    assert said in refused_file(task, tmp_path / "facts.yaml", content, "card_facts", capsys)


def test_a_run_of_several_starts_tells_what_each_was_made_of(tmp_path):
    first = {"commit": "a" * 40, "versions": {"torch": "2.12.0"}, "hardware": {"kind": "cpu", "count": 1, "name": "1"}}
    alike = [{"from_step": step, **first} for step in (1, 5)]
    other = {"from_step": 9, **first, "commit": "b" * 40, "versions": {"torch": "2.13.0"}}
    for starts, lines in ((alike, []), ([*alike, other], [1, 5, 9])):
        (tmp_path / "run.json").write_text(json.dumps(make_record(starts=starts)))
        text = str(render(tmp_path, facts_of(make_record()), "run"))
        found = re.findall(r"^\| from step (\d+) on \| (.*) \|$", text, re.MULTILINE)
        assert [int(step) for step, _ in found] == lines
        assert not lines or "b" * 40 in found[-1][1] and "torch 2.13.0" in found[-1][1]


def test_rows_files_and_split_of_an_evaluation_stand_in_the_card(tmp_path):
    changes = {"evaluated_on": "tester/words, split test", "evaluated_split": "test", "evaluated_rows": {"": 1000}}
    (tmp_path / "run.json").write_text(json.dumps(make_record(**changes)))
    (tmp_path / "eval_results.json").write_text(json.dumps({"eval_per": 8.5}))
    card_of = render(tmp_path, facts_of(make_record()), "run")
    (result,) = card_of.data.eval_results
    assert (result.dataset_name, result.dataset_split) == ("tester/words, split test, 1,000 rows", "test")
    assert "validation (`tester/words, split test`, 1,000 rows)" in str(card_of)


def test_each_validation_set_is_one_block_of_results_on_the_hub(tmp_path):
    """The Hub joins results of one data set, configuration and split under the name of the first."""
    files = {"news": "news/valid.jsonl", "talks": "talks/valid.jsonl"}
    record = make_record(evaluated_on="the mean of news and talks", evaluated_sets=files)
    (tmp_path / "run.json").write_text(json.dumps(record))
    scores = {"eval_loss": 1.0, "eval_per": 2.0, "eval_news_loss": 1.0, "eval_news_per": 1.0}
    scores |= {"eval_talks_loss": 1.0, "eval_talks_per": 3.0}
    (tmp_path / "eval_results.json").write_text(json.dumps(scores))
    text = str(render(tmp_path, facts_of(record), "run"))
    read = {(each.dataset_name, each.metric_value) for each in ModelCard(text).data.eval_results}
    assert {pair for pair in read if pair[1] != 1.0 or "news" in pair[0]} == {
        ("the mean of news and talks", 1.0), ("the mean of news and talks", 2.0), ("news/valid.jsonl", 1.0),
        ("talks/valid.jsonl", 3.0),
    }  # fmt: skip


@pytest.mark.parametrize(("evaluated_on", "listed"), [("valid.jsonl", []), ("tester/words, split dev", ["per"])])
def test_validation_scores_are_listed_beside_a_data_set_that_was_validated_on(evaluated_on, listed, tmp_path):
    facts = replace(facts_of(make_record()), dataset_id="tester/words")
    (tmp_path / "run.json").write_text(json.dumps(make_record(evaluated_on=evaluated_on, evaluated_split="dev")))
    (tmp_path / "eval_results.json").write_text(json.dumps({"eval_per": 8.5}))
    assert [each.task_id for each in hub_results(tmp_path, facts)] == listed
    (result,) = render(tmp_path, facts, "run").data.eval_results
    assert (result.dataset_type == "tester/words") is bool(listed)


@pytest.mark.parametrize(
    ("tested", "said"),
    [
        ({"samples": 10, "bad_rows_left_out": {"empty source": 2, "no target": 1}}, "without 3 bad rows"),
        ({"samples": 10, "max_samples": 10}, "its first 10 rows"),
        ({"samples": 9, "max_samples": 1000}, ""),
    ],
)
def test_test_rows_that_do_not_count_stand_in_the_card_and_beside_the_data_set(tested, said, tmp_path):
    facts = replace(facts_of(make_record()), dataset_id="tester/words")
    (tmp_path / "run.json").write_text(json.dumps(make_record()))
    tested = {"metrics": ["per"], "per": 1.5, "test_file": ["test.jsonl"], "per_signature": "nrefs:1", **tested}
    (tmp_path / "test_results.json").write_text(json.dumps(tested))
    (entry,) = hub_results(tmp_path, facts)
    assert entry.notes == "; ".join(filter(None, ("nrefs:1", said)))
    (result,) = render(tmp_path, facts, "run").data.eval_results
    assert result.dataset_name == ", ".join(filter(None, ("test.jsonl", said)))


def test_a_folder_without_a_run_has_no_card(tmp_path, task, capsys):
    AutoTokenizer.from_pretrained(task.tokenizer).save_pretrained(tmp_path)
    assert "no run.json there" in refused(card, [tmp_path], capsys)


def test_the_recipes_commit_is_its_repositorys_and_marked_where_it_has_changed(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=b", *words], check=True)

    recipe = tmp_path / "recipe.yaml"
    assert commit_of(recipe) is None
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "zeroth")
    recipe.write_text("seed: 1\n")
    assert commit_of(recipe) is None  # another's repository
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = commit_of(recipe)
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (tmp_path / "notes").write_text("of nobody's")
    assert commit_of(recipe) == commit
    recipe.write_text("seed: 2\n")
    assert commit_of(recipe) == f"{commit} with changes"
    recipe.write_text("seed: 1\n")
    code = tmp_path / "package" / "code.py"
    code.parent.mkdir()
    code.write_text("a = 1\n")
    git("add", ".")
    git("commit", "-q", "-m", "second")
    code.write_text("a = 2\n")  # by which a model is another one too
    assert commit_of(recipe).endswith(" with changes")
    assert commit_of(recipe, left_out=["other"]).endswith(" with changes")
    assert not commit_of(recipe, left_out=["package"]).endswith(" with changes")
