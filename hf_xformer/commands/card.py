# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Writes a run's model card, README.md, from what training and evaluation have recorded, and its pictures.

  hf-xformer card runs/g2p-quickstart
  hf-xformer card runs/de-en --card_facts my-facts.yaml --example "Guten Morgen"

Training writes a first card. This one also has the scores of hf-xformer evaluate, if they were written to the folder
with --output_file FOLDER/test_results.json, and what the model makes of an example, with a picture of its attention.
Licences, limits and all else that only people know come from --card_facts, a YAML file such as
model_cards/g2p-quickstart.yaml. Facts that it lacks are marked in the card, and hf-xformer push refuses a card with
marks.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.loading import check_local, load_model, load_tokenizers
from ..data.pictures import can_plot
from ..decoding.attention_maps import cross_attention, plot_attention
from ..decoding.decoder import Decoder
from ..errors import ArgumentError, one_line_errors
from ..files import ATTENTION, CARD, CURVES, RECORD, TRAINER_STATE, read_json, read_text
from ..hub.card import CardFacts, check_unedited, facts_of, problems_of, read_facts, render, write_card
from ..hub.curves import plot_curves
from ..hub.publication import gather
from ..training.output_lock import refuse_live
from .options import Parser, add_checkpoint, add_overwrite


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("card", __doc__)
    add_checkpoint(parser, "a run's folder", type=Path)
    parser.add_argument("--card_facts", type=Path, help="YAML file (default: the facts that the run was given)")
    parser.add_argument("--example", help="source text to show the model with (default: the facts' example)")
    add_overwrite(parser, "replace a card that was changed by hand")
    args = parser.parse_args(argv)
    check_local(args.checkpoint)
    refuse_live(args.checkpoint, "write the card of")
    facts = choose_facts(args)
    # All that may be refused, before anything is drawn.
    render(args.checkpoint, facts, str(args.checkpoint))
    if not args.overwrite:
        check_unedited(args.checkpoint)
    written = show(args.checkpoint, facts, args.trust_remote_code)
    write_card(args.checkpoint, facts, args.overwrite, written)
    card = args.checkpoint / CARD
    try:
        for problem in problems_of(read_text(card), {*gather(args.checkpoint).files, CARD}):
            print(f"{card}: {problem}")
    except ArgumentError as error:  # the card is written; only `push` refuses
        print(f"cannot be published: {error}")
    print(f"{card} is written")


def choose_facts(args: argparse.Namespace) -> CardFacts:
    record = read_json(args.checkpoint / RECORD)
    facts = facts_of(record) if args.card_facts is None else read_facts(args.card_facts)
    return facts if args.example is None else replace(facts, example=args.example)


def show(folder: Path, facts: CardFacts, trust_remote_code: bool) -> str | None:
    """Returns what the model writes for the example; draws what it looks at there, and the curves of the run's log."""
    if not can_plot():
        print("without pictures: pip install 'hf-xformer[plot]'")
    elif history := read_json(folder / TRAINER_STATE).get("log_history"):
        plot_curves(history, folder / CURVES)
    if not facts.example:
        return None
    source, target = load_tokenizers(str(folder), trust_remote_code=trust_remote_code)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "dtype": torch.float32}
    model = load_model(str(folder), attn_implementation="eager", **options)
    # Without a picture too: an example that is too long is refused, where a decoder would cut it.
    weights, rows, columns = cross_attention(model, source, target, facts.example)
    ((best, *_),) = Decoder(model, source, target).decode([facts.example])
    if not (columns and best.text):
        raise ArgumentError(f"{folder}: the model says nothing to the example {facts.example!r}")
    if can_plot():
        plot_attention(weights, rows, columns, folder / ATTENTION, "mean of all layers and heads")
    return best.text
