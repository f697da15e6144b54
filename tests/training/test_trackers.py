# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`report_to`: what a run logs arrives where people look at it."""

import sqlite3

import pytest
from small_runs import run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hf_xformer.commands import train


@pytest.mark.slow
def test_tensorboard_has_the_losses_of_the_run(task, tmp_path):
    options = {"report_to": "tensorboard", "validation_file": task.validation, "eval_strategy": "epoch"}
    train.main(task.options(tmp_path / "run", **options))
    events = max((tmp_path / "run").rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_size)
    logged = EventAccumulator(str(events.parent))
    logged.Reload()
    assert {"train/loss", "eval/loss"} <= set(logged.Tags()["scalars"])
    assert [each.step for each in logged.Scalars("train/loss")] == [2, 4, 6]


@pytest.mark.slow
def test_trackio_has_the_losses_of_the_run(task, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run(task.options(tmp_path / "run", report_to="trackio", project="spelling"))
    (database,) = (tmp_path / "trackio").rglob("spelling*.db")
    with sqlite3.connect(database) as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        rows = [str(row) for table in tables for row in connection.execute(f'select * from "{table}"')]
    assert sum("train/loss" in row for row in rows) >= 3
