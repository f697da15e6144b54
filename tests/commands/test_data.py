# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The command that shows what a file of data is: for people, for machines, as a picture, and as a recipe's options."""

import json
import shlex

import pytest
from small_runs import refused

from hf_xformer.commands import data
from hf_xformer.commands import tokenizer as tokenizer_command
from hf_xformer.data.scripts import TOKENIZERS
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.training.option_checks import check_options
from hf_xformer.training.recipe import parse_run


LETTERS = ["C A T", "D O G", "C O D", "A T"]
ROWS = [{"source": text, "target": [text.lower(), "x y"]} for text in LETTERS * 30]


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def tokenizer(tmp_path):
    train_tokenizer(["A B C D O a b c d"], "symbol").save_pretrained(tmp_path / "letters")
    return "letters"


def run(capsys, *words) -> str:
    data.main([str(word) for word in words])
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def test_people_see_counts_lengths_bars_and_what_follows(rows, capsys):
    said = run(capsys, rows)
    assert "rows        120; 240 pairs, for 120 rows have several references\n" in said
    assert "bad rows    0 of 120\n" in said
    assert "232 of 240 pairs repeat an earlier one" in said and "4 sources have several targets" in said
    assert "\nsource characters         4.5" in said
    assert "\nsources by characters\n" in said and "█" in said
    assert "--model_type symbol --vocab_size 18 --output_dir tokenizer" in said


def test_bad_rows_are_counted_by_reason_with_their_places_and_left_out(rows, capsys):
    with rows.open("a") as file:
        file.write('{"source": "A"}\n{"source": " ", "target": "a"}\n{"source": "A", "target": 3}\n')
    said = run(capsys, rows)
    assert "bad rows    3 of 123: " in said and f"{rows}:121: " in said and f"{rows}:123: " in said
    assert "\non_bad_row: skip  # 3 bad rows" in said
    report = json.loads(run(capsys, rows, "--format", "json"))
    assert report["rows"] == 120 and sum(report["bad_rows"]["reasons"].values()) == 3
    assert report["recipe"]["on_bad_row"] == "skip"


@pytest.mark.parametrize("uneven", [[], ["--max_length_ratio", "5"]])
def test_the_command_for_a_tokenizer_takes_the_data_as_the_recipe_does(rows, capsys, uneven):
    with rows.open("a") as file:
        file.write('{"source": "A"}\n' * (not uneven) + json.dumps({"source": "A T" * 99, "target": "a t"}) + "\n")
    said = run(capsys, rows, *uneven)
    (command,) = (line for line in said.splitlines() if line.startswith("hf-xformer tokenizer "))
    assert ("max_length_ratio: 5" in said) == bool(uneven) and "--max_length_ratio" in command
    tokenizer_command.main(shlex.split(command, comments=True)[2:])
    assert "left out" in capsys.readouterr().err


def test_a_file_of_bad_rows_alone_is_shown(rows, capsys):
    rows.write_text('{"source": "A"}\n\n{"source": " ", "target": "a"}\n')
    said = run(capsys, rows, "--plot", "lengths.png")
    assert said.startswith("rows        0\nbad rows    3 of 3: 1 no field 'target', 1 empty line, 1 empty source\n")
    assert f"  {rows}:2: empty line\n" in said and not (rows.parent / "lengths.png").exists()
    report = json.loads(run(capsys, rows, "--format", "json"))
    assert (report["rows"], report["bad_rows"]["rows"], report["recipe"]["on_bad_row"]) == (0, 3, "skip")
    fine = rows.with_name("fine.jsonl")
    fine.write_text('{"source": "A", "target": "a"}\n')
    assert "bad there   3 of 3: " in run(capsys, fine, "--against", rows)


def test_a_tokenizer_adds_tokens_and_what_it_does_not_know(rows, tokenizer, capsys):
    said = run(capsys, rows, "--tokenizer", tokenizer)
    assert "unknown     180 of the sources' tokens" in said and "texts: 120 T, 60 G" in said
    assert "\nsource tokens " in said and "\nsources by tokens\n" in said
    report = json.loads(run(capsys, rows, "--tokenizer", tokenizer, "--format", "json"))
    assert report["source"]["tokens"]["max"] == 4 and report["recipe"]["tokenizer_name"] == tokenizer
    assert report["target"]["unknown_tokens"]["most_frequent"]["x"] == 120


