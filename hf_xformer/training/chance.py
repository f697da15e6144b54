# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Training rows that chance makes anew whenever they are read: an objective's pairs of texts, and noise in pairs."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..data.corpora import Encode
from ..data.encoding import TextEncoder
from ..data.noise import make_source_noise
from ..data.objective_options import ObjectiveOptions, make_objective, read_objective
from ..data.objectives import Objective, SpanCorruption, longest_text
from ..data.pairs import PairTokenizer
from ..data.random_pairs import NoisyPairs, ObjectivePairs
from ..data.subwords import BpeDropout, Regularisation, UnigramSampling
from ..data.templates import language_fields, tokens_of, words_with
from ..errors import ArgumentError
from .arguments import DataArguments


EVALUATION_SEED = 0  # an evaluation's pairs are the same each time, and in every run
SHOWN = 70  # characters of an example


Regularisations: TypeAlias = tuple[Regularisation | None, Regularisation | None]


def objective_of(data_args: DataArguments) -> ObjectiveOptions | None:
    """Returns the objective that makes pairs of texts; None if the data are pairs."""
    return None if data_args.objective is None else read_objective(data_args.objective)


def check_chance(data_args: DataArguments) -> None:
    """
    Checks what chance decides, before anything is read.

    Raises:
        ArgumentError: There is no such objective, or options that do not go together.
    """
    if data_args.bpe_dropout and data_args.unigram_sampling is not None:
        raise ArgumentError("--bpe_dropout and --unigram_sampling: a tokenizer has merges or pieces: give one")
    options = objective_of(data_args)
    if options is None:
        return
    option = f"--objective {options.name}"
    table = {
        "source_word_dropout": "makes noise of its own",
        "case_noise": "makes noise of its own",
        "max_length_ratio": "has texts without another side",
        "metrics": "has no targets that texts could be compared with",
    }
    for name, reason in table.items():
        if getattr(data_args, name):
            raise ArgumentError(f"--{name} does nothing with {option}, which {reason}: leave it out")
    if data_args.overlong != "truncate":
        raise ArgumentError(
            f"--overlong {data_args.overlong} does nothing with {option}, which makes several pairs of a long text: "
            "leave it out"
        )


def recorded_chance(data_args: DataArguments) -> dict[str, Any]:
    """Returns what a record says of the objective and of the noise; None for what there is not."""
    objective = objective_of(data_args)
    return {
        "objective": None if objective is None else objective.words,
        "noise": {name: getattr(data_args, name) for name in data_args.drawn if name != "objective"},
    }


def make_encoder(data_args: DataArguments, tokenize: PairTokenizer, say: Callable) -> Encode:
    """
    Returns what makes token ids of rows whenever they are read.

    Raises:
        ArgumentError: The tokenizers do not have what it takes.
    """
    source, target = tokenize.source, tokenize.target
    regularisations = make_regularisations(data_args, source, target)
    options = objective_of(data_args)
    if options is None:
        if data_args.source_word_dropout:
            check_kept(data_args.source_column, source)
        noise = make_source_noise(source, data_args.source_word_dropout, data_args.case_noise)
        return NoisyPairs(tokenize, data_args.overlong, noise, *regularisations)
    if source is not target:
        raise ArgumentError(
            f"--objective {options.name} has sources and targets of the same tokens: give one tokenizer for both"
        )
    objective, own = make_objective(options, source, say)
    rooms = [
        limit - len(TextEncoder(source, target=is_target).frame)
        for limit, is_target in ((data_args.max_source_length, False), (data_args.max_target_length, True))
    ]
    longest = longest_text(objective, *rooms)
    if longest == 0:
        raise ArgumentError(
            f"--objective {options.name}: no text fits --max_source_length {data_args.max_source_length} and "
            f"--max_target_length {data_args.max_target_length}"
        )
    return ObjectivePairs(source, objective, longest, own, regularisations[0])


