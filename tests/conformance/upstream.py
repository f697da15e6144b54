# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the common model tests of the installed transformers importable as the package `transformers_tests`."""

import importlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
import transformers
from filelock import FileLock


CACHE = Path(__file__).parents[2] / ".cache" / f"transformers-{transformers.__version__}"
# Not `tests`: that name is this project's folder. The files import each other relatively, so any name serves.
PACKAGE = CACHE / "transformers_tests"
STAND_INS = Path(__file__).parent / "stand_ins"

HOW_TO_FETCH = f"""\
The conformance tests run transformers' own model tests, which are in its source distribution and not in its wheel.
Fetching transformers=={transformers.__version__} with pip failed:

{{error}}

Go online (or point pip at an index that has the source distribution) and run the tests again, or unpack the folder
`tests` of transformers-{transformers.__version__}.tar.gz as
{PACKAGE}
"""


def download(folder: Path) -> Path:
    """The source distribution of the installed transformers, as a file in `folder`."""
    # Only transformers from source: pip asks its build backend for the metadata even when it only downloads. With
    # build isolation pip brings that backend along; without it every environment would need setuptools and wheel.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "transformers"]
    command += ["--dest", str(folder), f"transformers=={transformers.__version__}"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(result.stderr.strip() or result.stdout.strip())
    return next(folder.glob("transformers-*.tar.gz"))


def unpack(archive: Path, package: Path):
    """Writes the files of the archive's folder `tests` to `package`, which appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=package.parent) as folder, tarfile.open(archive) as tar:
        for member in tar.getmembers():
            path = Path(member.name)
            if member.isfile() and path.parts[1:2] == ("tests",):
                target = Path(folder, "unpacked", *path.parts[2:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(tar.extractfile(member).read())
        Path(folder, "unpacked").rename(package)


def add_stand_ins(package: Path):
    """Copies our replacements of the modules that the source distribution leaves out."""
    for source in STAND_INS.rglob("*.py"):
        target = package / source.relative_to(STAND_INS)
        # Another process may be importing the file: one that is up to date is left alone.
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def fetch():
    """Fills the cache unless it is full; the processes of pytest-xdist wait for each other."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / ".lock"):
        if not PACKAGE.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                unpack(download(Path(folder)), PACKAGE)
        add_stand_ins(PACKAGE)


class NotFetched:
    """What a test class inherits in place of transformers' tests when they are out of reach: failures, not skips."""

    error: str

    @classmethod
    def setUpClass(cls):
        pytest.fail(HOW_TO_FETCH.format(error=cls.error), pytrace=False)


def load(name: str) -> ModuleType:
    """The module `name` of transformers' tests; if they are out of reach, one of which every class is `NotFetched`."""
    try:
        fetch()
    except (RuntimeError, OSError) as error:
        missing, members = ModuleType(name), {"error": str(error)}
        missing.__getattr__ = lambda attribute: type(attribute, (NotFetched,), members)
        return missing
    if str(CACHE) not in sys.path:
        sys.path.insert(0, str(CACHE))
    return importlib.import_module(f"transformers_tests.{name}")
