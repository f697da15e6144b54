# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`hf-xformer` finds its verbs, and starts as many processes as a launch configuration says."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from small_runs import ROOT, Task, nightly, python

from hf_xformer import __version__, cli
from hf_xformer.cli import VERBS


def hf_xformer(*words: str | Path, folder: Path = ROOT, **options) -> subprocess.CompletedProcess:
    return python("-m", "hf_xformer", *words, cwd=folder, PYTHONPATH=str(Path(cli.__file__).parent.parent), **options)


def test_every_verb_is_a_command_and_every_command_is_a_verb():
    for verb in VERBS:
        assert callable(import_module(f"hf_xformer.commands.{verb}").main)
    commands = {path.stem for path in (Path(cli.__file__).parent / "commands").glob("*.py")}
    assert commands - {"__init__", "options", "training_record"} == set(VERBS)


def test_help_lists_the_verbs_with_what_they_do(capsys):
    cli.main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said and summary in said for name, summary in VERBS.items())


@pytest.mark.parametrize("name", VERBS)
def test_a_verbs_help_speaks_of_itself_and_never_of_scripts(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    said = capsys.readouterr().out
    assert stop.value.code in (0, None)
    assert said.startswith(f"usage: hf-xformer {name} ") and re.search(rf"\n +hf-xformer {name} ", said)
    assert "scripts/" not in said and ".py " not in said


def test_the_version_is_the_packages(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out == f"hf-xformer {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["genrate", "runs/x"], "no verb 'genrate'; did you mean generate? (hf-xformer --help lists them)"),
        (["zzz"], "no verb 'zzz' (hf-xformer --help lists them)"),
        (["--verison"], "no option '--verison'; did you mean --version? (hf-xformer --help lists them)"),
    ],
)
def test_a_verb_that_there_is_not_gets_the_nearest_one(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2 and capsys.readouterr().err == f"error: {said}\n"


@pytest.mark.slow
def test_the_command_and_the_module_are_the_same():
    module = hf_xformer("info", "--help")
    assert module.returncode == 0 and module.stdout.startswith("usage: hf-xformer info ")
    refused = hf_xformer("info", "/none")
    assert refused.returncode == 2 and refused.stderr == "error: /none: there is no such file or folder\n"


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error():
    code = "from hf_xformer import cli; import sys; sys.stdout.write('x' * 2**20); cli.main(['--help'])"
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parent.parent)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert b"error" not in process.stderr.read().lower()


def test_a_launch_configuration_that_there_is_not_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--config_file", "configs/accelerate/nine.yaml", "recipe.yaml"])
    assert stop.value.code == 2 and "configs/accelerate/nine.yaml: there is no such file" in capsys.readouterr().err


def test_a_command_whose_packages_are_not_installed_names_their_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # which makes its import fail as it does where it is not
    for module in ("data.reading", "commands.evaluate"):
        monkeypatch.delitem(sys.modules, f"hf_xformer.{module}", raising=False)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", "runs/x"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: hf-xformer evaluate needs datasets: pip install 'hf-xformer[train]'\n"


@pytest.mark.nightly
def test_one_command_after_the_other_makes_a_model_that_spells(task: Task, tmp_path):
    """As a user types them, in a folder of their own that has no configs/."""
    words = ["train", "--config_file", "configs/accelerate/cpu.yaml", *task.options(tmp_path / "run")]
    words[words.index("--config_name") + 1] = "configs/model/tiny.json"
    trained = hf_xformer(*words, folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    decoded = hf_xformer("generate", "run", folder=tmp_path, input="A B C\nH\n")
    assert decoded.returncode == 0 and len(decoded.stdout.splitlines()) == 2
    assert hf_xformer("info", "run", folder=tmp_path).returncode == 0


@pytest.mark.distributed
@pytest.mark.parametrize("config", ["cpu-2proc", *nightly("zero2")])
def test_a_launch_configuration_starts_its_processes_and_finds_its_engine(config, task: Task, tmp_path):
    launch = ["--config_file", f"configs/accelerate/{config}.yaml", "--num_processes", "2", "--main_process_port", "0"]
    trained = hf_xformer("train", *launch, *task.options(tmp_path / "run"), folder=tmp_path)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "16 pairs per step (2 processes, no accumulation)" in trained.stdout
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["batch"].startswith("16 pairs per step")
