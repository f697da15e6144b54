# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Changes of a run's recipe between two starts: refused, or applied under `--change_recipe` and recorded.

The Trainer takes optimizer and schedule as the checkpoint has them, with the numbers of the earlier start. What was
changed is therefore set after they are loaded.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerState, TrainingArguments, set_seed
from transformers.trainer_callback import ExportableState

from ..checkpoints.loading import TRAINING_FIELDS
from ..errors import ArgumentError
from .arguments import CHANCE
from .exact import seed_dropout
from .fingerprint import BY_SCORES, CONDITIONAL, DEVICE, EVALUATING, plain
from .launch import TENSOR_PARALLEL
from .optimizers import set_group_numbers
from .resume import SavedState
from .schema import options


# Options whose numbers the optimizer and the schedule hold, and get from the checkpoint.
NUMBERS = frozenset(
    (
        *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "max_steps"),
        *("num_train_epochs", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
    )
)
SCHEDULE = frozenset(("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs"))
# Options that change which pairs a step meets: a pass over the data that has begun does not end as it would have.
ORDER = frozenset(
    (
        *("train_file", "dataset_name", "dataset_revision", "max_train_samples", "overlong", "max_source_length"),
        *("max_target_length", "max_tokens", "packing", "group_by_length", "streaming", "seed", "data_seed"),
        *("per_device_train_batch_size", "gradient_accumulation_steps", "processes", "train_sampling_strategy"),
        *("train_split", "dataset_config_name", "accelerator_config", "dataloader_drop_last", "ignore_data_skip"),
        *("dataloader_num_workers", "max_length_ratio", "datasets", "temperature", "stages", *CHANCE),
    )
)
# Options of `ORDER` that never change how many steps an epoch has.
SAME_STEPS = frozenset(("group_by_length", "train_sampling_strategy", "ignore_data_skip"))
# Options that change how many steps an epoch has where lengths decide it.
BY_LENGTHS = frozenset(
    (
        *("max_source_length", "max_target_length", "seed", "data_seed", "source_column", "target_column"),
        *("tokenizer_name", "target_tokenizer_name"),
    )
)
# Options of `EVALUATING` that say which checkpoint is the best of those that are there.
CHOOSING = frozenset(("metric_for_best_model", "greater_is_better"))
# Options of `EVALUATING` by which the scores of a checkpoint stay as they are; and those that change scores of texts
# alone, not the loss.
SAME_SCORES = frozenset(("eval_strategy", "eval_steps", "eval_delay", "metrics"))
OF_TEXTS = frozenset(
    (
        *("generation_max_length", "generation_num_beams", "generation_config"),
        *("sacrebleu_tokenize", "unicode_form"),
    )
)
OPTIMIZER = ("optim", "optim_args", "optim_target_modules", "deepspeed", "freeze", "lr_multipliers")
SHOWN = 6  # differences in a message


class Difference(NamedTuple):
    """A name in two recipes and its values."""

    name: str
    was: Any
    now: Any

    @property
    def option(self) -> str:
        """The name as a recipe or a command line has it: `config_overrides dropout`."""
        return re.sub(r"^config\.", "config_overrides ", self.name).replace(".", " ")


@dataclass(frozen=True)
class Recipe:
    """
    The recipe that a run is trained by, and how it came to it.

    Args:
        options: As `recipe_of` returns them.
        history: Earlier changes and this start's: the step from which each counts, and `{name: [was, now]}`, or None
            if an earlier version wrote the checkpoint, so that nobody knows.
        changed: Names that this start has changed.
    """

    options: dict[str, Any]
    history: list[dict] = field(default_factory=list)
    changed: frozenset[str] = frozenset()


