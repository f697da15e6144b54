# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Decodes a test set with a trained checkpoint and prints its metrics as JSON; compares several systems.

  hf-xformer evaluate runs/g2p-quickstart --test_file data/g2p/test.jsonl --metrics per wrong_words
  hf-xformer evaluate runs/de-en --test_file test.de test.en --metrics sacrebleu chrf --num_beams 5
  hf-xformer evaluate runs/de-en runs/other --test_file test.de test.en --metrics sacrebleu
  hf-xformer evaluate one.jsonl other.jsonl --metrics sacrebleu chrf

A system is a checkpoint, or a .jsonl file of predictions that --predictions_file has written. Several are compared
with the first by sacreBLEU's paired bootstrap: p is how often equally good systems would differ by more.

Metrics: sacrebleu, chrf, chrf++ and ter as sacreBLEU has them; exact_match; wer (edits of words per reference word, as
in speech recognition), cer (of characters) and per (of phonemes, or whatever stands between spaces), to the nearest
reference; wrong_words (rows that match no reference: what papers on pronunciation call WER); comet (in an environment
of its own, see --comet_python). All are percentages, comet is times 100.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from ..data.bad_rows import BadRows
from ..data.reading import load_rows
from ..data.sources import find_files
from ..data.templates import check_target, fields_of, language_fields
from ..decoding import significance
from ..decoding.lengths import LIBRARY_LENGTH, longest_target
from ..decoding.metrics import METRICS, TOKENIZERS, check_metrics, compute_metrics
from ..decoding.predictions import first_difference, is_predictions, read_predictions, write_predictions
from ..decoding.scorers import nearest
from ..decoding.scoring import NFC, UNICODE_FORMS, Scoring, describe_form
from ..errors import ArgumentError, naming, one_line_errors, say_once
from ..files import RECORD, TEST_RESULTS, doubled, read_json, write_json
from ..hub.privacy import public_path
from ..version import __version__
from .options import (
    GENERATE_OPTIONS,
    Parser,
    add_columns,
    add_comet,
    add_decoding_options,
    add_trust,
    bad_rows_of,
    check_output_file,
    length_options,
    make_decoder,
    record_of_decoding,
    record_of_loading,
    whole_number,
)


# Options that say how a test file is read, and how systems decode.
COLUMNS = ("source_column", "target_column")
OF_TEST_FILE = (*COLUMNS, "on_bad_row", "by")
DECODING = (
    *GENERATE_OPTIONS,
    *("allowed", "compile", "max_source_length", "overlong", "batch_size", "seed"),
    *("revision", "device", "dtype", "quantization", "trust_remote_code"),
)


@dataclass
class System:
    """One of those that are evaluated: what it is called, its predictions, and how they were decoded."""

    name: str
    predictions: list[str] = field(default_factory=list)
    decoding: dict[str, Any] = field(default_factory=dict)


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    check_options(args)
    check_useless(args, parser)
    bad_rows = bad_rows_of(args)
    groups, languages = None, None
    if args.test_file:
        sources, references, groups = read_test_set(args, bad_rows)
        languages, references = split_languages(args.target_column, references)
    else:
        sources, _, references = read_predictions(Path(args.systems[0]), args.max_samples)
    scoring = Scoring(args.sacrebleu_tokenize, args.unicode_form, args.comet_model, args.comet_python)
    for note in check_metrics(args.metrics, references, sources, scoring):
        print(note, file=sys.stderr)
    if "comet" in (*args.metrics, args.mbr) and fields_of(args.source_column or ""):
        said = f"--source_column {args.source_column}: comet reads sources with all that this puts before them"
        print(said, file=sys.stderr)
    check_groups(args, places_of(groups or ()), references, sources, scoring)
    if len(args.systems) > 1:
        significance.check_comparison(args.metrics, len(sources), args.bootstrap_samples)
    systems = decode_all(args, sources, references, languages)
    results = [score(args, system, sources, references, scoring) | bad_rows.for_results() for system in systems]
    if groups is not None:
        for result, system in zip(results, systems, strict=True):
            of_all = {name: result[f"{name}_signature"] for name in args.metrics}
            result |= score_groups(args, groups, system.predictions, references, sources, scoring, of_all)
    content: dict[str, Any] = results[0]
    if len(systems) > 1:
        texts = [(system.name, system.predictions) for system in systems]
        compared = significance.compare(args.metrics, texts, references, sources, scoring, args.bootstrap_samples)
        print(significance.table(compared))
        content = {"systems": results, "significance": compared}
    print(json.dumps(content, indent=2, ensure_ascii=False))
    if args.output_file:
        write_json(args.output_file, content)


