# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Figures as tables, printed or in Markdown: means over seeds, titles, and below them what gave the figures."""

from collections import Counter
from collections.abc import Callable, Iterable

from measuring import spread


PRONUNCIATION = {"wrong_words": "wrong words, %", "per": "PER, %"}
TRANSLATION = {"sacrebleu": "BLEU", "chrf": "chrF", "raw_bleu": "BLEU, raw text", "raw_chrf": "chrF, raw text"}
TYPES = ("float32", "bfloat16")

TABLES: dict[str, Callable[[], str]] = {}

Cells = Iterable[str]


def table(make: Callable[[], str]) -> Callable[[], str]:
    """Makes a function a table of the documents, by its name."""
    TABLES[make.__name__] = make
    return make


def markdown(head: Cells, rows: Iterable[Cells], *about: str) -> str:
    """Returns a table in Markdown, with a paragraph below it on what gave it."""
    head = list(head)
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])
    return f"\n{lines}\n\n{'; '.join(about)}.\n\n"


def measured(result: dict, command: str, *others: dict) -> str:
    """
    Returns in words by which command, when, on which machine and with which versions figures were taken.

    Args:
        command: Without `--bf16`, which stands beside the figures.
        others: Further results that the table has figures of.
    """
    machine, results = result["machine"], [result, *others]
    command += " --bf16" * bool(machine.get("bf16"))
    flags = {"avx512_bf16": "bfloat16", "avx512_vnni": "VNNI"}
    has = [flags[flag] for flag in machine.get("processor", ()) if flag in flags]
    where = machine.get("card") or cores_of(results) + (f" with {' and '.join(has)}" if has else "")
    return f"`python benchmarks/{command}`, {days_of(results)}, {where}, {libraries_of(results)}"


def libraries_of(results: list[dict]) -> str:
    """Returns in words which versions of the libraries gave figures."""
    all_versions = [versions for result in results for versions in versions_of(result)]
    said = []
    for name in ("torch", "transformers"):
        found = {versions[name].partition("+")[0] for versions in all_versions}
        said.append(f"{name} {' and '.join(sorted(found))}")
    return ", ".join(said)


def versions_of(result: dict) -> list[dict[str, str]]:
    """Returns the versions of the rows, or those of the machine where no row has any."""
    rows = result["rows"]
    of_rows = [row["versions"] for row in rows if "versions" in row] if isinstance(rows, list) else []
    return of_rows or [result["machine"]]


def days_of(results: list[dict]) -> str:
    """Returns the day of figures, or the first and the last."""
    days = sorted(each_of(results, "date"))
    return " to ".join(dict.fromkeys((days[0], days[-1])))


def cores_of(results: list[dict]) -> str:
    """Returns in words how many cores figures were taken on."""
    cores = results[0]["machine"]["cores"]
    threads = each_of(results, "threads") - {None} or {cores}
    return f"{cores} cores" if threads == {cores} else f"{' or '.join(map(str, sorted(threads)))} of {cores} cores"


def each_of(results: list[dict], name: str) -> set:
    """Returns the values of a key of the rows, of each result's machine where no row of it has the key."""
    found = set()
    for result in results:
        rows = result["rows"]
        of_rows = {row[name] for row in rows if name in row} if isinstance(rows, list) else set()
        found |= of_rows or {result["machine"].get(name)}
    return found


def over_seeds(rows: list[dict], by: str, columns: Cells) -> Iterable[Cells]:
    """
    Yields for each value of a key its mean and spread over the rows that have it, in several columns.

    Where some values have fewer seeds than others, each says how many it has.
    """
    counts = Counter(row[by] for row in rows)
    for value, count in counts.items():
        found = [row for row in rows if row[by] == value]
        few = f" ({count} seed{'s' * (count > 1)})" if count < max(counts.values()) else ""
        yield [f"{value}{few}", *(spread(row[name] for row in found) for name in columns)]


def seeds_of(rows: list[dict]) -> str:
    """Returns in words how many seeds there are."""
    count = len({row["seed"] for row in rows})
    return f"{count} seeds, mean and standard deviation" if count > 1 else "one seed"


def print_table(rows: list[dict], by: str, columns: dict[str, str]) -> None:
    """Prints a line for each value of a key: the mean and spread over its rows of each column that all rows have."""
    columns = {name: title for name, title in columns.items() if all(name in row for row in rows)}
    print(f"{'':34}" + "".join(f"{title:>20}" for title in columns.values()))
    for value, *cells in over_seeds(rows, by, columns):
        print(f"{value:34}" + "".join(f"{cell:>20}" for cell in cells))
