# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A Space is made and updated on the local Hub, and its files run the page of the model's repository."""

import ast
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from hub_cards import find_errors, read_header
from hub_client import run_with
from hub_server import HubServer
from packaging.requirements import Requirement
from small_models import make_model
from small_runs import ROOT, python, refused
from transformers import AutoTokenizer

from hf_xformer.commands import demo
from hf_xformer.commands import push as push_command


pytestmark = pytest.mark.slow  # every client is a process of its own, which imports the libraries

CARD = "---\nlanguage: en\nlicense: apache-2.0\n---\nSpells backwards.\n"
SPACE = {"app.py", "requirements.txt", "README.md", ".gitattributes"}


@pytest.fixture
def checkpoint(task, tmp_path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    make_model(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    (tmp_path / "run/README.md").write_text(CARD)
    return tmp_path / "run"


def push(hub: HubServer, checkpoint: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """`hf-xformer push` on a machine that has the local Hub for the real one."""
    home = checkpoint.parent / "home"
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **hub.environment(home), **environment}
    return run_with(hub, home, ["-m", "hf_xformer", "push", checkpoint, *words], ROOT, **environment)


def command_of(app: bytes) -> list[str]:
    """The words of the only call in a Space's program."""
    *_, call = ast.parse(app).body
    return ast.literal_eval(call.value.args[0])


def test_a_space_runs_the_page_on_the_models_repository(hub, checkpoint, monkeypatch):
    done = push(hub, checkpoint, "tester/first", "--space", "--branch", "better")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{hub.url}/spaces/tester/first/commit/")
    assert "model.safetensors" in hub.repositories["model", "tester/first"].files("better")
    files = hub.repositories["space", "tester/first"].files()
    assert set(files) == SPACE
    # Its program is the command, as anybody types it.
    started = []
    monkeypatch.setattr(demo, "run", started.append)
    exec(compile(files["app.py"], "app.py", "exec"), {})
    (args,) = started
    assert (args.checkpoint, args.revision, args.host) == ("tester/first", "better", "0.0.0.0")
    assert args.port == 7860 and not args.trust_remote_code


def test_its_header_and_requirements_are_what_the_hub_reads(hub, checkpoint):
    push(hub, checkpoint, "tester/second", "--space")
    files = hub.repositories["space", "tester/second"].files()
    header = read_header(files["README.md"].decode())
    assert not find_errors(files["README.md"].decode(), "space")
    assert (header["sdk"], header["sdk_version"], header["app_file"]) == ("gradio", version("gradio"), "app.py")
    assert header["models"] == ["tester/second"] and header["license"] == "apache-2.0"
    option, *lines = files["requirements.txt"].decode().splitlines()
    assert option.startswith("--extra-index-url https://")
    pinned = {each.name: each.specifier for each in map(Requirement, lines)}
    assert {"hf-xformer", "torch", "transformers", "gradio", "matplotlib"} <= set(pinned)
    # pip takes a wheel of this machine's version, whose build may have a name.
    assert all(specifier.contains(version(name)) for name, specifier in pinned.items())


def test_a_second_push_updates_it_and_files_of_others_are_in_its_way(hub, checkpoint):
    push(hub, checkpoint, "tester/third", "--space")
    space = hub.repositories["space", "tester/third"]
    commits = len(space.history())
    assert push(hub, checkpoint, "tester/third", "--space").returncode == 0 and len(space.history()) == commits
    # Pushed by this command, it may be changed by it, as where another Gradio is installed.
    readme = checkpoint / "README.md"
    readme.write_text(CARD.replace("apache-2.0", "mit"))
    assert push(hub, checkpoint, "tester/third", "--space").returncode == 0
    assert read_header(space.files()["README.md"].decode())["license"] == "mit"
    # From another folder it is another's.
    other = checkpoint.with_name("other")
    shutil.copytree(checkpoint, other, ignore=shutil.ignore_patterns(".published.json"))
    (other / "README.md").write_text(CARD.replace("Spells", "Writes"))
    hub.repositories.pop(("model", "tester/third"))
    header = space.files()["README.md"]
    done = push(hub, other, "tester/third", "--space")
    assert done.returncode == 2 and "spaces/tester/third: " in done.stderr and "--overwrite" in done.stderr
    assert space.files()["README.md"] == header
    assert push(hub, other, "tester/third", "--space", "--overwrite").returncode == 0


def test_a_private_model_needs_a_token_in_its_space(hub, checkpoint):
    done = push(hub, checkpoint, "tester/hidden", "--space", "--private")
    assert hub.repositories["space", "tester/hidden"].private
    assert done.stdout.splitlines()[-1].endswith("needs a token that reads it, as its secret HF_TOKEN")


def test_a_dry_run_lists_the_files_and_sends_none(hub, checkpoint):
    done = push(hub, checkpoint, "tester/dry", "--space", "--dry_run")
    assert done.returncode == 0, done.stderr
    model, _, space = done.stdout.partition("spaces/tester/dry:")
    assert "model.safetensors" in model and "model.safetensors" not in space
    assert all(name in space for name in ("app.py", "requirements.txt", "README.md")) and "nothing was sent" in space
    assert not {name for _, name in hub.repositories if name == "tester/dry"}


def test_offline_nobody_looks_for_the_hub(hub, checkpoint, capsys):
    asked = len(hub.requests)
    # The library reads this when it is imported: a process that has not imported it.
    environment = {**hub.environment(checkpoint.parent / "home"), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = python("-m", "hf_xformer", "push", checkpoint, "tester/off", "--space", "--dry_run", **environment)
    assert done.returncode == 0 and "app.py" in done.stdout, done.stderr
    assert "spaces/tester/off: nobody has looked at what is there: HF_HUB_OFFLINE is set" in done.stdout
    assert len(hub.requests) == asked
    line = refused(push_command, [checkpoint, "tester/off", "--space"], capsys)
    assert "HF_HUB_OFFLINE is set: nothing can be sent" in line
