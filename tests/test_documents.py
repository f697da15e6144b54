# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Documents that do not lie: their code runs, their commands parse, what they name exists."""

import argparse
import ast
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import make_model
from small_runs import ROOT
from test_structure import TRAVELLING

import hf_xformer
from hf_xformer.cli import LAUNCH_OPTIONS, VERBS
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.training.recipe import parse_run


PACKAGE = Path(hf_xformer.__file__).parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
IDS = [path.name for path in DOCUMENTS]


@pytest.fixture(scope="module")
def hooks():
    """The module that fills in the site's tables."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/hooks.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def blocks(path: Path, language: str) -> list[str]:
    return [text for name, text in FENCE.findall(path.read_text(encoding="utf-8")) if name == language]


def with_blocks(language: str) -> list:
    return [pytest.param(path, id=path.name) for path in DOCUMENTS if blocks(path, language)]


def commands(text: str) -> list[list[str]]:
    """The commands of a block, a pipe's each for itself, without comments and redirections."""
    found = []
    for line in re.sub(r"\\\n", "", text).splitlines():
        words = shlex.split(line, comments=True)
        while "|" in words:
            found.append(words[: words.index("|")])
            words = words[words.index("|") + 1 :]
        redirected = [i for i, word in enumerate(words) if word in ("<", ">")]
        found.append(words[: min(redirected, default=None)])
    return [command for command in found if command]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.slow
