# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Prepares sentences of one language with their translations to several: the one-line descriptions of Debian's packages,
as rows such as {"source": "command line BitTorrent client", "target": "Kommandozeilen-BitTorrent-Client",
"target_lang": "de", "package": "ctorrent"}.

Debian's archive has the descriptions and what its volunteers translated of them, as files `Translation-de.bz2` of
some megabytes each. Every text is taken once, and one that nobody translated not at all. A text's SHA-256 decides its
split, without what stands in brackets behind it ("(documentation)", "(debug symbols)"): so no text is in two splits,
in whatever language. There are `train-de.jsonl` and `validation-de.jsonl` for each language, and one `test.jsonl`.

The archive passes the descriptions on without a licence of their own; those of the packages apply. `origin.json` says
which files the rows are from.

  python scripts/prepare_descriptions.py --output_dir data/descriptions
  python scripts/prepare_descriptions.py --output_dir data/descriptions --languages de da pl
  python scripts/prepare_descriptions.py --output_dir data/descriptions --cache_dir FOLDER    # that has the files
"""

import argparse
import bz2
import hashlib
import http.client
import lzma
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from _prepare import PreparationError, digest_of, is_prepared, write_origin

from hf_xformer.errors import one_line_errors
from hf_xformer.files import write_json_lines, write_whole


MIRROR, SUITE = "http://deb.debian.org/debian", "bookworm"
ENGLISH = "Translation-en.xz"
# Hashes of texts, of 0 to 99, that are held out; all others are for training.
SHARES = {"validation": range(3), "test": range(3, 8)}
HELD_OUT = 500  # rows of a language in validation and test at most
WORDS = range(2, 31)
UNTRANSLATED, HARD_SPACE = "<trans>", "⋅"  # marks that translators leave
Key = tuple[str, str]  # package, and MD5 of its English description


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the rows")
    parser.add_argument(
        "--languages", nargs="+", default=["de", "fr", "it"], metavar="CODE", help="targets (default: de fr it)"
    )
    parser.add_argument("--mirror", default=MIRROR, help="of Debian's archive (default: %(default)s)")
    parser.add_argument("--suite", default=SUITE, help="release of Debian (default: %(default)s)")
    parser.add_argument(
        "--cache_dir", type=Path, default=".cache/descriptions", help="where downloads are kept (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    options = {"languages": args.languages, "suite": args.suite}
    with one_line_errors():
        if is_prepared(args.output_dir, options, ["test.jsonl"]):
            return
        names = [ENGLISH, *(f"Translation-{language}.bz2" for language in args.languages)]
        folder = f"{args.mirror}/dists/{args.suite}/main/i18n"
        files = {name: fetch(f"{folder}/{name}", args.cache_dir / args.suite / name) for name in names}
        sources = descriptions(files[ENGLISH])
        rows = {
            language: rows_of(sources, descriptions(files[name]), language)
            for language, name in zip(args.languages, names[1:], strict=True)
        }
        digests = {name: digest_of(path) for name, path in files.items()}
        write_origin(args.output_dir, options, address=folder, sha256=digests)
        write(args.output_dir, rows)


def fetch(address: str, path: Path) -> Path:
    """Returns the file of an address in the cache, and downloads it if it is not there yet."""
    if not path.exists():
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                content = answer.read()
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise PreparationError(f"{address}: {reason}; put the file at {path} to go on without it") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda place: place.write_bytes(content))
    return path


def descriptions(path: Path) -> dict[Key, str]:
    """Returns the descriptions of one line in a file of Debian's archive, by package and English text."""
    unpack = lzma.open if path.suffix == ".xz" else bz2.open
    try:
        with unpack(path, "rt", encoding="utf-8") as lines:
            return dict(stanzas(lines))
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise PreparationError(f"{path}: {error}; delete it to download it anew") from error


def stanzas(lines: Iterator[str]) -> Iterator[tuple[Key, str]]:
    """Yields the key and the description of each package."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "Package":
            fields = {}
        if not line.startswith(" "):
            fields[name] = value.strip()
        if name.startswith("Description-") and name != "Description-md5":
            yield (fields["Package"], fields["Description-md5"]), fields[name]


def rows_of(sources: dict[Key, str], targets: dict[Key, str], language: str) -> dict[str, list[dict]]:
    """Returns the rows of each split, in the order of their hashes, so that the first thousand are a fair sample."""
    found: dict[str, dict] = {}
    for key, target in targets.items():
        source, target = sources.get(key, ""), " ".join(target.replace(HARD_SPACE, " ").split())
        if source != target and UNTRANSLATED not in target and len(source.split()) in WORDS and target:
            row = {"source": source, "target": target, "target_lang": language, "package": key[0]}
            found.setdefault(source, row)
    rows: dict[str, list[dict]] = {"train": [], **{split: [] for split in SHARES}}
    for source in sorted(found, key=lambda source: (digest(source), source)):
        share = int(digest(source), 16) % 100
        rows[next((split for split, shares in SHARES.items() if share in shares), "train")].append(found[source])
    if empty := [split for split in rows if not rows[split]]:
        raise PreparationError(f"{language}: too few translated descriptions for {' and '.join(empty)}")
    return {split: each if split == "train" else each[:HELD_OUT] for split, each in rows.items()}


def digest(text: str) -> str:
    """Returns the SHA-256 of a text in lower case, without brackets."""
    return hashlib.sha256(re.sub(r"\s*\(.*?\)", "", text.lower()).encode()).hexdigest()


def write(folder: Path, rows: dict[str, dict[str, list[dict]]]) -> None:
    """Writes the rows of each language and split; those of the test set last, as they say that all are there."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{split}-{language}": rows[language][split] for language in rows for split in ("train", "validation")}
    files["test"] = [row for splits in rows.values() for row in splits["test"]]
    for name, found in files.items():
        write_json_lines(folder / f"{name}.jsonl", found)
        print(f"{folder / name}.jsonl: {len(found):,} rows")


if __name__ == "__main__":
    main()
