# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Draws where a checkpoint looks while it decodes: the cross-attention of a pair as a heat map, a PNG file.

  hf-xformer attention runs/g2p-quickstart "K U B E R N E T E S"
  hf-xformer attention runs/de-en "Guten Morgen" --target "Good morning" --layer 4 --output morning.png

A row is a token of the target and shows where the model looks in the step that makes this token. Without --target it
is what the model says itself, decoded greedily, or as much of it as a picture has room for. Without --layer and --head
it is the mean over all of them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..checkpoints.loading import load_model, load_tokenizers
from ..checkpoints.vocabulary import check_vocabulary
from ..decoding.attention_maps import can_plot, cross_attention, plot_attention
from ..errors import ArgumentError, one_line_errors
from .options import Parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("checkpoint", help="folder or Hub name")
    parser.add_argument("source", help="the text to decode")
    parser.add_argument("--target", help="the text to make the model say; by default what it says")
    parser.add_argument("--layer", type=int, help="of the decoder, from 1; by default the mean of all")
    parser.add_argument("--head", type=int, help="from 1; by default the mean of all")
    parser.add_argument("--output", type=Path, default=Path("attention.png"), help="PNG file (default attention.png)")
    with one_line_errors():
        args = parser.parse_args(argv)
        check_options(args)
        source, target = load_tokenizers(args.checkpoint)
        model = load_model(args.checkpoint, attn_implementation="eager")
        check_vocabulary(model.config, source, target)
        sides = (source, target, args.source, args.target)
        weights, rows, columns = cross_attention(model, *sides, layer=args.layer, head=args.head)
        which = [f"{name} {number}" for name in ("layer", "head") if (number := getattr(args, name))]
        plot_attention(weights, rows, columns, args.output, ", ".join(which) or "mean of all layers and heads")
    print(f"{args.output}: {' '.join(columns)}")


def check_options(args: argparse.Namespace) -> None:
    if not can_plot():
        raise ArgumentError("pictures need matplotlib: pip install 'hf-xformer[plot]'")
    if not args.output.parent.is_dir():
        raise ArgumentError(f"--output {args.output}: there is no folder {args.output.parent}")
    for name in ("source", "target"):
        text = getattr(args, name)
        if text is not None and not text.strip():
            raise ArgumentError(f"the {name} is empty: {text!r}")
