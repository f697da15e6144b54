# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Merges an adapter into the weights of its base model: the result is an ordinary checkpoint.

  hf-xformer merge runs/de-en-lora runs/de-en-merged
  hf-xformer merge runs/de-en-lora runs/de-en-merged --dtype bfloat16 --overwrite

The new folder holds weights, tokenizer and generation config. It decodes as the adapter does, needs no PEFT, and
hf-xformer train --model_name_or_path trains it further.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from ..checkpoints.adapters import base_of, merge_adapter
from ..checkpoints.averaging import note_of_averages
from ..checkpoints.loading import check_path, load_model, load_tokenizers, read_config
from ..checkpoints.saving import check_checkpoint_folder, save_checkpoint
from ..errors import ArgumentError, one_line_errors
from ..files import ADAPTER_CONFIG, EVAL_RESULTS, RECORD, TEST_RESULTS, TRAINER_STATE, read_json, write_whole
from ..hub.publication import RESULTS
from ..hub.record import update_record
from .options import Parser, add_overwrite, add_trust


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("merge", __doc__)
    parser.add_argument("adapter", help="folder or Hub name of the adapter, such as a run's with --lora_rank")
    parser.add_argument("out", type=Path, help="folder to write")
    add_overwrite(parser, "write into a folder that is not empty")
    add_trust(parser)
    dtypes = ["float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", choices=dtypes, default="float32", help="type of the weights (default float32)")
    args = parser.parse_args(argv)
    check_path(args.adapter)
    base = base_of(args.adapter)
    if base is None:
        if not Path(args.adapter).exists():
            read_config(args.adapter, trust_remote_code=args.trust_remote_code)  # which says that it is nowhere
        raise ArgumentError(f"{args.adapter}: not an adapter: it has no {ADAPTER_CONFIG}")
    check_checkpoint_folder(args.out, [args.adapter, base], args.overwrite)
    source, target = load_tokenizers(args.adapter, trust_remote_code=args.trust_remote_code)
    # In full precision, so that each weight is rounded once.
    model = load_model(args.adapter, trust_remote_code=args.trust_remote_code, dtype=torch.float32)
    if note := note_of_averages(args.adapter):
        print(note)
    model = merge_adapter(model, args.adapter)
    model = model.to(getattr(torch, args.dtype))
    results: tuple[str, ...] = (*RESULTS, TRAINER_STATE)
    if args.dtype != "float32":
        results = tuple(name for name in results if name not in (EVAL_RESULTS, TEST_RESULTS))
        if left := [name for name in (EVAL_RESULTS, TEST_RESULTS) if Path(args.adapter, name).exists()]:
            print(
                f"{', '.join(left)} stay behind: scores of weights in float32; evaluate them with --dtype {args.dtype}"
            )
    carry = partial(carry_record, Path(args.adapter), results=results)
    save_checkpoint(args.out, model, source, target, add=carry, earlier=(*RESULTS, TRAINER_STATE))
    print(f"{args.out}: {args.adapter} merged into {base}, {args.dtype}")


def carry_record(adapter: Path, out: Path, results: Sequence[str]) -> None:
    """Takes the record and results of the adapter's run along, which fill the merged model's card."""
    if record := read_json(adapter / RECORD):
        kept = {name: record[name] for name in record if name != "card_sha256"}
        update_record(out, kept | {"adapter_parameters": None, "adapter_type": None})
        for name in results:
            if name != RECORD and (adapter / name).exists():
                write_whole(out / name, partial(shutil.copyfile, adapter / name))
