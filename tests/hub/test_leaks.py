# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A run with secrets, folders of this machine, links and pickles in it is published without any of them."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hub_client import run_with
from hub_server import TOKEN, HubServer
from safetensors.torch import save
from small_records import FACTS, make_record
from small_runs import ROOT, refused
from transformers import Seq2SeqTrainingArguments

from hf_xformer.commands import push
from hf_xformer.hub.card import CardFacts
from hf_xformer.hub.contents import hidden_code
from hf_xformer.hub.privacy import cleaned, hide_secrets, place_in, public_path, secret_in, without_secrets
from hf_xformer.hub.publication import gather
from hf_xformer.hub.record import RECORDED, recorded
from hf_xformer.hub.repository import check_pushing
from hf_xformer.training.fingerprint import NEUTRAL
from hf_xformer.training.schema import options


# Tokens and keys that nobody has, put together here so that no scanner takes this file for a leak.
HUB, GITHUB = "hf_" + "aB3" * 11, "ghp_" + "eF5" * 12
WEB = f"eyJ{'a' * 17}.eyJ{'b' * 12}.{'c-_' * 4}"
PASSWORD = "swordfish-of-the-tests"
USER, HOST = "alice-of-the-tests", "host-of-the-tests"


def in_a_process(hub: HubServer, home: Path, cwd: Path, *words, **more) -> subprocess.CompletedProcess:
    """`hf-xformer ...` in a folder of somebody's home, whose environment has secrets and names."""
    environment = {**hub.environment(home / ".cache"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"HOME": str(home), "USER": USER, "HOSTNAME": HOST, "WANDB_API_KEY": "0123456789abcdef" * 2, **more}
    return run_with(hub, home / ".cache", ["-m", "hf_xformer", *words], cwd, **environment)


def received(hub: HubServer) -> dict[str, bytes]:
    """All that the Hub has got: every file of every commit, what was stored beside them, names and messages."""
    found = {}
    for (kind, name), repository in hub.repositories.items():
        found |= {f"{name}: stored {oid}": content for oid, content in repository.objects.items()}
        for commit in repository.commits.values():
            found[f"{kind} {name} {commit.id}"] = f"{commit.title} {commit.description} {[*commit.files]}".encode()
            found |= {f"{name} {commit.id}: {path}": file.content for path, file in commit.files.items()}
    return found | {"requests": repr(hub.requests).encode()}


@pytest.fixture(scope="module")
def published(task, tmp_path_factory) -> tuple[HubServer, Path, Path]:
    """A run made in awkward ways, in somebody's home, pushed while it trained and again afterwards."""
    home = tmp_path_factory.mktemp("home") / USER
    work, data = home / "secret project", home / "private-data"
    work.mkdir(parents=True)
    shutil.copytree(task.folder, data)
    (home / "facts.yaml").write_text(yaml.safe_dump(FACTS))
    recipe = {
        "config_name": str(ROOT / "configs/model/tiny.json"),
        "config_overrides": {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24},
        "tokenizer_name": str(data / "tokenizer"),
        "validation_file": [str(data / "validation.jsonl")],
        "hub_token": TOKEN,
        "run_name": f"{USER} {GITHUB}",
        **{"max_source_length": 12, "max_target_length": 12, "max_steps": 4, "save_steps": 2, "logging_steps": 2},
        **{"use_cpu": True, "report_to": "none", "disable_tqdm": True, "push_to_hub": True},
        **{"hub_strategy": "every_save", "hub_always_push": True},
    }
    (work / "my recipe.yaml").write_text(yaml.safe_dump(recipe))
    options = [f"--train-file={data / 'train.jsonl'}", "--hub-token", TOKEN, f"--run-name={HUB}"]
    options += ["--config-overrides", "d_model=16,decoder_ffn_dim=24", "--card-facts", "../facts.yaml", "--seed=7"]
    options += ["--output-dir", "run", "--hub-model-id", "tester/awkward", "--project", PASSWORD]
    with HubServer() as hub:
        done = in_a_process(hub, home, work, "train", work / "my recipe.yaml", *options)
        assert done.returncode == 0 and "WARNING: not pushed" not in done.stdout, done.stdout + done.stderr
        test = ["--test_file", data / "validation.jsonl", "--metrics", "per", "--output_file", "run/test_results.json"]
        done = in_a_process(hub, home, work, "evaluate", work / "run", *test)
        assert done.returncode == 0, done.stderr
        # What is written into a run's folder by others, and by earlier versions.
        run = work / "run"
        added = {
            "config.json": {"_name_or_path": str(data)},
            "tokenizer_config.json": {"name_or_path": str(data / "t"), "vocab_file": str(data / "v.txt")},
            "run.json": {
                "options": f"--hub-token {HUB} --train_file={data}/a.jsonl",
                "card_name": str(run),
                "trained_on": f"https://{USER}:{PASSWORD}@example.org/a.jsonl",
            },
        }
        for name, more in added.items():
            (run / name).write_text(json.dumps(json.loads((run / name).read_text()) | more))
        (run / "notes.txt").write_text(HUB)
        (run / "passwd").symlink_to("/etc/passwd")
        (run / "above").symlink_to(work)
        (run / "cache.json").write_bytes(pickle.dumps(HUB))
        done = in_a_process(hub, home, work, "card", run)
        assert done.returncode == 0, done.stderr
        done = in_a_process(hub, home, work, "push", run, "tester/awkward")
        assert done.returncode == 0, done.stderr
        yield hub, home, run
        assert not hub.unknown


@pytest.mark.slow
def test_the_hub_receives_no_secret_and_no_path_of_this_machine(published):
    hub, home, run = published
    planted = (HUB, GITHUB, TOKEN, PASSWORD, USER, HOST, "0123456789abcdef", str(home), "private-data")
    planted += ("secret project", str(Path.home()) + "/", "/tmp/", "/etc/passwd", "root:x:", os.getcwd())
    everything = received(hub)
    assert len(everything) > 60
    for where, content in everything.items():
        for each in planted:
            # The name of the user is theirs, and the server knows their token.
            assert each.encode() not in content, f"{each} in {where}"


@pytest.mark.slow
def test_what_is_published_is_the_run_all_the_same(published):
    hub, home, run = published
    files = hub.repositories["model", "tester/awkward"].files()
    record = json.loads(files["run.json"])
    assert record["recipe"] == "my recipe.yaml" and record["evaluated_on"] == "validation.jsonl"
    assert {"notes.txt", "passwd", "cache.json", "above"}.isdisjoint(files) and "model.safetensors" in files
    assert json.loads(files["config.json"])["d_model"] == 16
    # Here nothing has changed.
    assert HUB in (run / "run.json").read_text() and str(home) in (run / "config.json").read_text()


@pytest.mark.slow
def test_the_record_here_has_what_was_given_and_the_names_of_the_rest(published, tmp_path):
    hub, home, run = published
    commits = [each for each in hub.repositories["model", "tester/awkward"].history() if "run.json" in each.files]
    record = json.loads(commits[-1].files["run.json"].content)
    assert record["options"] == "--train_file train.jsonl --config_overrides d_model=16,decoder_ffn_dim=24 --seed 7"
    assert record["options_left_out"] == ["card_facts", "hub_model_id", "hub_token", "output_dir",
                                          "project", "run_name"]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ["--hub_token", HUB], ["--hub-token", HUB], [f"--hub-token={HUB}"], [f"--hub_token={HUB}"], ["--hub_tok", HUB],
        ["--run-name", "x"], ["--train_file", HUB], [f"--config_overrides=a={HUB}"], ["--metrics", "per", GITHUB],
        ["--dataset_name", f"https://a:{PASSWORD}@b.c/d"], ["--source_column", f"password={PASSWORD}"],
        ["--trackio-space-id", "x"], ["--logging-dir", "x"], ["--Hub_Token", HUB], ["--no-use-cpu-of-mine"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_option_that_is_nobodys_business_is_not_recorded_however_it_is_spelt(words):
    said = recorded(["--seed", "7", *words, "--learning-rate=1e-3", "--no_use_cpu"])
    assert said["options"] == "--seed 7 --learning_rate 1e-3 --no_use_cpu" and len(said["options_left_out"]) == 1
    assert HUB not in str(said) and PASSWORD not in str(said)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--hub_token", "x"], ["--hub_token", "[removed]"]), (["--hub-token=x"], ["--hub-token=[removed]"]),
        (["--Hub_Token", "x", "--seed", "7"], ["--Hub_Token", "[removed]", "--seed", "7"]),
        (["--run_name", f"of {GITHUB}"], ["--run_name", "of [removed]"]),
        (["--my-api-key", "x"], ["--my-api-key", "[removed]"]),
        (["--config_overrides", "api_key=x"], ["--config_overrides", "[removed]"]),
        ([f"--dataset_name=https://a:{PASSWORD}@b.c/d"], ["--dataset_name=[removed]b.c/d"]),
        *((words, words) for words in (["r.yaml", "--max_tokens", "9"],
                                          ["--tokenizer_name", "/t"], ["--max-tokens=9"])),
    ],
    ids=str,
)  # fmt: skip
def test_a_command_line_is_stripped_of_secrets_and_of_nothing_else(words, left):
    hide_secrets(words)
    assert words == left


