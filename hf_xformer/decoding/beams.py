# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Beam search by the library's rules, for each source by itself.

Shapes: B sources at first, S of them that are left, n beams, k candidates, T tokens, V vocabulary.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch.nn.functional import pad
from transformers import GenerationConfig

from .live_batch import LiveBatch, Processors
from .stopping import Ends, end_tokens, padding


# Stands for the score of what is no text: of a beam that is not used yet, or may not be chosen.
NEVER = -1.0e9


@dataclass(frozen=True)
class Hypotheses:
    """
    Some hypotheses of each source, best first.

    Args:
        tokens: (S, n, T).
        scores: What they are sorted by, (S, n).
        log_probs: Sums of the tokens' log-probabilities, before any processor of logits, (S, n).
        lengths: Tokens of each (S, n); 0 where there is no hypothesis yet.
    """

    tokens: torch.Tensor
    scores: torch.Tensor
    log_probs: torch.Tensor
    lengths: torch.Tensor

    def of(self, sources: torch.Tensor) -> "Hypotheses":
        """Returns the hypotheses of some sources."""
        return Hypotheses(*(getattr(self, each.name)[sources] for each in fields(self)))

    def choose(self, index: torch.Tensor) -> "Hypotheses":
        """Returns some hypotheses of each source, by their numbers (S, n)."""
        width = self.tokens.shape[2]
        tokens = self.tokens.gather(1, index[:, :, None].expand(-1, -1, width))
        rest = (each.gather(1, index) for each in (self.scores, self.log_probs, self.lengths))
        return Hypotheses(tokens, *rest)

    def beside(self, others: "Hypotheses", fill: int) -> "Hypotheses":
        """Returns these hypotheses and others of the same sources, which are longer."""
        width = others.tokens.shape[2] - self.tokens.shape[2]
        padded = replace(self, tokens=pad(self.tokens, (0, width), value=fill))
        pairs = ((getattr(padded, each.name), getattr(others, each.name)) for each in fields(self))
        return Hypotheses(*(torch.cat(pair, dim=1) for pair in pairs))


@dataclass(frozen=True)
class Rules:
    """The options of a beam search, by which hypotheses are compared and a source is done."""

    beams: int
    candidates: int
    prompt: int
    max_length: int
    length_penalty: float
    early_stopping: bool | str
    fill: int

    def scores_of(self, texts: Hypotheses) -> torch.Tensor:
        """Returns the scores (S, k) of texts that end here, by which texts of unequal lengths are compared."""
        return texts.scores / (texts.tokens.shape[2] - self.prompt) ** self.length_penalty

    def best_of(self, ended: Hypotheses, new: Hypotheses) -> Hypotheses:
        """Returns the n best texts of each source, of those that had ended and of new ones."""
        both = ended.beside(new, self.fill)
        return both.choose(both.scores.topk(self.beams)[1])

    def is_done(self, running: Hypotheses, ended: Hypotheses, hits: torch.Tensor) -> torch.Tensor:
        """
        Returns for each source (S,) whether its search is over.

        Args:
            hits: Candidates (S, k) of this step that have ended.
        """
        is_text = ended.lengths > 0
        length = running.tokens.shape[2] - self.prompt
        if self.early_stopping == "never" and self.length_penalty > 0.0:
            length = self.max_length - self.prompt
        # The library's estimate of how good the best beam can become.
        best = running.scores[:, :1] / length**self.length_penalty
        worst = torch.where(is_text, ended.scores.amin(dim=1, keepdim=True), NEVER)
        over = ~(best > worst).any(dim=1) | hits.all(dim=1)
        return over | is_text.all(dim=1) if self.early_stopping is True else over


def rules_of(config: GenerationConfig, prompt: int) -> Rules:
    """Returns the rules of a generation config, for prompts of so many tokens."""
    ends, beams = end_tokens(config), config.num_beams
    # The library puts the first end token behind a text, where the padding token's number is 0; and without an end
    # token -1, which no tokenizer knows.
    fill = (config.pad_token_id or ends[0]) if ends else padding(config)
    return Rules(
        beams=beams,
        candidates=max(2, 1 + len(ends)) * beams,
        prompt=prompt,
        max_length=config.max_length,
        length_penalty=config.length_penalty,
        early_stopping=config.early_stopping,
        fill=fill,
    )


