# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Several corpora of a run: their options, checked, and the shares in which pairs are drawn."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from transformers import Seq2SeqTrainingArguments

from ..data.windows import Stage
from ..errors import ArgumentError, did_you_mean, naming
from ..yaml_files import read_yaml
from .arguments import CorpusArguments, DataArguments, StageArguments
from .chance import check_chance
from .schema import options, read_mapping


# Options of a corpus that a recipe has as well, of which it gives the default.
SHARED = tuple(each.name for each in fields(CorpusArguments) if hasattr(DataArguments, each.name))
OWN = ("train_file", "dataset_name", "dataset_config_name")  # of them, those that say what the corpus is
OF_DATASETS = ("dataset_config_name", "train_split")  # which files do not have


def corpora_of(data_args: DataArguments) -> list[tuple[CorpusArguments, DataArguments]]:
    """
    Returns the corpora that a run trains on, each with the options of a run on that corpus alone.

    Raises:
        ArgumentError: An option of a corpus is unknown or of the wrong type, or a name comes twice.
    """
    if data_args.datasets is None:
        return [(CorpusArguments(), data_args)]
    found = []
    for number, content in enumerate(mappings("datasets", data_args.datasets), start=1):
        corpus = read_mapping(CorpusArguments, content, f"--datasets, corpus {content.get('name') or number}")
        where = f"--datasets, corpus {corpus.name or number}"
        if bool(corpus.train_file) == bool(corpus.dataset_name):
            raise ArgumentError(f"{where}: give either train_file or dataset_name")
        data = corpus.dataset_name or (corpus.train_file or [""])[0]
        if corpus.train_file and (useless := [each for each in OF_DATASETS if getattr(corpus, each)]):
            raise ArgumentError(f"{where}: {useless[0]} does nothing with train_file: it is for dataset_name")
        # A hidden file, or a folder such as "..", has nothing before its first dot.
        corpus = replace(corpus, name=corpus.name or Path(data).name.lstrip(".").partition(".")[0] or data)
        if not str(corpus.name).isprintable() or set(str(corpus.name)) & set("|`"):
            raise ArgumentError(
                f"{where}: a name is one line without | and `, as tables and logs have it: {corpus.name!r}"
            )
        given = {name: getattr(corpus, name) for name in SHARED}
        given = {name: value for name, value in given.items() if name in OWN or value is not None}
        # Metrics are those of the validation sets, which are no corpora.
        of_corpus = replace(data_args, datasets=None, temperature=None, stages=None, metrics=None, **given)
        found.append((corpus, of_corpus))
    names = [corpus.name for corpus, _ in found]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise ArgumentError(f"--datasets: two corpora are called {doubled[0]!r}: give each a name of its own")
    return found


def names_of(data_args: DataArguments) -> list[str]:
    """Returns the names of a mixture's corpora; none for a run on one."""
    return [corpus.name for corpus, _ in corpora_of(data_args) if corpus.name is not None]


def mappings(option: str, value: Any) -> list[dict]:
    """Returns the list of mappings that an option has, as such or as YAML; raises ArgumentError for anything else."""
    if isinstance(value, str):
        try:
            value = read_yaml(value)
        except ArgumentError as error:
            raise ArgumentError(f"--{option}: {error}") from error
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        raise ArgumentError(f"--{option}: expected {options()[option].expected}, got {value!r:.80}")
    return value


def stages_of(data_args: DataArguments, names: Sequence[str]) -> list[StageArguments]:
    """Returns the stages that a run is asked to have; raises ArgumentError if they cannot be read."""
    if data_args.stages is None:
        return []
    found = []
    for number, content in enumerate(mappings("stages", data_args.stages), start=1):
        stage = read_mapping(StageArguments, content, where := f"--stages, stage {number}")
        if stage.weights is None:
            raise ArgumentError(f"{where}: give the weights of its corpora")
        for name in stage.weights:
            if name not in names:
                raise ArgumentError(
                    f"{where}: no corpus {name!r}{did_you_mean(str(name), names)}; there are {', '.join(names)}"
                )
        check_weights(where, stage.weights)
        found.append(stage)
    return found


def check_weights(where: str, weights: dict[str, Any]) -> None:
    """Refuses weights that are no numbers of 0 or more, and weights that are all 0."""
    for name, weight in weights.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 <= weight < math.inf:
            raise ArgumentError(f"{where}: the weight of corpus {name!r} must be 0 or more, got {weight!r}")
    if not any(weights.values()):
        raise ArgumentError(f"{where}: all weights are 0, so that nothing is drawn: {', '.join(weights)}")


