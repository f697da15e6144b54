# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The validation sets of a run: read, tokenised, and laid behind one another in batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from datasets import Dataset, ReadInstruction, concatenate_datasets
from transformers import PreTrainedTokenizerBase, Seq2SeqTrainingArguments

from ..data.bad_rows import BadRows
from ..data.batches import EvaluationBatches
from ..data.pairs import PairTokenizer, check_languages, prepare_evaluation
from ..data.sources import files_of_folder, find_files
from ..data.templates import beginnings_of
from ..decoding.metrics import check_metrics
from ..decoding.scoring import Scoring
from ..errors import naming, say_of
from ..files import content_of
from .arguments import DataArguments
from .chance import evaluated_objective
from .evaluation import GenerationMetrics
from .launch import data_parallel_size
from .mixtures import corpora_of
from .plan import Plan
from .training_set import first, read_split


# Numbers of rows that a split may have, of which every percent is a whole number.
SIZES = [count * 10**digits for digits in range(2, 9) for count in (1, 2, 3, 5, 7)]


def read_validation(
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
    plan: Plan,
    tokenize: PairTokenizer,
    target: PreTrainedTokenizerBase,
    bad_rows: dict[str, BadRows],
    say: Callable,
) -> tuple[EvaluationBatches, GenerationMetrics | None]:
    """
    Returns the validation sets in batches and, where metrics are asked for, what computes them.

    Args:
        bad_rows: By the titles of splits and sets; those of each named set are added.
    """
    scoring = Scoring(data_args.sacrebleu_tokenize, data_args.unicode_form)
    references: list[list[str]] = []
    tokenised: dict[str, Dataset] = {}
    for name, of_set, prefix in sets_of(data_args):
        title = f"validation set {name!r}" if name else ""
        tell = partial(say_of, say, title) if name else say
        with naming(title):
            bad = bad_rows.setdefault(title or "validation", BadRows(of_set.on_bad_row, None, of_set.unwanted))
            for seen in trained_on(of_set, data_args):
                tell(f"{seen} too: its scores say nothing of texts that the model has not seen")
            with naming("--validation_file" if of_set.validation_file and not name else ""):
                rows: Any = first(read_split(of_set, "validation", bad, tell), of_set.max_eval_samples)
            bad.tell(partial(say_of, say, title or "validation"))
            prefixed = tokenize.with_prefix(prefix)
            check_languages(rows, of_set.columns, prefixed, "validation")
            say_untold(rows, prefixed, tell)
            if data_args.metrics:
                own: list[list[str]] = rows["target"][:]
                for note in check_metrics(data_args.metrics, own, rows["source"][:], scoring):
                    tell(note)
                references += own
            if data_args.objective is None:
                tokenised[name] = prepare_evaluation(rows, prefixed, data_args.preprocessing_num_workers, tell)
            else:
                tokenised[name] = evaluated_objective(rows, of_set, tokenize)
                made = f"of which {len(tokenised[name]):,} pairs are made, always the same"
                say(f"{title or 'validation'}: {len(rows):,} texts, {made}")
    batches = EvaluationBatches(
        concatenate_datasets(list(tokenised.values())),
        plan.eval_rows,
        plan.eval_tokens,
        data_parallel_size(training_args),
        {name: len(rows) for name, rows in tokenised.items()},
    )
    if not data_args.metrics:
        return batches, None
    return batches, GenerationMetrics(data_args.metrics, target, references, batches.places, scoring, batches.sets)


def sets_of(data_args: DataArguments) -> Iterator[tuple[str, DataArguments, str]]:
    """
    Yields each validation set's name, empty for a single one, the options of a run that has this set alone, and the
    text before its sources.
    """
    if not isinstance(data_args.validation_sets, dict):
        yield "", data_args, ""
        return
    for name, given in data_args.validation_sets.items():
        own = {option: value for option, value in given.items() if option != "prefix"}
        yield name, replace(data_args, validation_sets=None, **own), given.get("prefix", "")


def say_untold(rows: Dataset, tokenize: PairTokenizer, say: Callable) -> None:
    """Says how many sources of a set begin with none of the texts with which all sources of the training do."""
    begin = beginnings_of(tokenize.source)
    untold = [text for text in rows["source"][:] if not (tokenize.prefix + text).startswith(begin or "")]
    if untold:
        say(
            f"{len(untold):,} of {len(rows):,} sources do not begin as all of the training, with "
            f"{' or '.join(map(repr, begin))}: a set of --validation_sets may have a prefix; the first: "
            f"{untold[0][:60]!r}"
        )


def trained_on(of_set: DataArguments, data_args: DataArguments) -> list[str]:
    """
    Returns in words which files, or which split, of a validation set a run trains on too, by their content.

    Args:
        of_set: Options of a run that has this set alone.
    """
    corpora = [corpus for _, corpus in corpora_of(data_args)]
    if of_set.validation_file is None:
        name, config, split = of_set.dataset_name, of_set.dataset_config_name, of_set.validation_split
        same = [each for each in corpora if (each.dataset_name, each.dataset_config_name) == (name, config)]
        if split in (each.train_split for each in same):
            return [f"the split {split} of {name} is trained on"]
        shared = [share_rows(each.train_split, split) for each in same]
        surely = "are" if {True} in shared else "may be"
        return [f"rows of the split {split} of {name} {surely} trained on"] if any(map(any, shared)) else []
    training = [Path(file) for corpus in corpora for file in files_of(corpus)]
    files = find_files(of_set.validation_file)
    return [f"{file} is a training file" for file in files if any(is_same(Path(file), other) for other in training)]


def files_of(corpus: DataArguments) -> Sequence[str | Path]:
    """Returns the files of a corpus; none of a dataset that is not a folder of such files."""
    if corpus.dataset_name is None:
        return find_files(corpus.train_file or ())
    folder = Path(corpus.dataset_name)
    names = split_names(corpus.train_split) if folder.is_dir() else []
    return [file for name in names for file in files_of_folder(folder, corpus.dataset_config_name, name) or ()]


def split_names(split: str) -> list[str]:
    """Returns the splits that a split is made of: "train" and "test" of "train[:10%]+test"."""
    return [part.partition("[")[0].strip() for part in split.split("+")]


def share_rows(split: str, other: str) -> set[bool]:
    """
    Returns {True} if two splits, or parts of them, have rows in common, as "train+test" and "test[:10%]" have, and
    {False} if they have none. For "train[:1000]" and "train[90%:]" the number of rows decides, of which `SIZES` are
    tried: {True, False}. The set is empty if `datasets` will refuse a split, or a part never has rows.
    """
    if "all" in (split, other):
        return {True}
    if "all" in split_names(split) + split_names(other):
        return {True, False}
    found = set()
    for size in SIZES:
        try:
            these, those = parts_of(split, size), parts_of(other, size)
        except ValueError:  # `datasets` says what is wrong when it is to read them
            return set()
        if all(part.from_ < part.to for part in these + those):
            pairs = product(these, those)
            found.add(any(a.splitname == b.splitname and max(a.from_, b.from_) < min(a.to, b.to) for a, b in pairs))
    return found


def parts_of(split: str, size: int) -> list[Any]:
    """Returns the parts of a split whose names have so many rows: each a name, and from which row to which."""
    return ReadInstruction.from_spec(split).to_absolute(dict.fromkeys(split_names(split), size))


def is_same(file: Path, other: Path) -> bool:
    """Returns whether two files are one, or have the same content."""
    if file.resolve() == other.resolve():
        return True
    return file.stat().st_size == other.stat().st_size and content_of(file) == content_of(other)
