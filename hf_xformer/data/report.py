# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Lines that tell people what is known of data: counts, lengths as a table and as bars, options that follow."""

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from .advice import Option, tokenizer_options
from .bad_rows import listed
from .duplicates import KINDS
from .statistics import PERCENTILES, SIDES, Lengths, Statistics


BAR_WIDTH = 30
BARS = 12
# Words without quotes that some YAML reader takes for something else than a text.
NO_TEXTS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n", "~", ".", ".nan", ".inf")


def report_lines(report: dict[str, Any], statistics: Statistics, options: list[Option], block: str) -> Iterator[str]:
    """
    Yields the lines of a report for people.

    Args:
        report: The same for machines.
        block: The character that bars are made of.
    """
    for topic, text in counts_by_topic(report):
        yield f"{topic:12}{text}" if topic else f"  {text}"
    if not statistics.pairs:
        return
    yield ""
    yield from length_table(statistics)
    yield from length_bars(statistics, block)
    yield ""
    yield "# Options of a recipe that follow"
    yield from map(recipe_line, options)
    if "max_source_length" not in report["recipe"]:
        yield "# max_source_length, max_target_length and max_tokens: known with --tokenizer"
    if "tokens" not in statistics.sides["source"].lengths:
        yield ""
        yield "# A tokenizer for these texts"
        yield from tokenizer_commands(report, statistics)


