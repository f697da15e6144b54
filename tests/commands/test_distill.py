# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Distillation and back-translation: a model's texts as a training set, written once, whole, and resumed."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from small_models import make_model
from small_runs import refused

from hf_xformer.commands import distill, generate
from hf_xformer.data.tokenizers import train_tokenizer


MADE = {"synthetic", "checkpoint"}  # what rows say of how they were made


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = train_tokenizer(["A B C D E F G H"], "symbol")
    tokenizer.save_pretrained(folder)
    model = make_model(vocab_size=len(tokenizer))
    # Texts of two symbols or more that end, as a trained model would write them.
    likely_ends = [[[1], 6.0]]
    model.generation_config.update(max_length=8, min_length=3, suppress_tokens=[0, 2, 3], sequence_bias=likely_ends)
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
    rows = [json.dumps({"text": row["source"], "hypotheses": [[row["target"], None, True]]}) for row in whole[:8]]
    begun = [first, *rows[:7], rows[7][:9]]  # the last line is half there
    (tmp_path / "broken.jsonl.partial").write_text("\n".join(begun))
    assert run(teacher, data, tmp_path / "broken.jsonl") == whole
    assert "7 of 20 texts" in capsys.readouterr().out


def test_what_a_run_before_has_cut_is_said_too(teacher, data, tmp_path, capsys):
    words, output = ("--max_source_length", "3", "--batch_size", "4"), tmp_path / "texts.jsonl"

    def said() -> list[str]:
        return [line for line in capsys.readouterr().err.splitlines() if "cut to 3 tokens" in line]

    whole = run(teacher, data, output, *words)
    (expected,) = said()
    rows = [json.dumps({"text": row["source"], "hypotheses": [[row["target"], None, True, 0]]}) for row in whole]
    for begun in (rows[:5], rows):
        output.unlink()
        first = json.dumps(distill.order(distill_arguments(teacher, data, *words)))
        output.with_name("texts.jsonl.partial").write_text("\n".join([first, *begun, ""]))
        assert run(teacher, data, output, *words) == whole and said() == [expected]


def distill_arguments(teacher, data, *more):
    words = [str(teacher), "--train_file", str(data), "--output_file", "any.jsonl", *more]
    return distill.make_parser().parse_args(words)


@pytest.mark.parametrize("begun", ["", "header", "half"])
def test_a_run_that_was_cut_off_before_its_first_row_begins_anew(begun, teacher, data, tmp_path):
    header = json.dumps(distill.order(distill_arguments(teacher, data))) + "\n"
    text = {"": "", "header": header, "half": header[:9]}[begun]
    (tmp_path / "broken.jsonl.partial").write_text(text)
    rows = run(teacher, data, tmp_path / "broken.jsonl")
    assert len(rows) == 20 and all(row.keys() == {"source", "target", *MADE} for row in rows)


def test_what_is_there_already_is_not_overwritten_and_other_options_do_not_go_on(teacher, data, tmp_path, capsys):
    output = tmp_path / "distilled.jsonl"
    command = [teacher, "--train_file", data, "--output_file", output]
    output.write_text("mine\n")
    assert "is there already" in refused(distill, command, capsys)
    assert output.read_text() == "mine\n"
    output.unlink()
    partial = tmp_path / "distilled.jsonl.partial"
    begun = [
        distill.order(distill_arguments(teacher, data)),
        {"text": "B A N A N A", "hypotheses": [["", None, True]]},
    ]
    partial.write_text("".join(json.dumps(line) + "\n" for line in begun))
    assert "begun with other data: its text 1" in refused(distill, command, capsys)
    partial.write_text('["a list"]\n')
    assert "is not of a distillation: remove it" in refused(distill, command, capsys)
    partial.write_text(json.dumps({"checkpoint": "another"}) + "\n")
    assert "begun with other options" in refused(distill, command, capsys)
    assert partial.read_text() == json.dumps({"checkpoint": "another"}) + "\n"
    partial.write_text("".join(json.dumps(line) + "\n" for line in begun))
    (tmp_path / "allowed.txt").write_text("A\n")
    for more in (["--min_score", -1], ["--allowed", tmp_path / "allowed.txt"], ["--revision", "main"]):
        assert "begun with other options" in refused(distill, [*command, *more], capsys)
    other = shutil.copytree(teacher, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: each + 1 for name, each in weights.items()}, other / "model.safetensors", {"format": "pt"})
    begun[0]["checkpoint"] = str(other)  # whose weights have been replaced
    partial.write_text("".join(json.dumps(line) + "\n" for line in begun))
    assert "begun with other options" in refused(distill, [other, *command[1:]], capsys)
    assert "--num_beams: must be 1 or more, got 0" in refused(distill, [*command, "--num_beams", 0], capsys)


def lines_of(data: Path, side: str) -> list[str]:
    return [json.loads(line)[side] for line in data.read_text().splitlines()]


