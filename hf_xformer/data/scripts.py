# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Scripts whose words do not stand between spaces, told from texts, and sacreBLEU's tokenizers that split them."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


KANA, HAN = "Kana", "Han"
SCRIPTS = {
    KANA: re.compile("[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d]"),
    HAN: re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"),
    "Korean": re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]"),
    "Thai": re.compile("[\u0e01-\u0e4e]"),
    "Lao": re.compile("[\u0e81-\u0ecd]"),
    "Tibetan": re.compile("[\u0f40-\u0fbc]"),
    "Burmese": re.compile("[\u1000-\u109f]"),
    "Khmer": re.compile("[\u1780-\u17d3]"),
}
# Vowel signs are no letters to `\w` in all scripts.
NO_LETTERS = re.compile(rf"(?:(?![{''.join(each.pattern.strip('[]') for each in SCRIPTS.values())}])[\W\d_])+")
MOST, SOME = 0.3, 0.02  # shares of a script among the letters: texts are in it, or hold so much of it as to say so
JAPANESE = 0.05  # share of kana among kana and Chinese characters from which on a text is Japanese
# sacreBLEU's tokenizer for a language; where it has none of its own, characters.
TOKENIZERS = {
    "Chinese": "zh",
    "Japanese": "ja-mecab",
    "Korean": "ko-mecab",
    **dict.fromkeys(("Thai", "Lao", "Tibetan", "Burmese", "Khmer"), "char"),
}


class Script(NamedTuple):
    """A language's script, and its share of the letters of some texts."""

    language: str
    share: float

    @property
    def has_spaces(self) -> bool:
        return self.language == "Korean"

    @property
    def is_main(self) -> bool:
        """Returns whether the texts are in it, rather than hold some of it."""
        return self.share >= MOST


class ScriptCounts:
    """Letters of texts by script, counted a text at a time."""

    def __init__(self):
        self.letters = 0
        self.counts: Counter[str] = Counter()

    def add(self, text: str) -> None:
        self.letters += len(NO_LETTERS.sub("", text))
        if not text.isascii():
            for name, pattern in SCRIPTS.items():
                self.counts[name] += len(pattern.findall(text))

    def script(self) -> Script | None:
        """Returns the script without simple words between spaces that texts hold most of; None if next to nothing."""
        counts = dict(self.counts)
        kana, han = counts.pop(KANA, 0), counts.pop(HAN, 0)
        counts["Japanese" if kana > JAPANESE * (kana + han) else "Chinese"] = kana + han
        language = max(counts, key=counts.__getitem__)
        share = counts[language] / max(self.letters, 1)
        return Script(language, share) if share >= SOME else None


def script_of(texts: Iterable[str]) -> Script | None:
    """Returns the script of texts as `ScriptCounts` tells it."""
    counts = ScriptCounts()
    for text in texts:
        counts.add(text)
    return counts.script()
