# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of what models have learnt."""

import shlex
from statistics import mean, median

from measuring import RESULTS, spread, stored
from tabulating import PRONUNCIATION, TRANSLATION, TYPES, markdown, measured, over_seeds, seeds_of, table


DECODINGS = ("greedy", "5 beams")  # of every recipe's models
BASE = "the recipe"  # that methods are compared with
# By recipe: the test set, a metric with its title, and a published figure of a single model with its decoding.
PUBLISHED = {
    "multi30k-en-de": (
        "English to German, Multi30k, test of 2016",
        ("sacrebleu", "BLEU"),
        "41.02 ([Wu et al. 2021](https://github.com/LividWo/Revisit-MMT)), 5 beams, 2.6 M",
    ),
    "g2p-pronasyl": (
        "pronunciations of English words, CMUdict, PRONASYL 2007",
        ("wrong_words", "wrong words, %"),
        "20.6 ([g2p-seq2seq](https://github.com/cmusphinx/g2p-seq2seq)), greedy, some 4 M",
    ),
}


@table
def published() -> str:
    """Returns the scores of those recipes for published test sets that have been trained."""
    rows, hours, hardware = [], [], {}
    for name, (task, (metric, title), others) in PUBLISHED.items():
        if not (RESULTS / f"recipe_{name}.json").exists():
            continue
        stored_rows = checked(f"recipe_{name}")["rows"]
        cells = []
        for decoding in DECODINGS:
            found = [row for row in stored_rows if row["decoding"] == decoding]
            cells.append(spread(row[metric] for row in found))
        size = f"{found[0]['parameters'] / 1e6:.1f} M"
        rows.append([task, title, others, *cells, size, str(len(found))])
        hours += [row["seconds"] / 3600 for row in found]
        hardware |= dict.fromkeys(row["hardware"] for row in found)
    head = ["test set", "score", "published", "hf-xformer, greedy", "5 beams", "parameters", "seeds"]
    span = " to ".join(dict.fromkeys(f"{each:.1f}" for each in (min(hours), max(hours))))
    where = ", ".join(hardware)
    about = f"Single models, trained from scratch in {span} hours on {where}"
    return markdown(head, rows, about, "mean and standard deviation over the seeds")


@table
def recipe_quickstart() -> str:
    return recipe_scores("g2p-quickstart", PRONUNCIATION)


@table
def recipe_pronasyl() -> str:
    return recipe_scores("g2p-pronasyl", PRONUNCIATION, by="`make reproduce-g2p`: ")


@table
def tried_pronasyl() -> str:
    """Returns the validation scores of trainings in which options were other than in the recipe, beside its own."""
    tried = stored("recipe_g2p-pronasyl_tried")
    trainings: dict[tuple, dict[str, str]] = {}
    for row in tried["rows"]:
        training = row["changed"] or "the recipe", str(row["seed"]), f"{row['steps']:,}"
        trainings.setdefault(training, {})[row["decoding"]] = f"{row['wrong_words']:.2f}"
    rows = [[*training, *(found.get(each, "") for each in DECODINGS)] for training, found in trainings.items()]
    head = ["changed", "seed", "steps", *(f"wrong validation words, %, {each}" for each in DECODINGS)]
    seeds = " ".join(map(str, sorted({row["seed"] for row in tried["rows"]})))
    return markdown(head, rows, measured(tried, f"recipes.py g2p-pronasyl --seeds {seeds} --changed …"))


@table
def recipe_multi30k() -> str:
    return recipe_scores("multi30k-en-de", TRANSLATION, by="`make reproduce-multi30k`: ")


@table
def examples_pronasyl() -> str:
    return examples("recipe_g2p-pronasyl", "the first of the test set, 5 beams", decoding="5 beams")


@table
def examples_multi30k() -> str:
    return examples("recipe_multi30k-en-de", "the first of the test set, 5 beams", decoding="5 beams")


def checked(name: str) -> dict:
    """
    Returns the stored figures of a recipe.

    Raises:
        SystemExit: They cannot be averaged: some were computed in another way, or a seed has no row of a decoding.
    """
    result = stored(name)
    for metric in {key for row in result["rows"] for key in row if key.endswith("_signature")}:
        if len(ways := {row.get(metric) for row in result["rows"]}) > 1:
            raise SystemExit(f"{name}.json has rows of several kinds, by {metric}: {', '.join(map(str, ways))}")
    seeds = [{row["seed"] for row in result["rows"] if row["decoding"] == each} for each in DECODINGS]
    if odd := set.union(*seeds) - set.intersection(*seeds):
        raise SystemExit(f"{name}.json lacks a decoding of seed {min(odd)}: run recipes.py again")
    return result


