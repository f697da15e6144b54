# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The text that a model generates during evaluation: how, and its metrics for the Trainer's `compute_metrics`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from transformers import EvalPrediction, PreTrainedTokenizerBase, Seq2SeqTrainer, Seq2SeqTrainingArguments

from ..decoding.metrics import compute_metrics


# Fields of a generation config by which an evaluation would fail, or score other texts than one of each source, by
# chance or of another length than the run's; and the value that does neither.
EVALUATED = {
    "num_return_sequences": 1,
    "return_dict_in_generate": None,
    **dict.fromkeys(("output_scores", "output_logits", "output_attentions", "output_hidden_states")),
    **dict.fromkeys(("max_new_tokens", "max_time", "stop_strings")),
    "do_sample": False,
    # Without sampling these do nothing, and a checkpoint that holds them cannot be saved.
    **dict.fromkeys(("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")),
}


def fit_generation(model: Any, training_args: Seq2SeqTrainingArguments, max_target_length: int, say: Callable) -> None:
    """
    Gives a model the generation config that a run evaluates with, and saves: `--generation_config` or its own, of the
    run's length, and without fields that an evaluation cannot have, which are said.
    """
    if training_args.generation_config is not None:
        model.generation_config = Seq2SeqTrainer.load_generation_config(training_args.generation_config)
    config = model.generation_config
    values = {name: getattr(config, name, None) for name in EVALUATED}
    changed = {name: was for name, was in values.items() if was not in (None, False, EVALUATED[name])}
    for name in changed:
        setattr(config, name, EVALUATED[name])
    if changed:
        named = ", ".join(f"{name}={was!r}" for name, was in changed.items())
        say(f"an evaluation scores one text of each source, by search: the generation config's {named} are left out")
    config.max_length = training_args.generation_max_length or max_target_length + 1


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
