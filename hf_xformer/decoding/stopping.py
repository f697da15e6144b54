# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens and strings that end a text."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.generation import StoppingCriteria


def end_tokens(config: GenerationConfig) -> list[int]:
    """Returns the tokens that end a text."""
    ends = config.eos_token_id
    return [] if ends is None else list(ends) if isinstance(ends, list | tuple) else [ends]


def padding(config: GenerationConfig) -> int:
    """Returns the token that `generate()` puts behind a text that has ended; -1 if it has none."""
    return config.pad_token_id if config.pad_token_id is not None else next(iter(end_tokens(config)), -1)


def is_one_of(tokens: torch.Tensor, some: list[int]) -> torch.Tensor:
    """Returns where tokens are one of some."""
    if len(some) == 1:  # a comparison is many times faster than the search below
        return tokens == some[0]
    if not some:
        return torch.zeros_like(tokens, dtype=torch.bool)
    return torch.isin(tokens, torch.tensor(some, device=tokens.device, dtype=tokens.dtype))


class StopTexts(StoppingCriteria):
    """
    Ends a text that has one of some strings.

    The library's own looks for them in the names of tokens, which it cannot make out for tokenizers of whole words.

    Args:
        width: Tokens of the prompt, where no string ends a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: list[str], width: int = 1):
        self.tokenizer, self.strings, self.width = tokenizer, strings, width

    def __call__(  # type: ignore[override]
        self, input_ids: torch.Tensor, scores: torch.Tensor | None = None, **kwargs
    ) -> torch.Tensor:
        texts = self.tokenizer.batch_decode(input_ids, skip_special_tokens=True)
        prompts = [""] * len(texts)
        if self.width > 1:
            prompts = self.tokenizer.batch_decode(input_ids[:, : self.width], skip_special_tokens=True)
        ended = [
            any(text.find(each, max(0, len(prompt) - len(each) + 1)) >= 0 for each in self.strings)
            for text, prompt in zip(texts, prompts, strict=True)
        ]
        return torch.tensor(ended, device=input_ids.device)


def ended_by_themselves(
    sequences: torch.Tensor, width: int, most: int, config: GenerationConfig, stops: StopTexts | None = None
) -> list[bool]:
    """
    Returns for each sequence whether it ended by an end token or a string, and not at the greatest length.

    Args:
        width: Tokens of its prompt.
        most: Tokens that it may have, with its prompt.
        config: What `generate()` went by.
    """
    tokens = sequences[:, width:]
    if config.forced_eos_token_id is not None and sequences.shape[1] >= most:
        tokens = tokens[:, :-1]  # the last one is an end token in any case
    ended = is_one_of(tokens, end_tokens(config)).any(dim=-1) | (sequences[:, -1] == padding(config))
    return (ended if stops is None else ended | stops(sequences)).tolist()


@contextmanager
def own_stop_strings(config: GenerationConfig, options: dict) -> Iterator[dict]:
    """Yields options without `stop_strings`, which `StopTexts` looks for; the model's config has none meanwhile."""
    options, kept = {name: value for name, value in options.items() if name != "stop_strings"}, config.stop_strings
    if (given := options.get("generation_config")) is not None:
        options["generation_config"] = copy.deepcopy(given)
        options["generation_config"].stop_strings = None
    config.stop_strings = None
    try:
        yield options
    finally:
        config.stop_strings = kept
