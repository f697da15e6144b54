# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Runs on several corpora: weights, temperature and stages, what is counted, resumed and refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from small_runs import SMALL, nightly, refused, run, weights

from hf_xformer.commands import train
from hf_xformer.data.corpora import Corpus
from hf_xformer.training.arguments import DataArguments
from hf_xformer.training.mixtures import corpora_of, make_stages, shares
from hf_xformer.training.recipe import parse_run
from hf_xformer.training.training_set import pairs_of


SIZES = {"small": 16, "large": 144}  # one to nine
PACKED = {"packing": "true", "max_tokens": 64}


@pytest.fixture
def corpora(task, tmp_path) -> dict[str, Path]:
    """The task's pairs in two files."""
    lines = Path(task.train).read_text().splitlines(keepends=True)
    files = {name: tmp_path / f"{name}.jsonl" for name in SIZES}
    files["small"].write_text("".join(lines[: SIZES["small"]]))
    files["large"].write_text("".join(lines[SIZES["small"] :]))
    return files


def mixture(corpora: dict[str, Path], each: dict | None = None, **of: dict) -> str:
    """`--datasets`, with more options of each corpus or of all."""
    return json.dumps(
        [{"name": name, "train_file": str(path), **(each or {}), **of.get(name, {})} for name, path in corpora.items()]
    )


def options(task, out: Path, datasets: str, **more) -> list[str]:
    return task.options(out, train_file=None, datasets=datasets, **{"learning_rate": 1e-3, **more})


def results(folder: Path) -> dict:
    return json.loads((folder / "train_results.json").read_text())


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


DROPPING = SMALL.replace("dropout=0.0", "dropout=0.2")
KINDS = {"in memory": {}, "streamed": {"streaming": "true", "r_drop": 0.1, "config_overrides": DROPPING}}


@pytest.mark.slow
@pytest.mark.parametrize("more", KINDS.values(), ids=KINDS)
def test_corpora_are_drawn_by_their_weights_and_counted(more, task, corpora, tmp_path, capsys):
    datasets = mixture(corpora, {"weight": 1}, large={"prefix": "A "})
    train.main(options(task, tmp_path / "run", datasets, max_steps=60, **PACKED, **more))
    said, found = capsys.readouterr().out, record(tmp_path / "run")
    assert "shares of the pairs that are drawn: 0.5 of small, 0.5 of large" in said
    small, large = found["corpora"]
    total = small["pairs"] + large["pairs"]
    assert total == results(tmp_path / "run")["train_samples"]
    assert abs(small["pairs"] - total / 2) < 4 * (total / 4) ** 0.5
    for side in ("source", "target"):
        assert small[f"{side}_tokens"] + large[f"{side}_tokens"] == results(tmp_path / "run")[f"train_{side}_tokens"]
    # The prefix is a token of each source.
    assert large["source_tokens"] / large["pairs"] > large["target_tokens"] / large["pairs"]
    assert small["source_tokens"] == small["target_tokens"]
    tokens = small["source_tokens"] + small["target_tokens"]
    assert found["trained_on"].startswith(f"small (small.jsonl), {tokens:,} tokens; large (large.jsonl), ")
    assert f"| trained on | `{found['trained_on']}` |" in (tmp_path / "run/README.md").read_text()
    assert history(tmp_path / "run")[-2]["tokens_of_small"] == tokens


@pytest.mark.slow
def test_a_list_of_one_corpus_is_counted_too(task, corpora, tmp_path):
    datasets = mixture({"large": corpora["large"]}, {"streaming": True})
    train.main(options(task, tmp_path / "run", datasets, max_steps=3))
    assert record(tmp_path / "run")["corpora"][0]["pairs"] == results(tmp_path / "run")["train_samples"] == 24


STAGES = json.dumps([{"until_step": 10, "weights": {"large": 1}}, {"weights": {"small": 1, "large": 3}}])
RESUMED = {
    "in memory": {"max_tokens": 64},
    "packed stream": {"streaming": "true", "dataloader_num_workers": 1, **PACKED},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["packed stream", *nightly("in memory")])
def test_a_stopped_mixture_goes_on_as_an_unbroken_one_through_its_stages(kind, task, corpora, tmp_path):
    more = {"max_steps": 15, "save_strategy": "steps", "save_steps": 8, "config_overrides": DROPPING}
    words = {name: options(task, tmp_path / name, mixture(corpora), stages=STAGES, **more, **RESUMED[kind])
             for name in ("unbroken", "broken")}  # fmt: skip
    train.main(words["unbroken"])
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken/checkpoint-15")
    train.main(words["broken"])
    assert torch.equal(weights(tmp_path / "broken"), weights(tmp_path / "unbroken"))
    assert record(tmp_path / "broken")["corpora"] == record(tmp_path / "unbroken")["corpora"]
    tokens = {each["step"]: each["tokens_of_small"] for each in history(tmp_path / "broken")[:-1]}
    assert tokens[10] == 0 < tokens[15]


