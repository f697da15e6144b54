# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Trainings and figures that benchmarks take up again: only those with the same options and settings."""

import gzip
import json
import os
import subprocess
import sys

import pytest
import yaml
from small_runs import ROOT


pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks/verbs.py").exists(), reason="no benchmarks beside the tests")
EOLE = {"toolkit": "eole", "version": "0.6.4"}


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def verbs():
    import verbs

    return verbs


def test_a_verb_that_fails_ends_the_benchmark_by_its_own_line(verbs, capfd):
    with pytest.raises(SystemExit) as stop:
        verbs.hf_xformer("train", "--foo", "3")
    assert stop.value.code == 2 and "error: --foo: unknown option" in capfd.readouterr().err


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


def test_figures_of_other_settings_are_not_written_over(verbs, tmp_path):
    figures = verbs.Figures("methods", "a recipe", tmp_path, steps=2820, samples=None)
    figures.add({"method": "Muon", "seed": 0}, per=7.2)
    figures.add({"method": "Muon", "seed": 1}, per=7.3)
    again = verbs.Figures("methods", "a recipe", tmp_path, steps=2820, samples=None)
    assert again.has({"method": "Muon", "seed": 1}) and not again.has({"method": "Muon", "seed": 2})
    stored = (tmp_path / "methods.json").read_text()
    with pytest.raises(SystemExit, match="rows with steps 2820, not 20: give what they had, or another --results"):
        verbs.Figures("methods", "a recipe", tmp_path, steps=20, samples=None)
    with pytest.raises(SystemExit, match="rows with version '.*', not '.*': give what they had"):
        verbs.Figures("methods", "a recipe with another rate", tmp_path, steps=2820, samples=None)
    assert (tmp_path / "methods.json").read_text() == stored


def test_rows_of_processes_that_began_together_do_not_mix(verbs, tmp_path, capsys):
    """Rows come hours after the start: what was stored meanwhile counts."""
    mine, same, other = (verbs.Figures("methods", "a recipe", tmp_path, bf16=bf16) for bf16 in (True, True, False))
    mine.add({"method": "Muon", "seed": 0}, per=7.2)
    with pytest.raises(SystemExit, match="rows with bf16 True, not False"):
        other.add({"method": "Muon", "seed": 1}, per=7.3)
    same.add({"method": "Muon", "seed": 0}, per=7.4)
    assert "from another process, which stays" in capsys.readouterr().err
    assert [row["per"] for row in mine.rows()] == [7.2]


def test_a_row_by_other_options_of_a_method_is_refused(verbs, tmp_path):
    figures, muon = verbs.Figures("methods", "a recipe", tmp_path), {"method": "Muon", "seed": 0}
    figures.add(muon, {"optim": "muon"}, per=7.2)
    assert figures.has(muon, {"optim": "muon"})
    for changed in ({"optim": "muon", "learning_rate": 0.05}, {}):
        with pytest.raises(SystemExit, match="by other options: delete that, or give another --results"):
            figures.has(muon, changed)


def test_a_file_that_figures_depend_on_is_there_before_anything_is_trained(verbs, tmp_path):
    with pytest.raises(SystemExit, match=r"test.jsonl: there is no such file or folder"):
        verbs.Figures("methods", "a recipe", tmp_path, [tmp_path / "test.jsonl"])


def test_what_decides_the_weights_makes_another_version_of_a_recipe(verbs, tmp_path, monkeypatch):
    monkeypatch.setattr(verbs, "ROOT", tmp_path)
    options = {"config_name": "tiny.json", "learning_rate": 1e-3, "logging_steps": 10, "output_dir": "runs/a"}

    def version(recipe: dict, d_model: int = 64) -> str:
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        (tmp_path / "tiny.json").write_text(json.dumps({"d_model": d_model}))
        return verbs.version_of(verbs.deciding("recipe.yaml"))

    first = version(options)
    assert version(options | {"logging_steps": 50, "output_dir": "runs/b", "card_facts": "facts.yaml"}) == first
    assert len({first, version(options | {"learning_rate": 2e-3}), version(options, d_model=128)}) == 3


