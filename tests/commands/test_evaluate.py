# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`evaluate` on files of predictions: systems that are compared, and what is refused before anything is decoded."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
from small_models import make_model

from hf_xformer.commands import evaluate
from hf_xformer.data.templates import remember
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.predictions import is_predictions, read_predictions, write_predictions


SOURCES = ["CAT", "DOG", "BIRD"]
REFERENCES = [["K AE T"], ["D AO G", "D AA G"], ["B ER D"]]


@pytest.fixture
def systems(tmp_path):
    """Two files of predictions, of which the second has an error more."""
    for name, predictions in {"a": ["K AE T", "D AA G", "B D"], "b": ["K AE", "D AA G", ""]}.items():
        write_predictions(tmp_path / f"{name}.jsonl", SOURCES, predictions, REFERENCES)
    return [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]


def test_files_of_predictions_are_compared_and_nothing_is_decoded(systems, tmp_path, capsys):
    out = tmp_path / "out.json"
    evaluate.main(
        [*systems, "--metrics", "per", "wrong_words", "--output_file", str(out), "--bootstrap_samples", "50"]
    )
    content, captured = json.loads(out.read_text()), capsys.readouterr()
    assert [each["wrong_words"] for each in content["systems"]] == [33.3333, 66.6667]
    assert [each["per"] for each in content["systems"]] == [11.1111, 44.4444]
    assert content["significance"]["per"][1]["difference"] == pytest.approx(100 / 3, abs=1e-3)
    assert content["significance"]["samples"] == 50 and 0 < content["significance"]["per"][1]["p_value"] <= 1
    assert "per          " in captured.out and "papers on pronunciation (G2P) call it WER" in captured.err


def test_systems_of_one_name_are_told_apart(systems, tmp_path, monkeypatch, capsys):
    for name in ("one/deep", "two/deep"):
        (tmp_path / name).mkdir(parents=True)
    paths = [tmp_path / "one/deep/p.jsonl", tmp_path / "two/deep/p.jsonl", tmp_path / "a.jsonl"]
    for path, system in zip(paths[:2], systems, strict=True):
        shutil.copy(system, path)
    evaluate.main([*map(str, paths), "--metrics", "per", "--bootstrap_samples", "9"])
    printed, _, results = capsys.readouterr().out.partition("\n{")
    content = json.loads("{" + results)
    assert [each["checkpoint"] for each in content["systems"]] == ["one/deep/p.jsonl", "two/deep/p.jsonl", "a.jsonl"]
    assert "one/deep/p.jsonl" in printed and str(tmp_path) not in printed


def test_one_file_is_scored_as_when_it_was_decoded(systems, capsys):
    evaluate.main([systems[0], "--metrics", "per", "--show", "3"])
    printed, _, results = capsys.readouterr().out.partition("{")
    assert json.loads("{" + results)["per"] == 11.1111
    assert "DOG     D AA G      D AA G     right" in printed and "BIRD    B D         B ER D" in printed


