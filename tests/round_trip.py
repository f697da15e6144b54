# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Checks that checkpoints saved in one environment load in another, with this package and without it.

  NEWEST/bin/python tests/round_trip.py save FOLDER
  OLDEST/bin/python tests/round_trip.py load FOLDER --again AGAIN
  NEWEST/bin/python tests/round_trip.py load AGAIN

`save` writes a few small models with what they compute. `load` compares: first where `hf_xformer` cannot be imported,
so that the code beside the weights runs, then with the package. AGAIN gets the models as the former saves them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from torch.testing import assert_close
from transformers import AutoModelForSeq2SeqLM


EXPECTED = "expected.json"
SEARCHES: dict[str, dict] = {
    "greedy": {"max_new_tokens": 6},
    "beams": {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 2},
}
ALONE = "alone"  # of a process that has only the code beside the weights


def kinds() -> dict[str, dict]:
    """The options of the models, by name."""
    from small_models import VANILLA, VARIANTS

    return {
        "modern": {"num_key_value_heads": 2, "qk_norm": True, "norm_position": "sandwich"},
        "vanilla": {**VANILLA, "use_final_logits_bias": True, "layernorm_embedding": True},
        "relative": VARIANTS["relative-pre"],
        "blocks": VARIANTS["rope-pre-blocks"],
        "two-vocabularies": {"encoder_vocab_size": 59},
        "untied": VARIANTS["none-pre-untied"],
    }


def compute(model, inputs: dict[str, list]) -> dict[str, list]:
    """Returns logits, and tokens of greedy and of beam search."""
    batch = {name: torch.tensor(rows) for name, rows in inputs.items()}
    with torch.no_grad():
        logits = model(**batch).logits.tolist()
    del batch["decoder_input_ids"]
    tokens = {name: model.generate(**batch, **options).tolist() for name, options in SEARCHES.items()}
    return {"logits": logits, **tokens}


def save(folder: Path) -> None:
    """Writes the models of `kinds`, each in a folder of its own with its inputs and what it computes."""
    from small_models import make_batch, make_model

    batch = make_batch()
    batch["decoder_input_ids"] = batch.pop("labels").clamp(min=2)
    inputs = {name: each.tolist() for name, each in batch.items()}
    for name, options in kinds().items():
        model = make_model(**options)
        model.save_pretrained(folder / name)
        write(folder / name, {"inputs": inputs, **compute(model, inputs)})
        print(f"saved {name}")


def write(folder: Path, expected: dict) -> None:
    (folder / EXPECTED).write_text(json.dumps(expected) + "\n", encoding="utf-8")


def load(folder: Path, again: Path | None, code: str) -> None:
    """
    Loads every model of a folder and compares what it computes.

    Args:
        again: Where each is saved anew; None for nowhere.
        code: Name of the module, or its beginning, that the models' classes have to come from.
    """
    for path in sorted(folder.glob(f"*/{EXPECTED}")):
        expected = json.loads(path.read_text(encoding="utf-8"))
        options = {"trust_remote_code": code != "hf_xformer", "output_loading_info": True}
        model, info = AutoModelForSeq2SeqLM.from_pretrained(path.parent, **options)
        assert type(model).__module__.startswith(code), f"{path.parent}: loaded {type(model)}"
        assert not any(info.values()), f"{path.parent}: {info}"
        found = compute(model, expected["inputs"])
        assert_close(torch.tensor(found["logits"]), torch.tensor(expected["logits"]), atol=1e-5, rtol=1e-5)
        for name in SEARCHES:
            assert found[name] == expected[name], f"{path.parent}: other tokens, {name}"
        if again is not None:
            model.save_pretrained(again / path.parent.name)
            write(again / path.parent.name, expected)
        print(f"loaded {path.parent.name} by the code of {code}")


def load_alone(folder: Path, again: Path | None) -> None:
    """Does it in a process of its own, in which the package cannot be imported, with an empty cache of code."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, ALONE, str(folder), *([] if again is None else ["--again", str(again)])]
        environment = {**os.environ, "HF_MODULES_CACHE": cache, "HF_HUB_OFFLINE": "1"}
        subprocess.run(command, env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["save", "load", ALONE])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--again", type=Path)
    given = parser.parse_args()
    print(f"{given.action}: transformers {version('transformers')}, torch {version('torch')}", flush=True)
    if given.action == "save":
        shutil.rmtree(given.folder, ignore_errors=True)
        save(given.folder)
        return
    if not list(given.folder.glob(f"*/{EXPECTED}")):
        raise SystemExit(f"{given.folder}: no models that `save` wrote")
    if given.action == ALONE:
        sys.modules["hf_xformer"] = None  # type: ignore[assignment] - importing it fails
        load(given.folder, given.again, "transformers_modules.")
        return
    load_alone(given.folder, given.again)
    import hf_xformer  # noqa: F401 - registers the classes

    load(given.folder, None, "hf_xformer")


if __name__ == "__main__":
    main()
