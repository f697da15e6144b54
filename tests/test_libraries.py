# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A command with libraries of the wrong versions ends with one line, before it has imported them."""

import gc
import os
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version

import pytest
from small_runs import ROOT

from hf_xformer import cli
from hf_xformer.libraries import unsupported


@pytest.mark.parametrize("requirement", ["torch>=99", "torch<1", "torch>=2,<2.1"])
def test_a_version_outside_a_requirement_is_named_with_what_to_install(requirement):
    line = unsupported([requirement, "transformers", "no-such-package>=2"])
    assert line.startswith(f"hf-xformer does not run with torch {version('torch')}: pip install 'torch")
    assert "transformers" not in line and "no-such-package" not in line


def test_versions_inside_their_requirements_and_extras_are_fine():
    assert unsupported([f"torch=={version('torch')}", "transformers>=5", 'torch>=99; extra == "all"']) == ""


@pytest.mark.parametrize("command", [["-m", "hf_xformer"], [ROOT / "scripts/train.py"]], ids=["module", "script"])
def test_a_command_refuses_them_and_a_program_does_not(command, tmp_path):
    """Beside an installation whose metadata asks for a later transformers; `transformers` itself would print."""
    (tmp_path / "hf_xformer-9.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: hf-xformer\nVersion: 9\nRequires-Dist: transformers>=99\n"
    (tmp_path / "hf_xformer-9.dist-info/METADATA").write_text(metadata)
    (tmp_path / "transformers.py").write_text("print('imported')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    ran = subprocess.run([sys.executable, *command, "train"], env=environment, capture_output=True, text=True)
    line = f"hf-xformer does not run with transformers {version('transformers')}: pip install 'transformers>=99'"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"error: {line}\n")
    program = [sys.executable, "-c", "import hf_xformer"]
    ran = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert ran.stdout == "imported\n" and "does not run with" not in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("importer", ["hf-xformer", "-m", "program.py"])
def test_garbage_is_collected_once_the_package_is_imported(importer):
    """A program's own objects are not taken out of the collection."""
    printed = "print(gc.isenabled(), gc.get_freeze_count())"
    code = f"import gc, sys; sys.argv = [{importer!r}]; import hf_xformer; {printed}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    enabled, frozen = ran.stdout.split()
    assert enabled == "True" and (int(frozen) == 0) == (importer == "program.py")


@pytest.mark.parametrize("verb", ["data", "no-such-module"])
def test_garbage_is_collected_once_a_verb_is_imported(verb, monkeypatch):
    monkeypatch.setitem(cli.VERBS, verb, "")
    monkeypatch.setattr(sys, "argv", [])  # which it sets
    try:
        with suppress(ModuleNotFoundError):
            cli.choose_verb([verb])
        assert gc.isenabled() and gc.get_freeze_count()
    finally:
        gc.unfreeze()
