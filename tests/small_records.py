# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The record of a run that nobody has trained, and facts for its card."""

FACTS = {
    "summary": "Spells words backwards.",
    "language": "en",
    "license": "apache-2.0",
    "data": "Random words of the letters A to H.",
    "data_license": "cc0-1.0",
    "intended_use": "Tests.",
    "limits": "Everything else.",
}


def make_record(**changes) -> dict:
    """What training writes to run.json, with some entries changed."""
    return {
        "date": "2026-01-01T00:00:00Z",
        "recipe": "configs/train/a.yaml",
        "commit": None,
        "options": "--seed 7",
        "options_left_out": [],
        "base_model": None,
        "base_is_local": False,
        "trained_on": "train.jsonl",
        "evaluated_on": "validation.jsonl",
        "bad_rows_left_out": {},
        "parameters": 1000,
        "adapter_parameters": None,
        "adapter_type": None,
        "is_xformer": True,
        "model": {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "vocab_size": 12},
        "steps": 6,
        "batch": "8 pairs per step (1 process, no accumulation)",
        "optimisation": {"learning_rate": 0.01, "seed": 7},
        "seconds": 1.5,
        "hardware": {"kind": "cpu", "count": 2, "name": "2 cores of a CPU"},
        "versions": {"transformers": "5.24.0", "torch": "2.13.0+cpu"},
        "facts": FACTS,
        **changes,
    }