def test_a_word_whose_pronunciations_stand_in_several_rows_is_said(tmp_path, capsys):
    rows = [("CAT", ["K AE T"]), ("DOG", ["D AO G"]), ("DOG", ["D AA G"]), ("CAT", ["K AE T"]), ("DOG", ["D AO G"])]
    for name, content in {"rows": rows, "words": [("CAT", ["K AE T"]), ("DOG", ["D AO G", "D AA G"])]}.items():
        sources, references = zip(*content, strict=True)
        predictions = ["K AE T" if source == "CAT" else "D AO G" for source in sources]
        write_predictions(tmp_path / f"{name}.jsonl", sources, predictions, references)
        evaluate.main([str(tmp_path / f"{name}.jsonl"), "--metrics", "wrong_words"])
        results, said = capsys.readouterr()
        assert json.loads(results)["wrong_words"] == (20 if name == "rows" else 0)
        expected = "1 of 5 rows repeat a source with other references, first row 3: 'DOG'; each is scored by its own"
        assert (expected in said) == (name == "rows") and ("repeat" in said) == (name == "rows")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["A", "A"], "compared with itself"),
        (["A", "B", "--num_beams", "3"], "--num_beams is for decoding: nothing is decoded"),
        (["A", "--overlong", "error"], "--overlong is for decoding: nothing is decoded"),
        (["A", "--batch_size", "3"], "--batch_size is for decoding"),
        (["A", "--trust_remote_code"], "--trust_remote_code is for decoding"),
        (["A", "--sacrebleu_tokenize", "zh"], "--sacrebleu_tokenize is for the metric sacrebleu, which is not in"),
        (["A", "--comet_model", "x"], "--comet_model is for the metric comet, which is not in --metrics"),
        (["A", "--comet_python", "x"], "--comet_python is for the metric comet"),
        (["A", "--bootstrap_samples", "7"], "--bootstrap_samples compares systems, and there is one"),
        (["A", "--source_column", "q"], "--source_column says how --test_file is read, and there is none"),
        (["A", "--on_bad_row", "skip"], "--on_bad_row says how --test_file is read"),
        (["A", "--max_length_ratio", "9"], "--max_length_ratio: unknown option"),  # a test set is measured as it is
        (["A", "B", "--predictions_file", "c.jsonl"], "1 files for 0 checkpoints"),
        (["some/model"], "--test_file is missing, which some/model is to decode"),
        (["A", "OTHER"], "its row 2 has the source 'DOC', not 'DOG'"),
        (["A", "SHORT"], "its 2 rows are not the 3 of the test set"),
        (
            ["BROKEN"],
            ":1: no field 'prediction': there are 'source', 'target'; rows of --predictions_file have a text",
        ),
        (["MANY"], "5 bad rows of 6: 1 a key occurs twice, 1 empty line, 1 prediction is not a text, "),
        (["A", "--metrics", "comet"], "needs an environment of its own"),
        (["SPACES", "--metrics", "per"], "the references hold no symbols"),
        (["A", "--metrics", "wrong_word"], "did you mean wrong_words?"),
        (["A", "--sacrebleu_tokenize", "jp"], "'jp' is none of its choices"),
        (["JAPANESE", "--metrics", "sacrebleu", "--sacrebleu_tokenize", "ja-mecab"], "hf-xformer[ja]"),
    ],
)
def test_what_cannot_be_is_one_line(words, said, systems, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "MeCab", None)
    files = {"A": systems[0], "B": systems[1]}
    rows = {
        "OTHER": (["CAT", "DOC", "BIRD"], SOURCES, REFERENCES),
        "SHORT": (SOURCES[:2], SOURCES[:2], REFERENCES[:2]),
        "SPACES": (["a"], ["b"], [[" "]]),
        "JAPANESE": (["a"], ["b"], [["本です"]]),
    }
    for name, content in rows.items():
        write_predictions(tmp_path / f"{name}.jsonl", *content)
        files[name] = str(tmp_path / f"{name}.jsonl")
    (tmp_path / "BROKEN.jsonl").write_text('{"source": "a", "target": "b"}\n')
    files["BROKEN"] = str(tmp_path / "BROKEN.jsonl")
    good = json.dumps({"source": "a", "prediction": "", "references": ["b"]})
    bad = [good[:-1] + ', "source": "b"}', "", good.replace('""', "3"), good.replace('["b"]', "[]"), "[]", ""]
    (tmp_path / "MANY.jsonl").write_text("\n".join([good, *bad]))
    files["MANY"] = str(tmp_path / "MANY.jsonl")
    words = [files.get(word, word) for word in words]
    with pytest.raises(SystemExit) as stop:
        evaluate.main(words if "--metrics" in words else [*words, "--metrics", "per"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 2 and said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.jsonl", "--output_file", "a.jsonl"], "--output_file a.jsonl would overwrite the input a.jsonl"),
        (["a.jsonl", "{}/b.jsonl", "--output_file", "b.jsonl"], "--output_file b.jsonl would overwrite the input"),
        (["x", "--test_file", "a.jsonl", "--predictions_file", "./a.jsonl"], "would overwrite the input a.jsonl"),
        (
            ["x", "a.jsonl", "--test_file", "b.jsonl", "--predictions_file", "{}/a.jsonl"],
            "overwrite the input a.jsonl",
        ),
        (["x", "--test_file", ".", "--predictions_file", "c.jsonl"], "would be one of the files in the input ."),
        (["x", "y", "--test_file", "b.jsonl", "--predictions_file", "c.jsonl", "./c.jsonl"], "another output"),
        (
            ["x", "--test_file", "b.jsonl", "--predictions_file", "c.jsonl", "--output_file", "c.jsonl"],
            "another output",
        ),
        (["x", "x/", "--test_file", "b.jsonl"], "x/: it would be compared with itself"),
        (["a.jsonl", "{}/a.jsonl"], "/a.jsonl: it would be compared with itself"),
    ],
)
def test_no_file_is_read_and_written_or_written_twice(words, said, systems, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as stop:
        evaluate.main([*(word.format(tmp_path) for word in words), "--metrics", "per"])
    assert stop.value.code == 2 and said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_of_predictions_are_read_as_other_data_are(systems, tmp_path):
    content = b"\xef\xbb\xbf" + Path(systems[0]).read_bytes() + b"\r\n\n"
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(content))
    assert is_predictions("none/c.jsonl.gz") and not is_predictions("some/model")
    assert read_predictions(tmp_path / "c.jsonl.gz") == read_predictions(Path(systems[0]))
    assert read_predictions(tmp_path / "c.jsonl.gz", 2)[0] == SOURCES[:2]


