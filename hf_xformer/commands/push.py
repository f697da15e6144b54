# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Publishes a run's folder on the Hub: weights, tokenizer, generation config, code, model card, results and pictures.

  python scripts/push_to_hub.py runs/g2p-quickstart user/g2p --dry_run
  python scripts/push_to_hub.py runs/g2p-quickstart user/g2p --private
  python scripts/push_to_hub.py runs/g2p-quickstart user/g2p --branch better --message "Trained for longer"

Others load it with AutoModelForSeq2SeqLM.from_pretrained("user/g2p"), with hf_xformer installed or with
trust_remote_code=True. A second push sends what has changed. Pickles (training_args.bin, optimizers) and a run's own
checkpoints are never sent. Weights that are not whole and a card with an empty field or a broken link are refused.
Log in before with `hf auth login`, or set HF_TOKEN.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id

from ..arguments import ArgumentError
from ..checkpoints import check_path
from ..publishing import make_repository, prepare, push, why_refused
from .errors import Parser, one_line_errors


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path, help="a run's folder")
    parser.add_argument("repo_id", help="name on the Hub, as user/name, or name for your own")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--branch", help="push to this branch, made if there is none; main by default")
    parser.add_argument("--message", default="Push an Xformer checkpoint", help="of the commit")
    parser.add_argument("--dry_run", action="store_true", help="print what would be sent, and send nothing")
    with one_line_errors():
        args = parser.parse_args(argv)
        check_options(args)
        publication = prepare(args.checkpoint, args.repo_id)
        print(f"{args.repo_id}:")
        print(*publication.tree(), sep="\n")
        if args.dry_run:
            print("nothing was sent: --dry_run")
            return
        api = HfApi()
        try:
            repo_id = make_repository(api, args.repo_id, args.private, args.branch)
            if repo_id != args.repo_id:
                publication = prepare(args.checkpoint, repo_id)  # whose card has the whole name
            url = push(api, repo_id, publication, args.message, args.branch)
        except Exception as error:
            raise ArgumentError(f"{args.repo_id}: {why_refused(error)}") from error
    print(url)


def check_options(args: argparse.Namespace) -> None:
    check_path(str(args.checkpoint))
    if not args.checkpoint.is_dir():
        raise ArgumentError(f"{args.checkpoint}: there is no such folder")
    validate_repo_id(args.repo_id)