def test_what_stands_in_a_test_set_too_is_told(rows, tmp_path, capsys):
    test = tmp_path / "test.jsonl"
    test.write_text(
        '{"source": "C A T", "target": "other than others"}\n{"source": "new", "target": "x y"}\n{"source": "n"}\n'
    )
    said = run(capsys, rows, "--against", test)
    assert "sources  1 of 2 (50.00 %) there, 60 of 240 (25.00 %) here" in said
    assert "bad there   1 of 3: " in said
    words = [rows, "--against", test, "--format", "json", "--max_length_ratio", "1.01"]  # for the training data alone
    report = json.loads(run(capsys, *words))["against"]
    assert (report["rows"], report["pairs"]["there"], report["targets"]["there"]) == (2, 0, 1)
    assert report["targets"]["here"] == 120


def test_a_test_set_may_have_columns_of_other_names(rows, tmp_path, capsys):
    test = tmp_path / "test.jsonl"
    test.write_text('{"from": "C A T", "target": "other than others"}\n')
    said = run(capsys, rows, "--against", test, "--against_source_column", "from")
    assert "sources  1 of 1 (100.00 %) there, 60 of 240" in said


PLAIN = ["The cat sat. It slept!", "A dog  ran.", "A dog ran.", "\u0041\u030a is a letter.", "Birds fly south."]


@pytest.fixture
def plain(rows):
    path = rows.with_name("corpus.txt")
    path.write_text("".join(f"{text}\n" for text in PLAIN * 20))
    return path


@pytest.mark.parametrize(
    ("entries", "objective"),
    [
        (None, "denoising"),
        ({"mask_token": True}, "denoising"),
        ({"sentinels": 9}, "span_corruption"),
        ({}, "prefix_lm"),
    ],
)
def test_plain_text_has_one_side_and_an_objective_that_its_tokenizer_has_the_tokens_for(
    plain, capsys, entries, objective
):
    words = [plain, "--one_column"]
    if entries is not None:
        train_tokenizer(PLAIN, "bpe", vocab_size=400, **entries).save_pretrained(plain.parent / "tokenizer")
        words += ["--tokenizer", "tokenizer"]
    said = run(capsys, *words)
    assert said.startswith(
        "rows        100\nbad rows    0 of 100\nduplicates  96 of 100 texts repeat an earlier one, "
    )
    assert "target" not in said.partition("# Options")[0] and "longer : shorter" not in said
    assert "20 sources: not in Unicode's normal form C" in said
    report = json.loads(run(capsys, *words, "--format", "json"))
    assert report["duplicates"]["repeated_texts"] == 96 and not {"target", "pairs", "length_ratio"} & report.keys()
    assert report["recipe"]["objective"] == objective
    if entries is None:
        (command,) = (line for line in said.splitlines() if line.startswith("hf-xformer tokenizer "))
        tokenizer_command.main(shlex.split(command, comments=True)[2:])
        return
    more = "config_name: x\noutput_dir: y\nuse_cpu: true\n"
    options = said[said.index("# Options of a recipe") :].partition("\n\n")[0]
    (plain.parent / "recipe.yaml").write_text(f"{options}\n{more}")
    model, data_args, trainer = parse_run([str(plain.parent / "recipe.yaml")], "")
    check_options(model, data_args, trainer)
    assert data_args.objective == objective and trainer.max_steps == report["recipe"]["max_steps"] > 0
    assert data_args.max_source_length == data_args.max_target_length >= report["source"]["tokens"]["max"]


