# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed end as unbroken ones; `make kills` kills a hundred."""

from random import Random

import kills
import pytest
from small_runs import nightly


# Recipe, moment and, if there is one, the checkpoint: the last step of an epoch, the second pass of a stream.
TELLING = {
    "epoch": ("epochs", "state of a checkpoint", 20),
    "pass": ("stream", "state of a checkpoint", 30),
    "window": ("packed stream", "state of a checkpoint", 20),
    "stage": ("mixture", "state of a checkpoint", 10),
    "results": ("best averages", "after the last checkpoint", None),
    "writing": ("best", "optimizer of a checkpoint", 20),
    "evaluation": ("sampling", "a log, an evaluation", None),
    "processes": ("two processes", "weights of a checkpoint", 35),
}

# Two processes are killed in tests/training/test_processes.py, files cut off in test_faults_of_checkpoints.py.
AT_EVERY_PUSH = ("evaluation",)


@pytest.fixture(scope="module")
def bench(task, tmp_path_factory) -> kills.Bench:
    return kills.Bench(tmp_path_factory.mktemp("kills") / "bench", task)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("name", [*AT_EVERY_PUSH, *nightly(*(each for each in TELLING if each not in AT_EVERY_PUSH))])
def test_a_killed_run_ends_as_an_unbroken_one(name, bench):
    recipe, moment, step = TELLING[name]
    outcome = bench.trial(recipe, moment, Random(0), step)
    assert not outcome.differences, f"{outcome.moments}, resumed {outcome.resumed}: {outcome.differences}"


def test_a_hundred_kills_come_to_every_recipe_and_moment():
    chosen = kills.plan(list(kills.RECIPES), list(kills.MOMENTS), 100, Random(0))
    assert {recipe for recipe, _ in chosen} == set(kills.RECIPES)
    assert {moment for _, moment in chosen} == set(kills.MOMENTS)