def search_beams(
    live: LiveBatch,
    tokens: torch.Tensor,
    processors: Processors,
    ends: Ends,
    config: GenerationConfig,
    with_scores: bool,
) -> dict[str, torch.Tensor | None]:
    """
    Returns the sequences, the scores that they are sorted by and, if asked for, their log-probabilities.

    Args:
        tokens: Prompts (B * n, T).
        ends: Tells for tokens (S * n, T) which texts have just ended.
    """
    rules = rules_of(config, tokens.shape[1])
    running, ended = first_hypotheses(tokens, rules)
    # At first all beams are alike. The first gives all candidates, unless it has too few tokens for them.
    if processors is None and live.model.config.vocab_size >= rules.candidates:
        running = running.choose(torch.zeros_like(running.lengths[:, :1]))
    sources = torch.arange(len(running.tokens), device=tokens.device)
    results: list[tuple[torch.Tensor, Hypotheses]] = []
    while len(sources):
        beams = running.scores.shape[1]
        candidates, parents = best_candidates(live, running, processors, rules, with_scores)
        hits = ends(candidates.tokens.flatten(0, 1)).view(parents.shape)  # (S, k)
        scores = candidates.scores + hits.float() * NEVER
        index = scores.topk(rules.beams)[1]
        running = replace(candidates, scores=scores).choose(index)
        first_rows = torch.arange(0, len(sources) * beams, beams, device=tokens.device)
        rows = parents.gather(1, index) + first_rows[:, None]  # (S, n), among the rows of this step
        if hits[:, : rules.beams].any():
            ended = with_new(ended, candidates, hits, rules)
        done = rules.is_done(running, ended, hits)
        if not done.any():
            live.reorder(rows.flatten())
            continue
        results.append((sources[done], ended.of(done)))
        kept = (~done).nonzero()[:, 0]
        running, ended, sources = running.of(kept), ended.of(kept), sources[kept]
        if len(kept):
            live.reorder(rows[kept].flatten(), kept)
    return assembled(results, rules, config.num_return_sequences, with_scores)


def first_hypotheses(tokens: torch.Tensor, rules: Rules) -> tuple[Hypotheses, Hypotheses]:
    """Returns prompts (B * n, T), of which the first of each source is in use, and room for the texts that end."""
    prompts = tokens.view(-1, rules.beams, rules.prompt)
    nothing = torch.zeros(prompts.shape[:2], device=tokens.device)
    unused = torch.full_like(nothing, NEVER)
    running = Hypotheses(prompts, torch.cat([nothing[:, :1], unused[:, 1:]], dim=1), nothing, nothing.long())
    return running, replace(running, scores=unused)


def best_candidates(
    live: LiveBatch,
    running: Hypotheses,
    processors: Processors,
    rules: Rules,
    with_scores: bool,
) -> tuple[Hypotheses, torch.Tensor]:
    """Returns the best continuations by one token, k of each source, and the beams (S, k) that they continue."""
    own, total = score_next(live, running, processors, with_scores)
    scores, index = total.flatten(1).topk(rules.candidates)
    return continuations(running, scores, index, own, with_scores)


def score_next(
    live: LiveBatch, running: Hypotheses, processors: Processors, with_scores: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the next tokens' log-probabilities by the model (S * n, V), and all continuations' scores (S, n, V)."""
    rows = running.tokens.flatten(0, 1)
    own = live.logits(rows).log_softmax(dim=-1)
    log_probs = own if processors is None else processors(rows, own.clone() if with_scores else own)
    return own, log_probs.view(*running.scores.shape, -1) + running.scores[:, :, None]


def continuations(
    running: Hypotheses, scores: torch.Tensor, index: torch.Tensor, own: torch.Tensor, with_scores: bool
) -> tuple[Hypotheses, torch.Tensor]:
    """
    Returns hypotheses that go on by a token, and the beams (S, k) that they continue.

    Args:
        scores, index: Those of the continuations, (S, k), and their places among a source's n * V.
        own: Log-probabilities by the model (S * n, V).
    """
    parents, chosen = index // own.shape[1], index % own.shape[1]
    continued = running.choose(parents)
    added = own.view(len(index), -1).gather(1, index) if with_scores else 0.0
    candidates = Hypotheses(
        tokens=torch.cat([continued.tokens, chosen[:, :, None]], dim=2),
        scores=scores,
        log_probs=continued.log_probs + added,
        lengths=continued.lengths + 1,
    )
    return candidates, parents


def with_new(ended: Hypotheses, candidates: Hypotheses, hits: torch.Tensor, rules: Rules) -> Hypotheses:
    """Returns the best texts of those that had ended and of the n best candidates that have just ended."""
    is_new = hits & (torch.arange(hits.shape[1], device=hits.device) < rules.beams)  # (S, k)
    scores = rules.scores_of(candidates) + ~is_new * NEVER
    return rules.best_of(ended, replace(candidates, scores=scores, lengths=candidates.lengths * is_new))


def assembled(
    results: list[tuple[torch.Tensor, Hypotheses]], rules: Rules, count: int, with_scores: bool
) -> dict[str, torch.Tensor | None]:
    """
    Returns sequences, scores, log-probabilities and lengths in the order of the sources.

    Args:
        results: Numbers of sources, with their texts.
        count: Texts that are wanted of each.
    """
    order = torch.cat([sources for sources, _ in results]).argsort()
    width = rules.prompt + max(int(ended.lengths[:, :count].max()) for _, ended in results)
    tokens = [
        pad(ended.tokens[:, :count, :width], (0, max(0, width - ended.tokens.shape[2])), value=rules.fill)
        for _, ended in results
    ]
    scores, log_probs, lengths = (
        torch.cat([getattr(ended, name)[:, :count] for _, ended in results])[order].flatten()
        for name in ("scores", "log_probs", "lengths")
    )
    return {
        "sequences": torch.cat(tokens)[order].flatten(0, 1),
        "sequences_scores": scores,
        "log_probabilities": log_probs if with_scores else None,
        "lengths": lengths,
    }
