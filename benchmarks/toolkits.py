# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
The same minutes on the same cores: JoeyNMT, eole and hf-xformer train a model of one size on Multi30k, in turn.

  python -m venv ../joey-env && ../joey-env/bin/pip install torch==2.13.0 joeynmt==2.3.0 importlib_metadata
  python -m venv ../eole-env && ../eole-env/bin/pip install torch==2.13.0 'eole==0.6.*' aiohttp
  python benchmarks/toolkits.py --data Revisit-MMT/data/multi30k-en-de --joey ../joey-env --eole ../eole-env --tune
  python benchmarks/toolkits.py --data Revisit-MMT/data/multi30k-en-de --toolkits eole hf-xformer --eole ../eole-env

The model has 3+3 layers, d_model 256, sinusoidal positions, LayerNorm before the sublayers, ReLU, one matrix for the
embeddings of both sides and the output, the published files' own subwords as its vocabulary, and weights that begin
alike: benchmarks/toolkits has it for each toolkit. JoeyNMT drops attention weights too, and cannot do without. All
train with Adam, hf-xformer with Muon too, by Adam's best settings. Batches are of so many tokens a side as each
toolkit counts them: eole of like lengths and JoeyNMT as they come, both with padding, hf-xformer packed. Minutes are
of the wall clock, starts and checkpoints included. BLEU is of the newest checkpoint at that minute, one of every
twenty updates, lowercased and tokenised as the files are, with 5 beams of the toolkit's own. Speeds are medians of the
logged ones between saves; rows with `report_every` 20 hold eole's saves. scripts/prepare_multi30k.py --help says where
the files of --data are.

--tune tries learning rates for each toolkit, and then smaller and larger batches with the best of them, by BLEU on the
validation set after five minutes; other runs take the best of them, those with --bf16 too. Nothing else may run on the
machine meanwhile. Rows are written into toolkits.json of --results (toolkits_tuned.json with --tune,
toolkits_bf16.json with --bf16); those of the same version of a toolkit are not measured again.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from decode_cli import SIDES, eole_program, vocabulary
from measuring import ROOT, absolute, add_results_option, machine
from verbs import Figures, lines_of, read_lines

from hf_xformer.errors import one_line_errors


sys.path.append(str(ROOT / "scripts"))
from _prepare import read_published  # noqa: E402
from prepare_multi30k import FILES, ORIGIN, joined  # noqa: E402


CONFIGS = Path(__file__).with_suffix("")
WARMUP, WIDTH, LONGEST, BEAMS = 200, 256, 100, 5
RATES, TOKENS = (1e-3, 2e-3, 4e-3), (1000, 2000, 4000)  # that are tried
FIRST_TOKENS = 2000  # with which the rates are
TUNED = 5  # minutes
SETS = {True: ("valid", "validation set"), False: ("test.2016", "test set of 2016")}  # by whether it is to tune


@dataclass(frozen=True)
class Choice:
    """
    Settings of one training.

    Args:
        rate: The highest learning rate.
        tokens: Of a batch, a side, as the toolkit counts them.
        bf16: Whether to compute in bfloat16.
    """

    rate: float
    tokens: int
    bf16: bool


