# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Input errors: one family of exceptions, how a command prints one as a line, and other lines that are said."""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from huggingface_hub.errors import StrictDataclassError


class InputError(ValueError):
    """Input that cannot be used; the message is one line that names the value and where it came from."""


class ArgumentError(InputError):
    """An option, or a file or folder that an option names."""


class DataError(InputError):
    """A row of data; the message names the file and the line."""


class LaunchError(InputError):
    """Processes, devices or a precision that this machine does not have."""


# A command prints these as a line. Any other error is a bug of ours and keeps its traceback.
INPUT_ERRORS = (InputError, OSError)
# Packages that not everybody needs, and the extras that install them.
EXTRAS = {
    **dict.fromkeys(("datasets", "pyarrow", "evaluate", "sacrebleu", "rapidfuzz"), "train"),
    "ctranslate2": "export",
    "peft": "peft",
}


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """
    Turns errors of these kinds (by default `INPUT_ERRORS`) into `error: ...` on stderr and exit status 2.

    For a block, `with one_line_errors(): ...`, or a whole function, `@one_line_errors()`. With HF_XFORMER_DEBUG=1 in
    the environment the traceback comes first.
    """
    known: tuple[type[Exception], ...] = (ModuleNotFoundError, *(kinds or INPUT_ERRORS))
    try:
        yield
    except BrokenPipeError:  # the reader of our output has left, as `head` does; the command line sees to it
        raise
    except known as error:
        if isinstance(error, ModuleNotFoundError) and missing_extra(error) is None:
            raise
        if os.environ.get("HF_XFORMER_DEBUG") == "1":
            traceback.print_exc()
        # One of several processes speaks for all that meet the same error.
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from error


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """Returns which package is missing, and what installs it; None if it is no package of `EXTRAS`."""
    package = (error.name or "").partition(".")[0]
    return f"needs {package}: pip install 'hf-xformer[{EXTRAS[package]}]'" if package in EXTRAS else None


def one_line(error: BaseException) -> str:
    """Returns the whole message of an error on one line; a system error's is its file and what happened to it."""
    if isinstance(error, ModuleNotFoundError) and (needed := missing_extra(error)) is not None:
        return f"what was asked for {needed}"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """
    Returns the first line of an error's message; if that ends with a colon, the next line too.

    A refused configuration's is its cause's, without "Class validation error for validator ..." in front.
    """
    if isinstance(error, StrictDataclassError) and error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error))  # colours of a terminal
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


@contextmanager
def blame(where: str, *kinds: type[Exception]) -> Iterator[None]:
    """
    Turns a library's errors about a value into an `ArgumentError` that begins with where the value came from.

    Args:
        where: Such as "--config_name tiny.json".
        kinds: The library's types of error for a value that it refuses, as narrow as they can be.
    """
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        raise ArgumentError(f"{where}: {first_line(error)}") from error


@contextmanager
def naming(title: str) -> Iterator[None]:
    """Has an input error begin with the name of what it is about, such as one of several corpora, if there is one."""
    try:
        yield
    except InputError as error:
        if not title:
            raise
        raise type(error)(f"{title}: {error}") from error


def say_of(say: Callable, title: str, line: str) -> None:
    """Says a line of what has a name."""
    say(f"{title}: {line}")


def say_once(line: str, shards: int = 1) -> None:
    """
    Prints a line on stderr, once of all processes and workers of a loader that read the same rows.

    Args:
        shards: Of the rows. Workers divide them, and so do processes if each gets as many, as `datasets` has it: what
            is in one shard a single reader knows. Otherwise all processes read all of them.
    """
    loading = sys.modules.get("torch.utils.data")  # without which there are no workers
    worker = None if loading is None else loading.get_worker_info()
    is_first = worker is None or worker.id == 0 or shards > 1
    has_own = shards > 1 and shards % int(os.environ.get("WORLD_SIZE", "1")) == 0
    if is_first and (has_own or os.environ.get("RANK", "0") == "0"):
        print(line, file=sys.stderr)


def refuse_misspelt(words: Iterable[str], known: Iterable[str]) -> None:
    """
    Looks at the options on a command line before anything else is said of it.

    Args:
        words: The command line.
        known: All options, such as "--output_dir".

    Raises:
        ArgumentError: One is none of them; the message has the one that is most like it.
    """
    known = list(known)
    for word in words:
        if word == "--":  # behind it there are no options
            return
        name = word.partition("=")[0]
        if word.startswith("-") and word != "-" and name not in known and not is_value(word):
            near = did_you_mean(name, known) or "; --help lists those there are"
            raise ArgumentError(f"{name}: unknown option{near}")


def is_value(word: str) -> bool:
    """Returns whether argparse takes a word that begins with a dash for a value: a number, or a text with spaces."""
    return " " in word or re.fullmatch(r"-\d+|-\d*\.\d+", word) is not None


def most_like(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that is most like a misspelt one; None if none is."""
    known = list(known)
    near = [each for each in known if each.casefold() == name.casefold()] or get_close_matches(name, known, n=1)
    return near[0] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean X?" with the known name that is most like a misspelt one; nothing if none is."""
    near = most_like(name, known)
    return f"; did you mean {near}?" if near else ""


def wrong_choice(value: Any, choices: Iterable[Any]) -> str:
    """Returns what to say of a value that is none of the choices: the one that is most like it, or all of them."""
    choices = list(map(str, choices))
    meant = did_you_mean(str(value), choices) or f"; there are {', '.join(choices)}"
    return f"{value!r} is none of its choices{meant}"
