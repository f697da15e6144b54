# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Compares one model of several languages with a model of each pair alone, and prints chrF by pair.

  make languages                                                # prepares the data, and runs this
  python benchmarks/languages.py --bf16 --results build/mine    # this alone, faster where there is bfloat16
  python benchmarks/languages.py --max_steps 20 --results build/tried --output_dir build/tried   # a quick look

configs/train/descriptions.yaml trains the model of all languages, and each of the others with one of its corpora and
validation sets: equal models, tokenizer, steps and tokens a step, and of each run the checkpoint that was best in
validation. Test texts are decoded with five beams. Trainings are kept in --output_dir, and go on from there. Rows go
to languages.json of --results; those in benchmarks/results do not say which recipe and data they are of, and none is
added to them.
"""

from tabulating import print_table
from verbs import ROOT, Figures, comparison_parser, deciding, evaluate, read_recipe, train


RECIPE = "configs/train/descriptions.yaml"
TEST = ROOT / "data/descriptions/test.jsonl"
ALL = "all in one model"


def main() -> None:
    parser = comparison_parser(__doc__, seeds=[0], output_dir="runs/languages")
    parser.add_argument("--models", nargs="+", help=f"such as de; by default {ALL!r} and each language")
    parser.add_argument("--max_steps", type=int, help="of a training, instead of those that the recipe has")
    args = parser.parse_args()
    options = read_recipe(RECIPE) | {"bf16": args.bf16}
    if args.max_steps is not None:
        options |= {"max_steps": args.max_steps, "eval_steps": args.max_steps, "save_steps": args.max_steps}
    corpora = {corpus["name"]: corpus for corpus in options["datasets"]}
    if unknown := {*(args.models or ())} - {ALL, *corpora}:
        parser.error(f"no such model: {', '.join(sorted(unknown))}; there are {', '.join((ALL, *corpora))}")
    about = {"steps": options["max_steps"], "bf16": args.bf16}
    figures = Figures("languages", deciding(RECIPE), args.results, [TEST], **about)
    for seed in args.seeds:
        for model in args.models or (ALL, *corpora):
            if not figures.has(of := {"model": model, "seed": seed}):
                mine = list(corpora) if model == ALL else [model]
                others = {"seed": seed, "datasets": [corpora[name] for name in mine]}
                others["validation_sets"] = {name: options["validation_sets"][name] for name in mine}
                run = args.output_dir / f"{model.replace(' ', '-')}-{seed}"
                seconds = train(options | others, run)
                words = ["--source_column", options["source_column"], "--by", "{target_lang}", "--num_beams", 5]
                scores = evaluate(run, TEST, ["chrf"], *words)
                figures.add(of, seconds=seconds, **{name: scores[f"chrf_{name}"] for name in mine})
    pairs = [
        {"model": f"{name}: {'all' if row['model'] == ALL else 'alone'}", "chrf": row[name]}
        for name in corpora
        for row in figures.rows()
        if name in row
    ]
    print_table(pairs, "model", {"chrf": "chrF"})


if __name__ == "__main__":
    main()
