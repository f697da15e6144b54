# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The data and the recipe of long texts, from small packages that look like Debian's, with SWORD modules in them."""

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib

import pytest
from pysword.books import BibleStructure
from pysword.canons import canons
from small_runs import load_script

from hf_xformer.data.reading import read_rows
from hf_xformer.training.recipe import parse_run


KJV = {
    ("Genesis", 1, 1): "In the <w lemma='strong:H7225'>beginning</w> God created.",
    ("Genesis", 1, 2): "And the earth was void;",
    ("Genesis", 2, 1): "Thus the heavens were finished.",
    ("Ruth", 1, 1): "Now it came to pass.",
    ("Esther", 1, 1): "Now it came to pass again.",
    ("Luke", 17, 36): "Two men shall be in the field.",
    ("Luke", 17, 37): "Where, Lord? <chapter eID='Luke.17'/>",
}
WEB = {
    ("Genesis", 1, 1): "In the beginning, God<note>Hebrew: Elohim.</note>created.",
    ("Genesis", 1, 2): "The earth was empty.",
    ("Genesis", 2, 1): "The heavens were finished.",
    ("Tobit", 1, 1): "The book of the words of Tobit.",
    ("Ruth", 1, 1): "In the days.",
    ("Esther", 1, 1): "In those days.",
    ("Luke", 17, 36): "<note>Some manuscripts add a verse.</note>",
    ("Luke", 17, 37): "“Where, Lord?”<chapter eID='Luke.17'/><item>Glossary</item>",
}
EDITIONS = {
    "kjv": ("sword-text-kjv", "King James Version", "KJV", KJV),
    "web": ("sword-text-web", "World English Bible", "NRSVA", WEB),
}
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="packages are made and read with dpkg-deb")


@pytest.fixture(scope="module")
def prepare():
    return load_script("prepare_bible")


def write_module(library, description, versification, verses):
    """A SWORD module of the kind zText: a book's verses are compressed together, and an index leads to each."""
    texts = library / "modules/text"
    texts.mkdir(parents=True)
    (library / "mods.d").mkdir()
    (library / "mods.d/text.conf").write_text(
        f"[text]\nDescription={description}\nDataPath=./modules/text/\nModDrv=zText\nSourceType=OSIS\nEncoding=UTF-8\n"
        f"Versification={versification}\nBlockType=BOOK\nDistributionLicense=Public Domain\n"
    )
    structure = BibleStructure(versification.lower(), ["ot", "nt"])
    for testament in ("ot", "nt"):
        books, places = {}, {}
        for (book, chapter, verse), markup in verses.items():
            if structure.find_book(book)[0] == testament:
                (index,) = structure.ref_to_indicies(book, chapter, verse)[testament]
                text = books.setdefault(book, bytearray())
                places[index] = (list(books).index(book), len(text), len(markup.encode()))
                text += markup.encode()
        blocks = [zlib.compress(bytes(text)) for text in books.values()]
        starts = [sum(map(len, blocks[:number])) for number in range(len(blocks))]
        sizes = [len(text) for text in books.values()]
        (texts / f"{testament}.bzz").write_bytes(b"".join(blocks))
        (texts / f"{testament}.bzs").write_bytes(
            b"".join(struct.pack("<III", s, len(b), n) for s, b, n in zip(starts, blocks, sizes, strict=True))
        )
        (texts / f"{testament}.bzv").write_bytes(
            b"".join(struct.pack("<IIH", *places.get(index, (0, 0, 0))) for index in range(max(places) + 1))
        )


def make_package(folder, name, description=None, versification=None, verses=None):
    """A Debian package; without verses it holds its copyright alone."""
    root = folder / f"{name}-tree"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: test\n"
    )
    (root / f"usr/share/doc/{name}").mkdir(parents=True)
    (root / f"usr/share/doc/{name}/copyright").write_text(f"{name}: public domain\n")
    if verses is not None:
        write_module(root / "usr/share/sword", description, versification, verses)
    path = folder / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, path], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    return {option: make_package(folder, *edition) for option, edition in EDITIONS.items()}


