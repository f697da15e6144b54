# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Templates of texts: `<2{target_lang}> {source}` in the place of a column's name puts a language's token before a text.

The fields of a template are names of columns, or paths through objects such as `translation.de`. A template of targets
has its language in the first word: `<2{target_lang}> {target}`.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from string import Formatter
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..errors import ArgumentError, DataError


USUAL, USUAL_TARGET = "<2{target_lang}> {source}", "<2{target_lang}> {target}"
# Keys in a tokenizer's own options, and so in its tokenizer_config.json.
TEMPLATES = {"source": "source_template", "target": "target_template"}
BEGINNINGS = "source_beginnings"  # a key there too
# Words that people write to be one token: >>de<<, <2de>, [NLU], __de__.
TAG = r">>[^<>\s]+<<|<[^<>\s]+>|\[[^\s\[\]]+\]|__\S+?__"
PRIVATE = 0xE000  # the first of the characters that no text has; they stand for the fields of a template
MOST = 20  # tokens that a message names
# Last parts of the names of fields that hold languages.
LANGUAGES = {
    "src_lang": ("source_lang", "src_lang"),
    "tgt_lang": ("target_lang", "tgt_lang"),
}


@lru_cache
def fields_of(column: str) -> tuple[str, ...]:
    """
    Returns the fields of a template, none for the plain name of a column.

    Raises:
        ArgumentError: Its braces do not fit, or hold something else than a name.
    """
    if "{" not in column and "}" not in column:
        return ()
    try:
        parts = list(Formatter().parse(column))
    except ValueError as error:
        raise ArgumentError(f"template {column!r}: {error}") from error
    for _, name, form, conversion in parts:
        if name == "" or form or conversion:
            raise ArgumentError(f"template {column!r}: braces hold the name of a column, as in {{source}}")
    fields = tuple(dict.fromkeys(name for _, name, _, _ in parts if name is not None))
    if not fields:
        raise ArgumentError(f"template {column!r}: it names no column, as {{source}} would")
    return fields


def fill(template: str, values: dict[str, str]) -> str:
    """Returns a template with values in place of its fields."""
    parts = ((literal, name) for literal, name, _, _ in Formatter().parse(template))
    return "".join(literal + ("" if name is None else values[name]) for literal, name in parts)


def filled(template: str, values: dict[str, Any]) -> str | list[str]:
    """Returns a template with values, of which one may be a list of alternatives: then a list of as many texts."""
    lists = [name for name, value in values.items() if isinstance(value, list)]
    if not lists:
        return fill(template, values)
    return [fill(template, values | {lists[0]: each}) for each in values[lists[0]]]


def language_fields(template: str) -> dict[str, str]:
    """Returns the fields of a template that hold languages, by `src_lang` and `tgt_lang`."""
    found = {}
    for role, names in LANGUAGES.items():
        for field in fields_of(template):
            if field.rpartition(".")[2] in names:
                found[role] = field
    return found


def words_with(template: str, fields: Iterable[str]) -> list[str]:
    """Returns the words of a template, between spaces, that hold one of the fields: they are tokens of languages."""
    return [word for word in template.split() if any(f"{{{field}}}" in word for field in fields)]


def remember(columns: Iterable[str], tokenizer: PreTrainedTokenizerBase, side: str = "source") -> None:
    """
    Has a tokenizer, and what is saved of it, know the first of a side's columns that has languages.

    Raises:
        ArgumentError: One of targets has them elsewhere than in its first word.
    """
    for column in columns:
        if language_fields(column):
            if side == "target":
                check_target(column)
            tokenizer.init_kwargs[TEMPLATES[side]] = column
            return