@pytest.mark.slow
def test_backward_texts_become_sources_behind_their_tag_of_real_targets(teacher, data, tmp_path, capsys):
    forward = run(teacher, data, tmp_path / "forward.jsonl", "--num_beams", "2")
    assert {row["synthetic"] for row in forward} == {"target"} and {row["checkpoint"] for row in forward} == {
        teacher.name
    }
    targets = tmp_path / "targets.txt"  # what the forward model reads are the backward one's targets
    targets.write_text("".join(f"{source}\n" for source in lines_of(data, "source")))
    words = ["--num_beams", "2", "--direction", "backward", "--tag", "<bt>", "--student_tokenizer", str(teacher)]
    backward = run(teacher, targets, tmp_path / "backward.jsonl", *words)
    assert [row["target"] for row in backward] == [row["source"] for row in forward]
    assert [row["source"] for row in backward] == [f"<bt> {row['target']}" for row in forward]
    assert {row["synthetic"] for row in backward} == {"source"}
    said = capsys.readouterr().err
    assert "--tag <bt>: " in said and "--added_tokens '<bt>' makes it one" in said
    tokenizer = train_tokenizer(["A B C"], "symbol", added_tokens=["<bt>"])
    tokenizer.save_pretrained(tmp_path / "student")
    words[-1] = str(tmp_path / "student")
    assert run(teacher, targets, tmp_path / "again.jsonl", *words) == backward
    assert "--tag" not in capsys.readouterr().err
    # A table of pairs gives its targets.
    pairs = run(teacher, data, tmp_path / "pairs.jsonl", "--direction", "backward")
    assert [row["target"] for row in pairs] == [text for text in lines_of(data, "target") if text]


@pytest.mark.slow
def test_unlikely_texts_are_left_out_and_counted(teacher, data, tmp_path, capsys):
    words = ["--num_beams", "4", "--n_best", "3"]
    every = run(teacher, data, tmp_path / "all.jsonl", *words, "--min_score", "-99")
    capsys.readouterr()
    least = sorted(row["score"] for row in every)[len(every) // 2] - 1e-4
    kept = run(teacher, data, tmp_path / "kept.jsonl", *words, "--min_score", str(least))
    assert 0 < len(kept) < len(every) and kept == [row for row in every if row["score"] > least]
    said = capsys.readouterr().out
    assert f"left out {len(every) - len(kept)} texts below --min_score" in said and " a token): '" in said
    assert f"{len(kept)} pairs in " in said


@pytest.mark.slow
def test_texts_without_an_end_are_left_out_and_counted(teacher, data, tmp_path, capsys):
    words = ["--do_sample", "--n_best", "4"]
    whole = run(teacher, data, tmp_path / "whole.jsonl", *words)
    capsys.readouterr()
    ended = run(teacher, data, tmp_path / "ended.jsonl", *words, "--max_new_tokens", "3")
    # Two symbols and an end.
    assert {len(row["target"].split()) for row in ended} == {2} < {len(row["target"].split()) for row in whole}
    said = capsys.readouterr().out
    assert " cut off at the greatest length, --max_new_tokens, of source" in said
    shutil.copytree(teacher, forcing := tmp_path / teacher.name)
    config = json.loads((forcing / "generation_config.json").read_text()) | {"forced_eos_token_id": 1}
    (forcing / "generation_config.json").write_text(json.dumps(config))
    forced = run(forcing, data, tmp_path / "forced.jsonl", *words, "--max_new_tokens", "4")
    assert {len(row["target"].split()) for row in forced} == {2}  # the fourth token ends a text in any case


def test_empty_texts_and_those_of_another_hypothesis_are_left_out_and_counted():
    written = distill.Written(Namespace(direction="backward", tag=None, min_score=None, checkpoint="user/model"))
    decoded = [
        ("one", [["a", None, True], ["b", None, True], ["a", None, True]]),
        ("two", [[" \u200b", None, True]]),
        ("three", [["c", -0.123456, True]]),
    ]
    rows = [(row["source"], row["target"], row.get("score")) for row in written.rows(iter(decoded))]
    assert rows == [("a", "one", None), ("b", "one", None), ("c", "three", -0.1235)] and written.pairs == 3
    empty, repeated = written.lines()
    assert empty == "left out 1 empty text, of target 2; the first is: 'two'"
    assert repeated == "left out 1 text that is another hypothesis too of the same target"


@pytest.mark.slow
@pytest.mark.parametrize("mbr", [[], ["--mbr", "--num_return_sequences", "5"]], ids=["samples", "mbr"])
def test_samples_of_a_run_that_was_cut_off_are_those_of_an_unbroken_one(mbr, teacher, data, tmp_path, monkeypatch):
    monkeypatch.setattr(distill, "KEPT", 6)
    words = ["--do_sample", "--n_best", "2", *mbr]
    whole = run(teacher, data, tmp_path / "whole.jsonl", *words)
    assert run(teacher, data, tmp_path / "other.jsonl", *words, "--seed", "7") != whole
    decode, broken = distill.decode, tmp_path / "broken.jsonl"

    def stopped(decoder, texts, done, partial, count):
        decode(decoder, texts[:15], done, partial, count)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(distill, "decode", stopped)
        run(teacher, data, broken, *words)
    assert len((tmp_path / "broken.jsonl.partial").read_text().splitlines()) == 16
    assert run(teacher, data, broken, *words) == whole


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tag", "<bt>"], "--tag is put before synthetic sources"),
        (["--direction", "backward", "--tag", "two words"], "--tag 'two words': give one token"),
        (
            ["--direction", "backward", "--target_column", "<2{source_lang}> {target}"],
            "--target_column <2{source_lang}> {target}: rows would have it in their targets",
        ),
        (["--student_tokenizer", "x"], "--student_tokenizer is asked for the token of --tag, which is missing"),
        (["--direction", "sideways"], "there are forward, backward"),
        (["--min_score", "1"], "--min_score: must be a number at most 0, got 1"),
        (["--n_best", "2"], "2 hypotheses of a source (num_return_sequences, --n_best) need as many num_beams"),
        (["--mbr"], "mbr compares candidates, and there is one"),
        (["--comet_python", "x"], "--comet_python is for --mbr comet"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, said, teacher, data, tmp_path, capsys):
    command = [teacher, "--train_file", data, "--output_file", tmp_path / "out.jsonl"]
    assert said in refused(distill, [*command, *words], capsys) and not list(tmp_path.glob("out*"))
