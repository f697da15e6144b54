# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A small task on disk and the command line of a run of a few seconds on it."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest


ROOT = Path(__file__).resolve().parent.parent
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


def load_script(name: str) -> ModuleType:
    """A file of scripts/ as a module, which imports from its own folder as it does when it is run."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        spec.loader.exec_module(module)
    return module
