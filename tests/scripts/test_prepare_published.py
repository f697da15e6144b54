# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Data that the literature has measured on: rows of the published files, and other files refused."""

import hashlib
import json

import pytest
from small_runs import load_script


CONTENTS = {
    "prepare_multi30k": {
        "code": "#version: 0.2\ni n\n",
        **{f"{name}.{side}": "" for name in ("valid", "test.2016", "test.2017", "test.coco") for side in ("en", "de")},
        "train.en": "a gir@@ l .\ntwo men \n",
        "train.de": "ein m@@ ä@@ dchen .\nzwei männer\n",
    },
    "prepare_pronasyl": {
        "g014b2b.train": "".join(f"A{chr(65 + i)}\tAH {i}\n" for i in range(26)) + "AA\tEY 0\n",
        "g014b2b.test": "TOMATO\tT AH M EY T OW\nTOMATO\tT AH M AA T OW\n",
    },
}
scripts = pytest.mark.parametrize("name", CONTENTS)


def prepare(name, tmp_path, change=None):
    """Runs a script on small files, of which it knows the digests; `change` is a file that is another one."""
    script = load_script(name)
    data = tmp_path / "published"
    data.mkdir(exist_ok=True)
    for file, content in CONTENTS[name].items():
        lines = content.count("\n")
        script.FILES[file] = script.Published(lines, hashlib.sha256(content.encode()).hexdigest())
        (data / file).write_text(content + ("one more\n" if file == change else ""))
    script.main(["--data", str(data), "--output_dir", str(tmp_path / "rows")])
    return {
        path.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (tmp_path / "rows").glob("*.jsonl")
    }


def test_words_are_joined_again(tmp_path):
    rows = prepare("prepare_multi30k", tmp_path)
    assert rows["train.jsonl"] == [
        {"source": "a girl .", "target": "ein mädchen ."},
        {"source": "two men", "target": "zwei männer"},
    ]
    assert set(rows) == {f"{name}.jsonl" for name in ("train", "validation", "test", "test.2017", "test.coco")}
    assert (tmp_path / "rows/code").read_text() == CONTENTS["prepare_multi30k"]["code"]


def test_pronunciations_of_a_word_stand_together_and_no_word_in_two_splits(tmp_path):
    rows = prepare("prepare_pronasyl", tmp_path)
    assert rows["test.jsonl"] == [{"source": "T O M A T O", "target": ["T AH M EY T OW", "T AH M AA T OW"]}]
    sources = [row["source"] for split in ("train", "validation") for row in rows[f"{split}.jsonl"]]
    assert sorted(sources) == [f"A {chr(65 + i)}" for i in range(26)]
    assert {"source": "A A", "target": ["AH 0", "EY 0"]} in rows["train.jsonl"] + rows["validation.jsonl"]


@scripts
def test_a_file_of_another_split_is_refused(name, tmp_path, capsys):
    file = next(file for file in CONTENTS[name] if "train" in file)
    with pytest.raises(SystemExit):
        prepare(name, tmp_path, change=file)
    said = capsys.readouterr().err
    assert said.startswith("error: ") and f"{file} is not the published file: it has" in said and "https://" in said
    assert not (tmp_path / "rows").exists()


@scripts
def test_a_file_of_another_split_is_refused_though_rows_are_there(name, tmp_path):
    rows = prepare(name, tmp_path)
    (tmp_path / "rows/train.jsonl").write_text("")  # as an earlier version of the script, or another one, left it
    with pytest.raises(SystemExit):
        prepare(name, tmp_path, change=next(file for file in CONTENTS[name] if "test" in file))
    assert prepare(name, tmp_path) == rows


@scripts
def test_a_missing_file_is_named_with_where_to_get_it(name, tmp_path, capsys):
    with pytest.raises(SystemExit):
        load_script(name).main(["--data", str(tmp_path), "--output_dir", str(tmp_path / "rows")])
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "No such file" in said and "https://" in said
