# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Estimates what a training takes, before anything is rented: memory per device for each launch configuration, and days.

  hf-xformer estimate configs/train/multi30k-en-de.yaml
  hf-xformer estimate --config_name configs/model/modern-base.json
  hf-xformer estimate --config_name configs/model/modern-base.json --num_processes 8 \\
    --config_overrides d_model=2048,encoder_layers=12,decoder_layers=8,encoder_ffn_dim=5504,decoder_ffn_dim=5504 \\
    --per_device_train_batch_size 4 --max_source_length 1024 --train_tokens 20e9

It counts on the model itself, without allocating its memory, for AdamW. Predictions were within 17 % of what trainings
took on two CPU processes (benchmarks/estimated_memory.py). A GPU's kernels and allocator need more: leave a tenth
free. Tokens are those of both sides; host memory is per process.
"""

import argparse
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.lengths import check_both_lengths
from ..checkpoints.loading import load_config, load_tokenizers
from ..checkpoints.vocabulary import sizes_of
from ..errors import ArgumentError, naming, one_line_errors
from ..files import find
from ..training.arguments import CHECKPOINTING
from ..training.estimation import Batch, Counted, Launch, count, memory, read_launch
from ..training.recipe import parse_overrides, read_recipe
from ..training.schema import options
from .options import Parser, add_trust, number, whole_number


GIB = 2**30
RECIPES = (".yaml", ".yml")
# Options of a recipe that are not counted, as weights that get no gradients.
UNCOUNTED = ("lora_rank", "peft_config", "freeze")
ADAMW = ("adamw_torch", "adamw_torch_fused")  # whose state is what is counted; others may be of 8 bits
LENGTHS = ("max_source_length", "max_target_length", "per_device_train_batch_size")
COLUMNS = ("weights", "gradients", "optimizer", "activations", "at the peak", "host memory")


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = read_options(argv)
    paths = args.accelerate_config or sorted(find("configs/accelerate").glob("*.yaml"))
    if not paths:
        raise ArgumentError("there is no configs/accelerate here: give --accelerate_config")
    config = load_config(args.config_name, parse_overrides(args.config_overrides), args.trust_remote_code)
    batch = Batch(args.per_device_train_batch_size, args.max_source_length, args.max_target_length)
    check_both_lengths(config, args.max_source_length, args.max_target_length)
    half = None if args.mixed_precision is None else args.mixed_precision != "no"
    with naming("--accelerate_config" if args.accelerate_config else ""):
        launches = [read_launch(find(path), args.num_processes, half) for path in paths]
    counted = {each: count(config, batch, each) for each in {launch.arithmetic for launch in launches}}

    tokens = batch.rows * (batch.source + batch.target)
    model = next(iter(counted.values()))
    print(f"{model.parameters:,} parameters, {model.flops / tokens / 1e9:,.2f} GFLOP a token, forward and backward")
    print(f"{batch.rows} rows of {batch.source} source and {batch.target} target tokens a device and step; in GiB:\n")
    print_memory(launches, counted, args)
    print_days(model, model.flops / tokens, max(launch.processes for launch in launches), args)


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """
    Returns the options of the command line, and behind them those of its recipe, which is said.

    Raises:
        ArgumentError: Something else stands where a recipe should.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.recipe is None:
        if Path(args.config_name).suffix in RECIPES:
            raise ArgumentError(f"--config_name {args.config_name}: a recipe goes without --config_name")
        return args
    if Path(args.recipe).suffix not in RECIPES:
        raise ArgumentError(f"{args.recipe}: not a YAML file, as recipes are; a model needs --config_name before it")
    recipe = read_recipe(find(args.recipe))
    if args.config_overrides is not None:
        recipe["config_overrides"] = args.config_overrides
    words = words_of(recipe, args.recipe)
    print(f"hf-xformer estimate {shlex.join(words)}")
    for line in uncounted(recipe):
        print(line)
    of_recipe = parser.parse_args(words)
    overrides = of_recipe.config_overrides
    args = parser.parse_args(argv, of_recipe)
    args.config_overrides = overrides  # with those of the command line, and the sizes of the vocabularies
    return args


def uncounted(recipe: dict[str, Any]) -> Iterable[str]:
    """Yields lines of what a recipe has that the estimate does not count."""
    names = [name for name in UNCOUNTED if recipe.get(name) is not None]
    if recipe.get("optim", ADAMW[0]) not in ADAMW:
        names.append("optim")
    if names:
        yield f"counts all weights and AdamW, where {', '.join(names)} may take less"
    if recipe.get("ema_decay") is not None:
        yield "counts no averages of ema_decay, which take four bytes a parameter more"


