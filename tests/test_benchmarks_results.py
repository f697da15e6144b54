# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of the documents: which runs may replace them, what rows are known by, and what tables say of them."""

import argparse
import json
from importlib import import_module
from pathlib import Path

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
    monkeypatch.setattr(module, "existing", str, raising=False)  # no run and no other toolkit is at hand
    assert folder_of(published) == measuring.RESULTS and capsys.readouterr().out == ""
    for words in tried:
        assert folder_of(words) == ROOT / "build/tried"
        said = capsys.readouterr().out
        assert "other than for the documents' tables, so figures go to" in said and said.count("\n") == 1
        assert folder_of([*words, "--results", str(tmp_path)]) == tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("decode_cli", [*EOLE]),
        ("quantization", ["nowhere", *QUICKSTART[1:]]),
        ("engines", ["nowhere", *QUICKSTART[1:]]),
    ],
)
def test_a_path_that_is_not_there_is_said_in_a_line(name, words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [f"{name}.py", *words])
    with pytest.raises(SystemExit):
        import_module(name).main()
    assert "there is no such file or folder" in capsys.readouterr().err


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

    monkeypatch.setattr("verbs.commit_of", commit_of)
    figures = Figures("methods", "a recipe", tmp_path)
    figures.add({"seed": 0}, per=7.2)
    figures.add({"seed": 1}, commit="c3d4")  # of the training, which another start of the benchmark began
    assert [row["commit"] for row in figures.rows()] == ["a1b2 with changes", "c3d4"]
    assert asked == [("verbs.py", ["benchmarks/results"])]


@pytest.mark.parametrize("name", ["methods", "ablation"])
def test_stored_rows_have_the_options_and_steps_of_their_methods(name):
    from measuring import stored
    from methods import options_of, steps_of
    from verbs import version_of

    rows = stored(name)["rows"]
    found = [(row["method"], row["options"], row["steps"]) for row in rows]
    expected = {method: (method, version_of(options_of(method)), steps_of(method, 2820)) for method, *_ in found}
    assert found == [expected[method] for method, *_ in found]


def test_other_batches_see_as_many_pairs():
    from methods import steps_of

    named = {"the recipe": 2820, "R-Drop": 1410, "batches of 32": 11280, "batches of 512": 705}
    assert {name: steps_of(name, 2820) for name in named} == named and steps_of("batches of 512", 1) == 1


def test_data_by_other_options_are_other_data(monkeypatch, tmp_path):
    import methods

    def known():
        bench = methods.Bench(tmp_path, tmp_path, 20, None, False)
        monkeypatch.setattr(methods, "fill_folder", lambda folder, fill: None)
        made = [bench.data_of(kind, 0).name for kind in methods.MADE]
        return [methods.version_of(methods.options_of(name)) for name in methods.TRAININGS], made

    before, made_before = known()
    monkeypatch.setitem(methods.MADE, "subwords", ("--vocab_size", 700))
    after, made_after = known()
    changed = {name for name, *pair in zip(methods.TRAININGS, before, after, strict=True) if pair[0] != pair[1]}
    assert changed == {"subwords", "subwords, BPE dropout"}
    assert made_before[0] != made_after[0] and made_before[1] == made_after[1]


def result(date: str = "2026-11-01", threads: int = 2, rows: object = None, **about) -> dict:
    """Figures as a file has them."""
    machine = {"date": date, "cores": 2, "threads": threads, "torch": "2.13.0+cpu", "transformers": "5.24.0"}
    return {"machine": machine | about, "rows": {} if rows is None else rows}


def test_a_table_of_several_files_says_the_days_cores_and_versions_of_all():
    from tabulating import measured

    several = [result(), result("2026-11-04", transformers="5.23.0"), result("2026-10-30", threads=1)]
    assert measured(several[0], "streams.py") == (
        "`python benchmarks/streams.py`, 2026-11-01, 2 cores, torch 2.13.0, transformers 5.24.0"
    )
    assert measured(several[0], "streams.py", *several[1:]) == (
        "`python benchmarks/streams.py`, 2026-10-30 to 2026-11-04, 1 or 2 of 2 cores, torch 2.13.0, "
        "transformers 5.23.0 and 5.24.0"
    )


