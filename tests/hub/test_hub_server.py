# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The local Hub against the libraries that it is for, each in a process of its own, and against wrong requests."""

import base64
import hashlib
import json
import shutil
import subprocess
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from hub_client import run_client
from hub_repository import File, hash_folders
from hub_server import TOKEN, HubServer


pytestmark = pytest.mark.slow  # every client is a process of its own, which imports the libraries


@pytest.fixture(scope="module")
def server():
    with HubServer() as hub:
        yield hub


@pytest.fixture
def hub(server):
    """The server of the module, of which no test may ask what it does not serve."""
    yield server
    unknown = server.unknown.copy()
    server.unknown.clear()
    assert not unknown


def ask(url: str, method: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """Status and body of a request that no library would send."""
    request = Request(url, body, {name.replace("_", "-"): value for name, value in headers.items()}, method=method)
    try:
        with build_opener(ProxyHandler({})).open(request) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


def send_commit(hub: HubServer, name: str, *operations: tuple[str, dict], **header: str) -> tuple[int, bytes]:
    lines = [("header", {"summary": "by hand", **header}), *operations]
    body = "\n".join(json.dumps({"key": key, "value": value}) for key, value in lines).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content_Type": "application/x-ndjson"}
    return ask(f"{hub.url}/api/models/{name}/commit/main", "POST", body, **headers)


def request_upload(hub: HubServer, name: str, content: bytes, transfers=("basic",)) -> tuple[int, dict]:
    objects = [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}]
    body = json.dumps({"operation": "upload", "transfers": transfers, "objects": objects}).encode()
    url = f"{hub.url}/{name}.git/info/lfs/objects/batch"
    status, answer = ask(url, "POST", body, Authorization=f"Bearer {TOKEN}")
    return status, json.loads(answer)


@pytest.fixture
def name(hub, tmp_path) -> str:
    """A repository of this test alone, made as a client makes it."""
    name = hashlib.sha1(str(tmp_path).encode()).hexdigest()[:8]
    body = json.dumps({"name": name}).encode()
    assert ask(f"{hub.url}/api/repos/create", "POST", body, Authorization=f"Bearer {TOKEN}")[0] == 200
    return f"tester/{name}"


