# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Prepares Multi30k, English to German, as the literature has measured on it: lowercased, tokenised by Moses, and cut by
10,000 joint merges of subword-nmt, which are joined again here; the recipe's tokenizer makes the same cuts.

Wants the files of data/multi30k-en-de in https://github.com/LividWo/Revisit-MMT (Wu et al. 2021): code, and train,
valid, test.2016, test.2017 and test.coco in both languages. Others are refused by their SHA-256: figures on another
split or preprocessing are not comparable.

  python scripts/prepare_multi30k.py --data Revisit-MMT/data/multi30k-en-de --output_dir data/multi30k
"""

from collections.abc import Sequence

from _prepare import Published, folders, read_published

from hf_xformer.errors import one_line_errors
from hf_xformer.files import write_json_lines, write_text


ORIGIN = "the published ones are in data/multi30k-en-de of https://github.com/LividWo/Revisit-MMT"
MERGES = "code"
# Our names of the splits, by the names of the files.
NAMES = {"train": "train", "valid": "validation", "test.2016": "test"} | {
    name: name for name in ("test.2017", "test.coco")
}
FILES = {
    MERGES: Published(10_001, "5b545f318e49f24367c7399019c9aeb5e3720b6379a08f887c2792af71c37f2a"),
    "train.en": Published(29_000, "0ffe3e3bac16e6aa33ef0dd6a7dca81587479b0d18dff0db2a92ac3f32b00c86"),
    "train.de": Published(29_000, "b2c74def7ec129f7ea7023a51501c77174c377ef06c6ccc2f031adcfb5cfadbd"),
    "valid.en": Published(1_014, "193d0d18fef5d1bc9d1cddafa13a644de3c5d6a24b45ac44476dcc5e96bfac6e"),
    "valid.de": Published(1_014, "eeb95680d6a06eafb13e3494eed9f9fa99783b892f4a3c72dd36e7ce2e000b68"),
    "test.2016.en": Published(1_000, "13b5fe3f92f78c54446d66afcaaa0a00a33ab653a8411f16812c9c5ca3795d6d"),
    "test.2016.de": Published(1_000, "375c20d50f4c486149a78dfcfb161a430a04ddabe2b7d150f0c7811dc455ac60"),
    "test.2017.en": Published(1_000, "5252390a58d57bce8d6a69a973e4908e98c7b70d3fc7ccc9c3963747ae8b177d"),
    "test.2017.de": Published(1_000, "9deefbe5705b60c3b5a790146e232b411a0da0420fd194ed6f6ad3a2674340a0"),
    "test.coco.en": Published(461, "82d825317109d12260cfd637a23d2bf7c564308546f56e341047b2067c0dba8b"),
    "test.coco.de": Published(461, "5cfc9d5e6511565c53c390598d7a69d14dd302c1a374a16c56959224c5a54d99"),
}


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    data, output_dir = folders(argv, __doc__)
    found = read_published(data, FILES, ORIGIN)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_text(output_dir / MERGES, "\n".join(found[MERGES]) + "\n")
    for name, split in NAMES.items():
        rows = [
            {"source": joined(english), "target": joined(german)}
            for english, german in zip(found[f"{name}.en"], found[f"{name}.de"], strict=True)
        ]
        path = output_dir / f"{split}.jsonl"
        write_json_lines(path, rows)
        print(f"{path}: {len(rows):,} sentences, {sum(len(row['target'].split()) for row in rows):,} German words")


def joined(line: str) -> str:
    """Returns a text whose words subword-nmt has cut as it was before; one that was cut off may end within a word."""
    return f"{line} ".replace("@@ ", "").strip(" ")


if __name__ == "__main__":
    main()
