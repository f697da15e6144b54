# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A training that has gone wrong stops with a line, and saves nothing that is not finite."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from small_models import make_batch, make_model
from small_runs import refused
from small_waits import NoWaits
from transformers import TrainerControl, TrainerState

from hf_xformer.commands import train
from hf_xformer.training.health import DivergedError, StopIfNotFinite, all_finite


SAVING = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant", "logging_steps": 1}
DIVERGING = {
    "AdamW": {"learning_rate": 1e30},
    "SGD without clipping": {"learning_rate": 1e30, "optim": "sgd", "max_grad_norm": 0},
    "packed, in bfloat16, averaged": {"learning_rate": 1e30, "packing": "true", "bf16": "true", "ema_decay": 0.9},
}


def strict(text: str):
    """JSON without the NaN and Infinity that Python's reader takes."""

    def refuse(token: str):
        raise ValueError(token)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("changes", DIVERGING.values(), ids=DIVERGING)
def test_a_training_that_diverges_stops_with_a_line_and_its_checkpoints_are_finite(changes, task, tmp_path, capsys):
    run = tmp_path / "run"
    line = refused(train, task.options(run, **{**SAVING, "max_steps": 20, **changes}), capsys)
    assert "not finite (learning rate" in line and "step " in line
    assert f"lower --learning_rate (it is {changes['learning_rate']:g})" in line and str(run / "error.log") in line
    assert "Traceback" in (run / "error.log").read_text()
    assert not (run / "model.safetensors").exists()
    checkpoints = sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    assert (f"{checkpoints[-1]} is the last good checkpoint" if checkpoints else "no checkpoint was saved") in line
    for checkpoint in checkpoints:
        for path in checkpoint.glob("*.safetensors"):
            assert all(tensor.isfinite().all() for tensor in load_file(path).values()), path
        strict((checkpoint / "trainer_state.json").read_text())


def test_a_restart_meets_the_same_again_and_says_so(task, tmp_path, capsys):
    options = task.options(tmp_path / "run", **{**SAVING, "max_steps": 20, "learning_rate": 1e30, "optim": "sgd"})
    first, again = refused(train, options, capsys), refused(train, options, capsys)
    assert first == again and "a restart resumes there, and would meet this again" in again


@pytest.mark.slow
def test_a_training_whose_gradients_vanish_is_warned_of(task, tmp_path, capsys):
    """Weights of 1e18 are finite, and norms bring what they compute to zero."""
    changes = {"learning_rate": 1e20, "optim": "sgd", "max_grad_norm": 0, "max_steps": 3}
    train.main(task.options(tmp_path / "run", **{**SAVING, **changes}))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WARNING")]
    assert "the gradient norm at step 2 is 0" in line and "--learning_rate" in line


def hooks(**changes) -> tuple[StopIfNotFinite, dict]:
    """The callback as it is on a GPU, and what a Trainer calls it with after a step."""
    model = make_model()
    model(**make_batch()).loss.backward()
    args = SimpleNamespace(
        **{"fp16": False, "bf16": False, "output_dir": "run", "learning_rate": 1.0, "max_grad_norm": 1.0, **changes}
    )
    state = TrainerState(global_step=3, log_history=[{"loss": math.nan}])
    return StopIfNotFinite(every_step=False), {
        **{"args": args, "state": state, "control": TrainerControl(), "model": model, "optimizer": None}
    }


def test_on_a_gpu_no_step_waits_for_the_device():
    callback, step = hooks()
    with NoWaits():
        callback.on_pre_optimizer_step(**step)
        callback.on_step_end(**step)
        callback.on_epoch_end(**step)


@pytest.mark.parametrize("event", ["should_save", "should_evaluate", "should_training_stop"])
def test_weights_are_looked_at_before_they_are_saved(event, tmp_path):
    callback, step = hooks(output_dir=str(tmp_path))
    setattr(step["control"], event, True)
    callback.on_step_end(**step)
    next(step["model"].parameters()).data.flatten()[3] = torch.inf
    with pytest.raises(DivergedError, match="step 3: the weights are not finite"):
        callback.on_step_end(**step)


@pytest.mark.parametrize("logs", [{"loss": math.nan}, {"loss": 1.0, "grad_norm": math.inf}])
def test_what_is_logged_is_looked_at(logs, tmp_path):
    callback, step = hooks(output_dir=str(tmp_path))
    with pytest.raises(DivergedError, match="is not finite"):
        callback.on_log(logs=logs, **step)
    assert step["state"].log_history == [{"loss": None}]


def test_steps_that_the_loss_scaler_skips_are_normal_until_nothing_is_left_of_its_scale(tmp_path):
    callback, step = hooks(fp16=True, output_dir=str(tmp_path))
    parameter = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    step["optimizer"] = SimpleNamespace(scaler=scaler)
    while scaler.get_scale() >= 1e-4:
        callback.on_log(logs={"loss": math.nan, "grad_norm": math.inf}, **step)
        scaler.scale(parameter * torch.inf).sum().backward()
        scaler.step(optimizer)
        scaler.update()
    assert parameter.item() == 1
    with pytest.raises(DivergedError, match="loss scale has sunk to .* --bf16 in place of --fp16"):
        callback.on_log(logs={"loss": math.nan}, **step)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_among_many_is_found(value):
    tensors = [torch.zeros(3), torch.zeros(0), torch.ones(4, dtype=torch.bfloat16), torch.ones(2, dtype=torch.long)]
    assert all_finite(tensors)
    tensors[2][1] = value
    assert not all_finite(tensors)


def test_infinities_of_both_signs_do_not_cancel_and_halves_may_add_up_to_more_than_they_hold():
    assert all_finite([torch.full((9,), 65504.0, dtype=torch.float16)])
    assert not all_finite([torch.tensor([math.inf, -math.inf])])


def test_no_numbers_are_finite_numbers():
    assert all_finite([torch.zeros(0), torch.ones(2, dtype=torch.long)]) and all_finite([])


def test_an_evaluation_that_is_not_finite_is_said_and_the_files_are_json(task, tmp_path, capsys):
    """Weights of a million are finite, but not in the half precision of the evaluation."""
    run = tmp_path / "run"
    options = {"fp16_full_eval": "true", "validation_file": task.validation, "optim": "sgd", "max_steps": 1}
    train.main(task.options(run, **{**options, "learning_rate": 1e6}))
    assert "eval_loss (nan)" in capsys.readouterr().out
    assert strict((run / "eval_results.json").read_text())["eval_loss"] is None
    for path in run.glob("*.json"):
        strict(path.read_text())
