# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Kills trainings at random and at chosen moments, starts them again, and compares what they end with to unbroken ones.

    python tests/kills.py --count 100 --seed 0
    python tests/kills.py --recipes epochs stream --moments "any time" --count 20

A training that was killed (`kill -9`, all its processes) is started again with the same command until it ends; some
are killed twice. Weights, averages, results, losses and scores have to be those of the unbroken run, bit for bit;
times need not. The results so far are in benchmarks/results/kills.json after every kill.
"""

import argparse
import itertools
import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file
from small_runs import ROOT, SMALL, Task, launch, make_task, start, writers
from transformers import AutoTokenizer, GenerationConfig

from hf_xformer import XformerConfig, XformerForSeq2SeqLM
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.files import write_json


RESULTS = ROOT / "benchmarks/results/kills.json"
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
LONGEST = 1200  # seconds that a training may take: on a busy machine minutes
# What differs between two runs that are the same.
TIMES = re.compile(r"runtime|second|preparation_time|util|mfu|mem_|tokens_per", re.IGNORECASE)

DROPPING = SMALL.replace("dropout=0.0", "dropout=0.2")
# 20 batches an epoch. A log every three steps, so that checkpoints fall between logs.
COMMON = {"config_overrides": DROPPING, "max_steps": 30, "logging_steps": 3, "save_strategy": "steps", "save_steps": 5}
EPOCHS = {"max_steps": None, "num_train_epochs": 3, "save_steps": 10}
EVALUATING = {"validation_file": "VALIDATION", "eval_strategy": "steps", "eval_steps": 5, "logging_steps": 5}
BEST = {"load_best_model_at_end": "true", "metric_for_best_model": "per", "greater_is_better": "false"}
EXISTING = {"config_name": None, "config_overrides": None, "tokenizer_name": None}
# Beside COMMON; words in capitals are paths of the `Bench`. A config is one of configs/accelerate.
RECIPES: dict[str, dict] = {
    "plain": {"save_total_limit": 2},
    "packing": {"packing": "true", "max_tokens": 40, **EPOCHS},
    "max_tokens": {"max_tokens": 60, **EPOCHS, "save_steps": 7},
    "averages": {"ema_decay": 0.9, **EVALUATING, "save_total_limit": 2},
    "best": {**EVALUATING, **BEST, "metrics": "per", "save_total_limit": 2},
    "best averages": {**EVALUATING, **BEST, "metrics": "per", "ema_decay": 0.9, "lr_scheduler_type": "cosine"},
    "epochs": {**EPOCHS, "validation_file": "VALIDATION", "eval_strategy": "epoch", "logging_strategy": "epoch"},
    "saved by epoch": {**EPOCHS, "save_strategy": "epoch", "validation_file": "VALIDATION", "eval_strategy": "steps",
                       "eval_steps": 7},
    "plateau": {**EPOCHS, "validation_file": "VALIDATION", "eval_strategy": "epoch", "metric_for_best_model": "loss",
                "lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": '{"patience": 0}'},
    "stream": {"streaming": "true", "max_steps": 45},
    "packed stream": {"streaming": "true", "packing": "true", "max_tokens": 40, "dataloader_num_workers": 2},
    "mixture": {"train_file": None, "datasets": "MIXTURE", "stages": "STAGES", "packing": "true", "max_tokens": 40,
                "dataloader_num_workers": 2, "gradient_accumulation_steps": 2},
    "stream, accumulated": {"streaming": "true", "gradient_accumulation_steps": 3, "save_steps": 4},
    "accumulation": {**EPOCHS, "gradient_accumulation_steps": 3, "save_steps": 3},
    "lora": {**EXISTING, "model_name_or_path": "BASE", "lora_rank": 2, "lora_dropout": 0.2, **EVALUATING},
    "smoothing": {"label_smoothing_factor": 0.1, **EPOCHS},
    "workers": {"dataloader_num_workers": 2, **EPOCHS, "max_tokens": 80},
    "stock order": {"group_by_length": "false", "dataloader_num_workers": 2, **EPOCHS, "save_steps": 8},
    "sampling": {**EXISTING, "model_name_or_path": "SAMPLING", **EVALUATING, "metrics": "exact_match",
                 "logging_steps": 3},
    "two tokenizers": {"tokenizer_name": "TWO", "eval_on_start": "true", **EVALUATING},
    "two processes": {"config": "cpu-2proc", "group_by_length": "false", **EPOCHS, "num_train_epochs": 4,
                      "save_steps": 7},
}  # fmt: skip


@dataclass
class Watch:
    """
    Tells when a training has come to a moment.

    Args:
        step: A checkpoint of the unbroken run.
        last: Its last one.
        times: How many lines of losses come before the moment, where it is an evaluation.
    """

    folder: Path
    log: int
    step: int = 0
    last: int = 0
    times: int = 1
    was_there: bool = False

    def has(self, name: str, step: int | None = None) -> bool:
        return Path(self.folder, f"checkpoint-{self.step if step is None else step}", name).exists()

    def writes_averages(self) -> bool:
        with suppress(FileNotFoundError):
            return any("averages" in name for name in os.listdir(self.folder / f"checkpoint-{self.step}"))
        return False

    def is_deleting(self) -> bool:
        """Tells whether a checkpoint that was there loses its files."""
        self.was_there |= self.has("trainer_state.json")
        return self.was_there and not all(self.has(name) for name in ("optimizer.pt", "trainer_state.json"))

    def has_logged(self) -> bool:
        # Not by the file's position, which the training shares.
        return os.pread(self.log, 1 << 20, 0).count(b"'loss'") >= self.times

    def has_weights(self) -> bool:
        return any((self.folder / name).exists() for name in ("model.safetensors", "adapter_model.safetensors"))


ANY_TIME = "any time"
MOMENTS: dict[str, Callable[[Watch], bool]] = {
    ANY_TIME: lambda watch: True,
    "weights of a checkpoint": lambda watch: watch.has(""),
    "optimizer of a checkpoint": lambda watch: watch.has("optimizer.pt"),
    "state of a checkpoint": lambda watch: watch.has("trainer_state.json"),
    "averages of a checkpoint": Watch.writes_averages,
    "deletion of a checkpoint": Watch.is_deleting,
    "a log, an evaluation": Watch.has_logged,
    "after the last checkpoint": lambda watch: watch.has("trainer_state.json", watch.last),
    "results of training": lambda watch: (watch.folder / "train_results.json").exists(),
    "final weights": Watch.has_weights,
    "record": lambda watch: (watch.folder / "run.json").exists(),
}
# Where a checkpoint begins to be deleted or averages to be written.
NEEDS = {"averages of a checkpoint": "ema_decay", "deletion of a checkpoint": "save_total_limit"}
# In milliseconds, most that is waited after a moment has come.
AFTER = {"after the last checkpoint": 80, "results of training": 60, "a log, an evaluation": 40}
AFTER_OTHERS = 15


def moments_of(recipe: str) -> list[str]:
    """Returns the moments that a recipe has."""
    options = RECIPES[recipe]
    return [each for each in MOMENTS if each not in NEEDS or NEEDS[each] in options]


@dataclass
class Unbroken:
    """A run that was not killed: its folder, how long it took, and the steps of its checkpoints."""

    folder: Path
    seconds: float
    steps: list[int]


@dataclass
class Outcome:
    """A killed run: when, the steps at which it resumed, and in what its end differs from the unbroken one's."""

    moments: list[str]
    resumed: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


