# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Filling in the package's template of a card, in which no value can become Markdown, HTML or code."""

import json
import re
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..files import CARD_TEMPLATE, packaged, read_text


# Characters that HTML or Markdown reads as more than themselves, wherever they stand in a line.
SPECIAL = re.compile(r"[\\`*\[\]<>&|~!]|(?<!\w)_|_(?!\w)|^[#+-](?=[\s#+-]|$)|^\d+(?=[.)]\s)")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;"}
# Texts that may stand between backticks as they are.
PLAIN = re.compile(r"[\w ./,:;=+@%()#?'\"*~|-]+")
ADDRESS = re.compile(r"https?://[^\s<>\"\'`()\[\]|]+")


class Written(str):
    """Text that is Markdown already."""


def plain(value: Any) -> str:
    """Returns a value as one line of Markdown that reads as the value itself; `Written` text as it is."""
    if isinstance(value, Written):
        return value
    line = re.sub(r"\s+", " ", str(value))
    return SPECIAL.sub(lambda match: ENTITIES.get(match[0], f"\\{match[0]}"), line)


def code(value: Any) -> Written:
    """Returns a value between backticks; one that could leave them as [`plain`] does."""
    line = " ".join(str(value).split())
    return Written(f"`{line}`" if PLAIN.fullmatch(line) else plain(line))


def cell(value: Any) -> Written:
    """Returns a value as [`code`] does, in a table, whose cells end with a bar."""
    return Written(plain(value)) if "|" in str(value) else code(value)


def prose(value: Any) -> Written:
    """Returns what people have written for the card: their Markdown stays, their HTML becomes text."""
    return Written(re.sub("[<>&]", lambda match: ENTITIES[match[0]], str(value).strip()))


def address(value: Any) -> Written:
    """Returns a link to an address of the web; anything else as [`plain`] does."""
    text = str(value).strip()
    return Written(f"<{text}>" if ADDRESS.fullmatch(text) else plain(text))


def quoted(value: Any) -> Written:
    """Returns a text as Python writes it, in double quotes; characters that nobody would see are escaped."""
    text = json.dumps(str(value), ensure_ascii=False)
    return Written("".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text))


def card_template() -> jinja2.Template:
    """Returns the package's template. The working folder is not looked into: a template is a program."""
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, finalize=plain)
    environment.filters |= {"code": code, "cell": cell, "prose": prose, "address": address, "quoted": quoted}
    return environment.from_string(read_text(packaged(CARD_TEMPLATE)))