def recipe_scores(name: str, metrics: dict[str, str], by: str = "") -> str:
    """Returns the scores of a recipe's models by their decoding: mean and spread over the seeds, and those of each."""
    result = checked(f"recipe_{name}")
    found = result["rows"]
    metrics = {metric: title for metric, title in metrics.items() if all(metric in row for row in found)}
    first, *_ = metrics
    rows = []
    for decoding, *means in over_seeds(found, "decoding", metrics):
        of_each = ", ".join(f"{row[first]:.2f}" for row in found if row["decoding"] == decoding)
        rows.append([decoding, *means, of_each])
    parameters, steps = found[0]["parameters"], found[0]["steps"]
    head = [f"{parameters / 1e6:.2f} M parameters, {steps:,} steps", *metrics.values()]
    if len({row["seed"] for row in found}) > 1:
        head.append(f"{metrics[first]}, each seed")
    rows = [row[: len(head)] for row in rows]
    seconds = {row["seed"]: row["seconds"] for row in found}.values()
    minutes = dict.fromkeys(f"{each / 60:,.0f}" for each in (min(seconds), max(seconds)))
    hardware = " and ".join(dict.fromkeys(row["hardware"] for row in found))
    took = f"a training took {' to '.join(minutes)} min on {hardware}"
    seeds = " ".join(map(str, sorted({row["seed"] for row in found})))
    command = f"recipes.py {name} --seeds {seeds}"
    command += " --raw test_2016_flickr.de.gz" * ("raw_bleu" in metrics)
    about = [by + measured(result, command), took, seeds_of(found)]
    signatures = {title: found[0].get(f"{metric}_signature") for metric, title in metrics.items()}
    about += [f"{title} `{signature}`" for title, signature in signatures.items() if signature]
    return markdown(head, rows, *about)


def examples(name: str, about: str, **of: object) -> str:
    """Returns the texts that are kept in the first row with some values, beside their references."""
    row = next(row for row in stored(name)["rows"] if of.items() <= row.items())
    rows = [[each["source"], " / ".join(each["references"]), each["prediction"]] for each in row["examples"]]
    return markdown(["source", "reference", "model"], rows, f"Seed {row['seed']}", about)


@table
def methods() -> str:
    return by_method("methods", "methods.py data/g2p")


@table
def ablation() -> str:
    return by_method("ablation", "methods.py data/g2p --ablation")


def by_method(name: str, command: str) -> str:
    """Returns the error rates of the quickstart's task by the method, and what it changes seed by seed."""
    result, (error, *_) = stored(name), PRONUNCIATION
    found = result["rows"]
    sizes = {row["method"]: [f"{row['parameters'] / 1e6:.2f} M", f"{row['steps']:,}"] for row in found}
    base = {row["seed"]: row[error] for row in found if row["method"] == BASE}
    rows = []
    for method, (title, *means) in zip(sizes, over_seeds(found, "method", PRONUNCIATION), strict=True):
        changes = [row[error] - base[row["seed"]] for row in found if row["method"] == method]
        rows.append([title, *sizes[method], *means, "" if method == BASE else spread(changes, sign="+")])
    head = ["validation words", "parameters", "steps", *PRONUNCIATION.values()]
    head.append(f"difference in {PRONUNCIATION[error]}")
    about = f"differences are from {BASE} of the same seed"
    return markdown(head, rows, measured(result, command), seeds_of(found), about)


@table
def length_generalisation() -> str:
    result, rows = stored("length_generalisation"), []
    lengths = [name.removeprefix("per_") for name in result["rows"][0] if name.startswith("per_")]
    for task in dict.fromkeys(row["task"] for row in result["rows"]):
        of_task = [row for row in result["rows"] if row["task"] == task]
        for positions in dict.fromkeys(row["positions"] for row in of_task):
            found = [row for row in of_task if row["positions"] == positions]
            means = [
                [mean(row[f"{name}_{each}"] for row in found) for name in ("exact_match", "per")] for each in lengths
            ]
            rows.append([task, positions, *(f"{right:.0f} ({edits:.0f})" for right, edits in means)])
    head = ["texts right, % (edits per 100 symbols)", "positions", *(f"{length} symbols" for length in lengths)]
    seeds = " ".join(str(seed) for seed in sorted({row["seed"] for row in result["rows"]}))
    command = f"length_generalisation.py --seeds {seeds}"
    said = "means of the seeds" if " " in seeds else seeds_of(result["rows"])
    return markdown(head, rows, measured(result, command), said)


