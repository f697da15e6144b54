# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Estimates of what a training will take: parameters, arithmetic, memory of each process.

Parameters, activations and arithmetic are counted on the model itself, run on tensors that have a shape and no memory;
what weights, gradients and optimizer take follows from how a launch configuration divides them (Rajbhandari et al.
2020, section 3).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig

from ..errors import ArgumentError
from ..files import read_json
from ..yaml_files import read_yaml_file


# DeepSpeed's own limit of parameters that ZeRO-3 keeps gathered (`stage3_max_live_parameters`).
ZERO3_LIVE_PARAMETERS = 10**9


@dataclass(frozen=True)
class Batch:
    """Batch of one process: rows, and tokens of each side of a row."""

    rows: int
    source: int
    target: int


@dataclass(frozen=True)
class Launch:
    """Division of memory among processes, as a file of configs/accelerate has it."""

    name: str
    kind: str  # "single", "ddp", "zero", "fsdp" or "tensor"
    processes: int
    half: bool  # matrix products in 16 bits
    stage: int = 0  # of ZeRO
    offloads: bool = False  # the shares lie in main memory
    buckets: int | None = None  # elements in which ZeRO sums gradients; None: the square of the model's width

    @property
    def arithmetic(self) -> str:
        """Either "float32", "bfloat16" (of weights too), or "autocast", which keeps a bfloat16 copy of weights."""
        if not self.half:
            return "float32"
        return "bfloat16" if self.kind in ("zero", "fsdp") else "autocast"


@dataclass(frozen=True)
class Memory:
    """Bytes of one process on its device, at the highest, and in main memory where it keeps something there."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    host: float = 0.0

    @property
    def total(self) -> float:
        """
        Bytes on the device at the highest.

        Activations are freed while the gradients come, so that the larger of the two counts. With gradient
        accumulation both are there at once.
        """
        return self.weights + self.optimizer + max(self.activations, self.gradients)


@dataclass(frozen=True)
class Counted:
    """A model's parameters, and the arithmetic and activations of one step of one process."""

    parameters: int
    largest_layer: int  # parameters of the largest of its layers
    embedding: int  # parameters of the output layer, which is the embedding where they are tied
    width: int
    flops: float  # forward and backward, without recomputation
    activations: float  # bytes at the highest, everything kept for the backward pass
    checkpointed: float  # the same where only the layers' inputs are kept
    logits: float  # bytes of those and of their gradient, where the output layer is divided and computes them all


def read_launch(path: Path, processes: int | None = None, half: bool | None = None) -> Launch:
    """
    Reads how a launch configuration divides memory.

    Args:
        path: A YAML file for `accelerate launch --config_file`.
        processes, half: In place of what the file says.

    Raises:
        ArgumentError: It cannot be read.
    """
    if not path.is_file():
        raise ArgumentError(f"{path}: there is no such file; those of configs/accelerate end in .yaml")
    try:
        options = read_yaml_file(path)
        kind = {"NO": "single", "MULTI_GPU": "ddp", "DEEPSPEED": "zero", "FSDP": "fsdp"}[options["distributed_type"]]
        launch = Launch(path.stem, kind, options.get("num_processes", 1), options.get("mixed_precision", "no") != "no")
        if kind == "zero":
            # The precision is the recipe's: what one would take is assumed.
            engine = path.with_name(Path(options["deepspeed_config"]["deepspeed_config_file"]).name)
            if not engine.is_file():
                raise ArgumentError(f"{path}: its deepspeed_config_file {engine} is not there")
            zero = read_json(engine)["zero_optimization"]
            buckets = zero.get("reduce_bucket_size")
            buckets = buckets * (2 if zero.get("overlap_comm") else 1) if isinstance(buckets, int) else None
            launch = replace(launch, half=True, stage=zero["stage"], offloads="offload_param" in zero, buckets=buckets)
        elif kind == "fsdp":
            launch = replace(launch, offloads=bool(options["fsdp_config"].get("fsdp_offload_params")))
        elif "parallelism_config" in options:
            launch = replace(launch, kind="tensor")
    except (KeyError, TypeError, AttributeError) as error:
        raise ArgumentError(f"{path}: not a launch configuration that can be estimated ({error!r:.80})") from error
    # Tensor parallelism fixes its own number of processes.
    if processes is not None and launch.kind not in ("single", "tensor"):
        launch = replace(launch, processes=processes)
    return launch if half is None else replace(launch, half=half)


