# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Trainings and figures that benchmarks take up again: only those with the same options and settings."""

import json

import pytest
import yaml
from small_runs import ROOT


pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks/verbs.py").exists(), reason="no benchmarks beside the tests")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def verbs():
    import verbs

    return verbs


def test_a_training_with_other_options_is_not_taken_for_this_one(verbs, tmp_path):
    run, options = tmp_path / "copy-rope-0", {"max_steps": 20, "seed": 0, "config_overrides": {"dropout": 0.0}}
    run.mkdir()
    (run / "train_results.json").write_text(json.dumps({"train_runtime": 12.34}))
    run.with_name("copy-rope-0.yaml").write_text(yaml.safe_dump(options | {"output_dir": "elsewhere"}))
    assert verbs.train(options, run) == 12.3
    with pytest.raises(SystemExit, match="other options: max_steps 20, not 2000: delete it"):
        verbs.train(options | {"max_steps": 2000}, run)
    options["train_file"] = ["/earlier/data/g2p/train.jsonl"]
    run.with_name("copy-rope-0.yaml").write_text(yaml.safe_dump(options))
    assert verbs.train(options | {"train_file": ["/moved/g2p/train.jsonl"]}, run) == 12.3
    with pytest.raises(SystemExit, match=r"train_file .*, not \['/moved/subwords/train.jsonl'\]: delete"):
        verbs.train(options | {"train_file": ["/moved/subwords/train.jsonl"]}, run)
    with pytest.raises(SystemExit, match="bf16 None, not True"):
        verbs.train(options | {"bf16": True}, run)


def test_figures_of_several_days_have_the_first_and_the_last(verbs, tmp_path, monkeypatch):
    figures = verbs.Figures("methods", tmp_path)
    for day in ("2026-11-01", "2026-11-01", "2026-11-03", "2026-11-09"):
        monkeypatch.setattr("time.strftime", lambda form, day=day: day)
        figures.add(method="Muon", per=7.2)
        (stored,) = [json.loads(each.read_text())["machine"]["date"] for each in tmp_path.iterdir()]
        assert stored == (day if day == "2026-11-01" else f"2026-11-01 to {day}")


def test_figures_of_other_settings_are_not_written_over(verbs, tmp_path):
    figures = verbs.Figures("methods", tmp_path, steps=2820, samples=None)
    figures.add(method="Muon", seed=0, per=7.2)
    figures.add(method="Muon", seed=1, per=7.3)
    again = verbs.Figures("methods", tmp_path, steps=2820, samples=None)
    assert again.has(method="Muon", seed=1) and not again.has(method="Muon", seed=2)
    stored = (tmp_path / "methods.json").read_text()
    with pytest.raises(SystemExit, match="rows with steps 2820, not 20: give another --results"):
        verbs.Figures("methods", tmp_path, steps=20, samples=None)
    assert (tmp_path / "methods.json").read_text() == stored


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (["Ein Mann, der schläft.", "Zwei Hunde."], None),
        (["Zwei Hunde.", "Ein Mann, der schläft."], "BLEU .* against it: of another set"),
        (["Ein Mann, der schläft."], "1 lines, where .* has 2 rows"),
    ],
)
def test_sentences_of_another_test_set_are_refused_before_anything_is_trained(written, said, tmp_path):
    pytest.importorskip("sacremoses")
    from recipes import check_raw

    targets, test, raw = ["ein mann , der schläft .", "zwei hunde ."], tmp_path / "test.jsonl", tmp_path / "raw.de"
    test.write_text("".join(json.dumps({"source": "a", "target": target}) + "\n" for target in targets))
    raw.write_text("".join(f"{line}\n" for line in written))
    if said is None:
        check_raw(test, raw)
        return
    with pytest.raises(SystemExit, match=said):
        check_raw(test, raw)


def test_a_mean_is_not_over_two_versions_of_a_recipe(verbs, tmp_path):
    from recipes import check_versions, version_of

    versions = {name: version_of(name) for name in ("g2p-quickstart", "g2p-pronasyl")}
    assert len(set(versions.values())) == 2 and versions["g2p-pronasyl"] == version_of("g2p-pronasyl")
    figures = verbs.Figures("recipe_g2p-pronasyl", tmp_path)
    for seed in (0, 1):
        figures.add(decoding="greedy", seed=seed, recipe=versions["g2p-pronasyl"])
        check_versions(figures, versions["g2p-pronasyl"])
    figures.add(decoding="greedy", seed=2, recipe=versions["g2p-quickstart"])
    with pytest.raises(SystemExit, match="has seeds 2 of another version of the recipe: delete"):
        check_versions(figures, versions["g2p-pronasyl"])
