# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Trains a recipe once for each seed, scores its models on the recipe's test set, and prints a row for each decoding.

  make reproduce-g2p DATA=g2p-pronasyl SEEDS="0 1 2"             # prepares the data, and runs this
  make reproduce-multi30k DATA=Revisit-MMT/data/multi30k-en-de SEEDS="0 1 2"
  python benchmarks/recipes.py g2p-quickstart --seeds 0 1 2 --bf16 --results build/mine  # data of `make quickstart`
  python benchmarks/recipes.py g2p-pronasyl --max_steps 20 --max_samples 100 --results build/tried \\
    --output_dir build/tried
  python benchmarks/recipes.py g2p-pronasyl --changed dropout=0.3 num_train_epochs=18   # is the recipe better so?
  python benchmarks/recipes.py g2p-pronasyl --changed            # the recipe itself, by the same words

A run that was stopped goes on from its last checkpoint in --output_dir, and seeds that are in recipe_NAME.json of
--results are not trained again. Every model decodes the test set greedily and with five beams. Losses and scores of
the training go to logs/ of --results. Whole trainings of a recipe as it is get a card.

The test set is for recipes that have been chosen: with --changed, the validation set is decoded in its place, and rows
go to recipe_NAME_tried.json.

--raw adds scores of the German against the sentences as people wrote them: Moses's rules join words and punctuation
again (pip install sacremoses), and sacreBLEU cuts both in its own way and ignores case, which the model was not given.
The references, joined so themselves, reach BLEU 99.9.
"""

import json
import re
from argparse import Namespace
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tabulating import PRONUNCIATION, TRANSLATION, print_table
from verbs import (
    ROOT,
    Figures,
    comparison_parser,
    deciding,
    evaluate,
    first_rows,
    hf_xformer,
    keep_log,
    read_lines,
    read_recipe,
    version_of,
)


@dataclass(frozen=True)
class Task:
    """
    A recipe's test set, and how its models are scored.

    Args:
        test_file: Its rows, in the project's folder.
        metrics: Titles of columns by the names of metrics.
        options: Further options of `hf-xformer evaluate`.
        published: Figures of others, for the printed table.
    """

    test_file: str
    metrics: dict[str, str]
    options: tuple[str, ...] = ()
    published: str = ""


LEAST_BLEU = 95  # of a test set's targets, joined by Moses's rules, against themselves as people wrote them
EXAMPLES = 5  # texts that are kept beside the scores
# By the name of the recipe in configs/train.
TASKS = {
    "g2p-quickstart": Task("data/g2p/test.jsonl", PRONUNCIATION),
    "g2p-pronasyl": Task(
        "data/pronasyl/test.jsonl",
        PRONUNCIATION,
        published="wrong words 20.6 (g2p-seq2seq)",
    ),
    "multi30k-en-de": Task(
        "data/multi30k/test.jsonl",
        TRANSLATION,
        ("--sacrebleu_tokenize", "none"),
        published="BLEU 41.02 (Wu et al. 2021)",
    ),
}
DECODINGS: dict[str, tuple[str, ...]] = {"greedy": (), "5 beams": ("--num_beams", "5")}


def main() -> None:
    args = arguments()
    task, path = TASKS[args.recipe], f"configs/train/{args.recipe}.yaml"
    raw = {}
    if args.raw is not None:
        check_raw(ROOT / task.test_file, args.raw)
        raw = {"raw_text": version_of(read_lines(args.raw))}
    trial = args.changed is not None
    name = f"recipe_{args.recipe}{'_tried' * trial}"
    scored = ROOT / (read_recipe(path)["validation_file"] if trial else task.test_file)
    about = {"steps": args.max_steps, "samples": args.max_samples, "bf16": args.bf16}
    figures = Figures(name, [deciding(path), DECODINGS, task.options], args.results, [scored], **about)
    if raw and {row["raw_text"] for row in figures.rows() if "raw_text" in row} - {*raw.values()}:
        raise SystemExit(f"{figures.path} has scores against other sentences than those of --raw {args.raw}")
    changed = {"changed": " ".join(args.changed)} if trial else {}
    for seed in args.seeds:
        rows_of = {decoding: {"decoding": decoding, "seed": seed, **changed} for decoding in DECODINGS}
        left = {decoding: of for decoding, of in rows_of.items() if not figures.has(of)}
        if not left:
            print(f"seed {seed}: scores are stored, {'--raw adds nothing' if args.raw else 'nothing is trained'}")
            continue
        label = "-".join([str(seed), *(args.changed or ())])
        run = args.output_dir / f"{args.recipe}-{label}"
        words: list[object] = [*changed_words(path, args.changed or [])]
        words += [] if args.max_steps is None else ["--max_steps", args.max_steps]
        words += ["--seed", seed, "--output_dir", run, "--bf16", args.bf16, "--use_cpu", True]
        hf_xformer("train", path, *words)
        keep_log(run, args.results / f"logs/{name}-{label}.jsonl")
        # The card of a run has the scores that are in its folder, in the end those of the beams: none of a trial.
        out = run.with_name(f"{run.name}.validation.json") if trial else run / "test_results.json"
        for decoding, of in left.items():
            figures.add(of, **score(task, run, scored, out, decoding, args), **raw, **recorded(run))
        if not trial and args.max_steps is None:
            hf_xformer("card", run)
    rows = [row for row in figures.rows() if row["seed"] in args.seeds and changed.items() <= row.items()]
    print_table(rows, "decoding", task.metrics)
    if task.published and not trial:
        print(f"published: {task.published}")


def arguments() -> Namespace:
    """Returns the command line's arguments; those of --raw are looked at before anything is trained."""
    parser = comparison_parser(__doc__, seeds=[0], output_dir="runs")
    parser.add_argument("recipe", choices=TASKS, help="of configs/train")
    parser.add_argument("--max_steps", type=int, help="of a training, instead of as many as the recipe has")
    parser.add_argument("--max_samples", type=int, help="rows of the test set (default: all)")
    parser.add_argument("--raw", type=Path, help="German test sentences as they were written, one a line, or .gz")
    changed = "options of the recipe, or fields of its model's configuration, that are other than there"
    parser.add_argument("--changed", nargs="*", metavar="NAME=VALUE", help=changed)
    args = parser.parse_args()
    if args.changed:
        args.changed.sort()  # in whichever order they are given, the rows are the same
        if wrong := wrong_change(args.changed, read_recipe(f"configs/train/{args.recipe}.yaml")):
            parser.error(f"--changed {wrong}")
    if args.raw is not None and args.changed is not None:
        parser.error("--raw is of the test set, and with --changed the validation set is decoded: leave one out")
    if args.raw is not None and args.recipe != "multi30k-en-de":
        parser.error(f"--raw is for multi30k-en-de; {args.recipe} has phonemes")
    if args.raw is not None and not args.raw.is_file():
        parser.error(f"--raw {args.raw}: there is no such file")
    if args.raw is not None and find_spec("sacremoses") is None:
        parser.error("--raw joins words by sacremoses, which is missing: pip install -c constraints.txt sacremoses")
    return args


