# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Seconds of `hf-xformer generate` from its start to its last line: against an older checkout, and against eole.

  git worktree add ../old COMMIT
  python benchmarks/decode_cli.py commits --old ../old --checkpoint runs/de-en --input lines.de --num_beams 5

  python -m venv ../eole-env && ../eole-env/bin/pip install torch==2.13.0 'eole==0.6.*' aiohttp
  python benchmarks/decode_cli.py eole --eole ../eole-env --data Revisit-MMT/data/multi30k-en-de

`commits` decodes a file by both checkouts in turn, compares what they print, and notes when the first line was there;
options that it does not know are those of `generate`. `eole` takes models of one shape, 6+6 layers of 512 features
with the BPE vocabulary of the data, without training: each writes --length tokens for every test sentence, 64 at once
with 5 beams. The data are the published files of Multi30k (scripts/prepare_multi30k.py --help says where they are).
--tiny runs either on a few lines.

Prints ratios and writes decode_cli_commits.json or decode_cli_eole.json into --results.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from measuring import ROOT, add_results_option, existing, results_folder, write_results


BEAMS, BATCH = 5, 64
LAYERS, WIDTH, HEADS, FEED_FORWARD = 6, 512, 8, 2048
SIDES = ("en", "de")


def run(command: list[str], checkout: Path = ROOT) -> dict:
    """Runs a command and returns its seconds, those until its first line, and its lines."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    start, first, lines = time.perf_counter(), None, []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, cwd=checkout
        )
        for line in process.stdout:  # type: ignore[union-attr]
            first = first or time.perf_counter() - start
            lines.append(line)
        if process.wait():
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}:\n{errors.read()}")
    return {"seconds": time.perf_counter() - start, "first": first, "lines": lines}


def generate(checkpoint: Path, source: Path, options: list[str], checkout: Path = ROOT) -> dict:
    """Runs a checkout's `hf-xformer generate`."""
    verb = [
        sys.executable,
        "-m",
        "hf_xformer",
        "generate",
        str(checkpoint.resolve()),
        "--input",
        str(source.resolve()),
    ]
    return run([*verb, *options], checkout)


def head(path: Path, count: int, folder: Path) -> Path:
    """Returns a file of the first lines of another."""
    shorter = folder / f"head.{path.name}"
    with path.open(encoding="utf-8") as lines:
        shorter.write_text("".join(line for line, _ in zip(lines, range(count), strict=False)), encoding="utf-8")
    return shorter


def commits(args: argparse.Namespace, options: list[str], folder: Path) -> None:
    """Times an older checkout against this one, in turn."""
    source = head(args.input, 20, folder) if args.tiny else args.input
    checkouts = {"old": args.old.resolve(), "new": ROOT}
    runs: dict[str, list[dict]] = {name: [] for name in checkouts}
    for _ in range(args.rounds):
        for name, checkout in checkouts.items():
            runs[name].append(generate(args.checkpoint, source, options, checkout))
    old, new = (runs[name][0]["lines"] for name in checkouts)
    differing = sum(one != other for one, other in zip(old, new, strict=False)) + abs(len(old) - len(new))
    rows = [
        {"checkout": name, **{key: median(each[key] for each in timed) for key in ("seconds", "first")}}
        for name, timed in runs.items()
    ]
    for row in rows:
        print(f"{row['checkout']}: {row['seconds']:.1f} s, the first line after {row['first']:.1f} s")
    ratio = rows[0]["seconds"] / rows[1]["seconds"]
    print(f"{len(new):,} lines, {differing:,} of which differ; {ratio:.2f} times as fast as the old checkout")
    result = {"runs": rows, "ratio": ratio, "lines": len(new), "differing": differing, "options": options}
    result["rounds"] = args.rounds
    print(write_results("decode_cli_commits", result, args.results))


def eole(args: argparse.Namespace, options: list[str], folder: Path) -> None:
    """Times eole's `predict` against `hf-xformer generate`, in turn."""
    source = args.data / f"test.2016.{SIDES[0]}"
    source = head(source, 20, folder) if args.tiny else source.resolve()
    length, layers = (4, 1) if args.tiny else (args.length, LAYERS)
    theirs, ours = make_eole(args, layers, folder), make_ours(args, layers, length, folder)
    predict = [eole_program(args.eole), "predict", "-model_path", str(theirs), "-src", str(source)]
    predict += ["-output", str(folder / "predicted"), "-beam_size", str(BEAMS), "-world_size", "0"]
    predict += ["-batch_size", str(BATCH)]
    predict += ["-min_length", str(length), "-max_length", str(length), "-compute_dtype", "fp32"]
    seconds: dict[str, list[float]] = {"eole": [], "hf-xformer": []}
    for _ in range(args.rounds):
        seconds["eole"].append(run(predict, folder)["seconds"])
        beams = ["--num_beams", str(BEAMS), "--batch_size", str(BATCH)]
        seconds["hf-xformer"].append(generate(ours, source, [*beams, *options])["seconds"])
    rows = [{"engine": name, "seconds": median(each)} for name, each in seconds.items()]
    for row in rows:
        print(f"{row['engine']}: {row['seconds']:.1f} s")
    ratio = rows[0]["seconds"] / rows[1]["seconds"]
    print(f"hf-xformer generate takes 1/{ratio:.2f} of eole's time, starts included")
    about = {"length": length, "rounds": args.rounds, "batch_size": BATCH}
    print(write_results("decode_cli_eole", {"runs": rows, "ratio": ratio, **about}, args.results))