class Toolkit(ABC):
    """
    A toolkit that trains in a folder.

    Args:
        data: Folder of the published files.
        folder: Where everything goes; an earlier one is deleted.
        python: The toolkit's virtual environment.
    """

    name: str
    package: str
    config: str  # its file in CONFIGS
    rates: str  # pattern of target tokens a second in what it says

    def __init__(self, data: Path, folder: Path, python: Path):
        self.data, self.folder, self.python = data, folder, python
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.run = folder / "run"

    @abstractmethod
    def command(self, choice: Choice) -> list[str]:
        """Returns the command that trains."""

    @abstractmethod
    def checkpoints(self) -> dict[int, Path]:
        """Returns the finished checkpoints, by their updates."""

    @abstractmethod
    def delete_old(self) -> None:
        """Deletes old checkpoints, if the toolkit keeps them all."""

    @abstractmethod
    def translate(self, checkpoint: Path, source: Path) -> list[str]:
        """Returns what a checkpoint makes of the lines of a file."""

    def written(self, config: dict, name: str = "train") -> str:
        """Returns the path of a configuration in the folder."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return str(path)

    @classmethod
    def version(cls, python: Path) -> str:
        """Returns the version of the toolkit in an environment."""
        code = f"from importlib.metadata import version; print(version({cls.package!r}))"
        command = [str(python / "bin/python"), "-c", code]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def train(self, choice: Choice, minutes: list[float]) -> list[dict]:
        """Trains for the longest of the minutes; returns the updates, the checkpoint and the median speed at each."""
        found, log = [], self.folder / "log"
        with open(log, "w") as output:
            start = time.monotonic()
            process = subprocess.Popen(
                self.command(choice),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
            )
            try:
                for minute in sorted(minutes):
                    self.wait(process, start + 60 * minute)
                    found.append({"minutes": minute, **self.kept(minute)})
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return found

    def wait(self, process: subprocess.Popen, until: float) -> None:
        """
        Waits until a time.

        Raises:
            SystemExit: The process has ended before.
        """
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 1))
            self.delete_old()
            if process.poll() is not None:
                log = self.folder / "log"
                raise SystemExit(f"{self.name} ended by itself: {log}:\n{log.read_text()[-2000:]}")

    def kept(self, minute: float) -> dict:
        """
        Copies the newest checkpoint, which the toolkit will delete; returns how many seconds old it is, too.

        Raises:
            SystemExit: There is none yet.
        """
        saved, log = self.checkpoints(), self.folder / "log"
        if not saved:
            raise SystemExit(f"{self.name} saved nothing in {minute:g} minutes; its log is {log}")
        newest, copy = saved[max(saved)], self.folder / f"at-{minute:g}"
        age = round(time.time() - newest.stat().st_mtime)
        (shutil.copytree if newest.is_dir() else shutil.copy)(newest, copy)
        speeds = [float(each.replace(",", "")) for each in re.findall(self.rates, log.read_text())]
        speed = round(statistics.median(speeds))
        return {"updates": max(saved), "checkpoint": copy, "age": age, "target_tokens_per_second": speed}


class JoeyNMT(Toolkit):
    name, package, config = "JoeyNMT", "joeynmt", "joeynmt.yaml"
    rates = r"Tokens per Sec: +([\d.]+)"

    def __init__(self, data: Path, folder: Path, python: Path):
        super().__init__(data, folder, python)
        (folder / "words").write_text("".join(f"{token}\n" for token in vocabulary(data)), encoding="utf-8")
        for side in SIDES:
            lines = read_lines(data / f"valid.{side}")[:4]
            (folder / f"few.{side}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def command(self, choice: Choice) -> list[str]:
        config = yaml.safe_load((CONFIGS / self.config).read_text(encoding="utf-8"))
        config["model_dir"] = str(self.run)
        config["data"] |= {"train": str(self.data / "train"), "dev": str(self.folder / "few")}
        for side in ("src", "trg"):
            config["data"][side]["voc_file"] = str(self.folder / "words")
        config["training"] |= {"learning_rate": choice.rate, "batch_size": choice.tokens}
        return [str(self.python / "bin/python"), "-m", "joeynmt", "train", self.written(config), "--skip-test"]

    def checkpoints(self) -> dict[int, Path]:
        # The newest may be half written.
        found = {int(path.stem): path for path in self.run.glob("*.ckpt") if path.stem.isdigit()}
        return {updates: path for updates, path in found.items() if time.time() - path.stat().st_mtime > 1}

    def delete_old(self) -> None:
        saved = self.checkpoints()
        for updates in sorted(saved)[:-2]:
            saved[updates].unlink()

    def translate(self, checkpoint: Path, source: Path) -> list[str]:
        config = yaml.safe_load((self.folder / "train.yaml").read_text(encoding="utf-8"))
        beams = {"beam_size": BEAMS, "beam_alpha": 1.0, "batch_size": 64, "max_output_length": LONGEST}
        config["testing"] |= {"load_model": str(checkpoint), **beams}
        command = [str(self.python / "bin/python"), "-m", "joeynmt", "translate", self.written(config, "test")]
        with open(source) as lines:
            result = subprocess.run(command, stdin=lines, stdout=subprocess.PIPE, text=True, check=True)
        return lines_of(result.stdout)


class Eole(Toolkit):
    name, package, config = "eole", "eole", "eole.yaml"
    rates = r"/ *([\d.]+) tok/s"

    def __init__(self, data: Path, folder: Path, python: Path):
        super().__init__(data, folder, python)
        words = "".join(f"{token}\t1\n" for token in vocabulary(data))
        (folder / "words").write_text(words, encoding="utf-8")

    def command(self, choice: Choice) -> list[str]:
        config = yaml.safe_load((CONFIGS / self.config).read_text(encoding="utf-8"))
        pairs = {
            f"path_{name}": str(self.data / f"train.{side}") for name, side in zip(("src", "tgt"), SIDES, strict=True)
        }
        words = str(self.folder / "words")
        config |= {"data": {"pairs": pairs}, "src_vocab": words, "tgt_vocab": words}
        # Its rate is the number that it is told over the square roots of the width and of the step or the warm-up.
        highest = choice.rate * (WIDTH * WARMUP) ** 0.5
        config["training"] |= {"learning_rate": highest, "batch_size": choice.tokens, "model_path": str(self.run)}
        config["training"]["compute_dtype"] = "bf16" if choice.bf16 else "fp32"
        return [eole_program(self.python), "train", "-config", self.written(config)]

    def checkpoints(self) -> dict[int, Path]:
        folders = {int(path.name.removeprefix("step_")): path for path in self.run.glob("step_*")}
        return {
            updates: path
            for updates, path in folders.items()
            if any(time.time() - each.stat().st_mtime > 1 for each in path.glob("*.safetensors"))
        }

    def delete_old(self) -> None:
        pass  # it deletes them itself

    def translate(self, checkpoint: Path, source: Path) -> list[str]:
        out, program = checkpoint.with_suffix(".out"), eole_program(self.python)
        command = [program, "predict", "-model_path", str(checkpoint), "-src", str(source), "-output", str(out)]
        command += ["-beam_size", str(BEAMS), "-world_size", "0", "-batch_size", "64", "-max_length", str(LONGEST)]
        subprocess.run([*command, "-compute_dtype", "fp32"], check=True, stdout=sys.stderr)
        return read_lines(out)


class Ours(Toolkit):
    name, package, config = "hf-xformer", "hf-xformer", "hf-xformer.yaml"
    optimizer = "adamw_torch_fused"  # the Trainer's default
    rates = r"'target_tokens_per_second': '?([\d.,]+)"

    def __init__(self, data: Path, folder: Path, python: Path):
        super().__init__(data, folder, python)
        from hf_xformer.data.tokenizers import train_tokenizer

        words = vocabulary(data)
        tokenizer = train_tokenizer(words, "symbol", vocab_size=2 * len(words), max_length=LONGEST + 1)
        tokenizer.save_pretrained(folder / "tokenizer")

    def command(self, choice: Choice) -> list[str]:
        config = yaml.safe_load((CONFIGS / self.config).read_text(encoding="utf-8"))
        config |= {
            "config_name": str(ROOT / config["config_name"]),
            "train_file": [str(self.data / f"train.{side}") for side in SIDES],
            "tokenizer_name": str(self.folder / "tokenizer"),
            "output_dir": str(self.run),
            "optim": self.optimizer,
            "learning_rate": choice.rate,
            "max_tokens": choice.tokens,
            "bf16": choice.bf16,
        }
        return [str(self.python / "bin/python"), "-m", "hf_xformer", "train", self.written(config)]

    def checkpoints(self) -> dict[int, Path]:
        found = {int(path.name.removeprefix("checkpoint-")): path for path in self.run.glob("checkpoint-*")}
        return {updates: path for updates, path in found.items() if (path / "trainer_state.json").exists()}

    def delete_old(self) -> None:
        pass  # it deletes them itself

    def translate(self, checkpoint: Path, source: Path) -> list[str]:
        command = [sys.executable, "-m", "hf_xformer", "generate", str(checkpoint), "--input", str(source)]
        command += ["--num_beams", str(BEAMS), "--max_new_tokens", str(LONGEST)]
        return lines_of(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout)


class OursWithMuon(Ours):
    name, optimizer = "hf-xformer, Muon", "muon"


KITS: tuple[type[Toolkit], ...] = (JoeyNMT, Eole, Ours, OursWithMuon)
# Muon's updates are scaled to the size of Adam's, and go with its learning rates.
TUNED_AS: dict[type[Toolkit], type[Toolkit]] = {OursWithMuon: Ours}


@one_line_errors()
def main() -> None:
    args, kits = arguments()
    read_published(args.data, FILES, ORIGIN)
    name = "toolkits_tuned" if args.tune else "toolkits_bf16" if args.bf16 else "toolkits"
    reads, threads = [args.data / each for each in FILES], machine()["threads"]
    figures = Figures(name, settings(), args.results, reads, threads=threads)
    tuned = Figures("toolkits_tuned", settings(), args.results, reads, threads=threads)
    split, title = SETS[args.tune]
    for kind, python in kits.items():
        if args.tune and kind in TUNED_AS:
            print(f"{kind.name} takes the settings of {TUNED_AS[kind].name}, and is not tuned", file=sys.stderr)
            continue
        version = kind.version(python)
        as_tuned = {"toolkit": TUNED_AS.get(kind, kind).name, "version": version}
        for choice in tried(figures, as_tuned, args.minutes[0]) if args.tune else [best(tuned, as_tuned, args.bf16)]:
            of = {"toolkit": kind.name, "version": version, "rate": choice.rate, "tokens": choice.tokens}
            left = [each for each in args.minutes if not figures.has(of | {"minutes": each})]
            if not left:
                continue
            folder = args.output_dir / f"{kind.name}-{choice.rate:g}-{choice.tokens}{'-bf16' * args.bf16}"
            toolkit = kind(args.data, folder, python)
            for row in toolkit.train(choice, left):
                source, references = (toolkit.data / f"{split}.{side}" for side in SIDES)
                score = bleu(toolkit.translate(row.pop("checkpoint"), source), references)
                figures.add(of | {"minutes": row.pop("minutes")}, **row, bleu=score)
    print(f"\nTarget tokens a second, and BLEU on the {title}")
    for row in figures.rows():
        after = f"{row['minutes']:6g} min{row['updates']:7,} updates{row['target_tokens_per_second']:7,} tokens/s"
        print(f"{row['toolkit']:18}{row['rate']:8g}{row['tokens']:6}{after}  {row['bleu']}")


def arguments() -> tuple[argparse.Namespace, dict[type[Toolkit], Path]]:
    """Returns the command line's arguments, and the environments of the toolkits that are to train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=absolute, required=True, help="folder of the published files")
    parser.add_argument("--joey", type=absolute, help="virtual environment of JoeyNMT")
    parser.add_argument("--eole", type=absolute, help="virtual environment of eole")
    names = [kind.name for kind in KITS]
    chosen = f"of {names}; default: all whose environment is given"
    parser.add_argument("--toolkits", nargs="+", choices=names, metavar="NAME", help=chosen)
    parser.add_argument("--minutes", type=float, nargs="+", help="default: 10 30, and 5 with --tune")
    parser.add_argument("--tune", action="store_true", help="try learning rates and batches, on the validation set")
    parser.add_argument("--bf16", action="store_true", help="eole and hf-xformer in bfloat16, which JoeyNMT has not")
    parser.add_argument("--output_dir", type=absolute, default="runs/toolkits", help="default: runs/toolkits")
    add_results_option(parser)
    args = parser.parse_args()
    args.minutes = args.minutes or ([TUNED] if args.tune else [10, 30])
    if args.tune and args.bf16:
        parser.error("--tune goes by float32, and its choices are for bfloat16 too: leave --bf16 out")
    if args.tune and len(args.minutes) > 1:
        parser.error("--tune goes by one time: give one of --minutes")
    here, wanted = Path(sys.prefix), args.toolkits or names
    kits = dict(zip(KITS, (args.joey, args.eole, here, here), strict=True))
    for kind, python in kits.items():
        if python is None and kind.name in (args.toolkits or ()):
            parser.error(f"--toolkits {kind.name}: its environment is not given, by --joey or --eole")
    if args.bf16 and kits.pop(JoeyNMT) is not None:
        if JoeyNMT.name in (args.toolkits or ()):
            parser.error("--toolkits JoeyNMT: it has no bfloat16 on a CPU: leave it or --bf16 out")
        print("JoeyNMT is left out: it has no bfloat16 on a CPU", file=sys.stderr)
    return args, {kind: python for kind, python in kits.items() if python is not None and kind.name in wanted}


