# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Reads YAML 1.2, and refuses what no file of ours needs before anything is built of it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from .errors import ArgumentError, naming, one_line
from .files import read_text


# More than any file of ours needs.
YAML_LENGTH, YAML_DEPTH = 2**16, 30  # characters; lists and mappings inside each other


def read_yaml_file(path: Path, where: str | None = None) -> Any:
    """Reads a YAML file as [`read_yaml`] does; `where` and errors are those of [`read_text`]."""
    text = read_text(path, where)
    try:
        return read_yaml(text)
    except ArgumentError as error:
        raise ArgumentError(f"{where or path}: not a readable YAML file: {error}") from error


def read_yaml(text: str) -> Any:
    """
    Reads YAML 1.2: `no` and `12:30` are text, `1e-4` is a number, and `010` is ten. JSON is read as JSON, with
    characters that it writes as two escapes.

    Raises:
        ArgumentError: The text is not YAML, names a key twice, has an alias (a few lines of them expand without end)
            or a tag, is larger or nested deeper than any file of ours, or has a name in braces whose colon lacks its
            space.
    """
    try:
        check_yaml(text)
        return yaml_reader().load(text)
    except (YAMLError, ValueError) as error:
        raise ArgumentError(yaml_fault(error)) from error


def read_mapping_option(
    option: str, given: dict[str, Any] | str, form: str = "name=value", read: Callable[[str], Any] = read_yaml
) -> dict[str, Any]:
    """
    Returns an option that maps names to values.

    Args:
        option: Its name, for messages.
        given: `"name=value,name=value"`, or a mapping, as such or in braces as YAML or JSON has it.
        form: What one item is called in messages.
        read: Reads the text of a value.

    Raises:
        ArgumentError: It is none of these, or a name is missing, doubled or no text.
    """
    where = f"--{option}"
    with naming(where):
        if isinstance(given, str) and given.startswith("{"):
            given = read_yaml(given)
        if isinstance(given, str):
            # A value may have commas of its own, such as a list.
            items = [item.partition("=") for item in re.split(r",(?=[^,=]*=)", given)]
            names = [name.strip() for name, equals, _ in items if equals]
            if len(names) < len(items) or "" in names:
                raise ArgumentError(f"expected '{form},...' or, in a recipe, a mapping, got {given!r:.80}")
            if doubled := [name for name in names if names.count(name) > 1]:
                raise ArgumentError(f"{doubled[0]!r} stands there twice")
            return {name: read(value) for name, (_, _, value) in zip(names, items, strict=True)}
        if not isinstance(given, dict):
            raise ArgumentError(f"expected '{form},...' or a mapping, got {given!r:.80}")
        if wrong := [name for name in given if not isinstance(name, str)]:
            raise ArgumentError(f"expected names, got {wrong[0]!r}")
    return given


class YamlConstructor(SafeConstructor):
    """Builds plain values. Dates stay text, as they are in YAML 1.2's core schema and in JSON."""

    def construct_scalar(self, node: ScalarNode) -> Any:
        """Joins the two halves of UTF-16 as which JSON escapes an emoji; YAML takes each for a character."""
        value = super().construct_scalar(node)
        if isinstance(value, str) and re.search(r"[\ud800-\udbff][\udc00-\udfff]", value):
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return value

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> Any:
        """Refuses `{a:1}`, which is the name `a:1` without a value."""
        for name, value in node.value:
            if node.flow_style and is_plain(name) and ":" in name.value and is_plain(value) and not value.value:
                problem = f"{name.value!r}: YAML wants a space behind the colon"
                raise ConstructorError(problem=problem, problem_mark=name.start_mark)
        return super().construct_mapping(node, deep)


YamlConstructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def is_plain(node: Node) -> bool:
    """Returns whether this is a word without quotes."""
    return isinstance(node, ScalarNode) and not node.style


def yaml_reader() -> YAML:
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    reader.Constructor = YamlConstructor
    return reader


def check_yaml(text: str) -> None:
    """Refuses what no file of ours needs while it is still events, before anything is built."""
    if len(text) > YAML_LENGTH:
        raise YAMLError(f"{len(text):,} characters; {YAML_LENGTH:,} are read at most")
    depth = 0
    for event in yaml_reader().parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        problem = None
        if isinstance(event, AliasEvent):
            problem = f"alias *{event.anchor}: write the value out"
        elif getattr(event, "tag", None) is not None:
            problem = f"tag {event.tag}: write the value without one"
        elif isinstance(event, DocumentStartEvent) and event.version not in (None, (1, 2)):
            problem = "only YAML 1.2 is read"
        elif depth > YAML_DEPTH:
            problem = f"nested more than {YAML_DEPTH} deep"
        if problem is not None:
            raise MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def yaml_fault(error: Exception) -> str:
    """Returns what a YAML error says on one line, with its place and without ruamel's hints for programmers."""
    if isinstance(error, DuplicateKeyError):
        key = re.search(r'duplicate key "(.*?)" with', error.problem or "")
        said = f"{key[1] if key else 'a key'!r} stands there twice"
    elif isinstance(error, MarkedYAMLError):
        said = " ".join(filter(None, (error.context, error.problem)))
    else:
        said = one_line(error)
    mark = getattr(error, "problem_mark", None)
    return said if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: {said}"
