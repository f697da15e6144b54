# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Beam search for texts that hold given words, by dynamic beam allocation (Post and Vilar 2018).

The beams of a source are shared out among banks: hypotheses that hold equally many tokens of the words. A word's next
token is a candidate in each step, whatever its score, and a text ends when it holds all of them.

Shapes: S sources that are left, n beams, k candidates, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from transformers import GenerationConfig

from ..errors import ArgumentError
from .beams import NEVER, Hypotheses, Rules, assembled, continuations, first_hypotheses, rules_of, score_next
from .live_batch import LiveBatch, Processors
from .stopping import Ends


# Taken from the score of a text that ends at the greatest length, for each token that is missing.
MISSING = 1.0e6


@dataclass(frozen=True)
class Word:
    """The tokens of a word, or of several: at the beginning of a text, and anywhere behind that."""

    first: tuple[int, ...]
    later: tuple[int, ...]


@dataclass(frozen=True)
class Progress:
    """Words that a hypothesis holds, by their numbers, its last tokens, and how many it has."""

    held: frozenset[int] = frozenset()
    last: tuple[int, ...] = ()
    length: int = 0


class Words:
    """The words that a source's text must hold."""

    def __init__(self, words: Sequence[Word]):
        self.words = list(words)
        self.sizes = [max(len(word.first), len(word.later)) for word in self.words]
        self.total, self.longest = sum(self.sizes), max(self.sizes, default=0)

    def after(self, progress: Progress, token: int) -> Progress:
        """Returns the progress of a hypothesis that goes on with a token."""
        if not self.words:
            return progress
        last, length = (*progress.last, token)[-self.longest :], progress.length + 1
        new = {
            number
            for number, word in enumerate(self.words)
            if last[-len(word.later) :] == word.later or (length == len(word.first) and last == word.first)
        }
        return Progress(progress.held | new, last, length)

    def begun(self, progress: Progress) -> list[tuple[int, tuple[int, ...]]]:
        """Returns the words that are missing, each with how many of its tokens the hypothesis ends with."""
        begun = []
        for number, word in enumerate(self.words):
            if number in progress.held:
                continue
            begun.append((overlap(progress.last, word.later), word.later))
            if progress.length < len(word.first) and progress.last == word.first[: progress.length]:
                begun.append((progress.length, word.first))
        return begun

    def bank(self, progress: Progress) -> int:
        """Returns how many tokens of the words a hypothesis holds, those of one that it has begun included."""
        held = sum(self.sizes[number] for number in progress.held)
        return held + max((count for count, _ in self.begun(progress)), default=0)

    def next_tokens(self, progress: Progress) -> set[int]:
        """Returns the tokens that go on with a word, or begin one."""
        begun = self.begun(progress)
        return {tokens[count] for count, tokens in begun} | {word.later[0] for word in self.missing(progress)}

    def missing(self, progress: Progress) -> list[Word]:
        """Returns the words that a hypothesis does not hold."""
        return [word for number, word in enumerate(self.words) if number not in progress.held]


def check_force_words(config: GenerationConfig, searches: bool, has_list: bool) -> None:
    """
    Checks that a decoder can look for texts that hold words.

    Args:
        config: What it goes by.
        searches: Whether its beam search is the package's own.
        has_list: Whether there is a list of allowed texts.

    Raises:
        ArgumentError: It has no beams, samples, leaves the search to the library, or has a list that may lack words.
    """
    if has_list:
        raise ArgumentError("force_words does not go with allowed: leave texts without the words out of the list")
    if (config.num_beams or 1) < 2:
        raise ArgumentError("force_words needs num_beams of 2 or more, better as many as a text has tokens of words")
    if config.do_sample:
        raise ArgumentError("force_words does not go with sampling: leave one of them out")
    if not searches:
        raise ArgumentError(
            "force_words is for models of this package and options of its own beam search: transformers no longer has "
            "one for words"
        )


