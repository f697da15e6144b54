# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Whole chapters: the recipe configs/train/bible.yaml, and smaller models of it with full and with block attention, at
equal steps and at equal time.

  make bible                                           # prepares the data, and runs both with --bf16 where it is fast
  python benchmarks/long_text.py --whole --seeds 0     # the recipe, in blocks; writes its card
  python benchmarks/long_text.py                       # the comparison; a row that is there stays
  python benchmarks/long_text.py --seeds 0 --max_steps 20 --max_samples 4 --results build/tried

A comparison begins with both models training for a few steps and for some more, in turn, on a machine that must be
idle: the difference is what steps take once they run. A full model of equal time has as many steps as these seconds
allow, in both stages; the trainings themselves may run beside other work. The test chapters are decoded greedily, and
scored beside the sources as they are. Trainings are kept in --output_dir, rows are written as they come into
long_text.json, long_text_compared.json and long_text_speed.json of --results, from where a run that was stopped goes
on.
"""

import json
import re
from argparse import Namespace
from pathlib import Path
from statistics import mean, median

from measuring import machine
from tabulating import print_table
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
    train,
)


RECIPE = "configs/train/bible.yaml"
TEST = ROOT / "data/bible/chapters/test.jsonl"
METRICS = {"chrf": "chrF", "sacrebleu": "BLEU"}
COLUMNS = {"loss": "validation loss", **METRICS, "in_order": "verses in order, %"}
BLOCKS, FULL, EQUAL_TIME = "blocks", "full attention", "full attention, equal time"
BLOCK_FIELDS = ("encoder_layer_types", "decoder_layer_types", "block_size", "block_shift", "num_global_tokens")
TIMED_STEPS, ROUNDS = (8, 32), 3
# The models that are compared: nine trainings of the recipe would take a day without bfloat16. Small matrices take a
# higher rate, by which they learn to copy in fewer steps.
COMPARED = {"learning_rate": 8e-3, "max_steps": 1200, "eval_steps": 200, "save_steps": 200}
COMPARED |= dict.fromkeys(("max_tokens", "max_source_length", "max_target_length"), 2048)  # one chapter in 60 is cut
COMPARED_FIELDS = {
    **{"d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 384, "decoder_ffn_dim": 384},
    **{"encoder_layer_types": ["chunked_attention"] * 2, "decoder_layer_types": ["sliding_attention"] * 2},
}


def main() -> None:
    parser = comparison_parser(__doc__, seeds=[0, 1, 2], output_dir="runs/long_text")
    parser.add_argument("--whole", action="store_true", help="the recipe as it is, in place of the comparison")
    steps = COMPARED["max_steps"]
    parser.add_argument("--max_steps", type=int, help=f"of a training that is compared (default: {steps:,})")
    parser.add_argument("--max_samples", type=int, help="chapters of the test set (default: all)")
    args = parser.parse_args()
    if args.whole and args.max_steps is not None:
        parser.error("--max_steps is of the comparison, and --whole has the recipe's: leave one out")
    if args.whole:
        name, options, steps_of = "long_text", deciding(RECIPE), {BLOCKS: read_recipe(RECIPE)["max_steps"]}
    else:
        name, options = "long_text_compared", [deciding(RECIPE), COMPARED, COMPARED_FIELDS]
        compared = args.max_steps or COMPARED["max_steps"]
        ratio = median(blocks / full for blocks, full in seconds_a_step(args))
        steps_of = {BLOCKS: compared, FULL: compared, EQUAL_TIME: max(2, round(compared * ratio))}
    about = {"samples": args.max_samples, "bf16": args.bf16}
    figures = Figures(name, options, args.results, [TEST], **about)
    copied = scores_of_sources(args.max_samples)
    for seed in args.seeds:
        for model, steps in steps_of.items():
            of = {"model": model, "seed": seed, "steps": steps}
            if figures.has(of):
                continue
            run = args.output_dir / f"{model.replace(',', '').replace(' ', '-')}-{steps}-{seed}"
            if args.whole:
                words = ("--seed", seed, "--output_dir", run, "--bf16", args.bf16, "--use_cpu", True)
                hf_xformer("train", RECIPE, *words)
            else:
                train(options_of(model, steps) | {"seed": seed, "bf16": args.bf16}, run)
            keep_log(run, args.results / f"logs/{name}-{run.name}.jsonl")
            figures.add(of, **score(run, args.max_samples), **copied)
            if args.whole:
                hf_xformer("card", run)
    print_table(
        [{**row, "training": f"{row['model']}, {row['steps']} steps"} for row in figures.rows()], "training", COLUMNS
    )


def seconds_a_step(args: Namespace) -> list[tuple[float, float]]:
    """Returns the seconds of a step of each round, with blocks and with full attention; measures those not stored."""
    about = {"threads": machine()["threads"], "bf16": args.bf16}
    options = [deciding(RECIPE), COMPARED, COMPARED_FIELDS, TIMED_STEPS]
    speed = Figures("long_text_speed", options, args.results, [TEST], **about)
    for number in range(ROUNDS):
        for model in (BLOCKS, FULL):
            of = {"model": model, "round": number}
            if not speed.has(of):
                few, more = (timed(model, steps, args, number) for steps in TIMED_STEPS)
                speed.add(of, step=round((more - few) / (TIMED_STEPS[1] - TIMED_STEPS[0]), 3))
    step = {(row["model"], row["round"]): row["step"] for row in speed.rows()}
    return [(step[BLOCKS, number], step[FULL, number]) for number in range(ROUNDS)]


def timed(model: str, steps: int, args: Namespace, number: int) -> float:
    """Returns the seconds of a training of so many steps, in both stages."""
    unseen = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "bf16": args.bf16}
    return train(
        options_of(model, steps) | unseen, args.output_dir / f"timed-{model.replace(' ', '-')}-{steps}-{number}"
    )


def score(run: Path, samples: int | None) -> dict[str, object]:
    """Returns a model's validation loss, its scores on the test chapters, and the beginning of the first one."""
    loss = json.loads((run / "eval_results.json").read_text(encoding="utf-8"))["eval_loss"]
    texts = run / "test_predictions.jsonl"
    words = ("--predictions_file", texts, *first_rows(samples))
    found = evaluate(run, TEST, METRICS, *words, out=run / "test_results.json")
    rows = [json.loads(line) for line in read_lines(texts)]
    in_order = [re.findall(r"\d+", row["source"]) == re.findall(r"\d+", row["prediction"]) for row in rows]
    example = {name: beginning(text) for name, text in rows[0].items() if isinstance(text, str)}
    example["references"] = [beginning(text) for text in rows[0]["references"]]
    scores = {name: round(found[name], 2) for name in METRICS}
    return {"loss": round(loss, 4), **scores, "in_order": round(100 * mean(in_order), 2), "examples": [example]}


