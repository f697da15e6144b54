# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a model and its tokenizers as a checkpoint, whole, in place of an earlier one."""

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import ArgumentError, one_line
from ..files import ADAPTER_CONFIG, CONFIG, GENERATION_CONFIG, TARGET_TOKENIZER, check_output_folder, fill_folder


# Every checkpoint that has a tokenizer has one of these.
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
TOKENIZER_PATTERNS = (
    *(*TOKENIZER_FILES, "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *("source.spm", "target.spm", "target_vocab.json"),
)
# Files of an earlier checkpoint, which must not be taken for a part of the new one.
EARLIER = (
    *(CONFIG, GENERATION_CONFIG, "model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
    *(TARGET_TOKENIZER, *TOKENIZER_PATTERNS),
)


def check_checkpoint_folder(out: Path, sources: Iterable[str], overwrite: bool) -> None:
    """
    Checks that a checkpoint that is made of others may be written to a folder.

    Raises:
        ArgumentError: There cannot be such a folder, it is one of the sources, holds an adapter, or holds something
            without `overwrite`.
    """
    for name in sources:
        if out.resolve() == Path(name).resolve():
            raise ArgumentError(f"{out}: the new checkpoint would overwrite {name}")
    check_output_folder(out, in_use=None if overwrite else "--overwrite writes into it all the same")
    if (out / ADAPTER_CONFIG).exists():
        raise ArgumentError(f"{out}: holds an adapter: give another folder")


def check_saveable(config: GenerationConfig, where: str) -> None:
    """
    Checks that the library will save a generation config, by saving it: it refuses then what it has loaded.

    Args:
        where: Where the config came from, for the message.

    Raises:
        ArgumentError: It will not.
    """
    with TemporaryDirectory() as folder:
        try:
            config.save_pretrained(folder)
        except ValueError as error:
            raise ArgumentError(
                f"{where}: transformers would not save these options of decoding: {one_line(error)}"
            ) from error


def save_checkpoint(
    out: Path,
    model: PreTrainedModel,
    source: PreTrainedTokenizerBase | None,
    target: PreTrainedTokenizerBase | None,
    add: Callable[[Path], Any] | None = None,
    earlier: Iterable[str] = (),
) -> None:
    """
    Writes a checkpoint's folder whole, as [`fill_folder`] does.

    Args:
        source, target: The tokenizers, the same one twice if they are shared; None if there is none.
        add: Writes more files into the folder that it is given.
        earlier: Patterns of names that `add` writes, of which an earlier checkpoint's are removed.
    """

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        if source is not None:
            source.save_pretrained(folder)
        if target is not None and target is not source:
            target.save_pretrained(folder / TARGET_TOKENIZER)
        if add is not None:
            add(folder)

    fill_folder(out, write, (*EARLIER, *earlier))
