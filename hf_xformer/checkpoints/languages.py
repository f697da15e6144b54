# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Languages of multilingual tokenizers (mBART, PLBart, M2M100, NLLB)."""

from typing import Any

import torch
from transformers import MBartTokenizer, PLBartTokenizer, PreTrainedTokenizerBase

from ..data.encoding import PLAIN_TEXT, TextEncoder
from ..errors import ArgumentError


def language_id(tokenizer: PreTrainedTokenizerBase | None, option: str, language: str) -> int:
    """Sets the tokenizer's `src_lang` or `tgt_lang` and returns the id of that language's token."""
    if tokenizer is None or language not in languages_of(tokenizer):
        raise ArgumentError(f"--{option} {language}: the tokenizer has no such language")
    setattr(tokenizer, option, language)
    return token_of(tokenizer, language)


def token_of(tokenizer: PreTrainedTokenizerBase, language: str) -> int:
    """Returns the id of a language's token."""
    codes = getattr(tokenizer, "lang_code_to_token", {})  # M2M100's are not special tokens
    return tokenizer.convert_tokens_to_ids(codes.get(language, language))  # type: ignore[return-value]


def decoding_options(tokenizer: PreTrainedTokenizerBase | None, language: int) -> dict[str, int]:
    """Returns the option of `generate()` that has texts begin with a language's token, by its id."""
    if isinstance(tokenizer, MBartTokenizer | PLBartTokenizer):
        return {"decoder_start_token_id": language}
    return {"forced_bos_token_id": language}  # in later models it follows the start token


def languages_of(tokenizer: PreTrainedTokenizerBase | None) -> set[str]:
    """Returns the languages that a multilingual tokenizer marks its texts with; none for other tokenizers."""
    if tokenizer is None or not hasattr(tokenizer, "tgt_lang"):
        return set()
    named = {getattr(tokenizer, f"{role}_token") for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")}
    return set(getattr(tokenizer, "lang_code_to_token", ())) or {*tokenizer.all_special_tokens} - named


def trained_beginning(model: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """
    Returns the options of `generate()` by which texts begin as in training: with the token by which the model starts
    the decoder, and with the language that a multilingual tokenizer puts before targets.

    Args:
        tokenizer: That of the targets.
    """
    (labels,) = TextEncoder(tokenizer, target=True).ids_of([PLAIN_TEXT])
    found: dict[str, int] = {}
    if (shift := getattr(model, "prepare_decoder_input_ids_from_labels", None)) is not None:
        found["decoder_start_token_id"] = int(shift(labels=torch.tensor([labels]))[0, 0])
    language = getattr(tokenizer, "tgt_lang", None)
    if language in languages_of(tokenizer) and token_of(tokenizer, language) == labels[0]:
        found["forced_bos_token_id"] = labels[0]
    return found
