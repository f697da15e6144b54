# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Reads pairs of texts from files of several formats, or from `datasets`, into the columns `source` and `target`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, IterableDataset

from ..errors import say_once
from ..files import content_of
from .bad_rows import BadRows, BadRowsOfStream
from .foreign import Foreign, load_foreign_rows
from .formats import TABLE_READERS, format_of
from .row_datasets import store_rows, stream_rows
from .rows import Columns, Row, checked_at_end, good_rows
from .sources import files_of_folder, find_files, open_records
from .templates import fields_of


def read_rows(
    files: Sequence[str | Path],
    source_column: str = "source",
    target_column: str | None = "target",
    bad_rows: BadRows | None = None,
    group: str | None = None,
) -> Iterator[Row]:
    """
    Reads pairs of texts, one at a time.

    Args:
        files: Tables with named columns (`.jsonl` or `.json` with one object a line, `.csv`, `.tsv`, `.parquet`), one
            behind the other, folders of them, or two plain-text files with one sentence a line, source first. All but
            Parquet may end in `.gz`. A CSV may quote its cells, a TSV does not. In JSONL and Parquet the target may be
            a list of alternatives.
        source_column: Name of the source's column; `translation.de` is a field of an object, and a template such as
            `<2{target_lang}> {source}` is made of several columns.
        target_column: Name of the target's column; None reads sources only, for which one plain-text file is enough.
        bad_rows: Counts rows that are not an object, lack a field, have something other than text in it, an empty
            text, or too many or few cells. By default they are an error after the last row.
        group: Name or template of the column by which rows are told apart.

    Yields:
        `{"source": str, "target": list[str]}`, without "target" if `target_column` is None, and with "group" if there
        is one.

    Raises:
        DataError: A file is missing, empty, of an unknown kind, not UTF-8 or broken, or lacks a column; two plain-text
            files differ in their number of lines; there are bad rows, and they are to be an error; no row is left.
    """
    paths = find_files(files)
    bad_rows = BadRows() if bad_rows is None else bad_rows
    rows = good_rows_of(paths, Columns(source_column, target_column, group), bad_rows)
    yield from checked_at_end(rows, bad_rows, str(paths[0]))


def good_rows_of(paths: list[Path], columns: Columns, bad_rows: BadRows) -> Iterator[Row]:
    """Yields the rows of files, and counts the records that are none: it may be all."""
    if not any(format_of(path) in TABLE_READERS for path in paths):  # plain text has no column names
        source, target = (
            column if fields_of(column or "") else column and name
            for name, column in (("source", columns.source), ("target", columns.target))
        )
        columns = replace(columns, source=source or "source", target=target)
    are_tables = all(format_of(path) in TABLE_READERS for path in paths)
    unwanted = bad_rows.unwanted
    others = () if unwanted is None else fields_of(unwanted.column) or (unwanted.column,)
    for part in [[path] for path in paths] if are_tables else [paths]:
        before = bad_rows.until_now()
        yield from good_rows(open_records(part, columns, others), columns, bad_rows)
        if len(paths) > 1:
            bad_rows.check_file(str(part[0]), before)


def load_rows(
    files: Sequence[str | Path],
    source_column: str = "source",
    target_column: str | None = "target",
    streaming: bool = False,
    bad_rows: BadRows | None = None,
    group: str | None = None,
) -> Dataset | IterableDataset:
    """
    Reads rows as `read_rows` does into a dataset with the columns `source` (string) and `target` (list of strings).

    The rows are kept in an Arrow file in the cache of `datasets`, which is written again when a file changes; with
    `streaming=True` they are read from the files whenever they are asked for.

    Raises:
        DataError: As for `read_rows`, at once. When streaming, only the first row and the numbers of lines of
            plain-text files are checked at once, other rows when they are reached.
    """
    paths = find_files(files)
    bad_rows = BadRows() if bad_rows is None else bad_rows
    columns = Columns(source_column, target_column, group)
    # A tuple, because `datasets` takes a list for shards and shares its elements among the workers.
    given = {"files": tuple(map(str, paths))}
    if streaming:
        return stream_rows(
            generate_pass,
            given,
            columns,
            bad_rows,
            look_ahead=lambda counted: next(read_rows(paths, source_column, target_column, counted)),
        )
    versions = tuple(f"{path.resolve()}: {content_of(path)}" for path in paths)
    return store_rows(generate_rows, given, columns, versions, bad_rows)


def load_named_rows(
    name: str,
    config_name: str | None = None,
    split: str = "train",
    source_column: str = "source",
    target_column: str | None = "target",
    streaming: bool = False,
    bad_rows: BadRows | None = None,
) -> Dataset | IterableDataset:
    """
    Loads a dataset and brings it to the columns `source` and `target`.

    The tables of a local folder are read as `load_rows` reads them, unless a configuration says how they are to be
    read; any other dataset is read by `datasets.load_dataset`.

    Args:
        name: A local folder or a name on the Hub.
        config_name, split, streaming: As `load_dataset` takes them.
        source_column, target_column, bad_rows: As `read_rows` takes them.

    Raises:
        DataError: The dataset, the configuration, the split or a column is missing, or a row is one that `read_rows`
            refuses. When streaming, rows beyond the first are checked when they are reached.
    """
    bad_rows = BadRows() if bad_rows is None else bad_rows
    files = files_of_folder(Path(name), config_name, split, say_once)
    if files is not None:
        return load_rows(files, source_column, target_column, streaming, bad_rows)
    columns = Columns(source_column, target_column)
    return load_foreign_rows(Foreign(name, config_name, split), columns, streaming, bad_rows)


def generate_rows(files: tuple[str, ...], columns: Columns, versions: tuple, bad_rows: BadRows) -> Iterator[Row]:
    """Reads rows for `datasets`, whose cache sees by `versions` that a file or this package has changed."""
    del versions
    yield from read_rows(files, columns.source, columns.target, bad_rows, columns.group)


def generate_pass(files: tuple[str, ...], columns: Columns, bad_rows: BadRowsOfStream) -> Iterator[Row]:
    """Reads rows for one pass of a stream, at whose end it says what was left out."""
    counted = bad_rows.of_stream()
    yield from read_rows(files, columns.source, columns.target, counted, columns.group)
    counted.tell(counted.say_first_time)
