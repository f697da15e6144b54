# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Subword regularisation: words are split into other subwords each time they are met.

`tokenizers` draws from random states of its own, which nobody can seed, so that no run could be repeated or resumed,
and its Unigram model takes the power of a power for a temperature. What is drawn here is drawn from a generator that
is given, by the tokenizer's own merges or pieces, which stay as they are: nothing of it is saved with a tokenizer.
"""

import heapq
import json
import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..errors import ArgumentError
from .encoding import title_of


Word = tuple[int, ...]  # token ids of a word, as the tokenizer itself splits it
GONE = -1  # in place of a symbol that has become a part of the one before it
NO_MERGE = (0, GONE)
DRAWS = 1024  # numbers that are drawn at once
KNOWN_WORDS, KNOWN_TOKENS = 50_000, 16  # words that are remembered, and tokens of the longest of them
BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # piece that stands for a byte of a character without a piece


class Splitter(Protocol):
    """Splits words at random, with the numbers of one generator."""

    def __call__(self, word: Word) -> Sequence[int]:
        """Returns the token ids of a word, perhaps other ones."""


class Regularisation(Protocol):
    """A way to split words at random."""

    def splitter(self, random: np.random.Generator) -> Splitter:
        """Returns what splits words with the numbers of a generator."""


class BpeDropout:
    """
    Drops merges of byte-pair encoding at random (Provilkov et al. 2020), as `tokenizers` does it.

    Merges are taken from a queue, first ones of the vocabulary first. One that is dropped waits until another has been
    taken; where the queue is empty, the word stays as it is.

    Args:
        tokenizer: A fast one.
        rate: Probability of a merge to be dropped.
        side: Of the tokenizer, for messages.

    Raises:
        ArgumentError: The tokenizer has no merges.
    """

    option: ClassVar[str] = "--bpe_dropout"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rate: float, side: str = "source"):
        self.rate = rate
        model = model_of(tokenizer)
        merges = [each.split(" ") if isinstance(each, str) else each for each in model.get("merges") or ()]
        if model.get("type") != "BPE" or not merges:
            instead = "; --unigram_sampling is for its kind" if model.get("type") == "Unigram" else ""
            raise ArgumentError(
                f"{self.option} {rate}: {title_of(tokenizer, side)} has no merges that could be dropped{instead}"
            )
        vocabulary, prefix = model["vocab"], model.get("continuing_subword_prefix") or ""
        # By the ids of two neighbours: the merge's place in the vocabulary and the id that they become.
        self.merges: dict[tuple[int, int], tuple[int, int]] = {}
        # By that id: its parts, unless it is a token that was added and is never split.
        self.parts: dict[int, tuple[int, int]] = {}
        added = set(tokenizer.get_added_vocab().values())
        for rank, (left, right) in enumerate(merges):
            pair, merged = (vocabulary[left], vocabulary[right]), vocabulary[left + right.removeprefix(prefix)]
            self.merges[pair] = (rank, merged)
            if merged not in added:
                self.parts.setdefault(merged, pair)
        self.known: dict[Word, tuple[list[int], int]] = {}

    def splitter(self, random: np.random.Generator) -> Splitter:
        drops = Drops(self.rate, random)

        def split(word: Word) -> Sequence[int]:
            symbols, taken = self.look_up(word)
            # All merges of most words are kept.
            return word if drops.keep(taken) else self.merge(symbols, drops)[0]

        return split

    def look_up(self, word: Word) -> tuple[list[int], int]:
        """Returns a word's first symbols, and how many merges are taken from the queue where none is dropped."""
        if (found := self.known.get(word)) is None:
            symbols = [symbol for token in word for symbol in self.symbols_of(token)]
            found = symbols, self.merge(symbols)[1]
            remember(self.known, word, found)
        return found

    def symbols_of(self, token: int) -> list[int]:
        """Returns the symbols that a token was merged of."""
        symbols, waiting = [], [token]
        while waiting:
            token = waiting.pop()
            if token in self.parts:
                waiting += reversed(self.parts[token])
            else:
                symbols.append(token)
        return symbols

    def merge(self, symbols: Sequence[int], drops: "Drops | None" = None) -> tuple[list[int], int]:
        """Returns what symbols are merged to, and how many merges were taken from the queue."""
        ids = list(symbols)
        before, after = list(range(-1, len(ids) - 1)), list(range(1, len(ids) + 1))
        queue: list[tuple[int, int, int]] = []  # rank, place of the left symbol, id that comes of it

        def add(left: int, right: int) -> None:
            if left >= 0 and right < len(ids) and (merge := self.merges.get((ids[left], ids[right]))):
                heapq.heappush(queue, (merge[0], left, merge[1]))

        for place in range(len(ids) - 1):
            add(place, place + 1)
        dropped: list[tuple[int, int, int]] = []
        taken = 0
        while queue:
            top = heapq.heappop(queue)
            if drops is not None and drops.drop():
                dropped.append(top)
                continue
            taken += 1
            for each in dropped:
                heapq.heappush(queue, each)
            dropped.clear()
            _, left, merged = top
            right = after[left]
            # Either symbol may have been merged with another since.
            if right == len(ids) or self.merges.get((ids[left], ids[right]), NO_MERGE)[1] != merged:
                continue
            ids[left], ids[right] = merged, GONE
            after[left] = after[right]
            if after[right] < len(ids):
                before[after[right]] = left
            add(before[left], left)
            add(left, after[left])
        return [each for each in ids if each != GONE], taken