def settings() -> list:
    """Returns what all rows depend on: the toolkits' configurations, with that of our model, and constants."""
    configs = {kind.config: yaml.safe_load((CONFIGS / kind.config).read_text(encoding="utf-8")) for kind in KITS}
    ours = configs[Ours.config]
    ours["config_name"] = json.loads((ROOT / ours["config_name"]).read_text(encoding="utf-8"))
    return [configs, WARMUP, LONGEST, BEAMS]


def tried(tuned: Figures, kit: dict[str, str], minutes: float) -> Iterator[Choice]:
    """
    Yields each rate with as many tokens, and then other tokens with the rate that was best after some minutes.

    Args:
        kit: A toolkit's name and version, as its rows have them.
    """
    for rate in RATES:
        yield Choice(rate, FIRST_TOKENS, bf16=False)
    rows = [row for row in rows_of(tuned, kit) if row["tokens"] == FIRST_TOKENS and row["minutes"] == minutes]
    rate = max((row for row in rows if row["rate"] in RATES), key=lambda row: row["bleu"])["rate"]
    for tokens in TOKENS:
        if tokens != FIRST_TOKENS:
            yield Choice(rate, tokens, bf16=False)


def rows_of(figures: Figures, kit: dict[str, str]) -> list[dict]:
    """Returns the rows of a toolkit of one version."""
    return [row for row in figures.rows() if kit.items() <= row.items()]


