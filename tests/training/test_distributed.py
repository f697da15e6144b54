# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Every way of dividing a run among processes that a CPU has, as users start it: two processes give what one gives.

The files of configs/accelerate are used as they are, but for the number of processes and the precision.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import has_code, launch, nightly, output_of, run, run_twice, start, weights
from torch.testing import assert_close
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_xformer import XformerConfig, XformerForSeq2SeqLM
from hf_xformer.commands import train


pytestmark = pytest.mark.distributed

MODELS = {
    "modern": {"qk_norm": True},
    "vanilla": {
        **{"norm_type": "layernorm", "norm_position": "post", "position_embedding_type": "sinusoidal"},
        **{"use_bias": True, "gated_ffn": False, "activation_function": "relu", "max_position_embeddings": 16},
    },
}
# Those of the night share their code with one of the others.
AT_EVERY_PUSH, AT_NIGHT = ("cpu-2proc", "zero2", "zero3", "tp2"), ("zero1", "zero3-offload")
MODES = [*AT_EVERY_PUSH, *nightly(*AT_NIGHT)]
RUNS = [*(("modern", mode) for mode in AT_EVERY_PUSH), *nightly(*(("modern", mode) for mode in AT_NIGHT))]
RUNS += nightly(("vanilla", "zero3"), ("vanilla", "tp2"))


@dataclass
class Runs:
    """Runs of twelve steps of sixteen rows from the same weights, each done once."""

    folder: Path
    task: object

    def options(self, model: str, mode: str, output_dir: Path, **more) -> list[str]:
        whole_batch = mode in ("cpu", "tp2")
        options = {
            **{"config_name": None, "config_overrides": None, "tokenizer_name": None},
            **{"model_name_or_path": self.start(model), "max_steps": 12, "save_strategy": "steps", "save_steps": 3},
            **{"learning_rate": 5e-4, "per_device_train_batch_size": 16 if whole_batch else 8},
            # 21 rows in batches of 8 of two processes: both the last batch and the last process come out short.
            **{"validation_file": self.task.validation, "metrics": "per", "per_device_eval_batch_size": 8},
            **more,
        }
        return self.task.options(output_dir, **options)

    def start(self, model: str) -> Path:
        folder = self.folder / f"start-{model}"
        if not folder.exists():
            tokenizer = AutoTokenizer.from_pretrained(self.task.tokenizer)
            sizes = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 40}
            heads = {"d_model": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 2}
            torch.manual_seed(0)
            config = XformerConfig(vocab_size=len(tokenizer), **sizes, **heads, **MODELS[model], dropout=0.0)
            tokenizer.save_pretrained(folder)
            XformerForSeq2SeqLM(config).save_pretrained(folder)
        return folder

    def done(self, model: str, mode: str, **more) -> Path:
        """The output folder of a whole run."""
        folder = self.folder / "-".join([model, mode, *more])
        if not folder.exists():
            run(self.options(model, mode, folder, **more), mode)
        return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, task) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"), task)


def results(folder: Path) -> dict:
    return json.loads((folder / "eval_results.json").read_text())


@pytest.mark.parametrize(("model", "mode"), RUNS)
def test_two_processes_end_with_the_weights_and_metrics_of_one(model, mode, runs):
    one, two = runs.done(model, "cpu"), runs.done(model, mode)
    assert (weights(one) - weights(runs.start(model))).abs().max() > 2e-3
    assert_close(weights(two), weights(one), atol=1e-5, rtol=0)
    assert results(two)["eval_per"] == pytest.approx(results(one)["eval_per"], abs=1e-6)


@pytest.mark.parametrize("mode", ["cpu-2proc", *nightly("zero3", "tp2")])
def test_packed_rows_of_two_processes_end_with_the_weights_of_padded_ones_of_one(mode, runs):
    """All 160 pairs at every step, so that both have the same."""
    whole = {"validation_file": None, "metrics": None, "num_train_epochs": 12}
    one = runs.done("modern", "cpu", per_device_train_batch_size=160, **whole)
    pairs = 160 if mode == "tp2" else 80
    two = runs.done("modern", mode, packing="true", per_device_train_batch_size=pairs, **whole)
    assert (weights(one) - weights(runs.start("modern"))).abs().max() > 2e-3
    assert_close(weights(two), weights(one), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["cpu-2proc", *nightly("zero2")])
def test_averaged_weights_of_two_processes_are_those_of_one(mode, runs):
    one, two = (runs.done("modern", each, ema_decay=0.9) for each in ("cpu", mode))
    assert (weights(one) - weights(runs.done("modern", "cpu"))).abs().max() > 5e-5
    assert_close(weights(two), weights(one), atol=1e-5, rtol=0)
    assert results(two)["eval_per"] == pytest.approx(results(one)["eval_per"], abs=1e-6)


