# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Judges a checkpoint file by file: each that a run goes on from is there, whole, finite and of its own model."""

from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils.constants import FSDP_MODEL_NAME
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..checkpoints.averaging import trained
from ..checkpoints.weight_files import compare_model, is_sharded, model_class, read_header, read_index, read_tensors
from ..files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    AVERAGES,
    CONFIG,
    GENERATION_CONFIG,
    OPTIMIZER_SHARDS,
    read_json,
)
from .adapter_checks import compare_adapters, whole_checks
from .adapters import without_memory
from .arguments import ModelArguments
from .file_checks import (
    CONTENT,
    NotWholeError,
    UnfinishedError,
    UnfitError,
    check_numbers,
    check_random_state,
    check_schedule,
    check_shards,
    check_tensors,
    check_zip,
    damage_named,
    differences,
    load,
    seen_by_all,
    some_of,
)
from .launch import TENSOR_PARALLEL, layout, precision, process_count
from .muon import MUON
from .optimizers import optimizer_name
from .parts import freeze


if TYPE_CHECKING:  # PEFT is an extra
    from peft import PeftConfig


# Optimizers that keep tensors of the weights' own shapes, under these names; others project, quantise or divide them.
PLAIN_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", MUON)
FULL_SIZE = ("exp_avg", "exp_avg_sq", "momentum_buffer", "sum", "square_avg")


@dataclass(frozen=True)
class Needs:
    """
    What a run needs of the checkpoint that it goes on from.

    Args:
        config, adapter: Of the model and of its adapters.
        trusted: Whether code that comes with the model may run.
        layout, processes: How the run divides weights and optimizer, and among how many processes.
        averages: Whether it averages its weights.
        scales_loss: Whether it has a GradScaler, as PyTorch's training in float16 does.
        optim: Its optimizer, as `--optim` has it.
        freeze: Parts of the model that it does not train.
        own_scheduler: Whether the Trainer saves the schedule, and not DeepSpeed.
        zero: Whether DeepSpeed divides the optimizer.
        apart: Whether each machine saves into a folder of its own.
    """

    config: PreTrainedConfig
    adapter: "PeftConfig | None"
    trusted: bool
    layout: str
    processes: int
    averages: bool
    scales_loss: bool
    optim: str
    freeze: tuple[str, ...]
    own_scheduler: bool
    zero: bool
    apart: bool

    @classmethod
    def of(
        cls,
        config: PreTrainedConfig,
        adapter: "PeftConfig | None",
        model_args: ModelArguments,
        training_args: TrainingArguments,
    ) -> "Needs":
        """Returns the needs of a run with these options."""
        plugin: Any = training_args.deepspeed_plugin
        return cls(
            config=config,
            adapter=adapter,
            trusted=model_args.trust_remote_code,
            layout=layout(training_args),
            processes=training_args.world_size,
            averages=model_args.ema_decay is not None,
            scales_loss=precision(training_args) == "fp16" and plugin is None,
            optim=optimizer_name(training_args),
            freeze=tuple(model_args.freeze or ()),
            own_scheduler=plugin is None or "scheduler" not in plugin.deepspeed_config,
            zero=plugin is not None and plugin.zero_stage > 0,
            apart=training_args.save_on_each_node,
        )

    @cached_property
    def model(self) -> Any:
        """The run's model, with its adapters, whose weights take no memory."""
        if self.adapter is not None:
            adapter: Any = deepcopy(self.adapter)
            if adapter.peft_type.value == "ADALORA":
                adapter.rank_pattern = None  # what this run has found so far, which needs memory
            return without_memory(deepcopy(self.config), adapter, self.trusted)
        kind = model_class(self.config, self.trusted)
        with torch.device("meta"):
            model = kind(deepcopy(self.config))
        freeze(model, self.freeze)
        return model

    @cached_property
    def untied(self) -> dict[str, torch.Tensor]:
        """
        Other names of trained weights that are tied.

        A base whose files hold such weights apart, against its configuration, is trained with them apart.
        """
        own, weights = trained(self.model), self.model.named_parameters(remove_duplicate=False)
        return {name: each for name, each in weights if each.requires_grad and name not in own}