class Bench:
    """
    Trainings in a folder, each recipe's unbroken one done once.

    Args:
        folder: Where all files go.
    """

    def __init__(self, folder: Path, task: Task | None = None):
        self.folder, self.numbers, self.unbroken_runs = folder, itertools.count(1), dict[str, Unbroken]()
        (folder / "task").mkdir(parents=True)
        self.task = task or make_task(folder / "task")
        lines = Path(self.task.train).read_text().splitlines(keepends=True)
        for name, part in (("small", lines[:16]), ("large", lines[16:])):
            (folder / f"{name}.jsonl").write_text("".join(part))
        corpora = [{"name": name, "train_file": str(folder / f"{name}.jsonl")} for name in ("small", "large")]
        stages = [{"until_step": 12, "weights": {"large": 1}}, {"weights": {"small": 1, "large": 1}}]
        self.paths = {"VALIDATION": self.task.validation, "MIXTURE": json.dumps(corpora), "STAGES": json.dumps(stages)}
        tokenizer = AutoTokenizer.from_pretrained(self.task.tokenizer)
        sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
        torch.manual_seed(0)
        model = XformerForSeq2SeqLM(XformerConfig(vocab_size=len(tokenizer), d_model=16, dropout=0.2, **sizes))
        for name in ("BASE", "SAMPLING"):
            self.paths[name] = str(folder / name.lower())
            model.save_pretrained(self.paths[name])
            tokenizer.save_pretrained(self.paths[name])
        sampling = GenerationConfig.from_pretrained(self.paths["SAMPLING"])
        sampling.do_sample = True
        sampling.save_pretrained(self.paths["SAMPLING"])
        self.paths["TWO"] = str(folder / "two")
        tokenizer.save_pretrained(self.paths["TWO"])
        train_tokenizer(["H G F E D C B A Z"], "symbol").save_pretrained(folder / "two/target_tokenizer")

    def start(self, recipe: str, output_dir: Path):
        """Starts a training."""
        options = {**COMMON, **RECIPES[recipe]}
        config = options.pop("config", None)
        words = self.task.options(output_dir, **{key: self.paths.get(each, each) for key, each in options.items()})
        if config is not None:
            return launch(words, config, **ENVIRONMENT)
        return start([sys.executable, "-m", "hf_xformer.commands.train", *words], ENVIRONMENT, cold=False)

    def unbroken(self, recipe: str) -> Unbroken:
        """Returns the recipe's run that is not killed."""
        if recipe not in self.unbroken_runs:
            folder = self.folder / "unbroken" / recipe.replace(" ", "-").replace(",", "")
            begun, steps = time.monotonic(), set()
            process = self.start(recipe, folder)
            while process.poll() is None and time.monotonic() < begun + LONGEST:
                steps.update(steps_in(folder))
                time.sleep(0.002)
            seconds = time.monotonic() - begun
            output = kill(process)
            if process.returncode != 0:
                raise ChildProcessError(f"the unbroken run ended with {process.returncode}:\n{output}")
            self.unbroken_runs[recipe] = Unbroken(folder, seconds, sorted(steps))
        return self.unbroken_runs[recipe]

    def trial(self, recipe: str, moment: str, random: Random, step: int | None = None, kills: int = 1) -> Outcome:
        """
        Kills a run at a moment, and at any time after that if it is to be killed again, and lets it end.

        Args:
            step: The checkpoint that the moment is one of; a random one by default.
        """
        unbroken = self.unbroken(recipe)
        folder = self.folder / f"killed-{next(self.numbers)}"
        outcome = Outcome([])
        for number in range(kills):
            process = self.start(recipe, folder)
            watch = Watch(folder, process.log.fileno(), step or random.choice(unbroken.steps), unbroken.steps[-1])
            watch.times = random.randint(1, 6)
            name = moment if number == 0 else ANY_TIME
            is_late = not wait_for(process, watch, name, unbroken.seconds, random)
            place = f"{name} (step {watch.step})" if "of a checkpoint" in name else name
            outcome.moments.append("after its end" if is_late else place)
            outcome.resumed += resumed(kill(process))
        process = self.start(recipe, folder)
        with suppress(Exception):
            process.wait(LONGEST)
        output = kill(process)
        outcome.resumed += resumed(output)
        if process.returncode != 0 or "Traceback" in output:
            last = "\n".join(output.splitlines()[-25:])
            outcome.differences = [f"started again, it ended with {process.returncode}:\n{last}"]
        else:
            outcome.differences = differences(folder, unbroken.folder)
        if not outcome.differences:
            shutil.rmtree(folder)
        else:
            (folder / "output.txt").write_text(output)
        return outcome


