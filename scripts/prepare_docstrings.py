# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Prepares plain text and a small labelled set from the documentation strings of the installed Python and its libraries.

A text is a sentence: five to thirty words of letters, with simple punctuation. `text.txt` has most of them, one a
line, for pretraining. `train`, `validation` and `test.jsonl` have others as pairs such as {"source": "return the
number of bytes or none", "target": "Return the number of bytes, or None."}: case and punctuation are to be put back.
A sentence's SHA-256 decides where it goes, and one that differs in case and punctuation alone counts as the same.

Files are parsed and not run. The strings have the licences of their libraries (Python's PSF licence, BSD, Apache 2.0)
and depend on the versions that are installed, which `origin.json` says.

  python scripts/prepare_docstrings.py --output_dir data/docstrings
"""

import argparse
import ast
import hashlib
import platform
import re
import sysconfig
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from _prepare import SPLITS, PreparationError, is_prepared, write_origin

from hf_xformer.errors import one_line_errors
from hf_xformer.files import write_json_lines, write_text


LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "huggingface_hub", "numpy", "pandas", "pyarrow")
SENTENCE = re.compile(r"[A-Z][A-Za-z ,;:'()-]+[.?!]")
WORDS = range(5, 31)
# Hashes of the sentences that become pairs, of 0 to 999; all others are plain text.
SHARES = {"validation": range(20), "test": range(20, 40), "train": range(40, 90)}
PAIRS = 2000  # of the training set at most: a small one
TEXT = "text.txt"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output_dir", type=Path, required=True, help=f"folder for {TEXT} and train, validation and test.jsonl"
    )
    parser.add_argument(
        "--source", type=Path, nargs="+", help="folders of Python files, instead of the installed Python and libraries"
    )
    args = parser.parse_args(argv)
    options = {"source": args.source and [str(folder.resolve()) for folder in args.source]}
    with one_line_errors():
        if is_prepared(args.output_dir, options):
            return
        sentences = sorted(sentences_of(args.source or installed()), key=digest)
        if not sentences:
            raise PreparationError("no documentation strings with sentences in these folders")
        versions = {} if args.source else {name: metadata.version(name) for name in LIBRARIES if find_spec(name)}
        write_origin(args.output_dir, options, versions={"python": platform.python_version(), **versions})
        write(args.output_dir, sentences)


def installed() -> list[Path]:
    """Returns the folders of the standard library and of the libraries that are installed, without loading them."""
    specs = [find_spec(name) for name in LIBRARIES]
    folders = [Path(place) for spec in specs if spec for place in spec.submodule_search_locations or ()]
    return [Path(sysconfig.get_path("stdlib")), *folders]


def sentences_of(folders: Sequence[Path]) -> list[str]:
    """Returns the sentences of all documentation strings, each once whatever its case and punctuation."""
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            if "site-packages" not in path.relative_to(folder).parts:
                for sentence in sentences_in(path):
                    found.setdefault(spoilt(sentence), sentence)
    return list(found.values())


def sentences_in(path: Path) -> Iterator[str]:
    """Yields the sentences of a Python file's documentation strings; none of a file that Python cannot parse."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, RecursionError):  # tests of Python itself, and templates
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                for text in re.split(r"(?<=[.?!])\s+(?=[A-Z])", " ".join(paragraph.split())):
                    if SENTENCE.fullmatch(text) and len(text.split()) in WORDS:
                        yield text


def spoilt(sentence: str) -> str:
    """Returns a sentence in lower case, its words one space apart and without punctuation around them."""
    words = (word.strip(",;:'()-.?!") for word in sentence.lower().split())
    return " ".join(filter(None, words))


def write(folder: Path, sentences: Sequence[str]) -> None:
    """Writes sentences, which are in the order of their hashes, as plain text and as pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict]] = {split: [] for split in SPLITS}
    texts = []
    for sentence in sentences:
        share = int(digest(sentence), 16) % 1000
        split = next((split for split, shares in SHARES.items() if share in shares), None)
        if split is None:
            texts.append(sentence)
        else:
            rows[split].append({"source": spoilt(sentence), "target": sentence})
    write_text(folder / TEXT, "".join(f"{text}\n" for text in texts))
    print(f"{folder / TEXT}: {len(texts):,} sentences, {sum(len(text.split()) for text in texts):,} words")
    for split, pairs in rows.items():
        path = folder / f"{split}.jsonl"
        kept = pairs[:PAIRS]
        write_json_lines(path, kept)
        print(f"{path}: {len(kept):,} pairs")


def digest(sentence: str) -> str:
    return hashlib.sha256(spoilt(sentence).encode()).hexdigest()


if __name__ == "__main__":
    main()
