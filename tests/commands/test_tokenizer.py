# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The command that trains tokenizers: what it writes and prints; bad input costs one line and writes nothing."""

import json

import datasets
import pytest
from transformers import AutoTokenizer

from hf_xformer.commands.tokenizer import main


ROWS = [
    {"source": "K U B", "target": ["K UW B", "K AH B"]},
    {"source": "R U B E", "target": ["R UW B"]},
    {"source": "B E R K", "target": ["B ER K"]},
]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "tokenizer"


def run(*arguments) -> None:
    main([str(argument) for argument in arguments])


def test_a_shared_tokenizer_knows_sources_and_every_reference(rows, output, capsys):
    run("--train_file", rows, "--model_type", "symbol", "--output_dir", output)

    tokenizer = AutoTokenizer.from_pretrained(output)
    assert tokenizer.tokenize("K U B") == ["K", "U", "B"]
    assert tokenizer.tokenize("K AH B ER UW") == ["K", "AH", "B", "ER", "UW"]
    assert not (output / "target_tokenizer").exists()
    assert capsys.readouterr().out == f"{output}: {len(tokenizer)} entries, 0.00 % <unk>; K|U|B\n"


def test_separate_tokenizers_know_one_side_each(rows, output, capsys):
    run("--train_file", rows, "--model_type", "symbol", "--separate", "--output_dir", output)

    source, target = AutoTokenizer.from_pretrained(output), AutoTokenizer.from_pretrained(output / "target_tokenizer")
    assert "AH" in target.get_vocab() and "AH" not in source.get_vocab()
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("more", "why"), [((), "no more merges\n"), (("--min_frequency", 2), "merges that occur 2 times\n")]
)
def test_a_vocabulary_that_the_texts_cannot_fill_is_said(more, why, rows, output, capsys):
    run("--train_file", rows, "--vocab_size", 900, *more, "--output_dir", output)
    assert "fewer entries than --vocab_size 900: the texts have no more merges" in (said := capsys.readouterr().out)
    assert why in said
    run("--train_file", rows, "--vocab_size", 261, "--output_dir", output, "--overwrite")
    assert "fewer entries" not in capsys.readouterr().out


def test_the_share_of_unknown_tokens_is_told(rows, output, capsys):
    run("--train_file", rows, "--model_type", "symbol", "--min_frequency", 2, "--output_dir", output)
    # "AH" and "ER" are seen once, so that 23 symbols become 25 tokens; of these "A" and "H" are seen once too.
    assert "8.00 % <unk>" in capsys.readouterr().out


