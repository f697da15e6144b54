# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""How every command says what is wrong with its input: one line on stderr, exit status 2."""

import argparse
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from huggingface_hub.errors import StrictDataclassError

from ..verbs import as_typed


# RuntimeError and ImportError are how the libraries say that an option needs a package or a device that is not there.
INPUT_ERRORS = (ValueError, RuntimeError, ImportError, OSError, StrictDataclassError)


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """
    Turns errors of these kinds (by default `INPUT_ERRORS`) into `error: ...` on stderr and exit status 2.

    For a block, `with one_line_errors(): ...`, or a whole function, `@one_line_errors()`. With HF_XFORMER_DEBUG=1 in
    the environment the traceback comes first.
    """
    known = kinds or INPUT_ERRORS
    try:
        yield
    except known as error:
        if os.environ.get("HF_XFORMER_DEBUG") == "1":
            traceback.print_exc()
        # Of several processes that meet the same error, one says so.
        if os.environ.get("LOCAL_RANK", "0") == "0":
            message = as_typed(Path(sys.argv[0]).name, " ".join(str(error).split()))
            print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2) from error


class Parser(argparse.ArgumentParser):
    """
    An `ArgumentParser` for whom a wrong command line is an input error like any other: it raises ValueError. Its help
    names the command as it was typed.
    """

    def format_help(self) -> str:
        return as_typed(self.prog, super().format_help())

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see --help)")
