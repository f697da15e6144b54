# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Draws where a checkpoint looks while it decodes: the cross-attention of a pair of texts as a heat map, a PNG file.

  hf-xformer attention runs/g2p-quickstart "K U B E R N E T E S"
  hf-xformer attention runs/de-en "Guten Morgen" --target "Good morning" --layer 4 --output morning.png

Each row is a token of the target, and shows where the model looks in the step that produces it. Without --target the
target is the model's own output, decoded greedily and cut to what a picture has room for. Without --layer and --head
the picture shows the mean over all of them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.averaging import note_of_averages
from ..checkpoints.loading import load_model, load_tokenizers
from ..checkpoints.vocabulary import check_vocabulary
from ..data.pictures import picture_format
from ..decoding.attention_maps import cross_attention, plot_attention
from ..decoding.languages import Languages
from ..errors import ArgumentError, one_line_errors
from ..files import ATTENTION
from .options import Parser, add_checkpoint, add_languages, check_output_file, whole_number


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("attention", __doc__)
    add_checkpoint(parser)
    parser.add_argument("source", help="text to decode")
    parser.add_argument("--target", help="target text (default: the model's own output)")
    parser.add_argument("--layer", type=whole_number(), help="decoder layer, from 1 (default: mean of all)")
    parser.add_argument("--head", type=whole_number(), help="attention head, from 1 (default: mean of all)")
    add_languages(parser)
    parser.add_argument("--output", type=Path, default=Path(ATTENTION), help="PNG file (default attention.png)")
    args = parser.parse_args(argv)
    check_options(args)
    source, target = load_tokenizers(args.checkpoint, trust_remote_code=args.trust_remote_code)
    options: dict[str, Any] = {"trust_remote_code": args.trust_remote_code, "dtype": torch.float32}
    model = load_model(args.checkpoint, attn_implementation="eager", **options)
    check_vocabulary(model.config, source, target)
    if note := note_of_averages(args.checkpoint):
        print(note, file=sys.stderr)
    languages = Languages(source, target, args.src_lang, args.tgt_lang)
    sides = (source, target, args.source, args.target)
    weights, rows, columns = cross_attention(model, *sides, args.layer, args.head, languages)
    if not columns:
        raise ArgumentError(f"{args.checkpoint}: decodes {args.source!r} to nothing: there is no attention to draw")
    which = [f"{name} {number}" for name in ("layer", "head") if (number := getattr(args, name))]
    plot_attention(weights, rows, columns, args.output, ", ".join(which) or "mean of all layers and heads")
    print(f"{args.output}: {' '.join(columns)}")


def check_options(args: argparse.Namespace) -> None:
    picture_format(args.output)
    check_output_file("--output", args.output)
    for name in ("source", "--target"):
        text = getattr(args, name.removeprefix("--"))
        if text is not None and not text.strip():
            raise ArgumentError(f"{name} is empty: {text!r}")
