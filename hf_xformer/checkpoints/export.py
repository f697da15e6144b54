# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Exports Xformer models to other engines, each of which writes its files and compares them with the model."""

import copy
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import ArgumentError, wrong_choice
from ..files import check_output_folder, contents, fill_folder
from ..models import XformerConfig
from .adapters import base_of
from .averaging import note_of_averages
from .ctranslate2_export import CTRANSLATE2
from .engines import EXACT, Engine, Export
from .loading import load_model, load_tokenizers, read_own_config
from .onnx_export import ONNX


ENGINES = {"ctranslate2": CTRANSLATE2, "onnx": ONNX}
DEFAULT_ENGINE = "ctranslate2"
QUANTIZATIONS = tuple(dict.fromkeys(name for engine in ENGINES.values() for name in engine.quantizations))


def engine_of(name: str, quantization: str | None) -> Engine:
    """
    Returns an engine that can be used.

    Raises:
        ArgumentError: There is none of that name, it is not installed, or it has no such quantisation.
    """
    if name not in ENGINES:
        raise ArgumentError(f"engine {wrong_choice(name, ENGINES)}")
    engine = ENGINES[name]
    if quantization not in (None, *engine.quantizations):
        raise ArgumentError(f"quantization {quantization!r}: {engine.title} has {', '.join(engine.quantizations)}")
    engine.check_installed()
    return engine


def check_out(out: Path, overwrite: bool, engine: Engine) -> None:
    """
    Checks that an export may be written to a folder.

    Raises:
        ArgumentError: There cannot be such a folder, or it is not empty; with `overwrite`, it holds something else
            than an export.
    """
    check_output_folder(out, in_use=None if overwrite else "--overwrite replaces an earlier export")
    names = [path.name for path in contents(out)]
    others = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in engine.files)]
    if others or names and engine.files[0] not in names:
        raise ArgumentError(f"{out}: --overwrite replaces exports, and {min(others or names)} is not part of one")


def export_model(
    model: PreTrainedModel,
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
    out: Path,
    quantization: str | None = None,
    overwrite: bool = False,
    engine: str = DEFAULT_ENGINE,
) -> Export:
    """
    Writes an Xformer for another engine: for CTranslate2 with its vocabularies and the arguments that decode alike,
    for ONNX Runtime with its tokenizers and options of decoding.

    The result is loaded and compared with the model before it gets its name.

    Args:
        model: Stays as it is.
        tokenizers: The source's and the target's, as `load_tokenizers` returns them.
        out: Folder to write.
        quantization: Type of the weights, of those that the engine has; None keeps the model's if the engine has it,
            and else takes float32.
        overwrite: Whether `out` may hold an earlier export, which is replaced.
        engine: "ctranslate2" or "onnx".

    Raises:
        ArgumentError: The engine is not installed, it has no counterpart of something in the model or computes
            something else, the tokenizers do not fit, or `out` is in use. Nothing is written then.
    """
    chosen = engine_of(engine, quantization)
    if not isinstance(model.config, XformerConfig):
        raise ArgumentError(f"model_type {model.config.model_type!r} is not 'xformer': {chosen.otherwise}")
    chosen.check_config(model.config)
    out = Path(out)
    check_out(out, overwrite, chosen)
    return write_export(chosen, model, tokenizers, out, quantization, model.dtype)


def write_export(
    engine: Engine,
    model: PreTrainedModel,
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
    out: Path,
    quantization: str | None,
    dtype: Any,
) -> Export:
    """
    Writes an export to a folder that has been checked; all else is as for [`export_model`].

    Args:
        dtype: Of the weights before they were loaded.
    """
    if (model.dtype, model.device.type) != (torch.float32, "cpu"):
        model = copy.deepcopy(model).to("cpu", torch.float32)  # type: ignore[arg-type]  # the library's wrapper
    own = str(dtype or torch.float32).removeprefix("torch.")
    chosen = quantization or (own if own in engine.quantizations else EXACT)
    export = fill_folder(out, lambda folder: engine.write(model, tokenizers, chosen, folder), engine.files)
    if quantization is None and chosen != own:
        export.notes.append(f"the weights, of {own}, are written in {chosen}, which loses nothing")
    return export


def export_checkpoint(
    checkpoint: str,
    out: Path,
    quantization: str | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    engine: str = DEFAULT_ENGINE,
) -> Export:
    """
    Exports a checkpoint, a folder or a Hub name, and its tokenizers; other arguments as for [`export_model`].

    Raises:
        ArgumentError: The checkpoint does not load, or as for [`export_model`]. Nothing is written then.
    """
    chosen = engine_of(engine, quantization)
    if base_of(checkpoint) is not None:
        raise ArgumentError(f"{checkpoint} is an adapter: hf-xformer merge it first")
    config = read_own_config(checkpoint, chosen.otherwise, trust_remote_code)
    chosen.check_config(config)  # before weights are loaded
    check_out(out, overwrite, chosen)
    tokenizers = load_tokenizers(checkpoint, trust_remote_code=trust_remote_code)
    model = load_model(checkpoint, trust_remote_code=trust_remote_code, dtype=torch.float32)
    try:
        export = write_export(chosen, model, tokenizers, out, quantization, config.dtype)
    except ArgumentError as error:
        raise ArgumentError(f"{checkpoint}: {error}") from error
    export.notes.extend(filter(None, [note_of_averages(checkpoint)]))
    return export
