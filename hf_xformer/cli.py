# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
`hf-xformer VERB ...`, which is `python -m hf_xformer VERB ...` too: each verb is a module of `hf_xformer.commands`.

`hf-xformer train --config_file FILE` goes through `accelerate launch`, so that one command starts one process or many.
"""

import argparse
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from . import __version__
from .errors import ArgumentError, InputError, did_you_mean, missing_extra, one_line_errors
from .files import find, packaged
from .libraries import begin_importing, end_importing
from .yaml_files import read_yaml_file


PROGRAM = "hf-xformer"
VERBS = {
    "data": "show what a file of data is, and the options that follow",
    "tokenizer": "train a tokenizer on your texts",
    "train": "train a model, new or pretrained, from a recipe",
    "generate": "decode lines of text",
    "evaluate": "decode a test set and score it",
    "info": "describe a checkpoint, and what is wrong with it",
    "card": "write a run's model card and its pictures",
    "push": "publish a run's folder on the Hub",
    "convert": "make an Xformer of a BART, T5, Marian, ...",
    "export": "write a checkpoint for CTranslate2 or ONNX Runtime",
    "merge": "merge an adapter into the weights of its model",
    "average": "average the weights of checkpoints",
    "distill": "write a teacher's outputs as a training set",
    "estimate": "estimate what a training takes, before it starts",
    "demo": "show a checkpoint on a page, with an HTTP API",
    "attention": "draw where a model looks while it decodes",
}
# Options of `accelerate launch` that `hf-xformer train` passes on to it.
LAUNCH_OPTIONS = ("num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port")
USAGE = """\
usage: {program} VERB [...]        {program} VERB --help explains one; {program} --version

Encoder-decoder Transformers of your own: trained, evaluated, looked into and published.

{verbs}

  {program} tokenizer --train_file train.jsonl --model_type symbol --output_dir tokenizer
  {program} train --config_file configs/accelerate/cpu.yaml recipe.yaml
  echo K U B E R N E T E S | {program} generate runs/g2p-quickstart

Paths that begin with configs/ or model_cards/ and do not exist here are the package's own, in
  {package}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the verb that the command line begins with."""
    try:
        if (verb := choose_verb(list(sys.argv[1:] if argv is None else argv))) is not None:
            verb(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:  # while libraries are imported; the verbs have lines of their own for later
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:  # the reader of our output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


@one_line_errors()
def choose_verb(words: list[str]) -> Callable[[list[str]], None] | None:
    """Returns the `main` of the verb, for which `sys.argv` is set; None if there is nothing more to do."""
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return None
    name, *rest = words
    if name == "--version":
        print(f"{PROGRAM} {__version__}")
        return None
    if name not in VERBS:
        kind, known = ("option", ["--help", "--version"]) if name.startswith("-") else ("verb", list(VERBS))
        raise ArgumentError(f"no {kind} {name!r}{did_you_mean(name, known)} ({PROGRAM} --help lists them)")
    if name == "train" and any(word.partition("=")[0] == "--config_file" for word in rest):
        launch(rest)
    sys.argv = [f"{PROGRAM} {name}", *rest]
    # PEFT imports bitsandbytes, which says on some processors that it lacks a kernel that nothing here calls.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    begin_importing()
    try:
        return importlib.import_module(f"hf_xformer.commands.{name}").main
    except ModuleNotFoundError as error:
        if (needed := missing_extra(error)) is None:
            raise
        raise ArgumentError(f"{PROGRAM} {name} {needed}") from error
    finally:
        end_importing()


def usage() -> str:
    verbs = "\n".join(f"  {name:10}{summary}" for name, summary in VERBS.items())
    return USAGE.format(program=PROGRAM, verbs=verbs, package=packaged("configs").resolve().parent)


class LaunchParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ArgumentError(f"{message.removeprefix('argument ')} ({PROGRAM} train --help)")


def launch(words: list[str]) -> NoReturn:
    """Becomes `accelerate launch`, which starts as many trainings as its file says."""
    parser = LaunchParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--config_file", type=Path)
    for option in LAUNCH_OPTIONS:
        parser.add_argument(f"--{option}")
    known, rest = parser.parse_known_args(words)
    path = find(known.config_file)
    if not path.is_file():
        raise ArgumentError(f"--config_file {path}: there is no such file")
    command = ["-m", "accelerate.commands.launch", "--config_file", str(path), *engine_of(path)]
    for option in LAUNCH_OPTIONS:
        if (value := getattr(known, option)) is not None:
            command += [f"--{option}", value]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *command, "--module", "hf_xformer", "train", *rest])


def engine_of(path: Path) -> list[str]:
    """
    Returns the option that names the package's own DeepSpeed file, for a launch configuration that names it by its
    path in the source tree.
    """
    try:
        named = read_yaml_file(path)["deepspeed_config"]["deepspeed_config_file"]
    except (InputError, KeyError, TypeError):
        return []  # another kind of launch, or one that accelerate will refuse
    return [] if Path(named).exists() else ["--deepspeed_config_file", str(find(named))]
