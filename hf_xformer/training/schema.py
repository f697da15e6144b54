# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Options of a training run as data: their types, defaults and help, for recipes, a JSON schema and documents."""

import types
import typing
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from transformers import Seq2SeqTrainingArguments

from ..errors import ArgumentError, did_you_mean, wrong_choice
from ..yaml_files import read_yaml
from .arguments import CorpusArguments, DataArguments, ModelArguments, StageArguments
from .muon import MUON


GROUPS = {"model": ModelArguments, "data": DataArguments, "training": Seq2SeqTrainingArguments}
JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}
JSON_TYPES |= {list: "array", dict: "object"}
# Their names in messages and tables.
WORDS = {
    "boolean": "true or false",
    "integer": "integer",
    "number": "number",
    "string": "text",
    "array": "list",
    "object": "mapping",
}
# Defaults of a run that are not the Trainer's, which would look at every step for parameters that were not used: there
# are none.
RUN_DEFAULTS = {"ddp_find_unused_parameters": False}
# Values of ours for options of the library.
MORE_CHOICES = {"optim": (MUON,)}
# `resume_from_checkpoint: false` starts anew, `fsdp: true` switches it on, `optim_args` may be a mapping; the library
# declares texts.
MORE_TYPES = {"resume_from_checkpoint": ("boolean",), "fsdp": ("boolean",), "optim_args": ("object",)}

# Dataclasses of the mappings in lists.
MAPPINGS: dict[str, type] = {"datasets": CorpusArguments, "stages": StageArguments}
# Examples of these lists, for messages that refuse something else.
EXAMPLES = {
    "datasets": "[{name: news, train_file: news.tsv}, {name: ours, train_file: ours.jsonl}]",
    "stages": "[{until_step: 1000, weights: {news: 1}}, {weights: {news: 1, ours: 1}}]",
}


@dataclass(frozen=True)
class Option:
    """
    An option of a run.

    Args:
        group: "model", "data" or "training", which is the library's `Seq2SeqTrainingArguments`.
        types: JSON's names of the types that it takes; none if it takes an object of Python's alone.
        of: The dataclass of an array's items, which are mappings; None if they are texts.
        example: A value, for the message that refuses another.
        choices: The texts that it takes, if not all.
        default: The same on every machine.
    """

    name: str
    group: str
    types: tuple[str, ...]
    choices: tuple[str, ...]
    default: Any
    help: str
    of: type | None = None
    example: str = ""

    @property
    def expected(self) -> str:
        """Kind of value that is wanted, in words, with the example if there is one."""
        article = "a " if self.types[:1] == ("array",) else ""
        return article + self.type + (f", such as {self.example}" if self.example else "")

    @property
    def items(self) -> str:
        """JSON's name of the type of an array's items."""
        return "string" if self.of is None else "object"

    @property
    def type(self) -> str:
        """The types in words, or the choices."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = WORDS | {"array": f"list of {WORDS[self.items]}s"}
        return " or ".join(words[name] for name in self.types) or "an object of Python's"

    def convert(self, value: Any) -> Any:
        """
        Returns a recipe's value as the dataclass holds it: 1 as 1.0 for a number, a text as a list of one for a list,
        a text in braces as the mapping that it is in YAML, and so in JSON.

        Raises:
            ArgumentError: It has another type, or is none of the choices; the message says which would do.
        """
        if isinstance(value, str) and value.startswith("{") and "object" in self.types:
            value = read_yaml(value)
        kind = JSON_TYPES.get(type(value), "")
        if kind in self.types:
            if kind == "array" and not all(JSON_TYPES.get(type(item)) == self.items for item in value):
                raise ArgumentError(f"expected {self.expected}, got {value!r:.80}")
            if self.choices and kind == "string" and value not in self.choices:
                raise ArgumentError(wrong_choice(value, self.choices))
            return value
        if kind == "string" and "array" in self.types and self.items == "string":
            return [value]
        if kind == "string" and not isinstance(unquoted(value), str):
            return self.convert(unquoted(value))
        if kind == "integer" and "number" in self.types:
            return float(value)
        if kind == "number" and "integer" in self.types and value.is_integer():
            return int(value)
        advice = f"; write it as a text: '{value}'" if "string" in self.types and kind in ("integer", "number") else ""
        raise ArgumentError(f"expected {self.expected}, got {value!r:.80}{advice}")


def unquoted(text: str) -> bool | int | float | str:
    """Returns the number or truth value that stands in quotes, where no text can; else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


