# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Converts a stock transformers encoder-decoder, from a folder or the Hub, into an Xformer checkpoint.

  hf-xformer convert google/flan-t5-small runs/flan-t5-small
  hf-xformer convert facebook/mbart-large-50 runs/mbart-en-ro --src_lang en_XX --tgt_lang ro_RO

It converts BART, mBART, Marian, M2M100, NLLB, Pegasus, T5, mT5, Flan-T5, UMT5, and T5Gemma without soft-capping. The
new folder holds the weights in their own type, the tokenizer and the generation config. It decodes as the old one
does, with hf-xformer generate or `AutoModelForSeq2SeqLM`, and hf-xformer train --model_name_or_path trains it further.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..checkpoints.conversion import convert_checkpoint
from ..checkpoints.languages import languages_of
from ..data.probing import describe
from ..errors import one_line_errors
from .options import Parser, add_overwrite, add_trust


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("convert", __doc__)
    parser.add_argument("source", help="folder or Hub name of the stock checkpoint")
    parser.add_argument("out", type=Path, help="folder to write")
    add_overwrite(parser, "write into a folder that is not empty")
    add_trust(parser)
    languages = parser.add_argument_group("multilingual checkpoints", "codes as the tokenizer has them, such as en_XX")
    languages.add_argument("--src_lang", help="language of the sources")
    languages.add_argument("--tgt_lang", help="language to decode into")
    args = parser.parse_args(argv)
    model, tokenizer = convert_checkpoint(**vars(args))
    if tokenizer is None:
        print(f"{args.source} has no tokenizer: {args.out} has none either", file=sys.stderr)
    for line in [] if tokenizer is None else describe(tokenizer, tokenizer):
        print(line, file=sys.stderr)
    if args.tgt_lang is None and languages_of(tokenizer):
        print("several languages: --tgt_lang says which one to decode into and to be trained on", file=sys.stderr)
    millions = model.num_parameters() / 1e6
    print(f"{args.out}: {millions:.1f} M parameters, {str(model.dtype).removeprefix('torch.')}")
