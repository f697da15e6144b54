# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Rows as datasets: kept in the cache of `datasets`, or read whenever they are asked for."""

from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from datasets import Dataset, Features, IterableDataset, List, Value
from datasets.exceptions import DatasetGenerationError

from ..errors import DataError
from ..files import read_json, write_json
from .bad_rows import BadRows
from .rows import Columns, Row


SOURCE_FEATURES = Features({"source": Value("string")})
ROW_FEATURES = Features({"source": Value("string"), "target": List(Value("string"))})
PAIR_FEATURES = Features({"source": Value("string"), "target": Value("string")})
TALLY = "bad_rows.json"  # beside the rows in the cache: what was left out of them
Generate = Callable[..., Iterator[Row]]


def store_rows(
    generate: Generate, given: dict[str, Any], columns: Columns, versions: tuple[str, ...], bad_rows: BadRows
) -> Dataset:
    """
    Returns rows in the cache of `datasets`, which keeps them by the arguments that they are generated with.

    Rows that were left out, now or when the cache was written, are counted in `bad_rows`.

    Args:
        generate: Yields the rows; takes what is given, and `columns`, `versions` and `bad_rows`.
        versions: What changes when the data do.
    """
    kwargs = {**given, "columns": columns, "versions": (*rules(), *versions)}
    # `datasets` hands this very object to the generator. A copy of it would count nothing here, and so have the rows
    # be read again below.
    counted = bad_rows.fresh()
    try:
        dataset = Dataset.from_generator(
            generate, features=features_of(columns), gen_kwargs=kwargs | {"bad_rows": counted}
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


@cache
def rules() -> tuple[str, ...]:
    """
    Returns what decides which rows and tokens are made of the same files: a digest of this folder's code, and the
    versions of the libraries. A cache of others must not hide it: `datasets` knows functions by their names alone.
    """
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py*")))
    return sha256(code).hexdigest(), transformers.__version__, tokenizers.__version__


def stream_rows(
    generate: Generate,
    given: dict[str, Any],
    columns: Columns,
    bad_rows: BadRows,
    look_ahead: Callable[[BadRows], Any],
) -> IterableDataset:
    """
    Returns rows that are read in every pass over them, after a look at the first.

    Args:
        generate: Yields the rows of a pass; takes what is given, and `columns` and `bad_rows`.
        look_ahead: Reads the first row; takes what counts bad ones.
    """
    look_ahead(bad_rows.fresh() if bad_rows.policy == "skip" else bad_rows.of_stream())
    kwargs = {**given, "columns": columns, "bad_rows": bad_rows.of_stream()}
    return IterableDataset.from_generator(generate, features=features_of(columns), gen_kwargs=kwargs)


def features_of(columns: Columns) -> Features:
    features = SOURCE_FEATURES if columns.target is None else ROW_FEATURES
    return features if columns.group is None else Features({**features, "group": Value("string")})


def expand_references(dataset: Dataset | IterableDataset) -> Dataset | IterableDataset:
    """Returns one row for each reference, to train on: `target` becomes a string, other columns are left out."""
    others = [name for name in dataset.column_names or () if name not in PAIR_FEATURES]
    return dataset.map(one_row_per_reference, batched=True, remove_columns=others, features=PAIR_FEATURES)


def one_row_per_reference(batch: dict[str, list]) -> dict[str, list]:
    """Repeats the sources of a batch, once for each of their targets."""
    pairs = [(s, target) for s, targets in zip(batch["source"], batch["target"], strict=True) for target in targets]
    return {"source": [source for source, _ in pairs], "target": [target for _, target in pairs]}