def best(tuned: Figures, kit: dict[str, str], bf16: bool) -> Choice:
    """
    Returns the settings by which a toolkit was best on the validation set, after the longest time that was tried.

    Raises:
        SystemExit: It has not been tuned, or not to the end.
    """
    mine, name = rows_of(tuned, kit), f"{kit['toolkit']} {kit['version']}"
    if not mine:
        raise SystemExit(f"{tuned.path} has no row of {name}: run this with --tune first")
    longest = max(row["minutes"] for row in mine)
    of_choice = {(row["rate"], row["tokens"]): row for row in mine if row["minutes"] == longest}
    found = []
    for each in tried(tuned, kit, longest):
        if (row := of_choice.get((each.rate, each.tokens))) is None:
            said = f"{name} with a rate of {each.rate:g} and {each.tokens:,} tokens"
            raise SystemExit(f"{tuned.path} has no training of {said}: finish --tune first")
        found.append(row)
    row = max(found, key=lambda row: row["bleu"])
    for key, values in {"rate": RATES, "tokens": TOKENS}.items():
        if row[key] in (min(values), max(values)):
            print(f"{name} is best at {row[key]:g} {key}, an end of {json.dumps(values)}", file=sys.stderr)
    return Choice(row["rate"], row["tokens"], bf16)


def bleu(texts: list[str], references: Path) -> float:
    """
    Returns BLEU of texts whose words subword-nmt has cut, as they are tokenised.

    Raises:
        SystemExit: There are not as many texts as references, or all are empty.
    """
    from sacrebleu import corpus_bleu

    expected = [joined(line) for line in read_lines(references)]
    if len(texts) != len(expected):
        raise SystemExit(f"{len(texts):,} texts were decoded for the {len(expected):,} lines of {references}")
    if not any(texts):
        raise SystemExit("all texts are empty: the toolkit has not loaded what it trained")
    return round(corpus_bleu(list(map(joined, texts)), [expected], tokenize="none", force=True).score, 2)


if __name__ == "__main__":
    main()
