# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Says what a training will take before anything is rented: memory of each device under each launch configuration, days.

  hf-xformer estimate --config_name configs/model/modern-base.json
  hf-xformer estimate --config_name configs/model/modern-base.json --num_processes 8 \\
    --config_overrides d_model=2048,encoder_layers=12,decoder_layers=8,encoder_ffn_dim=5504,decoder_ffn_dim=5504 \\
    --per_device_train_batch_size 4 --max_source_length 1024 --train_tokens 20e9

Counted on the model itself, without its memory, for AdamW. Predictions were within 17 % of what trainings took on two
processes of a CPU (benchmarks/estimated_memory.py); what a GPU's kernels and its allocator take comes on top: leave a
tenth free. Tokens are those of both sides; main memory is that of one process.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.loading import load_config
from ..errors import one_line_errors
from ..files import find
from ..training.estimation import Batch, Counted, count, memory, read_launch
from ..training.recipe import parse_overrides
from .options import Parser


GIB = 2**30
COLUMNS = ("weights", "gradients", "optimizer", "activations", "at the peak", "host memory")


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--config_name", required=True, help="the model: a JSON file, a folder or a Hub name")
    parser.add_argument("--config_overrides", help="fields to change, as 'd_model=256,encoder_layers=12'")
    parser.add_argument("--max_source_length", type=positive(int), default=512, help="tokens (default 512)")
    parser.add_argument("--max_target_length", type=positive(int), default=512, help="tokens (default 512)")
    parser.add_argument("--per_device_train_batch_size", type=positive(int), default=8, help="rows (default 8)")
    parser.add_argument("--activation_checkpointing", action="store_true", help="keep the layers' inputs only")
    parser.add_argument(
        "--accelerate_config",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="files for accelerate launch (default: all of configs/accelerate)",
    )
    parser.add_argument("--num_processes", type=positive(int), help="devices, instead of what the files say")
    parser.add_argument(
        "--mixed_precision",
        choices=("no", "bf16", "fp16"),
        help="instead of what the files say; DeepSpeed's are taken for bf16",
    )
    parser.add_argument("--device_memory", type=positive(float), default=80, help="of one, in GiB (default 80)")
    parser.add_argument("--device_tflops", type=positive(float), default=989, help="of one (default 989: H100, bf16)")
    parser.add_argument("--utilisation", type=positive(float), default=0.4, help="share that is reached (default 0.4)")
    parser.add_argument("--train_tokens", type=positive(float), help="default: 20 a parameter (Hoffmann et al. 2022)")
    args = parser.parse_args(argv)
    if args.utilisation > 1:
        raise ValueError(f"--utilisation {args.utilisation}: a share, 1 at most")
    paths = args.accelerate_config or sorted(find("configs/accelerate").glob("*.yaml"))
    if not paths:
        raise ValueError("there is no configs/accelerate here: give --accelerate_config")
    config = load_config(args.config_name, parse_overrides(args.config_overrides))
    batch = Batch(args.per_device_train_batch_size, args.max_source_length, args.max_target_length)
    half = None if args.mixed_precision is None else args.mixed_precision != "no"
    launches = [read_launch(path, args.num_processes, half) for path in paths]
    counted = {each: count(config, batch, each) for each in {launch.arithmetic for launch in launches}}

    tokens = batch.rows * (batch.source + batch.target)
    model = next(iter(counted.values()))
    print(f"{model.parameters:,} parameters, {model.flops / tokens / 1e9:,.2f} GFLOP a token, forward and backward")
    print(f"{batch.rows} rows of {batch.source} source and {batch.target} target tokens a device and step; in GiB:\n")
    print(f"{'':18}{'devices':>8}" + "".join(f"{title:>13}" for title in COLUMNS))
    for launch in launches:
        taken = memory(launch, counted[launch.arithmetic], args.activation_checkpointing)
        parts = (taken.weights, taken.gradients, taken.optimizer, taken.activations, taken.total, taken.host)
        remark = "" if taken.total < args.device_memory * GIB else f"  over {args.device_memory:g}"
        print(f"{launch.name:18}{launch.processes:8}" + "".join(f"{part / GIB:13,.2f}" for part in parts) + remark)
    print_days(model, model.flops / tokens, max(launch.processes for launch in launches), args)


def positive(kind: type) -> Callable[[str], Any]:
    def parse(word: str):
        if not (value := kind(word)) > 0:
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"  # argparse names it
    return parse


def print_days(model: Counted, flops_a_token: float, devices: int, args: argparse.Namespace) -> None:
    tokens = args.train_tokens or 20 * model.parameters
    recomputed = 4 / 3 if args.activation_checkpointing else 1
    reached = devices * args.device_tflops * 1e12 * args.utilisation
    hours = tokens * flops_a_token * recomputed / reached / 3600
    print(
        f"\n{tokens:,.0f} tokens on {devices} devices of {args.device_tflops:g} TFLOP/s, {args.utilisation:.0%} of it "
        f"reached: " + (f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days")
    )
