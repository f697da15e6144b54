# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Files of predictions: JSONL of each row's source, prediction and references."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ..data.bad_rows import BadRows, Fault
from ..data.formats import format_of, read_jsonl, shown
from ..errors import DataError
from ..files import write_json_lines


NAMES = ("source", "prediction", "references")
FORM = "a text `source`, a text `prediction` and a list of texts `references`"


def is_predictions(name: str) -> bool:
    """Returns whether the name of a system is that of a file of predictions, and not of a checkpoint."""
    return format_of(Path(name)) == ".jsonl" or Path(name).is_file()


def write_predictions(
    path: Path, sources: Sequence[str], predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> None:
    """Writes a row a line."""
    rows = zip(sources, predictions, references, strict=True)
    write_json_lines(path, (dict(zip(NAMES, row, strict=True)) for row in rows))


def read_predictions(path: Path, count: int | None = None) -> tuple[list[str], list[str], list[list[str]]]:
    """
    Returns the sources, predictions and references of the first rows, or of all.

    Raises:
        DataError: Lines are not as `write_predictions` writes them, all of which are counted, or there is none.
    """
    rows: list[tuple[str, str, list[str]]] = []
    bad = BadRows()
    for place, record in islice(read_jsonl(path, {}), count):
        bad.rows += 1
        row = record if isinstance(record, Fault) else row_of(record)
        if isinstance(row, Fault):
            bad.add(place, *row)
        else:
            rows.append(row)
    if bad.total:
        raise DataError(f"{bad.refusal(skip='')}; rows of --predictions_file have {FORM}")
    if not rows:
        raise DataError(f"{path}: there are no predictions in it")
    sources, predictions, references = map(list, zip(*rows, strict=True))
    return sources, predictions, references


def first_difference(
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    its_sources: Sequence[str],
    its_references: Sequence[Sequence[str]],
) -> str:
    """Returns in words the first difference between the rows of a file of predictions and a test set: there is one."""
    if len(sources) != len(its_sources):
        return f"{len(its_sources):,} rows are not the {len(sources):,} of the test set: score the same rows"
    rows = enumerate(zip(sources, references, its_sources, its_references, strict=True), start=1)
    number, (source, texts, its_source, its_texts) = next((n, row) for n, row in rows if row[:2] != row[2:])
    if its_source != source:
        return f"row {number} has the source {its_source!r:.60}, not {source!r:.60}"
    return f"row {number} has the references {its_texts!r:.60}, not {texts!r:.60}"


def row_of(record: dict) -> tuple[str, str, list[str]] | Fault:
    """Returns the source, the prediction and the references in a record, or why there are none."""
    if missing := [name for name in NAMES if name not in record]:
        return Fault(f"no field {missing[0]!r}", f"there are {', '.join(map(repr, record)) or 'none'}")
    source, prediction, references = (record[name] for name in NAMES)
    for name, value in (("source", source), ("prediction", prediction)):
        if not isinstance(value, str):
            return Fault(f"{name} is not a text", shown(value))
    if not references or not isinstance(references, list) or not all(isinstance(each, str) for each in references):
        return Fault("references are not a list of texts", shown(references))
    return source, prediction, references
