# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The layout that CONTRIBUTING.md states: who may import whom, headers, and documents that do not lie."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS
from small_models import make_model
from small_runs import ROOT

import hf_xformer
from hf_xformer.arguments import parse_run
from hf_xformer.tokenization import train_tokenizer


# Not beside the tests where a wheel is tested.
PACKAGE = Path(hf_xformer.__file__).parent
TRAVELLING = [
    f"{name}_xformer"
    for name in (
        *("naming", "configuration", "packing", "blocks", "attention", "sublayers", "output", "pretrained", "stack"),
        *("generation", "modeling"),
    )
]
# What does not travel with a checkpoint knows the models through the package's public names only.
LIBRARY = [path.stem for path in PACKAGE.glob("*.py") if path.stem not in (*TRAVELLING, "__init__")]


def imports(path: Path) -> list[tuple[int, str]]:
    """Every import of the package's own modules in a file: `(dots, module)`, absolute ones with 0 dots."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("hf_xformer")):
            found.append((node.level, node.module or ""))
        elif isinstance(node, ast.Import):
            found.extend((0, alias.name) for alias in node.names if alias.name.startswith("hf_xformer"))
    return found


@pytest.mark.parametrize("module", TRAVELLING)
def test_travelling_files_import_each_other_flat_and_downwards(module):
    allowed = {(1, name) for name in TRAVELLING[: TRAVELLING.index(module)]}
    assert set(imports(PACKAGE / f"{module}.py")) <= allowed


@pytest.mark.parametrize("module", LIBRARY)
def test_the_library_does_not_reach_into_the_model_or_the_commands(module):
    for dots, name in imports(PACKAGE / f"{module}.py"):
        assert dots == 1 and name.split(".")[0] not in (*TRAVELLING, "commands"), (module, name)


@pytest.mark.parametrize("path", sorted((PACKAGE / "commands").glob("*.py")), ids=lambda path: path.stem)
def test_commands_import_the_library_and_never_each_other(path):
    for dots, name in imports(path):
        assert (dots == 1 and name == "errors") or (dots == 2 and name not in TRAVELLING), (path.name, name)


def test_importing_the_package_does_not_import_the_rest_of_it():
    code = "import sys, hf_xformer; print(*sorted(name for name in sys.modules if name.startswith('hf_xformer.')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == sorted(f"hf_xformer.{name}" for name in (*TRAVELLING, "pipeline"))


def in_tree(name: str) -> Path:
    return PACKAGE.parent / name if name.startswith("hf_xformer/") else ROOT / name


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():  # an unpacked source distribution
        return [path for path in ROOT.rglob("*") if ".cache" not in path.parts and "__pycache__" not in path.parts]
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.splitlines()]


def test_every_file_starts_with_its_licence():
    without = [
        path
        for path in tracked()
        if path.suffix in (".py", ".yaml", ".toml", ".md", "") and path.name not in ("LICENSE",) and path.is_file()
        if path.parent.parent != ROOT / "model_cards"  # cards, which are the models'
        if "SPDX-License-Identifier: Apache-2.0" not in "\n".join(path.read_text().splitlines()[:4])
    ]
    assert without == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_file_that_a_document_names_exists(document):
    text = (ROOT / document).read_text()
    named = set(re.findall(r"(?:hf_xformer|scripts|configs|tests|model_cards)/[\w./-]*\w", text))
    assert named
    assert [name for name in sorted(named) if not in_tree(name).exists()] == []


def test_the_readmes_code_runs(tmp_path, monkeypatch, capsys):
    """On an untrained model where the reader has a trained one: each `print` must print one line, whichever."""
    checkpoint = tmp_path / "runs/g2p-quickstart"
    tokenizer = train_tokenizer(["K U B E R N T S", "AH IY UW"], "symbol")
    tokenizer.save_pretrained(checkpoint)
    model = make_model(vocab_size=len(tokenizer))
    model.generation_config.max_length = 9
    model.save_pretrained(checkpoint)
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) == "".join(blocks).count("print(") > 2


def test_the_readme_has_its_figures():
    assert not re.search(r"@[A-Z]+@", (ROOT / "README.md").read_text())


def test_no_planted_fault_is_stale():
    text = "".join((PACKAGE / f"{name}.py").read_text() for name in TRAVELLING)
    assert [mutant.fault for mutant in MUTANTS if text.count(mutant.line) != 1] == []


def test_every_recipe_that_the_readme_names_is_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text()
    recipes = set(re.findall(r"configs/train/[\w.-]+yaml", text))
    assert recipes
    for recipe in recipes:
        parse_run([recipe], "")
