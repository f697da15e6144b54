# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Trains a recipe once for each seed, scores its models on the recipe's test set, and prints a row for each decoding.

  make reproduce-g2p DATA=g2p-pronasyl SEEDS="0 1 2"             # prepares the data, and runs this
  make reproduce-multi30k DATA=multi30k-en-de SEEDS="0 1 2"
  python benchmarks/recipes.py g2p-quickstart --seeds 0 1 2      # with the data of `make quickstart`
  python benchmarks/recipes.py g2p-pronasyl --max_steps 20 --max_samples 100 --results build/tried \
    --output_dir build/tried

A run that was stopped goes on from its last checkpoint in --output_dir, and seeds that are in recipe_NAME.json of
--results are not trained again. Every model decodes the test set greedily and with five beams. --raw adds what its
German scores against the sentences as people wrote them: Moses's rules join words and punctuation again (pip install
sacremoses), and sacreBLEU cuts both in its own way and ignores case, which the model was not given. The references,
joined so themselves, reach BLEU 99.9.
"""

import argparse
import gzip
import hashlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from measuring import RESULTS
from verbs import Figures, evaluate, hf_xformer, print_table, recipe


@dataclass(frozen=True)
class Task:
    """
    A recipe's test set, and how its models are scored.

    Args:
        data: Folder of the prepared rows.
        metrics: Their titles by their names.
        words: More of `hf-xformer evaluate`'s command line.
        published: Figures of others, for the printed table.
    """

    data: Path
    metrics: dict[str, str]
    words: tuple[str, ...] = ()
    published: str = ""


PRONUNCIATION = {"wrong_words": "wrong words", "per": "PER"}
RAW = {"raw_bleu": "BLEU, raw text", "raw_chrf": "chrF, raw text"}
LEAST = 95  # BLEU of a test set's targets, joined by Moses's rules, against themselves as people wrote them
# By the name of the recipe in configs/train.
TASKS = {
    "g2p-quickstart": Task(Path("data/g2p"), PRONUNCIATION),
    "g2p-pronasyl": Task(
        Path("data/pronasyl"),
        PRONUNCIATION,
        published="wrong words 20.6 (g2p-seq2seq), 19.91 with PER 4.16 (the same, measured by Cisco)",
    ),
    "multi30k-en-de": Task(
        Path("data/multi30k"),
        {"sacrebleu": "BLEU", "chrf": "chrF"},
        ("--sacrebleu_tokenize", "none"),
        published="BLEU 41.02 (Wu et al. 2021)",
    ),
}
DECODINGS: dict[str, tuple[str, ...]] = {"greedy": (), "5 beams": ("--num_beams", "5")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=TASKS, help="of configs/train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--max_steps", type=int, help="of a training, instead of as many as the recipe has")
    parser.add_argument("--max_samples", type=int, help="rows of the test set (default: all)")
    parser.add_argument("--raw", type=Path, help="German test sentences as they were written, one a line, or .gz")
    parser.add_argument("--output_dir", type=Path, default=Path("runs"), help="default: %(default)s")
    parser.add_argument(
        "--bf16", action="store_true", help="train in bfloat16: half the time on processors that have it"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON (default: the results)")
    args = parser.parse_args()
    if args.raw is not None and args.recipe != "multi30k-en-de":
        parser.error(f"--raw is for multi30k-en-de; {args.recipe} has phonemes")
    if args.raw is not None and not args.raw.is_file():
        parser.error(f"--raw {args.raw}: there is no such file")
    if args.raw is not None and find_spec("sacremoses") is None:
        parser.error("--raw joins words by sacremoses, which is missing: pip install -c constraints.txt sacremoses")
    task = TASKS[args.recipe]
    if args.raw is not None:
        check_raw(task.data / "test.jsonl", args.raw)
    steps = () if args.max_steps is None else ("--max_steps", args.max_steps)
    most = () if args.max_samples is None else ("--max_samples", args.max_samples)
    figures = Figures(
        f"recipe_{args.recipe}", args.results, steps=args.max_steps, samples=args.max_samples, bf16=args.bf16
    )
    version = version_of(args.recipe)
    check_versions(figures, version)
    for seed in args.seeds:
        if all(figures.has(decoding=decoding, seed=seed) for decoding in DECODINGS):
            print(f"seed {seed}: scores are stored, {'--raw adds nothing' if args.raw else 'nothing is trained'}")
            continue
        run = args.output_dir.resolve() / f"{args.recipe}-{seed}"
        chosen = ("--seed", seed, "--output_dir", run, "--bf16", args.bf16, *steps)
        hf_xformer("train", f"configs/train/{args.recipe}.yaml", *chosen)
        record = json.loads((run / "run.json").read_text())
        of_run = {name: record[name] for name in ("parameters", "steps", "seconds", "weights_of_step", "commit")}
        of_run |= {"hardware": record["hardware"]["name"], "recipe": version}
        for decoding, words in DECODINGS.items():
            if figures.has(decoding=decoding, seed=seed):
                continue
            texts = run.with_name(f"{run.name}.{decoding.replace(' ', '-')}.jsonl")
            more = (*task.words, *words, *most, "--predictions_file", texts)
            # The card of a run has the scores that are in its folder: in the end those of the beams.
            found = evaluate(run, task.data / "test.jsonl", task.metrics, *more, out=run / "test_results.json")
            scores = {name: round(found[name], 2) for name in task.metrics}
            if args.raw is not None:
                scores |= raw_scores(texts, args.raw)
            figures.add(decoding=decoding, seed=seed, **scores, **of_run)
        hf_xformer("card", run)
    rows = figures.rows()
    print_table(rows, "decoding", task.metrics | (RAW if all(RAW.keys() <= row.keys() for row in rows) else {}))
    if task.published:
        print(f"published: {task.published}")


def version_of(name: str) -> str:
    """Returns the beginning of a hash of a recipe's options."""
    return hashlib.sha256(json.dumps(recipe(f"configs/train/{name}.yaml"), sort_keys=True).encode()).hexdigest()[:8]


def check_versions(figures: Figures, version: str) -> None:
    """
    Checks that no mean will be over models of two versions of a recipe.

    Raises:
        SystemExit: Scores of another version are stored.
    """
    if other := sorted({row["seed"] for row in figures.rows() if row.get("recipe", version) != version}):
        raise SystemExit(
            f"{figures.path} has seeds {', '.join(map(str, other))} of another version of the recipe: delete these "
            "rows, or give another --results"
        )


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
    if score < LEAST:
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


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a file, which may be compressed; only a line feed ends one."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return text.removesuffix("\n").split("\n")


if __name__ == "__main__":
    main()
