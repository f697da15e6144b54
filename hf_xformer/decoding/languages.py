# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Languages that are decoded from and into: tokens before texts, or what multilingual tokenizers have."""

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..checkpoints.languages import decoding_options, language_id, languages_of
from ..data.templates import fields_of, fill, language_fields, template_of, tokens_of, words_with
from ..errors import ArgumentError, did_you_mean
from .tally import Place


class Languages:
    """
    Puts the tokens of languages where a model was trained to find them.

    A tokenizer that a training has written records the template of its sources, such as `<2{target_lang}> {source}`,
    or of its targets; where it does neither, that of the sources is the one of tokens such as `<2de>`. A multilingual
    one (mBART, M2M100, NLLB) has languages of its own.

    Args:
        source, target: Tokenizers.
        src_lang, tgt_lang: Languages of the sources and of the targets; None leaves texts as they are.

    Raises:
        ArgumentError: The tokenizers have no languages, not this one, or want the other too.
    """

    def __init__(
        self,
        source: PreTrainedTokenizerBase,
        target: PreTrainedTokenizerBase,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
    ):
        self.given = {
            role: language
            for role, language in (("src_lang", src_lang), ("tgt_lang", tgt_lang))
            if language is not None
        }
        self.options: dict[str, Any] = {}  # of `generate()`
        self.text: str | None = None  # template of a source with its languages in it
        self.first = ""  # token of a language with which each target begins
        self.source = Template(template_of(source), source)
        self.target = Template(template_of(target, "target"), target)
        if self.source.fields or self.target.fields:
            if self.given:
                self.fill()
        elif self.given and languages_of(source):
            if src_lang is not None:
                language_id(source, "src_lang", src_lang)
            if tgt_lang is not None:
                self.options = decoding_options(target, language_id(target, "tgt_lang", tgt_lang))
        elif self.given:
            role, language = next(iter(self.given.items()))
            raise ArgumentError(
                f"{role} {language}: the tokenizer knows no languages, and no template of sources, such as "
                "'<2{target_lang}> {source}', that its model was trained with"
            )

    def fill(self) -> None:
        """
        Puts the languages into the templates.

        Raises:
            ArgumentError: A language is missing, or not asked for, or has no token of its own.
        """
        templates = " and ".join(repr(each.text) for each in (self.source, self.target) if each.fields)
        for role in self.given.keys() ^ (self.source.fields.keys() | self.target.fields.keys()):
            what = "is missing from" if role in self.given else "is wanted by"
            raise ArgumentError(f"{role} {what} the template that the model was trained with, {templates}")
        if self.source.fields:
            self.text = self.source.with_languages(self.given)
        if self.target.fields:
            self.first = self.target.with_languages(self.given).split()[0]
            tokens = tokens_of(self.first, self.target.tokenizer)
            self.options = decoding_options(self.target.tokenizer, tokens[self.first])

    def check_words(self, words: Iterable[str], column: str) -> None:
        """
        Checks words with which texts are to begin.

        Args:
            column: Where they are from, for the message.

        Raises:
            ArgumentError: The model was not trained with languages in its targets, or one has no token.
        """
        if not self.target.fields:
            raise ArgumentError(f"--target_column {column}: the model was trained without languages in its targets")
        for word in dict.fromkeys(words):
            self.target.check_token(word, self.target.words[0])

    def lacks(self, place: Place) -> bool:
        """Returns whether a text is not told its language, as those of the training are."""
        if self.given:
            return False
        told = ((self.source, place.text), (self.target, place.prefix))
        return any(template.fields and not template.begins(text) for template, text in told)

    def __call__(self, text: str) -> str:
        """Returns a source with the tokens of its languages."""
        return text if self.text is None else self.text.replace("{}", text)

    def begin(self, text: str) -> str:
        """Returns a target with the token of its language."""
        return f"{self.first} {text}" if self.first else text


class Template:
    """
    A template of texts, with languages in it or not.

    Args:
        text: The template; None if there is none.
        tokenizer: That of the texts.
    """

    def __init__(self, text: str | None, tokenizer: PreTrainedTokenizerBase):
        self.text, self.tokenizer = text or "", tokenizer
        self.fields = language_fields(self.text)
        self.words = words_with(self.text, self.fields.values())

    def begins(self, text: str) -> bool:
        """Returns whether a text begins as the template does, with the token of a language."""
        first = self.text.split()[0]
        return text.startswith(tuple(tokens_of(first, self.tokenizer)) if first in self.words else first)

    def with_languages(self, given: dict[str, str]) -> str:
        """
        Returns the template with its languages in it, and one field that is left, for the text.

        Raises:
            ArgumentError: One has no token of its own, or more than one field is left.
        """
        names = {field: given[role] for role, field in self.fields.items()}
        for word in self.words:
            self.check_token(fill(word, names), word)
        rest = [field for field in fields_of(self.text) if field not in names]
        if len(rest) != 1:
            raise ArgumentError(
                f"the template of the training, {self.text!r}, has {len(rest)} fields beside languages: give whole "
                "sources, without src_lang and tgt_lang"
            )
        return fill(self.text, names | {rest[0]: "{}"})

    def check_token(self, token: str, word: str) -> None:
        """Refuses what a word of the template has become, by an ArgumentError, if it is no token."""
        known = sorted(tokens_of(word, self.tokenizer))
        if token not in known:
            near = did_you_mean(token, known) or f"; there are {', '.join(known[:20]) or 'none'}"
            raise ArgumentError(f"the tokenizer has no token {token}{near}")
