# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
A table of faults of a checkpoint: each is passed over with one line, refused in one line, or changes no bit.

The judgement is tried on every fault, and some are trained through to the end, to show that the Trainer takes up what
was judged.
"""

import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from small_faults import (
    DAMAGED_RECORDS,
    delete,
    drop_weight,
    edit_json,
    edit_saved,
    edit_tensors,
    empty,
    flip,
    forget,
    halve,
    lacks,
    make_folder,
    of_another_model,
    of_another_optimizer,
    rename_first,
    scramble,
    set_first,
    set_state,
    widen_first,
    write,
)
from small_runs import SMALL, nightly, weights
from transformers import AutoConfig

from hf_xformer.commands import train
from hf_xformer.errors import ArgumentError
from hf_xformer.training import checkpoint_files, file_checks
from hf_xformer.training.checkpoint_files import Needs
from hf_xformer.training.output_folder import set_aside
from hf_xformer.training.resume import check_end, find_start


# With dropout, the end has the same bits only if the random states are restored too.
OPTIONS = {
    "config_overrides": SMALL.replace("dropout=0.0", "dropout=0.2"),
    "save_strategy": "steps",
    "save_steps": 2,
    "ema_decay": 0.5,
}


@dataclass(frozen=True)
class Stopped:
    """A run of six steps as if it had been stopped in its fifth, with checkpoints of the second and the fourth."""

    folder: Path
    end: torch.Tensor
    needs: Needs

    def copy(self, folder: Path) -> Path:
        """Copies the run, and returns its last checkpoint."""
        shutil.copytree(self.folder, folder)
        return folder / "checkpoint-4"


@pytest.fixture(scope="module")
def stopped(task, tmp_path_factory) -> Stopped:
    folder, made = tmp_path_factory.mktemp("stopped") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        make = train.make_trainer
        patch.setattr(train, "make_trainer", lambda run, *args: made.append(run) or make(run, *args))
        train.main(task.options(folder, **OPTIONS))
    end = weights(folder)
    shutil.rmtree(folder / "checkpoint-6")
    for path in folder.glob("*.safetensors"):
        path.unlink()
    return Stopped(folder, end, made[0].needs)


STATE, WEIGHTS, OPTIMIZER = "trainer_state.json", "model.safetensors", "optimizer.pt"
SCHEDULE, RANDOM, AVERAGES = "scheduler.pt", "rng_state.pth", "averages.safetensors"
FILES = (STATE, WEIGHTS, OPTIMIZER, SCHEDULE, RANDOM, AVERAGES, "config.json", "generation_config.json")
# Name of the file, and what is done to it.
PASSED_OVER: dict[str, tuple[str, Callable[[Path], None]]] = {
    f"{name}: {fault.__name__}": (name, fault)
    for name in FILES
    for fault in (delete, empty, halve, scramble, make_folder)
} | {f"{name}: flip": (name, flip) for name in (OPTIMIZER, SCHEDULE, RANDOM)}
CONTENTS: list[tuple[str, str, Callable[[Path], None]]] = [
    *((STATE, text, partial(write, text=text)) for text in ("null", "[]", "{}", "4", '"text"', "{" * 50_000)),
    (STATE, "step as text", partial(edit_json, global_step="4")),
    (STATE, "step NaN", partial(edit_json, global_step=float("nan"))),
    (STATE, "step negative", partial(edit_json, global_step=-4)),
    (STATE, "step true", partial(edit_json, global_step=True)),
    (STATE, "step of another folder", partial(edit_json, global_step=2)),
    (STATE, "epoch null", partial(edit_json, epoch=None)),
    (STATE, "epoch infinite", partial(edit_json, epoch=float("inf"))),
    (STATE, "log null", partial(edit_json, log_history=None)),
    (STATE, "log of numbers", partial(edit_json, log_history=[1, 2])),
    (STATE, "save_steps 0", partial(edit_json, save_steps=0)),
    (STATE, "best a list", partial(edit_json, best_model_checkpoint=["checkpoint-2"])),
    (STATE, "callbacks null", partial(edit_json, stateful_callbacks=None)),
    *((STATE, kind, partial(edit_json, stateful_callbacks=record)) for kind, record in DAMAGED_RECORDS.items()),
    *(
        (name, kind, partial(edit_tensors, edit=edit))
        for name in (WEIGHTS, AVERAGES)
        for kind, edit in (
            ("NaN", partial(set_first, float("nan"))),
            ("infinity", partial(set_first, float("-inf"))),
            ("another name", rename_first),
            ("another shape", widen_first),
            ("no tensors", dict.clear),
        )
    ),
    (WEIGHTS, "another number", partial(edit_tensors, edit=partial(set_first, 0.5))),
    (WEIGHTS, "another step", lambda path: shutil.copy(path.parent.parent / "checkpoint-2" / WEIGHTS, path)),
    (OPTIMIZER, "NaN", partial(edit_saved, edit=partial(set_state, "exp_avg", float("nan")))),
    (OPTIMIZER, "infinity", partial(edit_saved, edit=partial(set_state, "exp_avg_sq", float("inf")))),
    (OPTIMIZER, "another model", partial(edit_saved, edit=of_another_model)),
    (OPTIMIZER, "another optimizer", partial(edit_saved, edit=of_another_optimizer)),
    (OPTIMIZER, "a weight fewer", partial(edit_saved, edit=drop_weight)),
    (OPTIMIZER, "no state", partial(edit_saved, edit=partial(forget, "state"))),
    (OPTIMIZER, "a tensor", lambda path: torch.save(torch.ones(3), path)),
    (SCHEDULE, "empty mapping", lambda path: torch.save({}, path)),
    (SCHEDULE, "a pickle", lambda path: torch.save({"last_epoch": Namespace()}, path)),
    (RANDOM, "no generator", partial(edit_saved, edit=partial(forget, "cpu"))),
    (RANDOM, "another state", partial(edit_saved, edit=lambda content: content.update(cpu=torch.zeros(3)))),
    ("config.json", "{}", partial(write, text="{}")),
    ("config.json", "another type", partial(edit_json, model_type="unheard")),
    ("config.json", "impossible", partial(edit_json, d_model=-16)),
    ("generation_config.json", "[]", partial(write, text="[]")),
]
PASSED_OVER |= {f"{name}: {kind[:20]}": (name, fault) for name, kind, fault in CONTENTS}


def begin(folder: Path, needs: Needs, resume: str | None = None) -> tuple[Path | None, list[str]]:
    """The checkpoint that a run would go on from, and what it says."""
    said: list[str] = []
    start = find_start(folder, resume, needs, said.append)
    return start.state and start.state.checkpoint, said


@pytest.mark.parametrize(("name", "fault"), PASSED_OVER.values(), ids=PASSED_OVER)
def test_a_checkpoint_with_a_fault_is_passed_over_or_refused_by_name_in_one_line(name, fault, stopped, tmp_path):
    checkpoint = stopped.copy(tmp_path / "run")
    fault(checkpoint / name)
    found, said = begin(tmp_path / "run", stopped.needs)
    assert found == tmp_path / "run/checkpoint-2"
    passed, resuming = said
    assert passed.startswith(f"passing over {checkpoint}: {name}") and "\n" not in passed
    assert resuming.startswith(f"resuming from {found}")
    with pytest.raises(ArgumentError) as error:
        begin(tmp_path / "run", stopped.needs, str(checkpoint))
    line = str(error.value)
    assert line.startswith(f"--resume_from_checkpoint {checkpoint}: {name}") and "leave the option out" in line
    assert "\n" not in line and len(line) < 400


IN_THE_WAY: dict[str, Callable[[Path], None]] = {
    "a file": lambda path: path.write_text("x"),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "an empty folder": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("make", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_what_is_named_like_a_checkpoint_and_is_none_is_passed_over_and_moved(make, stopped, tmp_path):
    checkpoint = stopped.copy(tmp_path / "run")
    make(tmp_path / "run/checkpoint-6")
    said: list[str] = []
    start = find_start(tmp_path / "run", None, stopped.needs, said.append)
    assert start.state.checkpoint == checkpoint and start.superseded == (tmp_path / "run/checkpoint-6",)
    assert said[0].startswith(f"passing over {tmp_path}/run/checkpoint-6: trainer_state.json: ") and len(said) == 2
    set_aside(tmp_path / "run", start.superseded, said.append)
    assert [path.name for path in (tmp_path / "run/previous-1").iterdir()] == ["checkpoint-6"]
    assert not (tmp_path / "run/checkpoint-6").is_symlink() and not (tmp_path / "run/checkpoint-6").exists()


def unfit(checkpoint: Path) -> None:
    edit_tensors(checkpoint / WEIGHTS, widen_first)


NONE_WHOLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "unfit": (unfit, WEIGHTS),
    "weights cut off": (lambda checkpoint: halve(checkpoint / WEIGHTS), WEIGHTS),
    "optimizer cut off": (lambda checkpoint: halve(checkpoint / OPTIMIZER), OPTIMIZER),
    "random state gone": (lambda checkpoint: delete(checkpoint / RANDOM), RANDOM),
    "state of another step": (lambda checkpoint: edit_json(checkpoint / STATE, global_step=99), STATE),
    "state never written": (lambda checkpoint: delete(checkpoint / STATE), ""),
    "state cut off": (lambda checkpoint: halve(checkpoint / STATE), ""),
    "averages never written": (lambda checkpoint: delete(checkpoint / AVERAGES), ""),
    **{f"{name} never written": (partial(lacks, name), "") for name in ("target_tokenizer", "generation.json")},
}


@pytest.mark.parametrize(("fault", "named"), NONE_WHOLE.values(), ids=NONE_WHOLE)
def test_where_no_checkpoint_is_whole_a_run_starts_anew_only_if_none_was_ever_finished(
    fault, named, stopped, tmp_path
):
    """What is damaged after it was written is no accident of a kill: nobody's training is thrown away."""
    stopped.copy(tmp_path / "run")
    checkpoints = [tmp_path / f"run/checkpoint-{step}" for step in (4, 2)]
    for checkpoint in checkpoints:
        fault(checkpoint)
    said: list[str] = []
    if named:
        with pytest.raises(ArgumentError, match=f"checkpoint-4: {named}: .*_checkpoint false starts anew"):
            find_start(tmp_path / "run", None, stopped.needs, said.append)
        return
    assert find_start(tmp_path / "run", None, stopped.needs, said.append).superseded == tuple(checkpoints)
    assert len(said) == 3 and said[-1] == f"no checkpoint in {tmp_path}/run was finished: the run starts anew"


