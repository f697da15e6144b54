# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Packed streams against packed rows in memory: speed of training, and memory of reading.

  python benchmarks/streams.py                            # a quarter of an hour on two cores
  python benchmarks/streams.py --steps 0                  # memory alone, over five million rows
  python benchmarks/streams.py --rows 20000 --steps 20 --rounds 1 --d_model 64   # into build/tried

Speed: the same model is trained in turn on the first --train_rows of a file, tokenised beforehand, and on them as a
stream, each run in a process of its own; its tokens a second are of the whole training, the first window included.
Memory: one pass over --rows of a file is read, encoded and packed, and the process's memory is taken ten times on the
way. Writes streams_speed.json and streams_memory.json into --results.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import add_results_option, results_folder, write_results


WORDS = 5_000
MAX_TOKENS = 1_024


def write_pairs(path: Path, rows: int) -> None:
    """Writes pairs of 3 to 40 words drawn from `WORDS`, the target backwards."""
    random = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(WORDS)])
    with open(path, "w") as output:
        for _ in range(rows):
            drawn = words[(random.pareto(1.0, random.integers(3, 40)) * 20 % WORDS).astype(int)].tolist()
            output.write(json.dumps({"source": " ".join(drawn), "target": " ".join(reversed(drawn))}) + "\n")


def make_tokenizer(folder: Path) -> None:
    from hf_xformer.data.tokenizers import train_tokenizer

    train_tokenizer((" ".join(f"w{number}" for number in range(WORDS)),), "symbol").save_pretrained(folder)


def recipe(folder: Path, args: argparse.Namespace, streaming: bool, out: Path) -> list[str]:
    """Returns the command line of a training."""
    width = {"d_model": args.d_model, "encoder_layers": 2, "decoder_layers": 2}
    width |= {"encoder_ffn_dim": 4 * args.d_model, "decoder_ffn_dim": 4 * args.d_model}
    options = {
        "config_name": "configs/model/tiny.json",
        "config_overrides": ",".join(f"{name}={value}" for name, value in width.items()),
        "tokenizer_name": folder / "tokenizer",
        "train_file": folder / "train.jsonl",
        "streaming": str(streaming).lower(),
        "packing": "true",
        "max_tokens": MAX_TOKENS,
        "max_steps": args.steps,
        "dataloader_num_workers": args.workers,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": "true",
        "logging_steps": 10,
        "output_dir": out,
    }
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def speed(folder: Path, args: argparse.Namespace, streaming: bool, number: int) -> float:
    """Returns the source and target tokens a second of a training."""
    out = folder / f"run-{number}-{streaming}"
    command = [sys.executable, "-m", "hf_xformer", "train", *recipe(folder, args, streaming, out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    results = json.loads((out / "train_results.json").read_text())
    return results["train_source_tokens_per_second"] + results["train_target_tokens_per_second"]


def memory(file: Path, tokenizer: Path, rows: int) -> list[float]:
    """Returns MiB of this process at ten moments of a pass over a stream, after the first window."""
    from transformers import AutoTokenizer

    from hf_xformer.data.batches import PackedWithin
    from hf_xformer.data.corpora import Corpus
    from hf_xformer.data.pairs import PairEncoder, PairTokenizer, prepare_stream
    from hf_xformer.data.reading import load_rows
    from hf_xformer.data.windows import Windows

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    tokenize = PairTokenizer(loaded, loaded, 256, 256)
    texts = prepare_stream(load_rows([file], streaming=True), tokenize, "truncate", lambda line: None)
    batches = iter(Windows([Corpus(texts, PairEncoder(tokenize, "truncate"))], PackedWithin(MAX_TOKENS), seed=0))
    found: list[float] = []
    read = 0
    while read < rows:
        read += len(next(batches))
        if read >= (len(found) + 1) * rows // 10:
            found.append(resident_mib())
    return found


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the file whose reading takes memory")
    parser.add_argument("--train_rows", type=int, default=200_000, help="of the file that is trained on")
    parser.add_argument("--steps", type=int, default=150, help="of a training; 0 leaves the speed out")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each kind, in turn")
    parser.add_argument("--workers", type=int, default=1, help="of the loader")
    parser.add_argument("--d_model", type=int, default=256, help="width of the model")
    parser.add_argument("--memory_of", nargs=2, help=argparse.SUPPRESS)
    add_results_option(parser)
    args = parser.parse_args()
    if args.memory_of:
        print(json.dumps(memory(*map(Path, args.memory_of), args.rows)))
        return
    about = {each: getattr(args, each) for each in ("train_rows", "steps", "workers", "d_model")}
    # Each by the options that decide it.
    speeds = results_folder(parser, args, "rows") if args.steps else None
    memories = results_folder(parser, args, *about, "rounds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tokenizer(folder / "tokenizer")
        if args.steps:
            write_pairs(folder / "train.jsonl", args.train_rows)
            write_results("streams_speed", compare_speed(folder, args), speeds, max_tokens=MAX_TOKENS, **about)
        write_pairs(folder / "long.jsonl", args.rows)
        command = [sys.executable, __file__, "--rows", str(args.rows), "--memory_of"]
        command += [str(folder / "long.jsonl"), str(folder / "tokenizer")]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    mib = [round(each) for each in json.loads(printed.splitlines()[-1])]
    print(f"MiB at every tenth of {args.rows:,} rows: {mib}")
    write_results("streams_memory", {"rows": args.rows, "mib": mib}, memories)


def compare_speed(folder: Path, args: argparse.Namespace) -> dict:
    """Returns the tokens a second of all rounds, and the median of their ratios."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    for number in range(args.rounds):
        for streaming, found in rates.items():
            found.append(round(speed(folder, args, streaming, number), 1))
            print(f"  {'stream' if streaming else 'memory':8}{found[-1]:12,.0f} tokens/s", flush=True)
    ratio = statistics.median(stream / kept for kept, stream in zip(rates[False], rates[True], strict=True))
    print(f"stream / memory: {ratio:.3f} (wanted: 0.95 at least)")
    return {"memory": rates[False], "stream": rates[True], "ratio": round(ratio, 3)}


if __name__ == "__main__":
    main()