def remember_beginnings(templates: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Has a tokenizer, and what is saved of it, know how the sources of a training begin, if each begins with something.

    Args:
        templates: That of each corpus.
    """
    tokenizer.init_kwargs.pop(BEGINNINGS, None)  # of an earlier training
    literals = sorted({next(iter(Formatter().parse(each)))[0] for each in templates})
    if all(literals):
        tokenizer.init_kwargs[BEGINNINGS] = literals


def beginnings_of(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Returns the texts with one of which each source of a tokenizer's training began; none if some had none."""
    return tuple(tokenizer.init_kwargs.get(BEGINNINGS, ()))


def check_target(template: str) -> None:
    """Refuses a template of targets whose languages are elsewhere than in the first word, by an ArgumentError."""
    words = words_with(template, language_fields(template).values())
    if words != template.split()[:1]:
        raise ArgumentError(f"template of targets {template!r}: a language is its first word, as in {USUAL_TARGET!r}")


def template_of(tokenizer: PreTrainedTokenizerBase, side: str = "source") -> str | None:
    """Returns the template of a tokenizer's languages: that of its training, or by the names of its tokens."""
    known = tokenizer.init_kwargs.get(TEMPLATES[side])
    if known is not None or side == "target" or TEMPLATES["target"] in tokenizer.init_kwargs:
        return known
    is_usual = any(re.fullmatch(r"<2.+>", token) for token in tokenizer.get_added_vocab())
    # Sources that all began with something else were told no language.
    return USUAL if is_usual and all(re.match(r"<2.+>", each) for each in beginnings_of(tokenizer)) else None


def tokens_of(word: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Returns the tokens that a word of a template may become, with their ids."""
    pattern = re.compile(re.sub(r"\\\{.*?\\\}", "(.+)", re.escape(word)))
    return {token: i for token, i in tokenizer.get_added_vocab().items() if pattern.fullmatch(token)}


def target_tags(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Returns the tokens of languages with which a tokenizer's targets began in training; none without a template."""
    template = template_of(tokenizer, "target")
    return {} if template is None else tokens_of(template.split()[0], tokenizer)


def tags_of(template: str, texts: Iterable[str]) -> dict[str, int]:
    """
    Returns what a template puts before texts that is to be a token, and the first text that begins with it.

    These are tags such as `<bt>`, 0 for those that all texts have, and a word with a language that comes first.

    Args:
        texts: Texts of the template; they say which languages there are.
    """
    marks = {name: chr(PRIVATE + number) for number, name in enumerate(language_fields(template).values())}
    beginning = ""
    for literal, name, _, _ in Formatter().parse(template):
        beginning += literal
        if name not in marks:  # here the text begins
            break
        beginning += marks[name]
    with_language = f"[{''.join(marks.values())}]" if marks else "(?!)"
    first = re.match(rf"\S*{with_language}\S*", beginning)
    tags = re.findall(TAG, beginning) or ([first[0]] if first else [])
    found = {tag: 0 for tag in tags if not re.search(with_language, tag)}
    if len(found) == len(tags):
        return found
    pattern = re.escape(beginning)
    for mark in marks.values():
        group = f"language{ord(mark)}"
        pattern = pattern.replace(mark, f"(?P<{group}>.+?)", 1).replace(mark, f"(?P={group})")
    begins = re.compile(pattern)
    for number, text in enumerate(texts, 1):
        if (match := begins.match(text)) is not None:
            languages = {int(group.removeprefix("language")): value for group, value in match.groupdict().items()}
            for tag in tags:
                found.setdefault(tag.translate(languages), number)
    return found


def check_tokens(texts: Iterable[str], template: str, tokenizer: PreTrainedTokenizerBase, what: str) -> None:
    """
    Checks that languages and other tags with which texts begin are tokens.

    Args:
        texts: Those of a side.
        template: That of the side.
        what: Name of the rows, for the message.

    Raises:
        DataError: The tokenizer takes one apart, or does not know it.
    """
    places = tags_of(template, texts)
    wrong = [tag for tag in places if takes_apart(tokenizer, tag)]
    if wrong:
        row = f" (row {places[wrong[0]]:,} is the first)" if places[wrong[0]] else ""
        others = f" and {len(wrong) - MOST:,} more" if len(wrong) > MOST else ""
        raise DataError(
            f"{what}: texts begin with {', '.join(wrong[:MOST])}{others}{row}, and the tokenizer "
            f"{tokenizer.name_or_path} has no such token{'s' * (len(wrong) > 1)}: hf-xformer tokenizer --added_tokens "
            f"{' '.join(map(repr, wrong[:MOST]))} makes {'it one' if len(wrong) == 1 else 'each of them one'}"
        )


def takes_apart(tokenizer: PreTrainedTokenizerBase, word: str) -> bool:
    """Tells whether a word is not one token of a tokenizer."""
    tokens = tokenizer.tokenize(word)
    return len(tokens) != 1 or tokens[0] == tokenizer.unk_token
