# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Shows a checkpoint on a page in the browser: a text in; its best outputs, their scores and a picture of the attention
out. Programs call the same by HTTP.

  hf-xformer demo runs/g2p-quickstart
  hf-xformer demo user/g2p --num_beams 8 --n_best 5 --port 8080

The page is for this machine alone, unless --host says otherwise: 0.0.0.0 is for whoever reaches the machine. Texts
are decoded one at a time, the others wait. Nothing is fetched from the network, neither for the server nor for the
page. Ctrl-C ends it. `hf-xformer push --space` makes the page a Space of the Hub.
"""

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from functools import partial
from importlib import util
from pathlib import Path

from ..data.pictures import can_plot
from ..errors import ArgumentError, one_line_errors
from .options import Parser, add_checkpoint, add_languages, add_revision, choose_device, whole_number


BEAMS, TEXTS = 4, 3


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("demo", __doc__)
    add_checkpoint(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=whole_number(0, 65535), default=7860, help="port; 0 for a free one (default 7860)"
    )
    parser.add_argument("--num_beams", type=whole_number(), default=BEAMS, help=f"beams (default {BEAMS})")
    parser.add_argument(
        "--n_best", type=whole_number(), help=f"texts for a source (default: {TEXTS}, or as many as there are beams)"
    )
    parser.add_argument(
        "--max_source_length",
        type=whole_number(),
        help="most tokens of a source; longer ones are refused (default: those of the longest one in the training, as "
        "the tokenizer records it)",
    )
    add_languages(parser)
    add_revision(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the accelerator, if there is one)")
    args = parser.parse_args(argv)
    check_options(args)
    try:
        run(args)
    except KeyboardInterrupt:
        print("ended")


def check_options(args: argparse.Namespace) -> None:
    if args.n_best is None:
        args.n_best = min(TEXTS, args.num_beams)
    if args.n_best > args.num_beams:
        raise ArgumentError(f"--n_best {args.n_best} needs as many --num_beams, and there are {args.num_beams}")
    if util.find_spec("gradio") is None:
        raise ArgumentError("hf-xformer demo needs gradio: pip install 'hf-xformer[demo]'")


def run(args: argparse.Namespace) -> None:
    """Loads the model and serves the page until an interrupt."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    from ..demo.answers import Answers
    from ..demo.page import ENDPOINT, free_port, make_page, serve

    port = free_port(args.host, args.port)
    say = partial(print, file=sys.stderr)
    if not can_plot():
        say("no pictures of the attention: they need matplotlib: pip install 'hf-xformer[demo]'")
    answers = Answers(
        args.checkpoint,
        args.num_beams,
        args.n_best,
        say,
        device=choose_device(args.device),
        trust_remote_code=args.trust_remote_code,
        revision=args.revision,
        max_source_length=args.max_source_length,
        overlong="keep",
        src_lang=args.src_lang,
        tgt_lang=args.tgt_lang,
    )
    page = make_page(answers, title_of(args.checkpoint))
    try:
        address = serve(page, args.host, port)
        print(f"{address}: {args.checkpoint}, {args.num_beams} beams, {args.n_best} texts; Ctrl-C ends it")
        print(f'by HTTP: gradio_client.Client("{address}").predict("TEXT", api_name="/{ENDPOINT}")', flush=True)
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def title_of(checkpoint: str) -> str:
    """Returns the name of a checkpoint; of a folder the last part, since the others are this machine's business."""
    return Path(os.path.abspath(checkpoint)).name if Path(checkpoint).is_dir() else checkpoint
