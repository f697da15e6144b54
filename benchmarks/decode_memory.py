# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Peak memory of beam search over long sources: ours, whose beams share their source, and stock encoder-decoders.

  python benchmarks/decode_memory.py                      # a minute on two cores, 4 GiB
  python benchmarks/decode_memory.py --sources 2 --length 8192 --beams 4   # into build/tried

Each model decodes --new tokens in a process of its own; weights do not count. Writes decode_memory.json into --results
and prints the ratio to Marian's.
"""

import argparse
import dataclasses

import torch
from costs import peak_mib, peak_of_script
from decode import MAKERS, OURS, decode
from measuring import add_results_option, results_folder, write_results
from peers import SHAPES


MODELS = (OURS, "Marian", "BART")
SIZES = ("sources", "length", "beams", "new")


def peak(name: str, sources: int, length: int, beams: int, new: int) -> float:
    """MiB of decoding in this process."""
    shape = dataclasses.replace(SHAPES["base"], positions=length)
    torch.manual_seed(0)
    model = MAKERS[name](shape).eval()
    model.generation_config.eos_token_id = None
    ids = torch.randint(4, shape.vocabulary, (sources, length))
    decode(model, ids[:, :16], beams, 2)  # what is made once is no part of it
    return peak_mib(lambda: decode(model, ids, beams, new))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=1, help="of the batch (default 1)")
    parser.add_argument("--length", type=int, default=4096, help="tokens of a source (default 4096)")
    parser.add_argument("--beams", type=int, default=8, help="of a source (default 8)")
    parser.add_argument("--new", type=int, default=16, help="tokens of a text (default 16)")
    parser.add_argument("--memory_of", choices=MODELS, help=argparse.SUPPRESS)
    add_results_option(parser)
    args = parser.parse_args()
    if args.memory_of:
        print(peak(args.memory_of, args.sources, args.length, args.beams, args.new))
        return
    folder, sizes = results_folder(parser, args), {size: getattr(args, size) for size in SIZES}
    words = [f"--{size}={number}" for size, number in sizes.items()]
    rows = {name: round(peak_of_script(__file__, "--memory_of", name, *words)) for name in MODELS}
    for name, mib in rows.items():
        print(f"  {name:12}{mib:8,} MiB{mib / rows['Marian']:8.2f} of Marian's")
    write_results("decode_memory", rows, folder, **sizes)
    print(f"\nours / Marian's: {rows[OURS] / rows['Marian']:.2f} (wanted: 0.25 at most)")


if __name__ == "__main__":
    main()
