# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Speed, size and wrong words of a checkpoint in float32, bfloat16, 8 and 4 bits, on a CPU.

  python benchmarks/quantization.py runs/g2p-quickstart --test_file data/g2p/test.jsonl
  python benchmarks/quantization.py runs/g2p-quickstart --test_file data/g2p/test.jsonl --max_samples 500

All decode the same rows greedily in the same batches, one after the other. Size is that of the weights in memory,
embeddings and output layer included.

Writes quantization.json into --results and prints a table.
"""

import argparse
import time
from pathlib import Path

from measuring import add_results_option, existing, results_folder, write_results
from torch import nn

from hf_xformer.checkpoints.quantized_linear import Int8Linear
from hf_xformer.data.reading import load_rows
from hf_xformer.decoding import Decoder
from hf_xformer.decoding.metrics import compute_metrics


METRIC = "wrong_words"
OF_TABLES = {"checkpoint": "runs/g2p-quickstart", "test_file": ["data/g2p/test.jsonl"]}
MODES = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"dtype": "float32", "quantization": "int8"},
    "int4": {"dtype": "float32", "quantization": "int4"},
}


def megabytes(model: nn.Module) -> float:
    """Size of a model's weights; those that torch has packed into objects of its own are counted by their numbers."""
    tensors = {each.data_ptr(): each.nbytes for each in (*model.parameters(), *model.buffers())}
    packed = [layer for layer in model.modules() if isinstance(layer, Int8Linear)]
    return (sum(tensors.values()) + sum(layer.out_features * (layer.in_features + 4) for layer in packed)) / 1e6


def measure(checkpoint: str, mode: dict, sources: list[str], references: list[list[str]], batch_size: int) -> dict:
    decoder = Decoder.from_pretrained(checkpoint, device="cpu", batch_size=batch_size, num_beams=1, **mode)
    list(decoder.decode(sources[:batch_size]))  # the first steps pack weights and start threads
    start = time.perf_counter()
    texts = [best[0].text for best in decoder.decode(sources)]
    seconds = time.perf_counter() - start
    wrong = compute_metrics([METRIC], texts, references, sources)[METRIC]
    return {
        "texts_per_second": round(len(texts) / seconds, 1),
        "megabytes": round(megabytes(decoder.model), 2),
        METRIC: round(wrong, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=existing, help="folder of a trained Xformer")
    parser.add_argument("--test_file", type=existing, nargs="+", required=True, help="rows with sources and targets")
    parser.add_argument("--max_samples", type=int, help="decode the first rows only, this many")
    parser.add_argument("--batch_size", type=int, default=64, help="sources at a time (default 64)")
    add_results_option(parser)
    args = parser.parse_args()
    out = results_folder(parser, args, **OF_TABLES)
    rows = load_rows(args.test_file)
    sources, references = rows["source"][: args.max_samples], rows["target"][: args.max_samples]
    print(f"{'':10}{'texts/s':>10}{'MB':>10}{'wrong %':>10}{'- float32':>11}")
    results: dict[str, dict] = {}
    for name, mode in MODES.items():
        results[name] = each = measure(args.checkpoint, mode, sources, references, args.batch_size)
        more = each[METRIC] - results["float32"][METRIC]
        print(f"{name:10}{each['texts_per_second']:10,.1f}{each['megabytes']:10,.1f}{each[METRIC]:10.2f}{more:+11.2f}")
    about = {"checkpoint": Path(args.checkpoint).name, "samples": len(sources), "batch_size": args.batch_size}
    print(write_results("quantization", results, out, **about))


if __name__ == "__main__":
    main()
