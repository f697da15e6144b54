# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Files of predictions: JSONL of each row's source, prediction and references."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from ..files import write_json_lines


def is_predictions(name: str) -> bool:
    """Returns whether the name of a system is that of a file of predictions, and not of a checkpoint."""
    return name.endswith(".jsonl") or Path(name).is_file()


def write_predictions(
    path: Path, sources: Sequence[str], predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> None:
    """Writes a row a line."""
    names = ("source", "prediction", "references")
    rows = zip(sources, predictions, references, strict=True)
    write_json_lines(path, (dict(zip(names, row, strict=True)) for row in rows))


def read_predictions(path: Path, count: int | None = None) -> tuple[list[str], list[str], list[list[str]]]:
    """
    Returns the sources, predictions and references of the first rows, or of all.

    Raises:
        DataError: A line is not as `write_predictions` writes it, or there is none.
    """
    sources, predictions, references = [], [], []
    with open(path, encoding="utf-8", newline="\n") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if count is not None and number > count:
                    break
                row = json.loads(line)
                source, prediction, texts = row["source"], row["prediction"], row["references"]
                if not texts or not isinstance(texts, list):
                    raise TypeError
                if not all(isinstance(text, str) for text in (source, prediction, *texts)):
                    raise TypeError
                sources.append(source)
                predictions.append(prediction)
                references.append(texts)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number}: not a row of --predictions_file, which has a text `source`, a text "
                "`prediction` and a list of texts `references`"
            ) from error
    if not sources:
        raise DataError(f"{path}: there are no predictions in it")
    return sources, predictions, references