def beginning(text: str) -> str:
    """Returns the first 400 characters of a text, to the end of a word."""
    return text if len(text) <= 400 else f"{text[:400].rpartition(' ')[0]} …"


def options_of(model: str, steps: int) -> dict:
    """Returns the options of a model; first stage and warm-up are as large a part of all steps as in the recipe."""
    recipe = read_recipe(RECIPE)
    share, (verses, *others) = steps / recipe["max_steps"], recipe["stages"]
    verses = verses | {"until_step": max(1, round(verses["until_step"] * share))}
    fields = recipe["config_overrides"] | COMPARED_FIELDS
    if model != BLOCKS:
        fields = {name: fields[name] for name in fields if name not in BLOCK_FIELDS}
    of_steps = {"max_steps": steps, "warmup_steps": round(recipe["warmup_steps"] * share), "stages": [verses, *others]}
    return recipe | COMPARED | of_steps | {"config_overrides": fields}


def scores_of_sources(samples: int | None) -> dict[str, float]:
    """Returns the scores of the test set's sources against its targets."""
    from hf_xformer.decoding.metrics import compute_metrics

    rows = [json.loads(line) for line in read_lines(TEST)[:samples]]
    found = compute_metrics(list(METRICS), [row["source"] for row in rows], [[row["target"]] for row in rows])
    return {f"source_{name}": round(found[name], 2) for name in METRICS}


if __name__ == "__main__":
    main()
