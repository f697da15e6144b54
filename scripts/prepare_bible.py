# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Prepares long pairs of texts: the chapters of the King James Version and of the World English Bible, as train,
validation and test rows such as
{"source": "In the beginning God ...", "target": "In the beginning, God ...", "reference": "Genesis 1"}.

The texts come from Debian's packages sword-text-kjv and sword-text-web. apt-get downloads them without installing
them, and pysword (pip install -e '.[bible]') reads them. Both texts are in the public domain; the packages' statements
of that are put beside the rows. Notes, headings and the names of speakers are left out, and so are verses and books
that one of the two lacks. Whole books are held out, because neighbouring chapters tell one story in the same words:
about a twentieth of the text for validation and as much for testing.

  python scripts/prepare_bible.py --output_dir data/bible/chapters --numbers
  python scripts/prepare_bible.py --output_dir data/bible/verses --verses 1 --numbers
  python scripts/prepare_bible.py --output_dir data/bible/chapters --kjv sword-text-kjv_14.3-1_all.deb \\
    --web sword-text-web_426.0-1_all.deb    # without apt-get, but with dpkg-deb, which unpacks them
"""

import argparse
import html
import importlib.util
import re
import shutil
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import NamedTuple

from _prepare import SPLITS, PreparationError, digest_of, is_prepared, run, write_origin

from hf_xformer.errors import one_line_errors
from hf_xformer.files import write_json_lines, write_text


PACKAGES = {"kjv": "sword-text-kjv", "web": "sword-text-web"}
# Books without a twin that the training would have shown: no Kings beside Chronicles, no Mark beside Matthew.
HELD_OUT = {
    "validation": ("Esther", "Ecclesiastes", "Daniel", "Hosea", "Galatians", "Hebrews"),
    "test": ("Ruth", "Song of Solomon", "Lamentations", "Jonah", "Zechariah", "John", "James"),
}

CHAPTER_END = "<chapter eID"
NO_VERSE = re.compile(r"<(note|title|speaker)\b.*?</\1>", re.DOTALL)
WITHIN_WORDS = re.compile(r"</?(?:w|q|divineName|transChange|seg|foreign|name)\b[^>]*>")
TAG = re.compile(r"<[^>]*>")
LEFT_BY_TYPESETTERS = re.compile(r"\\\+?\w+[* ]|¶")
SPACE_BEFORE_PUNCTUATION = re.compile(r" (?=[,;:.?!)”—])")

Reference = tuple[str, int, int]  # book, chapter, verse


class Edition(NamedTuple):
    """A translation and what its package says of it."""

    description: str
    license: str
    copyright: str
    verses: dict[Reference, str]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="\n".join(
            ["books held out:", *(f"  {split:12}{', '.join(books)}" for split, books in HELD_OUT.items())]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for train, validation and test.jsonl")
    parser.add_argument("--verses", type=int, metavar="N", help="at most N verses a row (default: whole chapters)")
    parser.add_argument("--numbers", action="store_true", help="begin each verse with its number, as in print")
    for option, package in PACKAGES.items():
        parser.add_argument(
            f"--{option}", type=Path, metavar="FILE.deb", help=f"the package {package}, instead of downloading it"
        )
    parser.add_argument(
        "--cache_dir", type=Path, default=".cache/bible", help="where downloads are kept (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if args.verses is not None and args.verses < 1:
        parser.error(f"--verses {args.verses}: a row has one verse at least")
    options = {"verses": args.verses, "numbers": args.numbers}
    with one_line_errors():
        if is_prepared(args.output_dir, options, given={option: getattr(args, option) for option in PACKAGES}):
            return
        if importlib.util.find_spec("pysword") is None:
            raise PreparationError("SWORD modules are read with pysword, which is missing: pip install -e '.[bible]'")
        if shutil.which("dpkg-deb") is None:
            raise PreparationError("packages are unpacked with dpkg-deb, which is missing: install the package dpkg")
        files = {
            option: getattr(args, option) or fetch(package, option, args.cache_dir)
            for option, package in PACKAGES.items()
        }
        editions = [read_package(files[option], package) for option, package in PACKAGES.items()]
        rows = make_rows(*(edition.verses for edition in editions), args.verses, args.numbers)
        digests = {option: digest_of(path) for option, path in files.items()}
        write_origin(args.output_dir, options, packages=[path.name for path in files.values()], sha256=digests)
        write(args.output_dir, rows, editions)


def fetch(package: str, option: str, cache: Path) -> Path:
    """Returns the package's file in the cache, and downloads it if it is not there yet."""
    if kept := sorted(cache.glob(f"{package}_*.deb")):
        return kept[-1]
    elsewhere = f"--{option} FILE.deb takes one from elsewhere, such as https://packages.debian.org/{package}"
    if shutil.which("apt-get") is None:
        raise PreparationError(f"there is no apt-get here to download {package}; {elsewhere}")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:  # an unfinished download is not taken for a whole one
        try:
            run(["apt-get", "download", package], "apt-get download", folder)
        except PreparationError as error:
            raise PreparationError(f"{error}; perhaps `apt-get update` helps; {elsewhere}") from error
        (file,) = Path(folder).glob(f"{package}_*.deb")
        return file.rename(cache / file.name)


