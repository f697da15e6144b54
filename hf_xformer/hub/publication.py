# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A publication: the files of a run's folder that belong on the Hub, checked before they go."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import eval_result_entries_to_yaml
from huggingface_hub.constants import EVAL_RESULTS_FOLDER
from huggingface_hub.utils import yaml_dump
from transformers import PreTrainedConfig

from ..checkpoints.adapters import base_of
from ..checkpoints.loading import read_model_config
from ..checkpoints.weight_files import compare, read_header, read_tensors
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
from .card import facts_of, hub_results, is_edited, problems_of, render


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
    """Collects the files of a run's folder that make a published model: never a pickle, whose loading runs code."""
    found = Publication()
    for path in sorted(folder.iterdir()):
        if path.name == TARGET_TOKENIZER and path.is_dir():
            for each in sorted(path.iterdir()):
                classify(f"{path.name}/{each.name}", each, TOKENIZER, found)
        elif path.name != CARD and not path.name.startswith("."):
            classify(path.name, path, (*WEIGHTS, *TOKENIZER, *DESCRIPTION, *RESULTS, *OTHERS), found)
    return found


def classify(name: str, path: Path, wanted: tuple[str, ...], found: Publication) -> None:
    if path.is_dir():
        found.left_out[f"{name}/"] = "a folder of the run's own"
    elif matches(path.name, PICKLES):
        found.left_out[name] = "a pickle, which can run anything when it is loaded"
    elif matches(path.name, wanted):
        found.files[name] = path
    else:
        found.left_out[name] = "no part of a model"


def check_base(base: str, wanted: str) -> None:
    """
    Raises:
        ArgumentError: The base model is a folder, so that the adapter is of use to nobody else.
    """
    if Path(base).is_dir():
        raise ArgumentError(
            f"{wanted}: an adapter of {base}, a folder here that nobody else has: publish that and train from its "
            "name, or merge the adapter with hf-xformer merge and publish the whole"
        )


def check_weights(folder: Path, trust_remote_code: bool) -> PreTrainedConfig | None:
    """
    Returns the configuration that the weights were checked by; None for an adapter.

    Raises:
        ArgumentError: The folder is no checkpoint, or its weights are incomplete or not those of its configuration.
    """
    if (base := base_of(str(folder))) is not None:
        check_base(base, str(folder))
        if not (folder / ADAPTER_WEIGHTS).exists():
            raise ArgumentError(f"{folder}: there are no weights ({ADAPTER_WEIGHTS})")
        read_header(folder / ADAPTER_WEIGHTS)
        return None
    stored = read_tensors(folder)
    if not stored:
        raise ArgumentError(f"{folder}: there are no weights (model.safetensors)")
    config = read_model_config(str(folder), trust_remote_code=trust_remote_code)
    if problems := list(compare(config, stored, trust_remote_code).sentences()):
        raise ArgumentError(f"{folder}: {len(problems)} weights are not the model's, such as {problems[0]}")
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
    written = read_text(folder / CARD)
    if is_edited(folder):
        # It names the folder here as the one to load.
        text = written.replace(f'"{record.get("card_name", folder)}"', f'"{repo_id}"')
    else:
        text = str(render(folder, facts, repo_id))
    if problems := problems_of(text, {*found.files, CARD}):
        how = ", or by hf-xformer card --card_facts" if record else ""
        raise ArgumentError(f"{folder / CARD}: {'; '.join(problems)}. Mend it by hand{how}")
    found.files[CARD] = text.encode()
    if entries := hub_results(folder, facts):
        content = yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
        found.files[f"{EVAL_RESULTS_FOLDER}/{facts.dataset_id.replace('/', '--')}.yaml"] = content.encode()
    return found