def test_one_finished_checkpoint_among_unfinished_ones_is_enough_to_refuse(stopped, tmp_path):
    delete(stopped.copy(tmp_path / "run") / STATE)
    halve(tmp_path / "run/checkpoint-2" / OPTIMIZER)
    with pytest.raises(ArgumentError, match="checkpoint-2: optimizer.pt: .*_checkpoint false starts anew"):
        find_start(tmp_path / "run", None, stopped.needs, print)


@pytest.mark.parametrize("kind", [KeyError, ImportError, MemoryError, RuntimeError])
def test_an_error_that_is_none_of_the_files_keeps_its_traceback(kind, stopped, tmp_path, monkeypatch):
    """Such as a bug of ours, or memory that is not there: no checkpoint is judged by it."""
    stopped.copy(tmp_path / "run")

    def fail(*args, **options):
        raise kind("of ours")

    monkeypatch.setattr(checkpoint_files, "compare_model", fail)
    with pytest.raises(kind, match="of ours"):
        find_start(tmp_path / "run", None, stopped.needs, print)


def test_machines_that_do_not_share_their_folder_are_refused_and_not_started_anew(stopped, monkeypatch):
    """A second process, on another machine, sees the names and none of the files."""
    monkeypatch.setattr(file_checks, "gather_object", lambda seen: [*seen, False])
    with pytest.raises(ArgumentError, match="trainer_state.json: 1 of 2 processes see it.* --save_on_each_node"):
        find_start(stopped.folder, None, stopped.needs, print)
    # Where they go on from elsewhere, the best one may still be on the first machine alone.
    with pytest.raises(ArgumentError, match="ends with its best .* 1 of 2 processes see it.* --save_on_each_node"):
        check_end(stopped.folder / "checkpoint-2", stopped.needs)