def read_package(path: Path, package: str) -> Edition:
    """Reads the translation in a Debian package."""
    if not path.is_file():
        raise PreparationError(f"{path}: there is no such file")
    if (name := run(["dpkg-deb", "--field", path, "Package"], "dpkg-deb --field")) != package:
        raise PreparationError(f"{path} is the package {name}, not {package}")
    with tempfile.TemporaryDirectory() as folder:
        run(["dpkg-deb", "--extract", path, folder], "dpkg-deb --extract")
        return read_module(Path(folder), path, package)


def read_module(folder: Path, path: Path, package: str) -> Edition:
    """Reads the translation in a folder that the package at `path` was unpacked into."""
    from pysword.modules import SwordModules

    library = folder / "usr/share/sword"
    modules = SwordModules(str(library))
    known = modules.parse_modules() if (library / "mods.d").is_dir() else {}
    if len(known) != 1:
        raise PreparationError(f"{path} holds {len(known)} SWORD modules where one should be")
    ((name, about),) = known.items()
    return Edition(
        about.get("description", name),
        about.get("distributionlicense", "licence not stated"),
        (folder / "usr/share/doc" / package / "copyright").read_text(encoding="utf-8"),
        read_verses(modules.get_bible_from_module(name)),
    )


def read_verses(bible) -> dict[Reference, str]:
    """Returns the verses of a `SwordBible`, in its order, without those that have no text after cleaning."""
    if hasattr(bible, "_decompressed_text"):
        # Without a cache it inflates a whole book for each of its verses.
        bible._decompressed_text = lru_cache(maxsize=1)(bible._decompressed_text)
    texts = {
        (book.name, chapter, verse): clean(markup)
        for books in bible.get_structure().get_books().values()
        for book in books
        for chapter in range(1, book.num_chapters + 1)
        for verse, markup in enumerate(bible.get_iter(book.name, chapter, clean=False), start=1)
    }
    return {reference: text for reference, text in texts.items() if text}


def clean(markup: str) -> str:
    """
    Returns the words of a verse, without its OSIS markup.

    pysword's own cleaner joins the words on both sides of a note ("Godcreated"), and takes the glossary behind the
    last chapter for a part of its last verse.
    """
    text = NO_VERSE.sub(" ", markup.partition(CHAPTER_END)[0])
    text = TAG.sub(" ", WITHIN_WORDS.sub("", text))
    text = LEFT_BY_TYPESETTERS.sub("", html.unescape(text))
    return SPACE_BEFORE_PUNCTUATION.sub("", " ".join(text.split()))


def make_rows(
    sources: dict[Reference, str], targets: dict[Reference, str], most: int | None = None, numbers: bool = False
) -> dict[str, list[dict]]:
    """
    Returns the rows of each split, in the order of the sources, of the verses that both sides have.

    Args:
        most: Verses of a row at most; None for whole chapters.
        numbers: Whether each verse begins with its number.
    """
    passages: dict[tuple[str, int, int], list[Reference]] = {}
    for reference in sources:
        if reference in targets:
            book, chapter, verse = reference
            passages.setdefault((book, chapter, 0 if most is None else (verse - 1) // most), []).append(reference)
    rows: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for (book, chapter, _), verses in passages.items():
        source, target = (
            " ".join(f"{verse[2]} {text[verse]}" if numbers else text[verse] for verse in verses)
            for text in (sources, targets)
        )
        span = "-".join(dict.fromkeys(str(verse) for _, _, verse in (verses[0], verses[-1])))
        passage = f"{book} {chapter}" if most is None else f"{book} {chapter}:{span}"
        rows[split_of(book)].append({"source": source, "target": target, "reference": passage})
    if empty := [split for split in SPLITS if not rows[split]]:
        raise PreparationError(f"the two packages have no verse in common to be put into {' or '.join(empty)}")
    return rows


def split_of(book: str) -> str:
    return next((split for split, books in HELD_OUT.items() if book in books), "train")


def write(folder: Path, rows: dict[str, list[dict]], editions: Sequence[Edition]) -> None:
    """Writes the licences and the rows, and says what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "LICENSE", "\n".join(edition.copyright for edition in editions))
    for split, passages in rows.items():
        path = folder / f"{split}.jsonl"
        write_json_lines(path, passages)
        sizes = (f"{side} {described([len(row[side]) for row in passages])}" for side in ("source", "target"))
        print(f"{path}: {len(passages):,} rows, {' and '.join(sizes)} characters")
    for edition, other in zip(editions, reversed(editions), strict=True):
        alone = [reference for reference in edition.verses if reference not in other.verses]
        books = ", ".join(dict.fromkeys(book for book, _, _ in alone)) or "none"
        print(f"{edition.description}: verses that the other lacks, left out: {len(alone):,} ({books})")
    print(f"licence: {', '.join(dict.fromkeys(edition.license for edition in editions))}; see {folder / 'LICENSE'}")


def described(lengths: list[int]) -> str:
    return f"{median(lengths):,.0f} (longest {max(lengths):,})"


if __name__ == "__main__":
    main()