def check_files(checkpoint: Path, record: dict, needs: Needs) -> None:
    """
    Checks the files that a run goes on from, each process its share of them.

    Everything is read once, as it is again when the run takes it up: half of a second for each gigabyte, against hours
    of training from what a disk has damaged. Nothing is copied, and of weights one tensor at a time is in memory.

    Raises:
        NotWholeError: A file is missing, cut off or damaged.
        UnfitError: A file has not this run's tensors, or ones that are not finite.
    """
    kept = ("optimizer*", "global_step*", SCHEDULER_NAME, "rng_state*")
    if not any(any(checkpoint.glob(pattern)) for pattern in kept):
        raise UnfitError("it holds weights alone, as --save_only_model saves them: no run can go on from it")
    divided = record.get("layout") or needs.layout
    run_share(
        [*checks_of_weights(checkpoint, record, needs), *checks_of_state(checkpoint, divided, record, needs)], needs
    )


def check_best(checkpoint: Path, needs: Needs) -> None:
    """Checks the files that a run ends with whose best checkpoint this is; raises as `check_files` does."""
    if not seen_by_all(checkpoint.name, checkpoint.is_dir(), needs.apart):
        raise NotWholeError("it is gone")
    checks = list(checks_of_weights(checkpoint, {"averages": needs.averages}, needs))
    if needs.layout.startswith("DeepSpeed"):
        checks += [partial(check_zip, path) for path in deepspeed_files(checkpoint, {}, needs)]
    run_share(checks, needs)


def run_share(checks: list[Callable[[], None]], needs: Needs) -> None:
    """Runs this process's share of the checks."""
    state = PartialState()
    index, count = state.process_index, state.num_processes
    if needs.apart:
        index, count = state.local_process_index, process_count("LOCAL_WORLD_SIZE")
    for check in checks[index::count]:
        check()


def checks_of_weights(checkpoint: Path, record: dict, needs: Needs) -> Iterator[Callable[[], None]]:
    """Yields a check for each file of the model and of its averages; raises for those that are not there."""
    divided = record.get("layout") or needs.layout
    for name in record.get("beside", [AVERAGES] if record.get("averages") else []):
        # Written last, so that a kill may have come before.
        if not (checkpoint / name).exists():
            raise UnfinishedError(f"{name}: missing")
    if not has_shards(checkpoint, divided):
        yield partial(check_descriptions, checkpoint, needs)
        yield from weight_checks(checkpoint, divided, record.get("sums", {}), needs)
    if needs.adapter is not None:
        yield from whole_checks(checkpoint, needs.adapter, needs.model)
    yield from average_checks(checkpoint, needs)


def has_shards(checkpoint: Path, divided: str) -> bool:
    """Returns whether FSDP has written the model in parts (SHARDED_STATE_DICT), and nothing else of it."""
    return divided == "FSDP" and (checkpoint / f"{FSDP_MODEL_NAME}_0").is_dir()