WISHES = {
    "averages": ({"averages": False}, "it was written with --ema_decay: it cannot go on without it"),
    "loss scale": ({"scales_loss": True}, "scaler.pt: it was saved without the loss scaled for fp16"),
}


@pytest.mark.parametrize(("changes", "said"), WISHES.values(), ids=WISHES)
def test_a_run_that_needs_other_files_is_refused(changes, said, stopped):
    with pytest.raises(ArgumentError, match=said):
        find_start(stopped.folder, None, replace(stopped.needs, **changes), print)


def test_a_file_that_cannot_be_opened_is_passed_over_and_never_starts_a_run_anew(stopped, tmp_path, monkeypatch):
    """Root, whom tests may run as, opens everything: the error is raised where a file is opened."""
    stopped.copy(tmp_path / "run")
    opened = Path.open

    def refuse(self, *args, **options):
        if self.name == OPTIMIZER:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        ArgumentError, match="checkpoint-4: optimizer.pt: cannot be read: Permission denied; no other checkpoint"
    ):
        find_start(tmp_path / "run", None, stopped.needs, print)


OWN_CLASS = """from transformers import T5Config, T5ForConditionalGeneration

class OwnConfig(T5Config):
    model_type = "own"

class OwnModel(T5ForConditionalGeneration):
    config_class = OwnConfig
"""