def settle(
    now: dict[str, Any],
    state: SavedState | None,
    training_args: TrainingArguments,
    change: bool,
    is_finished: bool,
    say: Callable,
) -> Recipe:
    """
    Compares a start's recipe with the one that its checkpoint was trained by.

    Args:
        now: The recipe of this start.
        state: Where the run resumes; None at the first step.
        change: `--change_recipe`: differences are applied and not refused.
        is_finished: Whether the run needs no further step.

    Raises:
        ArgumentError: There are differences that nobody has asked to apply, or that cannot be applied.
    """
    if training_args.restore_callback_states_from_checkpoint:
        raise ArgumentError(
            "--restore_callback_states_from_checkpoint true would put the checkpoint's record of the recipe in "
            "place of this start's: leave it out"
        )
    if state is None:
        return Recipe(now)
    checkpoint, step = state.checkpoint, state.trainer.global_step + 1
    was, history = recorded(state.trainer)
    if was is None:
        say(f"{checkpoint} has no record of its recipe: it was not compared with the options of this start")
        return Recipe(now, history if is_finished else [*history, {"from_step": step, "changes": None}], NUMBERS)
    if None in (was.get("dataset_revision", ""), now.get("dataset_revision", "")):
        named = "--datasets" if now["dataset_name"] is None else f"--dataset_name {now['dataset_name']}"
        say(f"{named}: its revision is not known, and was not compared with {checkpoint}")
    found = differences(was, now)
    if now.get("dataset_revision", "") is None and now["dataset_name"] == was.get("dataset_name"):
        now = {**now, "dataset_revision": was.get("dataset_revision")}  # the next start may know its own
    if training_args.max_steps <= 0:
        check_epochs(found, history, now, state, is_finished, training_args.num_train_epochs)
    if not found:
        return Recipe(now, history)
    if is_finished and {each.name for each in found} <= EVALUATING - CHOOSING | {DEVICE}:
        say(f"{checkpoint} is the end of this run, and stays: only its evaluation changes, {listed(found)}")
        return Recipe(was, history)
    refuse(found, checkpoint, was, change, is_finished, step - 1)
    names = frozenset(each.name for each in found)
    say(f"--change_recipe: {'; '.join(mixed(each, history, step) for each in found)}")
    if {name.partition(".")[0] for name in names} & ORDER:
        say("some pairs of this pass over the data may come twice or never")
    return Recipe(now, [*history, {"from_step": step, "changes": {name: [*values] for name, *values in found}}], names)


def recorded(state: TrainerState) -> tuple[dict[str, Any] | None, list[dict]]:
    """Returns the recipe and the history in a checkpoint's state; None and nothing if it has none."""
    callbacks: Any = state.stateful_callbacks
    try:
        record = callbacks[RecipeRecord.__name__]["args"]
        was, history = dict(record["recipe"]), list(record["history"])
    except (KeyError, TypeError, ValueError):
        return None, []
    return was, history


def differences(was: dict[str, Any], now: dict[str, Any]) -> list[Difference]:
    """
    Returns what differs between two recipes, in the order of the second.

    A name that one of them does not have is an option that the other start's version of the libraries did not have:
    that start had its default.
    """
    found = []
    for name in dict.fromkeys((*now, *was)):
        if name in was and name in now:
            before, after = was[name], now[name]
        elif name in options() and name not in CONDITIONAL:
            default = json.loads(json.dumps(plain(options()[name].default), default=str))
            before, after = was.get(name, default), now.get(name, default)
        else:
            continue
        if before != after and not (name == "dataset_revision" and None in (before, after)):
            found.append(Difference(name, before, after))
    return found


def check_epochs(
    found: list[Difference],
    history: list[dict],
    now: dict[str, Any],
    state: SavedState,
    is_finished: bool,
    epochs: float,
) -> None:
    """
    Refuses to count a run's steps by epochs if an epoch had another number of steps before: the Trainer takes all
    steps for ones of now.

    Args:
        found, history: Differences of this start, and changes of earlier ones.
        epochs: `--num_train_epochs`.
    """
    earlier = [Difference(name, *values) for each in history for name, values in (each["changes"] or {}).items()]
    # `refuse` says that a finished run has ended.
    changes = [*earlier, *([] if is_finished else found)]
    recipes = (now, {each.name: each.was for each in changes})
    by_lengths = any(each.get("max_tokens") is not None or each.get("overlong") == "drop" for each in recipes)
    deciding = (ORDER | BY_LENGTHS) - SAME_STEPS - (frozenset() if by_lengths else BY_LENGTHS)
    if counted := [each for each in changes if each.name.partition(".")[0] in deciding]:
        raise ArgumentError(
            f"{state.checkpoint}, at step {state.trainer.global_step}, was trained with {listed(counted)}: an epoch "
            f"may have another number of steps, and --num_train_epochs {epochs:g} does not say where the run ends: to "
            f"go on, give {'--change_recipe and ' if found else ''}--max_steps, above {state.trainer.global_step}; "
            "--resume_from_checkpoint false starts anew"
        )


