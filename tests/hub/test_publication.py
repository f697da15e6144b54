# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A run on the Hub: what is sent and what never is, what is refused, and what strangers can do with it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import small_records
import yaml
from bare_environment import BareEnvironment
from hub_client import run_client, run_with
from hub_server import HubServer
from huggingface_hub import HfApi, ModelCard, parse_eval_result_entries
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from small_runs import ROOT, refused
from test_structure import TRAVELLING
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    Seq2SeqTrainingArguments,
    TrainerControl,
    TrainerState,
)

from hf_xformer.commands import card, evaluate, push, train
from hf_xformer.hub.publication import PICKLES, prepare
from hf_xformer.hub.repository import Repository, RunPublisher
from hf_xformer.training.callbacks import PushToHub


pytestmark = pytest.mark.slow  # every client is a process of its own, which imports the libraries

FACTS = {**small_records.FACTS, "dataset_id": "tester/words", "example": "A B C"}
MODEL = {f"{name}.py" for name in TRAVELLING} | {
    *("README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
    *("tokenizer_config.json", "run.json", "curves.png", "attention.png"),
    *("train_results.json", "eval_results.json", "test_results.json"),
    ".eval_results/tester--words.yaml",
}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, task) -> Path:
    """A finished run with everything that `make quickstart` leaves."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "facts.yaml").write_text(yaml.safe_dump(FACTS))
    more = {"validation_file": task.validation, "eval_strategy": "epoch", "metrics": "per"}
    saving = {"save_strategy": "steps", "save_steps": 3, "card_facts": folder / "facts.yaml"}
    train.main(task.options(folder / "run", **more, **saving))
    results = folder / "run/test_results.json"
    evaluate.main([str(folder / "run"), "--test_file", task.validation, "--metrics", "per", "sacrebleu"]
                  + ["--output_file", str(results)])  # fmt: skip
    card.main([str(folder / "run")])
    return folder / "run"


@pytest.fixture
def run(run_folder, tmp_path) -> Path:
    """A copy to spoil."""
    shutil.copytree(run_folder, tmp_path / "run")
    return tmp_path / "run"


def command(hub: HubServer, folder: Path, *words: str | Path, **options) -> subprocess.CompletedProcess:
    """`hf-xformer ...` on a machine that has the local Hub for the real one."""
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **hub.environment(folder, **options)}
    return run_with(hub, folder, ["-m", "hf_xformer", *words], ROOT, **environment)


@pytest.fixture(scope="module")
def published(hub, run_folder, tmp_path_factory) -> str:
    """The name of the run on the Hub, pushed there for the first time."""
    done = command(hub, tmp_path_factory.mktemp("home"), "push", run_folder, "tester/backwards")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{hub.url}/tester/backwards/commit/")
    assert "training_args.bin" in done.stdout and "a pickle" in done.stdout and "checkpoint-6/" in done.stdout
    return "tester/backwards"


def test_what_is_published_is_the_model_its_code_its_card_and_no_pickle(hub, published, run_folder):
    files = hub.repositories["model", published].files("main")
    assert set(files) - {".gitattributes"} == MODEL
    assert (run_folder / "training_args.bin").exists()
    assert not any(Path(name).match(pattern) for name in files for pattern in PICKLES)
    assert files["model.safetensors"] == (run_folder / "model.safetensors").read_bytes()


def test_the_published_card_names_the_repository_and_is_complete(hub, published):
    files = hub.repositories["model", published].files("main")
    text = files["README.md"].decode()
    assert "to fill in" not in text and '"tester/backwards", trust_remote_code=True' in text
    metadata = ModelCard(text).data
    assert (metadata.language, metadata.license, metadata.datasets) == ("en", "apache-2.0", "tester/words")
    tested = json.loads(files["test_results.json"])
    scores = {(each.dataset_split, each.metric_type): each.metric_value for each in metadata.eval_results}
    assert scores["test", "per"] == tested["per"] and scores["test", "sacrebleu"] == tested["sacrebleu"]
    assert tested["sacrebleu_signature"] in text
    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/tester--words.yaml"]))
    assert {(each.dataset_id, each.task_id): each.value for each in entries} == {
        ("tester/words", "per"): tested["per"],
        ("tester/words", "sacrebleu"): tested["sacrebleu"],
    }


STRANGER = """
import json, sys
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokens = model.generate(**tokenizer(["A B C D", "H"], padding=True, return_tensors="pt"))
print(json.dumps({"tokens": tokens.tolist(), "module": type(model).__module__}))
"""


def test_a_stranger_without_the_package_decodes_the_same(hub, published, run_folder, tmp_path):
    bare = BareEnvironment(tmp_path / "bare", "torch", "transformers")
    hub_only = {name: value for name, value in hub.environment(tmp_path / "home").items() if name.startswith("HF_")}
    said = json.loads(bare.run(STRANGER, published, **hub_only).splitlines()[-1])
    tokenizer = AutoTokenizer.from_pretrained(run_folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(run_folder)
    sources = tokenizer(["A B C D", "H"], padding=True, return_tensors="pt")
    assert said["tokens"] == model.generate(**sources).tolist()
    assert said["module"].startswith("transformers_modules.tester.backwards")


def test_commands_load_by_name_and_by_revision(hub, published, run_folder, task, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("A B C D\nH\n")
    here = command(hub, tmp_path / "home", "generate", run_folder, "--input", words)
    there = command(hub, tmp_path / "home", "generate", published, "--input", words, "--revision", "main")
    assert there.returncode == 0 and there.stdout == here.stdout != ""
    info = command(hub, tmp_path / "home", "info", published)
    assert info.returncode == 0 and "all of the model's" in info.stdout
    missing = command(hub, tmp_path / "home", "generate", published, "--input", words, "--revision", "nowhere")
    assert missing.returncode == 2 and "nowhere" in missing.stderr


def test_a_second_push_sends_what_has_changed_and_takes_old_weights_away(hub, published, run, tmp_path):
    home, pushes = tmp_path / "home", len(hub.uploads)
    assert command(hub, home, "push", run, published).returncode == 0
    assert len(hub.uploads) == pushes  # the card is the same too
    (run / "LICENSE").write_text("Apache-2.0\n")
    assert command(hub, home, "push", run, published).returncode == 0
    assert hub.uploads[-1].paths == {"LICENSE"} and len(hub.uploads) == pushes + 1
    weights = load_file(run / "model.safetensors")
    AutoModelForSeq2SeqLM.from_pretrained(run).save_pretrained(run, max_shard_size="20KB")
    (run / "model.safetensors").unlink(missing_ok=True)
    assert command(hub, home, "push", run, published, "--message", "In shards").returncode == 0
    files = hub.repositories["model", published].files("main")
    assert "model.safetensors" not in files and "model.safetensors.index.json" in files
    assert sum(name.startswith("model-") for name in files) > 1 and hub.uploads[-1].message == "In shards"
    save_file(weights, run / "model.safetensors", metadata={"format": "pt"})
    for path in (*run.glob("model-*"), run / "model.safetensors.index.json"):
        path.unlink()
    assert command(hub, home, "push", run, published).returncode == 0
    assert not any(name.startswith("model-") for name in hub.repositories["model", published].files("main"))


def test_a_push_deletes_what_was_of_an_earlier_model_says_so_and_nothing_else(hub, run, tmp_path):
    home = tmp_path / "home"
    AutoTokenizer.from_pretrained(run).save_pretrained(run / "target_tokenizer")
    assert command(hub, home, "push", run, "tester/twice").returncode == 0
    code = """
        others = ["onnx/weights.bin", "model.fp16.safetensors", "notes.txt", "data/config.json", "old.pt"]
        for name in others:
            api.upload_file(path_or_fileobj=b"theirs", path_in_repo=name, repo_id="tester/twice")
        answer["others"] = others
    """
    others = set(run_client(hub, tmp_path / "other", code)["others"])
    shutil.rmtree(run / "target_tokenizer")
    dry = command(hub, home, "push", run, "tester/twice", "--dry_run")
    done = command(hub, home, "push", run, "tester/twice")
    for said in (dry.stdout, done.stdout):
        deleted = {line.split()[0] for line in said.splitlines() if "is deleted there" in line}
        assert deleted == {"target_tokenizer/tokenizer.json", "target_tokenizer/tokenizer_config.json"}
    files = set(hub.repositories["model", "tester/twice"].files("main"))
    assert others <= files and not any(name.startswith("target_tokenizer/") for name in files)


def test_a_card_written_on_the_hub_is_not_replaced_unasked(hub, run, tmp_path):
    home = tmp_path / "home"
    assert command(hub, home, "push", run, "tester/edited").returncode == 0
    code = """
        api.upload_file(path_or_fileobj=b"# By hand", path_in_repo="README.md", repo_id="tester/edited")
    """
    run_client(hub, tmp_path / "other", code)
    refusal = command(hub, home, "push", run, "tester/edited")
    assert refusal.returncode == 2 and "a file that was not pushed from this folder, README.md" in refusal.stderr
    assert command(hub, home, "push", run, "tester/edited", "--overwrite").returncode == 0
    assert hub.repositories["model", "tester/edited"].files("main")["README.md"] != b"# By hand"
    assert command(hub, home, "push", run, "tester/edited").returncode == 0


def test_what_was_pushed_from_here_stays_ours_after_a_kill_and_without_notes(hub, run, tmp_path):
    code = f"""
        from contextlib import suppress
        from hf_xformer.hub.repository import Repository, gather, prepare
        repository, run = Repository(api, "tester/killed"), Path({str(run)!r})
        repository.create(None)
        api.upload_file(path_or_fileobj=b"---\\n---\\n", path_in_repo="README.md", repo_id="tester/killed")
        answer["new"] = repository.foreign(run)
        commit = api.create_commit
        def killed(*args, **more):
            commit(*args, **more)
            raise KeyboardInterrupt
        api.create_commit = killed
        with suppress(KeyboardInterrupt):
            repository.push(gather(run / "checkpoint-3"), "Step 3", run)
        answer["killed"], api.create_commit = repository.foreign(run), commit
        repository.push(prepare(run, "tester/killed"), "End", run)
        (run / ".published.json").unlink()
        answer["noteless"] = repository.foreign(run, prepare(run, "tester/killed"))
        api.upload_file(path_or_fileobj=b"theirs", path_in_repo="tokenizer.json", repo_id="tester/killed")
        answer["theirs"] = repository.foreign(run)
    """
    found = run_client(hub, tmp_path / "other", code)
    assert found["new"] == found["killed"] == found["noteless"] == []
    assert "tokenizer.json" in found["theirs"] and "model.safetensors" not in found["theirs"]


THEIRS = """
        api.create_repo("tester/theirs", private=True, exist_ok=True)
        for name in ("model.safetensors", "tokenizer.json"):
            api.upload_file(path_or_fileobj=b"theirs", path_in_repo=name, repo_id="tester/theirs")
