# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
`hf-xformer VERB ...`: what the scripts do, wherever the package is installed.

`hf-xformer train --config_file FILE` goes through `accelerate launch`, so that one command starts one process or many.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

import yaml

from .files import find


PROGRAM = "hf-xformer"
# Each is a module of `hf_xformer.commands`.
VERBS = {
    "tokenizer": "train a tokenizer on your texts",
    "train": "train a model, new or pretrained, from a recipe",
    "generate": "decode lines of text",
    "evaluate": "decode a test set and score it",
    "info": "say what a checkpoint is, and what is wrong with it",
    "card": "write a run's model card and its pictures",
    "push": "publish a run's folder on the Hub",
    "convert": "make an Xformer of a BART, T5, Marian, ...",
    "export": "write a checkpoint as a CTranslate2 model",
    "merge": "put a LoRA adapter into the weights of its model",
    "average": "average the weights of checkpoints",
    "distill": "write a teacher's outputs as a training set",
    "estimate": "say what a training will take, before it is started",
    "attention": "draw where a model looks while it decodes",
}
# What `accelerate launch` is told and training is not.
LAUNCH_OPTIONS = ("num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port")
# Of packages that not everybody needs, the extra that has them.
EXTRAS = {
    **dict.fromkeys(("datasets", "pyarrow", "evaluate", "sacrebleu", "rapidfuzz"), "train"),
    "ctranslate2": "export",
    "peft": "peft",
}
USAGE = """\
usage: {program} VERB [...]        {program} VERB --help explains one; {program} --version

Encoder-decoder Transformers of your own: trained, evaluated, looked into and published.

{verbs}

  {program} tokenizer --train_file train.jsonl --model_type symbol --output_dir tokenizer
  {program} train --config_file configs/accelerate/cpu.yaml recipe.yaml
  echo K U B E R N E T E S | {program} generate runs/g2p-quickstart

Paths that begin with configs/ or model_cards/ and are not here are the package's own:
{package}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the verb that the command line begins with."""
    try:
        run(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # who read it has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def run(argv: Sequence[str] | None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return
    name, *rest = argv
    if name == "--version":
        from . import __version__

        print(f"{PROGRAM} {__version__}")
        return
    if name not in VERBS:
        near = get_close_matches(name, VERBS, n=1)
        print(f"error: no verb {name!r}" + (f"; did you mean {near[0]}?" if near else ""), file=sys.stderr)
        print(f"{PROGRAM} --help lists those that there are", file=sys.stderr)
        raise SystemExit(2)
    if name == "train" and any(word.partition("=")[0] == "--config_file" for word in rest):
        launch(rest)
    sys.argv = [f"{PROGRAM} {name}", *rest]
    try:
        command = importlib.import_module(f"hf_xformer.commands.{name}")
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        print(
            f"error: {PROGRAM} {name} needs {error.name}: pip install 'hf-xformer[{EXTRAS[error.name]}]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from error
    command.main(rest)


def usage() -> str:
    lines = "\n".join(f"  {name:10}{summary}" for name, summary in VERBS.items())
    package = find("configs").resolve().parent
    return USAGE.format(program=PROGRAM, verbs=lines, package=f"  {package}")


def launch(words: list[str]) -> NoReturn:
    """Becomes `accelerate launch`, which starts as many trainings as its file says."""
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} train", allow_abbrev=False, add_help=False)
    parser.add_argument("--config_file", type=Path)
    for option in LAUNCH_OPTIONS:
        parser.add_argument(f"--{option}")
    known, rest = parser.parse_known_args(words)
    path = find(known.config_file)
    if not path.is_file():
        print(f"error: --config_file {path}: there is no such file", file=sys.stderr)
        raise SystemExit(2)
    command = ["-m", "accelerate.commands.launch", "--config_file", str(path), *engine_of(path)]
    for option in LAUNCH_OPTIONS:
        if (value := getattr(known, option)) is not None:
            command += [f"--{option}", value]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *command, "--module", "hf_xformer", "train", *rest])


def engine_of(path: Path) -> list[str]:
    """The DeepSpeed file beside a launch configuration of the package's, which is named there from the source tree."""
    try:
        named = yaml.safe_load(path.read_text(encoding="utf-8"))["deepspeed_config"]["deepspeed_config_file"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return []  # another kind of launch, or one that accelerate will refuse
    return [] if Path(named).exists() else ["--deepspeed_config_file", str(find(named))]
