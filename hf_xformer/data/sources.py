# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the files that data is read from: in folders, by the splits of a dataset, as tables or as parallel texts."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets.data_files import SPLIT_KEYWORDS, DataFilesDict, get_data_patterns, sanitize_patterns
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import metadata_load

from ..errors import DataError
from ..files import RECORD, doubled
from .formats import (
    TABLE_READERS,
    Records,
    check_file,
    format_of,
    is_gzip,
    read_parallel_text,
    read_parquet,
    read_text,
)
from .rows import Columns


# Keys of a configuration that say which files there are, and nothing of how they are read.
SIMPLE = {"config_name", "data_files", "data_dir", "default", "description"}


def open_records(paths: list[Path], columns: Columns, others: Sequence[str] = ()) -> Records:
    """
    Opens tables, two parallel texts or, without a target, one text; raises DataError for other files.

    Args:
        others: Columns of tables, or fields of their objects, that are read too where there are such.
    """
    names = " ".join(map(str, paths)) or "no file"
    tables = [path for path in paths if format_of(path) in TABLE_READERS]
    if tables and len(tables) == len(paths):
        # All but Parquet's have whole records.
        readers = TABLE_READERS | {".parquet": partial(read_parquet, others=others)}
        return (placed for path in tables for placed in readers[format_of(path)](path, columns.by_option))
    if tables:
        raise DataError(f"{names}: tables and plain text do not go together")
    match len(paths), columns.target is not None:
        case 1, False:
            return read_text(paths[0])
        case 2, True:
            return read_parallel_text(*paths)
        case 1, True:
            raise DataError(
                f"{names}: unknown extension {paths[0].suffix!r}; a single file must be {', '.join(TABLE_READERS)} "
                "(.gz may follow, except after .parquet), plain text comes as two files, source and target; texts "
                "without targets are for --one_column of `hf-xformer tokenizer` and `data`, and a recipe's `objective`"
            )
        case number, with_target:
            wanted = "tables or two plain-text files" if with_target else "tables or one file of sources"
            raise DataError(
                f"{names}: {number} files where {wanted} should be; `cat` makes one plain-text file of several"
            )


def files_of_folder(
    folder: Path, config_name: str | None, split: str, say: Callable | None = None
) -> list[Path] | None:
    """
    Returns the tables of a split, by their names or by the configuration in the folder's README.md, as `datasets`
    takes them; None if `datasets` has to read them, since a configuration asks for more or there are no tables.

    Args:
        say: Is told which files of the split are no tables and are not read.

    Raises:
        DataError: The folder has no such split, or tables of several formats in it, or one both packed and not.
    """
    if not folder.is_dir() or not re.fullmatch(r"\w+", split):
        return None
    config = configuration_of(folder, config_name)
    if config is None:
        return None
    try:
        base = (folder / config.get("data_dir", "")).resolve().as_posix()
        named = config.get("data_files")
        patterns = get_data_patterns(base) if named is None else sanitize_patterns(named)
        splits = DataFilesDict.from_patterns(patterns, base_path=base)
    except (FileNotFoundError, ValueError, TypeError):  # `datasets` says what is wrong
        return None
    if not any(is_table(file) for each in splits.values() for file in each):
        return None
    if not splits.get(split):
        raise DataError(
            f"dataset {str(folder)!r}: no split {split!r}; there are {', '.join(repr(str(each)) for each in splits)}"
        )
    files = list(dict.fromkeys(map(Path, splits[split])))
    tables = list(filter(is_table, files))
    if not tables:
        return None
    if len({TABLE_READERS[format_of(file)] for file in tables}) > 1:
        names = ", ".join(file.name for file in tables)
        raise DataError(f"dataset {str(folder)!r}: files of several formats in the split {split!r}: {names:.300}")
    check_packed_once(tables)
    if say is not None and len(tables) < len(files):
        others = ", ".join(file.name for file in files if file not in tables)
        read = ", ".join(file.name for file in tables)
        say(f"dataset {str(folder)!r}: reading {read:.200}; not reading {others:.200}")
    return tables


def is_table(file: str | Path) -> bool:
    return format_of(Path(file)) in TABLE_READERS


def configuration_of(folder: Path, name: str | None) -> dict[str, Any] | None:
    """
    Returns a configuration that says at most which files there are, from the block `configs:` of a folder's README.md;
    empty if there is no such block; None for any other.
    """
    if (folder / ".huggingface.yaml").is_file():
        return None
    card = folder / "README.md"
    try:
        configs = MetadataConfigs.from_dataset_card_data((card.is_file() and metadata_load(card)) or {})
        if not configs:
            return {} if name is None else None
        config = configs.get(configs.get_default_config_name() if name is None else name)
    except Exception:  # a dozen types, of which `datasets` says what is wrong
        return None
    return config if config is not None and set(config) <= SIMPLE else None


def find_files(files: Sequence[str | Path], say: Callable | None = None) -> list[Path]:
    """
    Returns files as they are, and in place of a folder its tables in the order of their names.

    Args:
        say: Is told what a folder came to, and which table is named twice.

    Raises:
        DataError: Something is no file, or an empty one, or the tables of a folder do not go together.
    """
    found: list[Path] = []
    for path in map(Path, files):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(each for each in path.iterdir() if not each.name.startswith("."))
        tables = [each for each in inside if format_of(each) in TABLE_READERS]
        check_tables(path, tables)
        if say is not None:
            others = ", ".join(each.name for each in inside if each not in tables)
            first_to_last = " to ".join(dict.fromkeys((tables[0].name, tables[-1].name)))
            say(f"{path}: reading {len(tables)}, {first_to_last}" + f"; not reading {others:.200}" * bool(others))
        found += tables
    for path in found:
        check_file(path)
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
    if say is not None and (twice := doubled(filter(is_table, found))) is not None:
        say(f"{twice}: this file is named twice, and each of its rows counts twice")
    return found


def check_tables(folder: Path, tables: list[Path]) -> None:
    """Checks that the tables in a folder are one set of data; raises DataError if not."""
    if (folder / RECORD).is_file():
        raise DataError(f"{folder}: a run's folder, where data should be: its {RECORD} names the data of the run")
    if not tables:
        raise DataError(f"{folder}: a folder without a file of {', '.join(TABLE_READERS)}")
    kinds = sorted({format_of(each) for each in tables})
    splits = sorted({split for each in tables for split in splits_in(each.name)})
    for several, what in ((kinds, "formats"), (splits, "splits")):
        if len(several) > 1:
            raise DataError(f"{folder}: a folder with files of several {what}, {', '.join(several)}: name the files")
    of_none = [each for each in tables if not splits_in(each.name)]
    if splits and of_none:
        other = next(each for each in tables if each not in of_none)
        raise DataError(
            f"{folder}: a folder with files of the split {splits[0]}, {other.name}, beside files of none, "
            f"{of_none[0].name}: name the files, such as {of_none[0]}"
        )
    check_packed_once(tables)


def check_packed_once(tables: list[Path]) -> None:
    """Checks that no table is there both packed and not, which would be read twice; raises DataError if one is."""
    for packed in filter(is_gzip, tables):
        if (plain := packed.with_suffix("")) in tables:
            raise DataError(f"{plain} and {packed.name}: the same table twice, as it seems: name or keep one of them")


def splits_in(name: str) -> list[str]:
    """Returns the splits that a file's name has the word for."""
    words = set(re.split(r"[-._ 0-9]", name.lower()))
    return [str(split) for split, keywords in SPLIT_KEYWORDS.items() if words & set(keywords)]
