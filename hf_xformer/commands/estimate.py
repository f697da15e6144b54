# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Estimates what a training takes, before anything is rented: memory per device for each launch configuration, and days.

  hf-xformer estimate --config_name configs/model/modern-base.json
  hf-xformer estimate --config_name configs/model/modern-base.json --num_processes 8 \\
    --config_overrides d_model=2048,encoder_layers=12,decoder_layers=8,encoder_ffn_dim=5504,decoder_ffn_dim=5504 \\
    --per_device_train_batch_size 4 --max_source_length 1024 --train_tokens 20e9

It counts on the model itself, without allocating its memory, for AdamW. Predictions were within 17 % of what trainings
took on two CPU processes (benchmarks/estimated_memory.py). A GPU's kernels and allocator need more: leave a tenth
free. Tokens are those of both sides; host memory is per process.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..checkpoints.lengths import check_both_lengths
from ..checkpoints.loading import load_config
from ..errors import ArgumentError, one_line_errors
from ..files import find
from ..training.estimation import Batch, Counted, Launch, count, memory, read_launch
from ..training.recipe import parse_overrides
from .options import Parser, add_trust, number, whole_number


GIB = 2**30
COLUMNS = ("weights", "gradients", "optimizer", "activations", "at the peak", "host memory")


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    paths = args.accelerate_config or sorted(find("configs/accelerate").glob("*.yaml"))
    if not paths:
        raise ArgumentError("there is no configs/accelerate here: give --accelerate_config")
    config = load_config(args.config_name, parse_overrides(args.config_overrides), args.trust_remote_code)
    batch = Batch(args.per_device_train_batch_size, args.max_source_length, args.max_target_length)
    check_both_lengths(config, args.max_source_length, args.max_target_length)
    half = None if args.mixed_precision is None else args.mixed_precision != "no"
    launches = [read_launch(find(path), args.num_processes, half) for path in paths]
    counted = {each: count(config, batch, each) for each in {launch.arithmetic for launch in launches}}

    tokens = batch.rows * (batch.source + batch.target)
    model = next(iter(counted.values()))
    print(f"{model.parameters:,} parameters, {model.flops / tokens / 1e9:,.2f} GFLOP a token, forward and backward")
    print(f"{batch.rows} rows of {batch.source} source and {batch.target} target tokens a device and step; in GiB:\n")
    print_memory(launches, counted, args)
    print_days(model, model.flops / tokens, max(launch.processes for launch in launches), args)


def make_parser() -> Parser:
    parser = Parser("estimate", __doc__)
    parser.add_argument("--config_name", required=True, help="the model: a JSON file, a folder or a Hub name")
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
