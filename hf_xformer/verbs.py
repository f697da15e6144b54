# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The commands by the names that `hf-xformer` knows them by, and the scripts that are the same."""

import re
from typing import NamedTuple


PROGRAM = "hf-xformer"


class Verb(NamedTuple):
    """A module of `hf_xformer.commands`, the script that runs it too, and what it does."""

    module: str
    script: str
    summary: str


VERBS = {
    "tokenizer": Verb("train_tokenizer", "train_tokenizer", "train a tokenizer on your texts"),
    "train": Verb("train", "train", "train a model, new or pretrained, from a recipe"),
    "generate": Verb("generate", "generate", "decode lines of text"),
    "evaluate": Verb("evaluate", "evaluate", "decode a test set and score it"),
    "info": Verb("info", "info", "say what a checkpoint is, and what is wrong with it"),
    "card": Verb("card", "model_card", "write a run's model card and its pictures"),
    "push": Verb("push", "push_to_hub", "publish a run's folder on the Hub"),
    "convert": Verb("convert", "convert_checkpoint", "make an Xformer of a BART, T5, Marian, ..."),
    "export": Verb("export", "export", "write a checkpoint as a CTranslate2 model"),
    "merge": Verb("merge", "merge_adapter", "put a LoRA adapter into the weights of its model"),
    "average": Verb("average", "average_checkpoints", "average the weights of checkpoints"),
    "distill": Verb("distill", "distill", "write a teacher's outputs as a training set"),
    "estimate": Verb("estimate", "estimate", "say what a training will take, before it is started"),
    "attention": Verb("plot_attention", "plot_attention", "draw where a model looks while it decodes"),
}
BY_SCRIPT = {verb.script: name for name, verb in VERBS.items()}


def as_typed(program: str, text: str) -> str:
    """A text that speaks of scripts, in the words of who came by `hf-xformer`, whose machine may not have them."""
    if not program.startswith(PROGRAM):
        return text
    named = "|".join(map(re.escape, sorted(BY_SCRIPT, key=len, reverse=True)))
    pattern = re.compile(rf"(?:python )?(?:\.\.\. )?(?:scripts/)?\b({named})\.py\b")
    return pattern.sub(lambda match: f"{PROGRAM} {BY_SCRIPT[match[1]]}", text)
