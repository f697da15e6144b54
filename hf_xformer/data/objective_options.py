# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The objective that a recipe names: its options, checked, and the tokens that it needs of a tokenizer."""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..errors import ArgumentError, did_you_mean, wrong_choice
from .encoding import title_of
from .objectives import Copy, Denoising, Mixture, Objective, PrefixLM, SpanCorruption
from .tokenizers import SENTINEL


# Possible values of options, and their names in messages.
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "noise_density": (lambda value: is_number(value) and 0 < value < 1, "a number between 0 and 1"),
    "mean_span": (lambda value: is_number(value) and value >= 1, "a number of 1 or more"),
    "mask_ratio": (lambda value: is_number(value) and 0 <= value <= 1, "a number in [0, 1]"),
    "deletion": (lambda value: is_number(value) and 0 <= value < 1, "a number in [0, 1)"),
    "permute_sentences": (lambda value: isinstance(value, bool), "true or false"),
    "random_roll": (lambda value: isinstance(value, bool), "true or false"),
    "weight": (lambda value: is_number(value) and 0 < value < math.inf, "a number above 0"),
    "tag": (lambda value: isinstance(value, str) and bool(value), "a token"),
    "sentinels": (lambda value: isinstance(value, str) and "{}" in value, f"a name with {{}}, such as {SENTINEL}"),
}
CLASSES: dict[str, type] = {
    "span_corruption": SpanCorruption,
    "denoising": Denoising,
    "prefix_lm": PrefixLM,
    "copy": Copy,
}
# Names of a class's options, beside tokens that are found in the tokenizer.
TOKENS = {"sentinels", "mask", "ends"}
# UL2's seven denoisers (Tay et al. 2022, table 1), equally likely, with the mode tags of its released model: regular
# (R), sequential (S) and extreme (X).
UL2 = (
    {"name": "span_corruption", "noise_density": 0.15, "mean_span": 3.0, "tag": "[NLU]"},
    {"name": "span_corruption", "noise_density": 0.15, "mean_span": 8.0, "tag": "[NLU]"},
    {"name": "span_corruption", "noise_density": 0.25, "mean_span": math.inf, "tag": "[S2S]"},
    {"name": "span_corruption", "noise_density": 0.5, "mean_span": 3.0, "tag": "[NLG]"},
    {"name": "span_corruption", "noise_density": 0.5, "mean_span": 8.0, "tag": "[NLG]"},
    {"name": "span_corruption", "noise_density": 0.15, "mean_span": 64.0, "tag": "[NLG]"},
    {"name": "span_corruption", "noise_density": 0.5, "mean_span": 64.0, "tag": "[NLG]"},
)
NAMES = (*CLASSES, "ul2", "mixture")
SENTENCE_END = re.compile(r"(.*\w)?[.!?…。！？؟।][.!?…。！？؟।\"'”’»)\]]*")


