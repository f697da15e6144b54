# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Statistics of pairs of texts: lengths, unknown tokens, unusual texts.

Everything is counted while the pairs go by, in memory that does not grow with their number. Lengths are exact, since
there are far fewer lengths than pairs.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any

from transformers import PreTrainedTokenizerBase

from .bad_rows import SHORTEST
from .duplicates import Overlap, Repeats, key_of, pairs_of
from .formats import shown
from .pairs import PairTokenizer
from .rows import Row
from .scripts import ScriptCounts
from .text_forms import composed


SIDES = ("source", "target")
PERCENTILES = (1, 25, 50, 75, 90, 99, 99.5, 99.9)
# Different words that are counted of a side: a text has more, a list of symbols has fewer.
MOST_WORDS = 1000
# Different unknown pieces that are counted: a tokenizer of whole words has no limit of them.
MOST_PIECES = 10_000
# More than any text has.
NO_LIMIT = 10**9

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Kinds of texts that are unusual, and no error.
UNUSUAL_TEXT: dict[str, Callable[[str], Any]] = {
    "not in Unicode's normal form C": lambda text: text != composed(text),
    "white space at an end": lambda text: text != text.strip(),
    "a line break, tab or other control character": CONTROL.search,
    "a byte order mark, as files that were joined have inside": lambda text: "\ufeff" in text,
    "words cut by subword-nmt, to be joined": re.compile("@@( |$)").search,
    "U+FFFD, which stands for a character that was lost": lambda text: "\ufffd" in text,
}


