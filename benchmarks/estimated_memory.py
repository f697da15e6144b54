# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Compares the memory that hf-xformer estimate predicts with what a training on two processes of this machine takes.

  python benchmarks/estimated_memory.py
  python benchmarks/estimated_memory.py --configs zero3 zero3-offload --rows 4   # into build/tried

Each configuration trains two steps of a 49M-parameter model and two of a tiny one: the difference of their peaks of
resident memory, of the largest process, is what the model takes, without Python and its libraries. On a CPU the device
is main memory, so that what is offloaded counts as well. Writes estimated_memory.json into --results.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from costs import peak_of_command
from measuring import ROOT, add_results_option, results_folder, write_results

from hf_xformer.checkpoints.loading import load_config
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.training.estimation import Batch, Memory, count, memory, read_launch


CONFIGS = ("cpu", "cpu-2proc", "zero1", "zero2", "zero3", "zero3-offload")
MODEL = str(ROOT / "configs/model/modern-base.json")
LENGTH, VOCABULARY = 256, 8000
MODELS = {
    "model": {},
    "tiny": {
        **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
        **{"encoder_attention_heads": 1, "decoder_attention_heads": 1},
    },
}
# Tensors of some size come from the system and go back to it: what the heap keeps for later is not the model's.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=[*CONFIGS], help="files of configs/accelerate, without .yaml")
    parser.add_argument("--rows", type=int, default=8, help=f"rows a process, of {LENGTH} tokens a side (default 8)")
    add_results_option(parser)
    args = parser.parse_args()
    results = results_folder(parser, args)
    with tempfile.TemporaryDirectory() as folder:
        write_task(Path(folder))
        rows = [compare(name, args.rows, Path(folder)) for name in args.configs]
    print(f"{'configuration':16}{'predicted MiB':>15}{'measured MiB':>15}{'ratio':>8}")
    for row in rows:
        print(f"{row['config']:16}{row['predicted_mib']:15,}{row['measured_mib']:15,}{row['ratio']:8.2f}")
    print(f"written to {write_results('estimated_memory', rows, results)}")


def write_task(folder: Path) -> None:
    letters = " ".join("ABCDEFGH" * (LENGTH // 8))
    row = json.dumps({"source": letters, "target": letters})
    (folder / "train.jsonl").write_text(f"{row}\n" * 64)
    train_tokenizer((letters,), "symbol").save_pretrained(folder / "tokenizer")


def compare(name: str, rows: int, folder: Path) -> dict:
    measured = {model: train(name, fields, rows, folder) for model, fields in MODELS.items()}
    predicted = {model: predict(name, fields, rows) for model, fields in MODELS.items()}
    predicted_mib, measured_mib = (round((each["model"] - each["tiny"]) / 2**20) for each in (predicted, measured))
    row = {"config": name, "predicted_mib": predicted_mib, "measured_mib": measured_mib}
    row["ratio"] = round(predicted_mib / measured_mib, 3)
    print(row, file=sys.stderr)
    return row


def processes(name: str) -> int:
    return 1 if name == "cpu" else 2


def predict(name: str, fields: dict, rows: int) -> float:
    config = load_config(MODEL, {"vocab_size": VOCABULARY, **fields})
    launch = read_launch(ROOT / f"configs/accelerate/{name}.yaml", processes(name), half=False)
    taken: Memory = memory(launch, count(config, Batch(rows, LENGTH, LENGTH), "float32"), checkpointing=False)
    return taken.total + taken.host


def train(name: str, fields: dict, rows: int, folder: Path) -> int:
    overrides = ",".join(f"{field}={value}" for field, value in {"vocab_size": VOCABULARY, **fields}.items())
    options = {
        **{"config_name": MODEL, "config_overrides": overrides},
        **{"tokenizer_name": folder / "tokenizer", "train_file": folder / "train.jsonl"},
        **{"output_dir": tempfile.mkdtemp(dir=folder), "max_source_length": LENGTH, "max_target_length": LENGTH},
        **{"per_device_train_batch_size": rows, "max_steps": 2, "save_strategy": "no", "report_to": "none"},
        **{"disable_tqdm": "true", "use_cpu": "true"},
    }
    launcher = ["--config_file", f"configs/accelerate/{name}.yaml", "--num_processes", str(processes(name))]
    return peak_of_command(
        *(sys.executable, "-m", "accelerate.commands.launch", *launcher, "--mixed_precision", "no"),
        *("--main_process_port", "0", "scripts/train.py"),
        *(word for option, value in options.items() for word in (f"--{option}", str(value))),
        **ENVIRONMENT,
    )


if __name__ == "__main__":
    main()
