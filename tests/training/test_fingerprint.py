# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A run's recipe: every option has its place, equal content is equal, and any change of what decides is seen."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, refused, run_twice
from transformers import AutoTokenizer, Seq2SeqTrainingArguments, get_scheduler
from transformers.trainer_utils import SchedulerType

from hf_xformer.commands import train
from hf_xformer.errors import ArgumentError
from hf_xformer.training.changes import differences, settle
from hf_xformer.training.fingerprint import DERIVED, EVALUATING, NEUTRAL, batches_of, content_of, length_of, parts_of
from hf_xformer.training.plan import make_plan
from hf_xformer.training.recipe import parse_run
from hf_xformer.training.resume import read_state
from hf_xformer.training.schema import options


# Options that decide the weights and stand in a recipe by their value.
DECIDING = {
    *("attn_implementation", "ema_decay", "lora_rank", "lora_alpha", "lora_dropout"),
    *("r_drop", "freeze", "lr_multipliers", "temperature"),
    *("bpe_dropout", "unigram_sampling", "source_word_dropout", "case_noise"),
    *("dataset_config_name", "train_split", "source_column", "target_column", "streaming", "max_source_length"),
    *("max_target_length", "max_length_ratio", "overlong", "max_tokens", "packing", "max_train_samples"),
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args"),
    *("optim_target_modules", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
    *("gradient_accumulation_steps", "label_smoothing_factor", "neftune_noise_alpha", "seed", "data_seed"),
    *("auto_find_batch_size", "load_best_model_at_end", "ignore_data_skip", "full_determinism", "tf32"),
    *("torch_compile", "torch_compile_backend", "torch_compile_mode", "use_liger_kernel", "liger_kernel_config"),
    *("dataloader_drop_last", "dataloader_in_order", "train_sampling_strategy"),
}


def test_every_option_has_one_place():
    """An option that is new in the library is in none: put it into a table of `fingerprint` or into `DECIDING`."""
    tables = [DECIDING, DERIVED, EVALUATING, NEUTRAL]
    assert {name: count for name in options() if (count := sum(name in table for table in tables)) != 1} == {}


def test_a_length_in_steps_is_another_than_one_in_epochs(tmp_path):
    epochs, steps = (length_of(Seq2SeqTrainingArguments(tmp_path, **each)) for each in ({}, {"max_steps": 9}))
    assert {each.name for each in differences(epochs, steps)} == {"max_steps", "num_train_epochs"}
    assert differences(epochs, epochs) == differences(steps, steps) == []


@pytest.mark.parametrize("warmup", [0, 3, 0.1])
@pytest.mark.parametrize("name", [each for each in SchedulerType if "plateau" not in each and each != "greedy"])
def test_a_length_counts_where_the_learning_rate_depends_on_it(name, warmup, tmp_path):
    kwargs = {"min_lr": 0.0} if "min_lr" in name else {"num_decay_steps": 9} if name == "warmup_stable_decay" else {}

    def rates(length: int) -> list[float]:
        arguments = Seq2SeqTrainingArguments(tmp_path, warmup_steps=warmup, lr_scheduler_type=name, max_steps=length)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedule = get_scheduler(name, optimizer, arguments.get_warmup_steps(length), length, kwargs)
        assert length_of(arguments) in ({}, {"max_steps": length, "num_train_epochs": None})
        told.append(bool(length_of(arguments)))
        found = []
        for _ in range(50):
            found.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        return found

    told: list[bool] = []
    depends = rates(50) != rates(500)
    assert told == [depends, depends]


def test_the_workers_of_a_stream_count(task, tmp_path):
    """One reads all of it, in this process or another; several divide its files, and its order is another."""

    def found(workers: int, **more) -> dict:
        arguments = parse_run(task.options(tmp_path, dataloader_num_workers=workers, **more), "")
        return batches_of(*arguments[1:], make_plan(*arguments))

    stream = {"streaming": "true"}
    assert found(0, **stream) == found(1, **stream) != found(2, **stream)
    assert found(0) == found(2)


def test_a_folders_content_is_its_files_and_their_names(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data/train.jsonl").write_text("{}")
    (tmp_path / "two/.cache").write_text("")
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")
    (tmp_path / "two/data/train.jsonl").rename(tmp_path / "two/data/test.jsonl")
    assert content_of(tmp_path / "one") != content_of(tmp_path / "two")


def test_any_part_of_a_tokenizer_that_decides_ids_is_seen(task, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    before = parts_of(tokenizer)
    tokenizer(["A B"], padding="max_length", max_length=9, truncation=True)
    assert parts_of(tokenizer) == before
    tokenizer.add_tokens(["Z"])
    after = parts_of(tokenizer)
    assert {name for name in after if after[name] != before[name]} >= {"vocabulary", "added_tokens"}


SAVING = {"max_steps": 20, "save_strategy": "steps", "save_steps": 10, "logging_steps": 1}
DROPOUT = SMALL.replace("dropout=0.0", "dropout=0.1")


@pytest.fixture(scope="module")
def stopped(task, tmp_path_factory) -> Path:
    """The output folder of a run that was stopped after step 10 of 20, for tests that only read it."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    train.main(task.options(folder, config_overrides=DROPOUT, **SAVING))
    shutil.rmtree(folder / "checkpoint-20")
    return folder


def rows_of(task) -> list[dict]:
    return [json.loads(line) for line in Path(task.train).read_text().splitlines()]


def other_file(task, folder: Path) -> dict:
    """Half of the pairs."""
    path = folder / "other.jsonl"
    path.write_text("\n".join(map(json.dumps, rows_of(task)[:80])))
    return {"train_file": path}


def edited_file(task, folder: Path) -> dict:
    """The same file with one letter changed: of the same size."""
    path = folder / "train.jsonl"
    path.write_text(Path(task.train).read_text().replace("A", "B", 1))
    return {"train_file": path}


def lowercase(task, folder: Path) -> dict:
    """The same tokenizer, before which texts are now in lower case."""
    shutil.copytree(task.tokenizer, folder / "tokenizer")
    path = folder / "tokenizer/tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": {"type": "Lowercase"}}))
    return {"tokenizer_name": folder / "tokenizer"}


# What is changed, the option that the message names, the value that was and the one that is.
CHANGED = {
    "another file": (other_file, "train_file", ".jsonl of", ".jsonl of"),
    "a file edited": (edited_file, "train_file", ".jsonl of", ".jsonl of"),
    "normalizer": (lowercase, "tokenizer_name normalizer", '{"normalizers": [{"type": "NFC"', '{"type": "Lowercase"}'),
    "learning_rate": ({"learning_rate": 1e-5}, "learning_rate", "0.01", "1e-05"),
    "optim": ({"optim": "adafactor"}, "optim", "adamw_torch", "adafactor"),
    "seed": ({"seed": 7}, "seed", "42", "7"),
    "data_seed": ({"data_seed": 7}, "data_seed", "null", "7"),
    "max_grad_norm": ({"max_grad_norm": 5}, "max_grad_norm", "1.0", "5.0"),
    "schedule": ({"lr_scheduler_type": "cosine"}, "lr_scheduler_type", "linear", "cosine"),
    "warmup": ({"warmup_steps": 4}, "warmup_steps", "0", "4"),
    "length": ({"max_steps": 30}, "max_steps", "20", "30"),
    "Trainer's smoothing": ({"label_smoothing_factor": 0.1}, "label_smoothing_factor", "0.0", "0.1"),
    "model's smoothing": (
        {"config_overrides": f"{DROPOUT},label_smoothing=0.1"}, "config_overrides label_smoothing", "0.0", "0.1"
    ),
    "dropout": ({"config_overrides": SMALL}, "config_overrides dropout", "0.1", "0.0"),
    "packing": ({"packing": "true"}, "packing", "false", "true"),
    "weight_decay": ({"weight_decay": 0.1}, "weight_decay", "0.0", "0.1"),
    "beta": ({"adam_beta2": 0.95}, "adam_beta2", "0.999", "0.95"),
    "accumulation": ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps", "1", "2"),
    "batch": ({"per_device_train_batch_size": 4}, "per_device_train_batch_size", "8", "4"),
    "tokens": ({"max_tokens": 60}, "max_tokens", "null", "60"),
    "samples": ({"max_train_samples": 100}, "max_train_samples", "null", "100"),
    "lengths": ({"max_target_length": 11}, "max_target_length", "12", "11"),
    "ratio": ({"max_length_ratio": 3}, "max_length_ratio", "null", "3.0"),
    "overlong": ({"overlong": "drop"}, "overlong", "truncate", "drop"),
    "spelt out": ({"special_tokens_in_text": "read"}, "tokenizer_name special_tokens", "", ""),
    "order": ({"group_by_length": "false"}, "group_by_length", "true", "false"),
    "stream": ({"streaming": "true"}, "streaming", "false", "true"),
    "precision": ({"bf16": "true"}, "precision", "no", "bf16"),
    "best": (
        {"load_best_model_at_end": "true", "eval_strategy": "steps", "eval_steps": 10}, "load_best_model_at_end",
        "false", "true",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "option", "was", "now"), CHANGED.values(), ids=CHANGED)
def test_a_changed_recipe_is_refused_in_one_line(changes, option, was, now, stopped, task, tmp_path, capsys):
    more = changes if isinstance(changes, dict) else changes(task, tmp_path)
    if "eval_strategy" in more:
        more = {"validation_file": task.validation, **more}
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    words = task.options(stopped, **{**SAVING, "config_overrides": DROPOUT, **more})
    line = refused(train, words, capsys)
    assert f"{stopped}/checkpoint-10 was trained with" in line
    assert re.search(rf"\b{re.escape(f'{option} {was}')}.*, now {re.escape(now)}", line), line
    assert "--resume_from_checkpoint false starts anew" in line
    assert ("--change_recipe" in line) == (option != "optim")
    assert {path: path.stat().st_mtime_ns for path in stopped.rglob("*")} == before


def test_several_differences_are_one_line_with_their_number(stopped, task, capsys):
    more = {"learning_rate": 1e-5, "seed": 7, "weight_decay": 0.1, "config_overrides": DROPOUT}
    line = refused(train, task.options(stopped, **{**SAVING, **more}), capsys)
    assert "3 other options: " in line and "seed 42, now 7" in line and "new values from step 11" in line


@pytest.mark.parametrize("more", [{"optim": "adafactor"}, {"optim_args": "amsgrad=True"}], ids=["optim", "optim_args"])
def test_what_cannot_be_applied_is_refused_under_change_recipe_too(more, stopped, task, capsys):
    words = task.options(stopped, change_recipe="true", **{**SAVING, "config_overrides": DROPOUT, **more})
    line = refused(train, words, capsys)
    assert "cannot change on the way" in line and f"--model_name_or_path {stopped}/checkpoint-10" in line


def as_recipe_file(words: list[str], folder: Path) -> list[str]:
    """A command line as a YAML file."""
    names, values = [word.removeprefix("--") for word in words[::2]], words[1::2]
    (folder / "moved").mkdir()
    lines = [f"{name}: {json.dumps(value)}" for name, value in zip(names, values, strict=True)]
    (folder / "moved/recipe.yaml").write_text("\n".join(lines))
    return [str(folder / "moved/recipe.yaml")]


def linked(words: list[str], folder: Path) -> list[str]:
    """Data, tokenizer and configuration by links, relative to the working folder."""
    found = []
    for word in words:
        if word.startswith("/") and not word.endswith("/run"):
            Path(Path(word).name).symlink_to(word)
            word = Path(word).name
        found.append(word)
    return found


def copied(words: list[str], folder: Path) -> list[str]:
    """Data and tokenizer in another folder, written at another time."""
    found = []
    for word in words:
        if word.endswith("train.jsonl"):
            shutil.copyfile(word, folder / "train.jsonl")
            word = str(folder / "train.jsonl")
        elif word.endswith("tokenizer"):
            shutil.copytree(word, folder / "tokenizer")
            word = str(folder / "tokenizer")
        found.append(word)
    return found


def as_mapping(words: list[str], folder: Path) -> list[str]:
    fields = dict(item.split("=") for item in DROPOUT.split(","))
    return [json.dumps({k: json.loads(v) for k, v in fields.items()}) if word == DROPOUT else word for word in words]


def of_no_weight(words: list[str], folder: Path) -> list[str]:
    more = {
        "save_steps": 5,
        "logging_steps": 4,
        "dataloader_num_workers": 1,
        "run_name": "again",
        "save_total_limit": 3,
        "on_bad_row": "skip",
    }
    return [*words, *(word for name, value in more.items() for word in (f"--{name}", str(value)))]


@pytest.mark.parametrize(
    "otherwise", [as_recipe_file, linked, copied, as_mapping, of_no_weight], ids=lambda each: each.__name__
)
def test_the_same_recipe_written_otherwise_resumes_without_a_word(
    otherwise, stopped, task, tmp_path, capsys, monkeypatch
):
    reached = []
    monkeypatch.setattr(train, "make_trainer", lambda run, *args: reached.append(run.recipe) or exit())
    monkeypatch.chdir(tmp_path)
    words = task.options(stopped, **{**SAVING, "config_overrides": DROPOUT})
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        train.main(otherwise(words, tmp_path))
    assert stop.value.code is None and reached[0].changed == frozenset() and reached[0].history == []
    assert "recipe" not in "".join(capsys.readouterr())


def test_another_kind_of_device_is_another_recipe(stopped, tmp_path, capsys):
    """Its generator has a state of its own, which the checkpoint does not hold: dropout would be another."""
    content = json.loads((stopped / "checkpoint-10/trainer_state.json").read_text())
    now = content["stateful_callbacks"]["RecipeRecord"]["args"]["recipe"]
    assert now["device"] == "cpu"
    arguments = Seq2SeqTrainingArguments(tmp_path, use_cpu=True, max_steps=20)
    state = read_state(stopped / "checkpoint-10")
    with pytest.raises(ArgumentError, match="was trained with device cpu, now cuda.*--change_recipe goes on"):
        settle({**now, "device": "cuda"}, state, arguments, False, False, print)
    changed = settle({**now, "device": "cuda"}, state, arguments, True, False, print)
    assert changed.history == [{"from_step": 11, "changes": {"device": ["cpu", "cuda"]}}]
    assert "steps 1 to 10 with device cpu, from 11 with cuda" in capsys.readouterr().out
    # A finished run may be evaluated anywhere.
    assert settle({**now, "device": "cuda"}, state, arguments, False, True, print).options == now
    # In a checkpoint of an earlier version it is not known, and no difference.
    del state.trainer.stateful_callbacks["RecipeRecord"]["args"]["recipe"]["device"]
    assert settle(now, state, arguments, False, False, print).changed == frozenset()


def test_a_recipe_holds_no_place_of_this_machine(stopped):
    state = json.loads((stopped / "checkpoint-10/trainer_state.json").read_text())
    recipe = json.dumps(state["stateful_callbacks"]["RecipeRecord"])
    assert os.sep not in re.sub(r"Ċ|\\", "", recipe) and "sha256" in recipe


@pytest.mark.distributed
def test_a_file_that_one_process_lacks_is_refused_in_all(tmp_path):
    said = run_twice(
        """
import os, sys
from accelerate import PartialState
from hf_xformer.errors import DataError
from hf_xformer.training.fingerprint import shared_digests
from hf_xformer.training.recipe import parse_run

rank = PartialState(cpu=True).process_index
for lacking in (0, 1):
    os.makedirs(f"{sys.argv[1]}/{lacking}-{rank}")
    os.chdir(f"{sys.argv[1]}/{lacking}-{rank}")
    if rank != lacking:
        open("words.jsonl", "w").write("{}")
    words = ["--config_name", "x", "--tokenizer_name", "x", "--train_file", "words.jsonl", "--output_dir", "x"]
    try:
        shared_digests(*parse_run([*words, "--use_cpu", "true"], ""))
    except DataError as error:
        print(f"without {lacking}, process {rank}: {error}\\n", end="", flush=True)
""",
        tmp_path,
    )
    for lacking in (0, 1):
        for rank in (0, 1):
            assert f"without {lacking}, process {rank}: --train_file: words.jsonl: No such file or directory" in said