def refuse(
    found: list[Difference], checkpoint: Path, was: dict[str, Any], change: bool, is_finished: bool, step: int
) -> None:
    """
    Checks that differences are to be applied and can be.

    Raises:
        ArgumentError: They are not or cannot; the message has all names, both values of each and the way out.
    """
    fixed = [(each, reason) for each in found if (reason := why_not(each, was)) is not None]
    anew = "--resume_from_checkpoint false starts anew"
    if is_finished:
        raise ArgumentError(
            f"{checkpoint} is the end of this run, which was trained with {listed(found)}; it has ended. "
            f"{anew}, more --max_steps, --num_train_epochs or --early_stopping_patience with "
            "--change_recipe goes on"
        )
    if fixed:
        each, reason = fixed[0]
        raise ArgumentError(
            f"{checkpoint} was trained with {listed(found)}: {reason}, so {each.option} cannot change on the way. "
            f"{anew}; or begin a new run from its weights: --model_name_or_path {checkpoint} and another --output_dir"
        )
    if not change:
        raise ArgumentError(
            f"{checkpoint} was trained with {listed(found)}. {anew}, --change_recipe goes on with the new "
            f"value{'' if len(found) == 1 else 's'} from step {step + 1}"
        )


def why_not(difference: Difference, was: dict[str, Any]) -> str | None:
    """Returns why a difference cannot be applied to a checkpoint, or None if it can."""
    name = difference.name
    if name in OPTIMIZER:
        return "its optimizer's state fits no other"
    if name.startswith("config.") and name.removeprefix("config.") not in TRAINING_FIELDS:
        return "its weights are of another architecture"
    if name.endswith(".vocabulary"):
        return "its embeddings are of another vocabulary"
    if name == "model_name_or_path":
        return "it began with other weights"
    schedules = (was.get("lr_scheduler_type"), difference.now if name == "lr_scheduler_type" else None)
    if name in SCHEDULE and any(each in schedules for each in BY_SCORES):
        return "the learning rate follows from all scores until now"
    if name == "weight_decay" and was.get("layout") == TENSOR_PARALLEL and not difference.was:
        return "which parts of its optimizer decay is not known"
    return None


def listed(found: list[Difference]) -> str:
    """Returns differences in words, with their number if there are several: `learning_rate 0.01, now 1e-05`."""
    shown_ones = "; ".join(f"{each.option} {shown(each.was)}, now {shown(each.now)}" for each in found[:SHOWN])
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{'' if len(found) == 1 else f'{len(found)} other options: '}{shown_ones}{more}"


