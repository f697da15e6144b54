# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Vocabularies: checks that a model and its tokenizers fit each other, and makes a new configuration fit them."""

from collections.abc import Sequence
from typing import Literal

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..data.encoding import targets_own_vocabulary
from ..data.probing import check_ids
from ..errors import ArgumentError, blame
from ..files import TARGET_TOKENIZER


# With these a configuration refuses a value of a field.
CONFIG_ERRORS = (StrictDataclassError, ValueError, TypeError, KeyError, NotImplementedError)
SIDES: tuple[Literal["source", "target"], ...] = ("source", "target")
SPECIAL_TOKENS = ("pad_token_id", "eos_token_id", "bos_token_id")


def check_sides(config: PreTrainedConfig, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase) -> None:
    """
    Checks that a model with two vocabularies has two tokenizers.

    Raises:
        ArgumentError: There is one tokenizer for both: it would read the model's outputs as other texts.
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
    Checks that a model's tokenizers fit its vocabularies.

    Raises:
        ArgumentError: They have more tokens than the model, ids that it lacks, two tokens with one id, or other ids
            for padding, end and start, or the target's tokenizer is missing.
    """
    check_sides(config, source, target)
    source_field = "encoder_vocab_size" if getattr(config, "encoder_vocab_size", None) else "vocab_size"
    for side, tokenizer, field in (("source", source, source_field), ("target", target, "vocab_size")):
        own = targets_own_vocabulary(tokenizer) if side == "target" else None
        vocabulary, size = own or tokenizer.get_vocab(), len(own or tokenizer)
        if size > getattr(config, field):
            raise ArgumentError(
                f"the {side} tokenizer {tokenizer.name_or_path} has {size} tokens, "
                f"more than the model's `{field}` of {getattr(config, field)}"
            )
        check_ids(tokenizer, vocabulary, getattr(config, field), side, field)
        # A source tokenizer's start token counts too, because the Trainer writes it over the model's.
        for name in SPECIAL_TOKENS[:2] if side == "target" or source.bos_token_id is None else SPECIAL_TOKENS:
            expected = getattr(config, name, None)
            if getattr(tokenizer, name) not in (expected if isinstance(expected, list) else [expected]):
                remedy = (
                    "" if expected is not None else f"; where it needs none: tokenizer.{name[:-3]} = None, and save it"
                )
                raise ArgumentError(
                    f"the {side} tokenizer {tokenizer.name_or_path} has `{name}` {getattr(tokenizer, name)}, "
                    f"the model has {expected}{remedy}"
                )


def check_same_tokens(own: PreTrainedTokenizerBase, given: PreTrainedTokenizerBase, where: str) -> None:
    """
    Checks that another tokenizer keeps the ids of a model's own tokens. It may add tokens.

    Args:
        where: The other tokenizer, as the user named it, for the message.

    Raises:
        ArgumentError: It does not, so that the model's embedding would mean nothing.
    """
    if not own.get_vocab().items() <= given.get_vocab().items():
        raise ArgumentError(f"{where}: other tokens than those of {own.name_or_path}")


def other_tokens(
    these: Sequence[PreTrainedTokenizerBase], those: Sequence[PreTrainedTokenizerBase]
) -> Literal["source", "target", ""]:
    """Returns the first side on which two models, by their tokenizers of both sides, have other tokens; "" if none."""
    for side, one, other in zip(SIDES, these, those, strict=True):
        if one.get_vocab() != other.get_vocab():
            return side
    return ""


def check_decoder_start(config: PreTrainedConfig) -> None:
    """
    Checks that the decoder's input can be made from targets.

    Raises:
        ArgumentError: The configuration lacks the start or the padding token.
    """
    for name in ("decoder_start_token_id", "pad_token_id"):
        if getattr(config, name, None) is None:
            raise ArgumentError(
                f"{config.name_or_path}: `{name}` is null: the decoder's input cannot be made from targets; set it in "
                "config.json"
            )


def sizes_of(source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase) -> dict[str, int | None]:
    """Returns the fields of a new model that hold the sizes of its tokenizers' vocabularies."""
    return {"vocab_size": len(target), "encoder_vocab_size": None if source is target else len(source)}


def fit_vocabulary(
    config: PreTrainedConfig, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase, overrides: dict
) -> PreTrainedConfig:
    """
    Returns a new model's configuration with the tokenizers' vocabulary sizes and special tokens.

    With two tokenizers the source has a vocabulary and an embedding of its own.

    Args:
        overrides: The fields of `--config_overrides`, which take precedence.

    Raises:
        ArgumentError: A value is refused.
    """
    tokens = {name: getattr(target, name) for name in SPECIAL_TOKENS if getattr(target, name) is not None}
    start = tokens.get("bos_token_id", tokens.get("pad_token_id"))
    fitted = {**tokens, "decoder_start_token_id": start, **sizes_of(source, target), **overrides}
    with blame("--config_overrides", *CONFIG_ERRORS):
        return type(config)(**{**config.to_diff_dict(), **fitted})
