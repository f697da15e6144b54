# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
The same minutes on the same cores: JoeyNMT, eole and hf-xformer train a model of one size on Multi30k, in turn.

  python -m venv ../joey-env && ../joey-env/bin/pip install torch==2.13.0 joeynmt==2.3.0 importlib_metadata
  python -m venv ../eole-env && ../eole-env/bin/pip install torch==2.13.0 'eole==0.6.*' aiohttp
  python benchmarks/toolkits.py --data multi30k-en-de-bpe --joey ../joey-env --eole ../eole-env --tune --minutes 4
  python benchmarks/toolkits.py --data multi30k-en-de-bpe --joey ../joey-env --eole ../eole-env --minutes 10 30

The model has 3+3 layers, d_model 256, sinusoidal positions, LayerNorm before the sublayers, ReLU, one matrix for the
embeddings of both sides and the output, and the published files' own subwords as its vocabulary. Each toolkit makes
batches of 2,000 tokens a side in its own way: eole of like lengths, JoeyNMT as they come, hf-xformer packed. All train
with Adam, and hf-xformer with Muon too. Minutes are of the wall clock, starts included, but for the validation that
JoeyNMT wants before it saves. BLEU is of the newest checkpoint at that minute, lowercased and tokenised as the files
are, with 5 beams of the toolkit's own.

--tune trains with several learning rates and prints BLEU on the validation set, by which RATES are chosen.
Rows are written as they come into benchmarks/results/toolkits.json (toolkits_tuned.json with --tune, both with _bf16
with --bf16), and those that are there are not measured again.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path

import yaml
from decode_cli import SIDES, vocabulary
from measuring import RESULTS
from verbs import Figures


ROOT = Path(__file__).resolve().parent.parent
LAYERS, WIDTH, HEADS, FEED_FORWARD = 3, 256, 4, 1024
DROPOUT, SMOOTHING, WARMUP, TOKENS, BEAMS = 0.3, 0.1, 400, 2000, 5
LONGEST = 100  # tokens of a text
SAVE = 25  # updates between checkpoints
GRID = (5e-4, 1e-3, 2e-3, 4e-3)
RATES = {"JoeyNMT": 1e-3, "eole": 1e-3, "hf-xformer": 2e-3, "hf-xformer, Muon": 2e-3}
NAMES = {"valid": "validation set", "test.2016": "test set of 2016"}


class Toolkit(ABC):
    """
    A toolkit that trains in a folder.

    Args:
        data: Folder of the published files.
        folder: Where everything goes.
        rate: The highest learning rate.
        bf16: Whether to compute in bfloat16.
    """

    name: str
    rates: str  # pattern of target tokens a second in what it says

    def __init__(self, data: Path, folder: Path, rate: float, bf16: bool):
        self.data, self.folder, self.rate, self.bf16 = data.resolve(), folder, rate, bf16
        folder.mkdir(parents=True)
        self.run = folder / "run"

    @abstractmethod
    def command(self) -> list[str]:
        """Returns the command that trains."""

    @abstractmethod
    def checkpoints(self) -> dict[int, Path]:
        """Returns the finished checkpoints, by their updates."""

    @abstractmethod
    def translate(self, checkpoint: Path, source: Path) -> list[str]:
        """Returns what a checkpoint makes of the lines of a file."""

    def train(self, minutes: list[float]) -> list[dict]:
        """Trains for the longest of the minutes; returns the updates, checkpoint and speed at each."""
        log, found = self.folder / "log", []
        with open(log, "w") as output:
            start = time.monotonic()
            process = subprocess.Popen(
                self.command(),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"},
            )
            try:
                for minute in sorted(minutes):
                    while (left := start + 60 * minute - time.monotonic()) > 0:
                        time.sleep(min(left, 1))
                        if process.poll() is not None:
                            raise SystemExit(f"{self.name} ended by itself: {log}:\n{log.read_text()[-2000:]}")
                    saved = self.checkpoints()
                    if not saved:
                        raise SystemExit(f"{self.name} saved nothing in {minute:g} minutes; its log is {log}")
                    kept = self.folder / f"at-{minute:g}"
                    shutil.copytree(saved[max(saved)], kept) if saved[max(saved)].is_dir() else shutil.copy(
                        saved[max(saved)], kept
                    )
                    found.append({"minutes": minute, "updates": max(saved), "checkpoint": kept})
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        speeds = [float(each.replace(",", "")) for each in re.findall(self.rates, log.read_text())]
        return [row | {"target_tokens_per_second": round(statistics.median(speeds))} for row in found]


