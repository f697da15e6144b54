# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The training set of a run: rows of one corpus in memory, or batches of streams and mixtures."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import TypeAlias

import numpy as np
from datasets import Dataset, IterableDataset
from transformers import Seq2SeqTrainingArguments

from ..checkpoints.lengths import record_trained_length
from ..data.bad_rows import BadRows
from ..data.batches import (
    BatchedDataset,
    LengthGroupedDataset,
    OfCount,
    PackedWithin,
    PaddedWithin,
    Planner,
    list_lengths,
)
from ..data.corpora import BLOCK, Corpus, Encode
from ..data.pairs import (
    STREAM_SAMPLE,
    PairEncoder,
    PairTokenizer,
    check_languages,
    longest_source,
    prepare_stream,
    prepare_training,
    say_split_tags,
)
from ..data.reading import load_named_rows, load_rows
from ..data.sources import find_files
from ..data.windows import Stage, Windows
from ..errors import ArgumentError, say_of
from .arguments import CorpusArguments, DataArguments
from .chance import make_encoder, say_chance
from .launch import data_parallel_size
from .mixtures import corpora_of, make_stages, naming_corpus, naming_files, title_of
from .plan import Plan


TrainingSet: TypeAlias = Dataset | LengthGroupedDataset | BatchedDataset | Windows


def policies(data_args: DataArguments, evaluates: bool) -> dict[str, BadRows]:
    """Returns what becomes of the bad rows of every corpus and split that a run reads, by their titles."""
    found = {
        title_of(corpus): BadRows(of_corpus.on_bad_row, of_corpus.max_length_ratio, of_corpus.unwanted)
        for corpus, of_corpus in corpora_of(data_args)
    }
    # A validation set is measured as it is: only what is no pair of texts is left out.
    of_validation = BadRows(data_args.on_bad_row, None, data_args.unwanted)
    return found | ({"validation": of_validation} if evaluates else {})


def read_split(
    data_args: DataArguments, split: str, bad_rows: BadRows, say: Callable, streaming: bool = False
) -> Dataset | IterableDataset:
    """Returns the rows of the "train" or the "validation" split, from files or a dataset."""
    columns = data_args.columns
    if (files := getattr(data_args, f"{split}_file")) is not None:
        return load_rows(find_files(files, say), *columns, streaming, bad_rows)
    name, config = str(data_args.dataset_name), data_args.dataset_config_name
    return load_named_rows(name, config, getattr(data_args, f"{split}_split"), *columns, streaming, bad_rows)


def first(rows: Dataset | IterableDataset, count: int | None) -> Dataset | IterableDataset:
    """Returns the first `count` rows; all of them if it is None."""
    if count is None:
        return rows
    if isinstance(rows, Dataset):
        return rows.select(range(min(count, len(rows))))
    # As one shard: of `rows.take(count)` each of several shards would give a part of the count.
    return IterableDataset.from_generator(rows_of, features=rows.features, gen_kwargs={"rows": rows.take(count)})


def rows_of(rows: IterableDataset) -> Iterator[dict]:
    """Yields the rows of a stream, read in blocks: else a loader's workers would share them."""
    for columns in rows.iter(BLOCK):
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def read_training(
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
    plan: Plan,
    tokenize: PairTokenizer,
    known: int,
    bad_rows: dict[str, BadRows],
    say: Callable,
) -> TrainingSet:
    """
    Returns the training pairs: rows as they come or in an order of like lengths, or whole batches.

    Args:
        known: Tokens of the longest source that the model was trained on before. The source's tokenizer, which is
            saved with the model, gets that of the longest one until now: decoding compares its sources with it.

    Raises:
        ArgumentError, DataError: A corpus cannot be read or has no pairs; or a mixture's steps are not given.
    """
    corpora = [
        read_corpus(corpus, of_corpus, tokenize, bad_rows[title_of(corpus)], say)
        for corpus, of_corpus in corpora_of(data_args)
    ]
    longest = [longest_source(each.rows) if each.encode is None else data_args.max_source_length for each in corpora]
    record_trained_length(tokenize.source, max(longest), known)
    seed = training_args.seed if training_args.data_seed is None else training_args.data_seed
    planner = planner_of(data_args, training_args, plan)
    if data_args.endless:
        return mix(corpora, planner, seed, data_args, training_args, say)
    rows, processes = corpora[0].rows, data_parallel_size(training_args)
    if plan.batches in ("grouped", "drawn"):
        together = training_args.train_batch_size * processes
        if processes > 1 and (more := -len(rows) % together) and not training_args.dataloader_drop_last:
            say(
                f"each epoch has {more:,} of its {len(rows):,} pairs once more, to fill the last batches of "
                f"{processes} processes; with --max_tokens it has each once"
            )
        return rows if plan.batches == "drawn" else LengthGroupedDataset(rows, together, seed)
    batches = BatchedDataset(rows, planner, seed, processes)
    average = batches.average_tokens()
    say(f"{len(batches):,} batches, on average of {average[0]:,.0f} source and {average[1]:,.0f} target tokens")
    return batches


