# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A run keeps what its data were: the bad rows that it left out, and the longest source that the model has met."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_runs import weights
from transformers import AutoTokenizer

from hf_xformer.commands import train
from hf_xformer.training.arguments import ModelArguments
from hf_xformer.training.fingerprint import parts_of
from hf_xformer.training.prepare import trained_before


EXISTING = {"config_name": None, "config_overrides": None, "tokenizer_name": None}
SAVING = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
SECRET = "hf_" + "a1B2" * 8


def record_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())["bad_rows_left_out"]


def longest(folder: Path) -> int:
    return AutoTokenizer.from_pretrained(folder).model_max_length


def rows(*lengths: int) -> str:
    """Pairs whose sources have so many tokens, with the end token."""
    return "".join(json.dumps({"source": " ".join("A" * (n - 1)), "target": "A"}) + "\n" for n in lengths)


@pytest.mark.slow
def test_the_record_of_a_run_says_which_bad_rows_it_left_out(task, tmp_path, capsys):
    lines = Path(task.train).read_text().splitlines()[:40]
    bad = ['{"source": "", "target": "A"}', json.dumps({"source": [SECRET], "target": "A"}), '{"source": " "}']
    uneven = json.dumps({"source": "A", "target": "A " * 40})
    (tmp_path / "bad.jsonl").write_text("\n".join([lines[0], *bad, uneven, *lines[1:]]))
    (tmp_path / "good.jsonl").write_text("\n".join(lines))
    (tmp_path / "validation.jsonl").write_text("\n".join([*lines[:5], uneven, '{"target": "A"}']))
    skip = {"on_bad_row": "skip", "max_length_ratio": 3, "validation_file": tmp_path / "validation.jsonl", **SAVING}
    for name in ("bad", "good"):
        train.main(task.options(tmp_path / name, train_file=tmp_path / f"{name}.jsonl", **skip))
    reasons = {"empty source": 2, "source is not a text": 1, "one side more than 3 times the other": 1}
    expected = {
        "train": {"rows": 44, "reasons": reasons, "first": "bad.jsonl:2: empty source"},
        # A validation set is measured as it is.
        "validation": {
            "rows": 7,
            "reasons": {"no field 'source'": 1},
            "first": "validation.jsonl:7: no field 'source'",
        },
    }
    assert record_of(tmp_path / "bad") == expected
    assert record_of(tmp_path / "good") == {"validation": expected["validation"]}
    assert torch.equal(weights(tmp_path / "bad"), weights(tmp_path / "good"))
    assert "train: left out 4 bad rows of 44 (--on_bad_row skip): 2 empty source, 1 " in capsys.readouterr().out
    # Taken from the cache, by a start that resumes.
    shutil.rmtree(tmp_path / "bad/checkpoint-6")
    train.main(task.options(tmp_path / "bad", train_file=tmp_path / "bad.jsonl", **skip))
    assert record_of(tmp_path / "bad") == expected


@pytest.mark.slow
def test_the_record_of_a_bad_row_has_nothing_that_stands_in_it(task, tmp_path):
    bad = json.dumps({"source": [SECRET, "Jane Doe"], "target": "A"})
    (tmp_path / "a.jsonl").write_text(f"{bad}\n" + Path(task.train).read_text())
    train.main(task.options(tmp_path / "run", train_file=tmp_path / "a.jsonl", on_bad_row="skip", max_steps=1))
    assert record_of(tmp_path / "run")["train"]["first"] == "a.jsonl:1: source is not a text"
    for path in tmp_path.glob("run/*.*"):
        assert SECRET.encode() not in path.read_bytes() and b"Jane" not in path.read_bytes(), path


@pytest.mark.slow
def test_the_record_of_a_stream_says_that_it_has_no_numbers(task, tmp_path, capsys):
    options = {"streaming": "true", "on_bad_row": "skip", "max_steps": 2}
    train.main(task.options(tmp_path, **options))
    assert record_of(tmp_path) == {"train": "counted in the log alone: a stream is read while the model trains"}


def test_a_tokenizer_without_a_limit_does_not_hide_what_a_checkpoint_records(task, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    tokenizer.model_max_length = 7
    tokenizer.save_pretrained(tmp_path)
    tokenizer.model_max_length = 10**30
    state = SimpleNamespace(checkpoint=tmp_path)
    assert [trained_before(ModelArguments(model_name_or_path="x"), tokenizer, each) for each in (None, state)] == [
        0,
        7,
    ]


@pytest.mark.slow
def test_the_longest_source_is_kept_and_makes_no_other_tokenizer(task, tmp_path, capsys):
    (tmp_path / "long.jsonl").write_text(rows(*[3, 9, 5] * 8))
    (tmp_path / "short.jsonl").write_text(rows(*[3, 6, 5] * 8))
    options = {"train_file": tmp_path / "long.jsonl", **SAVING}
    train.main(task.options(tmp_path / "run", **options))
    assert longest(tmp_path / "run") == longest(tmp_path / "run/checkpoint-3") == 9
    shutil.copytree(tmp_path / "run", tmp_path / "changed")
    own, given = (AutoTokenizer.from_pretrained(each) for each in (tmp_path / "run", task.tokenizer))
    assert given.model_max_length > 9 and parts_of(own) == parts_of(given)

    shutil.rmtree(tmp_path / "run/checkpoint-6")
    capsys.readouterr()
    for _ in ("resumed", "finished"):
        train.main(task.options(tmp_path / "run", **options))
        assert longest(tmp_path / "run") == longest(tmp_path / "run/checkpoint-6") == 9
    assert "recipe" not in "".join(capsys.readouterr())

    # Weights that have met longer texts before, in this run or another one.
    shutil.rmtree(tmp_path / "changed/checkpoint-6")
    changed = {**options, "train_file": tmp_path / "short.jsonl", "change_recipe": "true"}
    for _ in ("changed", "taken up"):
        train.main(task.options(tmp_path / "changed", **changed))
        assert longest(tmp_path / "changed") == 9
    record = json.loads((tmp_path / "changed/run.json").read_text())
    assert record["train_files"] == ["long.jsonl", "short.jsonl"]
    assert record["trained_on"] == "from step 1: long.jsonl; from step 4: short.jsonl"
    further = {
        **EXISTING,
        "train_file": tmp_path / "short.jsonl",
        "model_name_or_path": tmp_path / "run",
        "max_steps": 1,
    }
    train.main(task.options(tmp_path / "second", **further))
    train.main(task.options(tmp_path / "third", **{**further, "tokenizer_name": task.tokenizer}))
    train.main(task.options(tmp_path / "new", train_file=tmp_path / "short.jsonl", max_steps=1))
    assert [longest(tmp_path / name) for name in ("second", "third", "new")] == [9, 9, 6]