@pytest.mark.slow
def test_no_secret_of_the_command_line_is_left_in_sys_argv_for_trackers(tmp_path):
    code = (
        "import sys\nfrom hf_xformer import cli\nfrom hf_xformer.commands import train\n"
        "def prepare(*args):\n    print(sys.argv, sys.orig_argv, args[2].hub_token)\n    raise SystemExit(0)\n"
        "train.prepare = prepare\ncli.main()\n"
    )
    words = ["train", "--output_dir", "run", "--hub_token", "hf_X", "--report_to", "none", "--run-name", GITHUB]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code, *words, "--use_cpu"], capture_output=True, text=True,
                         env=environment, cwd=tmp_path, check=True)  # fmt: skip
    *_, said = [line for line in ran.stdout.splitlines() if line.startswith("[")]
    lists, _, token = said.rpartition(" ")
    assert token == "hf_X" and "hf_X" not in lists and GITHUB not in lists
    assert lists.count("'--hub_token', '[removed]', '--report_to', 'none', '--run-name', '[removed]'") == 2


def test_every_option_that_is_recorded_is_one():
    assert set(options()) >= RECORDED >= set(options()) - NEUTRAL  # all that decides the weights
    assert {"early_stopping_patience", "early_stopping_threshold", "change_recipe", "eval_max_tokens"} <= RECORDED
    assert not RECORDED & {"hub_token", "output_dir", "run_name", "hub_model_id"}


