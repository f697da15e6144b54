# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Training as users start it, through `accelerate launch`: two processes equal one, a killed run resumes exactly."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from small_runs import ROOT, SMALL


pytestmark = pytest.mark.distributed

SGD = {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}


def launch(options: list[str], processes: int = 1) -> subprocess.Popen:
    config = ROOT / "configs/accelerate" / ("cpu.yaml" if processes == 1 else "cpu-2proc.yaml")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, "--main_process_port", "0"]
    return subprocess.Popen(
        [*map(str, command), str(ROOT / "scripts/train.py"), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(options: list[str], processes: int = 1) -> str:
    process = launch(options, processes)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def weights(folder) -> torch.Tensor:
    return torch.cat([tensor.flatten() for _, tensor in sorted(load_file(folder / "model.safetensors").items())])


def test_one_step_of_two_processes_equals_one_step_of_one(task, tmp_path):
    start = tmp_path / "start"
    run(task.options(start, max_steps=1, learning_rate=1e-9))
    common = {
        **{"config_name": None, "config_overrides": None, "tokenizer_name": None, "model_name_or_path": start},
        **{"max_steps": 1, **SGD},
    }
    run(task.options(tmp_path / "one", per_device_train_batch_size=16, **common))
    run(task.options(tmp_path / "two", per_device_train_batch_size=8, **common), processes=2)
    one, two = (weights(tmp_path / name) - weights(start) for name in ("one", "two"))
    assert one.norm() > 0.01
    assert abs(two.norm() / one.norm() - 1) < 0.01
    torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-4)


def test_metrics_of_two_processes_on_an_uneven_set_are_those_of_one(task, tmp_path):
    """21 rows do not divide by two: the set is filled with rows that must not count."""
    evaluation = {"validation_file": task.validation, "metrics": "per", "per_device_eval_batch_size": 4}
    run(task.options(tmp_path / "one", per_device_train_batch_size=16, **evaluation))
    run(task.options(tmp_path / "two", per_device_train_batch_size=8, **evaluation), processes=2)
    one, two = (json.loads((tmp_path / name / "eval_results.json").read_text()) for name in ("one", "two"))
    assert two["eval_per"] == pytest.approx(one["eval_per"], abs=1e-6)


def test_two_processes_train_from_a_stream(task, tmp_path):
    run(task.options(tmp_path, streaming="true"), processes=2)
    assert json.loads((tmp_path / "trainer_state.json").read_text())["global_step"] == 6


def test_processes_that_would_train_apart_are_refused_in_one_line(task, tmp_path):
    process = launch(task.options(tmp_path / "run", use_cpu="false"), processes=2)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0 and not (tmp_path / "run").exists()
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "--use_cpu true" in line


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_resumes_and_ends_with_the_weights_of_an_unbroken_one(processes, task, tmp_path):
    # With dropout, the weights are equal only if the random states are restored too.
    overrides = SMALL.replace("dropout=0.0", "dropout=0.2")
    options = {"max_steps": 100, "save_strategy": "steps", "save_steps": 25, "config_overrides": overrides}
    run(task.options(tmp_path / "unbroken", **options), processes)
    killed = task.options(tmp_path / "killed", **options)
    process = launch(killed, processes)
    while not (tmp_path / "killed/checkpoint-25/trainer_state.json").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    kill_tree(process.pid)
    process.communicate()
    assert not (tmp_path / "killed/train_results.json").exists()
    assert "resuming from" in run(killed, processes)
    assert torch.equal(weights(tmp_path / "killed"), weights(tmp_path / "unbroken"))


def kill_tree(pid: int) -> None:
    """`kill -9` of a process and all that it started, the training itself among them."""
    for child in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split():
        kill_tree(int(child))
    os.kill(pid, signal.SIGKILL)
