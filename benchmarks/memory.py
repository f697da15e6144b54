# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Peak memory of a training step against the vocabulary and against the target tokens: ours, without logits, and BART.

  python benchmarks/memory.py                            # five minutes on two cores, 20 GiB
  python benchmarks/memory.py --vocabularies 32000 --targets 1024   # into build/tried

Forward and backward of three and three layers (d_model 256, feed-forward 1024), of rows of 64 source and 64 target
tokens. Each is measured in a process of its own, above what was in use before, so that weights do not count, and
gradients do. What a stock model would take beyond --limit GiB is not run but continued along the line of its last two
lengths, and said to be.

Writes memory.json and .png into --results and prints the ratio at the largest of both.
"""

import argparse
import dataclasses

import torch
from costs import peak_mib, peak_of_script
from measuring import add_results_option, results_folder, write_results
from peers import SHAPES, STOCK, loss_of, xformer


ROW = 64  # tokens of each side
MODELS = {"hf-xformer": xformer, "BART": STOCK["BART"]}


def step_peak(name: str, vocabulary: int, tokens: int) -> float:
    """MiB of one step in this process."""
    shape = dataclasses.replace(SHAPES["small"], vocabulary=vocabulary)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = MODELS[name](shape).to(device).train()
    ids = torch.randint(3, vocabulary, (tokens // ROW, ROW), device=device)
    return peak_mib(lambda: loss_of(model, {"input_ids": ids, "labels": ids}).backward())


def measure(name: str, vocabulary: int, targets: list[int], limit: float) -> list[dict]:
    rows = []
    for tokens in targets:
        slope = None
        if len(rows) > 1:
            (a, b) = rows[-2:]
            slope = (b["mib"] - a["mib"]) / (b["tokens"] - a["tokens"])
        expected = rows[-1]["mib"] + slope * (tokens - rows[-1]["tokens"]) if slope is not None else 0
        is_measured = expected < limit * 1024
        mib = peak_of_script(__file__, "--memory_of", name, vocabulary, tokens) if is_measured else expected
        rows.append({"model": name, "vocabulary": vocabulary, "tokens": tokens, "mib": round(mib), "ran": is_measured})
        print(
            f"  {name:12}{vocabulary:10,}{tokens:10,}{mib:10,.0f} MiB{'' if is_measured else '  (continued)'}",
            flush=True,
        )
    return rows


def plot(rows: list[dict], path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, style in zip(MODELS, ("o-", "s--"), strict=True):
        for color, vocabulary in enumerate(sorted({row["vocabulary"] for row in rows})):
            own = [row for row in rows if (row["model"], row["vocabulary"]) == (name, vocabulary)]
            points = [(row["tokens"], row["mib"]) for row in own]
            axes.plot(*zip(*points, strict=True), style, color=f"C{color}", label=f"{name}, {vocabulary:,} entries")
            for row in own:
                if not row["ran"]:
                    axes.annotate("not run", (row["tokens"], row["mib"]), ha="right", va="bottom", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="target tokens of a step", ylabel="peak MiB")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[8000, 32000, 250000], help="entries")
    parser.add_argument("--targets", type=int, nargs="+", default=[1024, 2048, 8192], help="tokens")
    parser.add_argument("--limit", type=float, default=18, help="GiB, above which a step is not run (default 18)")
    add_results_option(parser)
    parser.add_argument("--memory_of", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        name, vocabulary, tokens = args.memory_of
        print(step_peak(name, int(vocabulary), int(tokens)))
        return
    folder, rows = results_folder(parser, args), []
    for vocabulary in args.vocabularies:
        for name in MODELS:
            rows += measure(name, vocabulary, args.targets, args.limit)
    write_results("memory", rows, folder)
    plot(rows, folder / "memory.png")
    ours, bart = (next(row for row in reversed(rows) if row["model"] == name) for name in ("hf-xformer", "BART"))
    largest = f"{args.vocabularies[-1]:,} entries and {args.targets[-1]:,} target tokens"
    not_run = "" if bart["ran"] else ", BART's continued from shorter steps"
    print(f"\nours / BART's at {largest}: {ours['mib'] / bart['mib']:.2f} (wanted: 0.33 at most){not_run}")


if __name__ == "__main__":
    main()