def speeds(date: str, **about) -> dict:
    """Figures of training steps."""
    return result(date, rows=dict.fromkeys(("BART", "hf-xformer", "hf-xformer, packed"), 1.0), **about)


def commands(date: str, **more) -> dict:
    """Figures of both benchmarks of the command line."""
    run = {"seconds": 2.0, "first": 1.0}
    return result(date, rows={"runs": [run, run], "lines": 2, **more})


RATES = {"words_per_second": 9.0, "equal_words": 1, "wrong_words": 33.0, "texts_per_second": 9.0, "megabytes": 1.0}


@pytest.mark.parametrize(
    ("table", "files", "said"),
    [
        (
            "train_steps",
            {
                "train_step_base": speeds("2026-11-01", attn_implementation=None),
                "train_step_base_bf16": speeds("2026-11-02", attn_implementation="sdpa"),
            },
            ["in bfloat16, sdpa attention |", "`--bf16 --attn_implementation sdpa`", "2026-11-01 to 2026-11-02"],
        ),
        (
            "decode_cli",
            {"decode_cli_commits": commands("2026-11-01"), "decode_cli_eole": commands("2026-11-02")},
            ["each with its default batch: 30 sentences and about 100", "2026-11-01 to 2026-11-02"],
        ),
        (
            "decode_cli",
            {"decode_cli_commits": commands("2026-11-01"), "decode_cli_eole": commands("2026-11-02", batch_size=64)},
            ["data/multi30k-en-de`, 64 at a time."],
        ),
        (
            "engines",
            {
                "engines_1": result(rows={"PyTorch": RATES}, checkpoint="g2p-quickstart", samples=2),
                "engines_32": result("2026-11-02", rows={"PyTorch": RATES}, checkpoint="g2p-quickstart", samples=2),
            },
            ["2026-11-01 to 2026-11-02", "also with `--batch_size 32`."],
        ),
        (
            "quantization",
            {"quantization": result(rows={"float32": RATES}, checkpoint="run", samples=2)},
            ["with an earlier checkpoint of the quickstart, in a folder named `run`."],
        ),
    ],
)
def test_a_table_says_what_its_figures_are_of(table, files, said, monkeypatch):
    import speed_tables
    from tabulating import TABLES

    monkeypatch.setattr(speed_tables, "stored", files.__getitem__)
    written = TABLES[table]()
    assert [each for each in said if each not in written] == []


def test_the_command_of_rows_that_do_not_say_what_they_are_of_names_another_folder():
    from score_tables import elsewhere

    assert elsewhere(result()) == " --results build/mine" and elsewhere(result(version="4565fcca")) == ""


def test_methods_say_the_steps_that_they_were_trained_for(monkeypatch):
    import score_tables

    about = {"seed": 0, "wrong_words": 33.0, "per": 8.0, "parameters": 991488}
    rows = [{"method": name, **about, "steps": steps} for name, steps in (("the recipe", 2820), ("R-Drop", 1410))]
    monkeypatch.setattr(score_tables, "stored", lambda name: result(rows=rows))
    lines = score_tables.by_method("methods", "methods.py data/g2p").splitlines()
    columns = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines if line.startswith("|")]
    assert columns[0] == ["validation words", "parameters", "steps"]
    assert [cells[2] for cells in columns[2:]] == ["2,820", "1,410"]


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


def test_options_are_compared_by_value_wherever_the_results_are_named():
    from measuring import RESULTS, TRIED, add_results_option, results_folder

    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--input", type=Path)
    add_results_option(parser)
    lines = ["", "--targets 1 2", "--input a", "--targets 1", f"--results {RESULTS} --targets 2"]
    folders = [results_folder(parser, parser.parse_args(words.split()), "input") for words in lines]
    assert folders == [RESULTS, RESULTS, RESULTS, TRIED, TRIED]