def run(prepare, output, packages, *more):
    files = [word for option, path in packages.items() for word in (f"--{option}", path)]
    prepare.main([str(word) for word in ("--output_dir", output, *files, *more)])


def rows_in(folder):
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "validation", "test")
    }


@pytest.mark.parametrize(
    ("markup", "words"),
    [
        ("<w lemma='strong:H430'>God</w><note>Elohim</note><w>created</w>", "God created"),
        ("a shekel is ten gerahs<note>a weight</note>); half", "a shekel is ten gerahs); half"),
        ("I am he<note>or, I AM</note>,’ and", "I am he,’ and"),
        ("<title>A <w>Psalm</w></title> <l sID='1'/>How long?<l eID='1'/><l sID='2'/>Selah.", "How long? Selah."),
        ("<speaker>Beloved</speaker><lg/>My beloved", "My beloved"),
        ("the <divineName><w>LORD</w></divineName>’s <transChange>own</transChange>", "the LORD’s own"),
        ("<q who='Jesus'>¶ For</q>  God", "For God"),
        (r"my name \nd JEHOVAH\+nd* was", "my name JEHOVAH was"),
        ("Amen.<chapter eID='Rev.22'/><title>Glossary</title><item>Abba: father</item>", "Amen."),
        ("bread &amp; wine", "bread & wine"),
        ("<note>Some\nomit this verse.</note>", ""),
    ],
)
def test_of_the_markup_the_words_of_the_verse_are_left(prepare, markup, words):
    assert prepare.clean(markup) == words