class Lengths:
    """The distribution of whole numbers, exact: how often there is each."""

    def __init__(self, values: Iterable[int] = ()):
        self.counts: Counter[int] = Counter(values)

    def add(self, value: int) -> None:
        self.counts[value] += 1

    @property
    def total(self) -> int:
        """Returns how many numbers there are."""
        return self.counts.total()

    @property
    def largest(self) -> int:
        return max(self.counts, default=0)

    @property
    def mean(self) -> float:
        return sum(value * count for value, count in self.counts.items()) / max(1, self.total)

    def percentile(self, percent: float) -> int:
        """Returns the smallest of the numbers that `percent` of all do not exceed."""
        needed = math.ceil(Fraction(str(percent)) * self.total / 100)
        reached = 0
        for value, count in sorted(self.counts.items()):
            reached += count
            if reached >= needed:
                return value
        return 0

    def above(self, limit: int) -> int:
        """Returns how many numbers exceed a limit."""
        return sum(count for value, count in self.counts.items() if value > limit)

    def bins(self, most: int) -> list[tuple[int, int, int]]:
        """
        Returns a histogram, `(first, last, count)` for at most so many bins of one width.

        The width is 1, 2 or 5 times a power of ten. The last bin may be wider: it has the largest of the numbers, at
        most one in a thousand.
        """
        if not self.counts:
            return []
        smallest, usual = min(self.counts), self.percentile(99.9)
        widths = (step * 10**power for power in range(20) for step in (1, 2, 5))
        width = next(each for each in widths if usual // each - smallest // each + 1 < most)
        first, last = smallest // width, min(usual // width + 1, self.largest // width)
        counted: Counter[int] = Counter()
        for value, count in self.counts.items():
            counted[min(value // width, last)] += count
        ends = {last: max(self.largest, (last + 1) * width - 1)}
        return [(n * width, ends.get(n, (n + 1) * width - 1), counted[n]) for n in range(first, last + 1)]

    def report(self) -> dict[str, Any]:
        return {
            "mean": round(self.mean, 2),
            "percentiles": {f"{percent:g}": self.percentile(percent) for percent in PERCENTILES},
            "max": self.largest,
            "histogram": [dict(zip(("from", "to", "count"), each, strict=True)) for each in self.bins(50)],
        }


class Unusual:
    """Counts by kind, each with its first example."""

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, kind: str, example: Any) -> None:
        self.counts[kind] += 1
        if kind not in self.examples:
            self.examples[kind] = shown(example)

    def report(self) -> list[dict[str, Any]]:
        return [
            {"kind": kind, "count": count, "example": self.examples[kind]} for kind, count in self.counts.most_common()
        ]


class Unknown:
    """Unknown tokens of one side, and the characters that a tokenizer does not know."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        specials = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
        # Where a tokenizer knows every byte, its unknown token is another one's name.
        self.id = None if tokenizer.unk_token_id in specials else tokenizer.unk_token_id
        self.tokens = self.unknown = self.texts = 0
        self.pieces: Counter[str] = Counter()
        self.characters: dict[str, bool] = {}

    def add(self, text: str, ids: list[int]) -> None:
        """Counts a text, of which `ids` are the tokens."""
        self.tokens += len(ids)
        count = ids.count(self.id)  # type: ignore[arg-type]  # None is in no list
        self.unknown += count
        if count:
            self.texts += 1
            for piece in self.pieces_of(text):
                if piece in self.pieces or len(self.pieces) < MOST_PIECES:
                    self.pieces[piece] += 1

    def pieces_of(self, text: str) -> Iterator[str]:
        """Yields the characters of a text that are unknown; for an unknown word of known characters, the word."""
        spans = [(0, len(text))]
        if self.tokenizer.is_fast:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            tokens = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            spans = [span for token, span in tokens if token == self.id]
        for start, end in spans:
            unknown = list(filter(self.is_unknown, text[start:end]))
            yield from unknown or [text[start:end]]

    def is_unknown(self, character: str) -> bool:
        if character not in self.characters:
            ids = self.tokenizer(character, add_special_tokens=False, verbose=False)["input_ids"]
            self.characters[character] = self.id in ids and not character.isspace()
        return self.characters[character]

    def report(self) -> dict[str, Any]:
        return {
            "count": self.unknown,
            "percent": round(100 * self.unknown / max(1, self.tokens), 4),
            "texts": self.texts,
            "most_frequent": dict(self.pieces.most_common(20)),
        }


class Side:
    """Statistics of the sources or of the targets."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None):
        self.lengths = {"characters": Lengths(), "words": Lengths()}
        self.unknown = None
        if tokenizer is not None:
            self.lengths["tokens"], self.unknown = Lengths(), Unknown(tokenizer)
        self.characters: set[str] = set()
        self.scripts = ScriptCounts()
        self.words: Counter[str] | None = Counter()  # None if there are more than `MOST_WORDS`

    def add(self, text: str, form: str) -> None:
        """Counts a text, of which `form` is the normal form C, as tokenizers see it."""
        words = form.split()
        self.lengths["characters"].add(len(text))
        self.lengths["words"].add(len(words))
        self.characters.update(form)
        self.scripts.add(form)
        if self.words is not None:
            self.words.update(words)
            if len(self.words) > MOST_WORDS:
                self.words = None

    def add_tokens(self, text: str, ids: list[int]) -> None:
        self.lengths["tokens"].add(len(ids))
        if self.unknown is not None:
            self.unknown.add(text, ids)

    def script(self) -> str | None:
        """Returns the language whose script the texts are in, if its words do not simply stand between spaces."""
        script = self.scripts.script()
        return script.language if script is not None and script.is_main else None

    def report(self) -> dict[str, Any]:
        lengths: dict[str, Any] = {unit: each.report() for unit, each in self.lengths.items()}
        unknown = {} if self.unknown is None else {"unknown_tokens": self.unknown.report()}
        counts = {
            "distinct_characters": len(self.characters),
            "distinct_words": None if self.words is None else len(self.words),
            "script": self.script(),
        }
        return lengths | unknown | counts


class Statistics:
    """
    Statistics of rows, added a batch at a time; each reference of a row is a pair of its own, as in training.

    Args:
        source_tokenizer, target_tokenizer: Both or none.
        overlap: The other file, if there is one.
        one_column: Whether rows have sources alone, as plain text for an objective.
    """

    def __init__(
        self,
        source_tokenizer: PreTrainedTokenizerBase | None = None,
        target_tokenizer: PreTrainedTokenizerBase | None = None,
        overlap: Overlap | None = None,
        one_column: bool = False,
    ):
        self.one_column = one_column
        self.tokenize = None
        self.specials: re.Pattern | None = None
        if source_tokenizer is not None and target_tokenizer is not None:
            self.tokenize = PairTokenizer(source_tokenizer, target_tokenizer, NO_LIMIT, NO_LIMIT)
            spelt = {*source_tokenizer.all_special_tokens, *target_tokenizer.all_special_tokens}
            self.specials = (
                re.compile("|".join(map(re.escape, sorted(spelt, key=len, reverse=True)))) if spelt else None
            )
        self.sides = {"source": Side(source_tokenizer)} | ({} if one_column else {"target": Side(target_tokenizer)})
        self.rows = self.pairs = self.several_references = 0
        self.ratios = Lengths()  # of lengths as --max_length_ratio has them, in tenths, rounded up
        self.unusual, self.repeats, self.overlap = Unusual(), Repeats(), overlap

    def add(self, rows: list[Row]) -> None:
        self.rows += len(rows)
        self.several_references += sum(len(row.get("target", ())) > 1 for row in rows)
        pairs = [pair for row in rows for pair in pairs_of(row)]
        for source, target in pairs:
            self.add_pair(source, target)
        if self.tokenize is not None and pairs:
            sources, targets = map(list, zip(*pairs, strict=True))
            encoded = self.tokenize({"source": sources, "target": targets})
            columns = ((sources, encoded["input_ids"]), (targets, encoded["labels"]))
            for side, (texts, tokens) in zip(self.sides.values(), columns, strict=False):
                for text, ids in zip(texts, tokens, strict=True):
                    side.add_tokens(text, ids)

    def add_pair(self, source: str, target: str) -> None:
        self.pairs += 1
        forms = [composed(text) for text in (source, target)]
        keys = [key_of(form) for form in forms]
        self.repeats.add(source, target, *keys)
        if self.overlap is not None:
            self.overlap.look_up(source, target, *keys)
        if not self.one_column:
            shorter, longer = sorted(max(len(text.strip()), SHORTEST) for text in (source, target))
            self.ratios.add(-(-10 * longer // shorter))
            if source == target:
                self.unusual.add("targets: equal to the source", source)
        for side, text, form in zip(self.sides, (source, target), forms, strict=False):
            self.sides[side].add(text, form)
            for kind, is_unusual in UNUSUAL_TEXT.items():
                if is_unusual(text):
                    self.unusual.add(f"{side}s: {kind}", text)
            if self.specials is not None and (found := self.specials.search(text)):
                self.unusual.add(f"{side}s: a special token of the tokenizer, such as {found[0]}, in the text", text)

    def report(self) -> dict[str, Any]:
        """Returns everything as JSON."""
        sides = {side: each.report() for side, each in self.sides.items()}
        unusual = self.unusual.report()
        if self.one_column:
            return {"rows": self.rows, **sides, "unusual": unusual, "duplicates": self.repeats.report_of_texts()}
        ratios = {f"{percent:g}": self.ratios.percentile(percent) / 10 for percent in PERCENTILES}
        return {
            "rows": self.rows,
            "rows_with_several_references": self.several_references,
            "pairs": self.pairs,
            **sides,
            "length_ratio": {"percentiles": ratios, "max": self.ratios.largest / 10},
            "unusual": unusual,
            "duplicates": self.repeats.report(),
        }