def test_a_class_of_ones_own_is_built_without_memory_if_its_code_may_run(stopped, tmp_path):
    (tmp_path / "own.py").write_text(OWN_CLASS)
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForSeq2SeqLM": "own.OwnModel"}
    sizes = {"vocab_size": 9, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": names, **sizes}))
    config = AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)
    needs = replace(stopped.needs, config=config, trusted=True)
    assert type(needs.model).__name__ == "OwnModel" and {each.device.type for each in needs.model.parameters()} == {
        "meta"
    }
    with pytest.raises(ArgumentError, match="no sequence-to-sequence model of type 'own'"):
        replace(needs, trusted=False).model  # noqa: B018 - the property raises


def test_weights_that_a_base_holds_apart_against_its_configuration_are_this_runs(stopped, tmp_path):
    """Its optimizer and its averages have one tensor more than the model that the configuration describes."""
    checkpoint = stopped.copy(tmp_path / "run")
    (name, weight), *_ = stopped.needs.untied.items()
    edit_tensors(checkpoint / AVERAGES, lambda tensors: tensors.update({name: torch.zeros(weight.shape)}))

    def add(content: dict) -> None:
        group = content["param_groups"][0]
        group["params"].append(number := sum(len(each["params"]) for each in content["param_groups"]))
        zeros = {kind: torch.zeros(weight.shape) for kind in ("exp_avg", "exp_avg_sq")}
        content["state"][number] = {"step": torch.tensor(4.0), **zeros}

    edit_saved(checkpoint / OPTIMIZER, edit=add)
    assert begin(tmp_path / "run", stopped.needs)[0] == checkpoint
    edit_saved(checkpoint / OPTIMIZER, edit=lambda content: [add(content) for _ in stopped.needs.untied])
    assert begin(tmp_path / "run", stopped.needs)[0] != checkpoint


def test_a_model_that_cannot_generate_needs_no_file_for_that(stopped, tmp_path, monkeypatch):
    checkpoint = stopped.copy(tmp_path / "run")
    delete(checkpoint / "generation_config.json")
    needs = replace(stopped.needs)  # whose model is built anew
    monkeypatch.setattr(type(needs.model), "can_generate", staticmethod(lambda: False))
    assert begin(tmp_path / "run", needs)[0] == checkpoint


TRAINED = {
    "schedule gone": (SCHEDULE, delete),
    "random state gone": (RANDOM, delete),
    "averages cut off": (AVERAGES, halve),
    "weights NaN": (WEIGHTS, partial(edit_tensors, edit=partial(set_first, float("nan")))),
    "optimizer of another model": (OPTIMIZER, partial(edit_saved, edit=of_another_model)),
    "state null": (STATE, partial(write, text="null")),
}
TOLD = ("schedule gone", "weights NaN", "state null")  # at every push; the others are passed over by the tests above


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*TOLD, *nightly(*sorted(set(TRAINED) - set(TOLD)))])
def test_a_run_whose_checkpoint_was_passed_over_ends_with_the_same_bits(kind, stopped, task, tmp_path, capfd):
    checkpoint, (name, fault) = stopped.copy(tmp_path / "run"), TRAINED[kind]
    fault(checkpoint / name)
    train.main(task.options(tmp_path / "run", **OPTIONS))
    assert torch.equal(weights(tmp_path / "run"), stopped.end)
    output = "".join(capfd.readouterr())
    assert [line for line in output.splitlines() if line.startswith("passing over")][0].count(name) == 1
    assert output.count("passing over") == output.count("moved checkpoint-4 to") == 1
    assert "Traceback" not in output and "missing keys" not in output
    assert [path.name for path in (tmp_path / "run/previous-1").iterdir()] == ["checkpoint-4"]


@pytest.mark.slow
def test_what_a_run_does_not_go_on_from_may_be_damaged_without_a_word(stopped, task, tmp_path, capfd):
    """The run has tokenizer and code from elsewhere, and does not read folders of another name."""
    checkpoint = stopped.copy(tmp_path / "run")
    for name in ("tokenizer.json", "training_args.bin", "modeling_xformer.py"):
        delete(checkpoint / name)
    scramble(checkpoint / "tokenizer_config.json")
    (tmp_path / "run/checkpoint-abc").mkdir()
    (checkpoint / "notes.txt").write_text("mine")
    train.main(task.options(tmp_path / "run", **OPTIONS))
    assert torch.equal(weights(tmp_path / "run"), stopped.end)
    output = "".join(capfd.readouterr())
    assert (
        f"resuming from {checkpoint}" in output and "passing over" not in output and "moved checkpoint" not in output
    )


