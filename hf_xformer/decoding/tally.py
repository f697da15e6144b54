# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Counts of texts of which something is to be said, with the places of the first of them."""

from dataclasses import dataclass, field
from typing import NamedTuple


LISTED = 10  # places that a line names


class Place(NamedTuple):
    """One of the texts that are decoded, for messages."""

    number: int
    text: str
    kind: str = "source"  # "line" where sources are lines


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
