# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Writes Xformer models for ONNX Runtime, with their tokenizers and options, and compares them."""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import ArgumentError
from ..files import CONFIG, GENERATION_CONFIG, TARGET_TOKENIZER, write_json
from ..models import XformerConfig
from .engines import EXACT, Engine, Export, check_difference, left_out, log_probabilities, sample, start_and_ends
from .onnx_graphs import write_graphs
from .onnx_nodes import ACTIVATIONS, load_extra, load_onnx
from .onnx_sessions import DECODER, ENCODER, OnnxModel
from .saving import TOKENIZER_PATTERNS
from .vocabulary import check_vocabulary


TITLE = "ONNX Runtime"
INT8 = "int8"
# Fields of a generation config that its greedy decoding goes by, and those that are of beams alone.
CARRIED = ("max_length", "max_new_tokens", "eos_token_id", "early_stopping", "length_penalty")
# Weights of a larger graph stand in a file of their own, of the graph's name and this ending.
DATA = "_data"
LARGEST_FILE = 2**31 - 2**20  # bytes, less the nodes; a file in this format holds no more
FILES = (
    *(ENCODER, ENCODER + DATA, DECODER, DECODER + DATA, CONFIG, GENERATION_CONFIG),
    *(TARGET_TOKENIZER, *TOKENIZER_PATTERNS),
)


def check_installed() -> None:
    """
    Checks that the extra is installed.

    Raises:
        ArgumentError: A library of it is not.
    """
    load_onnx()
    load_extra("onnxruntime")


def check_config(config: XformerConfig) -> None:
    """
    Checks that the graphs have what a configuration asks for.

    Raises:
        ArgumentError: They have no nodes for a field's value.
    """
    if (name := config.activation_function) not in ACTIVATIONS:
        raise ArgumentError(
            f"`activation_function={name!r}` cannot be exported: the graphs have {', '.join(ACTIVATIONS)}"
        )
    if (packing := getattr(config, "quantization_config", None)) is not None:
        raise ArgumentError(
            f"`quantization_config={packing!r}` cannot be exported: export the checkpoint that this one was made "
            "from, with --quantization"
        )


def save(graph: Any, path: Path) -> None:
    """Writes a graph; the weights of one that is too large for a file, into another beside it."""
    onnx = load_onnx()
    size = sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
    options = {"save_as_external_data": True, "location": path.name + DATA} if size > LARGEST_FILE else {}
    onnx.save_model(graph, str(path), **options)


def difference(model: PreTrainedModel, folder: Path) -> float:
    """Returns the largest difference of an export's log-probabilities of random tokens from its model's, in nats."""
    start, ends = start_and_ends(model, TITLE)
    special = {start, *ends, model.config.pad_token_id}
    sizes = (model.config.vocab_of("encoder"), model.config.vocab_size)
    source, target = sample([[i for i in range(size) if i not in special] or [0] for size in sizes], model.config)
    target = [start, *target, ends[0]]
    expected = log_probabilities(model, source, target).numpy()
    return float(np.abs(OnnxModel(folder).log_probabilities(source, target) - expected).max())


def write_export(
    model: PreTrainedModel,
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
    quantization: str,
    folder: Path,
) -> Export:
    """
    Writes an export into an empty folder, and compares it with its model, which is in float32 on the CPU.

    Raises:
        ArgumentError: The tokenizers do not fit, a tensor is in neither graph, or the graphs compute something else.
    """
    config, (source_tokenizer, target_tokenizer) = model.config, tokenizers
    check_vocabulary(config, source_tokenizer, target_tokenizer)
    start_and_ends(model, TITLE)
    graphs, left = write_graphs(model, int8=quantization == INT8)
    if left:
        raise ArgumentError(f"{len(left)} tensors cannot be exported, such as {min(left)}: merge adapters first")
    for stack, name in (("encoder", ENCODER), ("decoder", DECODER)):
        save(graphs[stack], folder / name)
    # Without the code of the model, which others have no use for.
    write_json(folder / CONFIG, {name: value for name, value in config.to_dict().items() if name != "auto_map"})
    write_json(folder / GENERATION_CONFIG, model.generation_config.to_diff_dict())
    source_tokenizer.save_pretrained(folder)
    if target_tokenizer is not source_tokenizer:
        target_tokenizer.save_pretrained(folder / TARGET_TOKENIZER)
    found = difference(model, folder)
    check_difference(found, quantization, TITLE)
    passed_over = left_out(model.generation_config, CARRIED)
    notes = [*notes_of(config), *notes_of_left(passed_over)]
    return Export(quantization, found, found, quantization, passed_over, notes)


def notes_of_left(left: dict[str, Any]) -> list[str]:
    """Returns a line for each field of the generation config that greedy decoding passes over."""
    return [
        f"generation config: `{name}={value!r}` does nothing in `OnnxModel.generate`" for name, value in left.items()
    ]


def notes_of(config: Any) -> list[str]:
    """Returns what whoever exports should know of it."""
    types = {*config.encoder_layer_types, *config.decoder_layer_types} - {"full_attention"}
    if not types:
        return []
    return [
        f"{' and '.join(sorted(types))} layers attend under a mask: their results are the same, their time and memory "
        "grow with the square of the length"
    ]


ONNX = Engine(
    title=TITLE,
    quantizations=(INT8, EXACT),
    files=FILES,
    otherwise="the exporters of transformers and optimum write stock models, or hf-xformer convert first",
    check_installed=check_installed,
    check_config=check_config,
    write=write_export,
)
