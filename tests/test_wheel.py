# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What `pip install` gets: a wheel that has all that it needs, and runs where there is no source tree."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from small_runs import ROOT


pytestmark = pytest.mark.slow  # builds the package, and trains with it


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (found,) = folder.glob("*.whl")
    assert len(list(folder.glob("*.tar.gz"))) == 1
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    site = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel], check=True)
    return site


def python(site: Path, folder: Path, *words: str | Path, **streams) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, *map(str, words)]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, **streams)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_the_package_its_types_and_its_configurations_and_no_more(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = (path for path in (ROOT / "hf_xformer").rglob("*.py*") if path.suffix in (".py", ".pyi"))
    package = {path.relative_to(ROOT).as_posix() for path in files}
    assert {
        "hf_xformer/data/batches.py",
        "hf_xformer/data/__init__.pyi",
    } <= package  # a folder data/ is ignored by git
    shipped = {
        f"hf_xformer/share/{path.relative_to(ROOT).as_posix()}"
        for folder in ("configs", "model_cards")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == package | shipped | {"hf_xformer/py.typed"}
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_who_has_only_the_wheel_trains_and_decodes_by_the_same_paths(installed, task, tmp_path):
    where = python(installed, tmp_path, "-c", "import hf_xformer; print(hf_xformer.__file__)")
    assert where.startswith(str(installed))
    words = task.options(tmp_path / "run")
    words[words.index("--config_name") + 1] = "configs/model/tiny.json"
    launch = ["--config_file", "configs/accelerate/cpu.yaml"]
    python(installed, tmp_path, "-m", "hf_xformer", "train", *launch, *words)
    assert (tmp_path / "run/README.md").exists() and (tmp_path / "run/modeling_xformer.py").exists()
    said = python(installed, tmp_path, installed / "bin/hf-xformer", "generate", "run", input="A B\n")
    assert len(said.splitlines()) == 1