def test_a_table_with_targets_is_no_plain_text_unless_they_are_the_texts(rows, capsys):
    rows.write_text("".join(json.dumps({"source": "A", "target": text}) + "\n" for text in PLAIN))
    assert "5 bad rows" in (said := refused(data, [str(rows), "--one_column"], capsys))
    assert "5 a target in 'target'" in said and "--one_column is for texts without targets" in said
    other = refused(tokenizer_command, [f"--train_file={rows}", "--one_column", "--output_dir=t"], capsys)
    assert other == said.replace("error: ", "error: --train_file: ")
    said = run(capsys, rows, "--one_column", "--source_column", "target")
    assert said.startswith("rows        5\nbad rows    0 of 5\n") and "\nsource_column: target\n" in said


def test_texts_of_a_table_and_of_another_file_are_compared(plain, capsys):
    table = plain.with_name("held-out.jsonl")
    table.write_text('{"text": "A dog ran."}\n{"text": "New."}\n')
    said = run(capsys, plain, "--one_column", "--against", table, "--against_source_column", "text", "--plot", "a.png")
    assert "held-out.jsonl: 2 rows; what stands in both:\n" in said
    assert "  sources  1 of 2 (50.00 %) there, 40 of 100 (40.00 %) here, first 'A dog  ran.'\n" in said.replace(
        '"', "'"
    )
    assert "pairs" not in said.partition("# Options")[0] and (plain.parent / "a.png").read_bytes().startswith(
        b"\x89PNG"
    )


# Targets that one kind of tokenizer or one language suits, and what is proposed for them.
SENTENCES = {
    "Chinese": "我喜欢{}狗。",
    "Japanese": "犬が{}好きです。",
    "Korean": "나는 개를 {} 좋아한다",
    "Thai": "ฉันชอบ{}สุนัขของคุณมากเลย",
    "Lao": "ຂ້ອຍມັກ{}ໝາ",
    "Tibetan": "ང་ཁྱི་ལ་{}དགའ།",
    "Burmese": "ကျွန်တော်ခွေးကို{}ကြိုက်တယ်",
    "Khmer": "ខ្ញុំចូលចិត្ត{}ឆ្កែ",
}
TARGETS = {
    **{text: (["sacrebleu", "chrf"], TOKENIZERS[language]) for language, text in SENTENCES.items()},
    "dogs number {} are liked": (["sacrebleu", "chrf"], None),
    "nom{}": (["cer", "exact_match"], None),
    "K AE T": (["per", "wrong_words"], None),
}


@pytest.mark.parametrize("target", TARGETS, ids=[*SENTENCES, "words", "names", "phonemes"])
def test_the_options_can_be_pasted_into_a_recipe(target, tmp_path, capsys):
    path = tmp_path / "a: file, renamed.csv"
    short = ["a,b\n"] * 1500  # so that the usual ratio of lengths is the smallest
    lines = (
        [f"{i} Wörter,{target.format(i)}\n" for i in range(1500)] if "{}" in target else [f"C A T,{target}\n"] * 300
    )
    uneven = ["a" * 400 + ",b\n", "no second cell\n"]
    for rows in (lines, [*lines, *uneven], [*short, *uneven]):
        path.write_text("de,en\n" + "".join(rows))
        words = [path, "--source_column", "de", "--target_column", "en"]
        said = run(capsys, *words)
        options = said[said.index("# Options of a recipe") :].partition("\n\n")[0]
        more = (
            f"validation_file: {tmp_path.name}\neval_strategy: epoch\nconfig_name: x\noutput_dir: y\nuse_cpu: true\n"
        )
        (tmp_path / "recipe.yaml").write_text(f"{options}\n{more}")
        model, data_args, trainer = parse_run([str(tmp_path / "recipe.yaml")], "")
        check_options(model, data_args, trainer)
        assert rows[0] not in lines or (data_args.metrics, data_args.sacrebleu_tokenize) == TARGETS[target]
        assert (data_args.on_bad_row == "skip") == (data_args.max_length_ratio is not None) == (uneven[0] in rows)
        recipe = json.loads(run(capsys, *words, "--format", "json"))["recipe"]
        assert [recipe.pop("train_file")] == data_args.train_file == [str(path)]
        assert recipe == {name: getattr(data_args, name, None) or getattr(model, name) for name in recipe}


