# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Names of the files in a run's and a checkpoint's folder; reading them; writing a file whole or not at all."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from .errors import ArgumentError


PACKAGE = Path(__file__).parent
# Where `configs/` and `model_cards/` are: inside an installed package, or beside it in the source tree.
SHARE_ROOTS = (PACKAGE / "share", PACKAGE.parent)

# Of every checkpoint.
CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
TARGET_TOKENIZER = "target_tokenizer"  # a folder beside the source's tokenizer, if the target has its own
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Of a run's checkpoints.
CHECKPOINT = "checkpoint-{step}"
TRAINER_STATE = "trainer_state.json"
AVERAGES = "averages.safetensors"  # weights averaged over the steps (--ema_decay)
OPTIMIZER_SHARDS = "optimizer_shards"  # the optimizer's parts under tensor parallelism
# Of a run's folder.
RECORD = "run.json"
TRAIN_RESULTS, EVAL_RESULTS, TEST_RESULTS = "train_results.json", "eval_results.json", "test_results.json"
CARD, CURVES, ATTENTION = "README.md", "curves.png", "attention.png"
PUSHED = ".pushed.json"  # digests of the cards that were pushed from the folder
CARD_TEMPLATE = "model_cards/template.md"  # ships with the package


def find(path: str | Path) -> Path:
    """Returns the path itself if it exists; else the package's own file of that name, if there is one."""
    path = Path(path)
    if path.exists() or path.parts[:1] not in (("configs",), ("model_cards",)):
        return path
    return next((root / path for root in SHARE_ROOTS if (root / path).exists()), path)


def travelling_files() -> list[Path]:
    """Returns the code that transformers copies beside the weights of a checkpoint."""
    return sorted((PACKAGE / "models").glob("*_xformer.py"))


def checkpoint_folder(output_dir: str | Path, step: int) -> Path:
    """Returns the folder of the checkpoint that a run saves after `step` steps."""
    return Path(output_dir, CHECKPOINT.format(step=step))


def checkpoints_of(output_dir: Path) -> list[Path]:
    """Returns the checkpoints in a run's folder, in the order of their steps."""
    found = [path for path in output_dir.glob(CHECKPOINT.format(step="*")) if step_of(path) is not None]
    return sorted(found, key=lambda path: step_of(path) or 0)


def step_of(checkpoint: Path) -> int | None:
    """Returns the step that a checkpoint's folder is named after, or None if it is named otherwise."""
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match[1]) if match else None


def read_json(path: Path) -> dict:
    """
    Reads a JSON file; an empty dictionary if there is none.

    Raises:
        ArgumentError: The file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ArgumentError(f"{path}: not JSON: {error}") from error


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """
    Writes a file so that a reader sees all of it or none: `write` fills another file, which then takes the name.

    Args:
        write: Called with the path of the unfinished file, in the same folder.
    """
    unfinished = path.with_name(f"{path.name}.partial")
    write(unfinished)
    os.replace(unfinished, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole."""
    write_whole(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file whole, indented."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


class YamlLoader(yaml.SafeLoader):
    """Reads scalars as YAML 1.2 does, `save_strategy: no` as a word and `1e-4` as a number, and each key once."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if repeated := {key for key in keys if keys.count(key) > 1}:
            raise yaml.YAMLError(f"{', '.join(map(repr, sorted(repeated)))} stands there twice")
        return super().construct_mapping(node, deep)


YAML_1_2 = {
    "bool": re.compile(r"^(?:true|false)$"),
    "float": re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$"),
}

YamlLoader.yaml_implicit_resolvers = {
    first: sorted(
        ((tag, YAML_1_2.get(tag.rpartition(":")[2], regexp)) for tag, regexp in resolvers),
        key=lambda resolver: resolver[0].endswith(":float"),  # after the integers, which look like them
    )
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str):
    return yaml.load(text, Loader=YamlLoader)
