# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Compares lengths of sources with what a model was trained on and has positions for; says what is kept or cut."""

from dataclasses import dataclass, field
from typing import NamedTuple

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..checkpoints.loading import position_limit
from ..errors import ArgumentError, wrong_choice


OVERLONG = ("keep", "truncate", "error")
# The library writes a larger number into tokenizers that have no limit.
LARGEST_LENGTH = 10**9
LISTED = 10  # numbers of sources that a line names


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
            self.example = f"the first, {place.kind} {place.number}, {what}: {shortened(place.text)}"
        self.count += 1
        self.places += [place] if len(self.places) < LISTED else []

    def __str__(self) -> str:
        numbers = [f"{place.number:,}" for place in self.places]
        more = f" and {self.count - LISTED:,} more" if self.count > LISTED else ""
        return f"{self.places[0].kind}{'s' * (self.count > 1)} {', '.join(numbers)}{more}; {self.example}"


def shortened(text: str, most: int = 40) -> str:
    """Returns the beginning of a text, quoted, on one line."""
    return repr(text if len(text) <= most else f"{text[:most]}…")


def trained_length(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Returns the tokens of the longest source that a model was trained on, as its tokenizer records; None if not."""
    return tokenizer.model_max_length if tokenizer.model_max_length < LARGEST_LENGTH else None


class SourceLengths:
    """
    Decides what becomes of sources that are too long, and counts them.

    Args:
        config: The model's. Its positions, where it has a table of them, are the end of any source.
        tokenizer: The source's, which records how long the sources were that the model was trained on.
        longest: That length, in place of the tokenizer's.
        overlong: What to do with longer sources: "keep" them whole as far as there are positions, "truncate" them, or
            "error" to refuse them. By default they are kept, or truncated if `longest` is given.

    Raises:
        ArgumentError: There is no such `overlong`.
    """

    def __init__(
        self, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, longest: int | None, overlong: str | None
    ):
        if overlong not in (None, *OVERLONG):
            raise ArgumentError(f"overlong: {wrong_choice(overlong, OVERLONG)}")
        self.overlong = overlong or ("keep" if longest is None else "truncate")
        self.positions = position_limit(config, "encoder")
        self.trained = trained_length(tokenizer) if longest is None else longest
        self.known = "asked for" if longest is not None else "that the model was trained on"
        self.kept, self.cut, self.refused = Tally(), Tally(), Tally()

    @property
    def limit(self) -> int | None:
        """Most tokens of a source, beyond which it is cut."""
        limits = [self.positions, None if self.overlong == "keep" else self.trained]
        return min((each for each in limits if each is not None), default=None)

    def see(self, length: int, place: Place) -> None:
        """Counts a source of so many tokens if it is too long."""
        limit, what = self.limit, f"has {length:,} tokens"
        if limit is not None and length > limit:
            (self.refused if self.overlong == "error" else self.cut).add(place, what)
        elif self.trained is not None and length > self.trained:
            self.kept.add(place, what)

    def check(self) -> None:
        """
        Raises:
            ArgumentError: Sources were too long, and are to be refused.
        """
        if self.refused.count:
            raise ArgumentError(
                f"{self.refused.count:,} {self.longer(self.limit)}: {self.refused} (--overlong truncate cuts them)"
            )

    def longer(self, limit: int | None) -> str:
        why = self.known if limit == self.trained else "that the model has positions for"
        return f"longer than the {limit:,} tokens {why}"

    def report(self) -> list[str]:
        """Returns a line for the sources that were cut, and one for those that were kept although they are long."""
        lines = []
        if self.cut.count:
            lines.append(f"cut to {self.limit:,} tokens: {self.cut.count:,} {self.longer(self.limit)}: {self.cut}")
        if self.kept.count:
            lines.append(
                f"decoded whole: {self.kept.count:,} {self.longer(self.trained)}: {self.kept} (--overlong truncate "
                "cuts them, --overlong error refuses them)"
            )
        return lines
