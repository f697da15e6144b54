# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens and strings that end a text."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteriaList
from transformers.generation import EosTokenCriteria, MaxLengthCriteria, StoppingCriteria


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


class Ends:
    """Tells which texts have ended: by an end token, at the greatest length, or by another criterion."""

    def __init__(self, config: GenerationConfig, criteria: StoppingCriteriaList):
        self.tokens, self.max_length = end_tokens(config), config.max_length
        self.others = [each for each in criteria if not isinstance(each, EosTokenCriteria | MaxLengthCriteria)]

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns for each row of tokens (R, T) whether its text has just ended."""
        if tokens.shape[1] >= self.max_length:
            return torch.ones_like(tokens[:, 0], dtype=torch.bool)
        ended = is_one_of(tokens[:, -1], self.tokens)
        for each in self.others:
            ended = ended | each(tokens, None)  # type: ignore[arg-type]
        return ended


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

    def cut(self, output, prompt: int) -> None:
        """
        Cuts one text, and its logits if they were kept, where a string ends: of a draft several tokens are taken at a
        time.

        Args:
            output: What `generate()` has returned.
            prompt: Tokens before those that it wrote.
        """
        sequences, length = output.sequences, output.sequences.shape[1]
        end = next((end for end in range(prompt + 1, length) if bool(self(sequences[:, :end]))), length)
        output.sequences = sequences[:, :end]
        if output.logits is not None:
            output.logits = output.logits[: len(output.logits) - (length - end)]


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