def test_parallel_text_and_a_dataset_folder_give_the_same_tokenizer(tmp_path, output, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "a.de").write_text("ja\nnein\n")
    (tmp_path / "a.en").write_text("yes\nno\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "train.csv").write_text("de,en\nja,yes\nnein,no\n")

    run("--train_file", tmp_path / "a.de", tmp_path / "a.en", "--model_type", "char", "--output_dir", output)
    columns = ["--source_column", "de", "--target_column", "en"]
    run("--dataset_name", tmp_path / "folder", *columns, "--model_type", "char", "--output_dir", tmp_path / "other")
    assert (output / "tokenizer.json").read_text() == (tmp_path / "other" / "tokenizer.json").read_text()


def test_overwriting_leaves_no_target_tokenizer_of_an_earlier_run(rows, output):
    run("--train_file", rows, "--model_type", "char", "--separate", "--output_dir", output)
    run("--train_file", rows, "--model_type", "symbol", "--overwrite", "--output_dir", output)
    assert not (output / "target_tokenizer").exists()
    assert AutoTokenizer.from_pretrained(output).tokenize("UW") == ["UW"]


def refused(capsys, *arguments) -> str:
    """Run the command with bad input and return the line it says so in."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ('{"source": "a"}\n', [], "rows.jsonl:1: no field 'target'"),
        ('{"source": "a", "target": "b"}\n{"source":\n', [], "rows.jsonl:2: invalid JSON"),
        ("", [], "the file is empty"),
        ('{"source": "a", "target": "b"}\n', ["--vocab_size", "100"], "vocab_size 100 is too small"),
        (
            '{"source": "a", "target": "b"}\n',
            ["--vocab_size", "300", "--sentinels", "100"],
            "--vocab_size 300 leaves 200 beside 100 added tokens",
        ),
        (
            '{"source": "a", "target": "b"}\n',
            ["--source_column", "<bt> {source}"],
            "make what texts begin with tokens: --added_tokens '<bt>'",
        ),
        ('{"source": "a", "target": "b"}\n', ["--model_type", "unigram"], "vocab_size 8000 is too large"),
        (
            '{"source": "a", "target": "b"}\n',
            ["--model_type", "unigram", "--min_frequency", "50"],
            "--min_frequency 50 does nothing: unigram",
        ),
        (
            '{"source": "a", "target": "b"}\n',
            ["--train_split", "dev"],
            "--train_split dev does nothing with --train_file",
        ),
        ('{"source": "a", "target": ""}\n', ["--separate"], "rows.jsonl:1: empty target"),
        ('{"source": "a", "target": "b"}\n', ["--model_type", "words"], "'words' is none of its choices; there are "),
        (
            '{"source": "a", "target": "b"}\n',
            ["--vocab_siz", "300"],
            "--vocab_siz: unknown option; did you mean --vocab_size?",
        ),
        ('{"source": "a", "target": "b"}\n', ["--dataset_name", "x"], "not allowed with argument --train_file"),
    ],
)
def test_bad_input_costs_one_line_and_writes_nothing(rows, output, capsys, content, options, message):
    with open(rows, "w") as file:
        file.write(content)
    assert message in refused(capsys, "--train_file", rows, "--output_dir", output, *options)
    assert not output.exists()


def test_missing_data_and_missing_options_cost_one_line(tmp_path, output, capsys):
    assert "No such file" in refused(capsys, "--train_file", tmp_path / "none.csv", "--output_dir", output)
    assert "--train_file --dataset_name is required" in refused(capsys, "--output_dir", output)
    assert not output.exists()


def test_an_existing_tokenizer_is_not_touched(rows, output, capsys):
    run("--train_file", rows, "--model_type", "char", "--output_dir", output)
    before = (output / "tokenizer.json").read_bytes()

    again = ["--train_file", rows, "--model_type", "symbol", "--output_dir"]
    assert "already holds a tokenizer; --overwrite replaces it" in refused(capsys, *again, output)
    assert "not a folder" in refused(capsys, *again, rows)
    assert "too small" in refused(capsys, *again, output, "--overwrite", "--vocab_size", 5)
    assert (output / "tokenizer.json").read_bytes() == before


def test_tokens_of_languages_are_entries_or_are_asked_for(tmp_path, output, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row | {"target_lang": row["source"][-1]}) + "\n" for row in ROWS))
    words = ["--train_file", path, "--model_type", "symbol", "--output_dir", output]
    words += ["--source_column", "<2{target_lang}> {source}", "--added_tokens", "<2B>"]
    with pytest.raises(SystemExit):
        run(*words)
    assert "make what texts begin with tokens: --added_tokens '<2B>' '<2E>' '<2K>'" in capsys.readouterr().err
    assert not output.exists()
    run(*words, "<2E>", "<2K>")
    assert "come back as others" not in capsys.readouterr().out  # the tokens before a source are not part of it
    tokenizer = AutoTokenizer.from_pretrained(output)
    for token in ("<2B>", "<2E>", "<2K>"):
        ids = tokenizer(f"{token} K U B")["input_ids"]
        assert ids == [tokenizer.convert_tokens_to_ids(token), *tokenizer("K U B")["input_ids"]]
        assert ids[0] != tokenizer.unk_token_id


@pytest.mark.parametrize("tokens", [["<s>"], ["a b"], [""], ["<x>", "<x>"], ["Straße"]], ids=repr)
def test_what_cannot_be_a_token_is_refused(tokens, rows, output, capsys):
    with pytest.raises(SystemExit):
        run("--train_file", rows, "--output_dir", output, "--model_type", "bpe", "--added_tokens", *tokens)
    assert "--added_tokens" in capsys.readouterr().err and not output.exists()
