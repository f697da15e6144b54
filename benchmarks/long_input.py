# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Time and memory of encoders against the length of the source: blocks, windows and full attention, LongT5 and LED.

  python benchmarks/long_input.py                              # 4k to 64k tokens, some ten minutes on two cores
  python benchmarks/long_input.py --lengths 4096 --core_length 4096   # into build/tried

Forward and backward of two layers (d_model 256, feed-forward 1024, 4 heads, ReLU, no dropout) over one source; and of
the attention core alone: queries, keys and values in, mixed values out. A token sees some 255 others everywhere:
blocks of 256, windows of 127 to either side, LongT5's local radius of 127, LED's window of 256. All take turns in one
process, warm, and seconds are medians. Memory is the highest above what was in use before; on a CPU it is measured in
a process of its own for each, in which the allocator gives back at once what is freed.

Writes long_input.json and .png into --results and prints the ratios that matter. On a CPU it needs Linux. With
--against FOLDER, the `*_xformer.py` of another version, it prints the seconds of both and writes nothing.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from costs import peak_mib, peak_of_script, seconds_in_turn
from measuring import add_results_option, results_folder, write_results
from torch import nn
from transformers import LEDConfig, LongT5Config, LongT5EncoderModel
from transformers.models.led.modeling_led import LEDEncoder
from versions import load_version

import hf_xformer
from hf_xformer import XformerEncoderModel
from hf_xformer.models.rows_xformer import PaddedRows


LAYERS, WIDTH, FFN, HEADS, VOCABULARY = 2, 256, 1024, 4, 1024
BLOCK, RADIUS = 256, 127


def without_attention(q, k, v, mask, *args, **kwargs):
    """In place of `XformerAttention.attend`: the projections around it have the same work, and nothing is mixed."""
    return (q + k + v).transpose(1, 2).flatten(2), None


def make_xformer(
    length: int, layer_type: str, block_size: int = BLOCK, version: Any = hf_xformer, **overrides
) -> XformerEncoderModel:
    config = version.XformerConfig(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        encoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        encoder_ffn_dim=FFN,
        encoder_layer_types=[layer_type] * LAYERS,
        block_size=block_size,
        activation_function="relu",
        gated_ffn=False,
        dropout=0.0,
        max_position_embeddings=length,
        **overrides,
    )
    return version.XformerEncoderModel(config)


def make_without_attention(length: int) -> XformerEncoderModel:
    model = make_xformer(length, "full_attention")
    for layer in model.encoder.layers:
        layer.self_attention.attend = without_attention
    return model


def make_longt5(length: int) -> LongT5EncoderModel:
    config = LongT5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=FFN, num_layers=LAYERS, num_heads=HEADS,
        local_radius=RADIUS, encoder_attention_type="local", dropout_rate=0.0,
    )  # fmt: skip
    return LongT5EncoderModel(config)


def make_led(length: int) -> LEDEncoder:
    config = LEDConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, encoder_layers=LAYERS, encoder_attention_heads=HEADS,
        encoder_ffn_dim=FFN, attention_window=256, max_encoder_position_embeddings=length, activation_function="relu",
        dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
    )  # fmt: skip
    return LEDEncoder(config)


OURS: dict[str, Callable[..., nn.Module]] = {
    "blocks": partial(make_xformer, layer_type="chunked_attention"),
    "blocks, 16 global tokens": partial(make_xformer, layer_type="chunked_attention", num_global_tokens=16),
    "windows": partial(make_xformer, layer_type="sliding_attention", block_size=RADIUS),
}
ENCODERS: dict[str, Callable[[int], nn.Module]] = {
    **OURS,
    "full": lambda length: make_xformer(length, "full_attention"),
    "without attention": make_without_attention,
    "LongT5": make_longt5,
    "LED": make_led,
}
# Longer ones take tens of gigabytes or minutes.
LONGEST = {"full": 16384, "LED": 16384}


def whole_models(length: int, device: torch.device) -> dict[str, Callable]:
    names = [name for name in ENCODERS if length <= LONGEST.get(name, length)]
    return {name: whole_model(ENCODERS[name](length), length, device) for name in names}


