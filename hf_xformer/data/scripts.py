# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Scripts whose words do not stand between spaces, and Korean, whose words sacreBLEU splits in a way of its own."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NamedTuple


KANA, HAN, KOREAN = "kana", "han", "Korean"
PATTERNS = {
    KANA: re.compile("[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d]"),
    HAN: re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"),
    KOREAN: re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]"),
    "Thai": re.compile("[\u0e01-\u0e4e]"),
    "Lao": re.compile("[\u0e81-\u0ecd]"),
    "Tibetan": re.compile("[\u0f40-\u0fbc]"),
    "Burmese": re.compile("[\u1000-\u109f]"),
    "Khmer": re.compile("[\u1780-\u17d3]"),
}
NO_LETTER = re.compile(r"[\W\d_]")
# Shares of a script among the letters: texts are in it, or hold so much of it as to say so.
MOST, SOME = 0.3, 0.02
# Japanese has at least this share of kana among its kana and its Chinese characters.
JAPANESE = 0.05
# What sacreBLEU takes for a language; where it has nothing of its own, characters.
TOKENIZERS = dict.fromkeys(("Thai", "Lao", "Tibetan", "Burmese", "Khmer"), "char") | {
    "Chinese": "zh",
    "Japanese": "ja-mecab",
    KOREAN: "ko-mecab",
}


class Script(NamedTuple):
    """A language's script, and its share of the letters of some texts."""

    language: str
    share: float

    @property
    def has_spaces(self) -> bool:
        return self.language == KOREAN

    @property
    def is_main(self) -> bool:
        """Returns whether the texts are in it, rather than hold some of it."""
        return self.share >= MOST


def script_of(texts: Iterable[str]) -> Script | None:
    """Returns the script of this kind that texts hold most of; None if next to nothing."""
    return script_among(Counter(chain.from_iterable(texts)))


def script_among(characters: Mapping[str, int]) -> Script | None:
    """Returns the same as `script_of`, from the number of each character in the texts."""
    counts = dict.fromkeys(PATTERNS, 0)
    letters = 0
    for character, count in characters.items():
        name = None if character.isascii() else name_of(character)
        if name is not None:
            counts[name] += count
        # Vowel signs are no letters to `\w` in all scripts.
        if name is not None or not NO_LETTER.match(character):
            letters += count
    kana, han = counts.pop(KANA), counts.pop(HAN)
    counts["Japanese" if kana > JAPANESE * (kana + han) else "Chinese"] = kana + han
    language = max(counts, key=counts.__getitem__)
    share = counts[language] / max(letters, 1)
    return Script(language, share) if share >= SOME else None


def name_of(character: str) -> str | None:
    """Returns the name of the pattern that a character matches; None if it matches none."""
    return next((name for name, pattern in PATTERNS.items() if pattern.match(character)), None)
