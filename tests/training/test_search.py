# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The documents' search for options: trials are runs of the recipe, each from the same start."""

import json
import re

import pytest
import yaml
from small_runs import SMALL, train_results

from hf_xformer.commands import train


@pytest.mark.slow
def test_the_search_of_the_documents_finds_the_best_of_two_runs(task, tmp_path, repository, monkeypatch):
    optuna = pytest.importorskip("optuna")
    page = (repository / "docs/recipes.md").read_text()
    code = re.search(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1].replace("n_trials=20", "n_trials=2")
    evaluating = {"validation_file": task.validation, "eval_strategy": "steps", "eval_steps": 3}
    words = task.options(tmp_path / "unused", save_strategy=None, **evaluating)
    recipe = {name[2:]: yaml.safe_load(value) for name, value in zip(words[::2], words[1::2], strict=True)}
    recipe |= {"optim": "muon", "lr_multipliers": {"encoder": 0.5}}
    recipe |= {"config_overrides": SMALL.replace("dropout=0.0", "dropout=0.1")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path)
    # Two far from one another, in place of two at random.
    monkeypatch.setattr(optuna.Trial, "suggest_int", lambda trial, *args, **kwargs: 2)
    monkeypatch.setattr(optuna.Trial, "suggest_float", lambda trial, *args, **kwargs: (1e-4, 2e-2)[trial.number])
    found: dict = {}
    exec(compile(code, "search.py", "exec"), found)
    losses = []
    for trial, rate in enumerate((1e-4, 2e-2)):
        out = tmp_path / f"trial-{trial}"
        options = ["--output_dir", str(out), "--learning_rate", str(rate), "--warmup_steps", "2"]
        train.main(["recipe.yaml", *options])
        losses.append(json.loads((out / "eval_results.json").read_text())["eval_loss"])
    assert found["best"].objective == min(losses) and losses[0] != losses[1]
    # The counts of a trial are its own.
    assert found["trainer"].state.log_history[-1]["train_samples"] == train_results(out)["train_samples"] == 48
