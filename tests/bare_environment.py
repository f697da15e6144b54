# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A Python that has some installed packages and what they need, and nothing else: what a stranger's machine has."""

import os
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


class BareEnvironment:
    """
    Runs code where only these packages and their requirements can be imported, in a process of its own.

    Args:
        folder: Where links to the packages are made, and the libraries' caches.
        packages: Names of installed distributions.
    """

    def __init__(self, folder: Path, *packages: str):
        self.folder, self.site = folder, folder / "site"
        self.site.mkdir(parents=True)
        for each in with_requirements(packages):
            for top in {file.parts[0] for file in each.files or () if file.parts[0] not in ("..", "__pycache__")}:
                link = self.site / top
                if not link.exists():
                    link.symlink_to(each.locate_file(top))

    def run(self, code: str, *argv: str | Path, **environment: str) -> str:
        """Returns what the code printed."""
        finished = self.finish(code, *argv, **environment)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    def finish(self, code: str, *argv: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """The process. -S leaves out the folder where the rest is installed, -c's own folder is empty."""
        command = [sys.executable, "-S", "-c", code, *map(str, argv)]
        own = {"PYTHONPATH": str(self.site), "HF_HOME": str(self.folder / "home"), "HF_HUB_OFFLINE": "1"}
        environment = {**os.environ, **own, "OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)


def with_requirements(packages: tuple[str, ...]) -> list[Distribution]:
    """The distributions of these names, and all that they cannot be without."""
    found: dict[str, Distribution] = {}
    wanted = list(packages)
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in found:
            continue
        found[name] = distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return list(found.values())
