# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Writes a run's model card, README.md, out of what training and evaluation have recorded, and its pictures.

  hf-xformer card runs/g2p-quickstart
  hf-xformer card runs/de-en --card_facts my-facts.yaml --example "Guten Morgen"

Training writes a first card. This one has the scores of hf-xformer evaluate too, if they were written to the folder
with --output_file FOLDER/test_results.json, and a picture of the attention over an example. What no file knows, such
as licences and limits, comes from --card_facts, a YAML file such as model_cards/g2p-quickstart.yaml, or is marked in
the card to be filled in; a marked card is not published.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..checkpoints.loading import check_path, load_model, load_tokenizers
from ..decoding.attention_maps import can_plot, cross_attention, plot_attention
from ..errors import ArgumentError, one_line_errors
from ..files import ATTENTION, CARD, CURVES, RECORD, read_json
from ..hub.card import CardFacts, facts_of, problems_of, read_facts, render, write_card
from ..hub.curves import plot_curves
from ..hub.publication import gather
from .options import Parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path, help="a run's folder")
    parser.add_argument("--card_facts", type=Path, help="YAML file; by default what the run was given")
    parser.add_argument("--example", help="source text to show it with, instead of that file's")
    parser.add_argument("--overwrite", action="store_true", help="write over a card that was changed by hand")
    with one_line_errors():
        args = parser.parse_args(argv)
        check_path(str(args.checkpoint))
        facts = choose_facts(args)
        render(args.checkpoint, facts, str(args.checkpoint))  # which may refuse, before anything is drawn
        draw(args.checkpoint, facts)
        write_card(args.checkpoint, facts, args.overwrite)
        text = (args.checkpoint / CARD).read_text(encoding="utf-8")
    for problem in problems_of(text, {*gather(args.checkpoint).files, CARD}):
        print(f"{args.checkpoint / CARD}: {problem}")
    print(f"{args.checkpoint / CARD} is written")


def choose_facts(args: argparse.Namespace) -> CardFacts:
    record = read_json(args.checkpoint / RECORD)
    facts = facts_of(record) if args.card_facts is None else read_facts(args.card_facts)
    return facts if args.example is None else replace(facts, example=args.example)


def draw(folder: Path, facts: CardFacts) -> None:
    """Curves from the trainer's log, and what the model looks at in the example."""
    if not can_plot():
        print("without pictures: pip install 'hf-xformer[plot]'")
        return
    if history := read_json(folder / "trainer_state.json").get("log_history"):
        plot_curves(history, folder / CURVES)
    if facts.example:
        source, target = load_tokenizers(str(folder))
        model = load_model(str(folder), attn_implementation="eager")
        weights, rows, columns = cross_attention(model, source, target, facts.example)
        if not columns:
            raise ArgumentError(f"the model says nothing to the example {facts.example!r}")
        plot_attention(weights, rows, columns, folder / ATTENTION, "mean of all layers and heads")
