# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers by which sacreBLEU splits texts into words: that of their script, or one that is given."""

from collections.abc import Iterable

from sacrebleu.metrics import BLEU

from ..data.scripts import TOKENIZERS, Script, script_of
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


def describe_tokenizer(given: str | None, script: Script | None) -> list[str]:
    """Returns a sentence on a tokenizer that the script has chosen, or that was given and cannot split the script."""
    if script is None:
        return []
    option, own = "--sacrebleu_tokenize", TOKENIZERS[script.language]
    if given is None and script.is_main:
        return [f"{share_of(script)}, so words are split by {own}; {option} chooses another"]
    if (given or DEFAULT) in BY_SPACES and not script.has_spaces:
        other = "" if own == "char" else f" {own} or"
        return [f"{share_of(script)}, whose words {given or DEFAULT} does not split: consider {option}{other} char"]
    return []


def describe_spaces(script: Script | None) -> list[str]:
    """Returns a sentence for a metric of words between spaces if the references' script has no such words."""
    if script is None or script.has_spaces:
        return []
    return [f"{share_of(script)}, whose words do not stand between spaces: consider cer"]


def share_of(script: Script) -> str:
    return f"{script.share:.0%} of the references' letters are {script.language}"


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
