# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Objectives of pretraining: each makes a source and a target of one text, of its token ids, at random.

| class | source | target | after |
|---|---|---|---|
| `SpanCorruption` | a sentinel in place of each span | every sentinel and its span | T5, Raffel et al. 2020 |
| `Denoising` | spans masked, tokens lost, sentences permuted | the text | BART, Lewis et al. 2020 |
| `PrefixLM` | the beginning | the rest | Raffel et al. 2020 |
| `Copy` | the text | the text | |
| `Mixture` | one of several, drawn for each text | | UL2, Tay et al. 2022 |

They know nothing of special tokens around texts, for which a limit leaves room (`longest_text`, `pieces`).
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np


Ids = Sequence[int]
SourceAndTarget = tuple[list[int], list[int]]
LONGEST = 1.0e9  # mean of a Poisson distribution by which every span takes the whole text; numpy has none above 1e18


class Objective(Protocol):
    """Makes a source and a target of a text."""

    def __call__(self, ids: Ids, random: np.random.Generator) -> SourceAndTarget:
        """Returns the token ids of a source and of a target for those of a text, of which there is one at least."""

    def most(self, length: int) -> tuple[int, int] | None:
        """Returns the most tokens of source and target for a text of `length` tokens; None if that is too long."""


@dataclass(frozen=True)
class SpanCorruption:
    """
    Replaces spans by sentinels: "A dog <0> the street <1>" and "<0> runs along <1> at night".

    Numbers are those of T5's `random_spans_noise_mask`. Of `length` tokens `round(length * noise_density)` are noise,
    in `round(noise / mean_span)` spans, at least one of each. Spans of text and of noise take turns, text first, and
    all ways to cut either into so many spans are equally likely. So noise ends every text, and of a short one it is
    all at the end.

    Args:
        sentinels: Ids, of which the first ones are used in order.
        noise_density: Share of the tokens that is noise.
        mean_span: Tokens of a span on average; infinite for one span, which ends the text.
        random_roll: Whether all spans then move on by a random number of tokens, from the end to the beginning, as
            with T5's option of this name: any place is noise as often as any other.
    """

    sentinels: tuple[int, ...]
    noise_density: float = 0.15
    mean_span: float = 3.0
    random_roll: bool = False

    def __call__(self, ids: Ids, random: np.random.Generator) -> SourceAndTarget:
        noise, spans = self.noise_of(len(ids))
        kept, lost = random_lengths(len(ids) - noise, spans, random), random_lengths(noise, spans, random)
        is_noise = np.repeat(
            [False, True] * spans, [length for both in zip(kept, lost, strict=True) for length in both]
        )
        if self.random_roll:
            is_noise = np.roll(is_noise, random.integers(len(ids)))
        borders = [0, *(np.flatnonzero(np.diff(is_noise)) + 1).tolist(), len(ids)]
        sentinels = iter(self.sentinels)
        source: list[int] = []
        target: list[int] = []
        for start, end in pairwise(borders):
            if is_noise[start]:
                sentinel = next(sentinels)
                source.append(sentinel)
                target += [sentinel, *ids[start:end]]
            else:
                source += ids[start:end]
        return source, target

    def noise_of(self, length: int) -> tuple[int, int]:
        """Returns how many tokens of a text are noise, and in how many spans they are."""
        noise = min(max(round(length * self.noise_density), 1), max(length - 1, 1))
        return noise, min(max(round(noise / self.mean_span), 1), noise, max(length - noise, 1))

    def most(self, length: int) -> tuple[int, int] | None:
        noise, spans = self.noise_of(length)
        spans += self.random_roll and noise > 1  # one that is moved over the end is two
        return None if spans > len(self.sentinels) else (length - noise + spans, noise + spans)


