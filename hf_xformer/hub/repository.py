# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The way to the Hub: repositories, commits of what has changed, and the pushes of a run while it trains."""

import hashlib
import re
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from transformers import Seq2SeqTrainingArguments
from transformers.trainer_utils import HubStrategy

from ..errors import ArgumentError, InputError, one_line
from ..files import CARD, PUSHED, read_json, write_json
from .card import CardFacts, missing_facts
from .privacy import place_in, secret_in
from .publication import WEIGHTS, Publication, check_base, gather, matches, of_a_model, prepare


# A card that the Hub's form for a new repository writes: a header with a licence at most, and no text.
EMPTY_CARD = re.compile(rb"\s*(---\r?\n(license: *\S*\r?\n)?---)?\s*")


class ForeignError(ArgumentError):
    """A repository has files that were not pushed from a run's folder."""


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
    """A repository of a model on the Hub, and the branch that is pushed to; None for its main one."""

    api: HfApi
    name: str
    branch: str | None = None

    kind: ClassVar[str] = "model"
    sdk: ClassVar[str | None] = None  # of a Space
    empty_card: ClassVar[re.Pattern[bytes]] = EMPTY_CARD

    @property
    def key(self) -> str:
        """Name in `PUSHED`; a model's is its own."""
        return self.name

    def create(self, private: bool | None) -> None:
        """
        Creates the repository if it does not exist yet, and sets `name` to the whole name. One that exists stays as
        private as it is.

        Raises:
            ArgumentError: The Hub refuses, or the repository should be private, and is there and public.
        """
        with hub_call():
            self.name = self.api.create_repo(
                self.name, private=private, repo_type=self.kind, exist_ok=True, space_sdk=self.sdk
            ).repo_id
            public = private and not self.is_private()
        if public:
            raise ArgumentError(f"{self.name} is there and public: make it private on the Hub, or take another name")

    def is_private(self) -> bool:
        return bool(self.api.repo_info(self.name, repo_type=self.kind).private)

    def make_branch(self) -> None:
        """Creates the branch, from the main one, if it does not exist yet."""
        if self.branch is not None:
            with hub_call():
                self.api.create_branch(self.name, branch=self.branch, repo_type=self.kind, exist_ok=True)

    def head(self) -> str:
        """Returns the branch's last commit; that of the main branch, from which it will be made, if there is none."""
        with hub_call():
            try:
                return str(self.api.repo_info(self.name, repo_type=self.kind, revision=self.branch).sha)
            except RevisionNotFoundError:
                return str(self.api.repo_info(self.name, repo_type=self.kind).sha)

    def listing(self, revision: str) -> dict[str, str]:
        """Returns the files at a commit, each with the hash of its content."""
        with hub_call():
            tree = self.api.list_repo_tree(self.name, recursive=True, revision=revision, repo_type=self.kind)
            there = list(tree)
        return {
            each.path: each.lfs.sha256 if each.lfs else each.blob_id for each in there if isinstance(each, RepoFile)
        }

    def stale(self, publication: Publication, there: Iterable[str] | None = None) -> list[str]:
        """
        Returns the files of an earlier push that would be taken for a part of this model: weights always; the rest of
        a model only if this one is whole, card and all.
        """
        whole = CARD in publication.files
        there = self.listing(self.head()) if there is None else there
        old = (name for name in there if name not in publication.files)
        return sorted(name for name in old if matches(name, WEIGHTS) or (whole and of_a_model(name)))

    def foreign(self, folder: Path, publication: Publication | None = None, head: str | None = None) -> list[str]:
        """
        Returns the files that a push would replace or delete though they were not pushed from this folder.

        Args:
            publication: What is pushed; None for whatever a run may push.
            head: The commit to look at; the branch's last one by default.
        """
        commit = head or self.head()
        there = self.listing(commit)
        ours = read_json(folder / PUSHED).get(self.key, {})
        unknown = {name for name, hashed in there.items() if hashed not in ours.get(name, [])}
        files = publication.files if publication else {name: folder / name for name in unknown}
        unknown -= {name for name in unknown if name in files and has_hash(files[name], there[name])}
        if CARD in unknown and self.has_empty_card(commit):
            unknown.remove(CARD)
        if publication is None:
            return sorted(name for name in unknown if of_a_model(name) or name == CARD)
        return sorted(unknown & {*publication.files, *self.stale(publication, there)})

    def has_empty_card(self, commit: str) -> bool:
        """Returns whether the card at a commit is the Hub's own for a new repository."""
        with hub_call():
            path = self.api.hf_hub_download(self.name, CARD, revision=commit, repo_type=self.kind)
        return self.empty_card.fullmatch(Path(path).read_bytes()) is not None

    def check_ours(self, folder: Path, publication: Publication | None = None, head: str | None = None) -> None:
        """
        Raises:
            ForeignError: The repository has files of others that a push would replace or delete.
        """
        if names := self.foreign(folder, publication, head):
            count = "a file that was" if len(names) == 1 else f"{len(names)} files that were"
            some = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
            raise ForeignError(f"{self.name} has {count} not pushed from this folder, {some}")

    def push(self, publication: Publication, message: str, folder: Path, overwrite: bool = False) -> str:
        """
        Commits what has changed and returns the commit's address.

        Args:
            folder: Where it is noted what was pushed, so that the next push may replace it.
            overwrite: Whether files of others may be replaced and deleted.

        Raises:
            ForeignError: There are files of others, and `overwrite` is off.
            ArgumentError: The Hub refuses, as where somebody else has committed at this moment, or has left files out.
        """
        head = self.head()
        if not overwrite:
            self.check_ours(folder, publication, head)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, content) for name, content in publication.files.items()
        ]
        before = self.listing(head)
        operations += [CommitOperationDelete(name) for name in self.stale(publication, before)]
        # Before it is true: a kill right after the commit must not make it another's.
        sent = self.remember(folder, publication)
        with hub_call():
            done = self.api.create_commit(
                self.name,
                operations,
                commit_message=message,
                repo_type=self.kind,
                revision=self.branch,
                parent_commit=head,
            )
        there = self.listing(done.oid)
        unsent = [name for name, hashed in sent.items() if there.get(name) not in hashed]
        lost = sorted(name for name in unsent if there.get(name) == before.get(name))
        if lost and ".gitignore" in there:
            some = ", ".join(lost[:3]) + ", ..." * (len(lost) > 3)
            # The library logs it where nobody looks.
            raise ArgumentError(
                f"{self.name} has a .gitignore, by which the Hub has left out {some}: take its lines about them out, "
                "and push again"
            )
        return done.commit_url

    def remember(self, folder: Path, publication: Publication) -> dict[str, tuple[str, str]]:
        """Notes the files that are pushed from a folder, and returns the hashes of each."""
        pushed = read_json(folder / PUSHED)
        ours = pushed.setdefault(self.key, {})
        sent = {name: hashes(content) for name, content in publication.files.items()}
        for name, hashed in sent.items():
            ours[name] = sorted({*ours.get(name, []), *hashed})
        write_json(folder / PUSHED, pushed)
        return sent