def test_paths_are_shown_relative_to_the_working_folder_or_by_their_last_part(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path))
    for path, there in {
        "data/a.jsonl": "data/a.jsonl",
        str(tmp_path / "work/data/a.jsonl"): "data/a.jsonl",
        str(tmp_path / "other/a.jsonl"): "a.jsonl",
        "../other/a.jsonl": "a.jsonl",
        "data/../../other/a.jsonl": "a.jsonl",
        "~/other/a.jsonl": "a.jsonl",
        "file:///srv/a.jsonl": "a.jsonl",
        "C:\\Users\\alice\\a.jsonl": "a.jsonl",
        "user/name": "user/name",
    }.items():
        assert public_path(path) == there
    monkeypatch.chdir("/")
    assert public_path(tmp_path / "work") == public_path(str(tmp_path / "work").lstrip("/")) == "work"


def test_texts_are_cleaned_of_paths_and_secrets_and_of_nothing_else(tmp_path):
    kept = ["https://example.org/home/x", "1/2 and/or a", "5.24.0", "</s>", "km / h", "user/name", "2 cores of A/B"]
    assert cleaned({"a": kept}) == {"a": kept}
    text = f"--a=/srv/x/y.json b=/srv/lang=de/z, '{tmp_path}/q' ftp://u:p@h/x file:///srv/w {HUB}"
    assert cleaned(text) == "--a=y.json b=z, 'q' [removed]h/x w [removed]"
    assert cleaned("/" + "a b" * 2000) == "a b" + "a b" * 1999  # no name of a file is so long
    assert place_in(f"see ({tmp_path}/x)") and place_in("file:///home/bob/x") and place_in("C:\\Users\\bob\\x")
    assert place_in("https://example.org/home/bob") is None and place_in("a/tmp/b") is None


