# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
New tokens a second of `generate()`: ours in eager mode and compiled, stock encoder-decoders, CTranslate2.

  python benchmarks/decode.py base                        # half an hour on two cores
  python benchmarks/decode.py base --ways greedy --models hf-xformer Marian --dtypes bfloat16   # into build/tried
  python benchmarks/decode.py base --profile              # where a step of ours spends its time

All models have random weights and one shape, sources of --source tokens, and write --new tokens, without an end token.
They take turns in one process, CTranslate2 in its own; seconds are medians. Ours decodes as `Decoder` does, with fused
projections; "compiled" is `cache_implementation="static"`, "int8" has weights of 8 bits. CTranslate2 runs our model,
exported.

Prints ratios to the best stock model, and to CTranslate2 in 8 bits, and writes decode_SHAPE.json and .png into
--results.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from apart import apart
from costs import seconds_in_turn
from measuring import add_results_option, results_folder, write_results
from peers import SHAPES, STOCK, Shape, xformer
from torch import nn

from hf_xformer.checkpoints.ctranslate2_spec import load_ctranslate2, make_spec
from hf_xformer.checkpoints.quantization import quantize


OURS, COMPILED, INT8 = "hf-xformer", "hf-xformer, compiled", "hf-xformer, int8"
ENGINE = {"float32": "CTranslate2", "int8": "CTranslate2 int8"}
MAKERS = {OURS: xformer, **STOCK}
WAYS = {"greedy": (1, 1), "beams": (8, 4)}  # sources and beams
# Ratios of our speed in eager mode to that of the best stock model, by way and type.
WANTED = {("greedy", "float32"): 1.1, ("greedy", "bfloat16"): 1.3, ("beams", "float32"): 1.3}
LABELS = {"greedy": "greedy, one source", "beams": "4 beams, 8 sources"}


def make(name: str, shape: Shape, dtype: torch.dtype) -> nn.Module:
    """Returns a model that never ends a text by itself."""
    torch.manual_seed(0)
    model = MAKERS[name](shape).to(dtype).eval()
    model.generation_config.eos_token_id = None
    if name == OURS:
        model.fuse_projections()
    return model


def decode(model: nn.Module, sources: torch.Tensor, beams: int, new: int, **options) -> None:
    attended = torch.ones_like(sources)
    with torch.inference_mode():
        model.generate(
            sources, attention_mask=attended, num_beams=beams, max_new_tokens=new, do_sample=False, **options
        )


def engine(shape: Shape, kind: str, folder: Path) -> Callable[[torch.Tensor, int, int], None]:
    """Returns what decodes with CTranslate2, in one of its types of weights, a model of ours that it writes there."""
    model = make(OURS, shape, torch.float32)
    spec = make_spec(model)
    vocabulary = [f"<{i}>" for i in range(shape.vocabulary)]
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)
    for name, token in (("bos", "<2>"), ("eos", "<1>"), ("unk", "<3>")):
        setattr(spec.config, f"{name}_token", token)
    spec.config.decoder_start_token = "<2>"
    spec.validate()
    spec.optimize(quantization=kind)
    folder.mkdir()
    spec.save(str(folder))
    run = apart(translate_by, str(folder), kind, torch.get_num_threads())

    def decode_apart(sources: torch.Tensor, beams: int, new: int) -> None:
        run([[f"<{i}>" for i in row] for row in sources.tolist()], beams, new)

    return decode_apart


def translate_by(folder: str, kind: str, threads: int) -> Callable[[list[list[str]], int, int], int]:
    """Returns what decodes texts with a model that was exported to CTranslate2."""
    translator = load_ctranslate2().Translator(folder, compute_type=kind, inter_threads=1, intra_threads=threads)

    def translate(texts: list[list[str]], beams: int, new: int) -> int:
        options = {"beam_size": beams, "min_decoding_length": new, "max_decoding_length": new}
        return len(translator.translate_batch(texts, **options))

    return translate


