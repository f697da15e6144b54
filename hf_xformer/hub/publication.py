# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A publication: the files of a run's folder that belong on the Hub, checked before they go."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import eval_result_entries_to_yaml
from huggingface_hub.constants import EVAL_RESULTS_FOLDER
from huggingface_hub.utils import yaml_dump
from safetensors import safe_open
from transformers import PreTrainedConfig

from ..checkpoints.adapters import base_of
from ..checkpoints.loading import read_model_config
from ..checkpoints.weight_files import check_finite, compare, read_header, read_tensors
from ..errors import ArgumentError
from ..files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    ATTENTION,
    CARD,
    CONFIG,
    CURVES,
    EVAL_RESULTS,
    GENERATION_CONFIG,
    RECORD,
    TARGET_TOKENIZER,
    TEST_RESULTS,
    TRAIN_RESULTS,
    read_json,
    read_text,
    travelling_files,
)
from ..models import XformerConfig
from .card import facts_of, hub_results, named, problems_of, render, why_kept
from .contents import PICKLE, check_content, hidden_code, link_out
from .privacy import cleaned, is_path, place_in, secret_in


# Patterns of file names, in the words of `fnmatch`.
WEIGHTS = (
    "model.safetensors",
    "model-?????-of-?????.safetensors",
    "model.safetensors.index.json",
    ADAPTER_WEIGHTS,
)
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "source.spm",
    "target.spm",
    "target_vocab.json",
    "*.model",
)
# Other parts of a model.
DESCRIPTION = (CONFIG, GENERATION_CONFIG, ADAPTER_CONFIG, "*_xformer.py")
RESULTS = (RECORD, TRAIN_RESULTS, EVAL_RESULTS, TEST_RESULTS)
OTHERS = ("LICENSE*", CURVES, ATTENTION)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")
# Lists of tokens, in which anything may stand that stood in the data.
VOCABULARIES = ("tokenizer.json", "added_tokens.json", "*vocab.*", "merges.txt", "*.model", "*.spm")
# Fields of a record that are this machine's business, and those of a model's files that say where it was loaded from.
LOCAL_FIELDS = {"card_name"}
ORIGINS = {"_name_or_path", "name_or_path", "tokenizer_file", "vocab_file", "merges_file", "source_spm", "target_spm"}


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def of_a_model(name: str) -> bool:
    """Returns whether `push` wrote this file on the Hub, as a part of a model, and may delete it."""
    folder, _, last = name.rpartition("/")
    if folder == TARGET_TOKENIZER:
        return matches(last, TOKENIZER)
    return not folder and matches(last, (*WEIGHTS, *TOKENIZER, *DESCRIPTION, *RESULTS))


@dataclass
class Publication:
    """Files for the Hub, `{path there: file here, or its content}`, and those left out, with the reason."""

    files: dict[str, Path | bytes] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def tree(self) -> Iterable[str]:
        """Yields a line for each file, with its size, and a line for each that stays here."""
        for name, content in sorted(self.files.items()):
            bytes_ = len(content) if isinstance(content, bytes) else content.stat().st_size
            yield f"  {name:40} {bytes_:>14,} bytes"
        for name, reason in sorted(self.left_out.items()):
            yield f"  {name:40} stays here: {reason}"


def gather(folder: Path) -> Publication:
    """
    Collects the files of a run's folder that make a published model, without what is this machine's own.

    Raises:
        ArgumentError: One of them is a link out of the folder, is or may hold a pickle, whose loading runs code, is
            not what its name says, or holds a secret or a path of this machine.
    """
    found = Publication()
    for path in sorted(folder.iterdir()):
        if path.name == TARGET_TOKENIZER:
            check_link(path, folder)
        if path.name == TARGET_TOKENIZER and path.is_dir():
            for each in sorted(path.iterdir()):
                classify(f"{path.name}/{each.name}", each, TOKENIZER, folder, found)
        elif path.name != CARD and not path.name.startswith("."):
            wanted = (*WEIGHTS, *TOKENIZER, *DESCRIPTION, *RESULTS, *OTHERS)
            classify(path.name, path, wanted, folder, found)
    return found


def classify(name: str, path: Path, wanted: tuple[str, ...], folder: Path, found: Publication) -> None:
    """Adds a file to those that are published or to those that are left out; errors are those of [`gather`]."""
    is_wanted = matches(path.name, wanted) and not matches(path.name, PICKLES)
    if is_wanted:
        check_link(path, folder)
    if link_out(path, folder) is not None:
        found.left_out[name] = "a link out of the folder"
    elif path.is_dir():
        found.left_out[f"{name}/"] = "a folder of the run's own"
    elif matches(path.name, PICKLES):
        found.left_out[name] = PICKLE
    elif is_wanted:
        check_content(name, path)
        found.files[name] = without_private(path)
    else:
        kind = hidden_code(path) if path.exists() else None
        found.left_out[name] = kind or "no part of a model"


def check_link(path: Path, folder: Path) -> None:
    """
    Raises:
        ArgumentError: The path leads out of the folder.
    """
    if (real := link_out(path, folder)) is not None:
        raise ArgumentError(
            f"{path}: a link out of the folder, to {real}: put the file itself there (cp -rL follows links)"
        )


