# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Languages of multilingual tokenizers (mBART, PLBart, M2M100, NLLB)."""

from transformers import MBartTokenizer, PLBartTokenizer, PreTrainedTokenizerBase

from ..errors import ArgumentError


def language_id(tokenizer: PreTrainedTokenizerBase | None, option: str, language: str) -> int:
    """Sets the tokenizer's `src_lang` or `tgt_lang` and returns the id of that language's token."""
    codes = getattr(tokenizer, "lang_code_to_token", {})  # M2M100's are not special tokens
    if tokenizer is None or language not in languages_of(tokenizer):
        raise ArgumentError(f"--{option} {language}: the tokenizer has no such language")
    setattr(tokenizer, option, language)
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