@pytest.mark.nightly
def test_zero3_in_bfloat16_ends_within_its_rounding_of_one_process_in_float32(runs):
    one, two = runs.done("modern", "cpu"), runs.done("modern", "zero3", bf16="true")
    assert weights(two).dtype == torch.bfloat16
    assert_close(weights(two).float(), weights(one), atol=2e-3, rtol=2**-8)
    assert results(two)["eval_loss"] == pytest.approx(results(one)["eval_loss"], rel=0.02)


@pytest.mark.parametrize("mode", MODES)
def test_saved_weights_load_whole_and_tied_and_are_those_of_the_last_checkpoint(mode, runs):
    folder = runs.done("modern", mode)
    assert has_code(folder) and has_code(folder / "checkpoint-12")
    record, one = (json.loads((each / "run.json").read_text()) for each in (folder, runs.done("modern", "cpu")))
    assert record["parameters"] == one["parameters"]
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert model.lm_head.weight is model.model.encoder.embed_tokens.weight is model.model.decoder.embed_tokens.weight
    names = load_file(folder / "model.safetensors").keys()
    assert names == load_file(runs.done("modern", "cpu") / "model.safetensors").keys()
    assert torch.equal(weights(folder / "checkpoint-12"), weights(folder))
    own = {name: tensor for name, tensor in model.state_dict().items() if name in dict(model.named_parameters())}
    assert torch.equal(torch.cat([tensor.flatten() for _, tensor in sorted(own.items())]), weights(folder))


@pytest.mark.parametrize("mode", ["cpu-2proc", "zero3", *nightly("zero2", "tp2")])
def test_a_run_that_lost_a_process_says_so_and_goes_on_bit_by_bit(mode, runs, tmp_path):
    folder, numbers = tmp_path / "run", tmp_path / "numbers"
    numbers.mkdir()
    options = runs.options("modern", mode, folder)
    process = launch(options, mode, script="tests/numbered_training.py", NUMBERS=str(numbers))
    while not (folder / "checkpoint-6").exists():  # by then the one before it is whole
        assert process.poll() is None, output_of(process)
        time.sleep(0.005)
    os.kill(int((numbers / "1").read_text()), signal.SIGKILL)
    output = output_of(process)
    assert process.returncode != 0 and not (folder / "train_results.json").exists()
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "another process" in line and "same command again" in line and str(folder) in line
    assert "resuming from" in run(options, mode)
    assert torch.equal(weights(folder), weights(runs.done("modern", mode))) and has_code(folder)


@pytest.mark.parametrize("mode", ["zero2", "zero3", "tp2"])
def test_a_checkpoint_is_not_resumed_in_another_way_than_it_was_written(mode, runs, tmp_path, capsys):
    shutil.copytree(runs.done("modern", mode), tmp_path, dirs_exist_ok=True)
    with pytest.raises(SystemExit):
        train.main(runs.options("modern", "cpu", tmp_path, max_steps=18))
    error = capsys.readouterr().err
    assert "written by 2 processes with" in error and "this run has 1 with no sharding" in error
    assert f"--model_name_or_path {tmp_path}/checkpoint-12" in error


