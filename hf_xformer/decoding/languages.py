# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Languages that are decoded from and into: tokens before sources, or what multilingual tokenizers have."""

import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..checkpoints.languages import decoding_options, language_id, languages_of
from ..data.templates import fields_of, fill, language_fields, template_of, words_with
from ..errors import ArgumentError, did_you_mean


class Languages:
    """
    Puts the tokens of languages where a model was trained to find them.

    A tokenizer that a training has written records the template of its sources, such as `<2{target_lang}> {source}`;
    where it does not, that is the one of tokens such as `<2de>`. A multilingual one (mBART, M2M100, NLLB) has
    languages of its own.

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
        self.template = template_of(source)
        self.fields = {} if self.template is None else language_fields(self.template)
        if self.fields:
            self.text = self.with_tokens(source) if self.given else None
        elif self.given and languages_of(source):
            if src_lang is not None:
                language_id(source, "src_lang", src_lang)
            if tgt_lang is not None:
                self.options = decoding_options(target, language_id(target, "tgt_lang", tgt_lang))
            self.text = None
        elif self.given:
            role, language = next(iter(self.given.items()))
            raise ArgumentError(
                f"{role} {language}: the tokenizer knows no languages, and no template of sources, such as "
                "'<2{target_lang}> {source}', that its model was trained with"
            )
        else:
            self.text = None

    def with_tokens(self, source: PreTrainedTokenizerBase) -> str:
        """
        Returns the template with the languages in it, and one field that is left, for the text.

        Raises:
            ArgumentError: A language is missing, or not asked for, or has no token of its own.
        """
        template = str(self.template)
        for role in self.given.keys() ^ self.fields.keys():
            what = "is missing from" if role in self.given else "is wanted by"
            raise ArgumentError(f"{role} {what} the template of sources that the model was trained with, {template!r}")
        names = {field: self.given[role] for role, field in self.fields.items()}
        added = source.get_added_vocab()
        for word in words_with(template, self.fields.values()):
            token = fill(word, names)
            if token not in added:
                pattern = re.compile(re.sub(r"\\\{.*?\\\}", "(.+)", re.escape(word)))
                known = sorted(each for each in added if pattern.fullmatch(each))
                near = did_you_mean(token, known) or f"; there are {', '.join(known[:20]) or 'none'}"
                raise ArgumentError(f"the tokenizer has no token {token}{near}")
        return fill(template, names | {field: "{}" for field in fields_of(template) if field not in names})

    def lacks(self, text: str) -> bool:
        """Returns whether a source that is taken as it is does not begin as those of the training."""
        if self.text is not None or not self.fields:
            return False
        first = str(self.template).split()[0]
        return re.match(re.sub(r"\\\{.*?\\\}", "(.+)", re.escape(first)), text) is None

    def __call__(self, text: str) -> str:
        """Returns a source with the tokens of its languages."""
        return text if self.text is None else self.text.replace("{}", text)
