# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Reads pairs of texts from files of several formats, or from `datasets`, into the columns `source` and `target`.

A row is `{"source": str, "target": list[str]}`: the target's strings are alternatives, of which any is right. An error
is one line with the place: `train.jsonl:17: no field 'target'; there are 'source', 'tgt'`.
"""

import csv
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from datasets import Dataset, Features, IterableDataset, List, Value, load_dataset
from datasets.exceptions import DatasetGenerationError

from ..errors import DataError, first_line


SOURCE_FEATURES = Features({"source": Value("string")})
ROW_FEATURES = Features({"source": Value("string"), "target": List(Value("string"))})
PAIR_FEATURES = Features({"source": Value("string"), "target": Value("string")})

Row = dict[str, Any]
PlacedRecords = Iterator[tuple[str, dict]]  # place, such as "train.jsonl:17", and the record as it was written


def read_rows(
    files: Sequence[str | Path], source_column: str = "source", target_column: str | None = "target"
) -> Iterator[Row]:
    """
    Reads pairs of texts, one at a time.

    Args:
        files: One table with named columns (`.jsonl` or `.json` with one object a line, `.csv`, `.tsv`, `.parquet`),
            or two plain-text files with one sentence a line, source first. All but Parquet may end in `.gz`. A CSV
            may quote its cells, a TSV does not. In JSONL and Parquet the target may be a list of alternatives.
        source_column: Name of the source's column; `translation.de` is a field of an object.
        target_column: Name of the target's column; None reads sources only, for which one plain-text file is enough.

    Yields:
        `{"source": str, "target": list[str]}`, without "target" if `target_column` is None.

    Raises:
        DataError: A file is missing, empty, of an unknown kind, not UTF-8 or broken; a row is not an object, lacks a
            field, has something other than text in it, an empty source, or too many or few cells; two plain-text files
            differ in their number of lines.
    """
    paths = [Path(file) for file in files]
    is_table = any(format_of(path) in TABLE_READERS for path in paths)
    if not is_table:  # plain text has no column names
        source_column, target_column = "source", target_column and "target"
    row = None
    for place, record in open_records(paths, is_table, target_column is not None):
        row = to_row(record, place, source_column, target_column)
        yield row
    if row is None:
        raise DataError(f"{paths[0]}: the file holds no rows")


def load_rows(
    files: Sequence[str | Path],
    source_column: str = "source",
    target_column: str | None = "target",
    streaming: bool = False,
) -> Dataset | IterableDataset:
    """
    Reads rows as `read_rows` does into a dataset with the columns `source` (string) and `target` (list of strings).

    The rows are kept in an Arrow file in the cache of `datasets`, which is written again when a file changes; with
    `streaming=True` they are read from the files whenever they are asked for.

    Raises:
        DataError: As for `read_rows`, at once. When streaming, only the first row and the numbers of lines of
            plain-text files are checked at once, other rows when they are reached.
    """
    next(read_rows(files, source_column, target_column))
    # Tuples, because `datasets` takes a list for shards and shares its elements among the workers.
    kwargs = {
        "files": tuple(map(str, files)),
        "source_column": source_column,
        "target_column": target_column,
        "versions": tuple(file_version(Path(file)) for file in files),
    }
    features = SOURCE_FEATURES if target_column is None else ROW_FEATURES
    if streaming:
        return IterableDataset.from_generator(generate_rows, features=features, gen_kwargs=kwargs)
    try:
        return Dataset.from_generator(generate_rows, features=features, gen_kwargs=kwargs)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        raise


def load_named_rows(
    name: str,
    config_name: str | None = None,
    split: str = "train",
    source_column: str = "source",
    target_column: str | None = "target",
    streaming: bool = False,
) -> Dataset | IterableDataset:
    """
    Loads a dataset with `datasets.load_dataset` and brings it to the columns `source` and `target`.

    Args:
        name: A local folder or a name on the Hub.
        config_name, split, streaming: As `load_dataset` takes them.
        source_column, target_column: As `read_rows` takes them.

    Raises:
        DataError: The dataset, the configuration, the split or a column is missing, or a row is one that `read_rows`
            refuses. When streaming, rows beyond the first are checked when they are reached.
    """
    try:
        dataset = load_dataset(name, config_name, split=split, streaming=streaming, trust_remote_code=False)
        first = next(iter(dataset), None)
    except Exception as error:  # a dozen types, from the Hub, the network, the builder and the split
        reason = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        raise DataError(f"dataset {name!r}: {' '.join(str(reason).split())}") from error
    place = f"dataset {name!r}, split {split!r}"
    if first is None:
        raise DataError(f"{place}: there are no rows")
    to_indexed_row(first, 0, place, source_column, target_column)
    return dataset.map(
        to_indexed_row,
        with_indices=True,
        fn_kwargs={"place": place, "source_column": source_column, "target_column": target_column},
        remove_columns=list(first),
        features=SOURCE_FEATURES if target_column is None else ROW_FEATURES,
    )


def expand_references(dataset: Dataset | IterableDataset) -> Dataset | IterableDataset:
    """Returns one row for each reference, to train on: `target` becomes a string, other columns are left out."""
    others = [name for name in dataset.column_names or () if name not in PAIR_FEATURES]
    return dataset.map(one_row_per_reference, batched=True, remove_columns=others, features=PAIR_FEATURES)


def one_row_per_reference(batch: dict[str, list]) -> dict[str, list]:
    """Repeats the sources of a batch, once for each of their targets."""
    pairs = [(s, target) for s, targets in zip(batch["source"], batch["target"], strict=True) for target in targets]
    return {"source": [source for source, _ in pairs], "target": [target for _, target in pairs]}


def generate_rows(
    files: tuple[str, ...], source_column: str, target_column: str | None, versions: tuple
) -> Iterator[Row]:
    """Reads rows for `datasets`, whose cache sees by `versions` that a file has changed."""
    del versions
    yield from read_rows(files, source_column, target_column)


def file_version(path: Path) -> tuple[str, int, int]:
    """Returns a file's place, size and time of writing."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def to_indexed_row(record: dict, index: int, place: str, source_column: str, target_column: str | None) -> Row:
    return to_row(record, f"{place}, row {index + 1}", source_column, target_column)