def runs(args: argparse.Namespace, way: str, folder: Path) -> Iterator[tuple[str, Callable]]:
    """Yields each name, "MODEL TYPE", with what decodes a batch."""
    shape, (count, beams) = SHAPES[args.shape], WAYS[way]
    sources = torch.randint(4, shape.vocabulary, (count, args.source), generator=torch.Generator().manual_seed(0))
    for dtype in args.dtypes:
        for name in args.models:
            if name in MAKERS:
                model = make(name, shape, getattr(torch, dtype))
                yield f"{name} {dtype}", partial(decode, model, sources, beams, args.new)
        if COMPILED in args.models:
            model = make(OURS, shape, getattr(torch, dtype))
            model.split_projections()
            run = partial(decode, model, cache_implementation="static")
            yield f"{COMPILED} {dtype}", partial(run, sources, beams, args.new)
    if INT8 in args.models:
        model = quantize(make(OURS, shape, torch.float32), "int8", print)
        yield INT8, partial(decode, model, sources, beams, args.new)
    for kind, name in ENGINE.items():
        if name in args.models:
            run = engine(shape, kind, folder / f"{way}-{kind}")
            yield name, partial(run, sources, beams, args.new)


def show(way: str, rates: dict[str, float]) -> None:
    print(f"\n{LABELS[way]}: new tokens/s")
    for name, rate in rates.items():
        print(f"  {name:32}{rate:10.1f}")
    for (of, dtype), wanted in WANTED.items():
        stock = [rate for name, rate in rates.items() if name.split()[0] in STOCK and name.endswith(dtype)]
        if of == way and stock and f"{OURS} {dtype}" in rates:
            ratio = rates[f"{OURS} {dtype}"] / max(stock)
            print(f"  ours / the best stock model, {dtype:10} {ratio:6.2f} (wanted: {wanted})")
    if (last := rates.get(ENGINE["int8"])) is not None:
        best = max(rate for name, rate in rates.items() if name.startswith(OURS))
        print(f"  our best mode / CTranslate2 int8       {best / last:6.2f} (wanted: 1)")


def profile(shape: Shape, dtype: torch.dtype, way: str, source: int, new: int) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    count, beams = WAYS[way]
    model, sources = make(OURS, shape, dtype), torch.randint(4, shape.vocabulary, (count, source))
    decode(model, sources, beams, new)
    with profiler(activities=[ProfilerActivity.CPU]) as seen:
        decode(model, sources, beams, new)
    print(f"\n{LABELS[way]}, {dtype}")
    print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))


def plot(rows: list[dict], title: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    ways = list(dict.fromkeys(row["way"] for row in rows))
    for axes, way in zip(figure.subplots(1, len(ways), squeeze=False)[0], ways, strict=True):
        own = sorted((row for row in rows if row["way"] == way), key=lambda row: row["rate"])
        colors = ["C0" if row["name"].startswith(OURS) else "0.7" for row in own]
        axes.barh([row["name"] for row in own], [row["rate"] for row in own], color=colors)
        axes.set(xlabel="new tokens a second", title=LABELS[way])
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def main() -> None:
    names = [*MAKERS, COMPILED, INT8, *ENGINE.values()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES, help="of all models")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS], help="of decoding (default: both)")
    parser.add_argument("--models", nargs="+", choices=names, default=names, help="to measure (default: all)")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="of weights (default: both)")
    parser.add_argument("--source", type=int, default=24, help="tokens of a source (default 24)")
    parser.add_argument("--new", type=int, default=48, help="tokens of a text (default 48)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the medians are taken (default 3)")
    parser.add_argument("--profile", action="store_true", help="a table of operations, in place of figures")
    add_results_option(parser)
    args = parser.parse_args()
    if args.profile:
        for dtype in args.dtypes:
            for way in args.ways:
                profile(SHAPES[args.shape], getattr(torch, dtype), way, args.source, args.new)
        return
    results, rows = results_folder(parser, args, shape="base"), []
    for way in args.ways:
        with tempfile.TemporaryDirectory() as folder:
            taken = seconds_in_turn(dict(runs(args, way, Path(folder))), args.rounds)
        rates = {name: WAYS[way][0] * args.new / seconds for name, seconds in taken.items()}
        show(way, rates)
        rows += [{"way": way, "name": name, "rate": round(rate, 1)} for name, rate in rates.items()]
    about = {"source": args.source, "new": args.new, "processor": processor()}
    write_results(f"decode_{args.shape}", rows, results, **about)
    plot(rows, f"{args.shape}, {os.cpu_count()} cores", results / f"decode_{args.shape}.png")
    print(json.dumps(about))


def processor() -> list[str]:
    """Returns which of the instructions are there that matter for decoding."""
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    return [name for name in known if name in flags]


if __name__ == "__main__":
    main()
