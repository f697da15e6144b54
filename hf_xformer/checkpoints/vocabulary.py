# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Vocabularies: whether a model and its tokenizers fit each other, and making a configuration fit."""

from transformers import (
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from ..errors import ArgumentError
from ..files import TARGET_TOKENIZER


SPECIAL_TOKENS = ("pad_token_id", "eos_token_id", "bos_token_id")


def check_sides(config: PreTrainedConfig, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase) -> None:
    """
    Raises:
        ArgumentError: Source and target have unlike vocabularies, and one tokenizer for both, which would make another
            text of what the model says.
    """
    own, shared = getattr(config, "encoder_vocab_size", None), getattr(config, "vocab_size", None)
    if source is target and own not in (None, shared) and not getattr(source, "separate_vocabs", False):
        raise ArgumentError(
            f"{source.name_or_path}: the model has {own} tokens for sources and {shared} for targets, and there is "
            f"one tokenizer: its {TARGET_TOKENIZER} is missing"
        )


def check_vocabulary(
    config: PreTrainedConfig, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> None:
    """
    Raises:
        ArgumentError: The tokenizers have more tokens than the model, or other ids for padding, end and start, or one
            is not there.
    """
    check_sides(config, source, target)
    source_field = "encoder_vocab_size" if getattr(config, "encoder_vocab_size", None) else "vocab_size"
    for side, tokenizer, field in (("source", source, source_field), ("target", target, "vocab_size")):
        # A Marian tokenizer may hold two vocabularies, and its length is the source's.
        separate = side == "target" and getattr(tokenizer, "separate_vocabs", False)
        size = len(tokenizer.target_encoder) if separate else len(tokenizer)
        if size > getattr(config, field):
            raise ArgumentError(
                f"the {side} tokenizer {tokenizer.name_or_path} has {size} tokens, "
                f"more than the model's `{field}` of {getattr(config, field)}"
            )
        # The Trainer would write a source tokenizer's start token over the model's.
        for name in SPECIAL_TOKENS[:2] if side == "target" or source.bos_token_id is None else SPECIAL_TOKENS:
            expected = getattr(config, name)
            if getattr(tokenizer, name) not in (expected if isinstance(expected, list) else [expected]):
                raise ArgumentError(
                    f"the {side} tokenizer {tokenizer.name_or_path} has `{name}` {getattr(tokenizer, name)}, "
                    f"the model has {expected}"
                )


def fit_vocabulary(
    config: PreTrainedConfig, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase, overrides: dict
) -> PreTrainedConfig:
    """
    A new model's configuration with the tokenizers' vocabulary size and special tokens, `overrides` going first.

    With two tokenizers the source has a vocabulary and an embedding of its own.
    """
    tokens = {name: getattr(target, name) for name in SPECIAL_TOKENS if getattr(target, name) is not None}
    start = tokens.get("bos_token_id", tokens.get("pad_token_id"))
    sizes = {"vocab_size": len(target), "encoder_vocab_size": None if source is target else len(source)}
    fitted = {**tokens, "decoder_start_token_id": start, **sizes, **overrides}
    return type(config)(**{**config.to_diff_dict(), **fitted})