def count(config: PreTrainedConfig, batch: Batch, arithmetic: str) -> Counted:
    """
    Counts on a model with one layer in each stack, and on ones with a second layer of each type, and extrapolates: all
    layers of a stack and a type cost the same.

    Args:
        arithmetic: As `Launch.arithmetic` has it.
    """
    types = {stack: list(config.layer_types_of(stack)) for stack in ("encoder", "decoder")}
    first = {stack: some[:1] for stack, some in types.items()}
    smallest = with_layers(config, first)
    flops, kept, highest = run_without_memory(smallest, batch, arithmetic)
    more: dict[tuple[str, str], tuple[float, float, int]] = {}  # operations, bytes kept and parameters of a layer
    for stack, kind in ((stack, kind) for stack, some in types.items() for kind in dict.fromkeys(some)):
        larger = with_layers(config, first | {stack: [*first[stack], kind]})
        of_larger = run_without_memory(larger, batch, arithmetic)
        parameters = parameters_of(larger) - parameters_of(smallest)
        more[stack, kind] = of_larger[0] - flops, of_larger[1] - kept, parameters
    others = [more[stack, kind] for stack, some in types.items() for kind in some[1:]]
    kept_by_first = sum(more[stack, some[0]][1] for stack, some in types.items())
    tokens = batch.rows * (len(types["encoder"]) * batch.source + len(types["decoder"]) * batch.target)
    inputs = tokens * config.d_model * (2 if arithmetic == "bfloat16" else 4)
    return Counted(
        parameters=parameters_of(config),
        largest_layer=max(each[2] for each in more.values()),
        embedding=config.vocab_size * config.d_model,
        width=config.d_model,
        flops=3 * (flops + sum(each[0] for each in others)),
        activations=highest + sum(each[1] for each in others),
        checkpointed=highest - kept_by_first + inputs + max(each[1] for each in more.values()),
        # In float32: themselves, what log-softmax makes of them, and its gradient.
        logits=12 * batch.rows * batch.target * config.vocab_size,
    )


def with_layers(config: PreTrainedConfig, types: dict[str, list[str]]) -> PreTrainedConfig:
    """Returns a configuration with other layers, by their types in each stack."""
    fields = config.to_dict()
    for stack, some in types.items():
        fields |= {f"{stack}_layers": len(some), f"{stack}_layer_types": some}
    for alias in type(config).attribute_map:
        fields.pop(alias, None)
    return type(config).from_dict(fields)


def parameters_of(config: PreTrainedConfig) -> int:
    """Returns how many parameters a model has, each once."""
    with torch.device("meta"):
        return AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False).num_parameters()


def run_without_memory(config: PreTrainedConfig, batch: Batch, arithmetic: str) -> tuple[float, float, float]:
    """
    Returns the operations of a forward pass with logits; and of one without, as in training, the bytes kept for the
    backward pass, and the bytes at the highest, a piece of the logits included.
    """
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={attention: count_attention})
    tracker = MemTracker()
    with FakeTensorMode():
        dtype = torch.bfloat16 if arithmetic == "bfloat16" else torch.float32
        model = AutoModelForSeq2SeqLM.from_config(config, dtype=dtype, trust_remote_code=False).train()
        tracker.track_external(model)
        source = torch.ones(batch.rows, batch.source, dtype=torch.long)
        target = torch.ones(batch.rows, batch.target, dtype=torch.long)
        inputs = {"input_ids": source, "attention_mask": source, "labels": target}
        with torch.autocast("cpu", torch.bfloat16, enabled=arithmetic == "autocast"):
            with counter:
                model(**inputs, output_logits=True)
            with tracker:
                loss = model(**inputs).loss  # which alone holds on to them
                kept, highest = (activations_of(tracker, when) for when in ("current", "peak"))
        del loss
    return counter.get_total_flops(), kept, highest


def activations_of(tracker: MemTracker, when: str) -> float:
    """Returns the bytes of activations, "current" or at the "peak"."""
    snapshot = tracker.get_tracker_snapshot(when)
    return sum(size for sizes in snapshot.values() for kind, size in sizes.items() if str(kind).endswith("ACT"))


def count_attention(query, key, value, *args, out_val=None, **kwargs) -> int:
    """Returns the operations of the CPU's attention, which torch's counter does not know."""
    return sdpa_flop_count(query, key, value)


def memory(launch: Launch, counted: Counted, checkpointing: bool) -> Memory:
    """Returns the memory of one process that trains with AdamW."""
    everything, share = counted.parameters, counted.parameters / launch.processes
    activations = counted.checkpointed if checkpointing else counted.activations
    wide = 2 if launch.half else 4
    if launch.kind == "single":
        return Memory(4 * everything, 4 * everything, 8 * everything, activations)
    if launch.kind == "ddp":
        # The buckets in which gradients are summed stay.
        return Memory(8 * everything, 4 * everything, 8 * everything, activations)
    if launch.kind == "tensor":
        return Memory(4 * share, 4 * share, 8 * share, activations + counted.logits)
    if launch.kind == "fsdp":
        # The layer at work and the next, and the output layer, which is not let go.
        gathered = wide * (2 * counted.largest_layer + counted.embedding)
        if launch.offloads:
            return Memory(gathered, gathered, 0, activations, host=16 * share)
        return Memory(4 * share + gathered, 4 * share, 8 * share, activations)
    # DeepSpeed keeps weights in float32 beside those that it computes with, even if those are float32 too.
    bucket = wide * (launch.buckets or counted.width**2)
    if launch.stage < 3:
        gradients = wide * (everything if launch.stage == 1 else share) + bucket
        # The step is taken on a copy of the gradients in float32.
        return Memory(wide * everything, gradients + (4 * share if launch.half else 0), 12 * share, activations)
    gathered = wide * min(everything, ZERO3_LIVE_PARAMETERS)
    if launch.offloads:
        return Memory(gathered, bucket, 0, activations, host=(12 + 2 * wide) * share)
    return Memory(wide * share + gathered, wide * share + bucket, 12 * share, activations)