def counts_by_topic(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields what was counted, each with its topic; what has none belongs to the topic before."""
    several, count = report.get("rows_with_several_references", 0), report.get("pairs", report["rows"])
    more = f"; {count:,} pairs, for {several:,} rows have several references" if several else ""
    yield "rows", f"{report['rows']:,}{more}"
    yield from bad_row_counts("bad rows", report["bad_rows"])
    if not count:
        return
    yield from duplicate_counts(report["duplicates"], count)
    if "against" in report:
        yield from overlap_counts(report["against"])
    for side in SIDES:
        if unknown := report.get(side, {}).get("unknown_tokens"):
            text = f"{unknown['count']:,} of the {side}s' tokens ({unknown['percent']:g} %)"
            where = f", in {unknown['texts']:,} texts: {listed(unknown['most_frequent'])}"
            yield "unknown", text + (where if unknown["count"] else "")
    for each in report["unusual"]:
        yield "unusual", f"{each['count']:,} {each['kind']}, first {each['example']}"


def bad_row_counts(topic: str, bad: dict[str, Any]) -> Iterator[tuple[str, str]]:
    reasons = f": {listed(bad['reasons'])}" if bad["reasons"] else ""
    yield topic, f"{sum(bad['reasons'].values()):,} of {bad['rows']:,}{reasons}"
    for example in bad["examples"]:
        yield "", example


def duplicate_counts(duplicates: dict[str, Any], count: int) -> Iterator[tuple[str, str]]:
    about, what = sample_note(duplicates), "pair" if "repeated_pairs" in duplicates else "text"
    repeated = duplicates[f"repeated_{what}s"]
    first = f", first {duplicates[f'repeated_{what}_example']}" if repeated else ""
    yield "duplicates", f"{repeated:,} of {count:,} {what}s repeat an earlier one{about}{first}"
    if what == "pair":
        several = duplicates["sources_with_several_targets"]
        first = f", first {duplicates['several_targets_example']}" if several else ""
        yield "", f"{several:,} sources have several targets{about}{first}"


def overlap_counts(against: dict[str, Any]) -> Iterator[tuple[str, str]]:
    names = " ".join(against["files"])
    counted = ", counted in pairs" if "pairs" in against else ""
    yield "against", f"{names}: {against['rows']:,} rows; what stands in both{counted}:"
    yield from bad_row_counts("bad there", against["bad_rows"]) if against["bad_rows"]["reasons"] else ()
    for kind in filter(against.__contains__, KINDS):
        each = against[kind]
        first = f", first {each['example']}" if each["example"] else ""
        there, here = (with_percent(each[place], each[f"of_{place}"]) for place in ("there", "here"))
        yield "", f"{kind:8} {there} there, {here} here{sample_note(each)}{first}"


def sample_note(counted: dict[str, Any]) -> str:
    """Returns that counts are estimates, if they are."""
    part = counted["estimated_from"]
    return "" if part == 1 else f" (estimated from 1 in {1 / part:,.0f})"


def with_percent(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({100 * count / max(1, total):.2f} %)"


def length_table(statistics: Statistics) -> Iterator[str]:
    heads = ["mean", *(f"{percent:g} %" for percent in PERCENTILES), "longest"]
    yield f"{'lengths':20}" + "".join(f"{head:>9}" for head in heads)
    for side, texts in statistics.sides.items():
        for unit, each in texts.lengths.items():
            values = [f"{each.mean:,.1f}", *(f"{each.percentile(p):,}" for p in PERCENTILES), f"{each.largest:,}"]
            yield f"{side + ' ' + unit:20}" + "".join(f"{value:>9}" for value in values)
    if statistics.one_column:
        return
    ratios = statistics.ratios
    tenths = [ratios.mean, *map(ratios.percentile, PERCENTILES), ratios.largest]
    yield f"{'longer : shorter':20}" + "".join(f"{each / 10:>9,.1f}" for each in tenths)


def length_bars(statistics: Statistics, block: str) -> Iterator[str]:
    """Yields histograms of both sides, in tokens or else in characters."""
    for side, texts in statistics.sides.items():
        unit, lengths = [*texts.lengths.items()][-1]
        if unit == "words":
            unit, lengths = "characters", texts.lengths["characters"]
        yield f"\n{side}s by {unit}"
        yield from histogram(lengths, block)


def histogram(lengths: Lengths, block: str) -> Iterator[str]:
    bins = lengths.bins(BARS)
    names = [f"{first:,}" if first == last else f"{first:,} to {last:,}" for first, last, _ in bins]
    most = max(count for *_, count in bins)
    for name, (*_, count) in zip(names, bins, strict=True):
        bar = block * round(BAR_WIDTH * count / most)
        yield f"{name:>{max(map(len, names))}}  {bar}{' ' * bool(bar)}{count:,}"


def recipe_line(option: Option) -> str:
    """Returns an option as a line of a recipe, with the reason for its value."""
    text = option.value if is_plain(option.value) else quoted_value(option.value)
    return f"{option.name}: {text}" + f"  # {option.why}" * bool(option.why)


def is_plain(value: Any) -> bool:
    """Returns whether YAML reads a text as that text without quotes."""
    word = isinstance(value, str) and re.fullmatch(r"[A-Za-z_/][\w./-]*|[.~]{1,2}/[\w./-]*", value)
    return bool(word) and value.lower() not in NO_TEXTS


def quoted_value(value: Any) -> str:
    """Returns a value as YAML, texts in quotes."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in text)


def tokenizer_commands(report: dict[str, Any], statistics: Statistics) -> Iterator[str]:
    """Yields the commands that train the tokenizer, or one for each side."""
    data = ["--train_file", *map(shlex.quote, report["files"])]
    for side in SIDES:
        if (column := report["recipe"].get(f"{side}_column")) is not None:
            data += [f"--{side}_column", shlex.quote(column)]
    for name in ("on_bad_row", "max_length_ratio"):  # without them it would refuse what the recipe leaves out
        if (value := report["recipe"].get(name)) is not None:
            data += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    trained = tokenizer_options(statistics)
    own = ["--separate"] if len(trained) > 1 else ["--one_column", "--mask_token"] if statistics.one_column else []
    for each in trained:
        kind = ["--model_type", each.model_type, "--vocab_size", str(each.vocab_size)]
        yield " ".join(["hf-xformer tokenizer", *data, *kind, *own, "--output_dir", each.folder, f" # {each.why}"])