def wrong_change(changed: list[str], recipe: dict) -> str | None:
    """Returns what is wrong with changes of a recipe, by which its row would not say what was trained."""
    from hf_xformer.training.fingerprint import NEUTRAL
    from hf_xformer.training.trainer_options import OVERRULED

    names = [pair.partition("=")[0] for pair in changed]
    for name, pair in zip(names, changed, strict=True):
        if not re.fullmatch(r"\w+=[^/,\s]+", pair):
            return f"{pair}: give NAME=VALUE, such as dropout=0.3"
        if names.count(name) > 1:
            return f"{name}: it is given twice"
        if name in ("seed", "bf16", "max_steps", "output_dir", "config_overrides"):
            return f"{name}: that is not for --changed; see the other options"
        if name in NEUTRAL:
            return f"{name}: the weights would be those of the recipe"
        if (other := OVERRULED.get(name)) in recipe:
            return f"{name}: it does nothing beside the recipe's {other}"
    return None


def changed_words(recipe: str, changed: list[str]) -> list[str]:
    """Returns the command line that changes options of a recipe, or fields of its model's configuration."""
    from hf_xformer import XformerConfig

    options = read_recipe(recipe)
    others = dict(pair.split("=", 1) for pair in changed)
    fields = {name: value for name, value in others.items() if name not in options and hasattr(XformerConfig(), name)}
    words = [word for name in others if name not in fields for word in (f"--{name}", others[name])]
    if fields:
        merged = options.get("config_overrides", {}) | fields
        words += ["--config_overrides", ",".join(f"{name}={value}" for name, value in merged.items())]
    return words


