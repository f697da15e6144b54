# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of datasets that `datasets` itself reads: those of the Hub, and folders that are configured for it."""

import csv
import hashlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset, config, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetGenerationError

from ..errors import DataError
from ..files import content_of
from .bad_rows import BadRows, BadRowsOfStream
from .row_datasets import store_rows, stream_rows
from .rows import Columns, Row, checked_at_end, good_rows


STREAM_BATCH = 100  # rows of a stream that are read at once


@dataclass(frozen=True)
class Foreign:
    """A split of a dataset, by the names that `datasets.load_dataset` takes."""

    name: str
    config_name: str | None
    split: str

    @property
    def place(self) -> str:
        """Its name in a message."""
        return f"dataset {self.name!r}, split {self.split!r}"


def load_foreign_rows(
    foreign: Foreign, columns: Columns, streaming: bool, bad_rows: BadRows
) -> Dataset | IterableDataset:
    """
    Loads a split and brings it to the columns `source` and `target`.

    Raises:
        DataError: As for `load_named_rows`.
    """
    dataset = load_split(foreign, columns, streaming)
    with said_in_one_line(foreign.name):
        first = next(iter(placed(dataset, dataset, foreign.place)), None)
    if first is None:
        raise DataError(f"{foreign.place}: there are no rows")
    if not streaming:
        versions = dataset._fingerprint, cache_of(foreign.name) or ""
        return store_rows(generate_foreign_rows, {"foreign": foreign}, columns, versions, bad_rows)

    def look_ahead(counted: BadRows) -> None:
        list(good_rows([first], columns, counted))

    given = {"dataset": dataset, "shards": list(range(dataset.num_shards)), "place": foreign.place}
    return stream_rows(stream_foreign_rows, given, columns, bad_rows, look_ahead)


def load_split(foreign: Foreign, columns: Columns, streaming: bool = False) -> Dataset | IterableDataset:
    """
    Loads a split with `datasets.load_dataset`; cells of CSV and TSV files are texts, as they are for `read_rows`.

    Raises:
        DataError: It cannot be loaded; the message is the library's.
    """
    name, config_name = foreign.name, foreign.config_name
    with said_in_one_line(name):
        cache = cache_of(name)
        options = reading_options(load_dataset_builder(name, config_name, cache_dir=cache), columns)
        given = {"split": foreign.split, "streaming": streaming, "cache_dir": cache}
        return load_dataset(name, config_name, trust_remote_code=False, **given, **options)


def cache_of(name: str) -> str | None:
    """Returns a cache for what a folder holds now, by its content: the library's has old rows of changed files."""
    if not Path(name).is_dir():
        return None
    digest = hashlib.sha256(content_of(Path(name)).encode()).hexdigest()
    return str(Path(config.HF_DATASETS_CACHE) / f"hf_xformer-{digest[:16]}")


@contextmanager
def said_in_one_line(name: str) -> Iterator[None]:
    """Raises DataError for what `datasets` raises, and for rows of more cells than a CSV file has column names."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Length of header")  # by pandas, which drops the cells
            yield
    except Exception as error:  # a dozen types, from the Hub, the network, the builder and the split
        reason = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        if isinstance(reason, Warning):
            more = "rows have more cells than the first row has column names: name each column there"
            raise DataError(f"dataset {name!r}: {more}") from error
        raise DataError(f"dataset {name!r}: {' '.join(str(reason).split())}") from error


def reading_options(builder: Any, columns: Columns) -> dict[str, Any]:
    """Returns the options by which `datasets` reads files of text, CSV and TSV as this package does, nearly."""
    kind = Path(builder.__module__.replace(".", "/")).name
    if kind == "text" and (builder.config.encoding or "utf-8").lower() in ("utf-8", "utf8"):
        return {"encoding": "utf-8-sig"}  # a byte order mark is no part of the text
    return cell_options(builder, columns) if kind == "csv" else {}


def cell_options(builder: Any, columns: Columns) -> dict[str, Any]:
    """Returns the options by which `datasets` reads the cells of its CSV files as `read_csv` and `read_tsv` do."""
    names = columns.by_option.values()
    texts = dict.fromkeys((*names, *(f"{name}\r" for name in names)), str)
    options: dict[str, Any] = {"keep_default_na": False, "na_filter": False, "converters": texts}
    config = builder.config
    if config.index_col is None:
        options["index_col"] = False  # a shorter header would make no column of the first cells
    if config.lineterminator is None and len(config.sep) == 1 and config.engine in (None, "c"):
        options["lineterminator"] = "\n"  # a carriage return alone is text; one at the end: `without_returns`
    if config.sep == "\t":
        options["quoting"] = csv.QUOTE_NONE
    return options


def generate_foreign_rows(foreign: Foreign, columns: Columns, versions: tuple, bad_rows: BadRows) -> Iterator[Row]:
    """Reads the rows of a split that `datasets` has loaded before, for its cache."""
    del versions
    dataset = load_split(foreign, columns)
    rows = good_rows(placed(dataset, dataset, foreign.place), columns, bad_rows)
    yield from checked_at_end(rows, bad_rows, foreign.place)


def stream_foreign_rows(
    dataset: IterableDataset, shards: list[int], place: str, columns: Columns, bad_rows: BadRowsOfStream
) -> Iterator[Row]:
    """Reads rows of a dataset for one pass of a stream; `datasets` asks for shards by one, and each says its count."""
    counted = bad_rows.of_stream(dataset.num_shards)
    for shard in shards:
        # Read in batches, since a dataset that is iterated by rows shares its shards among a loader's workers again.
        batches = dataset.shard(dataset.num_shards, shard).iter(STREAM_BATCH)
        records = (
            dict(zip(batch, values, strict=True)) for batch in batches for values in zip(*batch.values(), strict=True)
        )
        where = place if dataset.num_shards == 1 else f"{place}, shard {shard + 1} of {dataset.num_shards}"
        yield from good_rows(placed(dataset, records, where), columns, counted)
    counted.tell(counted.say_first_time)


def placed(dataset: Dataset | IterableDataset, records: Iterable[dict], place: str) -> Iterator[tuple[str, dict]]:
    """Yields records of a dataset with their places."""
    records = without_returns(records) if dataset.info.builder_name == "csv" else records
    return ((f"{place}, row {number}", record) for number, record in enumerate(records, start=1))


def without_returns(records: Iterable[dict]) -> Iterator[dict]:
    """Yields the rows of a CSV file without the carriage returns before their line feeds; empty lines are none."""
    for record in records:
        first, *others = record.values()
        if first == "\r" and not any(others):
            continue
        last = list(record)[-1]
        value = record[last]
        if isinstance(value, str) or last.endswith("\r"):
            record = {name: each for name, each in record.items() if name != last}
            record[last.removesuffix("\r")] = value.removesuffix("\r") if isinstance(value, str) else value
        yield record