"""


def test_a_repository_of_others_is_refused_before_training_and_by_the_command(hub, run, run_folder, task, tmp_path):
    home = tmp_path / "home"
    run_client(hub, tmp_path / "other", THEIRS)
    repository = hub.repositories["model", "tester/theirs"]
    before = repository.commit().id
    options = {"push_to_hub": "true", "hub_model_id": "tester/theirs", "hub_revision": "tried"}
    options |= {"card_facts": run_folder.parent / "facts.yaml"}
    refused_run = command(hub, home, "train", *task.options(tmp_path / "new", **options))
    assert refused_run.returncode == 2 and not (tmp_path / "new").exists()
    assert (
        "error: --hub_model_id tester/theirs: tester/theirs has 2 files that were not pushed from this folder, "
        "model.safetensors, tokenizer.json: give another --hub_model_id, or --hub_overwrite true replaces them"
    ) in refused_run.stderr
    dry = command(hub, home, "push", run, "tester/theirs", "--dry_run").stdout
    assert "tokenizer.json                           was not pushed from this folder: only --overwrite" in dry
    done = command(hub, home, "push", run, "tester/theirs")
    assert done.returncode == 2 and "take another name, or --overwrite replaces them" in done.stderr
    assert repository.commit().id == before and [*repository.branches] == ["main"]
    assert command(hub, home, "push", run, "tester/theirs", "--overwrite").returncode == 0
    assert repository.files()["tokenizer.json"] != b"theirs" and repository.private
    # What was pushed from here may be replaced from here.
    assert command(hub, home, "push", run, "tester/theirs", "--message", "Again").returncode == 0


def test_what_others_have_written_while_a_run_trained_stays(hub, run, tmp_path):
    code = f"""
        from hf_xformer.hub.repository import Repository, RunPublisher
        publisher, run = RunPublisher(Repository(api, "tester/between")), Path({str(run)!r})
        publisher.repository.create(None)
        publisher.repository.check_ours(run)
        publisher.push_checkpoint(run / "checkpoint-3", "Training in progress, step 3")
        publisher.finish()
        api.upload_file(path_or_fileobj=b"theirs", path_in_repo="tokenizer.json", repo_id="tester/between")
        answer["lines"] = list(publisher.push_run(run))
    """
    lines = run_client(hub, tmp_path / "other", code)["lines"]
    assert lines == [
        "WARNING: not pushed to tester/between: tester/between has a file that was not pushed from this folder, "
        "tokenizer.json",
        f"hf-xformer push {run} tester/between --overwrite replaces them",
    ]
    repository = hub.repositories["model", "tester/between"]
    assert repository.files()["tokenizer.json"] == b"theirs" and "model.safetensors" in repository.files()
    assert len(repository.messages()) == 3


def test_files_that_a_gitignore_there_keeps_out_are_named(hub, run, tmp_path):
    code = """
        api.create_repo("ignoring")
        api.upload_file(path_or_fileobj=b"*.safetensors", path_in_repo=".gitignore", repo_id="tester/ignoring")
    """
    run_client(hub, tmp_path / "other", code)
    done = command(hub, tmp_path / "home", "push", run, "tester/ignoring")
    assert done.returncode == 2 and "tester/ignoring has a .gitignore" in done.stderr, done
    assert "has left out model.safetensors: take its lines" in done.stderr


def test_private_is_refused_where_everybody_can_read(hub, run, tmp_path):
    assert command(hub, tmp_path / "home", "push", run, "tester/open").returncode == 0
    done = command(hub, tmp_path / "home", "push", run, "tester/open", "--private")
    assert done.returncode == 2 and "tester/open is there and public" in done.stderr


def test_private_and_branch_are_what_they_say(hub, run, tmp_path):
    done = command(hub, tmp_path / "home", "push", run, "hidden", "--private", "--branch", "better")
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["model", "tester/hidden"]
    assert repository.private and "model.safetensors" in repository.files("better")
    assert "model.safetensors" not in repository.files("main")
    assert b'"tester/hidden"' in repository.files("better")["README.md"]
    code = """
        answer["better"] = sorted(contents_of(snapshot_download("tester/hidden", revision="better")))
        answer["stranger"] = refusal(snapshot_download, "tester/hidden", token=False)[0]
    """
    code = "from pathlib import Path\ncontents_of = lambda folder: [p.name for p in Path(folder).iterdir()]\n" + (
        "\n".join(line.strip() for line in code.splitlines())
    )
    answer = run_client(hub, tmp_path / "other", code)
    assert "model.safetensors" in answer["better"] and "RepositoryNotFound" in answer["stranger"]


def test_a_dry_run_prints_the_tree_and_sends_nothing(hub, run, tmp_path):
    before = len(hub.requests)
    said = command(hub, tmp_path / "home", "push", run, "tester/never", "--dry_run").stdout
    # It asks what is there, and no more.
    assert {method for method, *_ in hub.requests[before:]} == {"GET"}
    assert ("model", "tester/never") not in hub.repositories
    assert all(name in said for name in MODEL) and "nothing was sent" in said


def test_who_is_not_logged_in_is_told_so(hub, run, tmp_path):
    done = command(hub, tmp_path / "home", "push", run, "tester/backwards", token=None)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("error:")] == [
        "error: tester/backwards: the Hub does not know who you are: `hf auth login`, or set another HF_TOKEN"
    ]


def test_a_card_with_an_empty_field_or_a_broken_link_is_refused(run, tmp_path, capsys):
    text = (run / "README.md").read_text()
    (run / "README.md").write_text(text.replace(FACTS["limits"], "[to fill in: limits]"))
    assert "`limits` is not filled in" in refused(push, [run, "tester/x"], capsys)
    (run / "README.md").write_text(text + "\n[more](figures/more.png)\n")
    assert "figures/more.png is not published with it" in refused(push, [run, "tester/x"], capsys)
    (run / "README.md").write_text(text.replace("license: apache-2.0", "license:"))
    assert "no license" in refused(push, [run, "tester/x"], capsys)
    (run / "README.md").unlink()
    assert "no model card" in refused(push, [run, "tester/x"], capsys)


def test_a_card_changed_by_hand_is_pushed_as_it_is_and_never_written_over(run, capsys):
    path = run / "README.md"
    path.write_text(path.read_text().replace("Spells words", "Spells short words"))
    assert "changed by hand" in refused(card, [run], capsys)
    text = prepare(run, "tester/never").files["README.md"].decode()
    assert "Spells short words" in text and 'model="tester/never"' in text and str(run) not in text
    card.main([str(run), "--overwrite"])
    assert "Spells words" in path.read_text()


def test_weights_that_are_not_whole_are_refused_with_the_weights_name(run, capsys):
    weights = load_file(run / "model.safetensors")
    name = next(iter(weights))
    save_file({key: weights[key] for key in weights if key != name}, run / "model.safetensors")
    line = refused(push, [run, "tester/x"], capsys)
    assert f"missing: {name}" in line
    (run / "model.safetensors").unlink()
    assert "there are no weights" in refused(push, [run, "tester/x"], capsys)


def test_a_checkpoint_saved_without_code_is_published_with_it_and_stays_as_it_is(run):
    for path in run.glob("*_xformer.py"):
        path.unlink()
    before = (run / "config.json").read_text()
    files = prepare(run, "tester/never").files
    assert {f"{name}.py" for name in TRAVELLING} <= set(files) and b"auto_map" in files["config.json"]
    assert not list(run.glob("*_xformer.py")) and (run / "config.json").read_text() == before


def test_names_that_the_hub_does_not_take_and_folders_that_are_not_there_are_refused(run, tmp_path, capsys):
    assert "user/sub/name" in refused(push, [run, "user/sub/name"], capsys)
    assert "there is no such folder" in refused(push, [tmp_path / "nothing", "tester/x"], capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hub_strategy": "checkpoint"}, "--hub_strategy checkpoint would publish optimizers"),
        ({"card_facts": None}, "--card_facts FILE has to say summary, language, license"),
    ],
    ids=["optimizers", "no facts"],
)
def test_what_push_to_hub_cannot_do_is_said_before_training(options, said, run_folder, task, tmp_path, capsys):
    options = {"card_facts": run_folder.parent / "facts.yaml", "push_to_hub": "true", **options}
    assert said in refused(train, task.options(tmp_path / "new", **options), capsys)
    assert not (tmp_path / "new").exists()


def test_the_trainers_push_to_hub_sends_every_save_and_the_end_without_pickles(hub, run_folder, task, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 3, "push_to_hub": "true", "hub_private_repo": "true"}
    options |= {"hub_model_id": "tester/training", "hub_always_push": "true", "validation_file": task.validation}
    options = task.options(tmp_path / "new", **options, card_facts=run_folder.parent / "facts.yaml")
    done = command(hub, tmp_path / "home", "train", *options)
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["model", "tester/training"]
    messages = repository.messages()
    assert messages[:3] == ["End of training", "Training in progress, step 6", "Training in progress, step 3"]
    assert repository.private
    for commit in repository.history("main")[:-1]:
        assert "modeling_xformer.py" in commit.files and "model.safetensors" in commit.files
        assert not any(Path(name).match(pattern) for name in commit.files for pattern in PICKLES)
    assert "README.md" in repository.files("main") and "curves.png" in repository.files("main")


def test_a_hub_that_does_not_answer_in_mid_run_is_said_and_the_run_goes_on(run, tmp_path, capsys):
    repository = Repository(HfApi(endpoint="http://127.0.0.1:9", token="hf_x"), "tester/x")
    publisher = RunPublisher(repository)
    pushes = PushToHub(publisher, always=False)
    shutil.copytree(run, tmp_path / "out/checkpoint-3")
    state = TrainerState(global_step=3, is_world_process_zero=True)
    pushes.on_save(Seq2SeqTrainingArguments(str(tmp_path / "out"), use_cpu=True), state, TrainerControl())
    assert [
        line for line in publisher.push_run(run) if line.startswith("WARNING: not pushed to tester/x: not to be had")
    ]
    assert "WARNING: a push to tester/x failed: not to be had from the Hub" in capsys.readouterr().out


def test_an_adapter_of_a_folder_here_and_a_broken_one_are_refused(run, tmp_path, capsys):
    adapted = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(run), LoraConfig(task_type="SEQ_2_SEQ_LM", r=2))
    adapted.save_pretrained(tmp_path / "adapter")
    assert f"an adapter of {run}, a folder here" in refused(push, [tmp_path / "adapter", "tester/x"], capsys)
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "tester/base"}))
    weights = tmp_path / "adapter/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "cut off: `base_model.model." in refused(push, [tmp_path / "adapter", "tester/x"], capsys)
    weights.unlink()
    assert "there are no weights" in refused(push, [tmp_path / "adapter", "tester/x"], capsys)


def test_training_and_evaluation_read_a_data_set_by_its_name(hub, task, tmp_path):
    code = f"""
        api.create_repo("tester/words", repo_type="dataset")
        for split in ("train", "validation"):
            api.upload_file(path_or_fileobj=Path("{task.folder}", split + ".jsonl").read_bytes(),
                            path_in_repo=split + ".jsonl", repo_id="tester/words", repo_type="dataset")
    """
    run_client(hub, tmp_path / "other", code)
    options = task.options(tmp_path / "new", train_file=None, dataset_name="tester/words", eval_strategy="epoch")
    done = command(hub, tmp_path / "home", "train", *options)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "new/run.json").read_text())
    assert record["trained_on"] == "tester/words, split train" and record["train_files"] == []
    assert re.fullmatch("[0-9a-f]{40}", record["commits"]["dataset_revision"])