def make_parser() -> Parser:
    parser = Parser("evaluate", __doc__)
    named = "a checkpoint's folder or Hub name, or a .jsonl file of predictions; one or more"
    parser.add_argument("systems", metavar="system", nargs="+", help=named)
    add_trust(parser)
    parser.add_argument("--test_file", nargs="+", help="data files, a folder of them, or two text files, source first")
    add_columns(parser, ratio=False)  # a test set is measured as it is
    parser.add_argument("--metrics", nargs="+", required=True, choices=METRICS, help="one or more of these")
    parser.add_argument(
        "--by",
        metavar="COLUMN",
        help="score rows of each value of a column too, as chrf_de-en for --by '{source_lang}-{target_lang}'",
    )
    parser.add_argument("--output_file", type=Path, help="file for the JSON, which is printed too")
    parser.add_argument(
        "--predictions_file",
        nargs="+",
        type=Path,
        help="JSONL of every source, prediction and reference, written before scoring; one for each checkpoint",
    )
    parser.add_argument("--max_samples", type=whole_number(), help="evaluate the first rows only, this many")
    parser.add_argument(
        "--show", type=whole_number(0), default=0, metavar="N", help="print a table of N rows spread over the set"
    )
    group = parser.add_argument_group("comparing texts")
    group.add_argument(
        "--sacrebleu_tokenize",
        choices=TOKENIZERS,
        help="how sacrebleu splits words (default: 13a, or by the references' script zh, ja-mecab, ko-mecab or char)",
    )
    group.add_argument(
        "--unicode_form", choices=UNICODE_FORMS, default=NFC, help=f"form that texts are compared in (default {NFC})"
    )
    group.add_argument(
        "--bootstrap_samples",
        type=whole_number(),
        default=significance.SAMPLES,
        help=f"resamples that systems are compared on (default {significance.SAMPLES})",
    )
    add_comet(group)
    add_decoding_options(parser)
    return parser


def check_options(args: argparse.Namespace) -> None:
    """
    Checks systems and files, before any is read or decoded.

    Raises:
        ArgumentError: They do not go together.
    """
    decoded = [name for name in args.systems if not is_predictions(name)]
    files = args.predictions_file or []
    inputs = [*(args.test_file or ()), *filter(is_predictions, args.systems), *filter(None, [args.allowed])]
    for number, path in enumerate(files):
        check_output_file("--predictions_file", path, inputs, outputs=files[:number])
    check_output_file("--output_file", args.output_file, inputs, outputs=files)
    check_results_of_card(args.output_file, args.systems)
    if files and len(files) != len(decoded):
        raise ArgumentError(f"--predictions_file: {len(files)} files for {len(decoded)} checkpoints to decode with")
    if (twice := doubled(args.systems)) is not None:
        raise ArgumentError(f"{twice}: it would be compared with itself")
    if not args.test_file and not is_predictions(args.systems[0]):
        raise ArgumentError(f"--test_file is missing, which {args.systems[0]} is to decode")


def check_results_of_card(path: Path | None, systems: Sequence[str]) -> None:
    """
    Checks that the results which a checkpoint's card will show are that checkpoint's.

    Raises:
        ArgumentError: They are of another one, or of several systems.
    """
    if path is None or path.name != TEST_RESULTS or not (path.parent / RECORD).exists():
        return
    of = "of several systems" if len(systems) > 1 else f"of {systems[0]}"
    own = len(systems) == 1 and (is_predictions(systems[0]) or Path(systems[0]).resolve() == path.parent.resolve())
    if not own:
        raise ArgumentError(
            f"--output_file {path}: the card of {path.parent} shows these scores as its own, and they are {of}: give "
            "another name"
        )


def check_useless(args: argparse.Namespace, parser: Parser) -> None:
    """
    Refuses options that would change nothing.

    Raises:
        ArgumentError: One was given.
    """
    metrics = {name: name in args.metrics or name == args.mbr for name in ("sacrebleu", "comet")}
    is_decoding = any(not is_predictions(name) for name in args.systems)
    for options, is_used, why in (
        (["sacrebleu_tokenize"], metrics["sacrebleu"], "is for the metric sacrebleu, which is not in --metrics"),
        (["comet_model", "comet_python"], metrics["comet"], "is for the metric comet, which is not in --metrics"),
        (["bootstrap_samples"], len(args.systems) > 1, "compares systems, and there is one"),
        (OF_TEST_FILE, args.test_file, "says how --test_file is read, and there is none"),
        (DECODING, is_decoding, "is for decoding: nothing is decoded, all systems are files of predictions"),
    ):
        for name in () if is_used else options:
            if getattr(args, name, None) not in (None, parser.get_default(name)):
                raise ArgumentError(f"--{name} {why}")