@pytest.mark.parametrize("path", with_blocks("python"))
def test_python_blocks_run(path, tmp_path, monkeypatch, capsys):
    """In their order, with an untrained model where the reader has a trained one; prints are as their comments say."""
    checkpoint = tmp_path / "runs/g2p-quickstart"
    tokenizer = train_tokenizer(["K U B E R N T S", "AH IY UW"], "symbol")
    tokenizer.save_pretrained(checkpoint)
    tokenizer.save_pretrained(tmp_path / "their-tokenizer")
    model = make_model(vocab_size=len(tokenizer))
    model.generation_config.max_length = 9
    model.save_pretrained(checkpoint)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks(path, "python"):
        exec(compile(block, path.name, "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        assert len(printed) >= block.count("print(")
        if "runs/" not in block:  # else the comment is what a trained model says
            assert set(re.findall(r"print\(.*\)  # (.*)$", block, flags=re.MULTILINE)) <= set(printed)


@pytest.mark.parametrize("name", ["README.md", "docs/index.md", "docs/decoding.md"])
def test_lines_for_decoding_speak_the_targets_language(name, tmp_path, monkeypatch, capsys):
    """On a checkpoint with a tokenizer for each side, whose symbols are others."""
    checkpoint = tmp_path / "runs/g2p-quickstart"
    source, target = train_tokenizer(["K U B E R N T S"], "symbol"), train_tokenizer(["q w x y z"], "symbol")
    source.save_pretrained(checkpoint)
    target.save_pretrained(checkpoint / "target_tokenizer")
    model = make_model(vocab_size=len(target), encoder_vocab_size=len(source))
    model.generation_config.max_length = 9
    model.save_pretrained(checkpoint)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks(ROOT / name, "python"):
        exec(compile(block, name, "exec"), names)
    printed = capsys.readouterr().out.replace("generated_text", "").replace("score", "")
    assert set(re.findall("[A-Za-z]", printed)) and set(re.findall(r"[A-Za-z]", printed)) <= set("qwxyze")


@pytest.mark.parametrize("path", with_blocks("yaml"))
def test_yaml_blocks_are_recipes(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(path, "yaml"):
        Path("recipe.yaml").write_text(block, encoding="utf-8")
        parse_run(["recipe.yaml"], "")


@pytest.mark.parametrize("recipe", sorted((ROOT / "configs/train").glob("*.yaml")), ids=lambda path: path.name)
def test_recipes_are_understood(recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    parse_run([str(recipe)], "")


@pytest.mark.parametrize("path", with_blocks("bash"))
def test_commands_parse(path, hooks):
    for command in [words for block in blocks(path, "bash") for words in commands(block)]:
        check_command(command, hooks)


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_commands_within_a_sentence_exist(path, hooks):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for command in re.findall(r"`((?:make|python|hf-xformer) [^`]+)`", text):
        words = shlex.split(command)
        if words[0] != "hf-xformer":
            check_command(words, hooks)
        elif words[1] not in ("VERB", "--help"):
            assert words[1] in VERBS, command
            known = {word for action in hooks.parser_of(words[1])._actions for word in action.option_strings}
            assert {word for word in words if word.startswith("--")} <= known, command


@pytest.mark.parametrize("verb", VERBS)
def test_examples_of_a_verbs_help_parse(verb, hooks):
    text = hooks.parser_of(verb).format_help()
    lines = re.sub(r"\\\n|(?<=\S)\n {6}(?=--)", " ", text).splitlines()
    examples = [line.strip() for line in lines if re.match(r" +(echo .*\| )?hf-xformer \w+ (?!\[)", line)]
    assert verb == "train" or examples
    for command in [words for example in examples for words in commands(example)]:
        check_command(command, hooks)


def test_make_help_lists_every_target_that_has_a_sentence():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = re.findall(r"^([^\s:#]+):.*## ", makefile, flags=re.MULTILINE)
    shown = subprocess.run(["make", "--silent", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^make (\S+) {2}", shown, flags=re.MULTILINE) == told


def check_command(words: list[str], hooks) -> None:
    """Asserts that a command's program, verb, options and files exist."""
    match words:
        case ["hf-xformer", "train", "--schema"]:
            pass
        case ["hf-xformer", verb, *rest]:
            assert verb in VERBS, words
            check_options(verb, rest, hooks)
        case ["accelerate", "launch", *rest]:
            script = rest.index("scripts/train.py")
            launched = rest[:script]
            assert (ROOT / launched[launched.index("--config_file") + 1]).exists(), words
            check_options("train", rest[script + 1 :], hooks)
        case ["make", *targets]:
            known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert {word for word in targets if "=" not in word} <= set(known), words
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module), words
        case ["python", script, *_]:
            assert (ROOT / script).exists(), words
        case _:
            assert words[0] in ("echo", "git", "pip") or words[0].startswith(".venv/bin/"), words


def check_options(verb: str, words: list[str], hooks) -> None:
    parser = hooks.parser_of(verb)
    if verb == "train":
        parser = argparse.ArgumentParser(parents=[parser], add_help=False, allow_abbrev=False)
        for option in ("config_file", *LAUNCH_OPTIONS):
            parser.add_argument(f"--{option}")
        parser.add_argument("recipe", nargs="?")
        known, left = parser.parse_known_args(words)
        assert left == [], words
        assert known.config_file is None or (ROOT / known.config_file).exists(), words
        return
    parser.parse_args(words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_files_that_a_document_names_exist(path):
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:hf_xformer|scripts|configs|tests|benchmarks|model_cards|docs)/[\w./-]*\w", text))
    assert [name for name in sorted(named) if not in_tree(name).exists()] == []


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if path.name != "upgrading.md"], ids=lambda path: path.name
)
def test_modules_that_a_document_names_exist(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for name in sorted(set(re.findall(r"\bhf_xformer(?:\.\w+)+", text))):
        module, _, attribute = name.rpartition(".")
        found = importlib.import_module(module)
        assert hasattr(found, attribute) or importlib.import_module(name), name


def test_the_readmes_links_lead_somewhere():
    """Those of the site are followed by mkdocs."""
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#([\w-]+))?\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    for target, anchor in links:
        assert (ROOT / target).exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (ROOT / target).read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")) for heading in headings}


def test_the_readme_links_every_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"(docs/{page.name})" not in text] == []


def test_every_option_is_described(hooks):
    for options in (hooks.recipe_options(), hooks.trainer_options(), hooks.model_options(), hooks.card_options()):
        assert len(options) > 5
        assert [each.name for each in options if not each.help.strip() or not each.type] == []


def test_every_placeholder_of_a_page_is_filled_in(hooks):
    used = {name for page in PAGES for name in hooks.PLACEHOLDER.findall(page.read_text(encoding="utf-8"))}
    assert used == set(hooks.BLOCKS)


def test_every_verb_has_a_page_that_names_its_options(hooks):
    pages = hooks.generated_pages()
    for verb in VERBS:
        text = pages[f"commands/{verb}.md"]
        assert text.startswith(f"# {verb}\n")
        if verb != "train":
            options = [word for each in hooks.parser_of(verb)._actions for word in each.option_strings]
            assert all(f"`{word}`" in text for word in options if word not in ("-h", "--help"))


def test_the_reference_has_every_public_name():
    listed = re.findall(r"^::: (?:\w+\.)+(\w+)$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.MULTILINE)
    rooms = [importlib.import_module(f"hf_xformer{room}") for room in ("", ".data", ".checkpoints", ".decoding")]
    assert {name for room in rooms for name in room.__all__ if hasattr(room, name)} <= set(listed)


def test_contributing_says_where_things_are():
    """The table's rows name a file and what it defines."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \| `([\w/]+\.py)`: (.*) \|$", text, flags=re.MULTILINE)
    assert len(rows) > 10
    for file, names in rows:
        tree = ast.parse(in_tree(file).read_text(encoding="utf-8"))
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        defined |= {each.id for node in tree.body for each in ast.walk(node) if isinstance(each, ast.Name)}
        assert set(re.findall(r"`(\w+)`", names)) <= defined, file


def in_tree(name: str) -> Path:
    return PACKAGE.parent / name if name.startswith("hf_xformer/") else ROOT / name


def test_contributing_lists_every_module():
    """The travelling ones in the order in which they import each other."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = re.search(r"^hf_xformer/\n((?:  .*\n)+)", text, flags=re.MULTILINE)[1]
    listed, room = [], ""
    for indent, name in re.findall(r"^( {2}| {4})(\w+(?:\.py|/)) ", tree, flags=re.MULTILINE):
        room = room if len(indent) == 4 else name if name.endswith("/") else ""
        listed.append(name if name.endswith("/") else f"{room}{name}")
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    verbs = {f"commands/{verb}.py" for verb in VERBS}
    rooms = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    assert set(listed) == {name for name in modules if not name.endswith("/__init__.py")} - verbs | rooms
    assert [name for name in listed if name.endswith("_xformer.py")] == [f"models/{name}.py" for name in TRAVELLING]


def messages_of_the_package() -> str:
    """All texts in the package's code, each on a line; what is filled in is left out."""
    lines = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                lines.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                lines.append(node.value)
    return "\n".join(lines)


@pytest.mark.slow
def test_the_errors_that_a_document_explains_are_those_of_the_package():
    """Of a message in the first column, `...`, N and M stand for what is filled in."""
    messages = messages_of_the_package()
    first_columns = re.findall(
        r"^\| ([^|]*`[^|]*) \|", (ROOT / "docs/errors.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    explained = [message for column in first_columns for message in re.findall("`([^`]+)`", column)]
    assert len(explained) > 20
    pieces = {piece.strip(" ,") for message in explained for piece in re.split(r"\.\.\.|\b[NM]\b", message)}
    assert [piece for piece in sorted(pieces) if piece not in messages] == []


def test_tables_of_figures_are_those_that_are_stored():
    ran = subprocess.run([sys.executable, ROOT / "benchmarks/tables.py", "--check"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