def overlap(last: tuple[int, ...], tokens: tuple[int, ...]) -> int:
    """Returns how many of the first tokens, but never all of them, are the last ones."""
    return next(n for n in range(min(len(last), len(tokens) - 1), -1, -1) if last[len(last) - n :] == tokens[:n])


def search_with_words(
    live: LiveBatch,
    tokens: torch.Tensor,
    processors: Processors,
    ends: Ends,
    config: GenerationConfig,
    with_scores: bool,
    words: Sequence[Words],
) -> dict[str, torch.Tensor | None]:
    """
    Returns the sequences, the scores that they are sorted by and, if asked for, their log-probabilities.

    Args:
        tokens: Prompts (B * n, T).
        ends: Tells for tokens (S * n, T) which texts have just ended.
        words: Those of each source.
    """
    rules = rules_of(config, tokens.shape[1])
    running, ended = first_hypotheses(tokens, rules)
    prompts = running.tokens.tolist()
    progress = [[started(each, row[1:]) for row in rows] for each, rows in zip(words, prompts, strict=True)]
    sources = list(range(len(prompts)))
    results: list[tuple[torch.Tensor, Hypotheses]] = []
    while sources:
        banks = [Banks(words[source], rows) for source, rows in zip(sources, progress, strict=True)]
        candidates, parents = all_candidates(live, running, processors, rules, banks, with_scores)
        hits = ends(candidates.tokens.flatten(0, 1)).view(parents.shape)  # (S, k)
        is_last = candidates.tokens.shape[2] >= rules.max_length
        shared = [
            bank.share(rows, rules.beams, is_last)
            for bank, rows in zip(banks, rows_of(candidates, parents, hits), strict=True)
        ]
        index = torch.tensor([each.kept for each in shared], device=tokens.device)
        is_kept = torch.tensor([each.is_kept for each in shared], device=tokens.device)
        missing = torch.tensor([each.ended for each in shared], device=tokens.device)  # (S, k)
        running = candidates.choose(index)
        running = replace(running, scores=running.scores.masked_fill(~is_kept, NEVER))
        first_rows = torch.arange(len(sources), device=tokens.device)[:, None] * rules.beams
        rows = parents.gather(1, index) + first_rows  # (S, n), among the rows of this step
        ended = with_ended(ended, candidates, missing, rules)
        done = rules.is_done(running, ended, hits)
        progress = [each.progress for each in shared]
        if not done.any():
            live.reorder(rows.flatten())
            continue
        results.append((torch.tensor(sources, device=tokens.device)[done], ended.of(done)))
        kept = (~done).nonzero()[:, 0]
        running, ended = running.of(kept), ended.of(kept)
        sources, progress = [sources[i] for i in kept.tolist()], [progress[i] for i in kept.tolist()]
        if sources:
            live.reorder(rows[kept].flatten(), kept)
    return assembled(results, rules, config.num_return_sequences, with_scores)


def started(words: Words, prompt: Sequence[int]) -> Progress:
    """Returns the progress of a prompt, which may hold words already."""
    progress = Progress()
    for token in prompt:
        progress = words.after(progress, token)
    return progress


class Candidate(NamedTuple):
    """A continuation by one token: its score, the beam that it continues, its token, and whether its text ends."""

    score: float
    parent: int
    token: int
    is_hit: bool


@dataclass(frozen=True)
class Shared:
    """
    Candidates of a source, shared out.

    Args:
        kept: Numbers of the n candidates that go on.
        is_kept: Whether each is one; there may be too few.
        progress: That of each.
        ended: For each of the k candidates how many tokens its text has ended without; -1 where it has not ended.
    """

    kept: list[int]
    is_kept: list[bool]
    progress: list[Progress]
    ended: list[int]