def read_corpus(
    corpus: CorpusArguments, data_args: DataArguments, tokenize: PairTokenizer, bad_rows: BadRows, say: Callable
) -> Corpus:
    """
    Returns a corpus: its pairs of token ids, or its rows with what makes pairs of them while training.

    Args:
        data_args: The options of a run on this corpus alone.
    """
    if corpus.name is not None:
        say = partial(say_of, say, title_of(corpus))
    tokenize = tokenize.with_prefix(corpus.prefix)
    with naming_files(corpus, data_args):
        rows = read_split(data_args, "train", bad_rows, say, data_args.streaming)
    with naming_corpus(corpus, data_args):
        bad_rows.tell(partial(say_of, say, "train"))
        rows = first(rows, data_args.max_train_samples)
        check_languages(rows, data_args.columns, tokenize, title_of(corpus))
        if data_args.objective is None:
            say_split_tags(rows, tokenize, say)
        encode: Encode | None = None
        if data_args.endless:
            rows, encode = make_encoded(rows, data_args, tokenize, say)
        else:
            rows = prepare_training(rows, tokenize, data_args.overlong, data_args.preprocessing_num_workers, say)
    return Corpus(rows, encode, title_of(corpus, data_args))


def make_encoded(
    rows: Dataset | IterableDataset, data_args: DataArguments, tokenize: PairTokenizer, say: Callable
) -> tuple[Dataset | IterableDataset, Encode]:
    """Returns the rows of a corpus, and what makes token ids of them while training."""
    texts = rows if data_args.objective is not None else prepare_stream(rows, tokenize, data_args.overlong, say)
    if not data_args.drawn:
        return texts, PairEncoder(tokenize, data_args.overlong)
    encode = make_encoder(data_args, tokenize, say)
    say_chance(data_args, list(islice(texts, STREAM_SAMPLE)), tokenize, encode, say)
    return texts, encode


def planner_of(data_args: DataArguments, training_args: Seq2SeqTrainingArguments, plan: Plan) -> Planner:
    """Returns what distributes pairs over whole batches."""
    if data_args.max_tokens is None:
        return OfCount(training_args.per_device_train_batch_size, plan.batches == "grouped")
    return (PackedWithin if data_args.packing else PaddedWithin)(data_args.max_tokens)


def mix(
    corpora: list[Corpus],
    planner: Planner,
    seed: int,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
    say: Callable,
) -> Windows:
    """
    Returns batches of a stream or of several corpora, and says how often each is drawn from.

    Raises:
        ArgumentError: Nobody has said how many steps there are.
    """
    sizes = [pairs_of(each) for each in corpora]
    accumulated = training_args.gradient_accumulation_steps
    if training_args.max_steps <= 0:
        lengths = [[list_lengths(each.rows, side).sum() for each in corpora] for side in ("input_ids", "labels")]
        pairs, tokens = sum(size or 0 for size in sizes), max(map(sum, lengths))
        epochs, together = training_args.num_train_epochs, accumulated * data_parallel_size(training_args)
        steps = math.ceil(epochs * planner.about(pairs, int(tokens)) / together)
        raise ArgumentError(
            f"--datasets: a mixture has no epochs, for its corpora have passes of their own: give --max_steps; "
            f"{steps:,} steps have about as many pairs as {epochs:g} passes over all {pairs:,}"
        )
    stages = make_stages(data_args, sizes)
    for line in shares_in_words(stages, [str(each.name) for each, _ in corpora_of(data_args)]):
        say(line)
    return Windows(corpora, planner, seed, stages, accumulated)


def pairs_of(corpus: Corpus) -> int | None:
    """
    Returns how many pairs a corpus in memory has, about as many as some of its rows give where they are made while
    training; None for a stream.
    """
    rows, encode = corpus.rows, corpus.encode
    if not isinstance(rows, Dataset):
        return None
    if encode is None:
        return len(rows)
    some = rows.select(range(0, len(rows), -(-len(rows) // STREAM_SAMPLE)))
    made = encode(some[:], np.random.default_rng(0))
    return max(1, round(len(rows) * len(made["labels"]) / len(some)))


def shares_in_words(stages: list[Stage], names: list[str]) -> list[str]:
    """Returns a line for each stage of a mixture, which says how often each corpus is drawn from."""
    lines, begin = [], 1
    for stage in stages if len(names) > 1 else ():
        steps = "" if len(stages) == 1 else f"from step {begin} on, "
        drawn = [f"{share:.3g} of {name}" for name, share in zip(names, stage.shares, strict=True) if share]
        others = [name for name, share in zip(names, stage.shares, strict=True) if not share]
        none = f"; none of {' and '.join(others)}" if others else ""
        lines.append(f"{steps}shares of the pairs that are drawn: {', '.join(drawn)}{none}")
        begin = (stage.until_step or 0) + 1
    return lines
