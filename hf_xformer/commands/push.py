# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Publishes a run's folder on the Hub: weights, tokenizer, generation config, code, model card, results and pictures.

  hf-xformer push runs/g2p-quickstart user/g2p --dry_run
  hf-xformer push runs/g2p-quickstart user/g2p --branch better --message "Trained for longer"
  hf-xformer push runs/g2p-quickstart user/g2p --space

Others load it with AutoModelForSeq2SeqLM.from_pretrained("user/g2p"), with hf_xformer installed or with
trust_remote_code=True. A second push sends what has changed. It deletes files of an earlier push that would be taken
for a part of this model: weights, code, tokenizers and results; where others have written to the repository it needs
--overwrite. Pickles and a run's checkpoints are never sent. Incomplete weights, a card with an empty field or a broken
link, secrets, paths of this machine and links out of the folder are refused.
With --space, a Space of the same name shows the model on the page of `hf-xformer demo`.
Log in first with `hf auth login`, or set HF_TOKEN.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import HfApi, is_offline_mode
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..checkpoints.loading import check_local
from ..errors import ArgumentError, blame, one_line_errors
from ..hub.publication import Publication, prepare
from ..hub.repository import ForeignError, Repository
from ..hub.space import Space, prepare_space
from ..training.output_lock import refuse_live
from .options import Parser, add_checkpoint, add_overwrite


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("push", __doc__)
    add_checkpoint(parser, "a run's folder", type=Path)
    parser.add_argument("repo_id", help="name on the Hub, as user/name, or name for your own")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--branch", help="branch to push to, made if there is none (default: main)")
    parser.add_argument("--message", default="Push an Xformer checkpoint", help="commit message")
    add_overwrite(parser, "replace and delete files there that were not pushed from this folder")
    parser.add_argument("--space", action="store_true", help="also make, or update, a Space that shows the model")
    parser.add_argument("--dry_run", action="store_true", help="print what would be sent, and send nothing")
    args = parser.parse_args(argv)
    check_options(args)
    api = HfApi()
    repository, space = Repository(api, args.repo_id, args.branch), Space(api, args.repo_id)
    publication = prepare(args.checkpoint, args.repo_id, args.trust_remote_code)
    print(f"{args.repo_id}:", *publication.tree(), sep="\n")
    page = page_of(args.repo_id, publication, args) if args.space else None
    if page is not None:
        print(f"{space.key}:", *page.tree(), sep="\n")
    if args.dry_run:
        print_stale(repository, publication, args)
        if page is not None:
            print_stale(space, page, args)
        print("nothing was sent: --dry_run")
        return
    if is_offline_mode():
        raise ArgumentError("HF_HUB_OFFLINE is set: nothing can be sent, and --dry_run lists what would be")
    with blamed(repository):
        print(send(repository, publication, args))
    if args.space:
        space.name = repository.name
        with blamed(space):
            print(send(space, page_of(repository.name, publication, args), args))
            if repository.is_private():
                print(f"{repository.name} is private: {space.key} needs a token that reads it, as its secret HF_TOKEN")


def page_of(name: str, publication: Publication, args: argparse.Namespace) -> Publication:
    return prepare_space(name, publication, args.branch, args.trust_remote_code)


@contextmanager
def blamed(repository: Repository) -> Iterator[None]:
    """Puts the name of a repository in front of an error."""
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(f"{repository.key}: {error}") from error


def send(repository: Repository, publication: Publication, args: argparse.Namespace) -> str:
    """Returns the address of the commit."""
    repository.create(args.private)
    if repository.kind == "model" and repository.name != args.repo_id:
        # Its card has the whole name.
        publication = prepare(args.checkpoint, repository.name, args.trust_remote_code)
    try:
        if not args.overwrite:
            repository.check_ours(args.checkpoint, publication)
        repository.make_branch()
        print_stale(repository, publication, args)
        return repository.push(publication, args.message, args.checkpoint, args.overwrite)
    except ForeignError as error:
        raise ArgumentError(f"{error}: take another name, or --overwrite replaces them") from error


def print_stale(repository: Repository, publication: Publication, args: argparse.Namespace) -> None:
    """Lists what is there and is deleted or in the way of this push; nothing if there is no repository to ask."""
    if is_offline_mode():
        print(f"{repository.key}: nobody has looked at what is there: HF_HUB_OFFLINE is set")
        return
    with suppress(ArgumentError):
        for name in repository.stale(publication):
            print(f"  {name:40} is deleted there: of an earlier push, and no part of this model")
        for name in repository.foreign(args.checkpoint, publication):
            print(f"  {name:40} was not pushed from this folder: only --overwrite replaces it")


def check_options(args: argparse.Namespace) -> None:
    check_local(args.checkpoint)
    refuse_live(args.checkpoint, "push")
    with blame(args.repo_id, HFValidationError):
        validate_repo_id(args.repo_id)
