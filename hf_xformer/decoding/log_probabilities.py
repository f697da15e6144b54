# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of texts from the logits of every step, which the library's loops keep, and their lengths."""

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import StoppingCriteria

from .stopping import end_tokens, is_one_of, padding


def log_probabilities(
    model: PreTrainedModel, output, config: GenerationConfig, criteria: list[StoppingCriteria]
) -> list[float]:
    """
    Returns the log-probability of each sequence, up to and including its end token.

    Args:
        output: What `generate()` has returned, with logits.
        config: What it went by.
        criteria: Those that ended texts beside the config's own.
    """
    beams = getattr(output, "beam_indices", None)
    sequences, logits = output.sequences, output.logits
    steps = model.compute_transition_scores(sequences, logits, beams, normalize_logits=True)  # type: ignore[operator]
    tokens = sequences[:, -steps.shape[1] :]
    ends = is_one_of(tokens, end_tokens(config))
    first_end = ends & (ends.cumsum(dim=-1) == 1)
    after_end = (ends.cumsum(dim=-1) > 0) & ~first_end  # padding is not part of the text
    if criteria:
        # These end a text without an end token, and padding is all that tells where.
        trailing = (tokens == padding(config)).flip(-1).cumprod(dim=-1).flip(-1).bool()
        after_end |= trailing & ~(first_end & ~is_stopped(output, trailing & first_end, criteria))
    return steps.masked_fill(after_end, 0.0).sum(dim=-1).tolist()


def lengths_of(output, width: int, config: GenerationConfig, criteria: list[StoppingCriteria]) -> list[int]:
    """
    Returns the tokens of each text, up to and including its first end token, or else its last one that is no padding.

    Args:
        output: What `generate()` has returned, with logits.
        width: Tokens of the prompt, which do not count.
        config, criteria: As for [`log_probabilities`].
    """
    tokens = output.sequences[:, width:]
    ends = is_one_of(tokens, end_tokens(config))
    is_text = ends.cumsum(dim=-1) - ends.long() == 0  # the first end token included
    trailing = (tokens == padding(config)).flip(-1).cumprod(dim=-1).flip(-1).bool()
    lengths = (is_text & ~(trailing & ~ends)).sum(dim=-1)
    if criteria:  # the library's beams put the end token behind a text where the padding token's number is 0
        lengths -= is_stopped(output, ends & (ends.cumsum(dim=-1) == 1), criteria)[:, 0].long()
    return lengths.tolist()


def is_stopped(output, first_end: torch.Tensor, criteria: list[StoppingCriteria]) -> torch.Tensor:
    """Returns for each sequence (B, 1) whether a criterion ended it before its first end token, if it has one."""
    stopped = torch.zeros_like(first_end[:, :1])
    start = output.sequences.shape[1] - first_end.shape[1]
    for row, step in first_end.nonzero().tolist():
        before = output.sequences[row : row + 1, : start + step]
        stopped[row] = step > 0 and any(bool(each(before, output.logits[step - 1][:1])) for each in criteria)
    return stopped
