# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens that texts are told to begin with, or to consist of: prefixes, and lists of allowed texts."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.generation import LogitsProcessor

from ..data.encoding import TextEncoder
from ..errors import ArgumentError
from .lengths import LIBRARY_LENGTH, longest_target
from .stopping import end_tokens
from .tally import Place, shortened


class TargetEncoder:
    """
    Turns targets, or their beginnings, into the tokens that the decoder writes, without its start and end tokens.

    Args:
        tokenizer: The target's.
        config: What `generate()` goes by.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: GenerationConfig):
        self.tokenizer, self.config = tokenizer, config
        self.encoder = TextEncoder(tokenizer, target=True)

    def __call__(self, text: str) -> list[int]:
        """Returns the tokens of a text, those before every text included."""
        ids = self.encoder([text])[0].ids
        ids = ids[: len(ids) - len(self.encoder.frame.suffix)]
        first = self.config.forced_bos_token_id
        return ids if first is None or ids[:1] == [first] else [first, *ids]

    def prompt(self, prefix: str, place: Place) -> list[int]:
        """
        Returns the decoder's tokens up to the end of a prefix; none for an empty one.

        Raises:
            ArgumentError: It leaves no room for a text, or no token says how texts start.
        """
        if not prefix.strip():
            return []
        config = self.config
        start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
        if start is None:
            raise ArgumentError("prefix: the model has no decoder_start_token_id, behind which a prefix would stand")
        ids = [start, *self(prefix)]
        most = config.max_length if config.max_new_tokens is None else None
        if most is not None and len(ids) >= most:
            raise ArgumentError(
                f"prefix of {place.kind} {place.number:,} has {len(ids) - 1:,} tokens, and max_length {most:,} leaves "
                f"none to go on: {shortened(prefix)}; give max_new_tokens"
            )
        return ids

    def reads(self, prompt: list[int]) -> str:
        """Returns the text of a prompt."""
        return str(self.tokenizer.decode(prompt, skip_special_tokens=True))


class AllowedTexts(LogitsProcessor):
    """
    Allows only tokens that go on with one of some texts: a tree of their tokens, which a row is followed along.

    Args:
        texts: Those that are allowed.
        encoder: Makes tokens of them.

    Raises:
        ArgumentError: There is none, one is empty or longer than texts may become, or no token ends a text.
    """

    def __init__(self, texts: Sequence[str], encoder: TargetEncoder):
        ends, most = end_tokens(encoder.config), longest_target(encoder.config) or LIBRARY_LENGTH
        if not texts or not ends:
            raise ArgumentError(f"allowed: there is no {'text' if ends else 'end token, by which texts would end'}")
        self.tree: dict[int, Any] = {}
        for number, text in enumerate(texts, 1):
            tokens = encoder(text)
            if not text.strip() or len(tokens) >= most:
                limit = f"has {len(tokens):,} tokens, and the longest text {most:,} with its end: give max_new_tokens"
                raise ArgumentError(f"allowed text {number:,} {limit if text.strip() else 'is empty'}")
            node = self.tree
            for token in tokens:
                node = node.setdefault(token, {})
            node |= {end: {} for end in ends}
        self.count = len(set(texts))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        allowed = torch.full_like(scores, -float("inf"))
        for row, tokens in enumerate(input_ids[:, 1:].tolist()):
            # A row that has ended, or that was never one of the texts, is left as it is: nobody goes by it.
            index = list(self.follow(tokens)) or slice(None)
            allowed[row, index] = scores[row, index]
        return allowed

    def follow(self, tokens: Sequence[int]) -> dict[int, Any]:
        """Returns what may come behind tokens; nothing where they are no beginning of a text, or the whole of one."""
        node = self.tree
        for token in tokens:
            node = node.get(token, {})
        return node