@pytest.mark.parametrize("mode", ["zero3", *nightly("zero2")])
def test_a_finished_run_that_is_started_again_ends_well(mode, runs, tmp_path):
    shutil.copytree(runs.done("modern", mode), tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    assert "is the end of this run" in run(runs.options("modern", mode, tmp_path), mode)
    assert torch.equal(weights(tmp_path), weights(runs.done("modern", mode)))


@pytest.mark.parametrize("mode", ["zero3", *nightly("tp2")])
def test_a_new_model_starts_with_weights_of_the_right_size(mode, task, tmp_path):
    """ZeRO-3 cuts it up while it is built, tensor parallelism while it is read."""
    run(task.options(tmp_path, config_overrides=None, max_steps=1, learning_rate=1e-30), mode)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert not list(tmp_path.glob("initial-weights*"))
    for name, tensor in model.named_parameters():
        if tensor.ndim == 1:
            assert (tensor == 1).all(), name
        else:
            assert tensor.std().item() == pytest.approx(model.config.initializer_range, rel=0.15), name


BUILD = """
import ctypes, resource, sys
from pathlib import Path
import deepspeed, torch
from transformers import AutoModelForSeq2SeqLM, Seq2SeqTrainingArguments
from hf_xformer import XformerConfig

# Tensors of some size come from the system and go back to it: the heap would keep them.
ctypes.CDLL(None).mallopt(-3, 65536)  # M_MMAP_THRESHOLD
args = Seq2SeqTrainingArguments(
    sys.argv[1], use_cpu=True, deepspeed="configs/accelerate/zero3.json", per_device_train_batch_size=1
)
assert args.world_size == 2
deepspeed.init_distributed(dist_backend="gloo", verbose=False)
config = XformerConfig(vocab_size=8000, d_model=768, encoder_ffn_dim=3072, decoder_ffn_dim=3072)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
share = taken / (sum(each.ds_numel for each in model.parameters()) * 4 / 1024)
Path(sys.argv[1], f"share-{args.process_index}").write_text(str(share))  # lines of two processes may run together
"""


def test_zero3_builds_a_model_that_no_process_holds_whole(tmp_path):
    run_twice(BUILD, tmp_path, ACCELERATE_USE_DEEPSPEED="true")
    shares = [float(path.read_text()) for path in tmp_path.glob("share-*")]
    assert len(shares) == 2 and max(shares) < 0.8


NODES = nightly(("multi-node", "cpu-2proc"), ("multi-node-zero3", "zero3"))


@pytest.mark.parametrize(("config", "mode"), NODES)
def test_two_machines_end_with_the_weights_of_two_processes_of_one(config, mode, machines, runs, tmp_path):
    options = runs.options("modern", mode, tmp_path)
    meeting_point = ("--main_process_ip", machines[0].address, "--main_process_port", str(free_port()))
    processes = [
        launch(options, config, (*meeting_point, "--machine_rank", str(rank)), machine.prefix, **machine.environment)
        for rank, machine in enumerate(machines)
    ]
    for process in processes:
        output_of(process)
    assert [process.returncode for process in processes] == [0, 0]
    assert torch.equal(weights(tmp_path), weights(runs.done("modern", mode)))


@pytest.mark.nightly
def test_a_second_machine_is_refused_until_the_first_has_died(machines, task, tmp_path):
    """Each has a network and a host name of its own, and sees the other's sign of life only."""
    names = [f"node-{side}" for side in "ab"]
    prefixes = [
        (*machine.prefix, "unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name)
        for machine, name in zip(machines, names, strict=True)
    ]
    if subprocess.run([*prefixes[0], "true"], capture_output=True).returncode != 0:
        pytest.skip("needs root: host names for processes")
    script = (sys.executable, "scripts/train.py")
    more = {"lr_scheduler_type": "constant", "save_strategy": "steps", "save_steps": 5, "save_total_limit": 2}
    options = task.options(tmp_path, max_steps=100_000, **more)
    first = start([*prefixes[0], *script, *options], {}, cold=True)
    while len(list(tmp_path.glob("checkpoint-*"))) < 2:  # by then the first is whole
        assert first.poll() is None, output_of(first)
        time.sleep(0.02)
    try:
        second = start([*prefixes[1], *script, *options], {}, cold=True)
        (line,) = [line for line in output_of(second).splitlines() if line.startswith("error:")]
        assert second.returncode == 2 and f"process {first.pid} on node-a has been writing there since" in line
    finally:
        first.kill()
        output_of(first)
    (lock,) = tmp_path.glob(".run-*.lock")
    os.utime(lock, (lock.stat().st_mtime - 90,) * 2)  # it waits no minute here
    third = start([*prefixes[1], *script, *task.options(tmp_path, max_steps=1, **more)], {}, cold=True)
    output = output_of(third)
    assert third.returncode == 0 and f"process {first.pid} on node-a" in output and "has died" in output
    assert "is the end of this run" in output


@dataclass
class Machine:
    """Where a node's processes run: `prefix` goes before their command."""

    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def machines():
    """Two network namespaces with a cable between them; where that is not allowed, this machine twice."""
    names = [f"xformer{os.getpid()}{side}" for side in "ab"]  # of the namespaces, and of the cable's ends in them
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
            for number, name in enumerate(names, start=1):
                ip("link", "set", name, "netns", name)
                ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", name)
                for link in (name, "lo"):
                    ip("-n", name, "link", "set", link, "up")
        except (OSError, subprocess.CalledProcessError):
            yield [Machine(), Machine()]
        else:
            yield [
                Machine(f"10.77.0.{number}", ("ip", "netns", "exec", name), {"GLOO_SOCKET_IFNAME": name})
                for number, name in enumerate(names, start=1)
            ]
    finally:
        for name in names:
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