def checks_of_state(checkpoint: Path, divided: str, record: dict, needs: Needs) -> Iterator[Callable[[], None]]:
    """Yields a check for each file of optimizer, schedule and random states; raises for those that are not there."""
    for path in random_states(checkpoint, record):
        yield partial(check_random_state, path)
    if needs.own_scheduler or not divided.startswith("DeepSpeed"):
        yield partial(check_schedule, checkpoint / SCHEDULER_NAME)
    if needs.scales_loss != (checkpoint / SCALER_NAME).exists():
        was, now = ("without", "with") if needs.scales_loss else ("with", "without")
        raise UnfitError(f"{SCALER_NAME}: it was saved {was} the loss scaled for fp16, this run is {now}")
    if needs.scales_loss:
        yield partial(check_zip, checkpoint / SCALER_NAME)
    if divided.startswith("DeepSpeed"):
        yield from (partial(check_zip, path) for path in deepspeed_files(checkpoint, record, needs))
    elif has_shards(checkpoint, divided):
        yield from (partial(check_shards, checkpoint / f"{name}_0") for name in (FSDP_MODEL_NAME, "optimizer"))
    elif divided == "FSDP":
        for name in (FSDP_MODEL_NAME, "optimizer"):
            yield from (partial(check_zip, path) for path in some(checkpoint, f"{name}*.bin", 1))
    elif divided == TENSOR_PARALLEL:
        yield partial(check_shards, checkpoint / OPTIMIZER_SHARDS)
    else:
        yield partial(check_optimizer, checkpoint / OPTIMIZER_NAME, needs)


def some(checkpoint: Path, pattern: str, count: int) -> list[Path]:
    """Returns the files that a pattern matches, which have to be `count` at least."""
    found = sorted(checkpoint.glob(pattern))
    if len(found) < count:
        raise NotWholeError(f"{pattern}: {len(found)} of the {count} files that were to be written")
    return found


def check_descriptions(checkpoint: Path, needs: Needs) -> None:
    """Checks the JSON files beside the weights, which are read when the run resumes or ends."""
    name = CONFIG if needs.adapter is None else ADAPTER_CONFIG
    decodes = needs.adapter is not None or needs.model.can_generate()  # else the library writes no such file
    for path in (checkpoint / name, *([checkpoint / GENERATION_CONFIG] if decodes else [])):
        with damage_named(path):
            if not path.is_file():
                raise IsADirectoryError if path.is_dir() else FileNotFoundError
            content = read_json(path)
            if not content:
                raise NotWholeError(f"{path.name}: holds nothing")
            if path.name == CONFIG:
                check_config(path, content, needs.config)


def check_config(path: Path, content: dict, config: PreTrainedConfig) -> None:
    """Checks that a configuration is one of the run's kind of model; code of another kind is not run."""
    if content.get("model_type") != config.model_type:
        raise UnfitError(f"{path.name}: of a {content.get('model_type')!r}, this run trains a {config.model_type!r}")
    with damage_named(path, StrictDataclassError, *CONTENT):
        type(config).from_dict(content)


def weight_checks(checkpoint: Path, divided: str, sums: dict[str, int], needs: Needs) -> Iterator[Callable[[], None]]:
    """
    Yields checks of the weight files, having compared their tensors' names and shapes with the run's model.

    Args:
        divided: How weights are divided. Under ZeRO-3 they may be in DeepSpeed's files alone.
        sums: Of the files as they were saved, as far as they are known.
    """
    single, model = checkpoint / (SAFE_WEIGHTS_NAME if needs.adapter is None else ADAPTER_WEIGHTS), needs.model
    with damage_named(single):
        if single.is_dir():
            raise IsADirectoryError
        if needs.adapter is not None:
            stored, paths = read_header(single), [single]
            problems = compare_adapters(model, {name: each.shape for name, each in stored.items()}, needs.adapter)
        else:
            stored = read_tensors(checkpoint)
            problems = list(compare_model(model, stored).sentences()) if stored and divided != "FSDP" else []
            paths = [single]
            if is_sharded(checkpoint):
                paths = [
                    checkpoint / name
                    for name in sorted(set(read_index(checkpoint / SAFE_WEIGHTS_INDEX_NAME).values()))
                ]
        if not stored and (divided != "DeepSpeed ZeRO-3" or single.exists()):
            raise NotWholeError(f"{single.name}: {'holds no tensors' if single.exists() else 'missing'}")
    if problems:
        raise UnfitError(f"{single.name}: not the weights of this run's model: {some_of(problems)}")
    yield from (partial(check_tensors, path, sums.get(path.name)) for path in paths if stored)


