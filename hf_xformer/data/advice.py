# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The options of a recipe and of a tokenizer that follow from the statistics of its data."""

from dataclasses import dataclass, replace
from typing import Any

from .scripts import TOKENIZERS
from .statistics import Lengths, Side, Statistics
from .tokenizers import SENTINEL, SPECIALS


# A list of symbols has few of them, each many times.
USES_OF_A_SYMBOL = 20
# Characters of a text that is one word, such as a name.
LONGEST_WORD = 40
# Rules of thumb: entries of a subword vocabulary, for up to so many pairs.
VOCABULARIES = ((20_000, 2000), (500_000, 8000), (5_000_000, 16_000))
LARGEST_VOCABULARY = 32_000
# Pairs that make a steady step for a first training.
PAIRS_A_STEP = 64
# Passes over plain text, of which an objective makes other pairs each time.
PASSES = 10
# A length ratio that more than this share of pairs exceed is no sign of an error in them; so many times it is.
FEW, WILD = 0.005, 3
# Folders of the tokenizers that are to be trained: for both sides or the sources, and for targets of another kind.
SHARED_FOLDER, TARGET_FOLDER = "tokenizer", "tokenizer-of-targets"
# By the kind of tokenizer that suits the targets.
METRICS = {"symbol": ["per", "wrong_words"], "char": ["cer", "exact_match"], "bpe": ["sacrebleu", "chrf"]}


@dataclass(frozen=True)
class Option:
    """An option of a recipe, and why it has its value."""

    name: str
    value: Any
    why: str = ""


@dataclass(frozen=True)
class TokenizerOptions:
    """Options that train a tokenizer for these data; `sides` are those that it is for."""

    sides: tuple[str, ...]
    model_type: str
    vocab_size: int
    why: str

    @property
    def folder(self) -> str:
        """The folder to train it into."""
        return SHARED_FOLDER if "source" in self.sides else TARGET_FOLDER


def text_kind(side: Side) -> str:
    """Returns the kind of tokenizer, a `model_type`, that suits the texts of one side."""
    words = side.lengths["words"]
    count = sum(value * times for value, times in words.counts.items())
    if side.words and count >= USES_OF_A_SYMBOL * len(side.words) and words.percentile(50) > 1:
        return "symbol"
    is_short = words.percentile(90) <= 1 and side.lengths["characters"].percentile(90) <= LONGEST_WORD
    return "char" if is_short and side.script() is None else "bpe"


def tokenizer_options(statistics: Statistics) -> list[TokenizerOptions]:
    """Returns the tokenizer to train, for both sides, or one for each if they are of different kinds."""
    kinds = {side: text_kind(each) for side, each in statistics.sides.items()}
    if len(set(kinds.values())) == 1:
        return [options_for(statistics, tuple(kinds), kinds["source"])]
    # Each command trains a tokenizer of the other side too, whose characters have to fit.
    fewest = max(len(each.characters) for each in statistics.sides.values()) + len(SPECIALS)
    found = [options_for(statistics, (side,), kind) for side, kind in kinds.items()]
    return [replace(each, vocab_size=max(each.vocab_size, fewest)) for each in found]


def options_for(statistics: Statistics, sides: tuple[str, ...], kind: str) -> TokenizerOptions:
    characters = set[str]().union(*(statistics.sides[side].characters for side in sides))
    if kind == "bpe":
        size = next((size for most, size in VOCABULARIES if statistics.pairs <= most), LARGEST_VOCABULARY)
        return TokenizerOptions(sides, kind, size, f"a rule of thumb for {statistics.pairs:,} pairs")
    specials = len(SPECIALS) + statistics.one_column  # the objective's mask
    if kind == "char":
        why = f"{len(characters):,} characters and {specials} special tokens"
        return TokenizerOptions(sides, kind, len(characters) + specials, why)
    characters -= {character for character in characters if character.isspace()}
    symbols = set[str]().union(*(statistics.sides[side].words or () for side in sides))
    why = f"{len(symbols):,} symbols, their characters and {specials} special tokens"
    return TokenizerOptions(sides, kind, len(symbols | characters) + specials, why)


def token_lengths(side: Side, kind: str) -> tuple[Lengths, int] | None:
    """
    Returns lengths of texts and how many tokens each has beyond that: those of a tokenizer, or else the ones that
    can be told without it; None if they cannot.
    """
    if "tokens" in side.lengths:
        return side.lengths["tokens"], 0
    units = {"symbol": "words", "char": "characters"}
    return (side.lengths[units[kind]], 1) if kind in units else None  # and the end token


