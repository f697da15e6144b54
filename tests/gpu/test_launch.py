# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Every file of configs/accelerate that one device can run, launched as users launch it, for a few steps."""

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from small_models import make_model
from small_runs import ROOT, Task, has_code, launch, output_of, weights
from torch.testing import assert_close
from transformers import AutoTokenizer

from hf_xformer.training.launch import compiles_deepspeed
from hf_xformer.yaml_files import read_yaml_file


CONFIGS = ROOT / "configs/accelerate"
SECONDS = 200  # of one launch, which may compile DeepSpeed's optimizer first
ONE_MACHINE = ("--num_machines", "1", "--machine_rank", "0", "--main_process_ip", "127.0.0.1")
FLOAT32 = ("--mixed_precision", "no")


@dataclass(frozen=True)
class Launch:
    """A launch configuration, words for the launcher that fit it to one device, and what its weights are held to."""

    config: str
    words: tuple[str, ...] = ()
    tolerance: float = 1e-4  # of its weights to those of one process in float32, whose steps move them by up to 0.1
    on_gpu: bool = True
    on_cpu: bool = False  # tests/training launches more there

    @property
    def name(self) -> str:
        return f"{self.config}{'-float32' if self.words == FLOAT32 else ''}"

    @property
    def with_deepspeed(self) -> bool:
        return "zero" in self.config


LAUNCHES = [
    Launch("cpu", on_gpu=False, on_cpu=True),
    Launch("gpu"),
    Launch("gpu-bf16", tolerance=5e-2),
    Launch("gpu-fp16", tolerance=5e-2),
    Launch("multi-gpu", tolerance=5e-2),
    Launch("multi-node", ONE_MACHINE, tolerance=5e-2),
    Launch("fsdp2", FLOAT32),
    Launch("fsdp2", tolerance=5e-2),
    Launch("fsdp2-offload", FLOAT32),
    Launch("zero1"),
    Launch("zero2"),
    Launch("zero3", on_cpu=True),
    Launch("zero3-offload"),
    Launch("multi-node-zero3", ONE_MACHINE),
]
# Both need two processes, which tests/training starts on a CPU: tensor and data parallel.
OF_TWO = {"tp2", "cpu-2proc"}
launches = pytest.mark.parametrize("each", LAUNCHES, ids=lambda each: each.name)


def reference_on(device: torch.device) -> Launch:
    """Returns the launch of one process in float32."""
    return next(each for each in LAUNCHES if each.config == ("gpu", "cpu")[device.type == "cpu"])


class Runs:
    """Launches what the device can run, a few at a time because starting takes longer than training."""

    def __init__(self, folder: Path, task: Task, device: torch.device):
        self.folder, self.task, self.device = folder, task, device
        self.pool = ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 1) // 2)))
        self.started: dict[Launch, Future] = {}

    def start(self, chosen: list[Launch]) -> None:
        """Saves the weights that all begin with, ZeRO-3 too, which would draw others, and starts launches."""
        tokenizer = AutoTokenizer.from_pretrained(self.task.tokenizer)
        tokenizer.save_pretrained(self.folder / "start")
        make_model(vocab_size=len(tokenizer), dropout=0.0).save_pretrained(self.folder / "start")
        # Launches that compile DeepSpeed's optimizer come first: they take longest.
        for each in sorted(chosen, key=lambda each: "offload" not in each.config):
            if self.why_not(each) is None:
                self.started[each] = self.pool.submit(self.run, each)

    def why_not(self, each: Launch) -> str | None:
        """Returns the reason why this machine cannot run it."""
        on_cpu = self.device.type == "cpu"
        missing = [name for name in ("datasets", "evaluate") if find_spec(name) is None]
        if each.with_deepspeed and find_spec("deepspeed") is None:
            missing.append("deepspeed")
        if missing:
            return f"{', '.join(missing)}: not installed"
        if not (each.on_cpu if on_cpu else each.on_gpu):
            return f"{each.config}.yaml is not for {self.device}"
        if on_cpu and each.with_deepspeed and compiles_deepspeed():
            return "DeepSpeed has not compiled its communication for this CPU yet, which takes minutes"
        return None

    def run(self, each: Launch) -> tuple[int, str]:
        """Returns a launch's exit status and what it printed."""
        start = {"config_name": None, "config_overrides": None, "tokenizer_name": None}
        start |= {
            "model_name_or_path": self.folder / "start",
            "use_cpu": "true" if self.device.type == "cpu" else None,
        }
        options = self.task.options(self.folder / each.name, **start)
        precision = read_yaml_file(CONFIGS / f"{each.config}.yaml").get("mixed_precision", "no")
        words = ("--num_processes", "1", "--mixed_precision", precision, *each.words)
        process = launch(options, each.config, words)
        output = output_of(process, timeout=SECONDS)
        return process.returncode, output

    def done(self, each: Launch) -> Path:
        """Returns the output folder of a launch, or skips the test with the reason why there is none."""
        if reason := self.why_not(each):
            pytest.skip(reason)
        status, output = self.started[each].result()
        assert status == 0, output[-4000:]
        return self.folder / each.name


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory, task, device):
    runs = Runs(tmp_path_factory.mktemp("launches"), task, device)
    tests = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    chosen = [params["each"] for params in tests if params.get("each") in LAUNCHES]
    runs.start(list(dict.fromkeys([*chosen, reference_on(device)])))
    yield runs
    runs.pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def one_process(runs, device) -> torch.Tensor:
    """Weights of one process in float32 on the device."""
    return weights(runs.done(reference_on(device)))


@launches
def test_a_launch_ends_with_the_weights_of_one_process(each, runs, one_process):
    folder = runs.done(each)
    assert has_code(folder)
    results = json.loads((folder / "train_results.json").read_text())
    assert results["train_loss"] < 3
    assert_close(weights(folder).float(), one_process, atol=each.tolerance, rtol=0)


def test_every_launch_configuration_is_launched_or_needs_two_devices(device):
    assert {each.config for each in LAUNCHES} | OF_TWO == {path.stem for path in CONFIGS.glob("*.yaml")}