def test_what_is_printed_can_be_kept(rows, capsys):
    said = run(capsys, rows, "--output_file", "report.txt")
    assert (rows.parent / "report.txt").read_text() == said
    said = run(capsys, rows, "--format", "json", "--output_file", "report.json")
    assert json.loads((rows.parent / "report.json").read_text()) == json.loads(said)


@pytest.mark.slow
def test_the_picture_is_one(rows, tokenizer, capsys):
    run(capsys, rows, "--plot", "lengths.png", "--tokenizer", tokenizer)
    assert (rows.parent / "lengths.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["rows.jsonl", "--plot", "a.xyz"],
            "a.xyz: cannot draw a picture of type 'xyz'; png, pdf and svg are possible",
        ),
        (["rows.jsonl", "--plot", "none/a.png"], "--plot none/a.png: there is no folder none"),
        (["rows.jsonl", "--output_file", "none/a"], "--output_file none/a: there is no folder none"),
        (["rows.jsonl", "--target_tokenizer", "t"], "--target_tokenizer t: give the source's with --tokenizer too"),
        (["rows.jsonl", "--tokenizer", "/none"], "/none: there is no such file or folder"),
        (["rows.jsonl", "--coverage", "101"], "--coverage: must be a number above 0 and at most 100, got 101"),
        (["rows.jsonl", "--format", "yaml"], "'yaml' is none of its choices; there are text, json"),
        (
            ["rows.jsonl", "--output_file", "rows.jsonl"],
            "--output_file rows.jsonl would overwrite the input rows.jsonl",
        ),
        (["rows.jsonl", "--output_file", "{}/../rows.jsonl"], "/rows.jsonl would overwrite the input rows.jsonl"),
        (["rows.jsonl", "--output_file", "link"], "link would overwrite the input rows.jsonl"),
        (["a.csv", "--against", "rows.jsonl", "--output_file", "rows.jsonl"], "overwrite the input rows.jsonl"),
        (["a.png", "--plot", "./a.png"], "--plot a.png would overwrite the input a.png"),
        (["d", "--output_file", "d/report.json"], "d/report.json would be one of the files in the input d"),
        (["rows.jsonl", "--plot", "a.png", "--output_file", "{}/../a.png"], "another output has this name already"),
        (["none.jsonl"], "none.jsonl"),
        (["rows.jsonl", "--against", "none.jsonl"], "none.jsonl"),
        (["rows.jsonl", "--against_source_column", "from"], "--against_source_column does nothing without --against"),
        (["rows.jsonl", "--target_column", "tgt"], "--target_column gives the name of another"),
        *(
            (["rows.jsonl", "--against", file, *words], f"--against_{side}_column gives the name of another")
            for file, words, side in [
                ("other.jsonl", [], "source"),
                ("other.jsonl", ["--against_source_column", "from"], "target"),
                ("other.csv", ["--against_source_column", "from"], "target"),
                ("other.jsonl", ["--against_source_column", "from", "--against_target_column", "{{tgt}}"], "target"),
            ]
        ),
        (["empty.csv"], "empty.csv: there are no rows"),
        *(
            (["a.txt", "--one_column", f"--{option}", value], f"--{option} does nothing with --one_column")
            for option, value in [
                ("target_column", "tgt"),
                ("max_length_ratio", "3"),
                ("against_target_column", "tgt"),
            ]
        ),
        (
            ["a.txt", "--one_column", "--tokenizer", "t", "--target_tokenizer", "t"],
            "--target_tokenizer does nothing with --one_column, which has no targets: leave one out",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(rows, capsys, words, said):
    (rows.parent / "link").symlink_to(rows)
    (rows.parent / "empty.csv").write_text("source,target\n")
    (rows.parent / "other.csv").write_text("from,to\nA,a\n")
    (rows.parent / "other.jsonl").write_text('{"from": "A", "to": "a"}\n')
    (rows.parent / rows.parent.name).mkdir()
    (rows.parent / "d").mkdir()
    there, content = sorted(rows.parent.iterdir()), rows.read_text()
    assert said in refused(data, [word.format(rows.parent.name) for word in words], capsys)
    assert sorted(rows.parent.iterdir()) == there and rows.read_text() == content