def shown(value: Any) -> str:
    """Returns a value for a message, digests cut short."""
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        text = " and ".join(value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return re.sub(r"(sha256 \w{8})\w+", r"\1...", text)


def mixed(difference: Difference, history: Iterable[dict], step: int) -> str:
    """Returns in words which steps had which value; `step` is the first with the new one."""
    earlier = [each["from_step"] for each in history if difference.name in (each["changes"] or {})]
    first = earlier[-1] if earlier else 1
    before = f"step {first}" if first == step - 1 else f"steps {first} to {step - 1}"
    return f"{before} with {difference.option} {shown(difference.was)}, from {step} with {shown(difference.now)}"


def settle_starts(state: SavedState | None, begun: dict[str, Any], is_finished: bool, say: Callable) -> list[dict]:
    """
    Returns the starts of a run with this one, and says where it has other versions or hardware than the one before.

    Args:
        state: Where the run resumes; None at the first step.
        begun: Commit, versions and hardware of this start.
        is_finished: Whether the run needs no further step, and has had its last start.
    """
    if state is None:
        return [{"from_step": 1, **begun}]
    callbacks: Any = state.trainer.stateful_callbacks or {}
    earlier = callbacks.get(RecipeRecord.__name__, {}).get("args", {}).get("starts", [])
    if is_finished and earlier:
        return earlier
    if earlier and (others := unlike(earlier[-1], begun)):
        say(f"{state.checkpoint} was trained with {others}: the run may end with other bits than without a stop")
    return [*earlier, {"from_step": state.trainer.global_step + 1, **begun}]


def unlike(earlier: dict[str, Any], now: dict[str, Any]) -> str:
    """Returns in words which versions and hardware of a start are others now, as far as both are on record."""
    was, new = earlier["versions"], now["versions"]
    found = [f"{name} {was[name]}, not {new[name]}" for name in was if name in new and was[name] != new[name]]
    before, here = (each["hardware"]["name"] for each in (earlier, now))
    return "; ".join([*found, *([f"{before}, not {here}"] if before and here and before != here else [])])


class RecipeRecord(TrainerCallback, ExportableState):
    """
    Leaves the recipe, its history and the starts in each checkpoint's `trainer_state.json`, and puts changes in force.

    Args:
        recipe: As `settle` returns it.
        starts: As `settle_starts` returns them.
    """

    def __init__(self, recipe: Recipe, starts: list[dict]):
        self.recipe, self.history, self.changed = recipe.options, recipe.history, recipe.changed
        self.starts = starts
        self.seeds = False

    def state(self) -> dict:
        """Returns what the Trainer writes into `trainer_state.json`."""
        kept = {"recipe": self.recipe, "history": self.history, "starts": self.starts}
        return {"args": kept, "attributes": {}}

    def on_train_begin(self, args, state, control, model=None, optimizer=None, lr_scheduler=None, **kwargs):
        if state.global_step == 0:
            return
        # The Trainer takes the intervals of logging, evaluating and saving from the checkpoint.
        state.compute_steps(args, state.max_steps)
        if other := other_scores(self.changed, args):
            if state.best_model_checkpoint is not None and state.is_world_process_zero:
                name, given = Path(state.best_model_checkpoint).name, " and ".join(f"--{each}" for each in other)
                print(f"the best until now, {name}, no longer counts: with another {given} scores are of another kind")
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None
        if self.changed & NUMBERS:
            set_numbers(args, model, optimizer, lr_scheduler)
        self.seeds = "seed" in self.changed

    def on_step_begin(self, args, state, control, **kwargs):
        # The Trainer restores the random states after the beginning.
        if self.seeds:
            set_seed(args.seed)
            seed_dropout(args)
            self.seeds = False


def other_scores(changed: Iterable[str], args: TrainingArguments) -> list[str]:
    """Returns the changed options by which a checkpoint that was evaluated before would have another score now."""
    by_loss = re.fullmatch(r"(.*_)?loss", args.metric_for_best_model or "loss")
    return sorted(EVALUATING.intersection(changed) - SAME_SCORES - (OF_TEXTS if by_loss else frozenset()))


def set_numbers(args: TrainingArguments, model: Any, optimizer: Any, lr_scheduler: Any) -> None:
    """Sets the numbers of an optimizer and the learning rate of its schedule to those of the arguments."""
    groups = optimizer.param_groups
    set_group_numbers(groups, args, model)
    if not isinstance(lr_scheduler, LambdaLR):
        return
    base_rates = [args.learning_rate * group.get("lr_multiplier", 1.0) for group in groups]
    factors = [factor(lr_scheduler.last_epoch) for factor in lr_scheduler.lr_lambdas]
    rates = [base * factor for base, factor in zip(base_rates, factors, strict=True)]
    for group, base, rate in zip(groups, base_rates, rates, strict=True):
        group.update(initial_lr=base, lr=rate)
    # The public way to what the schedule holds.
    state = {"base_lrs": base_rates, "_last_lr": rates}
    lr_scheduler.load_state_dict(lr_scheduler.state_dict() | state)