class JoeyNMT(Toolkit):
    name = "JoeyNMT"
    rates = r"Tokens per Sec: +([\d.]+)"

    def __init__(self, data: Path, folder: Path, rate: float, bf16: bool, python: Path):
        super().__init__(data, folder, rate, False)  # it has no bfloat16 on a CPU
        self.python = python
        (folder / "words").write_text("".join(f"{token}\n" for token in vocabulary(data)), encoding="utf-8")
        for side in SIDES:  # it saves after a validation, which takes as long as its set
            lines = (data / f"valid.{side}").read_text(encoding="utf-8").splitlines()[:4]
            (folder / f"few.{side}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def config(self, **testing: object) -> str:
        """Returns the path of a configuration."""
        side = {"max_length": LONGEST, "level": "word", "voc_file": str(self.folder / "words")}
        embeddings = {"embedding_dim": WIDTH, "scale": True, "dropout": DROPOUT}
        stack = {"type": "transformer", "num_layers": LAYERS, "num_heads": HEADS, "hidden_size": WIDTH}
        stack |= {"ff_size": FEED_FORWARD, "dropout": DROPOUT, "layer_norm": "pre", "embeddings": embeddings}
        config = {
            "name": "multi30k",
            "joeynmt_version": "2.3.0",
            "model_dir": str(self.run),
            "use_cuda": False,
            "data": {
                **{"train": str(self.data / "train"), "dev": str(self.folder / "few"), "dataset_type": "plain"},
                "src": {"lang": SIDES[0], **side},
                "trg": {"lang": SIDES[1], **side},
            },
            "training": {
                **{"optimizer": "adam", "adam_betas": [0.9, 0.98], "scheduling": "warmupinversesquareroot"},
                **{"learning_rate": self.rate, "learning_rate_warmup": WARMUP, "learning_rate_min": 1e-9},
                **{"label_smoothing": SMOOTHING, "clip_grad_norm": 1.0, "loss": "crossentropy"},
                **{"normalization": "tokens", "batch_size": TOKENS, "batch_type": "token", "epochs": 10_000},
                **{"logging_freq": 5, "validation_freq": SAVE, "keep_best_ckpts": -1, "overwrite": True},
                **{"early_stopping_metric": "loss", "print_valid_sents": []},
            },
            "testing": {"eval_metrics": [], "beam_size": 1, "max_output_length": LONGEST, **testing},
            "model": {
                **{
                    "initializer": "xavier_uniform",
                    "embed_initializer": "xavier_uniform",
                    "bias_initializer": "zeros",
                },
                **{"init_gain": 1.0, "embed_init_gain": 1.0, "tied_embeddings": True, "tied_softmax": True},
                **{"encoder": stack, "decoder": stack},
            },
        }
        path = self.folder / f"{'test' if testing else 'train'}.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return str(path)

    def command(self) -> list[str]:
        return [str(self.python / "bin/python"), "-m", "joeynmt", "train", self.config(), "--skip-test"]

    def checkpoints(self) -> dict[int, Path]:
        # The newest may be half written.
        found = {int(path.stem): path for path in self.run.glob("*.ckpt") if path.stem.isdigit()}
        return {updates: path for updates, path in found.items() if time.time() - path.stat().st_mtime > 1}

    def translate(self, checkpoint: Path, source: Path) -> list[str]:
        decoding = {"load_model": str(checkpoint), "beam_size": BEAMS, "beam_alpha": 1.0, "batch_size": 64}
        command = [str(self.python / "bin/python"), "-m", "joeynmt", "translate", self.config(**decoding)]
        with open(source) as lines:
            result = subprocess.run(command, stdin=lines, stdout=subprocess.PIPE, text=True, check=True)
        return result.stdout.splitlines()


class Eole(Toolkit):
    name = "eole"
    rates = r"/ *([\d.]+) tok/s"

    def __init__(self, data: Path, folder: Path, rate: float, bf16: bool, python: Path):
        super().__init__(data, folder, rate, bf16)
        self.program = str(python / "bin/eole")
        words = "".join(f"{token}\t1\n" for token in vocabulary(data))
        (folder / "words").write_text(words, encoding="utf-8")

    def command(self) -> list[str]:
        words = str(self.folder / "words")
        pairs = {
            f"path_{name}": str(self.data / f"train.{side}") for name, side in zip(("src", "tgt"), SIDES, strict=True)
        }
        # Its rate is the number that it is told over the square roots of the width and of the step or the warm-up.
        highest = self.rate * (WIDTH * WARMUP) ** 0.5
        config = {
            **{"data": {"pairs": pairs}, "src_vocab": words, "tgt_vocab": words, "share_vocab": True, "n_sample": 0},
            **{"report_every": 20},
            "training": {
                **{"model_path": str(self.run), "world_size": 0, "gpu_ranks": [], "num_workers": 0},
                **{"compute_dtype": "bf16" if self.bf16 else "fp32", "batch_size": TOKENS, "batch_type": "tokens"},
                **{"normalization": "tokens", "optim": "adam", "adam_beta2": 0.98, "learning_rate": highest},
                **{"decay_method": "noam", "warmup_steps": WARMUP, "max_grad_norm": 1.0},
                **{"dropout": [DROPOUT], "attention_dropout": [0.0], "label_smoothing": SMOOTHING},
                **{
                    "train_steps": 10_000_000,
                    "save_checkpoint_steps": SAVE,
                    "valid_steps": 10_000_000,
                    "keep_checkpoint": 2,
                },
                **{"bucket_size": 30_000, "param_init_method": "xavier_uniform"},
            },
            "model": {
                **{"architecture": "transformer", "layers": LAYERS, "hidden_size": WIDTH, "heads": HEADS},
                **{"transformer_ff": FEED_FORWARD, "share_embeddings": True, "share_decoder_embeddings": True},
                "embeddings": {"word_vec_size": WIDTH, "position_encoding_type": "SinusoidalInterleaved"},
            },
        }
        path = self.folder / "train.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return [self.program, "train", "-config", str(path)]

    def checkpoints(self) -> dict[int, Path]:
        folders = {int(path.name.removeprefix("step_")): path for path in self.run.glob("step_*")}
        return {
            updates: path
            for updates, path in folders.items()
            if any(time.time() - each.stat().st_mtime > 1 for each in path.glob("*.safetensors"))
        }

    def translate(self, checkpoint: Path, source: Path) -> list[str]:
        out = checkpoint.with_suffix(".out")
        command = [self.program, "predict", "-model_path", str(checkpoint), "-src", str(source), "-output", str(out)]
        command += ["-beam_size", str(BEAMS), "-world_size", "0", "-batch_size", "64", "-max_length", str(LONGEST)]
        subprocess.run([*command, "-compute_dtype", "fp32"], check=True, stdout=sys.stderr)
        return out.read_text(encoding="utf-8").splitlines()


class Ours(Toolkit):
    name = "hf-xformer"
    optimizer = "adamw_torch"
    rates = r"'target_tokens_per_second': '?([\d.,]+)"

    def __init__(self, data: Path, folder: Path, rate: float, bf16: bool):
        super().__init__(data, folder, rate, bf16)
        from hf_xformer.data.tokenizers import train_tokenizer

        words = vocabulary(data)
        tokenizer = train_tokenizer(words, "symbol", vocab_size=2 * len(words), max_length=LONGEST + 1)
        tokenizer.save_pretrained(folder / "tokenizer")

    def command(self) -> list[str]:
        model = {
            **{"d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": LAYERS, "gated_ffn": False},
            **{"encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, "activation_function": "relu"},
            **{"encoder_ffn_dim": FEED_FORWARD, "decoder_ffn_dim": FEED_FORWARD, "norm_type": "layernorm"},
            **{"position_embedding_type": "sinusoidal", "use_bias": True, "scale_embedding": True, "dropout": DROPOUT},
            **{"tie_word_embeddings": True, "label_smoothing": SMOOTHING, "initializer_range": WIDTH**-0.5},
        }
        recipe = {
            **{"config_name": str(ROOT / "configs/model/tiny.json"), "config_overrides": model, "packing": True},
            **{"train_file": [str(self.data / f"train.{side}") for side in SIDES], "max_tokens": TOKENS},
            **{"tokenizer_name": str(self.folder / "tokenizer"), "max_source_length": LONGEST + 1, "use_cpu": True},
            **{"max_target_length": LONGEST + 1, "max_steps": 10_000_000, "learning_rate": self.rate},
            "optim": self.optimizer,
            **{"lr_scheduler_type": "inverse_sqrt", "warmup_steps": WARMUP, "adam_beta2": 0.98, "max_grad_norm": 1.0},
            **{
                "save_strategy": "steps",
                "save_steps": SAVE,
                "save_only_model": True,
                "resume_from_checkpoint": False,
                "save_total_limit": 2,
            },
            **{"report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False, "bf16": self.bf16},
            **{"output_dir": str(self.run), "logging_steps": 20},
        }
        path = self.folder / "train.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return [sys.executable, "-m", "hf_xformer", "train", str(path)]

    def checkpoints(self) -> dict[int, Path]:
        found = {int(path.name.removeprefix("checkpoint-")): path for path in self.run.glob("checkpoint-*")}
        return {updates: path for updates, path in found.items() if (path / "trainer_state.json").exists()}

    def translate(self, checkpoint: Path, source: Path) -> list[str]:
        command = [sys.executable, "-m", "hf_xformer", "generate", str(checkpoint), "--input", str(source)]
        command += ["--num_beams", str(BEAMS), "--max_new_tokens", str(LONGEST)]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


class OursWithMuon(Ours):
    name = "hf-xformer, Muon"
    optimizer = "muon"


def bleu(texts: list[str], references: Path) -> float:
    """Returns BLEU of texts whose words subword-nmt has cut, as they are tokenised."""
    from sacrebleu import corpus_bleu

    def joined(line: str) -> str:
        return " ".join(f"{line} ".replace("@@ ", "").split())  # a text that was cut off may end within a word

    expected = [joined(line) for line in references.read_text(encoding="utf-8").splitlines()]
    return round(corpus_bleu(list(map(joined, texts)), [expected], tokenize="none", force=True).score, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the published files")
    parser.add_argument("--joey", type=Path, help="virtual environment of JoeyNMT; without it, it is left out")
    parser.add_argument("--eole", type=Path, help="virtual environment of eole; without it, it is left out")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 30], help="default: 10 30")
    parser.add_argument("--tune", action="store_true", help="try several learning rates, on the validation set")
    parser.add_argument("--bf16", action="store_true", help="eole and hf-xformer in bfloat16, which JoeyNMT has not")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/toolkits"), help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON (default: the results)")
    args = parser.parse_args()
    if args.bf16 and args.joey is not None:
        print("JoeyNMT is left out: it has no bfloat16 on a CPU", file=sys.stderr)
        args.joey = None
    kits = {JoeyNMT: args.joey, Eole: args.eole, Ours: None, OursWithMuon: None}
    split = "valid" if args.tune else "test.2016"
    figures = Figures(f"toolkits{'_tuned' * args.tune}{'_bf16' * args.bf16}", args.results)
    for kind, python in kits.items():
        name = kind.name
        if not issubclass(kind, Ours) and python is None:
            continue
        for rate in GRID if args.tune else (RATES[name],):
            left = [each for each in args.minutes if not figures.has(toolkit=name, rate=rate, minutes=each)]
            if not left:
                continue
            folder = args.output_dir.resolve() / f"{name}-{rate:g}{'-bf16' * args.bf16}"
            shutil.rmtree(folder, ignore_errors=True)
            own = () if python is None else (python.resolve(),)
            toolkit = kind(args.data, folder, rate, args.bf16, *own)
            for row in toolkit.train(left):
                texts = toolkit.translate(row.pop("checkpoint"), toolkit.data / f"{split}.{SIDES[0]}")
                score = bleu(texts, toolkit.data / f"{split}.{SIDES[1]}")
                figures.add(toolkit=name, rate=rate, **row, bleu=score)
    print(f"\nBLEU on the {NAMES[split]}")
    for row in figures.rows():
        speed = f"{row['target_tokens_per_second']:,} target tokens/s"
        when = f"{row['minutes']:6g} min{row['updates']:7,} updates"
        print(f"{row['toolkit']:18}{row['rate']:8g}{when}  {speed}  {row['bleu']}")


if __name__ == "__main__":
    main()