def read_test_set(
    args: argparse.Namespace, bad_rows: BadRows
) -> tuple[list[str], list[list[str]], Sequence[str] | None]:
    """Returns the sources and references of `--test_file`, and each row's group by `--by`; says what may be amiss."""
    with naming("--test_file"):
        files = find_files(args.test_file, say_once)
        rows = load_rows(files, args.source_column, args.target_column, bad_rows=bad_rows, group=args.by)
    for name in args.systems:
        say_seen(name, [*args.test_file, *files])
    bad_rows.tell(say_once)
    groups = rows["group"][: args.max_samples] if args.by else None
    return rows["source"][: args.max_samples], rows["target"][: args.max_samples], groups


def split_languages(column: str, references: list[list[str]]) -> tuple[list[str] | None, list[list[str]]]:
    """
    Returns the words with which a template has the references of each row begin, and the references without them.

    Returns:
        None if the column has no languages.
    """
    if not language_fields(column):
        return None, references
    check_target(column)
    words = [texts[0].split(maxsplit=1)[0] for texts in references]
    bare = [
        [text.removeprefix(word).lstrip() for text in texts] for word, texts in zip(words, references, strict=True)
    ]
    return words, bare


def say_seen(checkpoint: str, files: Sequence[str | Path]) -> None:
    """Says whether a test set's files are called as those that the run of a checkpoint has seen, by its record."""
    folder = Path(checkpoint)
    record = read_json((folder.parent if folder.name.startswith("checkpoint-") else folder) / RECORD)
    validation = [record.get("evaluated_on", ""), *record.get("evaluated_sets", {}).values()]
    for seen, how in (
        (record.get("train_files", [record.get("trained_on", "")]), "was trained on"),
        (validation, "was validated on, and may have been chosen by,"),
    ):
        named = {name for names in seen for name in names.split(", ")}
        # A folder that was given for training stands for all of its files.
        folders = {*record.get("train_files", ())} if how == "was trained on" else set()
        seen_here = (each for each in files if public_path(each) in named or public_path(Path(each).parent) in folders)
        if (same := next(seen_here, None)) is not None:
            said = f"{public_path(checkpoint)} {how} {public_path(same)}, or a file called so: no test of unseen texts"
            print(said, file=sys.stderr)


def decode_all(
    args: argparse.Namespace, sources: list[str], references: list[list[str]], languages: Sequence[str] | None
) -> list[System]:
    """
    Returns the systems with their predictions, each written as soon as it is there.

    Args:
        languages: Word with which each text begins, and which is no part of it; None for texts without.
    """
    read = {name: read_predictions(Path(name), args.max_samples) for name in args.systems if is_predictions(name)}
    for name, (its_sources, _, its_references) in read.items():
        if (its_sources, its_references) != (list(sources), list(references)):
            raise ArgumentError(f"{name}: its {first_difference(sources, references, its_sources, its_references)}")
    checkpoints = [name for name in args.systems if name not in read]
    names = names_of(args.systems)
    of_each = {name: argparse.Namespace(**{**vars(args), "checkpoint": name}) for name in checkpoints}
    for name in checkpoints[1:]:  # so that one that does not load costs nobody's decoding; memory may hold one alone
        make_decoder(of_each[name])
    files = dict(zip(checkpoints, args.predictions_file or [], strict=False))
    systems = []
    for name in args.systems:
        if name in read:
            systems.append(System(names[name], read[name][1]))
            continue
        predictions, decoding = decode(of_each[name], sources, languages)
        systems.append(System(names[name], predictions, decoding))
        if name in files:
            write_predictions(files[name], sources, predictions, references)
    return systems


def decode(
    args: argparse.Namespace, sources: list[str], languages: Sequence[str] | None
) -> tuple[list[str], dict[str, Any]]:
    """Returns the predictions of `args.checkpoint`, and what has to be known of how they were decoded."""
    decoder = make_decoder(args)
    if languages is not None:
        decoder.languages.check_words(languages, args.target_column)
    start = time.perf_counter()
    report = decoder.new_report()
    predictions = [best[0].text for best in decoder.decode(sources, progress=True, report=report, prefixes=languages)]
    seconds = round(time.perf_counter() - start, 2)
    longest = longest_target(decoder.config) or LIBRARY_LENGTH
    return predictions, {
        "sources_truncated": report.cut.count,
        "texts_cut_off": report.without_end,
        "decoding_seconds": seconds,
        "decoding": record_of_decoding(args, decoder),
        "longest_text": min(longest, decoder.positions or longest),
        **length_options(args),
        **record_of_loading(args, decoder),
    }


