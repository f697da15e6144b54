# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Round trips of texts through a tokenizer: encoded and decoded, in which ways they come back as others."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from .bad_rows import listed
from .encoding import SpeltOut, TextEncoder
from .text_forms import compatible, composed, one_space_apart, without_accents, without_spaces


# Ways in which a text comes back as another, in the order in which they are tried, and the form that both then share.
ONE_FORM = "in another Unicode form"
ONE_SPACE = "with other spaces between the same words"
OTHER_SPACES = "with other spaces"
COMPATIBLE = "with compatible characters"
LOWER_CASE = "in lower case"
FORMS: dict[str, Callable[[str], str]] = {
    ONE_SPACE: one_space_apart,
    OTHER_SPACES: without_spaces,
    COMPATIBLE: compatible,
    LOWER_CASE: lambda text: compatible(text.lower()),
    "without accents": without_accents,
    "in lower case without accents": lambda text: without_accents(text.lower()),
}
# A prediction can still equal a target that comes back in one of these ways, for some metrics; in any other it cannot.
EQUAL_TO_SOME = {
    ONE_FORM: "metrics compare in one form, unless --unicode_form none is given",
    ONE_SPACE: "metrics of words and symbols can take a prediction for equal, exact_match never does",
    OTHER_SPACES: "metrics that look at spaces never take a prediction for equal",
    LOWER_CASE: "no metric but ter can take a prediction for equal",
    COMPATIBLE: "a prediction can be equal with --unicode_form NFKC only",
}


@dataclass(frozen=True)
class RoundTrip:
    """
    Texts after a round trip.

    Args:
        total: Number of texts.
        ways: Number of those that come back as others, by the way in which they do.
        first: The first of them, and what it comes back as; None if all come back as they were.
    """

    total: int
    ways: Counter[str]
    first: tuple[str, str] | None

    def __str__(self) -> str:
        count = sum(self.ways.values())
        if self.first is None:
            return f"all of {self.total:,} texts come back when decoded"
        ways = listed(dict(self.ways.most_common()))
        text, back = map(quoted, self.first)
        return f"{count:,} of {self.total:,} texts come back as others when decoded ({ways}), first {text} as {back}"


def round_trip(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], target: bool = True) -> RoundTrip:
    """Encodes and decodes texts, and counts which come back as others."""
    encode = TextEncoder(tokenizer, target=target)
    encoded = encode(texts)
    decoded = tokenizer.batch_decode([each.ids for each in encoded], skip_special_tokens=True) if encoded else []
    ways: Counter[str] = Counter()
    first = None
    for text, back, each in zip(texts, decoded, encoded, strict=True):
        if text == back:
            continue
        lost = each.spelt_out == SpeltOut.AS_TOKENS
        unknown = encode.unknown is not None and encode.unknown in encode.frame.inside(each.ids)
        ways["without their special tokens" if lost else way(text, back, unknown)] += 1
        first = first or (text, back)
    return RoundTrip(len(texts), ways, first)


def say_round_trip(
    name: str, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], say: Callable, target: bool = True
) -> None:
    """
    Says how many texts come back as others, if any do.

    Args:
        name: The tokenizer's, for the message.
        target: Whether targets are among the texts; then it is said too what metrics make of such.
    """
    found = round_trip(tokenizer, texts, target)
    if found.first is not None:
        say(f"{name}: {found}" + (f"; {harm(found.ways)}" if target else ""))


def way(text: str, back: str, unknown: bool) -> str:
    """Returns in what a text differs from what it comes back as: the first of these that explains it all."""
    if composed(text) == composed(back):
        return ONE_FORM
    if unknown:
        return "with unknown tokens"
    return next((name for name, form in FORMS.items() if form(text) == form(back)), "in other words")


def harm(ways: Iterable[str]) -> str:
    """Returns what metrics make of targets that come back in some ways."""
    ways = list(ways)
    said = [(each, EQUAL_TO_SOME.get(each, "no prediction can equal these")) for each in ways]
    return "; ".join(what if len({what for _, what in said}) == 1 else f"{each}: {what}" for each, what in said)


def quoted(text: str) -> str:
    """Returns the beginning of a text for a message, with code points where letters would look alike."""
    combining = any(map(unicodedata.combining, text)) or composed(text) != text
    return ascii(text[:60]) if combining else repr(text[:60])
