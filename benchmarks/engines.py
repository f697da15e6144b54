# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Words a second of a checkpoint in PyTorch, CTranslate2 and ONNX Runtime on a CPU, and whether they give equal tokens.

  python benchmarks/engines.py runs/g2p-quickstart --test_file data/g2p/test.jsonl
  python benchmarks/engines.py runs/g2p-quickstart --test_file data/g2p/test.jsonl --batch_size 32

The checkpoint is exported to a folder that is deleted in the end. Every engine decodes the same words greedily, from
token ids to token ids, in the same batches and with the same number of threads, in a process of its own; PyTorch as
`Decoder` does. All take turns, and seconds are medians. In float32 all must give the tokens of PyTorch: if one does
not, the exit status is 1.

Writes engines_BATCH.json into --results and prints a table.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from apart import apart
from costs import seconds_in_turn
from measuring import add_results_option, existing, results_folder, write_results

from hf_xformer.checkpoints.export import export_checkpoint
from hf_xformer.checkpoints.onnx_sessions import OnnxModel
from hf_xformer.data.reading import load_rows
from hf_xformer.decoding import Decoder


Rows = list[list[int]]
Decode = Callable[[Rows], Rows]
OF_TABLES = {"checkpoint": "runs/g2p-quickstart", "test_file": ["data/g2p/test.jsonl"]}
NEW_TOKENS = 40
TORCH: dict[str, dict[str, Any]] = {
    "PyTorch float32": {"dtype": "float32"},
    "PyTorch float32, compiled": {"dtype": "float32", "compile": True},
    "PyTorch bfloat16": {"dtype": "bfloat16"},
    "PyTorch int8": {"dtype": "float32", "quantization": "int8"},
    "PyTorch int4": {"dtype": "float32", "quantization": "int4"},
}
BASELINE = "PyTorch float32"
EXPORTS = {
    "CTranslate2 float32": ("ctranslate2", "float32"),
    "CTranslate2 int8": ("ctranslate2", "int8"),
    "ONNX Runtime float32": ("onnx", "float32"),
    "ONNX Runtime int8": ("onnx", "int8"),
}


def by_torch(checkpoint: str, mode: dict[str, Any]) -> Decode:
    greedy = {"num_beams": 1, "do_sample": False, "max_new_tokens": NEW_TOKENS}
    decoder = Decoder.from_pretrained(checkpoint, device="cpu", **greedy, **mode)
    ends = decoder.config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]

    @torch.inference_mode()
    def decode(rows: Rows) -> Rows:
        batch = decoder.source.pad({"input_ids": rows}, padding_side="right", return_tensors="pt")
        output = decoder.model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **decoder.options
        )
        return [list(takewhile(lambda token: token not in ends, row)) for row in output.sequences[:, 1:].tolist()]

    return decode


def by_ctranslate2(folder: Path, compute_type: str, threads: int) -> Decode:
    import ctranslate2  # an extra

    def tokens_of(side: str) -> list[str]:
        shared = folder / "shared_vocabulary.json"
        return json.loads((shared if shared.exists() else folder / f"{side}_vocabulary.json").read_text())

    source, target = tokens_of("source"), tokens_of("target")
    ids = {token: i for i, token in enumerate(target)}
    translator = ctranslate2.Translator(str(folder), intra_threads=threads, compute_type=compute_type)

    def decode(rows: Rows) -> Rows:
        batch = [[source[i] for i in row] for row in rows]
        # Not `decoding.json`, whose length and beams are the checkpoint's own.
        results = translator.translate_batch(
            batch, beam_size=1, max_decoding_length=NEW_TOKENS, min_decoding_length=0, max_input_length=0
        )
        return [[ids[token] for token in result.hypotheses[0]] for result in results]

    return decode


def by_onnx(folder: Path, compute_type: str, threads: int) -> Decode:
    return partial(OnnxModel(folder, threads=threads).generate, max_new_tokens=NEW_TOKENS)


def make_engines(checkpoint: str, folder: Path) -> Iterator[tuple[str, Decode]]:
    """Yields the engines by name; exports are written into the folder."""
    for name, mode in TORCH.items():
        yield name, apart(by_torch, checkpoint, mode)
    for name, (engine, quantization) in EXPORTS.items():
        out = folder / f"{engine}-{quantization}"
        export_checkpoint(checkpoint, out, quantization, engine=engine)
        yield name, apart(by_onnx if engine == "onnx" else by_ctranslate2, out, quantization, torch.get_num_threads())


def decode_all(decode: Decode, sources: Rows, batch_size: int) -> Rows:
    return [row for i in range(0, len(sources), batch_size) for row in decode(sources[i : i + batch_size])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=existing, help="folder of a trained Xformer")
    parser.add_argument("--test_file", type=existing, nargs="+", required=True, help="rows with sources and targets")
    parser.add_argument("--max_samples", type=int, default=200, help="decode the first rows only (default 200)")
    parser.add_argument("--batch_size", type=int, default=1, help="words at a time (default 1)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the medians are taken (default 3)")
    add_results_option(parser)
    args = parser.parse_args()
    batch = 32 if args.batch_size == 32 else 1  # the tables have both
    out = results_folder(parser, args, **OF_TABLES, batch_size=batch)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)
    texts = load_rows(args.test_file)["source"][: args.max_samples]
    encode = Decoder.from_pretrained(args.checkpoint, device="cpu").encoder
    sources = [each.ids for each in encode(texts)]
    with tempfile.TemporaryDirectory() as folder:
        engines = dict(make_engines(args.checkpoint, Path(folder)))
        written = {name: decode_all(decode, sources, args.batch_size) for name, decode in engines.items()}
        runs = {name: partial(decode_all, decode, sources, args.batch_size) for name, decode in engines.items()}
        seconds = seconds_in_turn(runs, args.rounds)
    print(f"\n{'':28}{'words/s':>10}{f'/ {BASELINE}':>20}{'equal words':>14}")
    results = {}
    for name in engines:
        rate = len(sources) / seconds[name]
        equal = sum(a == b for a, b in zip(written[name], written[BASELINE], strict=True))
        results[name] = {"words_per_second": round(rate, 1), "equal_words": equal}
        ratio = rate / results[BASELINE]["words_per_second"]
        print(f"  {name:26}{rate:10,.1f}{ratio:20.2f}{f'{equal} / {len(sources)}':>14}")
    about = {"checkpoint": Path(args.checkpoint).name, "samples": len(sources), "batch_size": args.batch_size}
    print(write_results(f"engines_{args.batch_size}", results, out, **about))
    unlike = [name for name, each in results.items() if "float32" in name and each["equal_words"] < len(sources)]
    if unlike:
        raise SystemExit(f"in float32 {' and '.join(unlike)} gave other tokens than {BASELINE}")


if __name__ == "__main__":
    main()