@dataclass(frozen=True)
class Denoiser:
    """An objective by its name, with its options, and its share and tag in a mixture."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    tag: str | None = None

    @property
    def words(self) -> str:
        """The name with all options, those that have their defaults too unless these are off."""
        defaults = inspect.signature(CLASSES[self.name]).parameters
        values = {option: self.options.get(option, defaults[option].default) for option in options_of(self.name)}
        values = {option: value for option, value in values.items() if value or defaults[option].default is not False}
        values |= {} if self.tag is None else {"tag": self.tag}
        listed = ", ".join(
            f"{option} {value:g}" if is_number(value) else f"{option} {value}" for option, value in values.items()
        )
        return f"{self.name} ({listed})" if listed else self.name


@dataclass(frozen=True)
class ObjectiveOptions:
    """
    The objective of a recipe.

    Args:
        denoisers: What a mixture draws from; one for any other.
        sentinels: Names of sentinels, a number in place of `{}`.
        needs_tags: Whether a tag that the tokenizer lacks is an error; UL2's are left out.
    """

    name: str
    denoisers: tuple[Denoiser, ...]
    sentinels: str = SENTINEL
    needs_tags: bool = True

    @property
    def words(self) -> str:
        """All that decides the pairs, the same however it was written in a recipe."""
        found = self.name
        if self.name == "mixture":
            found = f"{self.name} of " + ", ".join(f"{each.weight:g} x {each.words}" for each in self.denoisers)
        elif self.name != "ul2":
            found = self.denoisers[0].words
        return found if self.sentinels == SENTINEL else f"{found}, sentinels {self.sentinels}"


def read_objective(given: str | Mapping[str, Any]) -> ObjectiveOptions:
    """
    Reads the option `objective`: a name, or a mapping with a `name` and options.

    Raises:
        ArgumentError: There is no such objective or option, or a value that it cannot have.
    """
    options: dict[str, Any] = {"name": given} if isinstance(given, str) else dict(given)
    found = read_denoisers(options)
    if "sentinels" in options and all(each.name != "span_corruption" for each in found.denoisers):
        raise ArgumentError(f"--objective {found.name}: sentinels are of span_corruption alone: leave them out")
    return found


def read_denoisers(given: Mapping[str, Any]) -> ObjectiveOptions:
    """Reads the option `objective` that is a mapping; raises ArgumentError as `read_objective` does."""
    options = dict(given)
    name = options.get("name")
    if not isinstance(name, str) or name not in NAMES:
        raise ArgumentError(f"--objective: name {wrong_choice(name, NAMES)}")
    sentinels = options.pop("sentinels", SENTINEL)
    check("sentinels", sentinels, f"--objective {name}")
    if name == "ul2":
        refuse_unknown(options, (), "--objective ul2")
        return ObjectiveOptions(name, tuple(map(read_denoiser, UL2)), sentinels, needs_tags=False)
    if name != "mixture":
        refuse_unknown(options, options_of(name), f"--objective {name}")
        return ObjectiveOptions(name, (read_denoiser(options),), sentinels)
    refuse_unknown(options, ("denoisers",), "--objective mixture")
    denoisers = options.get("denoisers")
    if not isinstance(denoisers, list) or not denoisers:
        raise ArgumentError(
            "--objective mixture: denoisers: expected a list such as [{name: span_corruption, weight: 2}, "
            f"{{name: copy}}], got {denoisers!r:.80}"
        )
    return ObjectiveOptions(name, tuple(map(read_denoiser, denoisers)), sentinels)


def read_denoiser(given: str | Mapping[str, Any]) -> Denoiser:
    """Reads one objective of a mixture; raises ArgumentError as `read_objective` does."""
    options: Any = {"name": given} if isinstance(given, str) else given
    name = options.get("name") if isinstance(options, Mapping) else options
    if not isinstance(options, Mapping) or not isinstance(name, str) or name not in CLASSES:
        raise ArgumentError(f"--objective: name {wrong_choice(name, CLASSES)}")
    refuse_unknown(options, (*options_of(name), "weight", "tag"), f"--objective {name}")
    for option, value in options.items():
        if option != "name":
            check(option, value, f"--objective {name}")
    own = {option: value for option, value in options.items() if option not in ("name", "weight", "tag")}
    return Denoiser(name, own, options.get("weight", 1.0), options.get("tag"))


def options_of(name: str) -> tuple[str, ...]:
    """Returns the names of an objective's options."""
    return tuple(each for each in inspect.signature(CLASSES[name]).parameters if each not in TOKENS)


