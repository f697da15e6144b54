# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A training's record, `run.json`: what it was trained and evaluated on, by which options, and from which starts."""

from collections.abc import Sequence
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from ..decoding.options import search_of
from ..files import RECORD
from ..hub.privacy import cleaned, public_path
from ..hub.record import listed, make_record
from ..training.arguments import DataArguments, ModelArguments
from ..training.chance import recorded_chance
from ..training.early_stopping import has_stopped_early
from ..training.mixtures import corpora_of, names_of, title_of
from ..training.parts import describe_parts
from ..training.prepare import Run
from ..training.recipe import split_command_line
from ..training.rotation import step_of_best
from ..training.throughput import seconds_of, sums_in
from ..training.validation import split_names


def record_of(
    trainer: Seq2SeqTrainer,
    run: Run,
    argv: Sequence[str],
    model_args: ModelArguments,
    data_args: DataArguments,
) -> dict:
    """Returns what is to be written of a run; of a finished one that has a record, its evaluation alone."""
    evaluated = evaluation_of(trainer, run, data_args)
    if run.finished is not None and Path(str(trainer.args.output_dir), RECORD).exists():
        return {} if run.validation is None else evaluated
    recipe, words = split_command_line(argv)
    record = make_record(
        trainer,
        run.starts,
        recipe,
        words,
        model_args.model_name_or_path,
        trained_data(data_args),
        count_bad_rows(run, data_args),
        run.plan.batch,
        seconds_of(trainer.state),
    )
    best = step_of_best(trainer)
    if data_args.datasets is not None:
        record |= corpora_for_record(trainer, data_args)
    more = {
        **data_of_starts(run.starts, record["trained_on"]),
        "commits": commits_of(run.recipe.options),
        "recipe_options": cleaned(run.recipe.options),
        "weights_of_step": trainer.state.global_step if best is None else best,
        "stopped_early": has_stopped_early(trainer.state, data_args)
        and trainer.state.global_step < trainer.state.max_steps,
        "decisions": asdict(run.plan),
        **recorded_chance(data_args),
        "recipe_changes": run.recipe.history,
        "optimisation": record["optimisation"]
        | describe_parts(run.model, model_args)
        | {"precision": run.recipe.options["precision"]}
        | {name: value for name in ("ema_decay", "r_drop") if (value := getattr(model_args, name)) is not None},
    }
    return record | evaluated | more


def trained_data(data_args: DataArguments) -> str:
    """Returns in a record's words what a run was trained on: files, a split of a dataset, or the names of corpora."""
    if data_args.datasets is not None:
        return listed(names_of(data_args))
    files = None if data_args.dataset_name else data_args.train_file
    return data_in_words(files, data_args, data_args.train_split, data_args.max_train_samples)


def data_of_starts(starts: Sequence[dict], last: str) -> dict[str, Any]:
    """Returns the data of all starts of a run: in words, of the last start those that are given, and files."""
    files = [file for start in starts for file in start.get("train_files", ())]
    known = {start["from_step"]: start["trained_on"] for start in starts if "trained_on" in start}
    begun: list[tuple[int, str]] = []  # steps at which the data became others
    for step, data in known.items():
        if not begun or data != begun[-1][1]:
            begun.append((step, data))
    said = last
    if len(begun) > 1:
        words = [data for _, data in begun[:-1]] + [last]
        said = "; ".join(f"from step {step:,}: {data}" for (step, _), data in zip(begun, words, strict=True))
    return {"trained_on": said, "train_files": list(dict.fromkeys(files))}