def check_mixture(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> None:
    """Refuses corpora, weights, a temperature and stages that contradict each other, or would never count."""
    if data_args.datasets is None:
        for name in ("temperature", "stages"):
            if getattr(data_args, name) is not None:
                raise ArgumentError(f"--{name} does nothing without --datasets")
        return
    corpora = corpora_of(data_args)
    names = [str(corpus.name) for corpus, _ in corpora]
    weights = {str(corpus.name): corpus.weight for corpus, _ in corpora if corpus.weight is not None}
    stages = stages_of(data_args, names)
    if weights:
        check_weights("--datasets", weights)
        if without := [name for name in names if name not in weights]:
            raise ArgumentError(f"--datasets: corpus {without[0]!r} has no weight, and others have: give all or none")
    ways = {"weight": weights, "--temperature": data_args.temperature, "--stages": stages}
    if len(given := [name for name, value in ways.items() if value]) > 1:
        raise ArgumentError(f"{given[0]} and {given[1]}: both say how often pairs are drawn: give one")
    for corpus, of_corpus in corpora:
        with naming_corpus(corpus, of_corpus):
            check_chance(of_corpus)
            if corpus.prefix and of_corpus.objective is not None:
                raise ArgumentError("prefix does nothing with an objective, which makes the sources: leave it out")
        needed = {
            "weights of all corpora, or --stages": not of_corpus.streaming or weights or stages or len(corpora) == 1,
            "--max_steps": not of_corpus.endless or training_args.max_steps > 0,
        }
        if missing := [name for name, value in needed.items() if not value]:
            raise ArgumentError(
                f"--datasets: nobody knows how many pairs corpus {corpus.name!r} has, which are made while training: "
                f"give {missing[0]}"
            )
    check_stages(stages, training_args)


def check_stages(stages: list[StageArguments], training_args: Seq2SeqTrainingArguments) -> None:
    """Refuses stages that never end or never come."""
    last, steps = 0, training_args.max_steps
    for number, stage in enumerate(stages, start=1):
        where, until = f"--stages, stage {number}", stage.until_step
        if number == len(stages):
            if until is not None:
                raise ArgumentError(f"{where}: the last stage is the rest of the run: leave until_step {until} out")
        elif until is None:
            raise ArgumentError(f"{where} never ends, so that stage {number + 1} never comes: give its until_step")
        elif until <= last:
            raise ArgumentError(f"{where}: until_step {until} must be above {last}, where it begins")
        elif 0 < steps <= until:
            raise ArgumentError(
                f"{where}: until_step {until}: stage {number + 1} never comes, for --max_steps is {steps}"
            )
        else:
            last = until
    if stages and training_args.ignore_data_skip:
        raise ArgumentError("--ignore_data_skip would begin --stages anew when the run resumes: leave it out")


def make_stages(data_args: DataArguments, sizes: Sequence[int | None]) -> list[Stage]:
    """
    Returns the shares in which pairs are drawn.

    Args:
        sizes: The number of each corpus's pairs; None for a stream's.
    """
    corpora = [corpus for corpus, _ in corpora_of(data_args)]
    if len(corpora) == 1:
        return [Stage()]
    names = [str(corpus.name) for corpus in corpora]
    if stages := stages_of(data_args, names):
        wanted = [(each.weights or {}, each.until_step) for each in stages]
        return [Stage(shares([weights.get(name, 0) for name in names]), until) for weights, until in wanted]
    if corpora[0].weight is not None:
        return [Stage(shares([corpus.weight or 0.0 for corpus in corpora]))]
    known, power = [size or 0 for size in sizes], 1 / (data_args.temperature or 1.0)
    # Fractions, since powers of large numbers have none.
    return [Stage(shares([(size / max(known)) ** power for size in known]))]


def shares(weights: Sequence[float]) -> tuple[float, ...]:
    """Returns weights that add up to 1."""
    # The sum of huge weights could be infinite.
    scaled = [weight / max(weights) for weight in weights]
    return tuple(weight / math.fsum(scaled) for weight in scaled)


def title_of(corpus: CorpusArguments, data_args: DataArguments | None = None) -> str:
    """Returns what messages call a corpus, with its files or its dataset if these are given."""
    title = "train" if corpus.name is None else f"corpus {corpus.name!r}"
    if data_args is None:
        return title
    data = data_args.dataset_name or ", ".join(data_args.train_file or ())
    return data if corpus.name is None else f"{title} ({data})"


def naming_corpus(corpus: CorpusArguments, data_args: DataArguments) -> AbstractContextManager[None]:
    """Has an error about one of several corpora begin with its name."""
    return naming("" if corpus.name is None else title_of(corpus, data_args))


def naming_files(corpus: CorpusArguments, data_args: DataArguments) -> AbstractContextManager[None]:
    """Has an error about training files begin with the name of their corpus, or with the option that gives them."""
    alone = "--train_file" if data_args.train_file else ""
    return naming(alone if corpus.name is None else title_of(corpus, data_args))