RECORDS = {"run.json": "", "all_results.json": '{"a": ', "train_results.json": "[]", "eval_results.json": "null"}


def test_records_that_cannot_be_read_are_said_and_replaced(stopped, task, tmp_path, capfd):
    stopped.copy(tmp_path / "run")
    for name, text in RECORDS.items():
        (tmp_path / "run" / name).write_text(text)
    (tmp_path / "run/test_results.json").mkdir()
    options = task.options(tmp_path / "run", validation_file=task.validation, **OPTIONS)
    train.main(options)
    output = "".join(capfd.readouterr())
    for name in (*RECORDS, "test_results.json"):
        (line,) = [line for line in output.splitlines() if line.startswith(f"{tmp_path}/run/{name}: ")]
        assert line.endswith(f"moved to {tmp_path}/run/previous-1, and a new one will be written")
        assert name == "test_results.json" or json.loads((tmp_path / "run" / name).read_text())
    assert (tmp_path / "run/previous-1/all_results.json").read_text() == '{"a": '
    assert torch.equal(weights(tmp_path / "run"), stopped.end)
    # And where the run has ended, its record is made again.
    empty(tmp_path / "run/run.json")
    train.main(options)
    assert json.loads((tmp_path / "run/run.json").read_text())["steps"] == 6


def divide(checkpoint: Path, layout: str, folder: str, files: tuple[str, ...]) -> None:
    """Makes of one process's checkpoint what two processes write that divide the optimizer."""
    (checkpoint / RANDOM).rename(checkpoint / "rng_state_0.pth")
    shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
    (checkpoint / OPTIMIZER).unlink()
    state = json.loads((checkpoint / STATE).read_text())
    state["stateful_callbacks"]["LayoutRecord"]["args"] |= {"layout": layout, "processes": 2, "writers": 2}
    (checkpoint / STATE).write_text(json.dumps(state))
    if not files:
        dcp.save({"optimizer": {"exp_avg": torch.ones(99)}}, checkpoint_id=checkpoint / folder)
    elif folder:
        (checkpoint / "latest").write_text(folder)
        (checkpoint / folder).mkdir()
    for name in files:
        torch.save({"weights": torch.ones(99)}, checkpoint / folder / name)


ZERO3 = tuple(f"zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt" for kind in ("model", "optim") for rank in (0, 1))
ZERO2 = ("mp_rank_00_model_states.pt", *(f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1)))
LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "DeepSpeed ZeRO-3": ("global_step4", ZERO3),
    "DeepSpeed ZeRO-1 or ZeRO-2": ("global_step4", ZERO2),
    "FSDP": ("", ("pytorch_model_fsdp.bin", "optimizer.bin")),
    "tensor parallelism": ("optimizer_shards", ()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_of_two_processes_lacks_no_part_of_either(layout, stopped, tmp_path):
    folder, files = LAYOUTS[layout]
    zero = layout.startswith("DeepSpeed")
    needs = replace(stopped.needs, layout=layout, processes=2, zero=zero)
    divide(stopped.copy(tmp_path / "whole"), layout, folder, files)
    assert begin(tmp_path / "whole", needs)[0] == tmp_path / "whole/checkpoint-4"
    parts = [str(Path(folder, name)) for name in files or (".metadata", "__0_0.distcp")] + [
        "rng_state_1.pth",
        SCHEDULE,
    ]
    for number, name in enumerate([*parts, *(["latest"] if zero else [])]):
        for fault in (delete, halve, empty):
            checkpoint = tmp_path / f"{number}-{fault.__name__}/checkpoint-4"
            shutil.copytree(tmp_path / "whole/checkpoint-4", checkpoint)
            fault(checkpoint / name)
            said: list[str] = []
            with suppress(ArgumentError):
                assert find_start(checkpoint.parent, None, needs, said.append).state is None
            assert said[0].startswith(f"passing over {checkpoint}: ")
            file = said[0].partition("/checkpoint-4: ")[2].partition(": ")[0]  # or a pattern for all of its kind
            assert fnmatch(name, file) or Path(name).name == file
