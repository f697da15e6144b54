# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Languages of multilingual tokenizers (mBART, M2M100, NLLB)."""

from transformers import GenerationConfig, MBartTokenizer, PreTrainedTokenizerBase

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
    if isinstance(tokenizer, MBartTokenizer):
        return {"decoder_start_token_id": language}
    return {"forced_bos_token_id": language}  # in later models it follows the start token


def languages_of(tokenizer: PreTrainedTokenizerBase | None) -> set[str]:
    """Returns the languages that a multilingual tokenizer marks its texts with; none for other tokenizers."""
    if tokenizer is None or not hasattr(tokenizer, "tgt_lang"):
        return set()
    named = {getattr(tokenizer, f"{role}_token") for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")}
    return set(getattr(tokenizer, "lang_code_to_token", ())) or {*tokenizer.all_special_tokens} - named


def own_language(tokenizer: PreTrainedTokenizerBase, config: GenerationConfig) -> dict[str, int]:
    """
    Returns the option of `generate()` that has texts begin with the language that a tokenizer itself gives to targets;
    none where a config has it already, or the tokenizer gives none.
    """
    language = getattr(tokenizer, "tgt_lang", None)
    if language not in languages_of(tokenizer):
        return {}
    options = decoding_options(tokenizer, token_of(tokenizer, language))
    return {name: token for name, token in options.items() if getattr(config, name, None) != token}


def is_told(tokenizer: PreTrainedTokenizerBase, config: GenerationConfig) -> bool:
    """Tells whether a config says with which language texts begin, where a tokenizer has several."""
    known = {token_of(tokenizer, language) for language in languages_of(tokenizer)}
    return not known or any(getattr(config, name, None) in known for name in decoding_options(tokenizer, 0))