def names_of(systems: Sequence[str]) -> dict[str, str]:
    """Returns what each system is called: its path as others may see it, with folders more where two are the same."""
    parts = {name: Path(os.path.abspath(name)).parts for name in systems}
    names = {name: public_path(name) for name in systems}
    for length in range(2, max(map(len, parts.values())) + 1):
        called = list(names.values())
        names |= {name: Path(*parts[name][-length:]).as_posix() for name in systems if called.count(names[name]) > 1}
    return names


def score(
    args: argparse.Namespace, system: System, sources: list[str], references: list[list[str]], scoring: Scoring
) -> dict[str, Any]:
    """Returns a system's scores, and what has to be known to compare or to repeat them."""
    rows = [[text] for text in system.predictions]
    if note := describe_form(args.unicode_form, f"predictions of {system.name}", rows):
        print(note, file=sys.stderr)
    if args.show:
        print(table(sources, system.predictions, references, args.show, args.unicode_form))
    scores = compute_metrics(args.metrics, system.predictions, references, sources, scoring)
    return {
        **{name: each if isinstance(each, str) else round(each, 4) for name, each in scores.items()},
        "metrics": args.metrics,
        "unicode_form": args.unicode_form,
        "samples": len(sources),
        **({"max_samples": args.max_samples} if args.max_samples else {}),
        **system.decoding,
        "checkpoint": system.name,
        "test_file": list(map(public_path, args.test_file or [])),
        **{name: column for name in COLUMNS if (column := getattr(args, name)) != name.removesuffix("_column")},
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "hf_xformer": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def places_of(groups: Sequence[str]) -> dict[str, list[int]]:
    """Returns the numbers of the rows of each group, sorted by their names."""
    found: dict[str, list[int]] = {group: [] for group in sorted(set(groups))}
    for place, group in enumerate(groups):
        found[group].append(place)
    return found


def check_groups(
    args: argparse.Namespace,
    groups: dict[str, list[int]],
    references: Sequence[list[str]],
    sources: Sequence[str],
    scoring: Scoring,
) -> None:
    """
    Checks that every group can be scored.

    Raises:
        ArgumentError: A group's figures would be called as signatures are, or a metric is not for its references.
    """
    for group, places in groups.items():
        if group.endswith("signature"):
            raise ArgumentError(
                f"--by {args.by}: row {places[0] + 1:,} has the group {group!r}, by which signatures end: rename it"
            )
        with naming(f"--by {args.by}, group {group!r}"):
            own = [references[place] for place in places], [sources[place] for place in places]
            check_metrics(args.metrics, *own, scoring)


def score_groups(
    args: argparse.Namespace,
    groups: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[list[str]],
    sources: Sequence[str],
    scoring: Scoring,
    of_all: dict[str, Any],
) -> dict[str, Any]:
    """
    Returns the figures of the rows of each group, under the names of metric and group, and their numbers.

    Args:
        of_all: The signatures of the figures of all rows, by metric.
    """
    figures: dict[str, Any] = {}
    for group, places in places_of(groups).items():
        texts, read = [predictions[place] for place in places], [sources[place] for place in places]
        scores = compute_metrics(args.metrics, texts, [references[place] for place in places], read, scoring)
        figures[f"samples_{group}"] = len(places)
        figures |= {f"{name}_{group}": round(float(scores[name]), 4) for name in args.metrics}
        signatures = {name: scores[f"{name}_signature"] for name in args.metrics}
        # A group may be split into words, or into characters, otherwise than the whole.
        figures |= {f"{name}_{group}_signature": each for name, each in signatures.items() if each != of_all[name]}
    return figures


def table(
    sources: list[str], predictions: list[str], references: list[list[str]], count: int, unicode_form: str
) -> str:
    """
    Returns `count` rows at equal distances as lines: source, prediction, the reference that matches it or else the
    nearest one, and "right" if it matches.
    """
    step = max(1, len(sources) // count)
    rows = [("source", "prediction", "reference", "")]
    for source, prediction, texts in list(zip(sources, predictions, references, strict=True))[::step][:count]:
        text, is_right = nearest(prediction, texts, unicode_form)
        rows.append((source, prediction, text, "right" if is_right else ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows) + "\n"