def words_of(recipe: dict[str, Any], name: str) -> list[str]:
    """Returns the options for the model of a recipe and its largest batch; raises ArgumentError if it has no model."""
    given = {option: recipe.get(option, known.default) for option, known in options().items()}
    model = given["config_name"] or given["model_name_or_path"]
    if model is None:
        raise ArgumentError(f"{name}: names no model, neither by config_name nor by model_name_or_path")
    words = ["--config_name", str(model)]
    if overrides := vocabulary_of(given) | parse_overrides(given["config_overrides"]):
        words += ["--config_overrides", json.dumps(overrides)]
    lengths = [given[f"max_{side}_length"] for side in ("source", "target")]
    rows = given["per_device_train_batch_size"]
    if given["max_tokens"] is not None:  # of the longest pairs
        rows = max(1, given["max_tokens"] // max(lengths))
    if given["r_drop"] is not None:  # each pair twice
        rows *= 2
    for option, value in zip(LENGTHS, (*lengths, rows), strict=True):
        words += [f"--{option}", str(value)]
    flags = (CHECKPOINTING, "activation_checkpointing"), ("trust_remote_code", "trust_remote_code")
    words += [f"--{option}" for name, option in flags if given[name]]
    return words + [word for name in ("bf16", "fp16") if given[name] for word in ("--mixed_precision", name)]


def vocabulary_of(recipe: dict[str, Any]) -> dict[str, int | None]:
    """Returns the sizes of a new model's vocabularies; none, and says so, where its tokenizers are not there yet."""
    if recipe["config_name"] is None or recipe["tokenizer_name"] is None:
        return {}
    names = recipe["tokenizer_name"], recipe["target_tokenizer_name"]
    try:
        return sizes_of(*load_tokenizers(*names, trust_remote_code=recipe["trust_remote_code"]))
    except ArgumentError as error:
        print(f"counts the vocabulary of the configuration: {error}")
        return {}


def make_parser() -> Parser:
    parser = Parser("estimate", __doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("recipe", nargs="?", metavar="RECIPE.yaml", help="a recipe: counts its model and its batches")
    model.add_argument("--config_name", help="the model: a JSON file, a folder or a Hub name")
    add_trust(parser)
    parser.add_argument("--config_overrides", help="fields to change, as 'd_model=256,encoder_layers=12'")
    parser.add_argument("--max_source_length", type=whole_number(), default=512, help="tokens (default 512)")
    parser.add_argument("--max_target_length", type=whole_number(), default=512, help="tokens (default 512)")
    parser.add_argument("--per_device_train_batch_size", type=whole_number(), default=8, help="rows (default 8)")
    parser.add_argument("--activation_checkpointing", action="store_true", help="keep only the layers' inputs")
    parser.add_argument(
        "--accelerate_config",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="files for accelerate launch (default: all of configs/accelerate)",
    )
    parser.add_argument("--num_processes", type=whole_number(), help="devices (default: as the files say)")
    parser.add_argument(
        "--mixed_precision",
        choices=("no", "bf16", "fp16"),
        help="default: as the files say; bf16 for DeepSpeed, whose files say nothing of it",
    )
    positive = number(above=0)
    parser.add_argument("--device_memory", type=positive, default=80, help="GiB per device (default 80)")
    parser.add_argument(
        "--device_tflops", type=positive, default=989, help="TFLOP/s per device (default 989: H100, bf16)"
    )
    share = number(above=0, most=1)
    parser.add_argument("--utilisation", type=share, default=0.4, help="share of them that is reached (default 0.4)")
    parser.add_argument("--train_tokens", type=positive, help="default: 20 per parameter (Hoffmann et al. 2022)")
    return parser


def print_memory(launches: Sequence[Launch], counted: dict[str, Counted], args: argparse.Namespace) -> None:
    print(f"{'':18}{'devices':>8}" + "".join(f"{title:>13}" for title in COLUMNS))
    for launch in launches:
        taken = memory(launch, counted[launch.arithmetic], args.activation_checkpointing)
        parts = (taken.weights, taken.gradients, taken.optimizer, taken.activations, taken.total, taken.host)
        remark = "" if taken.total < args.device_memory * GIB else f"  over {args.device_memory:g}"
        print(f"{launch.name:18}{launch.processes:8}" + "".join(f"{part / GIB:13,.2f}" for part in parts) + remark)


def print_days(model: Counted, flops_a_token: float, devices: int, args: argparse.Namespace) -> None:
    tokens = args.train_tokens or 20 * model.parameters
    recomputed = 4 / 3 if args.activation_checkpointing else 1
    reached = devices * args.device_tflops * 1e12 * args.utilisation
    hours = tokens * flops_a_token * recomputed / reached / 3600
    print(
        f"\n{tokens:,.0f} tokens on {devices} devices of {args.device_tflops:g} TFLOP/s, {args.utilisation:.0%} of it "
        f"reached: " + (f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days")
    )