def test_the_temperature_is_the_power_of_sizes(task, corpora, tmp_path):
    def shares_of(**more) -> tuple:
        _, data_args, _ = parse_run(options(task, tmp_path / "run", mixture(corpora), **more), "")
        (stage,) = make_stages(data_args, list(SIZES.values()))
        return stage.shares

    assert shares_of() == pytest.approx((0.1, 0.9))
    assert shares_of(temperature=2) == pytest.approx((0.25, 0.75))
    assert shares_of(temperature=1e9) == pytest.approx((0.5, 0.5))


def test_the_pairs_of_texts_are_counted_by_some_of_them():
    def pieces(rows: dict, random) -> dict:
        return {side: [[1]] * 3 * len(rows["source"]) for side in ("input_ids", "labels")}

    texts = Dataset.from_dict({"source": ["a"] * 250})
    assert pairs_of(Corpus(texts, pieces)) == 750
    assert pairs_of(Corpus(texts.to_iterable_dataset(), pieces)) is None


def test_huge_weights_have_shares_too():
    assert shares([1.5e308, 1.5e308, 0]) == (0.5, 0.5, 0)


def test_what_is_no_list_of_corpora_is_refused_with_one_that_is(task, tmp_path, capsys):
    for given in ('["a.jsonl", "b.jsonl"]', '{"a": {"train_file": "a.jsonl"}}', "[]"):
        line = refused(train, options(task, tmp_path / "run", given), capsys)
        assert "--datasets: expected a list of mappings" in line and "[{name: news, train_file: news.tsv}" in line


def test_a_corpus_without_a_name_is_called_by_its_file():
    files = ["news.de.tsv.gz", ".hidden.jsonl", "..", "a/parts"]
    found = corpora_of(DataArguments(datasets=[{"train_file": [file]} for file in files]))
    assert [corpus.name for corpus, _ in found] == ["news", "hidden", "..", "parts"]


LINES = {
    "unknown option": (
        {"small": {"wieght": 1}},
        {},
        "--datasets, corpus small: unknown option 'wieght'; did you mean",
    ),
    "wrong type": ({"small": {"weight": "much"}}, {}, "--datasets, corpus small: weight: expected number, got 'much'"),
    "no data": ({"small": {"train_file": None}}, {}, "corpus small: give either train_file or dataset_name"),
    "two names": ({"small": {"name": "large"}}, {}, "two corpora are called 'large'"),
    "negative": ({"small": {"weight": -1}, "large": {"weight": 1}}, {}, "the weight of corpus 'small' must be 0 or"),
    "all zero": ({"small": {"weight": 0}, "large": {"weight": 0}}, {}, "all weights are 0"),
    "one weight": ({"small": {"weight": 1}}, {}, "corpus 'large' has no weight, and others have"),
    "weights and temperature": ({"small": {"weight": 1}, "large": {"weight": 1}}, {"temperature": 2}, "give one"),
    "temperature": ({}, {"temperature": 0}, "--temperature must be above 0"),
    "stream": ({"small": {"streaming": True}}, {}, "pairs corpus 'small' has, which are made while training: give w"),
    "chance": ({"small": {"case_noise": 0.1}}, {"max_steps": -1}, "made while training: give --max_steps"),
    "objective": ({"small": {"objective": "span_coruption"}}, {}, "corpus 'small' ("),
    "targets": ({"small": {"objective": "copy"}}, {}, "a target in"),
    "prefix": ({"small": {"objective": "copy", "prefix": "A "}}, {}, "prefix does nothing with an objective"),
    "no steps": ({}, {"max_steps": -1}, "steps have about as many pairs as 3 passes over all 160"),
    "never ends": ({}, {"stages": [{"weights": {"small": 1}}] * 2}, "stage 1 never ends, so that stage 2 never comes"),
    "never comes": (
        {},
        {"stages": [{"until_step": 6, "weights": {"small": 1}}, {"weights": {"large": 1}}]},
        "until_step 6: stage 2 never comes, for --max_steps is 6",
    ),
    "last": ({}, {"stages": [{"until_step": 6, "weights": {"small": 1}}]}, "the last stage is the rest of the run"),
    "backwards": (
        {},
        {"stages": [{"until_step": each, "weights": {"small": 1}} for each in (3, 2)] + [{"weights": {"small": 1}}]},
        "stage 2: until_step 2 must be above 3",
    ),
    "unknown corpus": ({}, {"stages": [{"weights": {"smal": 1}}]}, "no corpus 'smal'; did you mean small?"),
    "no weights": ({}, {"stages": [{"weights": {"small": 0}}]}, "all weights are 0"),
    "epochs": ({}, {"save_strategy": "epoch"}, "--datasets has no epochs"),
    "both": ({}, {"dataset_name": "another"}, "give either --train_file, --dataset_name or --datasets"),
    "empty": ({"small": {"train_file": ["/dev/null"]}}, {}, "/dev/null"),
    "overlong": ({}, {"max_source_length": 2, "overlong": "drop"}, "no training pair is left"),
    "uneven": ({"small": {"max_length_ratio": 1.01}}, {}, None),
    "ratio": ({"small": {"max_length_ratio": 0.5}}, {}, "): --max_length_ratio must be above 1, got 0.5"),
    "noise": ({"small": {"case_noise": -1}}, {}, "corpus 'small' ("),
    "tag": ({"small": {"prefix": "<2de> "}}, {}, "): texts begin with <2de>, and the tokenizer"),
    "tag of a column": ({"small": {"source_column": "<bt> {source}"}}, {}, "): texts begin with <bt>, and the tok"),
    "tag of targets": ({"small": {"target_column": "<bt> {target}"}}, {}, "): texts begin with <bt>, and the tok"),
    "split of files": ({"small": {"train_split": "test"}}, {}, "corpus small: train_split does nothing with train_"),
    "split of all files": ({}, {"train_split": "test"}, "--train_split test does nothing without --dataset_name: f"),
    "configuration of files": ({}, {"dataset_config_name": "de"}, "--dataset_config_name de does nothing without"),
    "no files": ({"small": {"train_file": []}}, {}, "corpus small: give either train_file or dataset_name"),
    "name": ({"small": {"name": "a|b"}}, {}, "corpus a|b: a name is one line without"),
    "case of a name": ({}, {"stages": [{"weights": {"Small": 1}}]}, "no corpus 'Small'; did you mean small?"),
}