@pytest.mark.parametrize(
    "text",
    [
        *(HUB, GITHUB, f"sk-{'aB3' * 9}", f"AKIA{'A1' * 8}", f"xoxb-{'1' * 12}", f"postgres://u:{PASSWORD}@h/d"),
        *("-----BEGIN " + "OPENSSH PRIVATE KEY-----", f"eyJ{'a' * 12}.eyJ{'b' * 12}.{'c' * 12}", f"glpat-{'a1' * 10}"),
        *(f"hf_oauth_{WEB}", f"hf_jwt_{WEB}", f"hf_oauth_{'aB3' * 9}", f"api_org_{'aB' * 17}", f"gsk_{'aB3' * 16}"),
        *(f"pypi-AgE{'aB3' * 20}", f"npm_{'aB3' * 12}", f"dckr_pat_{'aB3' * 9}", f"nvapi-{'aB3' * 20}"),
    ],
)
def test_what_looks_like_a_secret_is_one(text):
    assert secret_in(f'{{"a": "{text}"}}') is not None


@pytest.mark.parametrize(
    "text", ["import hf_xformer", "hf_hub_download", "hf_oauth_expiration_in_minutes", "0" * 40, "https://x.org/a@b"]
)
def test_what_does_not_is_none(text):
    assert secret_in(text) is None


class Planted:
    """An object whose pickle runs a command."""

    def __reduce__(self):
        return os.system, ("true",)


def tar_of(content: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("pickle")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def written(write, *values, **options) -> bytes:
    file = io.BytesIO()
    write(*values, file, **options) if write is not np.save and write is not np.savez else write(file, *values)
    return file.getvalue()


PICKLES = {f"pickle of protocol {number}": pickle.dumps(Planted(), number) for number in range(6)} | {
    "torch": written(torch.save, {"a": torch.ones(2)}),
    "torch before 1.6": written(torch.save, {"a": torch.ones(2)}, _use_new_zipfile_serialization=False),
    # As joblib writes them.
    **{f"compressed by {each.__name__}": each.compress(pickle.dumps(Planted())) for each in (zlib, gzip, bz2, lzma)},
    "npy of objects": written(np.save, np.array([Planted()], dtype=object)),
    "npz of objects": written(np.savez, np.array([Planted()], dtype=object)),
    "tar": tar_of(pickle.dumps(Planted())),
}
NAMES = ("model.safetensors", "config.json", "vocab.txt", "LICENSE", "tokenizer.model", "curves.png", "run.json",
         "target_tokenizer/tokenizer.json", "helper_xformer.py", "model-00001-of-00002.safetensors")  # fmt: skip


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_is_refused_under_every_name_that_is_published(kind, tmp_path):
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PICKLES[kind])
        with pytest.raises(ValueError, match=re.escape(f"{path}: ") + ".*(pickle|archive|compressed|array)"):
            gather(tmp_path)
        path.unlink()
    (tmp_path / "notes.md").write_bytes(PICKLES[kind])
    assert "pickle" in gather(tmp_path).left_out["notes.md"]


@pytest.mark.parametrize("text", ["1. Definitions", "a. word", "Q. Why?", "N.B. this", "0.", "b.\n"])
def test_a_text_that_reads_as_instructions_of_a_pickle_and_calls_nothing_is_published(text, tmp_path):
    for name in ("LICENSE", "vocab.txt"):
        (tmp_path / name).write_text(text)
    assert set(gather(tmp_path).files) == {"LICENSE", "vocab.txt"}


def test_json_that_readers_stumble_over_is_refused_and_half_a_character_is_published_as_it_is(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"facts": {}, "a": "\\ud83d", "train_file": "/home/ada/rows.jsonl"}')
    published = json.loads(gather(tmp_path).files["run.json"])
    assert published == {"facts": {}, "a": "\ud83d", "train_file": "rows.jsonl"}
    path.write_bytes(b"\xef\xbb\xbf{}")
    with pytest.raises(ValueError, match="run.json: not what its name says"):
        gather(tmp_path)


def test_a_variable_of_the_environment_is_a_secret_by_its_whole_name(monkeypatch):
    monkeypatch.setenv("TOKENIZER_NAME", "facebook/bart-base")
    monkeypatch.setenv("github_token", "0123456789ab-0123")
    assert without_secrets("facebook/bart-base by 0123456789ab-0123") == "facebook/bart-base by [removed]"