def vocabulary(data: Path) -> list[str]:
    """Returns the tokens of both sides of the training data, the commonest first."""
    counts: dict[str, int] = {}
    for side in SIDES:
        for token in (data / f"train.{side}").read_text(encoding="utf-8").split():
            counts[token] = counts.get(token, 0) + 1
    return sorted(counts, key=lambda token: (-counts[token], token))


def make_eole(args: argparse.Namespace, layers: int, folder: Path) -> Path:
    """Returns the folder of a model that eole has trained for one step."""
    words, model = folder / "vocabulary.tsv", folder / "eole"
    words.write_text("".join(f"{token}\t1\n" for token in vocabulary(args.data)), encoding="utf-8")
    pairs = {
        f"path_{name}": str(head(args.data / f"train.{side}", 8, folder))
        for name, side in zip(("src", "tgt"), SIDES, strict=True)
    }
    config = {
        "data": {"pairs": pairs},
        "src_vocab": str(words),
        "tgt_vocab": str(words),
        "share_vocab": True,
        "n_sample": 0,
        "training": {
            **{"model_path": str(model), "world_size": 0, "gpu_ranks": [], "compute_dtype": "fp32", "num_workers": 0},
            **{"batch_size": 8, "batch_type": "sents", "optim": "adam", "learning_rate": 1e-4},
            **{"train_steps": 1, "save_checkpoint_steps": 1, "valid_steps": 10},
        },
        "model": {
            **{"architecture": "transformer", "layers": layers, "hidden_size": WIDTH, "heads": HEADS},
            **{"transformer_ff": FEED_FORWARD, "share_embeddings": True, "share_decoder_embeddings": True},
            "embeddings": {"word_vec_size": WIDTH, "position_encoding_type": "SinusoidalInterleaved"},
        },
    }
    path = folder / "eole.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")  # which is YAML too
    run([eole_program(args.eole), "train", "-config", str(path)], folder)
    return model


def make_ours(args: argparse.Namespace, layers: int, length: int, folder: Path) -> Path:
    """Returns the folder of a model of ours of eole's shape, with random weights."""
    from hf_xformer import XformerConfig, XformerForSeq2SeqLM
    from hf_xformer.data.tokenizers import train_tokenizer

    words = vocabulary(args.data)
    tokenizer = train_tokenizer(words, "symbol", vocab_size=2 * len(words))  # room for all of them
    config = XformerConfig(
        **{"vocab_size": len(tokenizer), "d_model": WIDTH, "encoder_layers": layers, "decoder_layers": layers},
        **{"encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, "gated_ffn": False},
        **{"encoder_ffn_dim": FEED_FORWARD, "decoder_ffn_dim": FEED_FORWARD, "activation_function": "relu"},
        **{"norm_type": "layernorm", "position_embedding_type": "sinusoidal", "use_bias": True},
    )
    model = XformerForSeq2SeqLM(config)
    model.generation_config.update(min_new_tokens=length, max_new_tokens=length, max_length=None)
    model.save_pretrained(folder / "ours")
    tokenizer.save_pretrained(folder / "ours")
    return folder / "ours"


def eole_program(environment: Path) -> str:
    """
    Returns the path of `eole` in a virtual environment.

    Raises:
        SystemExit: It is not there.
    """
    program = environment.absolute() / "bin/eole"
    if not program.is_file():
        raise SystemExit(f"--eole {environment}: there is no bin/eole; give the virtual environment that has it")
    return str(program)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    places = {
        commits: {"old": "older checkout", "checkpoint": "folder of a model", "input": "file of sources"},
        eole: {"eole": "virtual environment of eole", "data": "folder of the published files"},
    }
    for measure, of_it in places.items():
        verb = verbs.add_parser(measure.__name__)
        verb.set_defaults(measure=measure, options=[])
        for place, said in of_it.items():
            verb.add_argument(f"--{place}", type=lambda path: Path(existing(path)), required=True, help=said)
        verb.add_argument("--rounds", type=int, default=3, help="of which the medians are taken (default 3)")
        verb.add_argument("--tiny", action="store_true", help="a few lines, to try the benchmark itself")
        add_results_option(verb)
    verbs.choices["eole"].add_argument("--length", type=int, default=16, help="tokens of each text (default 16)")
    args, args.options = parser.parse_known_args()
    args.results = results_folder(verbs.choices[args.measure.__name__], args, *places[args.measure])
    with tempfile.TemporaryDirectory() as folder:
        args.measure(args, args.options, Path(folder))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
