# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The layout that CONTRIBUTING.md states: who may import whom, and headers."""

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest
from mutants import MUTANTS
from small_runs import ROOT, python

import hf_xformer


# Not beside the tests where a wheel is tested.
PACKAGE = Path(hf_xformer.__file__).parent
# In the order in which they may import each other: each those before it.
TRAVELLING = [
    f"{name}_xformer"
    for name in (
        *(
            "versions",
            "fields",
            "configuration",
            "dropout",
            "fusing",
            "masks",
            "cache",
            "varlen",
            "blocks",
            "packing",
            "positions",
            "output",
            "layout",
        ),
        *("rows", "attention", "sublayers", "layers", "pretrained", "stack", "lookup"),
        *("compiling", "generation", "modeling"),
    )
]
# Which of the package's rooms each may import; `models` stands for the public names in its `__init__` alone.
MAY_IMPORT = {
    "libraries": set(),
    "version": set(),
    "errors": set(),
    "files": {"errors"},
    "yaml_files": {"errors", "files"},
    "data": {"errors", "files", "models"},
    "checkpoints": {"errors", "files", "models", "data"},
    "decoding": {"errors", "files", "models", "data", "checkpoints"},
    "training": {"errors", "files", "yaml_files", "models", "data", "checkpoints", "decoding"},
    "hub": {"version", "errors", "files", "yaml_files", "models", "checkpoints"},
    "demo": {"errors", "files", "models", "data", "checkpoints", "decoding"},
    "commands": {"version", "errors", "files", "models", "data", "checkpoints", "decoding", "training", "hub", "demo"},
}


def imports(path: Path) -> set[str]:
    """The package's own modules that a file imports, as names below the package: `data.batches`, or `` for itself."""
    found = set()
    package = ["hf_xformer", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names = [".".join([*base, *filter(None, [node.module])])]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.partition(".")[2] for name in names if name.partition(".")[0] == "hf_xformer"}
    return found


def modules_of(room: str) -> list[Path]:
    return sorted((PACKAGE / room).glob("*.py")) if (PACKAGE / room).is_dir() else [PACKAGE / f"{room}.py"]


ROOMS = [(room, path) for room in MAY_IMPORT for path in modules_of(room)]


@pytest.mark.parametrize("module", TRAVELLING)
def test_travelling_files_import_each_other_flat_and_downwards(module):
    allowed = {f"models.{name}" for name in TRAVELLING[: TRAVELLING.index(module)]}
    assert imports(PACKAGE / f"models/{module}.py") <= allowed


@pytest.mark.parametrize("room,path", ROOMS, ids=[f"{room}/{path.stem}" for room, path in ROOMS])
def test_dependencies_point_one_way(room, path):
    for name in imports(path):
        target, _, module = name.partition(".")
        if target == room:
            shared = module in ("options", "training_record")
            assert room != "commands" or shared, f"commands import each other: {path.name}, {name}"
        else:
            assert target in MAY_IMPORT[room], f"{room} may not import {name}"
            assert target != "models" or not module, f"{path.name} reaches into the models: {name}"