def test_figures_and_trainings_of_other_data_are_not_taken_for_these(verbs, tmp_path):
    data, other = tmp_path / "data/words", {"max_steps": 20}
    (data / "tokenizer").mkdir(parents=True)
    (data / "train.jsonl").write_text("{}")
    (data / "tokenizer/tokenizer.json").write_text("[]")
    options = {"train_file": str(data / "train.jsonl"), "tokenizer_name": str(data / "tokenizer"), **other}
    verbs.Figures("words", [options], tmp_path).add({"seed": 0})
    run = tmp_path / "words-0"
    run.mkdir()
    (run / "train_results.json").write_text(json.dumps({"train_runtime": 1.0}))
    written = options | {"output_dir": str(run)}
    run.with_name("words-0.yaml").write_text(yaml.safe_dump(written))
    run.with_name("words-0.read").write_text(json.dumps(verbs.digests_of(options)))
    assert verbs.train(options, run) == 1.0 and verbs.Figures("words", [options], tmp_path).has({"seed": 0})
    moved = (tmp_path / "data").rename(tmp_path / "moved") / "words"
    options = {"train_file": str(moved / "train.jsonl"), "tokenizer_name": str(moved / "tokenizer"), **other}
    assert verbs.train(options | {"card_facts": str(moved / "words.yaml"), "logging_steps": 9}, run) == 1.0
    (moved / "tokenizer/tokenizer.json").write_text("[1]")
    with pytest.raises(SystemExit, match="a training on another words/tokenizer: delete it"):
        verbs.train(options, run)
    assert verbs.digests_of({"config": "a\n/b", "name": "words"}) == {}
    reads = [verbs.Figures("tables", "a recipe", tmp_path, [moved]).about["data"]]
    (moved / "train.jsonl").write_text("{} ")
    reads.append(verbs.Figures("tables", "a recipe", tmp_path, [moved]).about["data"])
    assert len({*reads}) == 2


@pytest.mark.slow
def test_rows_of_several_processes_are_all_kept(verbs, tmp_path):
    code = (
        "import sys; from pathlib import Path; from verbs import Figures\n"
        "figures = Figures('methods', 'a recipe', Path(sys.argv[1]))\n"
        "for number in range(15): figures.add({'process': sys.argv[2], 'number': number})"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen([*command, name], env=path, stderr=subprocess.DEVNULL) for name in "ab"]
    assert [each.wait(120) for each in running] == [0, 0]
    rows = verbs.Figures("methods", "a recipe", tmp_path).rows()
    assert sorted((row["process"], row["number"]) for row in rows) == [(name, i) for name in "ab" for i in range(15)]


def test_a_table_says_all_days_and_threads_of_its_rows(verbs, tmp_path, monkeypatch):
    from tabulating import measured

    figures = verbs.Figures("methods", "a recipe", tmp_path)
    said = []
    for day, threads in (("2026-11-03", 1), ("2026-11-01", 1), ("2026-11-09", 2)):
        machine = verbs.machine() | {"date": day, "threads": threads, "cores": 2, "torch": "2.13.0+cpu"}
        monkeypatch.setattr(verbs, "machine", lambda machine=machine: machine)
        monkeypatch.setattr("measuring.machine", verbs.machine)
        figures.add({"method": "Muon", "seed": day}, per=7.2)
        said.append(measured(json.loads(figures.path.read_text()), "methods.py").partition(", torch")[0])
    assert said == [
        "`python benchmarks/methods.py`, 2026-11-03, 1 of 2 cores",
        "`python benchmarks/methods.py`, 2026-11-01 to 2026-11-03, 1 of 2 cores",
        "`python benchmarks/methods.py`, 2026-11-01 to 2026-11-09, 1 or 2 of 2 cores",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"per_signature": "nrefs:1|version:2.7.0"}, r"rows of several kinds, by per_signature: .*2\.7\.0"),
        ({"seed": 2}, "lacks a decoding of seed 1"),
    ],
)
def test_scores_of_several_kinds_are_not_averaged(changes, said, tmp_path, monkeypatch):
    import score_tables

    monkeypatch.setattr(score_tables, "stored", lambda name: json.loads((tmp_path / f"{name}.json").read_text()))
    rows = [
        {"decoding": decoding, "seed": seed, "per": 5.0, "per_signature": "nrefs:1|version:2.6.0"}
        for decoding in score_tables.DECODINGS
        for seed in (0, 1)
    ]
    rows[-1] |= changes
    (tmp_path / "recipe_a.json").write_text(json.dumps({"machine": {}, "rows": rows}))
    if said is None:
        assert score_tables.checked("recipe_a")["rows"] == rows
        return
    with pytest.raises(SystemExit, match=said):
        score_tables.checked("recipe_a")


def test_only_a_line_feed_ends_a_line_of_texts(verbs, tmp_path):
    """U+2028 and others stand in texts: cut there, all that follow would be compared with their neighbours."""
    (tmp_path / "texts.gz").write_bytes(gzip.compress("\ufeffa\u2028b\x85\nc\n".encode()))
    assert verbs.read_lines(tmp_path / "texts.gz") == ["a\u2028b\x85", "c"]