def recorded(run: Path) -> dict[str, object]:
    """Returns the size, length, hours, hardware and commit that a run has recorded."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    names = ("parameters", "steps", "seconds", "weights_of_step", "commit")
    return {name: record[name] for name in names} | {"hardware": record["hardware"]["name"]}


def score(task: Task, run: Path, scored: Path, out: Path, decoding: str, args: Namespace) -> dict[str, object]:
    """
    Returns a model's scores, their signatures, and its first texts.

    Args:
        scored: Rows to decode.
        out: File for all that `hf-xformer evaluate` says of them.
        args: Of the command line.
    """
    texts = run.with_name(f"{run.name}.{scored.stem}.{decoding.replace(' ', '-')}.jsonl")
    options = (*task.options, *DECODINGS[decoding], "--predictions_file", texts, *first_rows(args.max_samples))
    metrics = [name for name in task.metrics if not name.startswith("raw_")]
    found = evaluate(run, scored, metrics, *options, out=out)
    scores = {name: round(found[name], 2) for name in metrics}
    scores |= {key: found[key] for name in metrics if (key := f"{name}_signature") in found}
    if args.raw is not None:
        scores |= raw_scores(texts, args.raw)
    return scores | {"examples": [json.loads(line) for line in read_lines(texts)[:EXAMPLES]]}


def check_raw(test_file: Path, raw: Path) -> None:
    """
    Checks, before anything is trained, that sentences as they were written are those of a test set.

    Raises:
        SystemExit: There are not as many, or others.
    """
    from sacrebleu import corpus_bleu

    joined = detokenized([json.loads(line)["target"] for line in read_lines(test_file)])
    written = read_lines(raw)
    if len(written) != len(joined):
        raise SystemExit(f"--raw {raw}: {len(written):,} lines, where {test_file} has {len(joined):,} rows")
    score = corpus_bleu(joined, [written], lowercase=True).score
    if score < LEAST_BLEU:
        raise SystemExit(f"--raw {raw}: the targets of {test_file} reach BLEU {score:.1f} against it: of another set?")


def detokenized(texts: list[str]) -> list[str]:
    """Returns German texts with words and punctuation joined by Moses's rules."""
    from sacremoses import MosesDetokenizer

    moses = MosesDetokenizer(lang="de")
    return [moses.detokenize(text.split()) for text in texts]


def raw_scores(texts: Path, references: Path) -> dict[str, object]:
    """Returns BLEU and chrF of the predictions in a file against sentences as they were written, with signatures."""
    from sacrebleu.metrics import BLEU, CHRF

    joined = detokenized([json.loads(line)["prediction"] for line in read_lines(texts)])
    expected = read_lines(references)[: len(joined)]
    found: dict[str, object] = {}
    for name, metric in {"raw_bleu": BLEU(lowercase=True), "raw_chrf": CHRF(lowercase=True)}.items():
        score = metric.corpus_score(joined, [expected])
        found |= {name: round(score.score, 2), f"{name}_signature": str(metric.get_signature())}
    return found


if __name__ == "__main__":
    main()