def without_private(path: Path) -> Path | bytes:
    """
    Returns a file as it is published: paths of this machine are taken out of records, and out of a model's
    descriptions where they say where it was loaded from. The file here stays as it is.

    Raises:
        ArgumentError: It holds a secret, or a path in another place.
    """
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            check_private(path, json.dumps(file.metadata() or {}))
        return path
    content = path.read_bytes()
    text = content.decode("utf-8", errors="replace")
    if path.suffix == ".json" and not matches(path.name, VOCABULARIES):
        stored = json.loads(text)
        if path.name in RESULTS and isinstance(stored, dict):
            # Facts for a card may look like a path, as sounds between strokes do; they are checked below.
            facts = {"facts": stored["facts"]} if "facts" in stored else {}
            stored = cleaned({name: stored[name] for name in stored if name not in LOCAL_FIELDS}) | facts
        else:
            stored = without_origins(stored)
            check_values(path, stored)
        if stored != json.loads(text):
            # Half of a pair of characters, which JSON can hold and UTF-8 cannot, stays written as a number.
            content = (json.dumps(stored, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
            text = content.decode()
    check_private(path, text, path.suffix != ".png" and not matches(path.name, VOCABULARIES))
    return content


def without_origins(value: Any) -> Any:
    """Returns a JSON value without the fields of `ORIGINS`, at any depth."""
    if isinstance(value, list):
        return [without_origins(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: without_origins(each) for name, each in value.items() if name not in ORIGINS}


def check_values(path: Path, value: Any, where: str = "") -> None:
    """
    Raises:
        ArgumentError: A text in a JSON value is a path of a machine.
    """
    if isinstance(value, dict | list):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            check_values(path, each, f"{where}.{name}".lstrip("."))
    elif isinstance(value, str) and is_path(value):
        raise ArgumentError(f"{path}: `{where}` holds a path of a machine, {value}: take it out")


def check_private(path: Path, text: str, places: bool = True) -> None:
    """
    Raises:
        ArgumentError: A text has a secret in it, or, if `places`, a path of this machine.
    """
    if (kind := secret_in(text)) is not None:
        raise ArgumentError(f"{path}: holds what looks like {kind}, which would be published: take it out")
    if places and (place := place_in(text)) is not None:
        raise ArgumentError(f"{path}: holds a path of this machine, {place}, which would be published: take it out")


def check_base(base: str, wanted: str) -> None:
    """
    Raises:
        ArgumentError: The base model is a folder, so that the adapter is of use to nobody else.
    """
    if Path(base).is_dir() or is_path(base):
        raise ArgumentError(
            f"{wanted}: an adapter of {base}, a folder here that nobody else has: publish that and train from its "
            "name, or merge the adapter with hf-xformer merge and publish the whole"
        )


def check_weights(folder: Path, trust_remote_code: bool) -> PreTrainedConfig | None:
    """
    Returns the configuration that the weights were checked by; None for an adapter.

    Raises:
        ArgumentError: The folder is no checkpoint, or its weights are incomplete, not those of its configuration or
            not finite.
    """
    if (base := base_of(str(folder))) is not None:
        check_base(base, str(folder))
        if not (folder / ADAPTER_WEIGHTS).exists():
            raise ArgumentError(f"{folder}: there are no weights ({ADAPTER_WEIGHTS})")
        read_header(folder / ADAPTER_WEIGHTS)
        check_finite(folder)
        return None
    stored = read_tensors(folder)
    if not stored:
        raise ArgumentError(f"{folder}: there are no weights (model.safetensors)")
    config = read_model_config(str(folder), trust_remote_code=trust_remote_code)
    if problems := list(compare(config, stored, trust_remote_code).sentences()):
        raise ArgumentError(f"{folder}: {len(problems)} weights are not the model's, such as {problems[0]}")
    check_finite(folder)
    return config


def add_code(config: PreTrainedConfig | None, found: Publication) -> None:
    """Adds this package's code, and a configuration that names it, to weights that were saved without."""
    if isinstance(config, XformerConfig) and "modeling_xformer.py" not in found.files:
        found.files[CONFIG] = config.to_json_string().encode()
        found.files |= {path.name: path for path in travelling_files()}


def prepare(folder: Path, repo_id: str, trust_remote_code: bool = False) -> Publication:
    """
    Checks a folder and returns its publication, with the card for its name on the Hub. The folder stays as it is.

    Raises:
        ArgumentError: Weights or card cannot be published.
    """
    config = check_weights(folder, trust_remote_code)
    found = gather(folder)
    add_code(config, found)
    record = read_json(folder / RECORD)
    facts = facts_of(record)
    if not (folder / CARD).exists():
        how = "hf-xformer card makes it" if record else "write it by hand, with language and license in its header"
        raise ArgumentError(f"{folder}: no model card (README.md); {how}")
    check_link(folder / CARD, folder)
    check_content(CARD, folder / CARD)
    written = read_text(folder / CARD)
    if why_kept(folder):
        # It names the folder here as the one to load.
        local = re.escape(named(record.get("card_name", str(folder))))
        text = re.sub(rf"(model=|from_pretrained\(){local}", lambda found: found[1] + named(repo_id), written)
    else:
        text = str(render(folder, facts, repo_id))
    if problems := problems_of(text, {*found.files, CARD}):
        how = ", or by hf-xformer card --card_facts" if record else ""
        raise ArgumentError(f"{folder / CARD}: {'; '.join(problems)}. Mend it by hand{how}")
    check_private(folder / CARD, text)
    found.files[CARD] = text.encode()
    if entries := hub_results(folder, facts):
        content = yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
        found.files[f"{EVAL_RESULTS_FOLDER}/{facts.dataset_id.replace('/', '--')}.yaml"] = content.encode()
    return found
