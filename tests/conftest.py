# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test may ask for."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import torch


# Read when the libraries are imported: a name that is no folder fails at once and not after many tries.
os.environ["HF_HUB_OFFLINE"] = "1"

from hf_xformer.tokenization import train_tokenizer  # noqa: E402


ROOT = Path(__file__).resolve().parent.parent


# The models here are tiny and the workers several: more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the project's source tree."""
    return ROOT


SMALL = "d_model=16,encoder_layers=1,decoder_layers=1,encoder_ffn_dim=24,decoder_ffn_dim=24,dropout=0.0"


@dataclass(frozen=True)
class Task:
    """A small task on disk: spell a word of some letters backwards, one symbol a letter."""

    folder: Path

    @property
    def train(self) -> str:
        return str(self.folder / "train.jsonl")

    @property
    def validation(self) -> str:
        return str(self.folder / "validation.jsonl")

    @property
    def tokenizer(self) -> str:
        return str(self.folder / "tokenizer")

    def options(self, output_dir: Path, **more) -> list[str]:
        """Command line of a run of a few seconds; `more` overrides, None leaves out."""
        options = {
            "config_name": str(ROOT / "configs/model/tiny.json"),
            "config_overrides": SMALL,
            "tokenizer_name": self.tokenizer,
            "train_file": self.train,
            "output_dir": str(output_dir),
            "max_source_length": 12,
            "max_target_length": 12,
            "per_device_train_batch_size": 8,
            "max_steps": 6,
            "learning_rate": 1e-2,
            "logging_steps": 2,
            "save_strategy": "no",
            "use_cpu": "true",
            "report_to": "none",
            "disable_tqdm": "true",
            **more,
        }
        return [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]


@pytest.fixture(scope="session")
def task(tmp_path_factory) -> Task:
    folder = tmp_path_factory.mktemp("backwards")
    random = Random(0)
    for split, count in (("train", 160), ("validation", 21)):
        with open(folder / f"{split}.jsonl", "w") as output:
            for _ in range(count):
                letters = random.choices("ABCDEFGH", k=random.randint(2, 9))
                row = {"source": " ".join(letters), "target": " ".join(reversed(letters))}
                output.write(json.dumps(row) + "\n")
    train_tokenizer((" ".join("ABCDEFGH"),), "symbol").save_pretrained(folder / "tokenizer")
    return Task(folder)