def check_kept(column: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Checks that no word is left out that says a source's language.

    Args:
        column: Of the sources, which may be a template.

    Raises:
        ArgumentError: It has a language in a word that is no token of its own, such as "to {target_lang}: {source}".
    """
    for word in words_with(column, language_fields(column).values()):
        if not tokens_of(word, tokenizer):
            raise ArgumentError(
                f"--source_word_dropout would leave out the language {word!r} of --source_column {column!r} too, as "
                "any word that is no added token: write it as one, such as <2{target_lang}>"
            )


def make_regularisations(
    data_args: DataArguments, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> Regularisations:
    """Returns how words of sources and of targets are split; None for the tokenizer's own way."""
    for kind, value in ((BpeDropout, data_args.bpe_dropout or None), (UnigramSampling, data_args.unigram_sampling)):
        if value is not None:
            of_source = kind(source, value)
            return of_source, of_source if target is source else kind(target, value, "target")
    return None, None


def say_chance(
    data_args: DataArguments, texts: Sequence[dict], tokenize: PairTokenizer, encode: Encode, say: Callable
) -> None:
    """
    Says what becomes of the first texts of a training set, one of which it shows.

    Args:
        texts: Some rows.
    """
    columns = {name: [text[name] for text in texts] for name in texts[0]} if texts else {"source": [], "target": []}
    made = encode(columns, np.random.default_rng(EVALUATION_SEED))
    if isinstance(encode, ObjectivePairs):
        say(
            f"--objective: texts of more than {encode.longest:,} tokens become several pieces of like length; "
            f"{len(made['labels']):,} pairs of the first {len(texts):,} texts"
        )
        title = f"--objective {read_objective(data_args.objective or '').words}"
    else:
        title = ", ".join(f"--{name} {value}" for name, value in recorded_chance(data_args)["noise"].items())
    for line in remarks(encode, columns["source"], made["labels"]):
        say(line)
    if made["labels"]:
        source, target = (shown(tokenize.source, made["input_ids"][0]), shown(tokenize.target, made["labels"][0]))
        say(f"{title}, for example: {source} to {target}")


def remarks(encode: Encode, sources: Sequence[str], targets: Sequence[Sequence[int]]) -> Iterator[str]:
    """Yields what an objective or noise does to the first texts, where nobody would expect it of its options."""
    if isinstance(encode, ObjectivePairs) and (count := single_spans(encode.objective, targets)):
        where = f"{count:,} of {len(targets):,} pairs have one span, which ends their text"
        yield f"--objective: {where}; random_roll: true has it anywhere"
    if isinstance(encode, NoisyPairs) and encode.noise is not None:
        for option, count in encode.noise.idle(sources).items():
            if 2 * count > len(sources):
                why = "have a single word" if option == "source_word_dropout" else "have no letters of two cases"
                yield f"--{option} does nothing to {count:,} of the first {len(sources):,} sources, which {why}"


def single_spans(objective: Objective, targets: Sequence[Sequence[int]]) -> int:
    """Returns of how many texts T5's span corruption takes the end alone, though spans of a length are asked for."""
    if not isinstance(objective, SpanCorruption) or objective.random_roll or objective.mean_span == math.inf:
        return 0
    return sum(sum(token in objective.sentinels for token in target) == 1 for target in targets)


def shown(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """Returns the tokens of a text, shortened."""
    text = " ".join(map(str, tokenizer.convert_ids_to_tokens(ids)))
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def evaluated_objective(rows: Dataset, data_args: DataArguments, tokenize: PairTokenizer) -> Dataset:
    """Returns the pairs that an objective makes of an evaluation's texts, always the same, words split as ever."""
    without_noise = replace(data_args, bpe_dropout=0.0, unigram_sampling=None)
    encode = make_encoder(without_noise, tokenize, say=lambda line: None)
    return Dataset.from_dict(encode({"source": rows["source"][:]}, np.random.default_rng(EVALUATION_SEED)))