def test_a_verse_that_one_side_lacks_is_in_neither_and_the_others_are_joined_in_order(prepare):
    sources = {("Genesis", 1, verse): f"s{verse}" for verse in range(1, 12)}
    targets = {("Genesis", 1, verse): f"t{verse}" for verse in range(12, 1, -1) if verse != 5}
    held_out = {("Ruth", 1, 1): "r", ("Esther", 1, 1): "e"}
    rows = prepare.make_rows(sources | held_out, held_out | targets)
    kept = [2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert rows["train"] == [
        {
            "source": " ".join(f"s{verse}" for verse in kept),
            "target": " ".join(f"t{verse}" for verse in kept),
            "reference": "Genesis 1",
        }
    ]
    verses = prepare.make_rows(sources | held_out, held_out | targets, most=1)["train"]
    assert [row["reference"] for row in verses] == [f"Genesis 1:{verse}" for verse in kept]
    assert verses[0] == {"source": "s2", "target": "t2", "reference": "Genesis 1:2"}
    passages = prepare.make_rows(sources | held_out, held_out | targets, most=4)["train"]
    assert [row["reference"] for row in passages] == ["Genesis 1:2-4", "Genesis 1:6-8", "Genesis 1:9-11"]
    assert " ".join(row["source"] for row in passages) == rows["train"][0]["source"]
    (row,) = prepare.make_rows(sources | held_out, held_out | targets, numbers=True)["train"]
    assert row["source"] == " ".join(f"{verse} s{verse}" for verse in kept) and "2 t2 3 t3 4 t4 6" in row["target"]


def test_whole_books_are_held_out_about_a_twentieth_of_the_text_for_each_purpose(prepare):
    verses = {book: sum(chapters) for part in ("ot", "nt") for book, _, _, chapters in canons["kjv"][part]}
    held_out = [book for books in prepare.HELD_OUT.values() for book in books]
    assert set(held_out) <= set(verses) and len(set(held_out)) == len(held_out)
    for split in ("validation", "test"):
        share = sum(count for book, count in verses.items() if prepare.split_of(book) == split) / sum(verses.values())
        assert 0.04 < share < 0.06
    assert prepare.split_of("Genesis") == "train"


@needs_dpkg
def test_two_packages_become_rows_that_the_data_reader_takes(prepare, packages, tmp_path, capsys):
    folder = tmp_path / "new" / "bible"
    run(prepare, folder, packages)
    expected = {
        "Genesis 1": (
            "In the beginning God created. And the earth was void;",
            "In the beginning, God created. The earth was empty.",
        ),
        "Genesis 2": ("Thus the heavens were finished.", "The heavens were finished."),
        "Luke 17": ("Where, Lord?", "“Where, Lord?”"),
    }
    rows = rows_in(folder)
    assert {row["reference"]: (row["source"], row["target"]) for row in rows["train"]} == expected
    assert [row["reference"] for row in rows["validation"] + rows["test"]] == ["Esther 1", "Ruth 1"]
    read = list(read_rows([folder / "train.jsonl"]))
    assert [(row["source"], *row["target"]) for row in read] == list(expected.values())
    assert (folder / "LICENSE").read_text() == "sword-text-kjv: public domain\n\nsword-text-web: public domain\n"
    files = {f"{split}.jsonl" for split in rows}
    assert {path.name for path in folder.iterdir()} == {"LICENSE", "origin.json", *files}

    printed = capsys.readouterr().out
    assert "train.jsonl: 3 rows, source 31 (longest 53)" in printed
    assert "King James Version: verses that the other lacks, left out: 1 (Luke)\n" in printed
    assert "World English Bible: verses that the other lacks, left out: 1 (Tobit)\n" in printed
    assert "licence: Public Domain;" in printed


@needs_dpkg
def test_rows_may_be_single_verses(prepare, packages, tmp_path):
    run(prepare, tmp_path, packages, "--verses", "1")
    references = [row["reference"] for row in rows_in(tmp_path)["train"]]
    assert references == ["Genesis 1:1", "Genesis 1:2", "Genesis 2:1", "Luke 17:37"]


@pytest.mark.slow
@needs_dpkg
def test_a_complete_folder_is_left_alone_and_a_broken_off_one_is_completed(prepare, packages, tmp_path, capsys):
    run(prepare, tmp_path, packages)
    (tmp_path / "train.jsonl").write_text("mine\n")
    run(prepare, tmp_path, {"kjv": "none.deb"})
    assert (tmp_path / "train.jsonl").read_text() == "mine\n"
    assert "already holds" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(prepare, tmp_path, packages, "--verses", "1", "--numbers")
    assert "rows made without options, and these would be made with --verses 1 --numbers" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(prepare, tmp_path, {**packages, "web": packages["kjv"]})
    assert "holds rows made from another file than --web" in capsys.readouterr().err

    (tmp_path / "test.jsonl").unlink()
    run(prepare, tmp_path, packages)
    assert (tmp_path / "train.jsonl").read_text() != "mine\n"
    assert (tmp_path / "test.jsonl").exists()


def put_program(folder, monkeypatch, name, script, alone=False):
    """A program of our own before the system's, or without them."""
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder) if alone else f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.slow
@needs_dpkg
def test_packages_are_downloaded_once_into_the_cache(prepare, packages, tmp_path, monkeypatch):
    here = packages["kjv"].parent
    put_program(tmp_path / "bin", monkeypatch, "apt-get", f'echo "$@" >> {tmp_path}/calls\ncp {here}/$2_*.deb .')
    cache = tmp_path / "cache"
    for output in ("first", "second"):
        run(prepare, tmp_path / output, {}, "--cache_dir", cache)
    assert rows_in(tmp_path / "first") == rows_in(tmp_path / "second")
    assert (tmp_path / "calls").read_text() == "download sword-text-kjv\ndownload sword-text-web\n"
    assert {path.name for path in cache.iterdir()} == {path.name for path in packages.values()}


def refused(prepare, capsys, output, packages, *more) -> str:
    with pytest.raises(SystemExit) as stop:
        run(prepare, output, packages, *more)
    assert stop.value.code == 2
    assert not output.exists()
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