def to_row(record: dict, place: str, source_column: str, target_column: str | None) -> Row:
    """Returns the row in a record; raises DataError with the place if there is none."""
    source = field_of(record, place, source_column)
    if not isinstance(source, str):
        raise DataError(f"{place}: {source_column!r} should be a string, not {shown(source)}")
    if not source.strip():
        raise DataError(f"{place}: {source_column!r} is empty")
    if target_column is None:
        return {"source": source}
    target = field_of(record, place, target_column)
    targets = target if isinstance(target, list) else [target]
    if not targets or not all(isinstance(text, str) for text in targets):
        raise DataError(f"{place}: {target_column!r} should be a string or a list of strings, not {shown(target)}")
    return {"source": source, "target": targets}


def field_of(record: dict, place: str, column: str) -> Any:
    """Returns a field by its name or by its path through objects, such as `translation.de`."""
    if column in record:
        return record[column]
    outer, dot, inner = column.partition(".")
    if dot and isinstance(record.get(outer), dict):
        return field_of(record[outer], f"{place}: in {outer!r}", inner)
    raise DataError(f"{place}: no field {column!r}; there are {', '.join(map(repr, record)) or 'none'}")


def shown(value: Any) -> str:
    """Returns a value as JSON, cut to fit a line."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:60]}..."


def open_records(paths: list[Path], is_table: bool, with_target: bool) -> PlacedRecords:
    """Opens one table, two parallel texts or, without a target, one text; raises DataError for other files."""
    names = " ".join(map(str, paths)) or "no file"
    match len(paths), is_table, with_target:
        case 1, True, _:
            return TABLE_READERS[format_of(paths[0])](paths[0])
        case 1, False, False:
            return read_text(paths[0])
        case 2, False, True:
            return read_parallel_text(*paths)
        case 1, False, True:
            raise DataError(
                f"{names}: unknown extension {paths[0].suffix!r}; a single file must be {', '.join(TABLE_READERS)} "
                "(.gz may follow, except after .parquet), plain text comes as two files, source and target"
            )
        case 2, True, _:
            raise DataError(f"{names}: two files must be plain text, source and target; a table comes alone")
        case count, _, _:
            wanted = "one table or two plain-text files" if with_target else "one file of sources"
            raise DataError(f"{names}: {count} files where {wanted} should be")


def format_of(path: Path) -> str:
    """Returns a file's extension in lower case, without `.gz`."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def read_lines(path: Path) -> Iterator[str]:
    """Yields the lines of a UTF-8 file, each with its line feed; `.gz` is unpacked."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                # Files from Windows may begin with a byte order mark.
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: not UTF-8 (byte {error.object[error.start]:#04x})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if number == 0:
        raise DataError(f"{path}: the file is empty")


def read_text(path: Path) -> PlacedRecords:
    """Reads a plain-text file of sources, one a line."""
    for number, line in enumerate(read_lines(path), start=1):
        yield f"{path}:{number}", {"source": line.rstrip("\r\n")}


def read_parallel_text(source_path: Path, target_path: Path) -> PlacedRecords:
    """Reads two plain-text files, line by line."""
    # Counted beforehand: files of unequal length are refused before hours of streaming, not after.
    source_count, target_count = (sum(1 for _ in read_lines(path)) for path in (source_path, target_path))
    if source_count != target_count:
        raise DataError(f"{source_path} has {source_count} lines but {target_path} has {target_count}")
    for (place, record), (_, target) in zip(read_text(source_path), read_text(target_path), strict=True):
        yield place, {"source": record["source"], "target": target["source"]}


def read_jsonl(path: Path) -> PlacedRecords:
    """Reads a file of JSON objects, one a line."""
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            record = json.loads(line)
            if "\\u" in line:  # an escape can spell half a surrogate pair, which UTF-8 cannot hold
                json.dumps(record, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: invalid JSON: {error.msg} at column {error.colno}") from error
        except UnicodeEncodeError as error:
            raise DataError(f"{place}: invalid JSON: half a surrogate pair is no character") from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
            raise DataError(f"{place}: invalid JSON: {first_line(error)}") from error
        if not isinstance(record, dict):
            raise DataError(f"{place}: a row should be a JSON object, not {shown(record)}")
        yield place, record


def read_csv(path: Path) -> PlacedRecords:
    """Reads comma-separated cells, which may be quoted."""
    return read_cells(path, csv.reader(read_lines(path), strict=True))


def read_tsv(path: Path) -> PlacedRecords:
    """Reads tab-separated cells, without quoting."""
    return read_cells(path, csv.reader(read_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE))


def read_cells(path: Path, reader: Any) -> PlacedRecords:
    """Reads the rows of a `csv.reader`, of which the first names the columns; a row's place is its last line."""
    try:
        names = next(reader)
        if len(set(names)) < len(names):
            raise DataError(f"{path}:1: a column name occurs twice: {', '.join(map(repr, names))}")
        for cells in filter(None, reader):
            place = f"{path}:{reader.line_num}"
            if len(cells) != len(names):
                raise DataError(f"{place}: {len(cells)} cells under {len(names)} column names")
            yield place, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from error


def read_parquet(path: Path) -> PlacedRecords:
    """Reads a Parquet file, a batch at a time."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            numbers = itertools.count(1)
            for batch in file.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    yield f"{path}, row {next(numbers)}", record
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(f"{path}: {reason}") from error


TABLE_READERS: dict[str, Callable[[Path], PlacedRecords]] = {
    ".jsonl": read_jsonl,
    ".json": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}
