# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Schedules with a plateau or without an end: their rates by their formulas, resumed, and checked before training."""

import json
import math

import pytest
import torch
from small_runs import SMALL, refused, stop_after, weights
from transformers import Seq2SeqTrainingArguments

from hf_xformer.commands import train
from hf_xformer.errors import ArgumentError
from hf_xformer.training.schedules import check_schedule


def rates(folder) -> dict[int, float]:
    """The learning rate of each step of a run."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["learning_rate"] for entry in history if "learning_rate" in entry}


def stable(step: int) -> float:
    """Three steps of warm-up from a tenth on, four stable ones, five in which the rate falls to a tenth."""
    if step < 3:
        return 0.1 + 0.9 * step / 3
    return 1.0 if step < 7 else 0.1 + 0.9 * (1 - math.sqrt((step - 7) / 5))


SCHEDULES = {
    "warmup_stable_decay": (
        "lr_scheduler_kwargs: {num_decay_steps: 5, decay_type: 1-sqrt, min_lr_ratio: 0.1}",
        stable,
    ),
    "inverse_sqrt": ("", lambda step: step / 3 if step < 3 else math.sqrt(3 / step)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_recipe_has_the_rates_of_the_formula_and_resumes_to_the_bit(name, task, tmp_path):
    kwargs, formula = SCHEDULES[name]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"lr_scheduler_type: {name}\nwarmup_steps: 3\n{kwargs}\n")
    saving = {"max_steps": 12, "logging_steps": 1, "save_strategy": "steps", "save_steps": 6}
    saving |= {"config_overrides": SMALL.replace("dropout=0.0", "dropout=0.1")}
    out = tmp_path / "run"
    train.main([str(recipe), *task.options(out, **saving)])
    assert rates(out) == pytest.approx({step: 1e-2 * formula(step - 1) for step in range(1, 13)})
    unbroken = weights(out)
    stop_after(out, 6)
    train.main([str(recipe), *task.options(out, **saving)])
    assert torch.equal(weights(out), unbroken)


@pytest.mark.slow
def test_a_run_goes_on_from_before_its_decay(task, tmp_path):
    """The use of a plateau: train longer, with the checkpoints that there are."""
    options = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": '{"num_decay_steps": 4}'}
    options |= {"save_strategy": "steps", "save_steps": 4, "logging_steps": 1}
    train.main(task.options(tmp_path / "run", **options, max_steps=8))
    stop_after(tmp_path / "run", 4)
    train.main(task.options(tmp_path / "run", **options, max_steps=12, change_recipe="true"))
    train.main(task.options(tmp_path / "once", **options, max_steps=12))
    assert torch.equal(weights(tmp_path / "run"), weights(tmp_path / "once"))
    assert rates(tmp_path / "run")[9] == 1e-2 > rates(tmp_path / "run")[10]


WSD = "warmup_stable_decay"
EPOCHS = {"max_steps": -1, "num_train_epochs": 2}
WRONG = {
    "no decay": ({"lr_scheduler_type": WSD}, "--lr_scheduler_type warmup_stable_decay: give num_decay_steps"),
    "a share": (
        {"lr_scheduler_type": WSD, "lr_scheduler_kwargs": '{"num_decay_steps": 0.2}'},
        "num_decay_steps must be a number of steps, 1 or more, got 0.2",
    ),
    "a decay beyond the run": (
        {"lr_scheduler_type": WSD, "lr_scheduler_kwargs": '{"num_decay_steps": 5}', "warmup_steps": 2},
        "the run has 6 steps, its parts 2 of warm-up, 5 of decay",
    ),
    "steps behind the decay": (
        {"lr_scheduler_type": WSD, "lr_scheduler_kwargs": '{"num_decay_steps": 2, "num_stable_steps": 3}'},
        "the run has 6 steps, its parts 0 of warm-up, 3 between, 2 of decay; leave num_stable_steps out",
    ),
    "an unknown kind": (
        {"lr_scheduler_type": WSD, "lr_scheduler_kwargs": '{"num_decay_steps": 2, "decay_type": "sqrt"}'},
        "Unknown decay type: sqrt",
    ),
    "an unknown argument": (
        {"lr_scheduler_type": "inverse_sqrt", "lr_scheduler_kwargs": '{"time_scale": 2}'},
        "--lr_scheduler_type inverse_sqrt with --lr_scheduler_kwargs {'time_scale': 2}",
    ),
    "no timescale": (
        {"lr_scheduler_type": "inverse_sqrt", "lr_scheduler_kwargs": '{"timescale": 0}'},
        "timescale must be a number of steps, 1 or more, got 0",
    ),
    "a decay beyond the epochs": (
        {"lr_scheduler_type": WSD, "lr_scheduler_kwargs": '{"num_decay_steps": 41}', **EPOCHS},
        "the run has 40 steps, its parts 0 of warm-up, 41 of decay",
    ),
}


@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG)
def test_a_schedule_that_cannot_be_is_one_line_before_the_first_step(changes, said, task, tmp_path, capsys):
    line = refused(train, task.options(tmp_path / "run", **changes), capsys)
    assert said in line and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_steps_of_epochs_are_the_trainers(task, tmp_path):
    options = {"lr_scheduler_type": WSD, "gradient_accumulation_steps": 3, **EPOCHS}
    train.main(task.options(tmp_path, **options, lr_scheduler_kwargs='{"num_decay_steps": 14}'))
    assert json.loads((tmp_path / "trainer_state.json").read_text())["global_step"] == 14


@pytest.mark.parametrize(("warmup", "is_said"), [(0, False), (1, False), (5, False), (6, True), (60, True)])
def test_a_run_that_ends_in_its_warm_up_says_so(warmup, is_said, task, tmp_path, capsys):
    options = {"warmup_steps": warmup, "logging_steps": 1, "max_steps": 6, "lr_scheduler_type": "inverse_sqrt"}
    train.main(task.options(tmp_path / "run", **options))
    said = [line for line in capsys.readouterr().out.splitlines() if "ends in its warm-up" in line]
    assert len(said) == is_said
    if said:
        assert float(said[0].rpartition(" ")[2]) == pytest.approx(max(rates(tmp_path / "run").values()), rel=1e-2)


@pytest.mark.parametrize("name", ["constant", "reduce_lr_on_plateau"])
def test_a_warm_up_that_a_schedule_passes_over_is_refused(name, tmp_path):
    evaluating = {"eval_strategy": "steps", "eval_steps": 2}
    arguments = Seq2SeqTrainingArguments(tmp_path, lr_scheduler_type=name, warmup_steps=3, **evaluating)
    with pytest.raises(ArgumentError, match=f"--warmup_steps 3 does nothing with --lr_scheduler_type {name}"):
        check_schedule(arguments)
