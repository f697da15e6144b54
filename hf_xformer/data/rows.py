# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Makes rows of records, and says of a record that is none why.

A row is `{"source": str, "target": list[str]}`: the target's strings are alternatives, of which any is right. What is
wrong with a row is said with its place: `train.jsonl:17: no field 'target': there are 'source', 'tgt'`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import DataError, did_you_mean
from .bad_rows import SHORTEST, BadRows, Fault, Unwanted
from .formats import shown
from .templates import fields_of, filled
from .text_forms import is_blank


Row = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """
    Names of the columns that hold the texts; `translation.de` is a field of an object, and `<2{lang}> {text}` is a
    template of two columns.

    Args:
        source: The source's.
        target: The target's; None for rows of sources only.
        group: The one by which rows are told apart; None for none.
        prefix: Beginning of the names of the options that give the source's and the target's, such as "against_".

    Raises:
        ArgumentError: A template cannot be one.
    """

    source: str = "source"
    target: str | None = "target"
    group: str | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        for column in (self.source, self.target, self.group):
            fields_of(column or "")

    @property
    def by_option(self) -> dict[str, str]:
        """The names by the options that give them, each field of a template by its own."""
        found: dict[str, str] = {}
        sides = ((f"{self.prefix}source_column", self.source), (f"{self.prefix}target_column", self.target))
        for option, column in (*sides, ("by", self.group)):
            fields = fields_of(column or "")
            found |= {f"--{option} with {{{field}}}": field for field in fields}
            if column is not None and not fields:
                found[f"--{option}"] = column
        return found


def good_rows(records: Iterable[tuple[str, dict | Fault]], columns: Columns, bad_rows: BadRows) -> Iterator[Row]:
    """Yields the rows in records, and counts those that have none."""
    # A text of which an objective makes targets may stand in a column that is called so.
    other = bad_rows.unwanted
    if other is not None and other.column in (columns.source, *fields_of(columns.source)):
        other = None
    for place, record in records:
        bad_rows.rows += 1
        bad_rows.unreadable += isinstance(record, Fault)
        row = record if isinstance(record, Fault) else to_row(record, columns)
        if not isinstance(row, Fault):
            row = uneven(row, bad_rows.max_length_ratio) or with_target(record, other) or row
        if isinstance(row, Fault):
            bad_rows.add(place, *row)
        else:
            yield row


def to_row(record: dict, columns: Columns) -> Row | Fault:
    """Returns the row in a record, or why there is none."""
    source = field_of(record, columns.source)
    if isinstance(source, Fault):
        return Fault(source.reason, source.detail, f"--{columns.prefix}source_column gives the name of another")
    where = "" if columns.source == "source" else f" in {columns.source!r}"
    if not isinstance(source, str):
        return Fault("source is not a text", f"{shown(source)}{where}")
    if is_blank(source):
        return Fault("empty source", where.strip())
    row: Row = {"source": source}
    if columns.group is not None:
        group = field_of(record, columns.group)
        if not isinstance(group, str):
            return group if isinstance(group, Fault) else Fault("what --by names is not a text", shown(group))
        row["group"] = group
    if columns.target is None:
        return row
    target = field_of(record, columns.target)
    if isinstance(target, Fault):
        return Fault(target.reason, target.detail, f"--{columns.prefix}target_column gives the name of another")
    where = "" if columns.target == "target" else f" in {columns.target!r}"
    targets = target if isinstance(target, list) else [target]
    if not targets or not all(isinstance(text, str) for text in targets):
        return Fault("target is not a text or a list of texts", f"{shown(target)}{where}")
    if any(map(is_blank, targets)):
        return Fault("empty target", where.strip())
    return row | {"target": targets}


def checked_at_end(rows: Iterable[Row], bad_rows: BadRows, place: str) -> Iterator[Row]:
    """Yields rows; raises DataError at their end if bad ones are an error or no row is left."""
    is_empty = True
    for row in rows:
        is_empty = False
        yield row
    summary = bad_rows.line_or_refuse()
    if is_empty:
        raise DataError(f"{place}: " + (f"no row is left: {summary}" if summary else "there are no rows"))


def uneven(row: Row, most: float | None) -> Fault | None:
    """Returns what is wrong with a row whose source is far longer than a target, or far shorter."""
    if most is None:
        return None
    source = len(row["source"].strip())
    for target in (len(text.strip()) for text in row.get("target", ())):
        if max(source, target) > most * max(min(source, target), SHORTEST):
            return Fault(f"one side more than {most:g} times the other", f"{source:,} and {target:,} characters")
    return None


def with_target(record: dict | Fault, other: Unwanted | None) -> Fault | None:
    """Returns what is wrong with a record that has a target where none should be."""
    if other is None or isinstance(record, Fault) or isinstance(target := field_of(record, other.column), Fault):
        return None
    remedy = f"{other.option} is for texts without targets: leave it out to use these, or take them out of the file"
    return Fault(f"a target in {other.column!r}", shown(target), remedy)


def field_of(record: dict, column: str) -> Any:
    """
    Returns a field by its name or by its path through objects, such as `translation.de`, or the text that a template
    of fields makes; or why it is missing.
    """
    if column in record:
        return record[column]
    if fields := fields_of(column):
        return of_template(record, column, fields)
    outer, dot, inner = column.partition(".")
    if dot and isinstance(record.get(outer), dict):
        found = field_of(record[outer], inner)
        return Fault(found.reason, f"in {outer!r} {found.detail}") if isinstance(found, Fault) else found
    return Fault(f"no field {column!r}", names_instead(column, tuple(record)))


def of_template(record: dict, template: str, fields: tuple[str, ...]) -> Any:
    """Returns a template with fields of a record, or why that cannot be."""
    values = {field: field_of(record, field) for field in fields}
    for field, value in values.items():
        if isinstance(value, Fault):
            return value
        texts = value if isinstance(value, list) else [value]
        if not texts or not all(isinstance(text, str) for text in texts):
            return Fault(f"{field!r} of a template is not a text", shown(value))
        if any(map(is_blank, texts)):
            return Fault(f"empty {field!r} of a template", "")
    if sum(isinstance(value, list) for value in values.values()) > 1:
        return Fault("two lists of texts in a template", f"in {template!r}")
    return filled(template, values)


@lru_cache
def names_instead(column: str, names: tuple[str, ...]) -> str:
    """Returns the names of fields that there are in place of one, and which of them may be meant."""
    return f"there are {', '.join(map(repr, names)) or 'none'}{did_you_mean(column, names)}"
