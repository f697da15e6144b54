# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Converts a stock transformers encoder-decoder, from a folder or the Hub, into an Xformer checkpoint.

  hf-xformer convert google/flan-t5-small runs/flan-t5-small
  hf-xformer convert facebook/mbart-large-50 runs/mbart-en-ro --src_lang en_XX --tgt_lang ro_RO

Known are BART, mBART, Marian, M2M100, NLLB, Pegasus, T5, mT5, Flan-T5, UMT5, and T5Gemma without soft-capping. The new
folder holds the weights in the type they had, the tokenizer and the generation config: it decodes as the old one does,
with hf-xformer generate or `AutoModelForSeq2SeqLM`, and scripts/train.py trains it on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..checkpoints.conversion import convert_checkpoint, languages_of
from ..errors import one_line_errors
from .options import Parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("source", help="folder or Hub name of the stock checkpoint")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    languages = parser.add_argument_group("multilingual checkpoints", "in the tokenizer's words, such as en_XX")
    languages.add_argument("--src_lang", help="the language that the tokenizer takes sources to be in")
    languages.add_argument("--tgt_lang", help="the language to decode into")
    with one_line_errors():
        args = parser.parse_args(argv)
        model, tokenizer = convert_checkpoint(**vars(args))
    if tokenizer is None:
        print(f"{args.source} has no tokenizer: {args.out} has none either", file=sys.stderr)
    if args.tgt_lang is None and languages_of(tokenizer):
        print("several languages: --tgt_lang says which one to decode into and to be trained on", file=sys.stderr)
    millions = model.num_parameters() / 1e6
    print(f"{args.out}: {millions:.1f} M parameters, {str(model.dtype).removeprefix('torch.')}")