def length_limits(statistics: Statistics, coverage: float) -> dict[str, int]:
    """
    Returns the longest text of each side in tokens, a multiple of 8 that leaves at least `coverage` percent whole.

    Where twice as much leaves all texts whole, it is what they need.
    """
    found = {}
    for name, side in statistics.sides.items():
        if (lengths := token_lengths(side, text_kind(side))) is not None:
            counted, more = lengths
            usual, longest = (rounded_up(each + more) for each in (counted.percentile(coverage), counted.largest))
            found[name] = longest if longest <= 2 * usual else usual
    return found


def rounded_up(length: int, step: int = 8) -> int:
    return -(-length // step) * step


def length_options(statistics: Statistics, coverage: float) -> list[Option]:
    """Returns the limits of both sides and the batches that hold such texts."""
    limits = length_limits(statistics, coverage)
    if len(limits) < len(statistics.sides):
        return []
    options, means = [], []
    for name, limit in limits.items():
        side = statistics.sides[name]
        counted, more = token_lengths(side, text_kind(side)) or (Lengths(), 0)
        cut = counted.above(limit - more)
        whole = "all" if not cut else f"{floored(100 * (1 - cut / counted.total))} %, all but {cut:,},"
        options.append(Option(f"max_{name}_length", limit, f"{whole} of the {name}s are left whole"))
        means.append(counted.mean + more)
    if statistics.one_column:
        options.append(
            Option("max_target_length", limits["source"], "no objective makes a target longer than its text")
        )
    least = max(4 * max(limits.values()), min(PAIRS_A_STEP, statistics.pairs) * max(means), 1024)
    tokens = 2 ** (int(least) - 1).bit_length()
    options.append(Option("packing", True))
    held = round(tokens / max(means))
    units = "texts" if statistics.one_column else "pairs"
    why = f"about {held:,} {units} a step" if held < statistics.pairs else f"all {units} in one step"
    options.append(Option("max_tokens", tokens, why))
    if statistics.one_column:
        steps = max(1, round(PASSES * statistics.pairs / min(held, statistics.pairs)))
        options.append(Option("max_steps", steps, f"about {PASSES} passes over the texts"))
    return options


def floored(percent: float) -> str:
    """Returns a percentage that does not say more than there is."""
    return f"{int(percent * 100) / 100:g}"


def row_options(statistics: Statistics, bad: int, given: float | None = None) -> list[Option]:
    """Returns what to do with rows that cannot be used or look wrong; a ratio that was given stays."""
    options = []
    if bad:
        # The reasons and the first of the rows are told beside it.
        why = "1 bad row is left out; or mend it" if bad == 1 else f"{bad:,} bad rows are left out; or mend them"
        options.append(Option("on_bad_row", "skip", why))
    if given is not None:
        return [*options, Option("max_length_ratio", given, "as given")]
    ratios = statistics.ratios
    most = -(-WILD * ratios.percentile(100 * (1 - FEW)) // 10)
    if uneven := ratios.above(10 * most):
        why = f"pairs with one text more than {most} times as long as the other: {uneven:,}"
        if not bad:
            options.append(Option("on_bad_row", "skip", "leaves out what max_length_ratio makes bad rows of"))
        options.append(Option("max_length_ratio", most, why))
    return options


def objective_options(statistics: Statistics) -> list[Option]:
    """Returns the objective that makes pairs of texts without targets, one for which the tokenizer has the tokens."""
    if not statistics.one_column:
        return []
    if statistics.tokenize is None:
        return [Option("objective", "denoising", "for a tokenizer with a mask token")]
    tokenizer = statistics.tokenize.source
    if tokenizer.mask_token_id is not None:
        return [Option("objective", "denoising", "the tokenizer has a mask token")]
    if SENTINEL.format(0) in tokenizer.get_vocab():
        return [Option("objective", "span_corruption", "the tokenizer has sentinels and no mask token")]
    return [Option("objective", "prefix_lm", "the tokenizer has neither a mask token nor sentinels")]


def metric_options(statistics: Statistics) -> list[Option]:
    """Returns the metrics that suit the targets; none where an objective makes them."""
    if statistics.one_column:
        return []
    target = statistics.sides["target"]
    kind, script = text_kind(target), target.script()
    options = [Option("metrics", METRICS[kind])]
    if kind == "bpe" and script is not None:
        options.append(Option("sacrebleu_tokenize", TOKENIZERS[script], f"targets are written in {script}"))
    return options


def recipe_options(
    statistics: Statistics, bad: int, coverage: float, given_ratio: float | None = None
) -> list[Option]:
    """
    Returns all options that follow from the data.

    Args:
        statistics: Of the training data.
        bad: Rows that cannot be used.
        coverage: Percent of each side's texts that the limits leave whole.
        given_ratio: A `max_length_ratio` by which rows were counted as bad.
    """
    if not statistics.pairs:
        return row_options(statistics, bad, given_ratio)
    return [
        *row_options(statistics, bad, given_ratio),
        *objective_options(statistics),
        *length_options(statistics, coverage),
        *metric_options(statistics),
    ]
