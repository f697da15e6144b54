# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Texts with their places, and counts of those of which something is to be said."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

from ..errors import ArgumentError


LISTED = 10  # places that a line names


class Place(NamedTuple):
    """One of the texts that are decoded, for messages."""

    number: int
    text: str
    kind: str = "source"  # "line" where sources are lines
    prefix: str = ""  # with which its target begins
    words: tuple[str, ...] = ()  # that its target holds


@dataclass
class Tally:
    """Counts texts and keeps the first of them."""

    count: int = 0
    places: list[Place] = field(default_factory=list)
    example: str = ""

    def add(self, place: Place, what: str) -> None:
        """Counts one more; `what` says of the first what is the matter with it."""
        if not self.count:
            self.example = f"the first {what}: {shortened(place.text)}"
        self.count += 1
        self.places += [place] if len(self.places) < LISTED else []

    def __str__(self) -> str:
        numbers = [f"{place.number:,}" for place in self.places]
        more = f" and {self.count - LISTED:,} more" if self.count > LISTED else ""
        return f"{self.places[0].kind}{'s' * (self.count > 1)} {', '.join(numbers)}{more}; {self.example}"


def shortened(text: str, most: int = 40) -> str:
    """Returns the beginning of a text, quoted, on one line."""
    return repr(text if len(text) <= most else f"{text[:most]}…")


def numbered(
    texts: Iterable[str],
    prefixes: Iterable[str] | None,
    words: Iterable[Sequence[str]] | None,
    kind: str,
    first: int,
) -> Iterator[Place]:
    """
    Yields texts with their numbers, prefixes and words; arguments as for `Decoder.decode`.

    Raises:
        ArgumentError: One is no text, or there are not as many prefixes or lists of words.
    """
    missing: Any = object()
    given = {name: each for name, each in (("prefixes", prefixes), ("force_words", words)) if each is not None}
    for number, (text, *beside) in enumerate(zip_longest(texts, *given.values(), fillvalue=missing), first):
        of_text = dict(zip(given, beside, strict=True))
        for name, each in of_text.items():
            if text is missing and each is not missing:
                raise ArgumentError(f"{name}: there are more of them: give one for each {kind}, which may be empty")
            if each is missing:
                raise ArgumentError(
                    f"{name}: {kind} {number:,} has none: give one for each {kind}, which may be empty"
                )
        prefix = checked_text(of_text.get("prefixes", ""), number, f"prefix of {kind}")
        held = checked_words(of_text.get("force_words", ()), number, kind)
        yield Place(number, checked_text(text, number, kind), kind, prefix, held)


def checked_words(words: Any, number: int, kind: str) -> tuple[str, ...]:
    """Returns the words of a text as they are; raises ArgumentError if they are no list of texts."""
    if not isinstance(words, list | tuple):
        raise ArgumentError(f"force_words: words of {kind} {number:,} are {words!r:.80}, and a list is wanted")
    for i, word in enumerate(words, 1):
        if not isinstance(word, str) or not word.strip():
            what = "is empty" if isinstance(word, str) else f"is {word!r:.80}, and a text is wanted"
            raise ArgumentError(f"force_words: word {i} of {kind} {number:,} {what}")
    return tuple(words)


def checked_text(text: Any, number: int, kind: str) -> str:
    """Returns a text as it is; raises ArgumentError if it is none."""
    if not isinstance(text, str):
        raise ArgumentError(f"{kind} {number} is {text!r:.80}, and a text is wanted")
    return text
