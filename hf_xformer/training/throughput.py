# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Throughput of a run: useful tokens and pairs a second, and the share of the hardware's arithmetic that it reaches.

Everything is of the whole run, over all its starts: checkpoints keep the sums.
"""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import reduce
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from ..checkpoints.number_formats import is_slow, product_seconds
from ..errors import ArgumentError
from ..files import TRAIN_RESULTS, read_json
from .arithmetic import Arithmetic
from .corpus_counts import CorpusCounts
from .file_checks import is_amount, is_count
from .launch import precision, tensor_parallel_size
from .observation import add_before_trackers, add_to_log, observe_batches, observe_smoothing


# Dense operations a second in 16 bits, from the makers' data sheets; the longest name that fits counts. TF32 has half.
# A part of a card (MIG) and a laptop's have the name of the whole one too.
PEAK_FLOPS = {
    "A100": 312e12, "A10": 125e12, "A30": 165e12, "A40": 150e12, "RTX A6000": 155e12, "L4": 121e12, "L40S": 362e12,
    "RTX 3090": 71e12, "RTX 4090": 165e12, "H100": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H200": 989e12,
    "GH200": 989e12, "B200": 2250e12,
}  # fmt: skip
SMALLER = {"MIG", "Laptop"}
# A CPU's peak is measured: square matrices of this size are multiplied for so many seconds, and the fastest counts.
PRODUCT_SIZE, PRODUCT_SECONDS = 1024, 0.15
# Name of the sums in a checkpoint's `trainer_state.json`.
STATE = "throughput"
LEAST = 1e-4  # seconds that rates are of, where a clock shows fewer


def peak_flops(card: str | None) -> float | None:
    """Returns a card's dense operations a second in 16 bits; None if its name is not in the table."""
    words = set(re.split("[ -]", card or ""))
    fitting = [name for name in PEAK_FLOPS if set(name.split()) <= words and not words & SMALLER]
    return PEAK_FLOPS[max(fitting, key=len)] if fitting else None


@cache
def measured_peak(dtype: torch.dtype) -> float:
    """Returns the operations a second of the fastest matrix product on this CPU, measured once."""
    return 2 * PRODUCT_SIZE**3 / product_seconds(dtype, PRODUCT_SIZE, PRODUCT_SECONDS)


def peak_of(device: torch.device, number_format: str) -> float | None:
    """
    Returns the operations a second that a device may reach; None if nobody has said.

    Args:
        number_format: "fp16", "bf16" or "no", as [`precision`] returns it.
    """
    if device.type == "cpu":
        in_bf16 = number_format == "bf16" and not is_slow(torch.bfloat16, device)
        return measured_peak(torch.bfloat16 if in_bf16 else torch.float32)  # the faster one is what the CPU can do
    if device.type != "cuda":
        return None
    peak = peak_flops(torch.cuda.get_device_name(device))
    if peak is None or number_format != "no":
        return peak
    return peak / 2 if torch.backends.cuda.matmul.allow_tf32 else None