class Row(NamedTuple):
    """A line of the documents' tables of options."""

    group: str
    name: str
    type: str
    default: str
    help: str


@cache
def options() -> dict[str, Option]:
    """Returns every option of a run by its name, in the order of the dataclasses."""
    return {name: each for group, arguments in GROUPS.items() for name, each in options_of(group, arguments).items()}


def options_of(group: str, arguments: type) -> dict[str, Option]:
    """Returns the options that a dataclass holds, by their names."""
    hints = typing.get_type_hints(arguments)
    return {each.name: make_option(group, each, hints[each.name]) for each in fields(arguments) if each.init}


def make_option(group: str, each: Field, hint: Any) -> Option:
    """Describes a field of a dataclass; `hint` is its type."""
    kinds, choices = accepted(hint)
    kinds = (*kinds, *MORE_TYPES.get(each.name, ()))
    choices = (*each.metadata.get("choices", choices), *MORE_CHOICES.get(each.name, ()))
    default = each.default
    if default is MISSING:
        default = None if each.default_factory is MISSING else each.default_factory()
    default = RUN_DEFAULTS.get(each.name, default.value if isinstance(default, Enum) else default)
    # argparse wants a percent sign twice.
    help = " ".join(each.metadata.get("help", "").replace("%%", "%").split())
    more = (MAPPINGS.get(each.name), EXAMPLES.get(each.name, ""))
    return Option(each.name, group, tuple(dict.fromkeys(kinds)), choices, default, help, *more)


def accepted(hint: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the JSON types that a type annotation allows, and the only texts where it is an enumeration."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        texts = tuple(value for value in typing.get_args(hint) if isinstance(value, str))
        return tuple(JSON_TYPES[type(value)] for value in typing.get_args(hint)), texts
    if origin in (typing.Union, types.UnionType):
        parts = typing.get_args(hint)
        found = [accepted(part) for part in parts]
        # `SchedulerType | str` stands for the names of its members.
        return tuple(kind for kinds, _ in found for kind in kinds), tuple(text for _, texts in found for text in texts)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ("string",), tuple(member.value for member in hint)
    name = JSON_TYPES.get(origin or hint)
    return ((name,) if name else ()), ()


def options_table(known: dict[str, Option] | None = None) -> list[Row]:
    """Returns a row of texts for every option of a run, or for these: group, name, type, default and help."""
    found = (options() if known is None else known).values()
    return [Row(each.group, each.name, each.type, shown_default(each.default), each.help) for each in found]


def read_mapping(arguments: type, content: Any, where: str) -> Any:
    """
    Returns the dataclass of options that a mapping in a recipe holds; an option that is null is left out.

    Args:
        where: Place of the mapping, for messages.

    Raises:
        ArgumentError: An unknown option, or a value of the wrong type.
    """
    known = options_of("", arguments)
    typed = {}
    for name, value in content.items():
        if name not in known:
            raise ArgumentError(f"{where}: unknown option {name!r}{did_you_mean(str(name), known)}")
        try:
            if value is not None:
                typed[name] = known[name].convert(value)
        except ArgumentError as error:
            raise ArgumentError(f"{where}: {name}: {error}") from error
    return arguments(**typed)


def shown_default(default: Any) -> str:
    """Returns a default as a recipe would write it; an empty text for none."""
    if default is None or default == [] or default == "":
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def json_schema() -> dict:
    """Returns a JSON schema of recipes, by which an editor completes and checks a YAML file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hf-xformer training recipe",
        **schema_of_mapping(options()),
    }


def schema_of_mapping(known: dict[str, Option]) -> dict:
    """Returns the JSON schema of a mapping that has these options and no others."""
    properties = {name: schema_of(option) for name, option in known.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def schema_of(option: Option) -> dict:
    """Returns the JSON schema of one option; null stands for its default."""
    kinds = list(option.types)
    if "array" in kinds and "string" not in kinds:
        kinds.append("string")  # a list of one
    schema: dict = {"type": [*kinds, "null"], "description": option.help, "default": option.default}
    if "array" in kinds:
        schema["items"] = {"type": "string"} if option.of is None else schema_of_mapping(options_of("", option.of))
    if option.choices:
        schema["enum"] = [*option.choices, None]
    return schema


def unknown(name: str, prefix: str = "") -> str:
    """Returns what to say behind an unknown option's name; `prefix` is "--" on a command line."""
    meant = did_you_mean(name, [f"{prefix}{each}" for each in options()])
    return meant or "; --help lists those that there are"
