# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Reads pairs of texts from files of several formats, or from `datasets`, into the columns `source` and `target`.

A row is `{"source": str, "target": list[str]}`: the target's strings are alternatives, of which any is right. What is
wrong with a row is said with its place: `train.jsonl:17: no field 'target': there are 'source', 'tgt'`.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, IterableDataset, List, Value, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetGenerationError

from ..errors import DataError, did_you_mean
from ..files import content_of, read_json, write_json
from .bad_rows import SHORTEST, BadRows, BadRowsOfStream, Fault, say_once
from .formats import TABLE_READERS, format_of, shown
from .sources import files_of_folder, find_files, open_records


SOURCE_FEATURES = Features({"source": Value("string")})
ROW_FEATURES = Features({"source": Value("string"), "target": List(Value("string"))})
PAIR_FEATURES = Features({"source": Value("string"), "target": Value("string")})
TALLY = "bad_rows.json"  # beside the rows in the cache: what was left out of them
STREAM_BATCH = 100  # rows of a stream that are read at once
RULES = 3  # raised when the same files give other rows, which a cache of before must not hide

Row = dict[str, Any]


def read_rows(
    files: Sequence[str | Path],
    source_column: str = "source",
    target_column: str | None = "target",
    bad_rows: BadRows | None = None,
) -> Iterator[Row]:
    """
    Reads pairs of texts, one at a time.

    Args:
        files: Tables with named columns (`.jsonl` or `.json` with one object a line, `.csv`, `.tsv`, `.parquet`), one
            behind the other, folders of them, or two plain-text files with one sentence a line, source first. All but
            Parquet may end in `.gz`. A CSV may quote its cells, a TSV does not. In JSONL and Parquet the target may be
            a list of alternatives.
        source_column: Name of the source's column; `translation.de` is a field of an object.
        target_column: Name of the target's column; None reads sources only, for which one plain-text file is enough.
        bad_rows: Counts rows that are not an object, lack a field, have something other than text in it, an empty
            text, or too many or few cells. By default they are an error after the last row.

    Yields:
        `{"source": str, "target": list[str]}`, without "target" if `target_column` is None.

    Raises:
        DataError: A file is missing, empty, of an unknown kind, not UTF-8 or broken, or lacks a column; two plain-text
            files differ in their number of lines; there are bad rows, and they are to be an error; no row is left.
    """
    paths = find_files(files)
    bad_rows = BadRows() if bad_rows is None else bad_rows
    yield from settled(good_rows_of(paths, source_column, target_column, bad_rows), bad_rows, str(paths[0]))


def good_rows_of(paths: list[Path], source_column: str, target_column: str | None, bad_rows: BadRows) -> Iterator[Row]:
    """Yields the rows of files, and counts those that have none: it may be all."""
    if not any(format_of(path) in TABLE_READERS for path in paths):  # plain text has no column names
        source_column, target_column = "source", target_column and "target"
    records = open_records(paths, source_column, target_column)
    yield from good_rows(records, source_column, target_column, bad_rows)


def settled(rows: Iterable[Row], bad_rows: BadRows, place: str) -> Iterator[Row]:
    """Yields rows; raises DataError at their end if bad ones are an error or no row is left."""
    is_empty = True
    for row in rows:
        is_empty = False
        yield row
    left_out = bad_rows.settle()
    if is_empty:
        raise DataError(f"{place}: " + (f"no row is left: {left_out}" if left_out else "there are no rows"))