def average_checks(checkpoint: Path, needs: Needs) -> Iterator[Callable[[], None]]:
    """Yields the check of the averaged weights, having seen that they are there if, and only if, the run has them."""
    path = checkpoint / AVERAGES
    if needs.averages != path.exists():
        was, now = ("without", "with") if needs.averages else ("with", "without")
        raise UnfitError(f"it was written {was} --ema_decay: it cannot go on {now} it")
    if needs.averages:
        with damage_named(path):
            if path.is_dir():
                raise IsADirectoryError
            stored = {name: each.shape for name, each in read_header(path).items()}
        weights = trained(needs.model) | {name: each for name, each in needs.untied.items() if name in stored}
        if problems := differences({name: tuple(each.shape) for name, each in weights.items()}, stored):
            raise UnfitError(f"{path.name}: not the averages of this run's model: {some_of(problems)}")
        yield partial(check_tensors, path)


def random_states(checkpoint: Path, record: dict) -> list[Path]:
    """Returns the files with the random states, of which each process writes its own: the Trainer waits for none."""
    processes, writers = record.get("processes", 0), record.get("writers", 0)
    if processes == writers == 1:
        return [checkpoint / "rng_state.pth"]
    if processes == writers > 1:
        found = [checkpoint / f"rng_state_{rank}.pth" for rank in range(processes)]
        for path in found[1:]:
            if not path.exists():
                raise UnfinishedError(f"{path.name}: missing")
        return found
    return some(checkpoint, "rng_state*.pth", max(writers, 1))


def check_optimizer(path: Path, needs: Needs) -> None:
    """Checks that an optimizer's state is finite and of the weights that the run trains."""
    content = load(path, mmap=True)
    with damage_named(path, *CONTENT):
        count = sum(len(group["params"]) for group in content["param_groups"])
        states = list(content["state"].values())
        tensors = [(name, each) for state in states for name, each in state.items() if isinstance(each, torch.Tensor)]
    for name, each in tensors:
        check_numbers(path, name, each)
    if needs.optim not in PLAIN_OPTIMIZERS:
        return
    shapes = Counter(tuple(each.shape) for each in trained(needs.model).values())
    if not shapes.total() <= count <= shapes.total() + len(needs.untied):
        raise UnfitError(f"{path.name}: of {count} tensors, this run trains {shapes.total()}: another --freeze?")
    shapes += Counter(tuple(each.shape) for each in needs.untied.values())
    for kind in FULL_SIZE:
        if other := Counter(tuple(each.shape) for name, each in tensors if name == kind) - shapes:
            raise UnfitError(
                f"{path.name}: not of this run's model: `{kind}` of shape {list(min(other))}, which no weight has"
            )
    if needs.optim.startswith("adamw") and not all("exp_avg" in each and "exp_avg_sq" in each for each in states):
        raise UnfitError(f"{path.name}: not of the optimizer {needs.optim}, which has `exp_avg` and `exp_avg_sq`")


def deepspeed_files(checkpoint: Path, record: dict, needs: Needs) -> list[Path]:
    """Returns DeepSpeed's files in the folder that `latest` names: weights, and each process's part of the rest."""
    latest, processes = checkpoint / "latest", record.get("writers", 0) or needs.processes
    with damage_named(latest):
        tag = latest.read_text(encoding="utf-8").strip()
    if not tag.startswith("global_step") or not (checkpoint / tag).is_dir():
        raise NotWholeError(f"{latest.name}: names {tag!r:.40}, and there is no such folder")
    has_parts = (record.get("layout") or needs.layout) == "DeepSpeed ZeRO-3"
    found = some(checkpoint, f"{tag}/*model_states.pt", processes if has_parts else 1)
    return found + some(checkpoint, f"{tag}/*zero_pp_rank_*_optim_states.pt", processes if needs.zero else 0)
