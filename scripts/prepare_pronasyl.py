# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Prepares the CMU Pronouncing Dictionary in the split that papers on pronunciation measure on (PRONASYL 2007), as rows
such as {"source": "T O M A T O", "target": ["T AH M EY T OW", "T AH M AA T OW"]}: letters to phonemes without stress.

Wants g014b2b.train (106,837 words) and g014b2b.test (12,000 words) of
https://sourceforge.net/projects/cmusphinx/files/G2P%20Models/phonetisaurus-cmudict-split.tar.gz; others are refused by
their SHA-256. The split has no validation set: one word in fifty of the training words, by a hash of the word, becomes
it, and is not trained on.

  python scripts/prepare_pronasyl.py --data g2p-pronasyl --output_dir data/pronasyl
"""

import hashlib
from collections.abc import Iterable, Sequence

from _prepare import Published, folders, read_published

from hf_xformer.errors import one_line_errors
from hf_xformer.files import write_json_lines


ORIGIN = (
    "the published ones are in "
    "https://sourceforge.net/projects/cmusphinx/files/G2P%20Models/phonetisaurus-cmudict-split.tar.gz"
)
TRAIN, TEST = "g014b2b.train", "g014b2b.test"
FILES = {
    TRAIN: Published(113_438, "5882433c3a14a9a0614b5f724ce74872851092e816852c82d6b74913b2085384"),
    TEST: Published(12_753, "9beeeed7726f4954bee1dbb3c5b41f50a71227557eca70b259fbd63c9cad1bb9"),
}
IN_VALIDATION = 50  # words, of which one is for validation

Rows = list[dict]


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    data, output_dir = folders(argv, __doc__)
    found = read_published(data, FILES, ORIGIN)
    splits: dict[str, Rows] = {"train": [], "validation": [], "test": rows_of(found[TEST])}
    for row in rows_of(found[TRAIN]):
        splits["validation" if is_for_validation(row["source"]) else "train"].append(row)
    output_dir.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        path = output_dir / f"{split}.jsonl"
        write_json_lines(path, rows)
        print(f"{path}: {len(rows):,} words, {sum(len(row['target']) for row in rows):,} pronunciations")


def rows_of(lines: Iterable[str]) -> Rows:
    """Returns a row for each word of lines such as "TOMATO<tab>T AH M EY T OW", with all its pronunciations."""
    pronunciations: dict[str, list[str]] = {}
    for line in lines:
        word, _, phonemes = line.partition("\t")
        pronunciations.setdefault(word, []).append(phonemes.strip())
    return [{"source": " ".join(word), "target": found} for word, found in pronunciations.items()]


def is_for_validation(source: str) -> bool:
    return int(hashlib.sha256(source.encode()).hexdigest(), 16) % IN_VALIDATION == 0


if __name__ == "__main__":
    main()