def refuse_unknown(options: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Raises ArgumentError for an option that there is not."""
    for option in options:
        if option not in ("name", *known):
            there = did_you_mean(option, known) or f"; there are {', '.join((*known, 'sentinels'))}"
            raise ArgumentError(f"{where}: {option}: no such option{there}")


def check(option: str, value: Any, where: str) -> None:
    """Raises ArgumentError for a value that an option cannot have."""
    is_possible, words = RANGES[option]
    if not is_possible(value):
        raise ArgumentError(f"{where}: {option} must be {words}, got {value!r:.80}")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def make_objective(
    options: ObjectiveOptions, tokenizer: PreTrainedTokenizerBase, say: Callable = print
) -> tuple[Objective, set[int]]:
    """
    Returns an objective with the tokens of a tokenizer, and the ids of those that are its own.

    Args:
        say: Is told which tags, or ends of sentences, the tokenizer lacks.

    Raises:
        ArgumentError: The tokenizer lacks tokens; the message says how to make one that has them.
    """
    names = {each.name for each in options.denoisers}
    given = {name: tokens_for(name, options, tokenizer, say) for name in CLASSES if name in names}
    own = {*given.get("span_corruption", {}).get("sentinels", ())}
    made = tuple(CLASSES[each.name](**given[each.name], **each.options) for each in options.denoisers)
    if len(made) == 1 and options.denoisers[0].tag is None:
        return made[0], own
    tags = ids_of_tags(options, tokenizer, say)
    prefixes = [() if (number := tags.get(each.tag or "")) is None else (number,) for each in options.denoisers]
    return Mixture(made, tuple(each.weight for each in options.denoisers), tuple(prefixes)), own | {*tags.values()}


def tokens_for(
    name: str, options: ObjectiveOptions, tokenizer: PreTrainedTokenizerBase, say: Callable
) -> dict[str, Any]:
    """Returns the tokens that a class of objectives needs, by its names for them; raises as `make_objective` does."""
    where, title = f"--objective {options.name}", title_of(tokenizer, "source")
    if name == "span_corruption":
        sentinels = sentinels_of(tokenizer.get_vocab(), options.sentinels)
        if not sentinels:
            raise ArgumentError(
                f"{where}: {title} has no sentinel {options.sentinels.replace('{}', '0')!r}: hf-xformer tokenizer "
                "--sentinels 100 makes one with sentinels; if it has others, say so by "
                "--objective '{name: ..., sentinels: \"<other_{}>\"}'"
            )
        return {"sentinels": sentinels}
    if name == "denoising":
        if tokenizer.mask_token_id is None:
            raise ArgumentError(
                f"{where}: {title} has no `mask_token`: hf-xformer tokenizer --mask_token makes one that has"
            )
        ends = sentence_ends(tokenizer)
        if not ends:
            say(f"{where}: no token of {title} ends a sentence, so that none changes its place")
        return {"mask": tokenizer.mask_token_id, "ends": ends}
    return {}


def ids_of_tags(options: ObjectiveOptions, tokenizer: PreTrainedTokenizerBase, say: Callable) -> dict[str, int]:
    """Returns the ids of the denoisers' tags, none if one is missing that may be; raises as `make_objective` does."""
    vocabulary = tokenizer.get_vocab()
    tags = dict.fromkeys(each.tag for each in options.denoisers if each.tag is not None)
    missing = [tag for tag in tags if tag not in vocabulary]
    if not missing:
        return {tag: vocabulary[tag] for tag in tags}
    where = f"--objective {options.name}"
    lacks = f"{title_of(tokenizer, 'source')} has no token {', '.join(map(repr, missing))}"
    if options.needs_tags:
        raise ArgumentError(f"{where}: {lacks}: tokenizer.add_tokens({missing}) and save it, or leave out `tag`")
    say(f"{where}: {lacks}, so that sources do not begin with the mode of their denoiser")
    return {}


def sentinels_of(vocabulary: Mapping[str, int], names: str) -> tuple[int, ...]:
    """Returns the ids of the sentinels of a vocabulary, in order."""
    in_order = (names.replace("{}", str(number)) for number in count())
    return tuple(vocabulary[name] for name in takewhile(vocabulary.__contains__, in_order))


def sentence_ends(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Returns the ids of tokens that end a sentence: full stops and the like of any script, also at a word's end."""
    return frozenset(
        number
        for token, number in tokenizer.get_vocab().items()
        if SENTENCE_END.fullmatch(str(tokenizer.convert_tokens_to_string([token])).strip())
    )