@pytest.mark.parametrize("low", [*(0x80 + 256 * version for version in range(1, 7)), 0x178, 0x9C78, 0xDA78, 0x2E88])
def test_weights_are_published_whatever_bytes_the_length_of_their_header_is(low, tmp_path):
    """That length comes first in their file, and is as a rule some dozens of thousands."""
    length, tensors = 2**16 + low, {"a": torch.ones(2)}
    shortest = int.from_bytes(save(tensors, {"format": "pt", "padding": ""})[:8], "little")
    content = save(tensors, {"format": "pt", "padding": "x" * (length - shortest)})
    assert int.from_bytes(content[:8], "little") == length
    (tmp_path / "model.safetensors").write_bytes(content)
    assert "model.safetensors" in gather(tmp_path).files
    (tmp_path / "model.safetensors").write_bytes(content + b"more")
    with pytest.raises(ValueError, match="model.safetensors: "):
        gather(tmp_path)


def test_files_that_are_what_they_say_are_no_pickles():
    for path in (*ROOT.glob("*"), *(ROOT / "model_cards").rglob("*"), *(ROOT / "hf_xformer").rglob("*.py")):
        assert not path.is_file() or hidden_code(path) is None, path


@pytest.mark.parametrize("name", ["config.json", "README.md", "LICENSE", "target_tokenizer", "model.safetensors"])
@pytest.mark.parametrize("target", ["/etc/passwd", "..", "{other}", "/proc/self/environ", "nothing", "../there.json"])
def test_a_link_out_of_the_folder_is_refused_by_name(name, target, tmp_path, capsys):
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    (tmp_path / "there.json").write_text("{}")
    (run / name).symlink_to(target.format(other=other))
    if name == "README.md" or (target, name) == ("nothing", "target_tokenizer"):
        assert name not in gather(run).files
    elif target == "nothing":
        with pytest.raises(FileNotFoundError):
            gather(run)
    else:
        with pytest.raises(ValueError, match=re.escape(f"{run / name}: a link out of the folder")):
            gather(run)
    assert refused(push, [run, "tester/x"], capsys)


def test_a_link_within_the_folder_is_a_file(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/1").write_text('{"a": 1}')
    (tmp_path / "generation_config.json").symlink_to("blobs/1")
    assert gather(tmp_path).files["generation_config.json"] == b'{"a": 1}'


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ValueError, match="no regular file"):
        gather(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", json.dumps({"a": {"b": ["/srv/data/x"]}}), "`a.b.0` holds a path of a machine, /srv/data/x"),
        ("adapter_config.json", json.dumps({"base_model_name_or_path": "/srv/m/x"}), "`base_model_name_or_path`"),
        ("tokenizer_config.json", json.dumps({"extra": HUB}), "what looks like a token of the Hub"),
        ("LICENSE", f"see {Path.home()}/x", "holds a path of this machine"),
        ("mine_xformer.py", f"token = '{HUB}'", "what looks like a token of the Hub"),
        ("chat_template.jinja", "https://a:b@c.d/e", "what looks like a password in an address"),
        ("generation_config.json", "not JSON", "not what its name says"),
        ("curves.png", "<svg/>", "not what its name says"),
    ],
)
def test_what_cannot_be_taken_out_is_refused_with_file_and_field(name, content, said, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / name}: ")) as error:
        gather(tmp_path)
    assert said in str(error.value)


def test_facts_that_look_like_paths_are_published_as_they_were_written(tmp_path):
    record = make_record(facts={**FACTS, "summary": "Writes cat as /kæt/.", "example": "/kæt/"}, recipe="/srv/a.yaml")
    (tmp_path / "run.json").write_text(json.dumps(record))
    published = json.loads(gather(tmp_path).files["run.json"])
    assert published["facts"] == record["facts"] and published["recipe"] == "a.yaml"
    (tmp_path / "run.json").write_text(json.dumps({**record, "facts": {**FACTS, "limits": f"see {Path.home()}/x"}}))
    with pytest.raises(ValueError, match="holds a path of this machine"):
        gather(tmp_path)


@pytest.mark.parametrize("text", [f"ask {HUB}", f"from {Path.home()}/words"])
def test_facts_that_cannot_be_published_are_refused_before_training(text):
    facts = CardFacts(**FACTS | {"limits": text})
    with pytest.raises(ValueError, match="--push_to_hub publishes a model card: limits in --card_facts holds"):
        check_pushing(Seq2SeqTrainingArguments("x", push_to_hub=True, use_cpu=True), facts, None)