class Drops:
    """Draws which merges are dropped: how many are kept before the next one that is."""

    def __init__(self, rate: float, random: np.random.Generator):
        self.rate, self.random = rate, random
        self.drawn: list[int] = []
        self.kept = self.draw()

    def draw(self) -> int:
        """Returns how many merges are kept before one is dropped."""
        if not self.drawn:
            self.drawn = (self.random.geometric(self.rate, DRAWS) - 1).tolist()
        return self.drawn.pop()

    def keep(self, count: int) -> bool:
        """Takes so many merges if none of them is dropped, else none; returns whether it did."""
        is_kept = self.kept >= count
        self.kept -= count if is_kept else 0
        return is_kept

    def drop(self) -> bool:
        """Takes a merge; returns whether it is dropped."""
        if self.kept > 0:
            self.kept -= 1
            return False
        self.kept = self.draw()
        return True


class UnigramSampling:
    """
    Draws how a word is split by the pieces' likelihoods, to a power, over all ways (Kudo 2018).

    A word with a character that no piece has stays as it is.

    Args:
        tokenizer: A fast one.
        alpha: The power: 1 for the likelihoods themselves, 0 for all ways alike.
        side: Of the tokenizer, for messages.

    Raises:
        ArgumentError: The tokenizer has no pieces with likelihoods.
    """

    option: ClassVar[str] = "--unigram_sampling"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, alpha: float, side: str = "source"):
        self.alpha = alpha
        model = model_of(tokenizer)
        if model.get("type") != "Unigram":
            instead = "; --bpe_dropout is for its kind" if model.get("merges") else ""
            raise ArgumentError(
                f"{self.option} {alpha}: {title_of(tokenizer, side)} has no likelihoods of pieces{instead}"
            )
        added = {*tokenizer.get_added_vocab().values(), model.get("unk_id")}
        usual = [
            (number, piece, score)
            for number, (piece, score) in enumerate(model["vocab"])
            if number not in added and not (model.get("byte_fallback") and BYTE.fullmatch(piece))
        ]
        self.pieces = {piece: (number, alpha * score) for number, piece, score in usual}
        self.names = {number: piece for number, piece, _ in usual}
        self.longest = max(map(len, self.pieces), default=0)
        self.known: dict[Word, list[Ends] | None] = {}

    def splitter(self, random: np.random.Generator) -> Splitter:
        drawn: list[float] = []

        def split(word: Word) -> Sequence[int]:
            ends = self.look_up(word)
            if ends is None:
                return word
            found, end = [], len(ends) - 1
            while end > 0:
                if not drawn:
                    drawn.extend(random.random(DRAWS).tolist())
                at = ends[end]
                end, token = at.pieces[min(bisect_right(at.sums, drawn.pop()), len(at.pieces) - 1)]
                found.append(token)
            return found[::-1]

        return split

    def look_up(self, word: Word) -> "list[Ends] | None":
        """Returns how the pieces of a word may end, for every place in it; None if it has none but one."""
        if word in self.known:
            return self.known[word]
        is_usual = all(token in self.names for token in word)
        found = self.lattice("".join(self.names[token] for token in word)) if is_usual else None
        remember(self.known, word, found)
        return found

    def lattice(self, text: str) -> "list[Ends]":
        """Returns the pieces that may end at every place of a text, with their probabilities given the rest."""
        likelihoods, found = [0.0], [Ends([], [])]
        for end in range(1, len(text) + 1):
            pieces, scores = [], []
            for start in range(max(0, end - self.longest), end):
                piece = self.pieces.get(text[start:end])
                if piece is not None and likelihoods[start] > -math.inf:
                    pieces.append((start, piece[0]))
                    scores.append(likelihoods[start] + piece[1])
            best = max(scores, default=-math.inf)
            powers = [math.exp(score - best) for score in scores]
            likelihoods.append(best + math.log(sum(powers)) if powers else -math.inf)
            found.append(Ends(pieces, list(accumulate(power / sum(powers) for power in powers))))
        return found


class Ends(NamedTuple):
    """Pieces that end at a place of a word: where each begins and its id, and the sums of their probabilities."""

    pieces: list[tuple[int, int]]
    sums: list[float]


def remember(known: dict[Word, Any], word: Word, found: Any) -> None:
    """Keeps what was found of a word, unless it is a whole text that is not split into words."""
    if len(word) <= KNOWN_TOKENS:
        if len(known) >= KNOWN_WORDS:
            known.clear()
        known[word] = found


def model_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Returns the model of a fast tokenizer, as `tokenizers` writes it; empty for any other."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return {} if backend is None else json.loads(backend.to_str())["model"]
