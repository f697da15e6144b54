# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Refuses libraries that are too old or too new for the package, in one line and before they are imported; those that fit
are imported in two thirds of the time.

Only for the package's own commands: they import this first. For programs that import the package the models warn, in
`models/versions_xformer.py`, and go on.
"""

import gc
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement


# Names of what Python runs when it imports the package for a command; "-m" is `python -m hf_xformer`.
COMMANDS = ("hf-xformer", "hf-xformer.exe", "-m")
LAUNCHED = Path(__file__).resolve().parent.parent / "scripts/train.py"


def unsupported(requirements: list[str]) -> str:
    """Returns a line about the installed libraries that do not meet requirements; "" if all do."""
    there = {each: installed(each.name) for each in map(Requirement, requirements) if each.marker is None}
    wrong = {each: number for each, number in there.items() if number and not each.specifier.contains(number, True)}
    if not wrong:
        return ""
    found = ", ".join(f"{each.name} {number}" for each, number in wrong.items())
    needed = " ".join(f"'{each}'" for each in wrong)
    return f"hf-xformer does not run with {found}: pip install {needed}"


def installed(name: str) -> str | None:
    """Returns the version of an installed package, or None; what is missing altogether its import will say."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def refuse_unsupported() -> None:
    """Ends the process with one line if a library does not fit the installed package's own metadata."""
    try:
        line = unsupported(requires("hf-xformer") or [])
    except PackageNotFoundError:  # a source tree that nobody has installed
        return
    if line:
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(2)


def begin_importing() -> None:
    """
    Stops the collection of garbage until `end_importing`.

    The libraries are a million objects that stay for ever, and the collector looks at all of them again and again
    while they are made: 1.5 of the 4.5 seconds that a command takes to start and end.
    """
    gc.disable()


def end_importing() -> None:
    """Goes on collecting garbage, but none of the objects that there are."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


if Path(sys.argv[0]).name in COMMANDS or Path(sys.argv[0]).resolve() == LAUNCHED:
    refuse_unsupported()
    begin_importing()  # `hf_xformer/__init__.py` ends it