def private_names(path: Path) -> set[str]:
    """The names with a leading underscore that a file reads, imports or defines in a class: none of them is ours."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found.update(part for module in modules for part in module.split("."))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "delattr"):
            found.update(str(each.value) for each in node.args if isinstance(each, ast.Constant))
    return {name for name in found if re.fullmatch(r"_(?!_)\w+", name)}


def test_private_names_of_libraries_are_those_that_contributing_explains():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("\n## Private names of libraries\n")[2].partition("\n## ")[0]
    used = set().union(*map(private_names, PACKAGE.rglob("*.py")))
    assert used == set(re.findall(r"`(_\w+)`", section))


@pytest.mark.parametrize(
    "line",
    ["model._buffers", "from torch._dynamo import reset", "import a._b", "class A(B):\n def _save(self): ...",
     "class A(B):\n _x: int = 1", 'getattr(model, "_hf_hook")'],
)  # fmt: skip
def test_a_new_private_name_is_noticed(line, tmp_path):
    (tmp_path / "a.py").write_text(f"self.__dict__, a.b\n{line}\n")
    assert len(private_names(tmp_path / "a.py")) == 1


# Calls of the libraries that may run code from a folder or the Hub, and classes that read JSON alone.
RUN_CODE = ("from_pretrained", "from_config", "load_dataset", "load_metric", "pipeline", "load_custom_generate")
JSON_ALONE = ("GenerationConfig", "PeftConfig")


def calls_without_consent(text: str) -> list[str]:
    """The calls that could run code that nobody has asked for, or ask for consent on the standard input."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            runs = called.rpartition(".")[2] in RUN_CODE or called in ("evaluate.load", "torch.hub.load")
            says = any(each.arg == "trust_remote_code" for each in node.keywords)
            if runs and not says and called.partition(".")[0] not in JSON_ALONE:
                found.append(ast.unparse(node))
            if called == "torch.load" and not any(each.arg == "weights_only" for each in node.keywords):
                found.append(ast.unparse(node))
            if called.partition(".")[0] in ("pickle", "joblib", "dill"):
                found.append(ast.unparse(node))
    return found


def test_every_call_that_could_run_foreign_code_says_whether_it_may():
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    assert {path.name: calls for path in files if (calls := calls_without_consent(path.read_text()))} == {}
    wrong = "AutoModel.from_pretrained(name)\nevaluate.load(name)\npipeline('x')\ntorch.load(f)\npickle.loads(b'')"
    assert len(calls_without_consent(wrong)) == 5


CONTRACT = {
    "": (
        "XformerConfig", "XformerModel", "XformerEncoderModel", "XformerForSeq2SeqLM", "XformerPreTrainedModel",
        "Seq2SeqPipeline",
    ),
    ".data": ("BatchedDataset", "PackedWithin", "PaddedWithin", "BatchCollator", "DataCollatorForPackedSeq2Seq"),
    ".checkpoints": ("load_model", "load_tokenizers", "convert_model", "export_model"),
    ".decoding": ("Decoder", "Hypothesis"),
}  # fmt: skip


@pytest.mark.parametrize("package", CONTRACT)
def test_names_that_other_programs_are_written_against_can_be_imported(package):
    module = importlib.import_module(f"hf_xformer{package}")
    for name in CONTRACT[package]:
        assert callable(getattr(module, name)) and getattr(module, name).__name__ == name
    assert set(CONTRACT[package]) <= set(dir(module))


@pytest.mark.slow
def test_importing_the_package_imports_the_models_and_nothing_else():
    code = "import sys, hf_xformer; print(*sorted(sys.modules))"
    loaded = python("-c", code).stdout.split()
    own = {name.partition(".")[2] for name in loaded if name.startswith("hf_xformer.")}
    root = {"libraries", "version", "models", "decoding", "decoding.pipeline"}
    assert own == root | {f"models.{name}" for name in TRAVELLING}
    heavy = {"peft", "bitsandbytes", "datasets", "evaluate", "matplotlib", "deepspeed", "tensorboard"}
    assert heavy.isdisjoint(name.partition(".")[0] for name in loaded)


LONGEST_FILE, LONGEST_FUNCTION = 450, 60  # lines; a function's docstring does not count


def python_files() -> list[Path]:
    folders = [PACKAGE, *(ROOT / name for name in ("scripts", "benchmarks", "tests"))]
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def length_of(function: ast.AST) -> int:
    docstring = ast.get_docstring(function, clean=False)
    return function.end_lineno - function.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


def test_files_and_functions_stay_short():
    long = []
    for path in python_files():
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > LONGEST_FILE:
            long.append(f"{path.name}: {lines} lines")
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        long += [
            f"{path.name}: {node.name}, {length} lines"
            for node in functions
            if (length := length_of(node)) > LONGEST_FUNCTION
        ]
    assert long == []


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


def test_no_planted_fault_is_stale():
    text = "".join((PACKAGE / f"models/{name}.py").read_text() for name in TRAVELLING)
    assert [mutant.fault for mutant in MUTANTS if text.count(mutant.line) != 1] == []
