# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Tables of the documents, from the figures in benchmarks/results: nobody types them.

  python benchmarks/tables.py            # writes them into README.md and docs/*.md
  python benchmarks/tables.py --check    # says which are not those of the stored figures

A table stands between `<!-- table NAME -->` and `<!-- end of table -->` on a page, and NAME is a function of
speed_tables.py or score_tables.py. Under each is the command that gave its figures, the day and the machine.
"""

import argparse
import re

import score_tables  # noqa: F401 (its tables are in TABLES)
import speed_tables  # noqa: F401
from measuring import ROOT
from tabulating import TABLES


BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end of table -->\n)", re.DOTALL)


def filled(page: str) -> str:
    """Returns a page whose tables have the stored figures."""
    return BLOCK.sub(lambda block: block[1] + TABLES[block[2]]() + block[3], page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table is another")
    args = parser.parse_args()
    stale = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        page = path.read_text(encoding="utf-8")
        if filled(page) == page:
            continue
        stale.append(path.name)
        if not args.check:
            path.write_text(filled(page), encoding="utf-8")
            print(path)
    if args.check and stale:
        raise SystemExit(
            f"{', '.join(stale)}: tables are not those of benchmarks/results; python {__file__} writes them"
        )


if __name__ == "__main__":
    main()
