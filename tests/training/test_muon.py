# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Muon for hidden matrices and AdamW for the rest: as torch's two optimizers alone, resumed to the bit."""

import copy
import json

import pytest
import torch
from small_models import make_batch, make_model
from small_runs import SMALL, refused, run, stop_after, weights
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from hf_xformer.commands import train
from hf_xformer.training.muon import Float32Products, hidden_matrices
from hf_xformer.training.optimizers import set_optimizer


SAVING = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "weight_decay": 0.1}


def trainer_of(model, folder, optim_args=None, multipliers=None) -> Seq2SeqTrainer:
    """The stock Trainer with Muon, as a run makes it."""
    args = Seq2SeqTrainingArguments(folder, use_cpu=True, learning_rate=1e-2, weight_decay=0.1, optim_args=optim_args)
    args.optim = "muon"
    trainer = Seq2SeqTrainer(model=model, args=args)
    set_optimizer(trainer, multipliers)
    return trainer


@pytest.mark.parametrize(
    ("optim_args", "adjust", "beside"),
    [(None, "match_rms_adamw", 1.0), ("adjust_lr_fn=original,momentum=0.9,adamw_lr_multiplier=0.1", "original", 0.1)],
    ids=["one rate", "two rates"],
)
def test_three_steps_are_those_of_torchs_two_optimizers(optim_args, adjust, beside, tmp_path):
    model, batch = make_model(), make_batch()
    plain = copy.deepcopy(model)
    optimizer = trainer_of(model, tmp_path, optim_args).create_optimizer()
    norms = [each for name, each in plain.named_parameters() if each.ndim == 1]
    matrices = [each for name, each in plain.named_parameters() if each.ndim == 2 and "embed" not in name]
    momentum = 0.95 if optim_args is None else 0.9
    muon = torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, momentum=momentum, adjust_lr_fn=adjust)
    rest = [
        {"params": [plain.get_input_embeddings().weight], "weight_decay": 0.1},
        {"params": norms, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(rest, lr=1e-2 * beside, betas=(0.9, 0.999), eps=1e-8, fused=True)
    for _ in range(3):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        plain.zero_grad()
        plain(**batch).loss.backward()
        muon.step()
        adamw.step()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def orthogonalised(gradient):
    """Five Newton-Schulz iterations (Jordan et al. 2024) in double precision."""
    x = gradient.double() / gradient.double().norm()
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (2.0315 * square @ square - 4.775 * square) @ x
    return x


@pytest.mark.parametrize("nesterov", [True, False])
def test_a_slow_processor_orthogonalises_in_float32(nesterov, slow_formats, tmp_path):
    model = make_model()
    optimizer = trainer_of(model, tmp_path, f"nesterov={str(nesterov).lower()}").create_optimizer()
    model(**make_batch()).loss.backward()
    matrices = hidden_matrices(model)
    before = {each: each.detach().clone() for each in matrices}
    optimizer.step()
    for each in matrices:
        expected = -1e-2 * 0.2 * max(each.shape) ** 0.5 * orthogonalised(each.grad)
        moved = (each - before[each] * (1 - 1e-2 * 0.1)).double()
        assert (moved - expected).norm() < 1e-3 * expected.norm()  # in bfloat16 up to a tenth of it
        torch.testing.assert_close(optimizer.state[each]["momentum_buffer"], 0.05 * each.grad)


@pytest.mark.parametrize(
    "convert",
    [lambda x: x.bfloat16(), lambda x: x.to(torch.bfloat16), lambda x: x.to(dtype=torch.bfloat16, copy=True)],
    ids=["bfloat16", "to", "to with names"],
)
def test_bfloat16_is_float32_by_any_method_and_a_copy(convert):
    x = torch.ones(2)
    with Float32Products():
        y = convert(x)
        assert x.to("cpu") is x and x.double().dtype == torch.float64
    assert y.dtype == torch.float32 and y.data_ptr() != x.data_ptr()


def test_a_state_that_is_loaded_is_that_of_both_parts(tmp_path):
    """What Accelerate and the Trainer do: the state is read back, and a schedule writes to the groups."""
    model, batch = make_model(), make_batch()
    optimizer = trainer_of(model, tmp_path).create_optimizer()
    model(**batch).loss.backward()
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    assert len(state["state"]) == len(list(model.parameters()))
    again = trainer_of(model, tmp_path, multipliers={"decoder": 0.5}).create_optimizer()
    assert len(again.param_groups) > len(optimizer.param_groups)
    other = copy.deepcopy(model)
    loaded = trainer_of(other, tmp_path).create_optimizer()
    loaded.load_state_dict(state)
    for each, one in ((optimizer, model), (loaded, other)):
        for group in each.param_groups:
            group["lr"] = 3e-3
        one.zero_grad()
        one(**batch).loss.backward()
        each.step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.slow
def test_a_run_with_muon_resumes_to_the_bit(task, tmp_path):
    dropout = SMALL.replace("dropout=0.0", "dropout=0.1")
    options = {**SAVING, "optim": "muon", "lr_multipliers": "encoder=0.5", "config_overrides": dropout}
    options |= {"gradient_accumulation_steps": 2, "max_grad_norm": 0.5, "lr_scheduler_type": "cosine"}
    train.main(task.options(tmp_path, **options))
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["optimisation"]["optim"] == "muon" and record["optimisation"]["lr_multipliers"] == "encoder 0.5"
    unbroken = weights(tmp_path)
    states = torch.load(tmp_path / "checkpoint-3/optimizer.pt")["state"].values()
    assert {frozenset(each) for each in states} == {
        frozenset(("momentum_buffer",)),
        frozenset(("step", "exp_avg", "exp_avg_sq")),
    }
    stop_after(tmp_path, 3)
    train.main(task.options(tmp_path, **options))
    assert torch.equal(weights(tmp_path), unbroken)


WRONG = {
    "an unknown argument": (
        {"optim_args": "momentun=0.9"},
        "'momentun' is none of its choices; did you mean momentum",
    ),
    "an impossible value": ({"optim_args": "adjust_lr_fn=spectral"}, "spectral is not supported"),
    "a negative rate": ({"optim_args": "adamw_lr_multiplier=-1"}, "adamw_lr_multiplier must be above 0, got -1"),
    "no matrix": ({"freeze": "*_proj"}, "--optim muon: no matrix of a linear layer is trained"),
}


@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG)
def test_what_muon_cannot_do_is_one_line(changes, said, task, tmp_path, capsys):
    assert said in refused(train, task.options(tmp_path / "run", optim="muon", **changes), capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("schedule", ["polynomial", "cosine_with_min_lr"])
def test_a_schedule_ends_at_a_rate_of_its_own(schedule, tmp_path):
    trainer = trainer_of(make_model(), tmp_path, "adamw_lr_multiplier=0.5")
    trainer.args.lr_scheduler_type = schedule
    trainer.args.lr_scheduler_kwargs = {"lr_end" if schedule == "polynomial" else "min_lr": 1e-3}
    trainer.create_optimizer_and_scheduler(num_training_steps=4)
    for _ in range(4):
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    rates = {group["is_muon"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == pytest.approx({True: 1e-3, False: 5e-4})


def test_a_torch_without_muon_is_named(task, tmp_path, capsys, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    line = refused(train, task.options(tmp_path / "run", optim="muon"), capsys)
    assert "--optim muon: torch" in line and "torch 2.9" in line


@pytest.mark.parametrize("kind", ["zero", "FSDP"])
def test_divided_matrices_are_refused(kind, task, tmp_path, capsys, monkeypatch):
    from hf_xformer.training import option_checks

    monkeypatch.setattr(option_checks, "layout", lambda args: kind)
    line = refused(train, task.options(tmp_path / "run", optim="muon", train_file="nowhere.jsonl"), capsys)
    assert f"--optim muon needs whole matrices, which {kind} divides" in line


@pytest.mark.distributed
def test_two_processes_train_by_muon_as_one_does(task, tmp_path):
    """Muon computes in bfloat16, by which a difference in the last bit of a sum may become one of a hundredth."""
    options = {"optim": "muon", "learning_rate": 1e-3, "weight_decay": 0.1}
    for name, rate in (("before", 0.0), ("one", 1e-3)):
        run(task.options(tmp_path / name, **{**options, "learning_rate": rate}, per_device_train_batch_size=16))
    run(task.options(tmp_path / "two", **options, per_device_train_batch_size=8), "cpu-2proc")
    before, one, two = (weights(tmp_path / name) for name in ("before", "one", "two"))
    assert (two - one).abs().max() < 0.02 * (one - before).abs().max()