@pytest.mark.slow
def test_rows_of_each_group_are_scored_under_its_name(checkpoint_of_tags, capsys):
    model, test = checkpoint_of_tags
    words = [str(model), "--test_file", str(test), "--metrics", "per", "chrf", "--by", "{source_lang}-{target_lang}"]
    evaluate.main([*words, "--source_column", "<2{target_lang}> {source}"])
    results = json.loads(capsys.readouterr().out)
    assert results["samples_en-de"] == 2 and results["samples_en-fr"] == 1 and results["samples"] == 3
    for pair, language in (("en-de", "de"), ("en-fr", "fr")):
        rows = [row for row in map(json.loads, test.read_text().splitlines()) if row["target_lang"] == language]
        alone = test.with_name(f"{language}.jsonl")
        alone.write_text("".join(json.dumps(row) + "\n" for row in rows))
        # The token is put there by the template of the test set, or by the option.
        evaluate.main([str(model), "--test_file", str(alone), "--metrics", "per", "chrf", "--tgt_lang", language])
        wanted = json.loads(capsys.readouterr().out)
        assert (results[f"per_{pair}"], results[f"chrf_{pair}"]) == (wanted["per"], wanted["chrf"])


def test_a_group_whose_figures_would_be_called_as_signatures_is_refused(tmp_path, capsys):
    rows = [{"source": "A", "target": "A", "kind": kind} for kind in ("word", "signature")]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["none", "--test_file", str(tmp_path / "test.jsonl"), "--metrics", "per", "--by", "{kind}"]
    with pytest.raises(SystemExit):
        evaluate.main(words)
    assert "--by {kind}: row 2 has the group 'signature', by which signatures end" in capsys.readouterr().err


def test_a_group_that_a_metric_cannot_score_is_refused_before_anything_is_decoded(tmp_path, capsys):
    """Its references are in another script than most, which wants a package that is not installed."""
    texts = ["a cat"] * 30 + ["\u732b\u304c\u3044\u307e\u3059"]
    rows = [{"source": "A", "target": each, "lang": "en" if each == "a cat" else "ja"} for each in texts]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["none", "--test_file", str(tmp_path / "test.jsonl"), "--metrics", "sacrebleu", "--by", "{lang}"]
    with pytest.raises(SystemExit):
        evaluate.main(words)
    assert "--by {lang}, group 'ja': sacrebleu: " in capsys.readouterr().err


@pytest.fixture
def checkpoint_of_tags(tmp_path):
    tokenizer = train_tokenizer(["A B C D E F G H"], "symbol", added_tokens=["<2de>", "<2fr>"])
    remember(["<2{target_lang}> {source}"], tokenizer)
    model = make_model(vocab_size=len(tokenizer))
    model.generation_config.update(max_length=8, min_length=4, suppress_tokens=[0, 2, 3])
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path / "model")
    test = tmp_path / "test.jsonl"
    pairs = [("A B", "B A", "de"), ("C", "C C", "fr"), ("D E F", "F", "de")]
    rows = [{"source": s, "target": t, "source_lang": "en", "target_lang": lang} for s, t, lang in pairs]
    test.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "model", test