def wait_for(process, watch: Watch, moment: str, seconds: float, random: Random) -> bool:
    """Waits until a training has come to a moment, and a little longer; returns False if it has ended before."""
    if moment == ANY_TIME:
        wait = random.uniform(0.1, 1) * seconds
    else:
        wait = random.uniform(0, AFTER.get(moment, AFTER_OTHERS)) / 1000
    has_come = MOMENTS[moment]
    while not has_come(watch):
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    if random.random() < 0.7 or moment == ANY_TIME:
        time.sleep(wait)
    return process.poll() is None


def kill(process) -> str:
    """Kills all processes of a training at once, wherever they were started, and returns what it printed."""
    for pid in writers(process.log.fileno()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait(60)
    process.log.seek(0)
    output = process.log.read()
    process.log.close()
    return output


def resumed(output: str) -> list[str]:
    """Returns where a start went on, by what it said."""
    places = re.findall(r"resuming from \S*/checkpoint-(\d+)|(is the end of this run)", output)
    return [step or "end" for step, _ in places[:1]] or ["anew"]


def steps_in(folder: Path) -> list[int]:
    """Returns the steps of a run's checkpoints."""
    with suppress(FileNotFoundError):
        return [int(name.split("-")[1]) for name in os.listdir(folder) if re.fullmatch(r"checkpoint-\d+", name)]
    return []


def differences(broken: Path, unbroken: Path) -> list[str]:
    """Returns in what the ends of two runs differ, times apart: the first tensor, step or figure of each file."""
    found = []
    names = {str(path.relative_to(unbroken)) for path in unbroken.rglob("*.safetensors")}
    # What a kill cut off has been moved aside.
    others = {str(path.relative_to(broken)) for path in broken.rglob("*.safetensors")}
    others = {name for name in others if not name.startswith("previous-")}
    if names != others:
        found.append(f"files: only unbroken {sorted(names - others)}, only killed {sorted(others - names)}")
    for name in sorted(names & others):
        found += first_tensor(name, load_file(broken / name), load_file(unbroken / name))
    for name in ("train_results.json", "eval_results.json", "all_results.json"):
        found += first_figure(name, *(read_figures(folder / name) for folder in (broken, unbroken)))
    states = [json.loads((folder / "trainer_state.json").read_text()) for folder in (broken, unbroken)]
    histories = [list(map(without_times, state["log_history"])) for state in states]
    for ours, theirs in itertools.zip_longest(*histories):
        if ours != theirs:
            found.append(f"trainer_state.json: log_history: first {ours}, unbroken {theirs}")
            break
    for name in ("global_step", "epoch", "best_metric", "best_global_step", "max_steps"):
        if states[0][name] != states[1][name]:
            found.append(f"trainer_state.json: {name}: {states[0][name]}, unbroken {states[1][name]}")
    return found


def first_tensor(name: str, ours: dict, theirs: dict) -> list[str]:
    """Returns the first tensor that differs."""
    for key in sorted({*ours, *theirs}):
        if key not in ours or key not in theirs:
            return [f"{name}: {key} is only in one of them"]
        if ours[key].dtype != theirs[key].dtype or not torch.equal(ours[key], theirs[key]):
            return [f"{name}: {key} differs by {(ours[key].double() - theirs[key].double()).abs().max():.3g}"]
    return []


def first_figure(name: str, ours: dict | None, theirs: dict | None) -> list[str]:
    """Returns the first figure that differs."""
    if ours is None or theirs is None:
        return [] if ours is theirs else [f"{name}: {'the unbroken' if ours else 'the killed'} run has none"]
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            return [f"{name}: {key}: {ours.get(key)}, unbroken {theirs.get(key)}"]
    return []


def read_figures(path: Path) -> dict | None:
    return without_times(json.loads(path.read_text())) if path.exists() else None


def without_times(figures: dict) -> dict:
    return {key: value for key, value in figures.items() if not TIMES.search(key)}


def plan(recipes: list[str], moments: list[str], count: int, random: Random) -> list[tuple[str, str]]:
    """Returns recipes and moments to kill at: each recipe as often, at all its moments before any comes again."""
    chosen, left = [], dict[str, list[str]]()
    wanted = {recipe: [each for each in moments_of(recipe) if each in moments] for recipe in recipes}
    for recipe in itertools.islice(itertools.cycle(filter(wanted.get, recipes)), count):
        left[recipe] = left.get(recipe) or random.sample(wanted[recipe], len(wanted[recipe]))
        chosen.append((recipe, left[recipe].pop()))
    return sorted(chosen, key=lambda pair: recipes.index(pair[0]))


class Results:
    """Counts kills by recipe and moment, on disk at once."""

    def __init__(self, path: Path, seed: int):
        versions = {name: version(name) for name in ("torch", "transformers", "accelerate", "datasets")}
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        self.path, self.table = path, dict[str, dict[str, list[int]]]()
        self.content = {
            **{"date": date.today().isoformat(), "machine": machine, "python": platform.python_version()},
            **{**versions, "seed": seed, "killed": 0, "identical": 0, "[identical, killed]": self.table},
            "not_identical": [],
        }

    def add(self, recipe: str, moment: str, outcome: Outcome) -> None:
        cell = self.table.setdefault(recipe, {}).setdefault(moment, [0, 0])
        cell[1] += 1
        self.content["killed"] += 1
        if not outcome.differences:
            cell[0] += 1
            self.content["identical"] += 1
        else:
            self.content["not_identical"].append({"recipe": recipe, **vars(outcome)})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.content)

    def lines(self) -> list[str]:
        """Returns the counts as a Markdown table, a row for each recipe."""
        rows = [["recipe", "killed", "identical"], ["---", "--:", "--:"]]
        for recipe, cells in self.table.items():
            rows.append([recipe, str(sum(each[1] for each in cells.values())), str(sum(c[0] for c in cells.values()))])
        rows.append(["all", str(self.content["killed"]), str(self.content["identical"])])
        return ["| " + " | ".join(row) + " |" for row in rows]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="kills (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of recipes, moments and waits (%(default)s)")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES, metavar="RECIPE")
    parser.add_argument("--moments", nargs="+", default=list(MOMENTS), choices=MOMENTS, metavar="MOMENT")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of results (%(default)s)")
    options = parser.parse_args(argv)
    os.environ.update(ENVIRONMENT)
    random, results = Random(options.seed), Results(options.output, options.seed)
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    bench = Bench(folder)
    for recipe, moment in plan(options.recipes, options.moments, options.count, random):
        try:
            outcome = bench.trial(recipe, moment, random, kills=1 + (random.random() < 0.25))
        except ChildProcessError as error:
            outcome = Outcome([moment], [], [str(error)])
        results.add(recipe, moment, outcome)
        when, where = ", then ".join(outcome.moments), ", ".join(outcome.resumed)
        verdict = "identical" if not outcome.differences else "DIFFERS"
        print(f"{verdict}: {recipe}: killed at {when}; starts: {where}", flush=True)
        for line in outcome.differences:
            print(f"    {line}", flush=True)
    print("\n".join(results.lines()))
    is_exact = results.content["killed"] == results.content["identical"]
    if is_exact:
        shutil.rmtree(folder)
    else:
        print(f"the runs that differ, with what they printed, are in {folder}")
    return 0 if is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
