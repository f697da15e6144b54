# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Publishes a run's folder on the Hub: weights, tokenizer, generation config, code, model card, results and pictures.

  hf-xformer push runs/g2p-quickstart user/g2p --dry_run
  hf-xformer push runs/g2p-quickstart user/g2p --private
  hf-xformer push runs/g2p-quickstart user/g2p --branch better --message "Trained for longer"

Others load it with AutoModelForSeq2SeqLM.from_pretrained("user/g2p"), with hf_xformer installed or with
trust_remote_code=True. A second push sends what has changed, and deletes there what would be taken for a part of this
model and is none: weights, code, tokenizers and results of an earlier one. Pickles (training_args.bin, optimizers) and
a run's own checkpoints are never sent. Weights that are not whole and a card with an empty field or a broken link are
refused.
Log in before with `hf auth login`, or set HF_TOKEN.
"""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id

from ..checkpoints.loading import check_path
from ..errors import ArgumentError, one_line_errors
from ..hub.publication import Publication, prepare
from ..hub.repository import Repository, remember, why_refused
from .options import Parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path, help="a run's folder")
    parser.add_argument("repo_id", help="name on the Hub, as user/name, or name for your own")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--branch", help="push to this branch, made if there is none; main by default")
    parser.add_argument("--message", default="Push an Xformer checkpoint", help="of the commit")
    parser.add_argument("--overwrite", action="store_true", help="replace a card that was written on the Hub")
    parser.add_argument("--dry_run", action="store_true", help="print what would be sent, and send nothing")
    with one_line_errors():
        args = parser.parse_args(argv)
        check_options(args)
        repository = Repository(HfApi(), args.repo_id, args.branch)
        publication = prepare(args.checkpoint, args.repo_id)
        print(f"{args.repo_id}:", *publication.tree(), sep="\n")
        if args.dry_run:
            print_stale(repository, publication)
            print("nothing was sent: --dry_run")
            return
        try:
            print(send(repository, publication, args))
        except Exception as error:
            raise ArgumentError(f"{args.repo_id}: {why_refused(error)}") from error


def send(repository: Repository, publication: Publication, args: argparse.Namespace) -> str:
    """The address of the commit."""
    repository.make(args.private)
    if repository.name != args.repo_id:
        publication = prepare(args.checkpoint, repository.name)  # whose card has the whole name
    if not args.overwrite and repository.has_another_card(args.checkpoint, publication):
        raise ArgumentError("its README.md was not pushed from this folder: --overwrite replaces it")
    print_stale(repository, publication)
    url = repository.push(publication, args.message)
    remember(args.checkpoint, publication)
    return url


def print_stale(repository: Repository, publication: Publication) -> None:
    """What an earlier push left there and this one takes away; nothing where there is no repository to ask."""
    with suppress(Exception):
        for name in repository.stale(publication):
            print(f"  {name:40} is deleted there: of an earlier push, and no part of this model")


def check_options(args: argparse.Namespace) -> None:
    check_path(str(args.checkpoint))
    if not args.checkpoint.is_dir():
        raise ArgumentError(f"{args.checkpoint}: there is no such folder")
    validate_repo_id(args.repo_id)
