# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Loads models with weights of 8 or 4 bits, for decoding: by torch's kernels on a CPU, by bitsandbytes on a GPU."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from ..errors import ArgumentError, wrong_choice
from .adapters import base_of
from .loading import load_model, read_own_config
from .number_formats import in_fast_format
from .quantized_linear import Int4Linear, Int8Linear, fits_int4, usable_backends


QUANTIZATIONS = ("int8", "int4")
INT4_OPERATOR = "_weight_int4pack_mm_for_cpu"
# Methods of a model that would lose or need the weights as they were.
REFUSED = {
    "save_pretrained": "saved",
    "push_to_hub": "pushed",
    "resize_token_embeddings": "resized",
    "resize_encoder_token_embeddings": "resized",
    "resize_decoder_token_embeddings": "resized",
    "keep_layers": "cut",
}


def check_quantization(
    checkpoint: str, quantization: str, device: torch.device, trust_remote_code: bool = False, **hub
) -> None:
    """
    Checks that a checkpoint can be loaded in so many bits on a device, before its weights are read.

    Args:
        checkpoint: Folder or Hub name.
        quantization: One of `QUANTIZATIONS`.
        hub: `revision` and `token`.

    Raises:
        ArgumentError: There is no such quantisation, the device, its library or this torch does not have it, or the
            checkpoint is an adapter, another model's, or quantised already.
    """
    if quantization not in QUANTIZATIONS:
        raise ArgumentError(f"quantization {wrong_choice(quantization, QUANTIZATIONS)}")
    where = f"quantization {quantization} on the device {device}"
    if device.type == "cuda":
        if find_spec("bitsandbytes") is None:
            raise ArgumentError(f"{where} needs bitsandbytes: pip install 'hf-xformer[quantize]'")
    elif device.type != "cpu":
        raise ArgumentError(f"{where}: there are kernels for cpu and cuda alone; leave --quantization out")
    elif not usable_backends():
        has = ", ".join(torch.backends.quantized.supported_engines)
        raise ArgumentError(
            f"{where}: torch {torch.__version__} has no kernel for it; its quantised engines are {has}"
        )
    elif quantization == "int4" and not hasattr(torch.ops.aten, INT4_OPERATOR):
        raise ArgumentError(f"{where}: torch {torch.__version__} has no kernel for 4 bits; take int8")
    if base_of(checkpoint, **hub) is not None:
        raise ArgumentError(f"quantization {quantization}: {checkpoint} is an adapter: hf-xformer merge it first")
    config: Any = read_own_config(checkpoint, "hf-xformer convert first, to quantise it", trust_remote_code, **hub)
    if getattr(config, "quantization_config", None) is not None:
        raise ArgumentError(f"quantization {quantization}: {checkpoint} is quantised already: leave it out")


def load_quantized(
    checkpoint: str,
    quantization: str,
    device: torch.device,
    say: Callable[[str], object],
    trust_remote_code: bool = False,
    **options,
) -> PreTrainedModel:
    """
    Loads a checkpoint with weights of 8 or 4 bits on a device, for decoding alone.

    Args:
        say: Is told what is not in so many bits.
        options: As [`load_model`] takes them; other arguments as for [`check_quantization`], which is called first.

    Raises:
        ArgumentError: As for [`check_quantization`], or the checkpoint does not load.
    """
    hub = {name: options[name] for name in ("revision", "token") if name in options}
    check_quantization(checkpoint, quantization, device, trust_remote_code, **hub)
    if is_by_torch(device):
        model = load_model(checkpoint, trust_remote_code=trust_remote_code, **options)
        return in_fast_format(quantize(model, quantization, say), device, options.get("dtype"), say)
    packing = BitsAndBytesConfig(
        load_in_8bit=quantization == "int8",
        load_in_4bit=quantization == "int4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    options |= {"quantization_config": packing, "device_map": {"": device}}
    return load_model(checkpoint, trust_remote_code=trust_remote_code, **options)


def is_by_torch(device: torch.device) -> bool:
    """Returns whether torch's own kernels are taken on a device, and not those of bitsandbytes."""
    return device.type == "cpu"


def quantize(model: PreTrainedModel, quantization: str, say: Callable[[str], object]) -> PreTrainedModel:
    """
    Replaces a model's linear layers, on the CPU, by layers of 8 or 4 bits, and returns it.

    The output layer has 8 bits in either case, and a tied embedding stays as it is. Such a model decodes; training,
    saving and resizing it are refused.

    Args:
        quantization: One of `QUANTIZATIONS`.
        say: Is told which layers have 8 bits in place of 4.
    """
    backend = usable_backends()[0]
    output = model.get_output_embeddings()
    in_8_bits = []
    for parent_name, parent in list(model.named_modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, nn.Linear):
                continue
            if quantization == "int4" and layer is not output and fits_int4(layer):
                setattr(parent, name, Int4Linear(layer))
                continue
            if quantization == "int4" and layer is not output:
                in_8_bits.append(f"{parent_name}.{name} of {layer.in_features} x {layer.out_features}")
            setattr(parent, name, Int8Linear(layer, backend))
    if in_8_bits:
        say(f"quantization int4: {len(in_8_bits)} layers have 8 bits, for their sizes, such as {in_8_bits[0]}")
    return for_decoding(model, quantization)


def for_decoding(model: PreTrainedModel, quantization: str) -> PreTrainedModel:
    """Makes a model refuse what its weights do not allow, by a plain error, and returns it."""

    def refusal(what: str) -> Callable:
        def refuse(*args, **kwargs):
            raise ArgumentError(f"weights of {quantization} decode and cannot be {what}: load the checkpoint as it is")

        return refuse

    def train(mode: bool = True) -> PreTrainedModel:
        if mode:
            refusal("trained")()
        return nn.Module.train(model, mode)

    for name, what in REFUSED.items():
        if hasattr(model, name):
            setattr(model, name, refusal(what))
    model.train = train  # type: ignore[method-assign]
    return model.eval()