def test_toolkits_train_models_of_one_size_that_begin_alike():
    from toolkits import WARMUP, WIDTH

    read = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "benchmarks/toolkits").glob("*.yaml")}
    joey, eole, ours = (read[name] for name in ("joeynmt", "eole", "hf-xformer"))
    stack, fields = joey["model"]["encoder"], ours["config_overrides"]
    sizes = [
        (stack["num_layers"], stack["hidden_size"], stack["num_heads"], stack["ff_size"], stack["dropout"]),
        (
            *(eole["model"][name] for name in ("layers", "hidden_size", "heads", "transformer_ff")),
            *eole["training"]["dropout"],
        ),
        *(
            (
                fields[f"{side}_layers"],
                fields["d_model"],
                fields[f"{side}_attention_heads"],
                fields[f"{side}_ffn_dim"],
                fields["dropout"],
            )
            for side in ("encoder", "decoder")
        ),
    ]
    assert len(set(sizes)) == 1 and fields["activation_dropout"] == fields["dropout"]
    trainings = [joey["training"], eole["training"], fields | ours]
    assert {each["label_smoothing"] for each in trainings} == {0.1}
    assert {joey["training"]["learning_rate_warmup"], *(each["warmup_steps"] for each in trainings[1:])} == {WARMUP}
    spreads = [*(joey["model"][f"{each}init_weight"] for each in ("", "embed_")), eole["training"]["param_init"]]
    assert {*spreads, fields["initializer_range"]} == {WIDTH**-0.5}
    assert eole["model"]["add_qkvbias"] and eole["model"]["add_ffnbias"] and fields["use_bias"]
    often = (joey["training"]["validation_freq"], eole["training"]["save_checkpoint_steps"], ours["save_steps"])
    assert len({*often}) == 1


def test_toolkits_are_compared_by_what_was_best_on_the_validation_set(verbs, tmp_path, capsys):
    from toolkits import Choice, best, tried

    def row(choice, **more):
        return EOLE | {"rate": choice.rate, "tokens": choice.tokens, "minutes": 5} | more

    figures = verbs.Figures("toolkits_tuned", "settings", tmp_path)
    choices = []
    for choice, score in zip(tried(figures, EOLE, 5), (20.1, 22.3, 21.0, 20.5, 22.9), strict=True):
        with pytest.raises(SystemExit, match=r"has no (row of eole 0.6.4|training of eole 0.6.4 with a rate of)"):
            best(figures, EOLE, bf16=False)
        figures.add(row(choice), bleu=score)
        choices.append((choice.rate, choice.tokens))
    assert choices == [(1e-3, 2000), (2e-3, 2000), (4e-3, 2000), (2e-3, 1000), (2e-3, 4000)]
    figures.add(row(Choice(8e-3, 2000, bf16=False)), bleu=30)  # of rates that are not tried any more
    assert best(figures, EOLE, bf16=True) == Choice(2e-3, 4000, bf16=True)
    said = capsys.readouterr().err
    assert "eole 0.6.4 is best at 4000 tokens, an end of" in said and "rate, an end of" not in said
    for kit in (EOLE | {"version": "0.7.0"}, EOLE | {"toolkit": "hf-xformer"}):
        with pytest.raises(SystemExit, match="has no row of .*: run this with --tune first"):
            best(figures, kit, bf16=False)


def test_trainings_by_other_rates_do_not_count_as_tuned(verbs, tmp_path, monkeypatch):
    import toolkits

    figures = verbs.Figures("toolkits_tuned", "settings", tmp_path)
    for choice in toolkits.tried(figures, EOLE, 5):
        figures.add(EOLE | {"rate": choice.rate, "tokens": choice.tokens, "minutes": 5}, bleu=1 / choice.rate)
    assert toolkits.best(figures, EOLE, bf16=False).rate == 1e-3
    monkeypatch.setattr(toolkits, "RATES", (2e-3, 4e-3, 8e-3))  # as many as before
    with pytest.raises(SystemExit, match="eole 0.6.4 with a rate of 0.008 and 2,000 tokens: finish --tune first"):
        toolkits.best(figures, EOLE, bf16=False)


def test_what_is_tried_beside_a_recipe_changes_that_alone():
    import recipes
    from verbs import read_recipe

    path = "configs/train/g2p-pronasyl.yaml"
    words = recipes.changed_words(path, ["attention_dropout=0.1", "dropout=0.3", "r_drop=2", "warmup_steps=9"])
    assert words[:5] == ["--r_drop", "2", "--warmup_steps", "9", "--config_overrides"] and len(words) == 6
    fields, recipe = dict(pair.split("=") for pair in words[5].split(",")), read_recipe(path)["config_overrides"]
    expected = recipe | {"attention_dropout": 0.1, "dropout": 0.3}
    assert {name: float(value) for name, value in fields.items()} == expected


@pytest.mark.parametrize(
    "changed",
    [["dropout"], ["dropout=0.1", "dropout=0.3"], ["seed=3"], ["max_steps=9"], ["logging_steps=3"]]
    + [["per_device_train_batch_size=3"]],
)
def test_what_would_be_recorded_otherwise_than_trained_is_refused(changed, monkeypatch, capsys):
    import recipes

    monkeypatch.setattr("sys.argv", ["recipes.py", "g2p-pronasyl", "--changed", *changed])
    with pytest.raises(SystemExit):
        recipes.arguments()
    assert f"--changed {changed[0].split('=')[0]}: " in capsys.readouterr().err


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
