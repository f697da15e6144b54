# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the records of a file, each with its place: JSONL, CSV, TSV, Parquet and plain text.

A line ends at a line feed, and a carriage return before it belongs to the end. Any other character that some programs
take for the end of a line, a lone carriage return or U+2028 for example, is a character of the text.
"""

import csv
import gzip
import json
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ..errors import DataError, first_line, naming
from .bad_rows import Fault


# Bytes of the longest line, and characters of the longest cell: whatever a file is, it takes no more memory.
LONGEST = 2**24
# Stands for a carriage return while `csv` reads a line, which would end there; text in UTF-8 holds no surrogates.
RETURN = "\ud80d"

EMPTY_LINE = Fault("empty line")

T = TypeVar("T")
Records = Iterator[tuple[str, dict | Fault]]  # place, such as "train.jsonl:17", and the record or why it is none
ByOption = dict[str, str]  # names of columns by the options that give them: {"--source_column": "de"}


def format_of(path: Path) -> str:
    """Returns a file's extension in lower case, without `.gz`."""
    return (path.with_suffix("") if is_gzip(path) else path).suffix.lower()


def is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def check_file(path: Path, instead: str = "write it to a file first") -> None:
    """
    Checks what a path names without opening it, which would wait for the other end of a pipe.

    Args:
        instead: What to do with a pipe or a device, which cannot be read twice.

    Raises:
        DataError: It is no file.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: Is a directory")
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: {kinds.get(stat.S_IFMT(mode), 'something else')}, where a file should be: {instead}")


def read_lines(source: Path | BinaryIO, option: str = "") -> Iterator[str]:
    """
    Yields the lines of a file in UTF-8 without their ends and without a byte order mark; `.gz` is unpacked.

    Args:
        source: A path, or an open stream of bytes such as `sys.stdin.buffer`.
        option: The one that names the file, such as "--input", for messages.

    Raises:
        DataError: It cannot be read, is not UTF-8, or has a line of more than `LONGEST` bytes.
    """
    with naming(option):
        if not isinstance(source, Path):
            yield from split_lines(source, stream_name(source))
            return
        check_file(source)
        try:
            with gzip.open(source) if is_gzip(source) else source.open("rb") as file:
                yield from split_lines(file, str(source))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{source}: {getattr(error, 'strerror', None) or error}") from error


def stream_name(stream: BinaryIO) -> str:
    """Returns the name of a stream that is a file; any other is the standard input."""
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) and name != "<stdin>" else "standard input"


def split_lines(file: Any, name: str) -> Iterator[str]:
    """Yields the lines of a stream of bytes, as `read_lines` does."""
    for number, line in enumerate(iter(partial(file.readline, LONGEST + 1), b""), start=1):
        if len(line) > LONGEST:
            raise DataError(f"{name}:{number}: a line of more than {LONGEST // 2**20} MiB is no row of text")
        if line.endswith(b"\n"):
            line = line[: -2 if line.endswith(b"\r\n") else -1]
        try:
            # Files from Windows may begin with a byte order mark.
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            hint = "; gzip's files are named .gz" if error.object[:2] == b"\x1f\x8b" else ""
            raise DataError(f"{name}:{number}: not UTF-8 (byte {byte:#04x}){hint}") from error


def numbered_lines(path: Path, option: str = "") -> Iterator[tuple[int, str]]:
    """Yields the lines of a file with their numbers, as `read_lines` does; raises DataError if there is none too."""
    number = 0
    with naming(option):
        for number, line in enumerate(read_lines(path), start=1):
            yield number, line
        if number == 0:
            raise DataError(f"{path}: the file is empty")


def read_text(path: Path) -> Records:
    """Reads a plain-text file of sources, one a line."""
    for number, line in numbered_lines(path):
        yield f"{path}:{number}", {"source": line}


def read_parallel_text(source_path: Path, target_path: Path) -> Records:
    """Reads two plain-text files, line by line."""
    # Counted beforehand: files of unequal length are refused before hours of streaming, not after.
    source_count, target_count = (sum(1 for _ in read_text(path)) for path in (source_path, target_path))
    if source_count != target_count:
        raise DataError(f"{source_path} has {source_count} lines but {target_path} has {target_count}")
    targets = (line for _, line in numbered_lines(target_path))
    for (number, source), target in zip(numbered_lines(source_path), targets, strict=True):
        yield f"{source_path}:{number}", {"source": source, "target": target}


def before_the_last(
    numbered: Iterable[tuple[int, T]], is_empty: Callable[[T], bool]
) -> Iterator[tuple[int, T | None]]:
    """Yields numbered lines or cells, None for empty ones; empty ones behind the last that is not are left out."""
    first = count_empty = 0
    for number, line in numbered:
        if is_empty(line):
            first = number if count_empty == 0 else first
            count_empty += 1
            continue
        yield from ((each, None) for each in range(first, first + count_empty))
        count_empty = 0
        yield number, line


def read_jsonl(path: Path, columns: ByOption) -> Records:
    """Reads a file of JSON objects, one a line."""
    del columns  # each object has its own
    is_first = True
    for number, line in before_the_last(numbered_lines(path), lambda line: not line.strip(" \t\r")):
        if line is None:
            yield f"{path}:{number}", EMPTY_LINE
            continue
        if is_first:
            check_first_object(path, number, line)
            is_first = False
        yield f"{path}:{number}", parse_object(line)


def check_first_object(path: Path, number: int, line: str) -> None:
    """Checks that JSON begins as one object a line; raises DataError for any other."""
    text = line.strip(" \t\r")
    kind = "an array" if text.startswith("[") else "an object over several lines" if text == "{" else None
    if kind is not None:
        command = "jq -c '.[]'" if kind == "an array" else "jq -c ."
        raise DataError(
            f"{path}:{number}: {kind}, where one JSON object a line should be; "
            f"{command} {path} > {path.with_suffix('')}-lines.jsonl makes such a file"
        )


def parse_object(line: str) -> dict | Fault:
    """Returns the JSON object in a line."""
    try:
        record = json.loads(line, object_pairs_hook=without_duplicates)
        if "\\u" in line:  # an escape can spell half a surrogate pair, which UTF-8 cannot hold
            json.dumps(record, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        return Fault("invalid JSON", f"{error.msg} at column {error.colno}")
    except UnicodeEncodeError:
        return Fault("invalid JSON", "half a surrogate pair is no character")
    except KeyError as error:
        return Fault("a key occurs twice", shown(error.args[0]))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        return Fault("invalid JSON", first_line(error))
    return record if isinstance(record, dict) else Fault("not a JSON object", shown(record))


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; raises KeyError with a name that occurs twice in it."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyError(next(name for name in found if names.count(name) > 1))
    return found


def read_tsv(path: Path, columns: ByOption) -> Records:
    """Reads tab-separated cells, without quoting."""
    lines = numbered_lines(path)
    names = next(lines)[1].split("\t")
    check_header(path, names, columns)
    for number, line in before_the_last(lines, lambda line: not line):
        yield f"{path}:{number}", EMPTY_LINE if line is None else under_names(line.split("\t"), names)


def read_csv(path: Path, columns: ByOption) -> Records:
    """Reads comma-separated cells, which may be quoted; a row's place is its first line."""
    csv.field_size_limit(max(LONGEST, csv.field_size_limit()))
    lines = (f"{line.replace(chr(13), RETURN)}\n" for _, line in numbered_lines(path))
    reader = csv.reader(lines, strict=True)
    rows = cells_of(path, reader)
    names = next(rows, (1, []))[1]
    check_header(path, names, columns)  # type: ignore[arg-type]  # a first row with broken quotes is refused
    for start, cells in before_the_last(rows, lambda cells: cells == []):
        place = f"{path}:{start}"
        if cells is None or isinstance(cells, Fault):
            yield place, EMPTY_LINE if cells is None else cells
            continue
        record = under_names(cells, names)  # type: ignore[arg-type]
        if isinstance(record, Fault) and start != reader.line_num:
            # Left out as one row, it would take all those lines with it.
            raise DataError(f"{place}: {record.detail}, up to line {reader.line_num}: is a quote left open?")
        yield place, record


