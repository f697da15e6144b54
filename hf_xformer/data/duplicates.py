# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Pairs that occur more than once, and texts that two files share, found by hashes in bounded memory.

Counts are exact up to `ROOM` texts, and beyond that estimated from a share of all, chosen by their hashes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

from .formats import shown
from .rows import Row
from .text_forms import one_space_apart


# Hashes that are kept of one kind, some 200 bytes each.
ROOM = 2**20
# Texts that two files may share.
KINDS = ("pairs", "sources", "targets")


class Sampled:
    """
    Texts kept by their hashes: all at first, and those of every second, fourth, ... hash when there would be more than
    `room`. A hash is kept with all that belongs to it or not at all: counts of what is kept, times `factor`, estimate
    those of all.
    """

    def __init__(self, room: int = ROOM):
        self.room, self.factor = room, 1

    def keeps(self, key: int) -> bool:
        return key % self.factor == 0

    def thin(self, kept: dict[int, Any]) -> None:
        """Halves the share that is kept, and removes the rest."""
        self.factor *= 2
        for key in [key for key in kept if not self.keeps(key)]:
            del kept[key]


class Repeats(Sampled):
    """Pairs that occur more than once, and sources with several targets."""

    def __init__(self, room: int = ROOM):
        super().__init__(room)
        # A source with one target, once, has the target's hash: nearly all are such. Others have counts by target.
        self.sources: dict[int, int | Counter[int]] = {}
        self.pairs = 0  # different ones that are kept
        self.repeated_pair: list[str] | None = None
        self.several_targets: str | None = None

    def add(self, source: str, target: str, source_key: int, target_key: int) -> None:
        if not self.keeps(source_key):
            return
        known = self.sources.get(source_key)
        if known is None:
            self.sources[source_key] = target_key
            self.pairs += 1
        else:
            counts = self.sources[source_key] = Counter([known]) if isinstance(known, int) else known
            if counts[target_key]:
                self.repeated_pair = self.repeated_pair or [source, target]
            else:
                self.several_targets = self.several_targets or source
                self.pairs += 1
            counts[target_key] += 1
        while self.pairs > self.room and self.factor < 2**64:
            self.thin(self.sources)
            self.pairs = sum(map(number_of_targets, self.sources.values()))

    def report(self) -> dict[str, Any]:
        several = [each for each in self.sources.values() if number_of_targets(each) > 1]
        repeated = sum(each.total() - len(each) for each in self.sources.values() if isinstance(each, Counter))
        return {
            "distinct_pairs": self.pairs * self.factor,
            "repeated_pairs": repeated * self.factor,
            "repeated_pair_example": self.repeated_pair and shown(self.repeated_pair),
            "sources_with_several_targets": len(several) * self.factor,
            "several_targets_example": self.several_targets and shown(self.several_targets),
            "estimated_from": 1 / self.factor,
        }

    def report_of_texts(self) -> dict[str, Any]:
        """Returns the same of texts without targets."""
        found = self.report()
        return {
            "distinct_texts": found["distinct_pairs"],
            "repeated_texts": found["repeated_pairs"],
            "repeated_text_example": self.repeated_pair and shown(self.repeated_pair[0]),
            "estimated_from": found["estimated_from"],
        }


def number_of_targets(known: int | Counter[int]) -> int:
    return 1 if isinstance(known, int) else len(known)


class Shared(Sampled):
    """Texts of one kind that stand in two files: the other file's are added first, then this one's are looked up."""

    def __init__(self, room: int = ROOM // 4):
        super().__init__(room)
        self.other: dict[int, int] = {}
        self.found: set[int] = set()
        self.here = self.other_total = self.here_total = 0
        self.example: str | None = None

    def add_other(self, key: int) -> None:
        self.other_total += 1
        if self.keeps(key):
            self.other[key] = self.other.get(key, 0) + 1
            while len(self.other) > self.room and self.factor < 2**64:
                self.thin(self.other)

    def look_up(self, key: int, text: Any) -> None:
        self.here_total += 1
        if key in self.other:
            self.here += 1
            self.found.add(key)
            self.example = self.example or shown(text)

    def report(self) -> dict[str, Any]:
        there = sum(self.other[key] for key in self.found)
        return {
            "here": self.here * self.factor,
            "of_here": self.here_total,
            "there": there * self.factor,
            "of_there": self.other_total,
            "example": self.example,
            "estimated_from": 1 / self.factor,
        }


class Overlap:
    """
    Pairs, sources and targets that stand in another file too; of rows without targets the sources.

    Args:
        rows: The other file's.
        one_column: Whether they have no targets.
    """

    def __init__(self, rows: Iterable[Row], room: int = ROOM // 4, one_column: bool = False):
        self.shared = {kind: Shared(room) for kind in (("sources",) if one_column else KINDS)}
        self.rows = 0
        for row in rows:
            self.rows += 1
            for source, target in pairs_of(row):
                keys = keys_of(key_of(source), key_of(target))
                for kind, shared in self.shared.items():
                    shared.add_other(keys[kind])

    def look_up(self, source: str, target: str, source_key: int, target_key: int) -> None:
        texts = {"pairs": [source, target], "sources": source, "targets": target}
        keys = keys_of(source_key, target_key)
        for kind, shared in self.shared.items():
            shared.look_up(keys[kind], texts[kind])

    def report(self) -> dict[str, Any]:
        return {kind: each.report() for kind, each in self.shared.items()}


def pairs_of(row: Row) -> Iterator[tuple[str, str]]:
    """Yields a pair for each reference of a row; a text without a target is one with an empty target."""
    return ((row["source"], target) for target in row.get("target", [""]))


def key_of(text: str) -> int:
    """Returns the hash of a text in the form in which texts are compared: normal form C, words one space apart."""
    return hash_of(one_space_apart(text))


def hash_of(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())


def keys_of(source_key: int, target_key: int) -> dict[str, int]:
    """Returns the hashes of a pair, of its source and of its target, by kind."""
    return {"pairs": hash_of(f"{source_key} {target_key}"), "sources": source_key, "targets": target_key}
