# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Code and pickles that come with a checkpoint: found before anything is loaded, and refused or said."""

import json
from contextlib import suppress
from pathlib import Path

from huggingface_hub import file_exists, try_to_load_from_cache
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
    logging,
)

from ..errors import ArgumentError
from ..files import ADAPTER_WEIGHTS, CONFIG
from ..models import XformerConfig


logger = logging.get_logger(__name__)

TOKENIZER_CONFIG = "tokenizer_config.json"
CUSTOM_GENERATE = "custom_generate/generate.py"
# The classes of an `auto_map` that our commands ask for; code for others is never reached.
ASKED_FOR = ("AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM", "AutoModelForTextEncoding", "AutoTokenizer")
# Names of weight files that are read without running anything, and of the pickles that the libraries read else.
WEIGHTS = ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME))
ADAPTERS = ((ADAPTER_WEIGHTS,), ("adapter_model.bin",))


def check_code(
    name_or_path: str, trust_remote_code: bool, described_by: str = CONFIG, option: str = "", **hub
) -> None:
    """
    Checks that a folder or repository brings no code of its own to be run, before the libraries look at it.

    An Xformer's code beside its weights is passed over: this package's classes read it.

    Args:
        name_or_path: Folder, JSON file or Hub name.
        trust_remote_code: Whether such code may run.
        described_by: The file that names code: the configuration or the tokenizer's.
        option: The one that names the folder, for the message.
        hub: As `from_pretrained` takes them, such as `revision` and `subfolder`.

    Raises:
        ArgumentError: There is code. The message names the files that would run.
    """
    if trust_remote_code:
        return
    content = read_description(name_or_path, described_by, **hub)
    where = f"{option} {name_or_path}".strip()
    if kernels := [each for each in attention_named_in(content) if "/" in each]:
        raise ArgumentError(
            f"{where}: its {described_by} names an attention from the Hub, {kernels[0]}, which is code: read it and "
            "give --trust_remote_code, or take it out"
        )
    kind, named = content.get("model_type"), code_named_in(content)
    if not named or (described_by == CONFIG and kind == XformerConfig.model_type):
        return
    otherwise = ""
    if described_by == TOKENIZER_CONFIG or kind in CONFIG_MAPPING:
        otherwise = f", or take `auto_map` out of {described_by} to have the library's own class"
    raise ArgumentError(
        f"{where}: its {described_by} names code of its own that would run here, {', '.join(named)}: read it and give "
        f"--trust_remote_code{otherwise}"
    )


def read_description(name_or_path: str, name: str, subfolder: str = "", **hub) -> dict:
    """Returns what a JSON file of a folder or repository holds; nothing if it cannot be had: loading says why."""
    path = Path(name_or_path)
    found: str | None
    with suppress(OSError, ValueError, RecursionError):
        if path.is_dir():
            found = str(path / subfolder / name)
        elif path.is_file():
            found = str(path)
        else:
            found = cached_file(
                name_or_path, name, subfolder=subfolder, _raise_exceptions_for_missing_entries=False, **hub
            )
        content = json.loads(Path(found).read_text(encoding="utf-8")) if found else {}
        return content if isinstance(content, dict) else {}
    return {}


def code_named_in(content: dict) -> list[str]:
    """Returns the files of code that an `auto_map` names for the classes that we ask for."""
    auto_map = content.get("auto_map") or {}
    # An old tokenizer's is the pair of its classes.
    asked = [auto_map.get(name) for name in ASKED_FOR] if isinstance(auto_map, dict) else [auto_map]
    references = [each for value in asked for each in (value if isinstance(value, list) else [value])]
    files = []
    for reference in references:
        if isinstance(reference, str):
            repository, _, name = reference.rpartition("--")
            files.append(f"{name.partition('.')[0]}.py" + (f" of {repository}" if repository else ""))
    return list(dict.fromkeys(files))


def attention_named_in(content: dict) -> list[str]:
    """Returns the attentions that a configuration asks for, of the model and of its parts."""
    values = [content.get(name) for name in ("attn_implementation", "_attn_implementation")]
    parts = [each for value in values for each in (value.values() if isinstance(value, dict) else [value])]
    return [each for each in parts if isinstance(each, str)]


def has(name_or_path: str, name: str, **hub) -> bool:
    """Returns whether a folder or repository has a file; False if nobody can say."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path, name).is_file()
    with suppress(Exception):  # of a dozen types, from the Hub and the network: loading says why
        return isinstance(
            try_to_load_from_cache(name_or_path, name, revision=hub.get("revision")), str
        ) or file_exists(name_or_path, name, **hub)
    return False


def say_custom_generate(name_or_path: str, trust_remote_code: bool, **hub) -> None:
    """Warns that a checkpoint's own way of decoding, which is code, is not used."""
    if not trust_remote_code and has(name_or_path, CUSTOM_GENERATE, **hub):
        logger.warning(f"{name_or_path}: its {CUSTOM_GENERATE} does not run (--trust_remote_code runs it)")


def say_pickle(name_or_path: str, kinds: tuple[tuple[str, ...], tuple[str, ...]] = WEIGHTS, **hub) -> None:
    """Warns that weights are a pickle, of which the libraries build tensors and numbers alone (`weights_only`)."""
    safe, pickles = kinds
    if any(has(name_or_path, name, **hub) for name in safe):
        return
    for name in pickles:
        if has(name_or_path, name, **hub):
            logger.warning(
                f"{name_or_path}: its weights are a pickle, {name}: read with weights_only, without running it"
            )
            return
