# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Scripts whose words do not stand between spaces, and sacreBLEU's tokenizers that split them."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from sacrebleu.metrics import BLEU

from ..errors import ArgumentError, first_line


KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d]")
HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
UNSPACED = {
    "Thai": re.compile("[\u0e01-\u0e4e]"),
    "Lao": re.compile("[\u0e81-\u0ecd]"),
    "Tibetan": re.compile("[\u0f40-\u0fbc]"),
    "Burmese": re.compile("[\u1000-\u109f]"),
    "Khmer": re.compile("[\u1780-\u17d3]"),
}
SPACE = re.compile(r"[\W\d_]+")
MOST, SOME = 0.3, 0.02  # shares of a script among the letters: texts are in it, or hold so much of it as to say so
# What sacreBLEU takes for a language; where it has nothing of its own, characters.
TOKENIZERS = {"Chinese": "zh", "Japanese": "ja-mecab", "Korean": "ko-mecab", **dict.fromkeys(UNSPACED, "char")}
DEFAULT = "13a"
# Tokenizers that split words only where there are spaces or punctuation.
BY_SPACES = ("13a", "intl", "none")
PACKAGES = {
    "ja-mecab": "pip install 'hf-xformer[ja]'",
    "ko-mecab": "pip install 'hf-xformer[ko]'",
    **dict.fromkeys(("spm", "flores101", "flores200", "spBLEU-1K"), "pip install 'hf-xformer[sentencepiece]'"),
}


class Script(NamedTuple):
    """A language's script, and its share of the letters of some texts."""

    language: str
    share: float

    @property
    def has_spaces(self) -> bool:
        return self.language == "Korean"


def script_of(texts: Iterable[str]) -> Script | None:
    """Returns the script without simple words between spaces that texts hold most of; None if next to nothing."""
    joined = "\n".join(texts)
    kana, han = len(KANA.findall(joined)), len(HAN.findall(joined))
    counts = {name: len(pattern.findall(joined)) for name, pattern in UNSPACED.items()}
    counts |= {"Japanese" if kana > 0.05 * (kana + han) else "Chinese": kana + han}
    counts |= {"Korean": len(HANGUL.findall(joined))}
    language = max(counts, key=counts.__getitem__)
    # Vowel signs are no letters to `\w` in all scripts.
    letters = max(len(SPACE.sub("", joined)), counts[language], 1)
    share = counts[language] / letters
    return Script(language, share) if share >= SOME else None


def tokenizer_for(texts: Iterable[str]) -> str:
    """Returns the name of sacreBLEU's tokenizer for the script of the texts."""
    script = script_of(texts)
    return DEFAULT if script is None or script.share < MOST else TOKENIZERS[script.language]


def describe_tokenizer(given: str | None, texts: Iterable[str]) -> str | None:
    """Returns a sentence on the tokenizer if the texts' script chose it, or one that was given does not split it."""
    script = script_of(texts)
    if script is None:
        return None
    option = "--sacrebleu_tokenize"
    own = TOKENIZERS[script.language]
    share = f"{script.share:.0%} of the references' letters are {script.language}"
    if given is None and script.share >= MOST:
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