@dataclass(frozen=True)
class Denoising:
    """
    Spoils a text, which is the target: its sentences change places, tokens are lost, and one mask stands for a span.

    Spans have lengths of a Poisson distribution, and one of no length puts a mask in. They hold
    `ceil(length * mask_ratio)` tokens together, for which the last is cut, and a token stands between any two. A
    source is no longer than its text: there are at most as many masks as masked tokens.

    Args:
        mask: Its id.
        ends: Ids of tokens that end a sentence, the last of several in a row.
        mask_ratio: Share of the tokens that is masked.
        mean_span: Tokens of a span on average, before the last is cut; infinite for one span.
        deletion: Probability of every token to be lost. One stays.
        permute_sentences: Whether sentences change places.
    """

    mask: int
    ends: frozenset[int] = frozenset()
    mask_ratio: float = 0.3
    mean_span: float = 3.0
    deletion: float = 0.0
    permute_sentences: bool = True

    def __call__(self, ids: Ids, random: np.random.Generator) -> SourceAndTarget:
        source = list(ids)
        if self.permute_sentences:
            source = self.permute(source, random)
        if self.deletion:
            stays = random.random(len(source)) >= self.deletion
            stays[random.integers(len(source))] |= not stays.any()
            source = [token for token, stay in zip(source, stays, strict=True) if stay]
        return self.infill(source, random), list(ids)

    def permute(self, ids: list[int], random: np.random.Generator) -> list[int]:
        """Returns a text's sentences in random order."""
        borders = [
            i for i, (last, first) in enumerate(pairwise(ids), 1) if last in self.ends and first not in self.ends
        ]
        sentences = [ids[start:end] for start, end in pairwise([0, *borders, len(ids)])]
        return [token for number in random.permutation(len(sentences)) for token in sentences[number]]

    def infill(self, ids: list[int], random: np.random.Generator) -> list[int]:
        """Returns a text with a mask in place of every span."""
        masked = math.ceil(len(ids) * self.mask_ratio)
        spans: list[int] = []
        while sum(spans) < masked:
            spans.append(min(int(random.poisson(min(self.mean_span, LONGEST))), masked - sum(spans)))
        kept = len(ids) - masked
        most = min(masked, kept + 1)
        if len(spans) > most:
            spans = [*spans[: most - 1], sum(spans[most - 1 :])]
        # Numbers of the tokens that stay before each span.
        gaps = random.permutation(kept + 1)[: len(spans)].tolist()
        source: list[int] = []
        start, before = 0, 0
        for gap, span in sorted(zip(gaps, spans, strict=True)):
            source += [*ids[start : start + gap - before], self.mask]
            start, before = start + gap - before + span, gap
        return source + ids[start:]

    def most(self, length: int) -> tuple[int, int] | None:
        return length, length


@dataclass(frozen=True)
class PrefixLM:
    """Cuts a text in two at random: a source and, unless the text is a single token, a target."""

    def __call__(self, ids: Ids, random: np.random.Generator) -> SourceAndTarget:
        cut = int(random.integers(1, max(len(ids), 2)))
        return list(ids[:cut]), list(ids[cut:])

    def most(self, length: int) -> tuple[int, int] | None:
        return max(length - 1, 1), max(length - 1, 0)


@dataclass(frozen=True)
class Copy:
    """Has the text as its source and its target."""

    def __call__(self, ids: Ids, random: np.random.Generator) -> SourceAndTarget:
        return list(ids), list(ids)

    def most(self, length: int) -> tuple[int, int] | None:
        return length, length


@dataclass(frozen=True)
class Mixture:
    """
    Draws one of several objectives for each text.

    Args:
        objectives: What is drawn from.
        weights: One for each; they need not add up to 1.
        tags: For each the ids that come before a source, by which a model knows the objective.
    """

    objectives: tuple[Objective, ...]
    weights: tuple[float, ...]
    tags: tuple[tuple[int, ...], ...]

    @cached_property
    def sums(self) -> list[float]:
        """The weights of each objective and those before it."""
        return list(accumulate(self.weights))

    def __call__(self, ids: Ids, random: np.random.Generator) -> SourceAndTarget:
        drawn = min(bisect_right(self.sums, random.random() * self.sums[-1]), len(self.sums) - 1)
        source, target = self.objectives[drawn](ids, random)
        return [*self.tags[drawn], *source], target

    def most(self, length: int) -> tuple[int, int] | None:
        found = [each.most(length) for each in self.objectives]
        if None in found:
            return None
        sources = [each[0] + len(tag) for each, tag in zip(found, self.tags, strict=True) if each is not None]
        return max(sources), max(each[1] for each in found if each is not None)


def random_lengths(items: int, segments: int, random: np.random.Generator) -> list[int]:
    """Returns the lengths of so many segments, none empty if there are enough items; all ways are equally likely."""
    if segments == 1 or items < segments:
        return [items]
    cuts = np.sort(random.choice(items - 1, segments - 1, replace=False)) + 1
    return [end - start for start, end in pairwise([0, *cuts.tolist(), items])]


def longest_text(objective: Objective, source_room: int, target_room: int) -> int:
    """Returns the length up to which texts have a source and a target that fit; 0 if no text has."""
    length = 0
    # Each token of a text is in its source or in its target.
    while length < source_room + target_room:
        most = objective.most(length + 1)
        if most is None or most[0] > source_room or most[1] > target_room:
            break
        length += 1
    return length


def pieces(ids: Ids, longest: int) -> Iterator[Ids]:
    """Yields a text in as few pieces of at most `longest` tokens as it takes, of like lengths."""
    count = -(-len(ids) // longest)
    for number in range(count):
        yield ids[len(ids) * number // count : len(ids) * (number + 1) // count]
