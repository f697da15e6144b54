# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Every verb refuses unusable input with one line and status 2, writing nothing; a bug keeps its traceback."""

import json
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
from small_models import save_checkpoint

from hf_xformer import cli
from hf_xformer.cli import VERBS
from hf_xformer.commands import info


# A command line that begins the verb's work, and of that work a function that it calls.
COMMANDS = {
    "data": ("{data} --tokenizer {checkpoint} --output_file {out}", "load_tokenizers"),
    "tokenizer": ("--train_file {data} --output_dir {out}", "train_tokenizer"),
    "train": ("--model_name_or_path {checkpoint} --train_file {data} --output_dir {out} --use_cpu true", "prepare"),
    "generate": ("{checkpoint} --input {data} --output {out}", "make_decoder"),
    "evaluate": ("{checkpoint} --test_file {data} --metrics per --output_file {out}", "load_rows"),
    "info": ("{checkpoint}", "read_own_config"),
    "card": ("{checkpoint}", "choose_facts"),
    "push": ("{checkpoint} user/name --dry_run", "prepare"),
    "convert": ("{checkpoint} {out}", "convert_checkpoint"),
    "export": ("{checkpoint} {out}", "export_checkpoint"),
    "merge": ("{adapter} {out}", "load_tokenizers"),
    "average": ("{other} {checkpoint} --output_dir {out}", "average_checkpoints"),
    "distill": ("{checkpoint} --train_file {data} --output_file {out}", "load_rows"),
    "estimate": ("--config_name {checkpoint}", "load_config"),
    "demo": ("{checkpoint} --port 0", "run"),
    "attention": ("{checkpoint} text --output {out}", "cross_attention"),
}


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# What may be in the place of one of them, and cannot be used.
SPOILED = {
    "checkpoint": {
        "a missing folder": lambda path: None,
        "a missing folder of a missing folder": lambda path: None,
        "a file": lambda path: write(path, b"text"),
        "an empty folder": lambda path: path.mkdir(parents=True),
        "a broken config": lambda path: write(path / "config.json", b'{"model_type": "xform'),
        "a folder for a config": lambda path: (path / "config.json").mkdir(parents=True),
        "a config of nothing": lambda path: write(path / "config.json", b"[]"),
    },
    "data": {
        "a missing file": lambda path: None,
        "a folder": lambda path: path.mkdir(parents=True),
        "not UTF-8": lambda path: write(path, b"\xff\n"),
    },
    "out": {"below a file": lambda path: write(path.parent, b"text")},
}
SPOILED["adapter"] = SPOILED["checkpoint"]
CASES = [
    pytest.param(verb, role, spoil, id=f"{verb}-{role}-{name.replace(' ', '-')}")
    for verb, (line, _) in COMMANDS.items()
    for role, ways in SPOILED.items()
    if f"{{{role}}}" in line
    for name, spoil in ways.items()
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def other(checkpoint) -> Path:
    return shutil.copytree(checkpoint, checkpoint.with_name("other"))


@pytest.fixture
def places(checkpoint, other, tmp_path, monkeypatch) -> dict[str, Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    write(tmp_path / "rows.jsonl", b'{"source": "A", "target": "B"}\n')
    adapter = json.dumps({"base_model_name_or_path": str(checkpoint)}).encode()
    write(tmp_path / "adapter/adapter_config.json", adapter)
    return {
        "checkpoint": checkpoint,
        "other": other,
        "adapter": tmp_path / "adapter",
        "data": tmp_path / "rows.jsonl",
        "out": tmp_path / "out",
    }


def words_of(verb: str, places: dict[str, Path]) -> list[str]:
    return COMMANDS[verb][0].format(**places).split()


def contents(folder: Path) -> dict:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refusal(verb: str, words: list[str], capsys) -> str:
    """The one line that a command line is refused with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        import_module(f"hf_xformer.commands.{verb}").main(words)
    said = capsys.readouterr()
    assert stop.value.code == 2 and (said.out == "" or verb == "train")
    (line,) = [line for line in said.err.split("\n")[:-1] if "\r" not in line]  # the others are progress bars
    assert line.startswith("error: ")
    return line


def test_there_is_a_command_line_for_every_verb():
    assert set(COMMANDS) == set(VERBS)


@pytest.mark.parametrize(("verb", "role", "spoil"), CASES)
def test_what_cannot_be_used_is_named_in_one_line_and_nothing_is_written(
    verb, role, spoil, places, checkpoint, tmp_path, capsys
):
    spoiled = tmp_path / "spoiled" / places[role].name
    spoil(spoiled)
    before = contents(tmp_path) | contents(checkpoint)
    line = refusal(verb, words_of(verb, places | {role: spoiled}), capsys)
    assert str(spoiled) in line
    assert contents(tmp_path) | contents(checkpoint) == before


LOADING = [verb for verb, (line, _) in COMMANDS.items() if re.search("{checkpoint}|{adapter}", line)]


@pytest.mark.parametrize("verb", LOADING)
def test_a_name_that_is_nowhere_is_answered_with_where_it_was_looked_for_and_the_nearest(
    verb, places, tmp_path, capsys
):
    """The Hub is out of reach here, or has no such repository."""
    (tmp_path / "my-runs").mkdir()
    named = dict.fromkeys(("checkpoint", "adapter"), "my-run")
    line = refusal(verb, words_of(verb, places | named), capsys)
    assert re.search(rf"( in {tmp_path}|a folder {tmp_path}/my-run); did you mean my-runs\?", line), line


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])
def test_each_misspelt_option_gets_the_nearest_one(verb, places, capsys):
    with pytest.raises(SystemExit):
        import_module(f"hf_xformer.commands.{verb}").main(["--help"])
    known = set(re.findall(r"\[(--[a-z_]{4,})", capsys.readouterr().out))
    for option in known:
        misspelt = option[:-1] + ("q" if option.endswith("x") else "x")
        # Before all else, whatever is missing besides.
        said = refusal(verb, [misspelt, "x"], capsys)
        assert re.match(rf"error: {misspelt}: unknown option; did you mean --\w+\?$", said), said


@pytest.mark.parametrize(
    ("verb", "words", "said"),
    [
        (
            "generate",
            ["{checkpoint}", "--dtype", "float3"],
            "--dtype: 'float3' is none of its choices; did you mean float32?",
        ),
        ("tokenizer", ["--model_type", "zzz"], "'zzz' is none of its choices; there are bpe, unigram, char, symbol"),
        ("generate", ["{checkpoint}", "--num_beams", "two"], "--num_beams: must be a whole number, got 'two'"),
        ("generate", ["{checkpoint}", "--seed", "-1"], "--seed: must be 0 or more, got -1"),
        ("generate", ["{checkpoint}", "--seed", "4294967296"], "--seed: must be 4,294,967,295 or less"),
        ("generate", ["{checkpoint}", "--temperature", "nan"], "--temperature: must be a number above 0, got nan"),
        ("generate", ["{checkpoint}", "--top_p", "1.5"], "--top_p: must be a number above 0 and at most 1, got 1.5"),
        (
            "generate",
            ["{checkpoint}", "--length_penalty", "inf"],
            "above -50 and at most 50, got inf",
        ),
        ("generate", ["{checkpoint}", "--device", "meta"], "--device meta: "),
        ("generate", ["{checkpoint}", "--mbr"], "mbr compares candidates, and there is one"),
        ("generate", ["{checkpoint}", "--mbr", "bleu", "--num_beams", "2"], "unknown metric 'bleu'"),
        ("generate", ["{checkpoint}", "--num_return_sequences", "4"], "candidates of --mbr, which is missing"),
        ("generate", ["{checkpoint}", "--mbr", "--num_beams", "2", "--n_best", "3"], "--n_best 3: --mbr has 2"),
        ("generate", ["{checkpoint}", "--comet_python", "x"], "--comet_python is for --mbr comet"),
        ("generate", ["{checkpoint}", "--epsilon_cutoff", "0.1"], "--epsilon_cutoff is for sampling"),
        ("generate", ["{checkpoint}", "--tgt_lang", "de"], "tgt_lang de: the tokenizer knows no languages"),
        ("evaluate", ["x", "--test_file", "{data}", "--metrics", "per", "--by", "lang"], "no field 'lang'"),
        ("evaluate", ["x", "--test_file", "{data}", "--metrics", "per", "--source_column", "{{a"], "template"),
        ("generate", ["{checkpoint}", "--force_words", "{data}"], "force_words needs num_beams of 2 or more"),
        ("generate", ["{checkpoint}", "--assistant_model", "/no/model"], "/no/model: there is no such file or folder"),
        ("generate", ["{checkpoint}", "--output", "{data}", "--prefix", "{data}"], "would overwrite the input"),
        ("evaluate", ["x", "--test_file", "{data}", "--metrics", "per", "--num_return_sequences", "1"], "2 or more"),
        ("distill", ["{checkpoint}", "--train_file", "{data}", "--output_file", "o", "--tag", "<bt>"], "--tag is put"),
        ("distill", ["{checkpoint}", "--train_file", "{data}", "--output_file", "o", "--min_score", "1"], "at most 0"),
        (
            "tokenizer",
            ["--train_file", "{data}", "--output_dir", "o", "--added_tokens", "<s>"],
            "--added_tokens '<s>'",
        ),
        ("generate", [], "the following arguments are required: checkpoint"),
        ("evaluate", ["x", "--test_file", "y", "--metrics", "bleu"], "did you mean sacrebleu"),
        ("tokenizer", ["--train_file", "{data}", "--output_dir", "o", "--vocab_size", "1" * 30], "--vocab_size: must"),
        ("estimate", ["--config_name", "{checkpoint}", "--config_overrides", "dropout=much"], "dropout"),
        ("estimate", ["--config_name", "{checkpoint}", "--config_overrides", "d_modle=2"], "d_model"),
        ("estimate", [], "one of the arguments RECIPE.yaml --config_name is required"),
        ("estimate", ["{checkpoint}"], "not a YAML file, as recipes are; a model needs --config_name before it"),
        ("estimate", ["--config_name", "r.yaml"], "--config_name r.yaml: a recipe goes without --config_name"),
        ("push", ["{checkpoint}", "a//b"], "a//b: "),
        ("average", ["{checkpoint}", "{checkpoint}/.", "--output_dir", "o"], "named twice"),
        ("average", ["{checkpoint}", "--last", "1", "--output_dir", "o"], "--last: must be 2 or more, got 1"),
        ("attention", ["{checkpoint}", "A", "--layer", "9"], "--layer 9: the decoder has 3 layers"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_option(verb, words, said, places, capsys):
    assert said in refusal(verb, [word.format(**places) for word in words], capsys)


FILES = {
    "generate {checkpoint}": ("input", "allowed"),
    "generate {checkpoint} --input {data} --num_beams 2": ("prefix", "force_words"),
    "evaluate {checkpoint} --metrics per --test_file {data}": ("allowed",),
    "evaluate {checkpoint} --metrics per": ("test_file",),
    "distill {checkpoint} --output_file o": ("train_file",),
    "distill {checkpoint} --output_file o --train_file {data}": ("allowed",),
    "tokenizer --output_dir o": ("train_file",),
    "tokenizer --output_dir o --train_file {data}": ("merges",),
    "data {data}": ("against",),
    "train --model_name_or_path {checkpoint} --output_dir o --use_cpu true": ("train_file",),
    "train --model_name_or_path {checkpoint} --output_dir o --use_cpu true --train_file {data}": (
        *("validation_file", "card_facts", "generation_config"),
    ),
    "estimate --config_name {checkpoint}": ("accelerate_config",),
    "card {checkpoint}": ("card_facts",),
}


MAY_BE_EMPTY = ("input", "prefix", "force_words", "card_facts")
UNREADABLE = [
    (line, option, name)
    for line, options in FILES.items()
    for option in options
    for name in ("none.json", "bytes.json", "empty.json")
    if name != "empty.json" or option not in MAY_BE_EMPTY
]


@pytest.mark.parametrize(("line", "option", "name"), UNREADABLE)
def test_a_file_that_cannot_be_read_is_named_with_its_option(line, option, name, places, tmp_path, capsys):
    write(tmp_path / "empty.json", b"")
    write(tmp_path / "bytes.json", b"\xff\n")
    verb, *words = line.format(**places).split()
    said = refusal(verb, [*words, f"--{option}", name], capsys)
    assert re.match(rf"error: --{option}:? .*{name}", said), said


def test_a_full_folder_is_not_written_into(places, capsys):
    write(places["out"] / "mine.txt", b"mine")
    for verb in ("convert", "export", "average"):
        line = refusal(verb, words_of(verb, places), capsys)
        assert str(places["out"]) in line and "not empty" in line
        assert [path.name for path in places["out"].iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("bug", [RuntimeError, KeyError, ValueError])
@pytest.mark.parametrize("verb", VERBS)
def test_a_bug_is_no_input_error(verb, bug, places, monkeypatch):
    def broken(*args, **options):
        raise bug("bug")

    module = import_module(f"hf_xformer.commands.{verb}")
    monkeypatch.setattr(module, COMMANDS[verb][1], broken)
    with pytest.raises(bug):
        module.main(words_of(verb, places))


def test_a_bug_ends_the_command_with_its_traceback(places, monkeypatch, capsys):
    """Python prints it and ends with status 1 where nothing stands between."""
    monkeypatch.setattr(info, "read_own_config", lambda *names, **options: {}["bug"])
    with pytest.raises(KeyError, match="bug"):
        cli.main(["info", *words_of("info", places)])
    assert sys.excepthook is sys.__excepthook__ and capsys.readouterr().err == ""
