# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Code and pickles that come with a checkpoint: found before anything is loaded, and refused or said."""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from huggingface_hub import HfApi, try_to_load_from_cache
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
TIMEOUT = 10  # seconds that the Hub has to list a repository
CUSTOM_GENERATE = "custom_generate/generate.py"
# The classes of an `auto_map` that our commands ask for; code for others is never reached.
ASKED_FOR = ("AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM", "AutoModelForTextEncoding", "AutoTokenizer")
OWN_SUFFIX = "_xformer"  # of the modules that this package writes beside weights
# Names of weight files that are read without running anything, and of the pickles that the libraries read else.
WEIGHTS = ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME))
ADAPTERS = ((ADAPTER_WEIGHTS,), ("adapter_model.bin",))


def check_code(
    name_or_path: str, trust_remote_code: bool, described_by: str = CONFIG, option: str = "", **hub
) -> None:
    """
    Checks that a folder or repository brings no code of its own to be run, before the libraries look at it.

    This package's code beside an Xformer's weights is passed over: its classes here read it. The library prefers them
    to any that `auto_map` names, so a subclass of theirs cannot be had; that is said where code may run.

    Args:
        name_or_path: Folder, JSON file or Hub name.
        trust_remote_code: Whether such code may run.
        described_by: The file that names code: the configuration or the tokenizer's.
        option: The one that names the folder, for the message.
        hub: As `from_pretrained` takes them, such as `revision` and `subfolder`.

    Raises:
        ArgumentError: There is code. The message names the files that would run.
    """
    content = read_description(name_or_path, described_by, **hub)
    where = f"{option} {name_or_path}".strip()
    kind, named = content.get("model_type"), code_named_in(content)
    is_own = described_by == CONFIG and kind == XformerConfig.model_type
    if is_own:
        named = [each for each in named if not each.partition(".py")[0].endswith(OWN_SUFFIX)]
    if trust_remote_code:
        if is_own and named:
            logger.warning_once(f"{where}: this package's classes are used in place of those of {', '.join(named)}")
        return
    if kernels := [each for each in attention_named_in(content) if "/" in each]:
        raise ArgumentError(
            f"{where}: its {described_by} names an attention from the Hub, {kernels[0]}, which is code: read it and "
            "give --trust_remote_code, or take it out"
        )
    if not named:
        return
    if is_own:
        raise ArgumentError(
            f"{where}: its {described_by} names code of its own, {', '.join(named)}, which the commands do not run: "
            "this package's classes read every Xformer. If they read this one, take it out of `auto_map`, or give "
            "--trust_remote_code"
        )
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


def say_unsafe(
    name_or_path: str,
    kinds: tuple[tuple[str, ...], tuple[str, ...]] = WEIGHTS,
    trust_remote_code: bool = True,
    **hub,
) -> None:
    """
    Warns that a checkpoint's own way of decoding, which is code, is not used, and that weights are a pickle, of which
    the libraries build tensors and numbers alone (`weights_only`).
    """
    safe, pickles = kinds
    there = which_of((*safe, *pickles, *([] if trust_remote_code else [CUSTOM_GENERATE])), name_or_path, **hub)
    if CUSTOM_GENERATE in there:
        logger.warning(f"{name_or_path}: its {CUSTOM_GENERATE} does not run (--trust_remote_code runs it)")
    pickled = [name for name in pickles if name in there]
    if pickled and not there.intersection(safe):
        logger.warning(
            f"{name_or_path}: its weights are a pickle, {pickled[0]}: read with weights_only, without running it"
        )


def which_of(names: Iterable[str], name_or_path: str, **hub) -> set[str]:
    """
    Returns which of some files a folder or repository has.

    The Hub is asked once for all; where it does not answer, or must not be asked, those in the cache are returned.
    """
    if Path(name_or_path).is_dir():
        return {name for name in names if Path(name_or_path, name).is_file()}
    revision = hub.get("revision")
    with suppress(Exception):  # of a dozen types, from the Hub and the network: loading says why
        listed = HfApi().model_info(name_or_path, revision=revision, token=hub.get("token"), timeout=TIMEOUT).siblings
        return {each.rfilename for each in listed or ()}.intersection(names)
    with suppress(ValueError):  # of what cannot be a name on the Hub
        return {
            name for name in names if isinstance(try_to_load_from_cache(name_or_path, name, revision=revision), str)
        }
    return set()
