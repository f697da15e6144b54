# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Training as users start it, through `accelerate launch`: from a stream, apart by mistake, killed and resumed."""

import json
import os
import signal
import time

import pytest
import torch
from small_runs import SMALL, launch, nightly, output_of, run, stop_after, weights


pytestmark = pytest.mark.distributed


def test_two_processes_train_from_a_stream(task, tmp_path):
    """Each has half of the 160 pairs of the file, which is one shard: in two passes and a half all of them, twice."""
    run(task.options(tmp_path, streaming="true", packing="true", max_steps=25), "cpu-2proc")
    assert json.loads((tmp_path / "train_results.json").read_text())["train_samples"] == 400


def test_equal_batches_have_other_dropout_in_each_process_and_pairs_that_fill_batches_are_said(task, tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"source": "A B C", "target": "C B A"}\n' * 17)
    options = {"train_file": tmp_path / "pairs.jsonl", "per_device_train_batch_size": 4}
    options |= {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    options |= {"config_overrides": SMALL.replace("dropout=0.0", "dropout=0.2")}
    said = run(task.options(tmp_path / "run", **options), "cpu-2proc")
    assert "each epoch has 7 of its 17 pairs once more" in said
    states = [torch.load(tmp_path / f"run/checkpoint-2/rng_state_{rank}.pth", weights_only=False) for rank in (0, 1)]
    assert not torch.equal(states[0]["cpu"], states[1]["cpu"])


def test_processes_that_join_a_run_have_other_dropout_than_the_first(task, tmp_path):
    """The checkpoint of one process has no states for more of them."""
    (tmp_path / "pairs.jsonl").write_text('{"source": "A B C", "target": "C B A"}\n' * 16)
    options = {"train_file": tmp_path / "pairs.jsonl", "per_device_train_batch_size": 4, "max_steps": 4}
    options |= {"config_overrides": SMALL.replace("dropout=0.0", "dropout=0.2")}
    saving = {"save_strategy": "steps", "save_steps": 2}
    run(task.options(tmp_path / "run", **options, **saving), "cpu")
    stop_after(tmp_path / "run", 2)
    run(task.options(tmp_path / "run", **options, **saving, change_recipe="true"), "cpu-2proc")
    states = [torch.load(tmp_path / f"run/checkpoint-4/rng_state_{rank}.pth", weights_only=False) for rank in (0, 1)]
    assert not torch.equal(states[0]["cpu"], states[1]["cpu"])


def test_processes_that_would_train_apart_are_refused_in_one_line(task, tmp_path):
    process = launch(task.options(tmp_path / "run", use_cpu="false"), "cpu-2proc")
    output = output_of(process)
    assert process.returncode != 0 and not (tmp_path / "run").exists()
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "--use_cpu true" in line


COUNTED = """
import sys, weakref
import torch.distributed
from torch.nn.parallel import DistributedDataParallel
from hf_xformer.commands import train

made, alive = [], weakref.WeakSet()
init, destroy = DistributedDataParallel.__init__, torch.distributed.destroy_process_group

def remember(self, *args, **options):
    init(self, *args, **options)
    made.append(alive.add(self))

def count(*args, **options):
    print(f"at the end {len(alive)} of {len(made)}", flush=True)
    destroy(*args, **options)

DistributedDataParallel.__init__, torch.distributed.destroy_process_group = remember, count
train.main(sys.argv[1:])
"""


def test_nothing_holds_the_group_of_processes_when_they_leave_it(task, tmp_path):
    """Else torch waits for ever at the end, one time in some hundreds."""
    (tmp_path / "counted.py").write_text(COUNTED)
    options = task.options(tmp_path / "run", max_steps=2, validation_file=task.validation)
    process = launch(options, "cpu-2proc", script=str(tmp_path / "counted.py"))
    assert output_of(process).count("at the end 0 of 1") == 2 and process.returncode == 0


@pytest.mark.parametrize("config", ["cpu-2proc", *nightly("cpu")])
def test_a_killed_run_resumes_and_ends_with_the_weights_of_an_unbroken_one(config, task, tmp_path):
    # With dropout, the weights are equal only if the random states are restored too.
    overrides = SMALL.replace("dropout=0.0", "dropout=0.2")
    options = {"max_steps": 40, "save_strategy": "steps", "save_steps": 10, "config_overrides": overrides}
    run(task.options(tmp_path / "unbroken", **options), config)
    killed, numbers = task.options(tmp_path / "killed", **options), tmp_path / "numbers"
    numbers.mkdir()
    process = launch(killed, config, script="tests/numbered_training.py", NUMBERS=str(numbers))
    while not (tmp_path / "killed/checkpoint-20").exists():  # by then the one before it is whole
        assert process.poll() is None, output_of(process)
        time.sleep(0.005)
    # The launcher first, or it would end the others itself.
    for number in (process.pid, *(int(path.read_text()) for path in numbers.iterdir())):
        os.kill(number, signal.SIGKILL)
    output_of(process)
    assert not (tmp_path / "killed/train_results.json").exists()
    assert "resuming from" in run(killed, config)
    assert torch.equal(weights(tmp_path / "killed"), weights(tmp_path / "unbroken"))