def test_toolkits_in_the_command_are_those_that_have_rows(monkeypatch):
    import score_tables

    def rows(*names):
        about = {"version": "1", "rate": 0.002, "tokens": 1000, "target_tokens_per_second": 9, "updates": 9, "bleu": 9}
        return result(rows=[{"toolkit": name, "minutes": 10, **about} for name in names])

    files = {"toolkits": rows("eole", "hf-xformer", "hf-xformer, Muon"), "toolkits_bf16": rows("eole")}
    monkeypatch.setattr(score_tables, "stored", files.__getitem__)
    command = "--toolkits eole hf-xformer 'hf-xformer, Muon' --eole ../eole-env`"
    assert f"toolkits.py --data Revisit-MMT/data/multi30k-en-de {command}" in score_tables.toolkits()


def test_a_tables_row_is_of_the_newest_version_of_a_toolkit(monkeypatch):
    import score_tables

    about = {"toolkit": "eole", "rate": 0.002, "tokens": 1000, "target_tokens_per_second": 9}
    older, newer = {"version": "0.6", "minutes": 30, "bleu": 20}, {"version": "0.7", "minutes": 10, "bleu": 30}
    rows = [{**about, **each, "updates": 9} for each in (older, newer)]
    files = {"toolkits": result(rows=rows), "toolkits_bf16": result(rows=[])}
    monkeypatch.setattr(score_tables, "stored", files.__getitem__)
    written = score_tables.toolkits()
    assert "eole 0.7, float32" in written and "30.0" in written and "0.6" not in written


def toolkits_in(tmp_path, config: dict) -> Path:
    """A project's folder with another model for toolkits."""
    path = tmp_path / "configs/model/tiny.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
    return tmp_path


def test_rows_of_toolkits_depend_on_the_model_that_a_configuration_names(monkeypatch, tmp_path):
    import toolkits

    tiny = json.loads((ROOT / "configs/model/tiny.json").read_text(encoding="utf-8"))
    known = [toolkits.settings()]
    for config in (tiny, tiny | {"max_position_embeddings": 64}):
        monkeypatch.setattr(toolkits, "ROOT", toolkits_in(tmp_path, config))
        known.append(toolkits.settings())
    assert known[0] == known[1] != known[2]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["hf-xformer", "hf-xformer, Muon"]),
        (["--eole", "env"], ["eole", "hf-xformer", "hf-xformer, Muon"]),
        (["--eole", "env", "--toolkits", "hf-xformer", "eole"], ["eole", "hf-xformer"]),
        (["--eole", "env", "--joey", "env", "--bf16"], ["eole", "hf-xformer", "hf-xformer, Muon"]),
        (["--joey", "env", "--bf16", "--toolkits", "JoeyNMT"], "--toolkits JoeyNMT: it has no bfloat16 on a CPU"),
        (["--toolkits", "JoeyNMT"], "--toolkits JoeyNMT: its environment is not given, by --joey or --eole"),
        (["--tune", "--bf16"], "leave --bf16 out"),
    ],
)
def test_toolkits_that_are_named_are_trained(words, expected, monkeypatch, capsys):
    import toolkits

    monkeypatch.setattr("sys.argv", ["toolkits.py", "--data", "data", *words])
    if isinstance(expected, str):
        with pytest.raises(SystemExit):
            toolkits.arguments()
        assert expected in capsys.readouterr().err
        return
    assert [kind.name for kind in toolkits.arguments()[1]] == expected


@pytest.mark.parametrize("name", ["toolkits", "toolkits_bf16", "toolkits_tuned"])
def test_stored_rows_of_toolkits_are_of_these_settings(name):
    """Where the data are at hand, `Figures` compares them too."""
    from measuring import stored
    from toolkits import settings
    from verbs import version_of

    machine = stored(name)["machine"]
    assert machine["version"] == version_of([settings(), {"threads": machine["threads"]}])
