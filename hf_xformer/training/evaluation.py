# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics of the text that a model generates during evaluation, for the Trainer's `compute_metrics`."""

import numpy as np
from transformers import EvalPrediction, PreTrainedTokenizerBase

from ..decoding.metrics import compute_metrics


class GenerationMetrics:
    """
    The Trainer's `compute_metrics`: metrics of generated text against the references as they stand in the file.

    Args:
        names: Keys of `METRICS`.
        tokenizer: The target's.
        references: Of every row of the evaluation set, in its order.
    """

    def __init__(self, names: list[str], tokenizer: PreTrainedTokenizerBase, references: list[list[str]]):
        self.names, self.tokenizer, self.references = names, tokenizer, references

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        # Several processes fill their last batch with repeated rows, which come after the last one.
        predictions = np.asarray(prediction.predictions)[: len(self.references)]
        # -100 fills predictions of unequal lengths, and is no token.
        tokens = np.where(predictions == -100, self.tokenizer.pad_token_id, predictions)
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        scores = compute_metrics(self.names, texts, self.references)
        return {name: score for name, score in scores.items() if not isinstance(score, str)}