class Throughput(TrainerCallback):
    """
    Counts what the model is trained on and logs its rates; corrects the Trainer's results, which are of batches in
    place of pairs, and of the last start in place of the run.

    Counts stay on the device until the Trainer logs, and are summed over the processes then. A log's rates are of the
    steps since the last one, those of the results of all the time of the run, evaluation and saving included.
    Checkpoints have the sums until the last log; `ExactResume` has each of their steps logged.

    Args:
        model: The one that is trained, before it is wrapped.
        say: Is told why there is no utilisation.
        passes: How often each pair stands in a batch.
        corpora: Names of those of a mixture, of which each is counted.
    """

    def __init__(self, model: Any, say: Callable[[str], None] = print, passes: int = 1, corpora: Sequence[str] = ()):
        self.say, self.arithmetic, self.passes = say, Arithmetic.of(model), passes
        self.corpora = CorpusCounts(corpora, passes)
        self.pad_token_id = getattr(model.config, "pad_token_id", None)
        self.counts: torch.Tensor | None = None  # of this process since this start
        self.unlabelled: Mapping[str, Any] = {}  # a batch whose labels the Trainer keeps to itself
        self.earlier = [0] * (4 + len(self.arithmetic.seen))  # of the starts before, all processes
        self.now, self.last = list(self.earlier), list(self.earlier)  # of the run, now and at the last log
        self.seconds_before, self.steps_before, self.loss_sum = 0.0, 0, 0.0
        self.start: float | None = None  # of this training, while it lasts

    @torch.compiler.disable
    def see(self, model: nn.Module, args: tuple, inputs: Mapping[str, Any]) -> None:
        """Hook before the model's forward pass."""
        if not model.training or not torch.is_grad_enabled():
            return
        if inputs.get("labels") is None:
            self.unlabelled = inputs
        else:
            self.add(inputs)

    def see_labels(self, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """Observer of the Trainer's label smoothing."""
        if loss.requires_grad:
            self.add({**self.unlabelled, "labels": labels})
            self.unlabelled = {}

    @torch.no_grad()
    def add(self, inputs: Mapping[str, Any]) -> None:
        """Counts a batch."""
        counts = self.arithmetic.count(inputs, self.pad_token_id)
        self.counts = counts if self.counts is None else self.counts + counts.to(self.counts.device)

    def on_train_begin(self, args: TrainingArguments, state, control, **kwargs):
        # One object may count several trainings, as a search for options makes them.
        self.counts, self.earlier = None, [0] * len(self.earlier)
        self.seconds_before, self.steps_before, self.loss_sum = 0.0, 0, 0.0
        saved = sums_in(state, len(self.earlier))
        if saved is not None:
            self.earlier, self.loss_sum = list(saved["counts"]), saved["loss_sum"]
            self.seconds_before, self.steps_before = saved["seconds"], saved["steps"]
            self.corpora.recall(saved.get("corpora"))
        elif state.global_step:
            self.say("the checkpoint has no counts: rates, times and the mean loss will be of this start alone")
        self.now, self.last = list(self.earlier), list(self.earlier)
        self.first_step = self.logged_step = state.global_step
        self.loss_before = self.loss_sum
        number_format = precision(args)
        peak = peak_of(args.device, number_format)
        wide = torch.float32 if args.device.type == "mps" else torch.float64
        together = reduce(torch.tensor(peak or math.nan, dtype=wide, device=args.device), "sum").item()
        self.peak = together if math.isfinite(together) else None
        if self.peak is None:
            name = torch.cuda.get_device_name() if args.device.type == "cuda" else args.device.type
            kind = "float32" if number_format == "no" else number_format
            self.say(f"no utilisation (mfu) in the log: the peak of {name} in {kind} is not known")
        self.start = self.window = time.monotonic()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            figures = self.since_last_log(logs["loss"], state.global_step)
            add_to_log(state, logs, figures | self.corpora.figures())
            self.keep(state)
        elif "train_runtime" in logs:
            add_to_log(state, logs, self.of_run(logs["train_loss"], state.global_step))
            self.keep(state)
            self.seconds_before, self.start = self.seconds, None

    def on_evaluate(self, args, state, control, **kwargs):
        self.leave_out_until_now(state)

    def on_save(self, args, state, control, **kwargs):
        self.leave_out_until_now(state)

    def leave_out_until_now(self, state) -> None:
        """Leaves the time of an evaluation or a save out of the next log's rates; they come right after a log."""
        if self.start is not None:
            self.keep(state)
            if state.global_step == self.logged_step:
                self.window = time.monotonic()

    def keep(self, state) -> None:
        """Puts the run's sums where the next checkpoint has them."""
        state.stateful_callbacks[STATE] = {
            "counts": self.now,
            "loss_sum": self.loss_sum,
            "seconds": self.seconds,
            "steps": self.steps(self.logged_step),
            "corpora": self.corpora.record(),
        }

    @property
    def seconds(self) -> float:
        """Seconds of training until now, over all starts."""
        return self.seconds_before + (0.0 if self.start is None else time.monotonic() - self.start)

    def steps(self, global_step: int) -> int:
        """Returns the steps that the sums are of: all of the run, unless it began without counts."""
        return self.steps_before + global_step - self.first_step

    def sum_up(self) -> None:
        """Brings `now` up to date; all processes do it together."""
        if self.counts is not None:
            # Processes of tensor parallelism work on the same pairs.
            counted = (reduce(self.counts, "sum") // (tensor_parallel_size() * self.passes)).tolist()
            self.now = [before + count for before, count in zip(self.earlier, counted, strict=True)]
        self.corpora.sum_up()

    def since_last_log(self, loss: float, global_step: int) -> dict[str, float]:
        """Returns the rates of the steps since the last log, and remembers this one."""
        self.sum_up()
        self.loss_sum += loss * (global_step - self.logged_step)
        seconds = time.monotonic() - self.window
        counts = [now - last for now, last in zip(self.now, self.last, strict=True)]
        self.logged_step, self.last, self.window = global_step, list(self.now), time.monotonic()
        names = ("source_tokens_per_second", "target_tokens_per_second", "pairs_per_second")
        return self.rates(names, counts, seconds)

    def of_run(self, loss: float, global_step: int) -> dict[str, float]:
        """
        Returns the results of the whole run.

        Args:
            loss: Mean over the steps of this start, as the Trainer has it.
        """
        self.sum_up()
        steps, seconds = self.steps(global_step), round(self.seconds, 4)
        loss_sum = self.loss_sum
        if global_step > self.logged_step:
            loss_sum = self.loss_before + loss * (global_step - self.first_step)
        names = ("train_source_tokens_per_second", "train_target_tokens_per_second", "train_samples_per_second")
        totals = dict(zip(("train_source_tokens", "train_target_tokens", "train_samples"), self.now, strict=False))
        return {
            "train_runtime": seconds,
            "train_steps_per_second": round(steps / max(seconds, LEAST), 3),
            "train_loss": loss_sum / max(steps, 1),
            "total_flos": self.passes * self.arithmetic.operations(self.now),
            **totals,
            **self.corpora.figures("train_"),
            **self.rates(names, self.now, seconds, "train_"),
        }

    def rates(self, names: tuple[str, ...], counts: list[int], seconds: float, prefix: str = "") -> dict[str, float]:
        """Returns counts by the second, and the utilisation where the peak is known."""
        seconds = max(seconds, LEAST)
        found = {name: round(count / seconds, 3) for name, count in zip(names, counts, strict=False)}
        if self.peak is not None:
            mfu = self.passes * self.arithmetic.operations(counts) / seconds / self.peak
            found[f"{prefix}mfu"] = float(f"{mfu:.3g}")  # of a small model on a large machine, 0.0000 at four places
        return found


def sums_in(state: Any, kinds: int | None = None) -> dict[str, Any] | None:
    """
    Returns the sums in a checkpoint's state; None if there are none, or none that could be.

    Args:
        state: The Trainer's.
        kinds: How many counts the model's arithmetic has; None for any number.
    """
    saved = state.stateful_callbacks.get(STATE)
    counts = saved.get("counts") if isinstance(saved, dict) else None
    if not isinstance(counts, list) or not all(map(is_count, counts)) or kinds not in (None, len(counts)):
        return None
    return saved if all(is_amount(saved.get(name)) for name in ("loss_sum", "seconds", "steps")) else None


def seconds_of(state: Any) -> float:
    """Returns the seconds of training until a state of the Trainer, over all starts; 0 if it has no sums."""
    return (sums_in(state) or {"seconds": 0.0})["seconds"]


def log_throughput(
    trainer: Trainer, say: Callable[[str], None] = print, passes: int = 1, corpora: Sequence[str] = ()
) -> Throughput:
    """Has a Trainer count what it trains on, as `Throughput` does, and log tokens and pairs a second."""
    model: Any = trainer.model
    throughput = Throughput(model, say, passes, corpora)
    model.register_forward_pre_hook(throughput.see, with_kwargs=True)
    observe_batches(trainer, throughput.corpora.add)
    observe_smoothing(trainer, throughput.see_labels)
    add_before_trackers(trainer, throughput)
    return throughput


def results_of_training(trainer: Trainer) -> dict[str, float]:
    """Returns the results of a run that has just ended, whole: what prints a log takes some out."""
    entry = next(entry for entry in reversed(trainer.state.log_history) if "train_runtime" in entry)
    return {name: value for name, value in entry.items() if name != "step"}


def results_of_end(
    trainer: Trainer,
    output_dir: Path,
    say: Callable[[str], None] = print,
    passes: int = 1,
    corpora: Sequence[str] = (),
) -> dict[str, Any]:
    """
    Returns the results of a run that has ended before: as they were written, or else, because the run was killed
    before that, as its last checkpoint has them; nothing if that has no counts.
    """
    state: Any = trainer.state
    try:
        written = read_json(output_dir / TRAIN_RESULTS)
    except ArgumentError:
        written = {}
    throughput = Throughput(trainer.model, say, passes, corpora)
    if sums_in(state, len(throughput.earlier)) is None:
        return written
    throughput.on_train_begin(trainer.args, state, trainer.control)
    throughput.start = None
    found = {**throughput.of_run(math.nan, state.global_step), "epoch": state.epoch}
    is_of_end = all(written.get(name) == found[name] for name in ("train_loss", "epoch"))  # else of an earlier one
    return written if is_of_end else found