def test_a_second_push_of_a_folder_names_only_the_file_that_changed(hub, name, tmp_path):
    folder = tmp_path / "run"
    (folder / "more").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
    (folder / "image").write_bytes(b"\0binary by its content")
    (folder / "more/notes.txt").write_text("first")
    (folder / "empty.bin").touch()
    push = f"answer['commit'] = api.upload_folder(folder_path='run', repo_id='{name}').oid"
    start = len(hub.uploads), len(hub.stored)
    first = run_client(hub, tmp_path, push)
    (folder / "more/notes.txt").write_text("second")
    second = run_client(hub, tmp_path, push)
    third = run_client(hub, tmp_path, push)
    uploads = hub.uploads[start[0] :]
    assert [each.commit for each in uploads] == [first["commit"], second["commit"]] and third == second
    assert uploads[0].lfs == {"model.safetensors", "image"}
    assert uploads[0].regular == {"more/notes.txt", "empty.bin"}
    assert uploads[1].paths == {"more/notes.txt"} and not uploads[1].deleted
    assert len(hub.stored) == start[1] + 2
    repository = hub.repositories["model", name]
    assert repository.files()["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert [repository.files(each.commit)["more/notes.txt"] for each in uploads] == [b"first", b"second"]


def test_a_snapshot_is_what_was_pushed_under_branch_tag_and_hash(hub, name, tmp_path):
    answer = run_client(
        hub,
        tmp_path,
        f"""
        def push(text, **options):
            options |= {{"path_in_repo": "a/x.bin", "repo_id": "{name}"}}
            return api.upload_file(path_or_fileobj=text.encode(), **options).oid

        old = push("old")
        api.create_tag("{name}", tag="v1")
        api.create_branch("{name}", branch="try/it", revision=old)
        push("tried", revision="try/it")
        push("new")
        for revision in ("main", "v1", "try/it", old):
            answer[revision if revision != old else "hash"] = contents(snapshot_download("{name}", revision=revision))
        refs = api.list_repo_refs("{name}")
        answer["refs"] = [each.name for each in refs.branches + refs.tags]
        api.delete_branch("{name}", branch="try/it")
        answer["after"] = [each.name for each in api.list_repo_refs("{name}").branches]
        answer["titles"] = [each.title for each in api.list_repo_commits("{name}")]
        """,
    )
    texts = {key: answer[key]["a/x.bin"] for key in ("main", "v1", "try/it", "hash")}
    assert texts == {"main": "new", "v1": "old", "try/it": "tried", "hash": "old"}
    assert set(answer["main"]) == {".gitattributes", "a/x.bin"}
    assert answer["refs"] == ["main", "try/it", "v1"] and answer["after"] == ["main"]
    assert answer["titles"] == hub.repositories["model", name].messages() and len(answer["titles"]) == 3


def test_listings_name_files_folders_sizes_hashes_and_last_commits(hub, name, tmp_path):
    answer = run_client(
        hub,
        tmp_path,
        f"""
        card = "---\\nlicense: mit\\ntags: [small]\\n---\\nText"
        files = {{"README.md": card, "config.json": '{{"model_type": "x"}}', "a/b/m.safetensors": "12345"}}
        for path, text in files.items():
            api.upload_file(path_or_fileobj=text.encode(), path_in_repo=path, repo_id="{name}", commit_message=path)
        answer["files"] = api.list_repo_files("{name}")
        answer["top"] = [each.path for each in api.list_repo_tree("{name}")]
        answer["inside"] = [each.path for each in api.list_repo_tree("{name}", "a", recursive=True)]
        infos = api.get_paths_info("{name}", ["a", "config.json", "none"], expand=True)
        answer["last"] = {{each.path: each.last_commit.title for each in infos}}
        info = api.model_info("{name}", files_metadata=True)
        answer["stored"] = {{each.rfilename: each.lfs.sha256 for each in info.siblings if each.lfs}}
        answer["sizes"] = {{each.rfilename: each.size for each in info.siblings}}
        answer["tags"], answer["license"], answer["sha"] = info.tags, info.card_data.license, info.sha
        old = api.list_repo_commits("{name}")[-1].commit_id
        answer["old"] = [each.rfilename for each in api.model_info("{name}", revision=old).siblings]
        """,
    )
    assert answer["files"] == [".gitattributes", "README.md", "a/b/m.safetensors", "config.json"]
    assert answer["top"] == [".gitattributes", "README.md", "a", "config.json"]
    assert answer["inside"] == ["a/b", "a/b/m.safetensors"]
    assert answer["last"] == {"a": "a/b/m.safetensors", "config.json": "config.json"}
    assert answer["stored"] == {"a/b/m.safetensors": hashlib.sha256(b"12345").hexdigest()}
    assert answer["sizes"]["a/b/m.safetensors"] == 5
    assert answer["tags"] == ["safetensors", "x", "small", "license:mit"] and answer["license"] == "mit"
    assert answer["sha"] == hub.repositories["model", name].branches["main"]
    assert answer["old"] == [".gitattributes"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_hashes_are_git_s_own(tmp_path):
    texts = {"a.txt": b"one", "a/b.txt": b"two", "a-b": b"three", "deep/er/c": b"four"}
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(text)
    for command in (("init", "-q"), ("add", "-A")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    tree = subprocess.run(["git", "write-tree"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert hash_folders({path: File(text) for path, text in texts.items()})[""] == tree.stdout.strip()


def test_deleted_files_and_folders_are_gone_and_a_missing_one_is_an_error(hub, name, tmp_path):
    answer = run_client(
        hub,
        tmp_path,
        f"""
        for path in ("x", "a/y", "a/b/z", "keep"):
            api.upload_file(path_or_fileobj=b"text", path_in_repo=path, repo_id="{name}")
        api.delete_file("x", "{name}")
        api.delete_folder("a", "{name}")
        answer["missing"] = refusal(api.delete_file, "x", "{name}")
        """,
    )
    assert set(hub.repositories["model", name].files()) == {".gitattributes", "keep"}
    assert [each.deleted for each in hub.uploads[-2:]] == [{"x"}, {"a/y", "a/b/z"}]
    assert answer["missing"][0] == "RemoteEntryNotFoundError"


def test_what_is_missing_has_an_error_of_its_own(hub, name, tmp_path):
    answer = run_client(
        hub,
        tmp_path,
        f"""
        answer["repository"] = refusal(hf_hub_download, "tester/none", "config.json")
        answer["revision"] = refusal(hf_hub_download, "{name}", "config.json", revision="none")
        answer["file"] = refusal(hf_hub_download, "{name}", "config.json")
        answer["push"] = refusal(api.upload_file, path_or_fileobj=b"x", path_in_repo="x", repo_id="tester/none")
        answer["branch"] = refusal(
            api.upload_file, path_or_fileobj=b"x", path_in_repo="x", repo_id="{name}", revision="none"
        )
        answer["twice"] = refusal(api.create_repo, "{name}")
        answer["again"] = api.create_repo("{name}", exist_ok=True).repo_id
        answer["others"] = refusal(api.create_repo, "somebody/model")
        """,
    )
    kinds = {key: value[0] for key, value in answer.items() if key not in ("again", "twice", "others")}
    assert kinds == {
        "repository": "RepositoryNotFoundError",
        "revision": "RevisionNotFoundError",
        "file": "RemoteEntryNotFoundError",
        "push": "RepositoryNotFoundError",
        "branch": "RevisionNotFoundError",
    }
    assert "409" in answer["twice"][1] and answer["again"] == name and "403" in answer["others"][1]


def test_a_private_repository_is_not_there_without_the_token(hub, tmp_path):
    create = "api.create_repo('secret', private=True), api.create_repo('public')"
    code = """
    answer["me"] = refusal(api.whoami) or api.whoami()["name"]
    answer["info"] = refusal(api.model_info, "tester/secret") or api.model_info("tester/secret").private
    answer["file"] = refusal(hf_hub_download, "tester/secret", ".gitattributes")
    answer["public"] = refusal(hf_hub_download, "tester/public", ".gitattributes")
    answer["push"] = refusal(api.upload_file, path_or_fileobj=b"x", path_in_repo="x", repo_id="tester/public")
    """
    run_client(hub, tmp_path / "owner", create)
    owner = run_client(hub, tmp_path / "owner", code)
    assert owner == {"me": "tester", "info": True, "file": None, "public": None, "push": None}
    other = run_client(hub, tmp_path / "other", code, token=None)
    assert {key: value[0] for key, value in other.items() if value} == {
        "me": "LocalTokenNotFoundError",
        "info": "RepositoryNotFoundError",
        "file": "RepositoryNotFoundError",
        "push": "HfHubHTTPError",
    }
    assert all("401" in other[key][1] for key in ("info", "file", "push"))
    wrong = run_client(hub, tmp_path / "wrong", code, token="hf_of_nobody")
    assert all(wrong.values())


def test_cards_are_loaded_validated_and_pushed(hub, name, tmp_path):
    answer = run_client(
        hub,
        tmp_path,
        f"""
        ModelCard("---\\nlicense: apache-2.0\\nlanguage: [en, de]\\n---\\nGood").push_to_hub("{name}")
        answer["card"] = ModelCard.load("{name}").data.to_dict()
        headers = {{"license": "license: mine", "language": "language: 3", "yaml": "tags: ["}}
        headers["results"] = "model-index:\\n- name: x\\n  results:\\n  - task: {{type: translation}}"
        for key, header in headers.items():
            text = f"---\\n{{header}}\\n---\\nBad".encode()
            answer[key] = refusal(api.upload_file, path_or_fileobj=text, path_in_repo="README.md", repo_id="{name}")
        answer["pushed"] = refusal(ModelCard("---\\nlicense: mine\\n---\\nBad").push_to_hub, "{name}")
        """,
    )
    assert answer["card"] == {"license": "apache-2.0", "language": ["en", "de"]}
    assert {answer[key][0] for key in ("license", "language", "yaml", "pushed", "results")} == {"ValueError"}
    assert "mine" in answer["license"][1] and "mine" in answer["pushed"][1]
    assert "dataset.name" in answer["results"][1] and "metrics.value" in answer["results"][1]
    assert hub.repositories["model", name].files()["README.md"].endswith(b"Good")
    bad = {"path": "README.md", "encoding": "base64", "content": base64.b64encode(b"---\ntags: [\n---\n").decode()}
    assert send_commit(hub, name, ("file", bad))[0] == 400


def test_a_part_of_a_file_is_read_by_its_range(hub, name, tmp_path):
    content = bytes(range(256)) * 40
    (tmp_path / "m.bin").write_bytes(content)
    answer = run_client(
        hub,
        tmp_path,
        f"""
        api.upload_file(path_or_fileobj="m.bin", path_in_repo="m.bin", repo_id="{name}")
        with HfFileSystem().open("{name}/m.bin", block_size=64, cache_type="none") as file:
            file.seek(1000)
            answer["part"] = list(file.read(9))
        """,
    )
    assert bytes(answer["part"]) == content[1000:1009]
    assert hub.requests[-1].path.startswith("/storage/") and hub.requests[-1].status == 206
    token = {"Authorization": f"Bearer {TOKEN}"}
    url = f"{hub.url}/{name}/resolve/main/.gitattributes"
    whole = ask(url, "GET", **token)[1]
    assert ask(url, "GET", Range="bytes=-5", **token) == (206, whole[-5:])
    assert ask(url, "GET", Range="bytes=7-", **token) == (206, whole[7:])
    assert ask(url, "GET", Range=f"bytes={len(whole)}-", **token)[0] == 416


def test_a_wrong_commit_is_refused_and_changes_nothing(hub, name):
    repository, before = hub.repositories["model", name], len(hub.uploads)
    head = repository.branches["main"]
    never = {"path": "m.bin", "algo": "sha256", "oid": hashlib.sha256(b"never").hexdigest()}
    binary = {"path": "text", "encoding": "base64", "content": base64.b64encode(b"a\0b").decode()}
    fine = {**binary, "content": base64.b64encode(b"fine").decode()}
    wrong = [("lfsFile", never), ("file", binary), ("file", {**fine, "path": "../x"}), ("copyFile", fine)]
    wrong += [("file", {**fine, "path": "m.bin"}), ("file", {**fine, "path": ".gitattributes/x"})]
    assert [send_commit(hub, name, ("file", fine), each)[0] for each in wrong] == [400] * len(wrong)
    assert send_commit(hub, name, ("file", fine), parentCommit="0" * 40)[0] == 412
    assert repository.branches["main"] == head and len(hub.uploads) == before
    assert send_commit(hub, name, ("file", fine), parentCommit=head)[0] == 200
    assert repository.files()["text"] == b"fine" and len(hub.uploads) == before + 1


def test_the_store_takes_only_what_was_announced_and_no_token(hub, name):
    content = b"weights"
    status, answer = request_upload(hub, name, content)
    address = answer["objects"][0]["actions"]["upload"]["href"]
    assert status == 200 and urlsplit(address).netloc != urlsplit(hub.url).netloc
    assert ask(address, "PUT", b"other", Content_Type="x")[0] == 400
    assert ask(address.partition("?")[0], "PUT", content, Content_Type="x")[0] == 403
    assert ask(address, "GET")[0] == 403
    assert ask(address, "PUT", content, Content_Type="x", Authorization=f"Bearer {TOKEN}")[0] == 400
    assert not hub.repositories["model", name].objects
    assert ask(address, "PUT", content, Content_Type="x")[0] == 200
    assert "actions" not in request_upload(hub, name, content)[1]["objects"][0]
    stored = {"path": "m.bin", "algo": "sha256", "oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
    assert send_commit(hub, name, ("lfsFile", {**stored, "size": 3}))[0] == 400
    assert send_commit(hub, name, ("lfsFile", stored))[0] == 200


def test_data_sets_are_pushed_and_loaded_by_name(hub, tmp_path):
    answer = run_client(
        hub,
        tmp_path,
        """
        from datasets import Dataset, load_dataset

        rows = "".join(json.dumps({"source": f"{i}", "target": f"-{i}"}) + "\\n" for i in range(5)).encode()
        api.create_repo("lines", repo_type="dataset")
        api.upload_file(path_or_fileobj=rows, path_in_repo="train.jsonl", repo_id="tester/lines", repo_type="dataset")
        answer["line"] = load_dataset("tester/lines")["train"][3]
        answer["streamed"] = [row["target"] for row in load_dataset("tester/lines", split="train", streaming=True)]
        for split, values in {"train": [1, 2, 3], "test": [4]}.items():
            Dataset.from_dict({"x": values}).push_to_hub("tester/table", split=split, private=True)
        answer["table"] = {split: rows["x"][:] for split, rows in load_dataset("tester/table").items()}
        answer["missing"] = refusal(load_dataset, "tester/none")
        """,
    )
    assert answer["line"] == {"source": "3", "target": "-3"} and answer["streamed"] == [f"-{i}" for i in range(5)]
    assert answer["table"] == {"train": [1, 2, 3], "test": [4]}
    assert answer["missing"][0] == "DatasetNotFoundError"
    assert hub.repositories["dataset", "tester/table"].private
    assert not hub.repositories["dataset", "tester/lines"].private


def test_models_trained_pushed_and_loaded_by_name_with_their_code(hub, tmp_path):
    start = len(hub.uploads)
    answer = run_client(
        hub,
        tmp_path,
        """
        import torch
        from transformers import AutoConfig, AutoModelForSeq2SeqLM, MarianConfig, MarianMTModel
        from transformers import Trainer, TrainingArguments

        sizes = dict(vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, max_position_embeddings=16)
        sizes |= dict(encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8)
        model = MarianMTModel(MarianConfig(**sizes, pad_token_id=0, decoder_start_token_id=0))
        model.push_to_hub("tester/marian", commit_message="by itself", revision="trial")
        loaded = AutoModelForSeq2SeqLM.from_pretrained("tester/marian", revision="trial")
        answer["same"] = all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters()))

        run = dict(push_to_hub=True, hub_model_id="tester/run", hub_private_repo=True, use_cpu=True, report_to="none")
        rows = [{"input_ids": [1, 2, 3], "labels": [4, 5, 6]}] * 4
        trainer = Trainer(model, TrainingArguments("out", max_steps=1, **run), train_dataset=rows)
        trainer.train()
        trainer.push_to_hub()
        answer["type"] = AutoConfig.from_pretrained("tester/run").model_type

        code = "from transformers import PretrainedConfig as Base\\nclass OwnConfig(Base):\\n    model_type = 'own'"
        config = {"model_type": "own", "size": 3, "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
        for path, text in {"configuration_own.py": code, "config.json": json.dumps(config)}.items():
            api.create_repo("own", exist_ok=True)
            api.upload_file(path_or_fileobj=text.encode(), path_in_repo=path, repo_id="tester/own")
        own = AutoConfig.from_pretrained("tester/own", trust_remote_code=True)
        answer["own"] = [type(own).__name__, own.size]
        answer["missing"] = refusal(AutoConfig.from_pretrained, "tester/none")
        """,
    )
    assert answer["same"] and answer["type"] == "marian" and answer["own"] == ["OwnConfig", 3]
    assert answer["missing"][0] == "OSError"
    pushed = hub.uploads[start]
    assert (pushed.branch, pushed.message) == ("trial", "by itself") and pushed.lfs == {"model.safetensors"}
    assert "model.safetensors" not in hub.repositories["model", "tester/marian"].files()
    run = hub.repositories["model", "tester/run"]
    assert run.private and {"model.safetensors", "training_args.bin", "README.md"} <= set(run.files())
    assert run.messages()[0] == "End of training"


def test_what_is_not_served_is_said_at_once_and_recorded(server, tmp_path):
    answer = run_client(
        server,
        tmp_path,
        """
        api.create_repo("unserved")
        answer["models"] = refusal(lambda: list(api.list_models()))
        answer["request"] = refusal(
            api.upload_file, path_or_fileobj=b"x", path_in_repo="x", repo_id="tester/unserved", create_pr=True
        )
        """,
    )
    assert "501" in answer["models"][1] and "501" in answer["request"][1]
    assert request_upload(server, "tester/unserved", b"x", transfers=("multipart",))[0] == 501
    assert [each.split(", asked by ")[0].split(": ")[1] for each in server.unknown] == [
        "no such route",
        "pull requests",
        "LFS upload by multipart",
    ]
    assert "GET /api/models" in server.unknown[0]
    server.unknown.clear()