class Banks:
    """The banks of one source in one step."""

    def __init__(self, words: Words, progress: list[Progress]):
        self.words, self.progress = words, progress

    def forced(self) -> list[tuple[int, int]]:
        """Returns candidates, whatever their scores, as beams and tokens: the next tokens of words."""
        if not self.words.total:
            return []
        return [
            (beam, token)
            for beam, progress in enumerate(self.progress)
            for token in sorted(self.words.next_tokens(progress))
        ]

    def share(self, candidates: list[Candidate], beams: int, is_last: bool) -> Shared:
        """
        Returns which candidates go on and which end.

        Args:
            candidates: The best first.
            beams: How many go on.
            is_last: Whether all end here, whatever they hold.
        """
        places: dict[int, list[int]] = {}
        found, ended, going = [], [-1] * len(candidates), []
        seen: dict[int, int] = {}
        for number, (score, parent, token, hit) in enumerate(candidates):
            progress = self.words.after(self.progress[parent], token)
            found.append(progress)
            if score <= NEVER / 2:
                continue
            missing = self.words.total - (bank := self.words.bank(progress))
            seen[bank] = seen.get(bank, 0) + 1
            if hit and (is_last or not missing) and seen[bank] <= beams:
                ended[number] = missing
            if not hit:
                places.setdefault(bank, []).append(number)
        # The best of each bank, then the second of each: the fullest bank first.
        for bank, numbers in places.items():
            going += [(rank, -bank, number) for rank, number in enumerate(numbers)]
        kept = sorted(number for _, _, number in sorted(going)[:beams])
        count = len(kept)
        kept += [0] * (beams - count)
        return Shared(kept, [i < count for i in range(beams)], [found[number] for number in kept], ended)


def all_candidates(
    live: LiveBatch,
    running: Hypotheses,
    processors: Processors,
    rules: Rules,
    banks: Sequence[Banks],
    with_scores: bool,
) -> tuple[Hypotheses, torch.Tensor]:
    """
    Returns continuations by one token, k of each source and the best first, and the beams (S, k) that they continue:
    those of the highest scores, the best of each beam, and those that go on with a word.
    """
    own, total = score_next(live, running, processors, with_scores)
    size = own.shape[1]
    best = total.argmax(dim=-1).tolist()  # (S, n)
    index = total.flatten(1).topk(min(rules.candidates, total[0].numel()))[1].tolist()
    for chosen, bank, tokens in zip(index, banks, best, strict=True):
        forced = bank.forced()
        more = [*enumerate(tokens), *forced] if bank.words.total else []
        known = set(chosen)
        chosen += [place for place in dict.fromkeys(beam * size + token for beam, token in more) if place not in known]
    width = max(map(len, index))
    is_none = torch.tensor([[i >= len(each) for i in range(width)] for each in index], device=total.device)
    places = torch.tensor([each + [0] * (width - len(each)) for each in index], device=total.device)
    scores, order = (
        total.flatten(1).gather(1, places).masked_fill(is_none, 2 * NEVER).sort(descending=True, stable=True)
    )
    return continuations(running, scores, places.gather(1, order), own, with_scores)


def rows_of(candidates: Hypotheses, parents: torch.Tensor, hits: torch.Tensor) -> list[list[Candidate]]:
    """Returns the candidates of each source."""
    columns: list[list] = [each.tolist() for each in (candidates.scores, parents, candidates.tokens[:, :, -1], hits)]
    return [[Candidate(*each) for each in zip(*rows, strict=True)] for rows in zip(*columns, strict=True)]


def with_ended(ended: Hypotheses, candidates: Hypotheses, missing: torch.Tensor, rules: Rules) -> Hypotheses:
    """Returns the best texts of those that had ended and of the candidates that end here."""
    is_new = missing >= 0
    scores = torch.where(is_new, rules.scores_of(candidates) - MISSING * missing, 2 * NEVER)
    return rules.best_of(ended, replace(candidates, scores=scores, lengths=candidates.lengths * is_new))
