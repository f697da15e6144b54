# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The data of several languages, from small files like those of Debian's archive, and its recipe on them."""

import bz2
import hashlib
import json
import lzma
from pathlib import Path

import pytest
from small_runs import load_script

from hf_xformer.commands import evaluate, tokenizer, train


KINDS = ("library", "editor", "daemon", "parser", "client")
SPLITS = ("train", "validation", "test")
LANGUAGES = {"de": "für", "fr": "pour", "it": "per"}


@pytest.fixture(scope="module")
def prepare():
    return load_script("prepare_descriptions")


def stanza(package: str, english: str, language: str, text: str) -> str:
    digest = hashlib.md5(english.encode()).hexdigest()
    return f"Package: {package}\nDescription-md5: {digest}\nDescription-{language}: {text}\n A longer text: of it.\n\n"


def write_archive(folder: Path) -> None:
    """Writes 500 packages, of which one has no translation and one an old one."""
    folder.mkdir(parents=True)
    packages = [(f"{kind}{number}", f"small {kind} for format {number}") for kind in KINDS for number in range(100)]
    english = "".join(stanza(name, text, "en", text) for name, text in packages)
    (folder / "Translation-en.xz").write_bytes(lzma.compress(english.encode()))
    for language, word in LANGUAGES.items():
        texts = [f"{kind} {word} {number}" for kind in KINDS for number in range(100)]
        texts[7] = "<trans>"
        found = [stanza(*pair, language, text) for pair, text in zip(packages, texts, strict=True)]
        found[8] = stanza("library8", "what it was once", language, "old")
        (folder / f"Translation-{language}.bz2").write_bytes(bz2.compress("".join(found).encode()))


def rows_of(folder: Path) -> dict[str, list[dict]]:
    return {path.stem: list(map(json.loads, path.open(encoding="utf-8"))) for path in folder.glob("*.jsonl")}


def test_pairs_are_joined_and_no_text_is_in_two_splits_of_any_language(prepare, tmp_path, capsys):
    write_archive(tmp_path / "cache/bookworm")
    words = ["--output_dir", str(tmp_path / "data"), "--cache_dir", str(tmp_path / "cache")]
    prepare.main(words)
    rows = rows_of(tmp_path / "data")
    assert len({row["source"] for each in rows.values() for row in each}) == 498
    assert sum(map(len, rows.values())) == 3 * 498
    splits = [{row["source"] for name in rows if name.startswith(split) for row in rows[name]} for split in SPLITS]
    assert sum(map(len, splits)) == 498
    for row in rows["train-fr"]:
        kind, number = row["source"].split()[1], row["source"].split()[-1]
        assert row["target"] == f"{kind} pour {number}" and row["target_lang"] == "fr"
    assert {row["target_lang"] for row in rows["test"]} == {*LANGUAGES}
    origin = json.loads((tmp_path / "data/origin.json").read_text())
    content = (tmp_path / "cache/bookworm/Translation-de.bz2").read_bytes()
    assert origin["sha256"]["Translation-de.bz2"] == hashlib.sha256(content).hexdigest()
    prepare.main(words)
    assert "already holds" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        prepare.main([*words, "--languages", "de"])
    assert "made with --languages de fr it --suite bookworm, and" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "same"),
    [("Library for sound (documentation)", "library for sound"), ("editor (GTK) for text", "editor for text")],
)
def test_brackets_and_case_do_not_decide_the_split(prepare, text, same):
    assert prepare.digest(text) == prepare.digest(same) != prepare.digest("library for sounds")


@pytest.mark.parametrize("content", [b"no such format", bz2.compress(b"Package: a")[:-4], b""])
def test_a_broken_file_is_named(prepare, content, tmp_path, capsys):
    write_archive(tmp_path / "cache/bookworm")
    (tmp_path / "cache/bookworm/Translation-de.bz2").write_bytes(content)
    with pytest.raises(SystemExit):
        prepare.main(["--output_dir", str(tmp_path / "data"), "--cache_dir", str(tmp_path / "cache")])
    line = capsys.readouterr().err
    assert "Translation-de.bz2" in line or "de: too few translated descriptions" in line
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_an_address_without_the_file_is_named(prepare, scheme, tmp_path, capsys):
    with pytest.raises(SystemExit):
        mirror = ["--mirror", f"{scheme}{tmp_path}"]
        prepare.main([*mirror, "--output_dir", str(tmp_path / "data"), "--cache_dir", str(tmp_path / "cache")])
    line = capsys.readouterr().err
    assert "dists/bookworm/main/i18n/Translation-en.xz" in line and "to go on without it" in line


@pytest.mark.slow
def test_the_recipe_runs_and_is_scored_by_language(prepare, tmp_path, monkeypatch, capsys):
    write_archive(tmp_path / "cache/bookworm")
    data = tmp_path / "data/descriptions"
    prepare.main(["--output_dir", str(data), "--cache_dir", str(tmp_path / "cache")])
    monkeypatch.chdir(tmp_path)
    files = [str(data / f"train-{language}.jsonl") for language in LANGUAGES]
    tags = [f"<2{language}>" for language in LANGUAGES]
    words = ["--vocab_size", "400", "--added_tokens", *tags, "--output_dir", str(data / "tokenizer")]
    tokenizer.main(["--train_file", *files, *words])
    small = "--use_cpu true --disable_tqdm true --max_steps 2 --eval_steps 2 --save_steps 2 --warmup_steps 1"
    train.main(["configs/train/descriptions.yaml", *small.split(), "--max_tokens", "256", "--max_eval_samples", "8"])
    results = json.loads((tmp_path / "runs/descriptions/eval_results.json").read_text())
    assert {f"eval_{language}_chrf" for language in LANGUAGES} <= results.keys()
    capsys.readouterr()
    test = ["--test_file", str(data / "test.jsonl"), "--max_new_tokens", "5", "--metrics", "chrf"]
    evaluate.main(
        ["runs/descriptions", *test, "--by", "{target_lang}", "--source_column", "<2{target_lang}> {source}"]
    )
    assert {f"chrf_{language}" for language in LANGUAGES} <= json.loads(capsys.readouterr().out).keys()
