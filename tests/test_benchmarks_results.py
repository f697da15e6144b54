# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of the documents: which runs may replace them, what rows are known by, and what tables say of them."""

from importlib import import_module

import pytest
from small_runs import ROOT


pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks/verbs.py").exists(), reason="no benchmarks beside the tests")
QUICKSTART = ["runs/g2p-quickstart", "--test_file", "data/g2p/test.jsonl"]
EOLE = ["eole", "--eole", "env", "--data", "data"]
COMMITS = ["commits", "--old", "old", "--checkpoint", "run", "--input", "words.txt"]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


class ChosenError(Exception):
    """Ends a benchmark as soon as it has chosen a folder."""


@pytest.mark.parametrize(
    ("name", "published", "tried"),
    [
        ("train_step", ["base"], [["base", "--longest", "8"], ["base", "--bf16"], ["tiny"]]),
        ("train_step", ["base", "--bf16", "--attn_implementation", "eager"], [["base", "--pairs", "4"]]),
        ("train_e2e", ["cmudict"], [["cmudict", "--pairs", "8"], ["cmudict", "--bf16"]]),
        ("roofline", ["base", "--bf16"], [["base", "--bf16", "--compile"], ["small"]]),
        ("decode", ["base", "--rounds", "3"], [["base", "--ways", "greedy"], ["base", "--models", "hf-xformer"]]),
        ("decode_memory", [], [["--sources", "2", "--length", "8192"]]),
        ("memory", [], [["--targets", "1024"]]),
        ("long_input", ["--rounds", "2"], [["--lengths", "4096", "--core_length", "4096"]]),
        ("estimated_memory", [], [["--configs", "cpu"], ["--rows", "4"]]),
        ("streams", [], [["--d_model", "64"], ["--steps", "0", "--rows", "20000"]]),
        ("streams", ["--steps", "0"], []),
        ("engines", [*QUICKSTART, "--batch_size", "32"], [[*QUICKSTART, "--batch_size", "4"]]),
        ("quantization", QUICKSTART, [["run", *QUICKSTART[1:]], [*QUICKSTART, "--max_samples", "500"]]),
        ("decode_cli", EOLE, [[*EOLE, "--tiny"], [*EOLE, "--length", "4"]]),
        ("decode_cli", COMMITS, [[*COMMITS, "--num_beams", "5"], [*COMMITS, "--rounds", "1"]]),
    ],
)
def test_a_trial_does_not_replace_the_figures_of_the_documents(name, published, tried, monkeypatch, tmp_path, capsys):
    import measuring

    module = import_module(name)

    def chosen(*args, **values):
        raise ChosenError(measuring.results_folder(*args, **values))

    def folder_of(words):
        monkeypatch.setattr("sys.argv", [f"{name}.py", *words])
        with pytest.raises(ChosenError) as choice:
            module.main()
        return choice.value.args[0]

    monkeypatch.setattr(module, "results_folder", chosen)
    assert folder_of(published) == measuring.RESULTS and capsys.readouterr().out == ""
    for words in tried:
        assert folder_of(words) == ROOT / "build/tried"
        said = capsys.readouterr().out
        assert "other than for the documents' tables, so figures go to" in said and said.count("\n") == 1
        assert folder_of([*words, "--results", str(tmp_path)]) == tmp_path


def test_the_projects_folder_is_found_in_one_place():
    found = [
        path.name
        for path in sorted((ROOT / "benchmarks").glob("*.py"))
        if "Path(__file__).resolve().parent.parent" in path.read_text(encoding="utf-8")
    ]
    assert found == ["measuring.py"]


def test_the_peak_of_a_script_is_what_it_prints_of_itself(tmp_path):
    from costs import peak_of_script

    script = tmp_path / "script.py"
    script.write_text("import os, sys; print(int(os.environ['MALLOC_MMAP_THRESHOLD_']) + int(sys.argv[2]))")
    assert peak_of_script(str(script), "--memory_of", 5) == 2**20 + 5


def test_a_recipe_is_trained_on_the_cpu_as_its_version_says(monkeypatch, tmp_path):
    import recipes

    def train(*words):
        raise ChosenError(*words)

    test = tmp_path / recipes.TASKS["g2p-quickstart"].test_file
    test.parent.mkdir(parents=True)
    test.write_text("{}\n")
    monkeypatch.setattr(recipes, "ROOT", tmp_path)
    monkeypatch.setattr(recipes, "hf_xformer", train)
    monkeypatch.setattr("sys.argv", ["recipes.py", "g2p-quickstart", "--results", str(tmp_path)])
    with pytest.raises(ChosenError) as trained:
        recipes.main()
    words = trained.value.args
    assert words[:2] == ("train", "configs/train/g2p-quickstart.yaml") and words[words.index("--use_cpu") + 1] is True
    assert recipes.deciding(words[1])["use_cpu"] is True


def test_a_row_says_which_commit_gave_it(tmp_path, monkeypatch):
    from verbs import Figures

    asked = []

    def commit_of(file, left_out):
        asked.append((file.name, left_out))
        return "a1b2 with changes"

    monkeypatch.setattr("hf_xformer.hub.record.commit_of", commit_of)
    figures = Figures("methods", "a recipe", tmp_path)
    figures.add({"seed": 0}, per=7.2)
    figures.add({"seed": 1}, commit="c3d4")  # of the training, which another start of the benchmark began
    assert [row["commit"] for row in figures.rows()] == ["a1b2 with changes", "c3d4"]
    assert asked == [("verbs.py", ["benchmarks/results"])]


def test_eole_is_named_by_its_environment(tmp_path):
    from decode_cli import eole_program

    program = tmp_path / "bin/eole"
    with pytest.raises(SystemExit, match="there is no bin/eole; give the virtual environment that has it"):
        eole_program(tmp_path)
    program.parent.mkdir()
    program.write_text("")
    assert eole_program(tmp_path) == str(program)
    with pytest.raises(SystemExit):
        eole_program(program)
