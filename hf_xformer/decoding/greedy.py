# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Greedy search: the likeliest token at every step.

Shapes: B sources at first, S of them that are left, T tokens so far, V vocabulary.
"""

import torch
from transformers import GenerationConfig

from .live_batch import LiveBatch, Processors
from .stopping import Ends, padding


def search_greedily(
    live: LiveBatch,
    tokens: torch.Tensor,
    processors: Processors,
    ends: Ends,
    config: GenerationConfig,
    with_scores: bool,
) -> dict[str, torch.Tensor | None]:
    """
    Returns the sequences and, if asked for, their log-probabilities.

    Args:
        tokens: Prompts (B, T).
        processors: Change the logits, or the log-probabilities of beams, by the tokens before them.
        ends: Tells for tokens (S, T) which texts have just ended.
    """
    sources = torch.arange(len(tokens), device=tokens.device)
    scores = torch.zeros(len(tokens), device=tokens.device)
    texts: list[tuple[torch.Tensor, torch.Tensor]] = []
    final = torch.zeros_like(scores)
    while len(sources):
        logits = live.logits(tokens)  # (S, V)
        log_probs = logits.log_softmax(dim=-1) if with_scores else None
        chosen = (logits if processors is None else processors(tokens, logits)).argmax(dim=-1, keepdim=True)  # (S, 1)
        if log_probs is not None:
            scores = scores + log_probs.gather(1, chosen)[:, 0]
        tokens = torch.cat([tokens, chosen], dim=1)
        ended = ends(tokens)
        if not ended.any():
            continue
        texts.append((sources[ended], tokens[ended]))
        final[sources[ended]] = scores[ended]
        kept = (~ended).nonzero()[:, 0]
        tokens, sources, scores = tokens[kept], sources[kept], scores[kept]
        if len(kept):
            live.reorder(kept, kept)
    sequences = tokens.new_full((len(final), tokens.shape[1]), padding(config))
    for rows, text in texts:
        sequences[rows, : text.shape[1]] = text
    return {"sequences": sequences, "log_probabilities": final if with_scores else None}
