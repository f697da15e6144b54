# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Noise in sources: words that are lost, and texts in another case."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..errors import ArgumentError
from .encoding import title_of


WORD = re.compile(r"\S+")
# Forms in which a word is written where a text changes its case; each is as likely as the others.
CASES: tuple[Callable[[str], str], ...] = (str.upper, str.lower, lambda word: word[:1].upper() + word[1:].lower())


@dataclass(frozen=True)
class SourceNoise:
    """
    Spoils sources at random. Words are what stands between white space, and those with a tag such as `<2de>` stay.

    Args:
        word_dropout: Probability of every word to be lost. One without a tag stays.
        case_noise: Probability of a text to change its case: upper case, lower case, or each word capitalised.
        tags: Finds tokens that were added to the tokenizer; None if there are none.
    """

    word_dropout: float = 0.0
    case_noise: float = 0.0
    tags: re.Pattern | None = None

    def __call__(self, text: str, random: np.random.Generator) -> str:
        if self.case_noise and random.random() < self.case_noise:
            text = self.change_case(text, random)
        return self.drop_words(text, random) if self.word_dropout else text

    def change_case(self, text: str, random: np.random.Generator) -> str:
        """Returns a text in another case."""
        change = CASES[random.integers(len(CASES))]
        return WORD.sub(lambda found: found[0] if self.has_tag(found[0]) else change(found[0]), text)

    def drop_words(self, text: str, random: np.random.Generator) -> str:
        """Returns a text without some of its words: as it is, or with a space between those that are left."""
        words = text.split()
        untagged = [place for place, word in enumerate(words) if not self.has_tag(word)]
        stays = random.random(len(words)) >= self.word_dropout
        if untagged and not stays[untagged].any():
            stays[untagged[random.integers(len(untagged))]] = True
        lost = {place for place in untagged if not stays[place]}
        return " ".join(word for place, word in enumerate(words) if place not in lost) if lost else text

    def idle(self, texts: Sequence[str]) -> dict[str, int]:
        """Returns by option how many texts stay as they are, whatever is drawn."""
        words = [[word for word in text.split() if not self.has_tag(word)] for text in texts]
        of_one = sum(len(each) < 2 for each in words) if self.word_dropout else 0
        caseless = [all(change(word) == word for change in CASES for word in each) for each in words]
        return {"source_word_dropout": of_one, "case_noise": sum(caseless) if self.case_noise else 0}

    def has_tag(self, word: str) -> bool:
        return self.tags is not None and self.tags.search(word) is not None


def make_source_noise(
    tokenizer: PreTrainedTokenizerBase, word_dropout: float, case_noise: float
) -> SourceNoise | None:
    """
    Returns the noise of a run's sources; None if there is none.

    Raises:
        ArgumentError: The tokenizer takes upper and lower case for the same.
    """
    if not word_dropout and not case_noise:
        return None
    if case_noise and tokenizer("Aa")["input_ids"] == tokenizer("aA")["input_ids"]:
        raise ArgumentError(
            f"--case_noise {case_noise} does nothing: {title_of(tokenizer, 'source')} makes the same tokens of upper "
            "and lower case"
        )
    tags = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    return SourceNoise(word_dropout, case_noise, re.compile("|".join(map(re.escape, tags))) if tags else None)
