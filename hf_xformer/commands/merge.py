# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Puts what an adapter has learned into the weights of the model that it belongs to: an ordinary checkpoint.

  hf-xformer merge runs/de-en-lora runs/de-en-merged

The new folder holds weights, tokenizer and generation config. It decodes as the adapter does, needs no PEFT, and
scripts/train.py trains it on.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ..checkpoints.adapters import base_of, merge_adapter
from ..checkpoints.loading import check_path, load_model, load_tokenizers
from ..errors import ArgumentError, one_line_errors
from ..files import RECORD, TARGET_TOKENIZER, read_json
from ..hub.publication import RESULTS
from ..hub.record import update_record
from .options import Parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("adapter", help="folder or Hub name of the adapter, such as a run's with --lora_rank")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    dtypes = ["float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", choices=dtypes, default="float32", help="of the weights (default: %(default)s)")
    with one_line_errors():
        args = parser.parse_args(argv)
        check_path(args.adapter)
        if base_of(args.adapter) is None:
            raise ArgumentError(f"{args.adapter}: not an adapter: it has no adapter_config.json")
        check_out(args.out, args.adapter, args.overwrite)
        source, target = load_tokenizers(args.adapter)
        # In full precision, so that each weight is rounded once.
        model = merge_adapter(load_model(args.adapter, dtype=torch.float32), args.adapter)
        model.to(getattr(torch, args.dtype)).save_pretrained(args.out)
        source.save_pretrained(args.out)
        if target is not source:
            target.save_pretrained(args.out / TARGET_TOKENIZER)
        carry_record(Path(args.adapter), args.out)
    print(f"{args.out}: {args.adapter} merged into {base_of(args.adapter)}, {args.dtype}")


def carry_record(adapter: Path, out: Path) -> None:
    """What is known of the adapter's run is so of the merged model, whose card it makes."""
    if record := read_json(adapter / RECORD):
        update_record(
            out, {name: record[name] for name in record if name != "card_sha256"} | {"adapter_parameters": None}
        )
        for name in (*RESULTS, "trainer_state.json"):
            if name != RECORD and (adapter / name).exists():
                shutil.copyfile(adapter / name, out / name)


def check_out(out: Path, adapter: str, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ArgumentError(f"{out}: not a folder")
    for name in filter(None, (adapter, base_of(adapter))):
        if out.resolve() == Path(name).resolve():
            raise ArgumentError(f"{out}: the merged model would overwrite {name}")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ArgumentError(f"{out}: the folder is not empty; --overwrite writes into it all the same")
    if (out / "adapter_config.json").exists():
        raise ArgumentError(f"{out}: holds an adapter: give another folder")
