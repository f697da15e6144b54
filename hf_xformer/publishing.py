# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What of a run's folder belongs on the Hub, whether it is fit to be there, and the way there."""

import shutil
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, eval_result_entries_to_yaml
from huggingface_hub.constants import EVAL_RESULTS_FOLDER
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from transformers import AutoConfig, Seq2SeqTrainingArguments, TrainerCallback, TrainingArguments
from transformers.trainer_utils import HubStrategy

from .adapters import base_of
from .arguments import ArgumentError, first_line
from .cards import CARD, CardFacts, hub_results, is_edited, missing_facts, problems_of, read_facts, render
from .checkpoint_files import compare, read_tensors, travelling_files
from .run_record import RECORD, read_json
from .tokenization import TARGET_TOKENIZER


# In the words of `fnmatch`, whose star crosses no folder here: files are matched by their names.
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
TOKENIZER = (
    *(
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
    ),
    *("vocab.json", "vocab.txt", "merges.txt", "source.spm", "target.spm", "target_vocab.json", "*.model"),
)
OTHERS = (
    *("config.json", "generation_config.json", "adapter_config.json", "*_xformer.py", "LICENSE*"),
    *("curves.png", "attention.png", RECORD, "trainer_state.json", "[a-z]*_results.json"),
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")


@dataclass
class Publication:
    """What goes to the Hub: `{path there: file here, or its content}`; and what does not, with the reason."""

    files: dict[str, Path | bytes] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def tree(self) -> Iterable[str]:
        """A line a file, with its size, and a line for each that stays here."""
        for name, content in sorted(self.files.items()):
            bytes_ = len(content) if isinstance(content, bytes) else content.stat().st_size
            yield f"  {name:40} {bytes_:>14,} bytes"
        for name, reason in sorted(self.left_out.items()):
            yield f"  {name:40} stays here: {reason}"


def gather(folder: Path) -> Publication:
    """The files of a run's folder that a published model is made of: never a pickle, whose loading runs code."""
    found = Publication()
    for path in sorted(folder.iterdir()):
        if path.name == TARGET_TOKENIZER and path.is_dir():
            for each in sorted(path.iterdir()):
                sort(f"{path.name}/{each.name}", each, TOKENIZER, found)
        elif path.name != CARD and not path.name.startswith("."):
            sort(path.name, path, (*WEIGHTS, *TOKENIZER, *OTHERS), found)
    return found


def sort(name: str, path: Path, wanted: tuple[str, ...], found: Publication) -> None:
    if path.is_dir():
        found.left_out[f"{name}/"] = "a folder of the run's own"
    elif any(fnmatch(path.name, pattern) for pattern in PICKLES):
        found.left_out[name] = "a pickle, which can run anything when it is loaded"
    elif any(fnmatch(path.name, pattern) for pattern in wanted):
        found.files[name] = path
    else:
        found.left_out[name] = "no part of a model"


def check_weights(folder: Path) -> None:
    """
    Raises:
        ArgumentError: The folder is no checkpoint, or its weights are not whole or not those of its configuration.
    """
    if (base := base_of(str(folder))) is not None:
        if Path(base).is_dir():
            raise ArgumentError(
                f"{folder}: an adapter of {base}, a folder here that nobody else has: publish that and train from its "
                "name, or merge the adapter with scripts/merge_adapter.py"
            )
        return
    stored = read_tensors(folder)
    if not stored:
        raise ArgumentError(f"{folder}: there are no weights (model.safetensors)")
    if problems := list(compare(AutoConfig.from_pretrained(folder), stored).sentences()):
        raise ArgumentError(f"{folder}: {len(problems)} weights are not the model's, such as {problems[0]}")


def add_code(folder: Path) -> None:
    """Puts this package's code beside weights that were saved without; what is there stays as it is."""
    if (folder / "config.json").exists() and not (folder / "modeling_xformer.py").exists():
        AutoConfig.from_pretrained(folder).save_pretrained(folder)  # which names the classes
        for path in travelling_files():
            shutil.copyfile(path, folder / path.name)


def prepare(folder: Path, repo_id: str) -> Publication:
    """
    A checked folder's publication, its card written for the name that it will have.

    Raises:
        ArgumentError: Weights or card are not fit to be published.
    """
    check_weights(folder)
    add_code(folder)
    found = gather(folder)
    record = read_json(folder / RECORD)
    facts = CardFacts(**record["facts"]) if "facts" in record else read_facts(None)
    if not (folder / CARD).exists():
        raise ArgumentError(f"{folder}: no model card (README.md); scripts/model_card.py makes one of a run")
    text = (folder / CARD).read_text(encoding="utf-8")
    if problems := problems_of(text, folder):
        raise ArgumentError(
            f"{folder / CARD}: {'; '.join(problems)}. Fill it in by hand, or give scripts/model_card.py --card_facts"
        )
    found.files[CARD] = (text if is_edited(folder) else str(render(folder, facts, repo_id))).encode()
    if entries := hub_results(folder, facts):
        content = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
        found.files[f"{EVAL_RESULTS_FOLDER}/{facts.dataset_id.replace('/', '--')}.yaml"] = content.encode()
    return found


def why_refused(error: Exception) -> str:
    """What to do about an error of the Hub's, or of the way to it, whose types are those of several libraries."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return "not logged in to the Hub: `hf auth login`, or set HF_TOKEN"
    return f"not to be had from the Hub: {first_line(error)}" if status is None else f"the Hub refused: {error}"


def make_repository(api: HfApi, repo_id: str, private: bool | None, branch: str | None) -> str:
    """Creates the repository and the branch where they do not exist yet, and returns the whole name."""
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if branch is not None:
        api.create_branch(repo_id, branch=branch, exist_ok=True)
    return repo_id


def changes(
    api: HfApi, repo_id: str, publication: Publication, branch: str | None
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """What a commit does: weights of an earlier one that are no longer a part of the model go."""
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, content) for name, content in publication.files.items()
    ]
    there = api.list_repo_files(repo_id, revision=branch)
    stale = {name for name in there if any(fnmatch(name, pattern) for pattern in (*WEIGHTS, *PICKLES))}
    operations += [CommitOperationDelete(name) for name in sorted(stale - publication.files.keys())]
    return operations


def push(api: HfApi, repo_id: str, publication: Publication, message: str, branch: str | None) -> str:
    """One commit of what has changed; returns its address."""
    operations = changes(api, repo_id, publication, branch)
    return api.create_commit(repo_id, operations, commit_message=message, revision=branch).commit_url


def take_over_pushing(training_args: Seq2SeqTrainingArguments, facts: CardFacts) -> "PushToHub | None":
    """
    What `push_to_hub` asks for, as a callback; the Trainer is then told nothing of it. The repository is made now.

    Raises:
        ArgumentError: It cannot be done as asked, or a card could not be filled in at the end.
    """
    if not training_args.push_to_hub:
        return None
    if training_args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        raise ArgumentError(
            f"--hub_strategy {HubStrategy(training_args.hub_strategy).value} would publish optimizers, which are "
            "pickles: take every_save or end"
        )
    if missing := missing_facts(facts):
        raise ArgumentError(f"--push_to_hub publishes a model card: --card_facts FILE has to say {', '.join(missing)}")
    training_args.push_to_hub = False
    api, branch = HfApi(token=training_args.hub_token), training_args.hub_revision
    repo_id = training_args.hub_model_id or Path(training_args.output_dir).absolute().name
    if training_args.process_index == 0:
        try:
            repo_id = make_repository(api, repo_id, training_args.hub_private_repo, branch)
        except Exception as error:
            raise ArgumentError(f"--push_to_hub: {repo_id}: {why_refused(error)}") from error
    every_save = training_args.hub_strategy == HubStrategy.EVERY_SAVE
    return PushToHub(api, repo_id, branch, every_save, training_args.hub_always_push)


class PushToHub(TrainerCallback):
    """
    The Trainer's `push_to_hub`, without the pickles that it sends along: at every save the weights, tokenizer and code
    of that checkpoint, in the background. What belongs to the end of a run is pushed by [`push`].
    """

    def __init__(self, api: HfApi, repo_id: str, branch: str | None, every_save: bool, always: bool):
        self.api, self.repo_id, self.branch = api, repo_id, branch
        self.every_save, self.always = every_save, always
        self.pending: Future | None = None

    def on_save(self, args: TrainingArguments, state, control, **kwargs):
        busy = self.pending is not None and not self.pending.done()
        if not self.every_save or not state.is_world_process_zero or (busy and not self.always):
            return
        self.finish()
        found = gather(Path(args.output_dir, f"checkpoint-{state.global_step}"))
        # The Trainer may remove the folder while it is being sent.
        found.files = {
            name: each.read_bytes() if isinstance(each, Path) else each
            for name, each in found.files.items()
            if name != "trainer_state.json"
        }
        message = f"Training in progress, step {state.global_step}"
        self.pending = self.api.create_commit(
            self.repo_id,
            changes(self.api, self.repo_id, found, self.branch),
            commit_message=message,
            revision=self.branch,
            run_as_future=True,
        )

    def push_all(self, folder: Path) -> None:
        """The finished run, card and results included; a run is not lost by a Hub that does not answer."""
        self.finish()
        try:
            url = push(self.api, self.repo_id, prepare(folder, self.repo_id), "End of training", self.branch)
            print(f"pushed to {url}")
        except Exception as error:
            print(f"WARNING: not pushed to {self.repo_id}: {why_refused(error)}")
            print(f"scripts/push_to_hub.py {folder} {self.repo_id} tries again")

    def finish(self) -> None:
        """Waits for the last push; a failed one is said and not fatal, because the run is worth more."""
        if self.pending is not None and (error := self.pending.exception()) is not None:
            print(f"WARNING: a push to {self.repo_id} failed: {error}")
        self.pending = None
