# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
The share of this machine's matrix products that a training step reaches.

  python benchmarks/roofline.py base
  python benchmarks/roofline.py base --bf16

The ceiling is the best of a few square products. A step's arithmetic is counted on the step itself, forward and
backward without optimizer, of packed rows; attention's share, of which a part is padding, is small at these lengths.
Ceiling and steps take turns, and each is the median. On a GPU --bf16 --compile give its model FLOPs utilisation.

Writes roofline_SHAPE.json into --results.
"""

import argparse
from collections.abc import Callable

import torch
from accelerate.utils import send_to_device
from costs import seconds_in_turn
from measuring import add_results_option, results_folder, write_results
from peers import SHAPES, Padding, loss_of, xformer
from torch.utils.flop_counter import FlopCounterMode
from train_step import draw_pairs

from hf_xformer.data.collators import DataCollatorForPackedSeq2Seq


SIZES = (1024, 2048, 4096)


def count_addmm(total, a, b, out_val=None, **kwargs) -> int:
    return 2 * a[0] * a[1] * b[1]


def product(size: int, dtype: torch.dtype, device: torch.device) -> Callable:
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in "ab")
    return lambda: [a @ b for _ in range(4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES, help="of the model")
    parser.add_argument("--pairs", type=int, default=32, help="of a step (default 32)")
    parser.add_argument("--shortest", type=int, default=4, help="tokens (default 4)")
    parser.add_argument("--longest", type=int, default=64, help="tokens (default 64)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are taken (default 5)")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--compile", action="store_true", help="compile the model")
    add_results_option(parser)
    args = parser.parse_args()
    folder = results_folder(parser, args, "bf16", shape="base")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    shape = SHAPES[args.shape]
    model = xformer(shape).to(device).train()
    pairs = draw_pairs(args.pairs, args.shortest, args.longest, shape.vocabulary)
    batch = send_to_device(DataCollatorForPackedSeq2Seq(Padding())(pairs), device)

    def step():
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            loss = loss_of(model, batch)
        loss.backward()
        model.zero_grad()

    model.set_attn_implementation("eager")  # of sdpa the counter does not know the kernels of a CPU
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: count_addmm}) as counter:
        step()
    # As scripts/train.py has it for short texts: torch's own is slow in bfloat16 on a CPU.
    attention = "eager" if args.bf16 and device.type == "cpu" else "sdpa"
    model.set_attn_implementation(attention)
    if args.compile:
        model.compile()
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    runs = {"step": step, **{str(size): product(size, dtype, device) for size in SIZES}}
    seconds = seconds_in_turn(runs, args.rounds)
    ceiling = max(4 * 2 * size**3 / seconds[str(size)] for size in SIZES) / 1e9
    reached = counter.get_total_flops() / seconds["step"] / 1e9
    print(f"ceiling {ceiling:,.0f} GFLOP/s, step {reached:,.0f}: {reached / ceiling:.0%} (wanted in float32: 60%)")
    rows = {
        "ceiling_gflops": round(ceiling, 1),
        "step_gflops": round(reached, 1),
        "share": round(reached / ceiling, 3),
    }
    name = f"roofline_{args.shape}{'_bf16' if args.bf16 else ''}"
    write_results(name, rows, folder, device=str(device), attn_implementation=attention)


if __name__ == "__main__":
    main()
