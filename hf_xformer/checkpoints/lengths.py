# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Lengths of texts: the positions that a model has, and the longest source that it was trained on."""

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..errors import ArgumentError
from ..models import XformerConfig


# The library writes a larger number into tokenizers that have no limit.
LARGEST_LENGTH = 10**9
# Stock models with tables of positions, beyond which an index fails. M2M100's, NLLB's and FSMT's tables grow, T5's
# positions are relative and T5Gemma's rotate; what is not named here is taken to have no limit.
TABLES = {
    "bart",
    "bigbird_pegasus",
    "blenderbot",
    "blenderbot-small",
    "marian",
    "mbart",
    "mvp",
    "pegasus",
    "plbart",
}
TABLE_OF_EACH_STACK = {"led"}


def position_field(config: PreTrainedConfig, stack: str) -> str | None:
    """Returns the field of a stock model's config that says how many positions a stack has; None if none does."""
    if config.model_type in TABLE_OF_EACH_STACK:
        return f"max_{stack}_position_embeddings"
    return "max_position_embeddings" if config.model_type in TABLES else None


def position_limit(config: PreTrainedConfig, stack: str) -> int | None:
    """
    Returns the longest text, in tokens, that a model has positions for; None if no limit is known.

    Args:
        stack: The "encoder", which reads sources, or the "decoder".
    """
    if isinstance(config, XformerConfig):
        return config.longest_of(stack)
    # The tables of BART's kind have two rows more, which are no positions.
    return getattr(config, position_field(config, stack) or "", None)


def check_length(config: PreTrainedConfig, length: int | None, where: str, stack: str) -> None:
    """
    Checks that a model has positions for a sequence.

    Args:
        length: Tokens; None if there is no limit to them.
        where: The option, with its value, for the message.
        stack: As in [`position_limit`].

    Raises:
        ArgumentError: The sequence is longer.
    """
    limit = position_limit(config, stack)
    if limit is None or length is None or length <= limit:
        return
    field = position_field(config, stack) or "max_position_embeddings"
    own = "original_" if limit != getattr(config, field) else ""
    raise ArgumentError(f"{where} is beyond the model's `{own}{field}` of {limit}: shorten it")


def check_both_lengths(config: PreTrainedConfig, source: int | None, target: int | None) -> None:
    """
    Checks that a model has positions for the lengths of a run's options.

    Raises:
        ArgumentError: It does not.
    """
    check_length(config, source, f"--max_source_length {source}", "encoder")
    check_length(config, target, f"--max_target_length {target}", "decoder")


def recorded(length: int) -> int:
    """Returns a tokenizer's `model_max_length`; 0 in place of the number of one that has no limit."""
    return length if length < LARGEST_LENGTH else 0


def trained_length(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Returns the tokens of the longest source, as the source's tokenizer records it; None if it does not."""
    return recorded(tokenizer.model_max_length) or None


def record_trained_length(tokenizer: PreTrainedTokenizerBase, longest: int, known: int = 0) -> None:
    """
    Records in the source's tokenizer the tokens of the longest source that a model is trained on.

    Args:
        longest: That of this training.
        known: That of trainings before; the number of a tokenizer without a record counts as none.
    """
    tokenizer.model_max_length = max(longest, recorded(known))
