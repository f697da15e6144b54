# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A small task on disk, the command line of a run of a few seconds on it, and that run as users start it."""

import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from warm_start import STACKS, Program, WarmStart

from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.files import TRAIN_RESULTS, travelling_files


ROOT = Path(__file__).resolve().parent.parent
# Command lines of the verbs that take a checkpoint, but for training; `{sound}` is another one.
CHECKPOINT_LINES = (
    "generate {model} --input {data} --output {out}",
    "evaluate {model} --test_file {data} --metrics per",
    "info {model}",
    "card {model} --example A",
    "push {model} user/name --dry_run",
    "convert {model} {out}",
    "export {model} {out}",
    "export {model} {out} --engine onnx",
    "merge {adapter} {out}",
    "average {sound} {model} --output_dir {out}",
    "distill {model} --train_file {data} --output_file {out}",
    "estimate --config_name {model}",
    "attention {model} A --output {out}",
    "demo {model} --port 0",
)
SMALL = "d_model=16,encoder_layers=1,decoder_layers=1,encoder_ffn_dim=24,decoder_ffn_dim=24,dropout=0.0"


@dataclass(frozen=True)
class Task:
    """A small task on disk: spell a word of some letters backwards, one symbol a letter."""

    folder: Path

    @property
    def train(self) -> str:
        return str(self.folder / "train.jsonl")

    @property
    def validation(self) -> str:
        return str(self.folder / "validation.jsonl")

    @property
    def tokenizer(self) -> str:
        return str(self.folder / "tokenizer")

    def options(self, output_dir: Path, **more) -> list[str]:
        """Command line of a run of a few seconds; `more` overrides, None leaves out."""
        options = {
            "config_name": str(ROOT / "configs/model/tiny.json"),
            "config_overrides": SMALL,
            "tokenizer_name": self.tokenizer,
            "train_file": self.train,
            "output_dir": str(output_dir),
            "max_source_length": 12,
            "max_target_length": 12,
            "per_device_train_batch_size": 8,
            "max_steps": 6,
            "learning_rate": 1e-2,
            "logging_steps": 2,
            "save_strategy": "no",
            "use_cpu": "true",
            "report_to": "none",
            "disable_tqdm": "true",
            **more,
        }
        return [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]


def make_task(folder: Path) -> Task:
    """Writes the task's rows and its tokenizer."""
    random = Random(0)
    for split, count in (("train", 160), ("validation", 21)):
        with open(folder / f"{split}.jsonl", "w") as output:
            for _ in range(count):
                letters = random.choices("ABCDEFGH", k=random.randint(2, 9))
                row = {"source": " ".join(letters), "target": " ".join(reversed(letters))}
                output.write(json.dumps(row) + "\n")
    train_tokenizer((" ".join("ABCDEFGH"),), "symbol").save_pretrained(folder / "tokenizer")
    return Task(folder)


def nightly(*values) -> list:
    """Values of a parameter that are tried at night only, not at every push."""
    return [
        pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=pytest.mark.nightly) for each in values
    ]


@functools.cache
def warm_start() -> WarmStart:
    """The process that runs are forked from."""
    launchers = ("accelerate.commands.launch", "torch.distributed.run")
    return WarmStart(*launchers, "deepspeed", "tensorboard", "warm_commands")


@functools.cache
def libraries() -> WarmStart:
    """A process with what the libraries use; they themselves read the environment when they are imported."""
    return WarmStart("torch.distributed.tensor", "torch._inductor.compile_fx", "pandas", "pyarrow")