def load_rows(
    files: Sequence[str | Path],
    source_column: str = "source",
    target_column: str | None = "target",
    streaming: bool = False,
    bad_rows: BadRows | None = None,
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
    # Tuples, because `datasets` takes a list for shards and shares its elements among the workers.
    kwargs: dict[str, Any] = {"files": tuple(map(str, paths))}
    kwargs |= {"source_column": source_column, "target_column": target_column}
    if streaming:
        ahead = bad_rows.fresh() if bad_rows.policy == "skip" else bad_rows.of_stream()
        next(read_rows(paths, source_column, target_column, ahead))
        kwargs["bad_rows"] = bad_rows.of_stream()
        features = features_of(target_column)
        return IterableDataset.from_generator(stream_rows, features=features, gen_kwargs=kwargs)
    kwargs["versions"] = (RULES, *(f"{path.resolve()}: {content_of(path)}" for path in paths))
    return store_rows(generate_rows, kwargs, bad_rows)


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
    dataset = load_foreign(name, config_name, split, source_column, target_column, streaming)
    columns = {"source_column": source_column, "target_column": target_column}
    place = place_of(name, split)
    first = next(iter(dataset), None)
    if first is None:
        raise DataError(f"{place}: there are no rows")
    kwargs: dict[str, Any] = {"name": name, "config_name": config_name, "split": split, **columns}
    if not streaming:
        return store_rows(generate_foreign_rows, kwargs | {"versions": (RULES, dataset._fingerprint)}, bad_rows)
    ahead = bad_rows.fresh() if bad_rows.policy == "skip" else bad_rows.of_stream()
    list(good_rows([(f"{place}, row 1", first)], source_column, target_column, ahead))
    kwargs = {"dataset": dataset, "shards": list(range(dataset.num_shards)), "place": place, **columns}
    return IterableDataset.from_generator(
        stream_foreign_rows,
        features=features_of(target_column),
        gen_kwargs=kwargs | {"bad_rows": bad_rows.of_stream()},
    )


def features_of(target_column: str | None) -> Features:
    return SOURCE_FEATURES if target_column is None else ROW_FEATURES


def place_of(name: str, split: str) -> str:
    return f"dataset {name!r}, split {split!r}"


def store_rows(generate: Callable, kwargs: dict[str, Any], bad_rows: BadRows) -> Dataset:
    """
    Returns rows in the cache of `datasets`, which keeps them by the arguments that they are generated with.

    What was left out of them is counted in `bad_rows`, now or when they were written.
    """
    counted = bad_rows.fresh()
    try:
        dataset = Dataset.from_generator(
            generate, features=features_of(kwargs["target_column"]), gen_kwargs=kwargs | {"bad_rows": counted}
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        raise
    tally = Path(dataset.cache_files[0]["filename"]).with_name(TALLY)
    if counted.rows == 0 and tally.exists():
        counted.recall(read_json(tally))
    else:
        if counted.rows == 0:  # stopped after the rows were written
            all(True for _ in generate(**kwargs, bad_rows=counted))
        write_json(tally, counted.record())
    bad_rows.recall(counted.record())
    return dataset


def generate_rows(
    files: tuple[str, ...], source_column: str, target_column: str | None, versions: tuple, bad_rows: BadRows
) -> Iterator[Row]:
    """Reads rows for `datasets`, whose cache sees by `versions` that a file or this package has changed."""
    del versions
    yield from read_rows(files, source_column, target_column, bad_rows)


def stream_rows(
    files: tuple[str, ...], source_column: str, target_column: str | None, bad_rows: BadRowsOfStream
) -> Iterator[Row]:
    """Reads rows for one pass of a stream, at whose end it says what was left out."""
    counted = bad_rows.of_stream()
    yield from read_rows(files, source_column, target_column, counted)
    if counted.total:
        say_once(counted.settle())


def generate_foreign_rows(
    name: str,
    config_name: str | None,
    split: str,
    source_column: str,
    target_column: str | None,
    versions: tuple,
    bad_rows: BadRows,
) -> Iterator[Row]:
    """Reads the rows of a dataset that `datasets` has loaded before, for its cache."""
    del versions
    dataset = load_foreign(name, config_name, split, source_column, target_column)
    place = place_of(name, split)
    rows = good_rows(numbered(dataset, place), source_column, target_column, bad_rows)
    yield from settled(rows, bad_rows, place)


def stream_foreign_rows(
    dataset: IterableDataset,
    shards: list[int],
    place: str,
    source_column: str,
    target_column: str | None,
    bad_rows: BadRowsOfStream,
) -> Iterator[Row]:
    """Reads rows of a dataset for one pass of a stream; `datasets` asks for shards by one, and each says its count."""
    counted = bad_rows.of_stream()
    for shard in shards:
        # Read in batches, since a dataset that is iterated by rows shares its shards among a loader's workers again.
        batches = dataset.shard(dataset.num_shards, shard).iter(STREAM_BATCH)
        records = (
            dict(zip(batch, values, strict=True)) for batch in batches for values in zip(*batch.values(), strict=True)
        )
        where = place if dataset.num_shards == 1 else f"{place}, shard {shard + 1} of {dataset.num_shards}"
        yield from good_rows(numbered(records, where), source_column, target_column, counted)
    if counted.total:
        say_once(counted.settle())


def numbered(records: Iterable[dict], place: str) -> Iterator[tuple[str, dict]]:
    """Yields records with their places."""
    return ((f"{place}, row {number}", record) for number, record in enumerate(records, start=1))


def load_foreign(
    name: str,
    config_name: str | None,
    split: str,
    source_column: str,
    target_column: str | None,
    streaming: bool = False,
) -> Dataset | IterableDataset:
    """
    Loads a dataset with `datasets.load_dataset`; cells of CSV and TSV files are texts, as they are for `read_rows`.

    Raises:
        DataError: It cannot be loaded; the message is the library's.
    """
    try:
        builder = load_dataset_builder(name, config_name)
        options = cell_options(builder, [column for column in (source_column, target_column) if column])
        return load_dataset(name, config_name, split=split, streaming=streaming, trust_remote_code=False, **options)
    except Exception as error:  # a dozen types, from the Hub, the network, the builder and the split
        reason = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        raise DataError(f"dataset {name!r}: {' '.join(str(reason).split())}") from error


def cell_options(builder: Any, columns: list[str]) -> dict[str, Any]:
    """Returns the options by which `datasets` reads the cells of its CSV files as `read_csv` and `read_tsv` do."""
    if Path(builder.__module__.replace(".", "/")).name != "csv":
        return {}
    options: dict[str, Any] = {"keep_default_na": False, "na_filter": False, "converters": dict.fromkeys(columns, str)}
    if builder.config.sep == "\t":
        options["quoting"] = csv.QUOTE_NONE
    return options


def expand_references(dataset: Dataset | IterableDataset) -> Dataset | IterableDataset:
    """Returns one row for each reference, to train on: `target` becomes a string, other columns are left out."""
    others = [name for name in dataset.column_names or () if name not in PAIR_FEATURES]
    return dataset.map(one_row_per_reference, batched=True, remove_columns=others, features=PAIR_FEATURES)


def one_row_per_reference(batch: dict[str, list]) -> dict[str, list]:
    """Repeats the sources of a batch, once for each of their targets."""
    pairs = [(s, target) for s, targets in zip(batch["source"], batch["target"], strict=True) for target in targets]
    return {"source": [source for source, _ in pairs], "target": [target for _, target in pairs]}


def good_rows(
    records: Iterable[tuple[str, dict | Fault]], source_column: str, target_column: str | None, bad_rows: BadRows
) -> Iterator[Row]:
    """Yields the rows in records, and counts those that have none."""
    for place, record in records:
        bad_rows.rows += 1
        row = record if isinstance(record, Fault) else to_row(record, source_column, target_column)
        if not isinstance(row, Fault):
            row = uneven(row, bad_rows.max_length_ratio) or row
        if isinstance(row, Fault):
            bad_rows.add(place, *row)
        else:
            yield row


def to_row(record: dict, source_column: str, target_column: str | None) -> Row | Fault:
    """Returns the row in a record, or why there is none."""
    source = field_of(record, source_column)
    if isinstance(source, Fault):
        return Fault(source.reason, source.detail, "--source_column gives the name of another")
    where = "" if source_column == "source" else f" in {source_column!r}"
    if not isinstance(source, str):
        return Fault("source is not a text", f"{shown(source)}{where}")
    if not source.strip():
        return Fault("empty source", where.strip())
    if target_column is None:
        return {"source": source}
    target = field_of(record, target_column)
    if isinstance(target, Fault):
        return Fault(target.reason, target.detail, "--target_column gives the name of another")
    where = "" if target_column == "target" else f" in {target_column!r}"
    targets = target if isinstance(target, list) else [target]
    if not targets or not all(isinstance(text, str) for text in targets):
        return Fault("target is not a text or a list of texts", f"{shown(target)}{where}")
    if not all(text.strip() for text in targets):
        return Fault("empty target", where.strip())
    return {"source": source, "target": targets}


def uneven(row: Row, most: float | None) -> Fault | None:
    """Returns what is wrong with a row whose source is far longer than a target, or far shorter."""
    if most is None:
        return None
    source = len(row["source"].strip())
    for target in (len(text.strip()) for text in row.get("target", ())):
        if max(source, target) > most * max(min(source, target), SHORTEST):
            return Fault(f"one side more than {most:g} times the other", f"{source:,} and {target:,} characters")
    return None


def field_of(record: dict, column: str) -> Any:
    """Returns a field by its name or by its path through objects, such as `translation.de`; or why it is missing."""
    if column in record:
        return record[column]
    outer, dot, inner = column.partition(".")
    if dot and isinstance(record.get(outer), dict):
        found = field_of(record[outer], inner)
        return Fault(found.reason, f"in {outer!r} {found.detail}") if isinstance(found, Fault) else found
    return Fault(f"no field {column!r}", names_instead(column, tuple(record)))


@lru_cache
def names_instead(column: str, names: tuple[str, ...]) -> str:
    """Returns the names of fields that there are in place of one, and which of them may be meant."""
    return f"there are {', '.join(map(repr, names)) or 'none'}{did_you_mean(column, names)}"
