# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Texts with their places, and counts of those of which something is to be said."""

from collections.abc import Iterable, Iterator
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


def numbered(texts: Iterable[str], prefixes: Iterable[str] | None, kind: str, first: int) -> Iterator[Place]:
    """
    Yields texts with their numbers and prefixes; arguments as for `Decoder.decode`.

    Raises:
        ArgumentError: One is no text, or there is not a prefix for each.
    """
    missing: Any = object()
    pairs: Iterable[tuple[Any, Any]] = ((text, "") for text in texts)
    if prefixes is not None:
        pairs = zip_longest(texts, prefixes, fillvalue=missing)
    for number, (text, prefix) in enumerate(pairs, first):
        if text is missing or prefix is missing:
            what = "there are more of them" if text is missing else f"{kind} {number:,} has none"
            raise ArgumentError(f"prefixes: {what}: give one for each {kind}, which may be empty")
        yield Place(number, checked_text(text, number, kind), kind, checked_text(prefix, number, f"prefix of {kind}"))


def checked_text(text: Any, number: int, kind: str) -> str:
    """Returns a text as it is; raises ArgumentError if it is none."""
    if not isinstance(text, str):
        raise ArgumentError(f"{kind} {number} is {text!r:.80}, and a text is wanted")
    return text