@table
def toolkits() -> str:
    rows, results = [], [stored("toolkits"), stored("toolkits_bf16")]
    times = sorted({row["minutes"] for result in results for row in result["rows"]})
    for result, dtype in zip(results, TYPES, strict=True):
        for name in dict.fromkeys(row["toolkit"] for row in result["rows"]):
            of_it = [row for row in result["rows"] if row["toolkit"] == name]
            # After another tuning, or of another version, there are rows from before.
            found = {row["minutes"]: row for row in of_it if row_choice(row) == row_choice(of_it[-1])}
            last = found[max(found)]
            speed, updates = (f"{last[key]:,}" for key in ("target_tokens_per_second", "updates"))
            tuned = f"{last['rate']:g}, {last['tokens']:,}"
            scores = (f"{found[minute]['bleu']:.1f}" if minute in found else "" for minute in times)
            rows.append([f"{name} {last['version']}, {dtype}", tuned, speed, updates, *scores])
    head = ["toolkit; speed and updates at its last time", "rate, tokens", "target tokens/s", "updates"]
    head += [f"BLEU after {minute:g} min" for minute in times]
    trained = list(dict.fromkeys(row["toolkit"] for row in results[0]["rows"]))
    given = {"JoeyNMT": "--joey ../joey-env", "eole": "--eole ../eole-env"}
    words = ["--toolkits", *map(shlex.quote, trained), *(given[name] for name in trained if name in given)]
    command = f"toolkits.py --data Revisit-MMT/data/multi30k-en-de {' '.join(words)}"
    return markdown(
        head, rows, measured(results[0], command, results[1]), "bfloat16 with `--bf16 --minutes 10`", "one seed"
    )


def row_choice(row: dict) -> tuple[str, float, int]:
    """Returns the toolkit's version, the learning rate and the tokens of a batch that gave a row."""
    return row["version"], row["rate"], row["tokens"]


@table
def long_text() -> str:
    return chapters(stored("long_text"), {}, "long_text.py --whole --seeds 0")


@table
def examples_long_text() -> str:
    return examples("long_text", "the beginning of the first test chapter, decoded greedily", model="blocks")


@table
def long_text_compared() -> str:
    speed = stored("long_text_speed")["rows"]
    models = dict.fromkeys(row["model"] for row in speed)
    seconds = {model: median(row["step"] for row in speed if row["model"] == model) for model in models}
    said = "seconds of steps in turn, the machine idle, the median of three rounds"
    return chapters(stored("long_text_compared"), seconds, "long_text.py", said)


def chapters(result: dict, seconds: dict[str, float], command: str, *remarks: str) -> str:
    """Returns the scores of models on chapters of the Bible, with the seconds of a step, if there are any."""
    columns = {"loss": "validation loss", "chrf": "chrF", "sacrebleu": "BLEU", "in_order": "verses in order, %"}
    found = [{**row, "training": f"{row['model']}, {row['steps']:,} steps"} for row in result["rows"]]
    rows = [*over_seeds(found, "training", columns)]
    copied = (f"{found[0][f'source_{name}']:.2f}" for name in ("chrf", "sacrebleu"))
    rows.append(["the sources as they are", "", *copied, ""])
    head = ["chapters of the Bible", *columns.values()]
    if seconds:
        head.append("seconds a step")
        for row in rows:
            row.append(f"{seconds[row[0].partition(',')[0]]:.2f}" if "," in row[0] else "")
    return markdown(head, rows, measured(result, command), seeds_of(found), *remarks)


@table
def pretraining() -> str:
    result = stored("pretraining")
    before, after = (f"{result['machine'][name]:,}" for name in ("pretrain_steps", "finetune_steps"))
    head = [f"{before} steps on plain text, {after} on pairs", "validation loss", "CER, %", "exact match, %"]
    rows = over_seeds(result["rows"], "start", ["loss", "cer", "exact_match"])
    by = "`make pretraining`: " + measured(result, f"pretraining.py{elsewhere(result)}")
    return markdown(head, rows, by, seeds_of(result["rows"]))


@table
def languages() -> str:
    result = stored("languages")
    rows = []
    for language, name in {"de": "German", "fr": "French", "it": "Italian"}.items():
        found = [row for row in result["rows"] if language in row]
        alone, together = (
            spread((row[language] for row in found if (row["model"] == language) is is_alone), 1)
            for is_alone in (True, False)
        )
        rows.append([f"English to {name}", alone, together])
    head = [f"chrF after {result['machine']['steps']:,} steps", "a model of the pair alone", "one model of all three"]
    by = "`make languages`: " + measured(result, f"languages.py{elsewhere(result)}")
    return markdown(head, rows, by, seeds_of(result["rows"]))


def elsewhere(result: dict) -> str:
    """Returns the option for rows that would be refused beside stored ones, which do not say what they are of."""
    return "" if "version" in result["machine"] else " --results build/mine"
