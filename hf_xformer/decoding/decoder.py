# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Decodes texts in batches of similar length with the stock `generate()`, and returns them in order."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ..data.encoding import TextEncoder
from ..errors import blame


# Batches that are read ahead and sorted by length, because equal lengths need no padding.
BATCHES_AHEAD = 64
# `generate()` constructs these when it samples; a value that they refuse is refused before anything is decoded.
WARPERS = {"temperature": TemperatureLogitsWarper, "top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper}


@dataclass(frozen=True)
class Hypothesis:
    """A decoded text and, if it was asked for, the natural logarithm of its probability, end token included."""

    text: str
    score: float | None = None


class Decoder:
    """
    Decodes texts with one model.

    Args:
        model: Any transformers sequence-to-sequence model.
        source, target: Its tokenizers; often the same.
        batch_size: Sources at a time.
        max_source_length: Tokens to which longer sources are cut; None for no limit. `truncated` counts them.
        scores: Whether to compute log-probabilities, for which the logits of every step are kept.
        options: Arguments of `generate()`; `num_return_sequences` is the number of hypotheses a source, best first.

    Raises:
        ArgumentError: An option has a value that `generate()` would refuse.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        source: PreTrainedTokenizerBase,
        target: PreTrainedTokenizerBase,
        batch_size: int = 64,
        max_source_length: int | None = None,
        scores: bool = False,
        **options,
    ):
        self.model, self.source, self.target = model.eval(), source, target
        self.batch_size, self.max_source_length, self.options = batch_size, max_source_length, options
        self.encoder = TextEncoder(source, max_source_length)
        self.scores, self.truncated = scores, 0
        check_options(model, options)
        self.batches_ahead = BATCHES_AHEAD

    def decode(self, texts: Iterable[str], progress: bool = False) -> Iterator[list[Hypothesis]]:
        """Yields each text's hypotheses, in the order of the texts; an empty text gives an empty hypothesis."""
        texts = iter(texts)
        with tqdm(desc="Decoding", unit=" texts", disable=None if progress else True) as bar:
            while window := list(islice(texts, self.batch_size * self.batches_ahead)):
                yield from self.decode_window(window, bar)

    def decode_window(self, texts: list[str], bar: tqdm) -> list[list[Hypothesis]]:
        """Decodes a few batches, the longest texts first, and returns the hypotheses in the order of the texts."""
        nothing = Hypothesis("", 0.0 if self.scores else None)
        results = [[nothing] * self.options.get("num_return_sequences", 1) for _ in texts]
        encoded = {i: self.encode(text) for i, text in enumerate(texts) if text.strip()}
        bar.update(len(texts) - len(encoded))
        order = sorted(encoded, key=lambda i: len(encoded[i]), reverse=True)
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            for i, hypotheses in zip(chosen, self.generate([encoded[i] for i in chosen]), strict=True):
                results[i] = hypotheses
            bar.update(len(chosen))
        return results

    def encode(self, text: str) -> list[int]:
        """Returns a text's tokens, cut to the limit."""
        (encoded,) = self.encoder([text])
        self.truncated += encoded.overlong
        return encoded.ids

    @torch.inference_mode()
    def generate(self, sources: list[list[int]]) -> list[list[Hypothesis]]:
        """Decodes one batch."""
        batch = self.source.pad({"input_ids": sources}, padding_side="right", return_tensors="pt").to(
            self.model.device
        )
        output = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            return_dict_in_generate=True,
            output_logits=self.scores,
            **self.options,
        )
        texts = self.target.batch_decode(output.sequences, skip_special_tokens=True)
        scores = self.log_probabilities(output) if self.scores else [None] * len(texts)
        hypotheses = [Hypothesis(*pair) for pair in zip(texts, scores, strict=True)]
        width = len(hypotheses) // len(sources)
        return [hypotheses[start : start + width] for start in range(0, len(hypotheses), width)]

    def log_probabilities(self, output) -> list[float]:
        """Returns the log-probability of each sequence, up to and including its end token."""
        beams = getattr(output, "beam_indices", None)
        steps = self.model.compute_transition_scores(output.sequences, output.logits, beams, normalize_logits=True)
        tokens = output.sequences[:, -steps.shape[1] :]
        ends = torch.isin(tokens, torch.tensor(self.target.eos_token_id, device=tokens.device))
        after_end = ends.cumsum(dim=-1) - ends.long() > 0  # padding is not part of the text
        return steps.masked_fill(after_end, 0.0).sum(dim=-1).tolist()


def check_options(model: PreTrainedModel, options: dict) -> None:
    """
    Checks the values of `generate()`'s options as the library does, before anything is decoded.

    Raises:
        ArgumentError: It refuses one. Names that it does not know are left to `generate()`.
    """
    config = copy.deepcopy(model.generation_config)
    with blame("decoding", ValueError, TypeError):
        config.update(**options)
        for name, warper in WARPERS.items() if config.do_sample else ():
            value = getattr(config, name)
            # 0 switches `top_k` off, and 1 the others.
            if value not in (None, 1) and (name, value) != ("top_k", 0):
                warper(value)


def longest_target(config: GenerationConfig) -> int | None:
    """Returns the most tokens that a generation config lets a model write; None if it leaves that to the library."""
    if config.max_new_tokens is not None:
        return config.max_new_tokens
    return None if config.max_length is None else config.max_length - 1  # which counts the start token
