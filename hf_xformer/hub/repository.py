# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The way to the Hub: repositories, commits of what has changed, and the pushes of a run while it trains."""

import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalTokenNotFoundError
from transformers import Seq2SeqTrainingArguments
from transformers.trainer_utils import HubStrategy

from ..errors import ArgumentError, InputError, one_line
from ..files import CARD, PUSHED, read_json, write_json
from .card import CardFacts, digest, missing_facts
from .publication import WEIGHTS, Publication, check_base, gather, matches, of_a_model, prepare


@contextmanager
def hub_call() -> Iterator[None]:
    """
    Turns any error of the Hub's library into an input error. Only calls of that library stand in the block: errors of
    the Hub, of the network and of the storage are of a dozen types, some of them as wide as `RuntimeError`.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise ArgumentError(why_refused(error)) from error


def why_refused(error: Exception) -> str:
    """Returns what the Hub, or the way to it, has against a call, and what to do about it."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return "the Hub does not know who you are: `hf auth login`, or set another HF_TOKEN"
    return (
        f"not to be had from the Hub: {one_line(error)}" if status is None else f"the Hub refused: {one_line(error)}"
    )


@dataclass
class Repository:
    """A repository of models on the Hub, and the branch that is pushed to; None for its main one."""

    api: HfApi
    name: str
    branch: str | None = None

    def make(self, private: bool | None) -> None:
        """
        Creates the repository and its branch if they do not exist yet, and sets `name` to the whole name.

        Raises:
            ArgumentError: The Hub refuses, or the repository should be private, and is there and public.
        """
        with hub_call():
            self.name = self.api.create_repo(self.name, private=private, exist_ok=True).repo_id
            public = private and not self.api.repo_info(self.name).private
        if public:
            raise ArgumentError(f"{self.name} is there and public: make it private on the Hub, or take another name")
        if self.branch is not None:
            with hub_call():
                self.api.create_branch(self.name, branch=self.branch, exist_ok=True)

    def stale(self, publication: Publication) -> list[str]:
        """
        Returns the files of an earlier push that would be taken for a part of this model: weights always; the rest of
        a model only if this one is whole, card and all.
        """
        whole = CARD in publication.files
        with hub_call():
            there = self.api.list_repo_files(self.name, revision=self.branch)
        old = (name for name in there if name not in publication.files)
        return sorted(name for name in old if matches(name, WEIGHTS) or (whole and of_a_model(name)))

    def push(self, publication: Publication, message: str) -> str:
        """Commits what has changed and returns the commit's address."""
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, content) for name, content in publication.files.items()
        ]
        operations += [CommitOperationDelete(name) for name in self.stale(publication)]
        with hub_call():
            done = self.api.create_commit(self.name, operations, commit_message=message, revision=self.branch)
        return done.commit_url

    def has_another_card(self, folder: Path, publication: Publication) -> bool:
        """Returns whether the repository has a card that was not pushed from this folder, such as one people wrote."""
        with hub_call():
            try:
                path = self.api.hf_hub_download(self.name, CARD, revision=self.branch, force_download=True)
            except EntryNotFoundError:
                return False
        there, new = Path(path).read_bytes(), publication.files.get(CARD)
        return there != new and digest(there) not in read_pushed(folder)


def read_pushed(folder: Path) -> list[str]:
    """Returns the digests of the cards that were pushed from a folder."""
    return read_json(folder / PUSHED, list)


def remember(folder: Path, publication: Publication) -> None:
    """Notes the card that was pushed, so that the next push may replace it."""
    card = publication.files.get(CARD)
    if isinstance(card, bytes):
        write_json(folder / PUSHED, sorted({*read_pushed(folder), digest(card)}))


def check_pushing(training_args: Seq2SeqTrainingArguments, facts: CardFacts, adapted: str | None) -> None:
    """
    Checks that a run can be pushed as `push_to_hub` asks, before it trains.

    Args:
        adapted: The base model, if the run trains an adapter.

    Raises:
        ArgumentError: `push_to_hub` cannot be done as asked, or the card would have empty fields.
    """
    if not training_args.push_to_hub:
        return
    if training_args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        raise ArgumentError(
            f"--hub_strategy {HubStrategy(training_args.hub_strategy).value} would publish optimizers, which are "
            "pickles: take every_save or end"
        )
    if missing := missing_facts(facts):
        raise ArgumentError(f"--push_to_hub publishes a model card: --card_facts FILE has to say {', '.join(missing)}")
    if adapted is not None:
        check_base(adapted, "--push_to_hub")


class RunPublisher:
    """
    Pushes a run: its checkpoints in the background while it trains, all of it at the end.

    A push that fails is a warning: the run is worth more.
    """

    def __init__(self, repository: Repository):
        self.repository = repository
        self.pending: Future | None = None

    @classmethod
    def of(cls, training_args: Seq2SeqTrainingArguments) -> "RunPublisher":
        """
        Returns the publisher that `push_to_hub` asks for, and makes its repository.

        Raises:
            ArgumentError: The Hub refuses to make it.
        """
        name = training_args.hub_model_id or Path(str(training_args.output_dir)).absolute().name
        repository = Repository(HfApi(token=training_args.hub_token), name, training_args.hub_revision)
        if training_args.process_index == 0:
            try:
                repository.make(training_args.hub_private_repo)
            except ArgumentError as error:
                raise ArgumentError(f"--push_to_hub {name}: {error}") from error
        return cls(repository)

    def is_busy(self) -> bool:
        return self.pending is not None and not self.pending.done()

    def push_checkpoint(self, folder: Path, message: str) -> None:
        """Starts pushing the weights, tokenizer and code of a checkpoint."""
        self.finish()
        try:
            found = gather(folder)
            # The Trainer may remove the folder while it is being sent.
            found.files = {name: content_of(each) for name, each in found.files.items()}
        except OSError as error:
            return self.warn(error)
        self.pending = self.repository.api.run_as_future(self.repository.push, found, message)

    def finish(self) -> None:
        """Waits for the last push."""
        if self.pending is not None and (error := self.pending.exception()) is not None:
            self.warn(error)
        self.pending = None

    def warn(self, error: BaseException) -> None:
        print(f"WARNING: a push to {self.repository.name} failed: {described(error)}")

    def push_run(self, folder: Path) -> Iterable[str]:
        """Pushes the finished run, card and results included; yields lines for the user."""
        self.finish()
        name = self.repository.name
        try:
            publication = prepare(folder, name)
            if self.repository.has_another_card(folder, publication):
                del publication.files[CARD]
                yield f"WARNING: {name} has a README.md that was not pushed from here: it stays as it is"
            yield f"pushed to {self.repository.push(publication, 'End of training')}"
            remember(folder, publication)
        except Exception as error:
            yield f"WARNING: not pushed to {name}: {described(error)}"
            yield f"hf-xformer push {folder} {name} tries again"


def described(error: BaseException) -> str:
    """Returns an error as one line; of a bug the traceback is printed too, since the run goes on."""
    if not isinstance(error, InputError | OSError):
        traceback.print_exception(error)
    return one_line(error)


def content_of(each: Path | bytes) -> bytes:
    return each.read_bytes() if isinstance(each, Path) else each