def hashes(content: Path | bytes) -> tuple[str, str]:
    """Returns the two hashes by which the Hub may list a content: git's of small texts, SHA-256 of the rest."""
    content = content_of(content)
    as_git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return as_git.hexdigest(), hashlib.sha256(content).hexdigest()


def has_hash(content: Path | bytes, hashed: str) -> bool:
    """Returns whether a content is there and has a hash of the Hub's."""
    return (isinstance(content, bytes) or content.is_file()) and hashed in hashes(content)


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
    for name, text in vars(facts).items():
        if found := secret_in(str(text)) or place_in(str(text)):
            raise ArgumentError(f"--push_to_hub publishes a model card: {name} in --card_facts holds {found}")
    if adapted is not None:
        check_base(adapted, "--push_to_hub")


class RunPublisher:
    """
    Pushes a run: its checkpoints in the background while it trains, all of it at the end.

    A push that fails is a warning: the run is worth more.

    Args:
        overwrite: Whether files there that were not pushed from the run's folder may be replaced and deleted.
    """

    def __init__(self, repository: Repository, overwrite: bool = False):
        self.repository, self.overwrite = repository, overwrite
        self.pending: Future | None = None

    @classmethod
    def of(cls, training_args: Seq2SeqTrainingArguments, overwrite: bool = False) -> "RunPublisher":
        """
        Returns the publisher that `push_to_hub` asks for, and makes its repository.

        Raises:
            ArgumentError: The Hub refuses to make it, or it has files of others and `overwrite` is off.
        """
        folder = Path(str(training_args.output_dir)).absolute()
        name = training_args.hub_model_id or folder.name
        repository = Repository(HfApi(token=training_args.hub_token), name, training_args.hub_revision)
        if training_args.process_index == 0:
            try:
                repository.create(training_args.hub_private_repo)
                if not overwrite:
                    repository.check_ours(folder)
                repository.make_branch()
            except ForeignError as error:
                way_out = "give another --hub_model_id, or --hub_overwrite true replaces them"
                raise ArgumentError(f"--hub_model_id {name}: {error}: {way_out}") from error
            except ArgumentError as error:
                raise ArgumentError(f"--push_to_hub {name}: {error}") from error
        return cls(repository, overwrite)

    def is_busy(self) -> bool:
        return self.pending is not None and not self.pending.done()

    def push_checkpoint(self, folder: Path, message: str) -> None:
        """Starts pushing the weights, tokenizer and code of a checkpoint."""
        self.finish()
        try:
            found = gather(folder)
            # The Trainer may remove the folder while it is being sent.
            found.files = {name: content_of(each) for name, each in found.files.items()}
        except (OSError, InputError) as error:
            return self.warn(error)
        push, run = self.repository.push, folder.parent
        self.pending = self.repository.api.run_as_future(push, found, message, run, self.overwrite)

    def finish(self) -> None:
        """Waits for the last push."""
        if self.pending is not None and (error := self.pending.exception()) is not None:
            self.warn(error)
        self.pending = None

    def warn(self, error: BaseException) -> None:
        print(f"WARNING: a push to {self.repository.name} failed: {described(error)}")

    def push_run(self, folder: Path, trust_remote_code: bool = False) -> Iterable[str]:
        """Pushes the finished run, card and results included; yields lines for the user."""
        self.finish()
        name = self.repository.name
        try:
            publication = prepare(folder, name, trust_remote_code)
            yield f"pushed to {self.repository.push(publication, 'End of training', folder, self.overwrite)}"
        except Exception as error:
            yield f"WARNING: not pushed to {name}: {described(error)}"
            again = "--overwrite replaces them" if isinstance(error, ForeignError) else "tries again"
            yield f"hf-xformer push {folder} {name} {again}"


def described(error: BaseException) -> str:
    """Returns an error as one line; of a bug the traceback is printed too, since the run goes on."""
    if not isinstance(error, InputError | OSError):
        traceback.print_exception(error)
    return one_line(error)


def content_of(each: Path | bytes) -> bytes:
    return each.read_bytes() if isinstance(each, Path) else each
