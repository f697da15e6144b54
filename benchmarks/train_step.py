# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Useful tokens a second of training steps: ours padded and packed, stock encoder-decoders, other libraries.

  python benchmarks/train_step.py base                    # a quarter of an hour on two cores
  python benchmarks/train_step.py tiny --pairs 256 --shortest 3 --longest 12 --rounds 5
  python benchmarks/train_step.py base --bf16 --attn_implementation eager   # as the documents have bfloat16

A step is forward, backward and AdamW (fused), with a dropout of 0.1 on the outputs of sublayers, on pairs of random
tokens whose lengths are drawn evenly between --shortest and --longest, each side for itself. Useful tokens are those
of both sides that are not padding. All models take turns in one process, each on the same pairs, and seconds are
medians. x-transformers takes part where it is installed.

Prints ratios and writes train_step_SHAPE.json and .png into --results; with --against FOLDER, the `*_xformer.py`
of another version, it measures that too and writes nothing.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import send_to_device
from costs import seconds_in_turn
from measuring import add_results_option, results_folder, write_results
from peers import OTHERS, SHAPES, STOCK, Padding, Shape, loss_of, padded, xformer
from torch import nn
from versions import load_version

from hf_xformer.data.collators import DataCollatorForPackedSeq2Seq


OURS, AGAINST = "hf-xformer", "another version"


def draw_pairs(count: int, shortest: int, longest: int, vocabulary: int) -> list[dict]:
    lengths = torch.randint(shortest, longest + 1, (count, 2)).tolist()
    return [
        {"input_ids": torch.randint(3, vocabulary, (s,)), "labels": torch.randint(3, vocabulary, (t,))}
        for s, t in lengths
    ]


def make_steps(
    shape: Shape,
    pairs: list[dict],
    device: torch.device,
    bf16: bool,
    attn_implementation: str | None,
    against: Path | None,
) -> dict[str, Callable]:
    rows, packed = padded(pairs), DataCollatorForPackedSeq2Seq(Padding())(pairs)
    versions = {OURS: xformer} | (
        {} if against is None else {AGAINST: partial(xformer, version=load_version(against))}
    )
    batches = {f"{name}, packed": packed for name in versions}
    makers = {**versions, **{f"{name}, packed": make for name, make in versions.items()}, **STOCK, **OTHERS}
    models = {name: make(shape) for name, make in makers.items()}
    for name, model in models.items():
        if attn_implementation is not None and name not in OTHERS:
            model.set_attn_implementation(attn_implementation)
    return {name: make_step(model, batches.get(name, rows), device, bf16) for name, model in models.items()}


def make_step(model: nn.Module, batch: dict, device: torch.device, bf16: bool) -> Callable:
    model, batch = model.to(device).train(), send_to_device(batch, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step():
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def show(rates: dict[str, float]) -> None:
    best = max(STOCK, key=rates.get)
    print(f"\n{'':32}{'useful tokens/s':>16}{f'/ {best}':>12}")
    for name, rate in rates.items():
        print(f"  {name:30}{rate:16,.0f}{rate / rates[best]:12.2f}")
    print(f"\n{'':50}{'wanted':>8}{'measured':>10}")
    for name, wanted in ((OURS, 1.2), (f"{OURS}, packed", 2.0)):
        print(f"  {name + ' / best stock':48}{f'>= {wanted}':>8}{rates[name] / rates[best]:10.2f}")
    for name in [name for name in rates if name.startswith(AGAINST)]:
        ours = name.replace(AGAINST, OURS)
        print(f"  {f'{ours} / {name}':48}{'':>8}{rates[ours] / rates[name]:10.2f}")


def plot(rates: dict[str, float], title: str, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    names = sorted(rates, key=rates.get)
    axes.barh(names, [rates[name] for name in names], color=["C0" if "xformer" in n else "0.7" for n in names])
    axes.set(xlabel="useful tokens a second", title=title)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES, help="of all models")
    parser.add_argument("--pairs", type=int, default=32, help="of a step (default 32)")
    parser.add_argument("--shortest", type=int, default=4, help="tokens (default 4)")
    parser.add_argument("--longest", type=int, default=64, help="tokens (default 64)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are taken (default 5)")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--attn_implementation", help="of ours and the stock models, such as eager (default: theirs)")
    parser.add_argument("--against", type=Path, help="folder with the *_xformer.py of another version, to measure too")
    add_results_option(parser)
    args = parser.parse_args()
    if args.against is None:  # else it is a comparison for whoever changes the models: no figure of a document
        # On a CPU torch's own attention is slow in bfloat16.
        eager = "eager" if args.bf16 else None
        folder = results_folder(parser, args, "bf16", shape="base", attn_implementation=eager)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    pairs = draw_pairs(args.pairs, args.shortest, args.longest, SHAPES[args.shape].vocabulary)
    tokens = sum(len(text) for pair in pairs for text in pair.values())
    steps = make_steps(SHAPES[args.shape], pairs, device, args.bf16, args.attn_implementation, args.against)
    rates = {name: tokens / each for name, each in seconds_in_turn(steps, args.rounds).items()}
    show(rates)
    if args.against is not None:
        return
    name = f"train_step_{args.shape}{'_bf16' if args.bf16 else ''}"
    about = {"device": str(device), "attn_implementation": args.attn_implementation}
    about |= {"pairs": args.pairs, "tokens": tokens, "lengths": [args.shortest, args.longest]}
    write_results(name, {each: round(rate, 1) for each, rate in rates.items()}, folder, **about)
    title = f"{args.shape}: {args.pairs} pairs of {args.shortest} to {args.longest} tokens"
    plot(rates, title, folder / f"{name}.png")


if __name__ == "__main__":
    main()