def whole_model(model: nn.Module, length: int, device: torch.device) -> Callable:
    model = model.to(device).train()
    ids = torch.randint(3, VOCABULARY, (1, length), device=device)
    mask = torch.ones_like(ids)

    def run():
        model.zero_grad(set_to_none=True)
        model(input_ids=ids, attention_mask=mask).last_hidden_state.square().mean().backward()

    return run


class Given(nn.Module):
    """In the place of a projection: what it would have projected to."""

    def __init__(self, x: torch.Tensor):
        super().__init__()
        self.x = x

    def forward(self, _):
        return self.x.clone()  # LED scales its queries in place


def cores(length: int, device: torch.device) -> dict[str, Callable]:
    """The attention core of a layer of each model, from and to (1, S, heads * width)."""
    features = [torch.randn(1, length, WIDTH, device=device, requires_grad=True) for _ in range(3)]

    def backward_of(attend):
        def run():
            for x in features:
                x.grad = None
            attend().square().mean().backward()

        return run

    def ours(name: str, layer: int) -> Callable:
        encoder = ENCODERS[name](length).to(device).encoder
        masks = encoder.masks(PaddedRows(features[0], torch.ones(1, length, device=device)))
        attention, mask = encoder.layers[layer].self_attention, masks[encoder.layer_patterns[layer]]

        def attend():
            q, k, v = (attention.split_heads(x).transpose(1, 2) for x in features)
            return attention.attend(q, k, v, mask)[0]

        return backward_of(attend)

    longt5 = make_longt5(length).to(device).encoder.block[0].layer[0].LocalSelfAttention
    longt5.q, longt5.k, longt5.v, longt5.o = *map(Given, features), nn.Identity()
    # Computed once for all layers: none of the core's time.
    blocks = -(-length // (RADIUS + 1))
    bias = longt5.compute_bias(RADIUS + 1).detach().expand(1, blocks, -1, -1, -1).contiguous()
    led = make_led(length).to(device).layers[0].self_attn.longformer_self_attn
    led.query, led.key, led.value = map(Given, features)
    nothing = torch.zeros(1, length, device=device)
    is_masked = nothing.bool()
    return {
        "blocks": ours("blocks", 0),
        "shifted blocks": ours("blocks", 1),
        "windows": ours("windows", 0),
        "LongT5": backward_of(lambda: longt5(features[0], position_bias=bias)[0]),
        "LED": backward_of(lambda: led(features[0], nothing, is_masked, is_masked, False)[0]),
    }


MEASURED = {"whole encoder": whole_models, "attention core": cores}


def measure(runs: dict[str, Callable], rounds: int, length: int, what: str) -> dict[str, dict[str, float]]:
    seconds = seconds_in_turn(runs, rounds)

    def peak(name: str) -> float:
        if torch.cuda.is_available():
            return peak_mib(runs[name])
        return peak_of_script(__file__, "--memory_of", what, name, length)

    return {name: {"seconds": round(seconds[name], 4), "mib": round(peak(name))} for name in runs}


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    print(f"\n{title:40}{'seconds':>10}{'MiB':>9}")
    for name, row in rows.items():
        print(f"  {name:38}{row['seconds']:10.3f}{row['mib']:9,.0f}", flush=True)


def show_ratios(models: dict[int, dict], core: dict) -> None:
    """At the length of the core's measurement, and from length to length."""
    length, at = core["length"], models[core["length"]]
    of_cores = [core["rows"][name]["seconds"] for name in ("blocks", "shifted blocks")]
    print(f"\n{f'at {length:,} tokens':44}{'wanted':>8}{'measured':>12}")
    for what, wanted, over, under, key in (
        ("LongT5's seconds / blocks'", ">= 1.25", "LongT5", "blocks", "seconds"),
        ("LED's seconds / blocks'", ">= 4", "LED", "blocks", "seconds"),
        ("blocks' MiB / LongT5's", "<= 0.75", "blocks", "LongT5", "mib"),
        ("blocks' MiB / LED's", "<= 0.25", "blocks", "LED", "mib"),
        ("blocks' seconds / without attention", "<= 1.3", "blocks", "without attention", "seconds"),
        ("blocks' MiB / without attention", "<= 1.3", "blocks", "without attention", "mib"),
    ):
        print(f"  {what:42}{wanted:>8}{at[over][key] / at[under][key]:12.2f}")
    ratio = 2 * core["rows"]["LongT5"]["seconds"] / sum(of_cores)
    print(f"  {'core: LongT5 seconds / blocks, shifted or not':42}{'>= 2.5':>8}{ratio:12.2f}")
    wanted = {"seconds": 2.6, "mib": 2.1}
    print(
        "\nblocks, when the length doubles to" + "".join(f"{f'{key} (<= {most})':>24}" for key, most in wanted.items())
    )
    for shorter, longer in zip(list(models)[:-1], list(models)[1:], strict=True):
        if longer == 2 * shorter:
            growth = (models[longer]["blocks"][key] / models[shorter]["blocks"][key] for key in wanted)
            print(f"  {longer:>31,}" + "".join(f"{each:24.2f}" for each in growth))


def compare_versions(folder: Path, length: int, rounds: int, device: torch.device) -> None:
    """Prints the seconds of our encoders in this version and in another one, in turn, and their ratios."""
    version, runs = load_version(folder), {}
    for name, make in OURS.items():
        runs[name] = whole_model(make(length), length, device)
        runs[f"{name}, another version"] = whole_model(make(length, version=version), length, device)
    seconds = seconds_in_turn(runs, rounds)
    print(f"{f'{length:,} tokens, whole encoder':40}{'seconds':>10}{'another version':>18}{'ratio':>8}")
    for name in OURS:
        ours, other = seconds[name], seconds[f"{name}, another version"]
        print(f"  {name:38}{ours:10.3f}{other:18.3f}{ours / other:8.2f}")


def plot(models: dict[int, dict], path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(13, 4.5), layout="constrained")
    for axis, key, label in zip(axes, ("seconds", "mib"), ("seconds, forward and backward", "peak MiB"), strict=True):
        for name in ENCODERS:
            points = [(length, rows[name][key]) for length, rows in models.items() if name in rows]
            axis.plot(*zip(*points, strict=True), marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel="tokens in the source", ylabel=label)
        axis.set_xticks(list(models), [f"{length // 1024}k" for length in models])
        axis.minorticks_off()
        axis.grid(alpha=0.3, which="both")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 8192, 16384, 32768, 65536], help="tokens")
    parser.add_argument(
        "--core_length",
        type=int,
        default=16384,
        help=f"tokens, for the core and the ratios; at most {LONGEST['LED']:,}",
    )
    parser.add_argument("--rounds", type=int, default=2, help="of which the medians are taken (default 2)")
    add_results_option(parser)
    parser.add_argument(
        "--against", type=Path, help="folder with the *_xformer.py of another version, to compare with"
    )
    parser.add_argument("--memory_of", nargs=3, help=argparse.SUPPRESS)  # for the processes that measure memory
    args = parser.parse_args()
    if args.core_length > LONGEST["LED"]:
        parser.error(f"--core_length {args.core_length}: LED is not measured above {LONGEST['LED']:,} tokens")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    if args.against is not None:
        compare_versions(args.against, args.core_length, args.rounds, device)
        return
    if args.memory_of:
        what, name, length = args.memory_of
        run = MEASURED[what](int(length), device)[name]
        run()
        print(peak_mib(run))
        return
    folder, models, core = results_folder(parser, args), {}, {"length": args.core_length}
    for length in sorted({*args.lengths, args.core_length}):
        models[length] = measure(whole_models(length, device), args.rounds, length, "whole encoder")
        show(f"{length:,} tokens, whole encoder", models[length])
    core["rows"] = measure(cores(args.core_length, device), args.rounds, args.core_length, "attention core")
    show(f"{args.core_length:,} tokens, one attention core", core["rows"])
    about = {"device": str(device), "threads": torch.get_num_threads()}
    write_results("long_input", {"models": models, "core": core}, folder, **about)
    plot(models, folder / "long_input.png")
    show_ratios(models, core)


if __name__ == "__main__":
    main()