def evaluation_of(trainer: Seq2SeqTrainer, run: Run, data_args: DataArguments) -> dict[str, Any]:
    """
    Returns in a record's words what a run was evaluated on, files or a split of a dataset, and how: the rows of each
    set, how texts were decoded if there were metrics of them, and the metrics' signatures.
    """
    sets = {} if run.validation is None else run.validation.sets
    rows = {name: part.stop - part.start for name, part in sets.items()}
    found: dict[str, Any] = {"evaluated_sets": {}, "evaluated_rows": rows, "evaluated_split": "validation"}
    if data_args.validation_sets is not None:
        files = {name: listed(each) for name, each in data_args.validation_files.items()}
        found |= {"evaluated_on": f"the mean of {' and '.join(files)}", "evaluated_sets": files}
    elif run.validation is None:
        found["evaluated_on"] = ""
    else:
        split = data_args.validation_split
        found["evaluated_on"] = data_in_words(data_args.validation_file, data_args, split)
        if data_args.validation_file is None:
            found["evaluated_split"] = split
    signatures = getattr(trainer.compute_metrics, "signatures", {})
    return found | {"validation_decoding": decoding_of(trainer, run), "signatures": signatures}


def decoding_of(trainer: Seq2SeqTrainer, run: Run) -> dict[str, Any] | None:
    """Returns how the Trainer decodes the texts of an evaluation; None if it has no metrics of texts."""
    if run.metrics is None:
        return None
    config, args = copy(run.model.generation_config), cast(Seq2SeqTrainingArguments, trainer.args)
    config.num_beams = args.generation_num_beams or config.num_beams
    length = args.generation_max_length or config.max_length
    return {"num_beams": config.num_beams or 1} | search_of(config) | {"max_length": length}


def data_in_words(files: Sequence[str] | None, data_args: DataArguments, split: str, most: int | None = None) -> str:
    """
    Returns in a record's words which data were read.

    Args:
        files: None for the dataset. split: Of that.
        most: Rows that were read at most; None for all.
    """
    words = [listed(files or data_args.dataset_name or [])]
    if not files and data_args.dataset_name:
        words += [data_args.dataset_config_name] if data_args.dataset_config_name else []
        words.append(f"split {split}")
    return ", ".join([*words, *([] if most is None else [f"the first {most:,} rows"])])


def commits_of(recipe: dict[str, Any]) -> dict[str, Any]:
    """Returns the commits of model and data that a recipe has from the Hub; of a model in a folder, its digest."""
    names = ("model_name_or_path", "dataset_revision")
    return {name: recipe[name] for name in names if recipe.get(name) is not None}


def train_files(data_args: DataArguments) -> list[str]:
    """Returns the files and folders of a training, as others may see them; none of a data set on the Hub."""
    files: list[str | Path] = []
    for _, corpus in corpora_of(data_args):
        files += corpus.train_file or ()
        if corpus.dataset_name and Path(corpus.dataset_name).is_dir():
            for name in split_names(corpus.train_split):
                files += sorted(Path(corpus.dataset_name).rglob(f"*{name}*"))
    return list(dict.fromkeys(map(public_path, files)))


def count_bad_rows(run: Run, data_args: DataArguments) -> dict[str, Any]:
    """Returns how many bad rows of each split were left out, as far as they were counted."""
    found: dict[str, Any] = {title: bad.summary() for title, bad in run.bad_rows.items() if bad.total}
    for corpus, of_corpus in corpora_of(data_args):
        if of_corpus.streaming and of_corpus.on_bad_row == "skip":
            found[title_of(corpus)] = "counted in the log alone: a stream is read while the model trains"
    return found


def corpora_for_record(trainer: Seq2SeqTrainer, data_args: DataArguments) -> dict[str, Any]:
    """Returns what a record says of a mixture: the data of each corpus, and what the model was trained on."""
    counts = (sums_in(trainer.state) or {}).get("corpora", {})
    found, said = [], []
    for corpus, of_corpus in corpora_of(data_args):
        data = trained_data(of_corpus)
        pairs, source, target = counts.get(corpus.name, (0, 0, 0))
        tokens = {"source_tokens": source, "target_tokens": target}
        found.append({"name": corpus.name, "data": data, "pairs": pairs, **tokens, **recorded_chance(of_corpus)})
        said.append(f"{corpus.name} ({data}), {source + target:,} tokens")
    return cleaned({"corpora": found, "trained_on": "; ".join(said)})
