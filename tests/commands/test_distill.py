# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Distillation: a teacher's outputs as a training set, written once, whole, and resumed."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
from small_models import make_model
from small_runs import refused

from hf_xformer.commands import distill, generate
from hf_xformer.data.tokenizers import train_tokenizer


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = train_tokenizer(["A B C D E F G H"], "symbol")
    tokenizer.save_pretrained(folder)
    model = make_model(vocab_size=len(tokenizer))
    model.generation_config.max_length = 8
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(task, tmp_path_factory) -> Path:
    """Twenty sources."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    path.write_text("".join(Path(task.train).read_text().splitlines(keepends=True)[:20]))
    return path


def run(teacher, data, output, *more) -> list[dict]:
    distill.main([str(teacher), "--train_file", str(data), "--output_file", str(output), "--batch_size", "4", *more])
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_every_source_has_what_the_teacher_generates(teacher, data, tmp_path):
    rows = run(teacher, data, tmp_path / "distilled.jsonl", "--num_beams", "2")
    sources = [json.loads(line)["source"] for line in data.read_text().splitlines()]
    assert [row["source"] for row in rows] == sources
    (tmp_path / "sources.txt").write_text("\n".join(sources) + "\n")
    generate.main(
        [
            str(teacher),
            "--input",
            str(tmp_path / "sources.txt"),
            "--output",
            str(tmp_path / "out.txt"),
            "--num_beams",
            "2",
        ]
    )
    assert [row["target"] for row in rows] == (tmp_path / "out.txt").read_text().splitlines()
    assert [path.name for path in tmp_path.glob("distilled*")] == ["distilled.jsonl"]


def test_a_run_that_was_cut_off_goes_on_and_ends_with_the_same_file(teacher, data, tmp_path, capsys):
    whole = run(teacher, data, tmp_path / "whole.jsonl")
    first = json.dumps(distill.order(distill_arguments(teacher, data)))
    begun = [first, *map(json.dumps, whole[:7]), json.dumps(whole[7])[:9]]  # the last line is half there
    (tmp_path / "broken.jsonl.partial").write_text("\n".join(begun))
    assert run(teacher, data, tmp_path / "broken.jsonl") == whole
    assert "7 of 20 sources" in capsys.readouterr().out


def distill_arguments(teacher, data):
    return Namespace(
        checkpoint=str(teacher),
        train_file=[str(data)],
        source_column="source",
        on_bad_row="error",
        seed=0,
        dtype="auto",
    )


@pytest.mark.parametrize("begun", ["", "header", "half"])
def test_a_run_that_was_cut_off_before_its_first_row_begins_anew(begun, teacher, data, tmp_path):
    header = json.dumps(distill.order(distill_arguments(teacher, data))) + "\n"
    text = {"": "", "header": header, "half": header[:9]}[begun]
    (tmp_path / "broken.jsonl.partial").write_text(text)
    rows = run(teacher, data, tmp_path / "broken.jsonl")
    assert len(rows) == 20 and all(row.keys() == {"source", "target"} for row in rows)


def test_what_is_there_already_is_not_overwritten_and_other_options_do_not_go_on(teacher, data, tmp_path, capsys):
    output = tmp_path / "distilled.jsonl"
    command = [teacher, "--train_file", data, "--output_file", output]
    output.write_text("mine\n")
    assert "is there already" in refused(distill, command, capsys)
    assert output.read_text() == "mine\n"
    output.unlink()
    partial = tmp_path / "distilled.jsonl.partial"
    begun = [distill.order(distill_arguments(teacher, data)), {"source": "B A N A N A", "target": ""}]
    partial.write_text("".join(json.dumps(line) + "\n" for line in begun))
    assert "begun with other data: its source 1" in refused(distill, command, capsys)
    partial.write_text(json.dumps({"checkpoint": "another"}) + "\n")
    assert "begun with other options" in refused(distill, command, capsys)
    assert partial.read_text() == json.dumps({"checkpoint": "another"}) + "\n"
    assert "--do_sample" in refused(distill, [*command, "--do_sample"], capsys)
    assert "--num_beams: must be 1 or more, got 0" in refused(distill, [*command, "--num_beams", 0], capsys)