@pytest.mark.parametrize(("of", "more", "said"), LINES.values(), ids=LINES)
def test_what_cannot_be_is_refused_by_corpus_before_training(of, more, said, task, corpora, tmp_path, capsys):
    more = {name: json.dumps(value) if isinstance(value, list) else value for name, value in more.items()}
    words = options(task, tmp_path / "run", mixture(corpora, **of), **more)
    if said is None:
        train.main(words)
        return
    line = refused(train, words, capsys)
    assert said in line
    assert not (tmp_path / "run").exists()


def test_a_corpus_without_pairs_is_named_with_its_file(task, corpora, tmp_path, capsys):
    corpora["small"].write_text('{"source": "", "target": "A"}\n')
    datasets = mixture(corpora, {"weight": 1, "on_bad_row": "skip"})
    line = refused(train, options(task, tmp_path / "run", datasets), capsys)
    assert (
        line.startswith(f"error: corpus 'small' ({corpora['small']}): ") and "no row is left: left out 1 bad" in line
    )


@pytest.mark.slow
def test_everything_that_decides_what_is_drawn_is_in_the_recipe_of_a_run(task, corpora, tmp_path, capsys):
    run_options = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    datasets = {
        "first": mixture(corpora, {"weight": 1}),
        "weights": mixture(corpora, {"weight": 1}, small={"weight": 2}),
        "prefix": mixture(corpora, {"weight": 1}, small={"prefix": "A "}),
        "order": mixture(dict(reversed(corpora.items())), {"weight": 1}),
    }
    train.main(options(task, tmp_path / "run", datasets["first"], **run_options))
    longer = run_options | {"max_steps": 9, "lr_scheduler_type": "constant"}
    for name, said in (("weights", "datasets small weight 1.0, now 2.0"), ("prefix", "datasets small prefix"),
                       ("order", "datasets small and large, now large and small")):  # fmt: skip
        line = refused(train, options(task, tmp_path / "run", datasets[name], **longer), capsys)
        assert said in line


@pytest.mark.slow
def test_a_corpus_of_texts_and_one_of_pairs_go_together(task, corpora, tmp_path, capsys):
    texts = [json.dumps({"source": json.loads(line)["source"]}) for line in corpora["large"].read_text().splitlines()]
    corpora["large"].write_text("\n".join(texts) + "\n")
    datasets = mixture(corpora, {"weight": 1}, large={"objective": "copy"}, small={"source_word_dropout": 0.2})
    train.main(options(task, tmp_path / "run", datasets, max_steps=20, **PACKED))
    small, large = record(tmp_path / "run")["corpora"]
    assert large["source_tokens"] == large["target_tokens"] > 0  # a copy
    assert small["source_tokens"] < small["target_tokens"]  # words are lost
    assert large["objective"] == "copy" and small["noise"] == {"source_word_dropout": 0.2}


@pytest.mark.distributed
def test_two_processes_draw_a_mixture_alike_and_go_on_where_they_were(task, corpora, tmp_path):
    datasets = mixture(corpora, {"weight": 1, "streaming": True})
    more = {"max_steps": 30, "save_strategy": "steps", "save_steps": 20, **PACKED}
    run(options(task, tmp_path / "run", datasets, **more), "cpu-2proc")
    small, large = record(tmp_path / "run")["corpora"]
    total = small["pairs"] + large["pairs"]
    assert total == results(tmp_path / "run")["train_samples"] > 300
    shutil.copytree(tmp_path / "run", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken/checkpoint-30")
    run(options(task, tmp_path / "broken", datasets, **more), "cpu-2proc")
    assert torch.equal(weights(tmp_path / "broken"), weights(tmp_path / "run"))
    assert record(tmp_path / "broken")["corpora"] == [small, large]
    assert abs(small["pairs"] - total / 2) < 4 * (total / 4) ** 0.5