def cells_of(path: Path, reader: Any) -> Iterator[tuple[int, list[str] | Fault]]:
    """Yields the cells of the rows that a reader of `csv` finds, each with the number of its first line."""
    while True:
        start = reader.line_num + 1
        try:
            yield start, [cell.replace(RETURN, "\r") for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            if start != reader.line_num or "unexpected end" in str(error) or start == 1:
                raise DataError(f"{path}:{start}: {open_quote(error, reader.line_num)}") from error
            yield start, Fault("broken quotes", str(error))


def open_quote(error: csv.Error, line: int) -> str:
    """Returns what to say of a row that does not end where it should."""
    if "unexpected end" in str(error) or "field larger" in str(error):
        return "a quote opens in this row and is never closed; a quote inside of a quoted cell is written twice"
    return f"the quotes that begin in this row go wrong in line {line}: {error}"


def under_names(cells: Sequence[str], names: Sequence[str]) -> dict | Fault:
    """Returns the cells of a row by the names of their columns."""
    if len(cells) == len(names):
        return dict(zip(names, cells, strict=True))
    wrong = f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'} under {len(names)} column names"
    return Fault("wrong number of cells", wrong)


def check_header(path: Path, names: Sequence[str], columns: ByOption) -> None:
    """Checks that the first row of a table names the columns; raises DataError if not."""
    check_names(f"{path}:1", names)
    for option, column in columns.items():
        if column not in names:
            there = ", ".join(map(shown, names)) or "none"
            raise DataError(
                f"{path}:1: no column {column!r}: the first row names the columns, and here it is {there:.300}; "
                f"{option} gives the name of another, or put a row of names before the first"
            )


def check_names(place: str, names: Sequence[str]) -> None:
    """Checks that no two columns have one name; raises DataError if they do."""
    if len(set(names)) < len(names):
        raise DataError(f"{place}: a column name occurs twice: {', '.join(map(shown, names)):.300}")


def read_parquet(path: Path, columns: ByOption, others: Iterable[str] = ()) -> Records:
    """
    Reads a Parquet file, a batch at a time.

    Args:
        others: Further columns, or fields of their objects, which may be missing.
    """
    import pyarrow.parquet  # which only the extra `train` installs

    check_file(path)
    number = 1
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check_names(str(path), file.schema_arrow.names)
            wanted = [column_in(path, file.schema_arrow.names, *each) for each in columns.items()]
            outer = (each for other in others for each in (other, other.partition(".")[0]))
            wanted += [each for each in outer if each in file.schema_arrow.names]
            numbers = count(1)
            for batch in file.iter_batches(batch_size=1024, columns=list(dict.fromkeys(wanted))):
                for record in batch.to_pylist():
                    number = next(numbers)
                    yield f"{path}, row {number}", record
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, after row {number - 1}: not UTF-8 (byte {error.object[error.start]:#04x})"
        ) from error
    except (OSError, pyarrow.ArrowException, ValueError) as error:  # the last of objects with one name twice
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(f"{path}: {reason}") from error


def column_in(path: Path, names: Sequence[str], option: str, column: str) -> str:
    """Returns the column of a table that holds one, which may be a field of its objects."""
    outer = column if column in names else column.partition(".")[0]
    if outer not in names:
        there = ", ".join(map(repr, names)) or "none"
        raise DataError(f"{path}: no column {column!r}; there are {there}; {option} gives the name of another")
    return outer


def shown(value: Any) -> str:
    """Returns a value as JSON, cut to fit a line."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except RecursionError:
        text = f"a {type(value).__name__} of very many levels"
    return text if len(text) <= 60 else f"{text[:60]}..."


TABLE_READERS: dict[str, Callable[[Path, ByOption], Records]] = {
    ".jsonl": read_jsonl,
    ".json": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}
