# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""How sacreBLEU splits texts into words: by the tokenizer of their script, or by one that is given."""

from collections.abc import Iterable

from sacrebleu.metrics import BLEU

from ..data.scripts import TOKENIZERS, script_of
from ..errors import ArgumentError, first_line


DEFAULT = "13a"
# Tokenizers that split words only where there are spaces or punctuation.
BY_SPACES = ("13a", "intl", "none")
PACKAGES = {
    "ja-mecab": "pip install 'hf-xformer[ja]'",
    "ko-mecab": "pip install 'hf-xformer[ko]'",
    **dict.fromkeys(("spm", "flores101", "flores200", "spBLEU-1K"), "pip install 'hf-xformer[sentencepiece]'"),
}


def tokenizer_for(texts: Iterable[str]) -> str:
    """Returns the name of sacreBLEU's tokenizer for the script of the texts."""
    script = script_of(texts)
    return DEFAULT if script is None or not script.is_main else TOKENIZERS[script.language]


def describe_tokenizer(given: str | None, texts: Iterable[str]) -> str | None:
    """Returns a sentence on the tokenizer if the texts' script chose it, or one that was given does not split it."""
    script = script_of(texts)
    if script is None:
        return None
    option = "--sacrebleu_tokenize"
    own = TOKENIZERS[script.language]
    share = f"{script.share:.0%} of the references' letters are {script.language}"
    if given is None and script.is_main:
        return f"sacrebleu: {share}, so words are split by {own}; {option} chooses another"
    if (given or DEFAULT) in BY_SPACES and not script.has_spaces:
        other = "" if own == "char" else f" {own} or"
        return f"sacrebleu: {share}, whose words {given or DEFAULT} does not split: consider {option}{other} char"
    return None


def check_tokenizer(name: str, why: str) -> None:
    """
    Makes a tokenizer of sacreBLEU's once, which downloads a model if it needs one.

    Args:
        why: What the message begins with: who chose it.

    Raises:
        ArgumentError: What it needs is not there.
    """
    try:
        BLEU(tokenize=name)
    except (ImportError, RuntimeError, OSError, AssertionError, SystemExit) as error:
        missing = isinstance(error, ImportError) or "extra dependencies" in str(error)
        remedy = f"{PACKAGES[name]}, or give" if missing and name in PACKAGES else "give"
        said = "it needs packages that are not installed" if missing else first_line(error)
        raise ArgumentError(f"{why}: {said}: {remedy} --sacrebleu_tokenize char") from error