@needs_dpkg
def test_where_nothing_can_be_downloaded_the_user_hears_what_else_to_do(prepare, tmp_path, capsys, monkeypatch):
    output, cache = tmp_path / "bible", ("--cache_dir", tmp_path / "cache")
    failing = "echo 'W: old lists' >&2\necho 'E: Unable to locate it' >&2\nexit 100"
    put_program(tmp_path / "bin", monkeypatch, "apt-get", failing)
    error = refused(prepare, capsys, output, {}, *cache)
    assert "apt-get download failed (E: Unable to locate it)" in error
    assert "apt-get update" in error and "--kjv FILE.deb" in error

    put_program(tmp_path / "only", monkeypatch, "dpkg-deb", "exit 1", alone=True)
    error = refused(prepare, capsys, output, {}, *cache)
    assert "no apt-get" in error
    assert "--kjv FILE.deb" in error and "https://packages.debian.org/sword-text-kjv" in error


def test_what_unpacks_and_reads_the_packages_must_be_there_before_anything_is_downloaded(
    prepare, tmp_path, capsys, monkeypatch
):
    calls = tmp_path / "calls"
    put_program(tmp_path / "bin", monkeypatch, "apt-get", f"echo >> {calls}", alone=True)
    assert "dpkg-deb" in refused(prepare, capsys, tmp_path / "bible", {}, "--cache_dir", tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "pysword", None)
    assert "pip install -e '.[bible]'" in refused(prepare, capsys, tmp_path / "bible", {})
    assert not calls.exists()


@needs_dpkg
def test_a_file_that_is_missing_broken_or_another_is_refused(prepare, packages, tmp_path, capsys):
    output, broken = tmp_path / "bible", tmp_path / "broken.deb"
    broken.write_text("no archive")
    bare = make_package(tmp_path, "sword-text-kjv")
    missing = tmp_path / "none.deb"
    assert "none.deb: there is no such file" in refused(prepare, capsys, output, packages | {"kjv": missing})
    assert "broken.deb" in refused(prepare, capsys, output, packages | {"kjv": broken})
    assert "holds 0 SWORD modules" in refused(prepare, capsys, output, packages | {"kjv": bare})
    assert "is the package sword-text-web, not sword-text-kjv" in refused(
        prepare, capsys, output, {"kjv": packages["web"], "web": packages["kjv"]}
    )


@needs_dpkg
def test_packages_that_leave_a_split_empty_are_refused(prepare, packages, tmp_path, capsys):
    name, description, versification, verses = EDITIONS["web"]
    verses = {reference: markup for reference, markup in verses.items() if reference[0] != "Esther"}
    poor = make_package(tmp_path, name, description, versification, verses)
    error = refused(prepare, capsys, tmp_path / "bible", packages | {"web": poor})
    assert "no verse in common to be put into validation" in error


def test_the_recipe_is_understood_and_its_models_differ_in_their_attention_alone(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "benchmarks")
    from long_text import BLOCK_FIELDS, BLOCKS, EQUAL_TIME, FULL, RECIPE, options_of

    monkeypatch.chdir(repository)
    _, data_args, training_args = parse_run([RECIPE], "")
    steps = training_args.max_steps
    blocks, full, short = (options_of(*each) for each in ((BLOCKS, steps), (FULL, steps), (EQUAL_TIME, steps // 2)))
    fields, others = blocks.pop("config_overrides"), full.pop("config_overrides")
    assert blocks == full and {name: fields[name] for name in fields if name not in BLOCK_FIELDS} == others
    assert set(BLOCK_FIELDS) <= fields.keys()
    assert short["stages"][0]["until_step"] * 2 == blocks["stages"][0]["until_step"]
    assert data_args.max_source_length == data_args.max_target_length == fields["max_position_embeddings"]
    assert not training_args.predict_with_generate