def python(*argv: str | Path, cwd: Path = ROOT, input: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Runs a program, with the environment of the tests and this beside it, and returns what it printed."""
    return libraries().run(list(argv), {**os.environ, "OMP_NUM_THREADS": "1", **environment}, cwd, input)


def start(argv: list, environment: dict[str, str], cold: bool = False) -> subprocess.Popen | Program:
    """
    Starts a program in the source tree, whose output is in its `log`.

    Args:
        argv: Its words, without the interpreter.
        cold: Start it as users do; by default it is forked where forks can use what computes.
    """
    # Not a pipe, which is full before a run ends that nobody reads meanwhile.
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    if cold or torch.accelerator.is_available():
        process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True)
    else:
        process = warm_start().start(argv[1:], environment, ROOT, log.fileno())
    process.log = log
    return process


def launch(
    options: list[str],
    config: str = "cpu",
    launcher: tuple[str, ...] = (),
    prefix: tuple[str, ...] = (),
    script: str = "scripts/train.py",
    **environment: str,
) -> subprocess.Popen | Program:
    """
    `accelerate launch` with a file of configs/accelerate; of the processes that it names, two at most.

    Args:
        options: The training script's command line.
        launcher: More words for the launcher.
        prefix: Words before the whole command, which is then started as users do.
        script: The training script.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", f"configs/accelerate/{config}.yaml"]
    command += ["--num_processes", "1" if config == "cpu" else "2", "--mixed_precision", "no", *launcher]
    if "--main_process_port" not in launcher:
        command += ["--main_process_port", "0"]
    # A process that waits in vain for another says where, before the test has waited in vain for both.
    return start([*prefix, *command, script, *options, "--ddp_timeout", "200"], environment, cold=bool(prefix))


def writers(log: int) -> list[int]:
    """Returns the other processes that have a file open: each of a training's writes into its log."""
    wanted, found = os.fstat(log), []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(folder.name) != os.getpid() and os.path.samestat(os.stat(folder / "fd/1"), wanted):
                found.append(int(folder.name))
    return found


def output_of(process: subprocess.Popen | Program, timeout: float = 300) -> str:
    """Waits for a launched run to end, and returns all that it printed; of one that hangs, where each process does."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        for number in (STACKS, signal.SIGKILL):
            for pid in writers(process.log.fileno()):
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, number)
            time.sleep(1)
        raise
    finally:
        process.kill()
        process.log.seek(0)
        output = process.log.read()
        print(output)
    return output


def run(options: list[str], config: str = "cpu") -> str:
    """What a whole run printed."""
    process = launch(options, config)
    output = output_of(process)
    assert process.returncode == 0
    return output


def run_twice(code: str, folder: Path, **environment: str) -> str:
    """What two processes that can find each other printed, which ran the code with `folder` as its argument."""
    (folder / "code.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **environment}
    process = start([*command, str(folder / "code.py"), str(folder)], environment)
    output = output_of(process, timeout=300)
    assert process.returncode == 0
    return output


def weights(folder: Path) -> torch.Tensor:
    """All that a checkpoint's file holds."""
    tensors = load_file(folder / "model.safetensors")
    return torch.cat([tensor.flatten() for _, tensor in sorted(tensors.items())])


def stop_after(folder: Path, step: int) -> None:
    """Leaves a run's folder as if it had been killed after a step."""
    for path in folder.glob("checkpoint-*"):
        if int(path.name.partition("-")[2]) > step:
            shutil.rmtree(path)
    for name in ("trainer_state.json", "train_results.json", "run.json", "README.md"):
        (folder / name).unlink(missing_ok=True)


def train_results(folder: Path) -> dict:
    """What a run has written of its training."""
    return json.loads((folder / TRAIN_RESULTS).read_text())


def has_code(folder: Path) -> bool:
    """Whether a checkpoint has the code that strangers load it with; DeepSpeed puts scripts of its own beside it."""
    others = {path.name for path in folder.glob("*.py") if not path.name.startswith("zero_to_")}
    return others == {path.name for path in travelling_files()}


def refused(command: ModuleType, argv: list, capsys) -> str:
    """What a command that must fail says, having seen to it that this is one line and the status not zero."""
    with pytest.raises(SystemExit) as stop:
        command.main(list(map(str, argv)))
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


def refused_unread(task: Task, folder: Path, capsys, **changes) -> str:
    """The refusal of a training on data that are not there, having seen that its folder was not made."""
    from hf_xformer.commands import train  # not for the tests that start no training

    line = refused(train, task.options(folder, train_file="nowhere.jsonl", **changes), capsys)
    assert "Class validation" not in line and not folder.exists()
    return line


def refused_file(task: Task, path: Path, content: str | None, option: str, capsys) -> str:
    """The refusal of a training by the file that an option names: of this content, or not there; it names both."""
    if content is not None:
        path.write_text(content)
    line = refused_unread(task, path.parent / "run", capsys, **{option: path})
    assert line.startswith(f"error: --{option} {path}: ")
    return line


def load_script(name: str) -> ModuleType:
    """A file of scripts/ as a module, which imports from its own folder as it does when it is run."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        spec.loader.exec_module(module)
    return module
