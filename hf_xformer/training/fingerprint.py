# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
The recipe of a run: one flat mapping of everything that decides its weights, by which two starts are compared.

Data, tokenizers and base models stand in it by their content, wherever they lie and however an option names them.
An option that is in none of the tables below decides the weights, until somebody has looked at it.
"""

import hashlib
import json
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, Seq2SeqTrainingArguments
from transformers.trainer_utils import SchedulerType

from ..checkpoints.loading import IGNORED_FIELDS
from ..data.encoding import READ, SPELT_OUT
from ..data.formats import format_of
from ..data.sources import find_files
from ..errors import DataError, InputError, naming
from ..files import CONFIG, content_of
from .arguments import DataArguments, ModelArguments
from .chance import objective_of
from .launch import layout, precision
from .mixtures import corpora_of, mappings, naming_files
from .plan import Plan
from .resume import raise_first
from .schema import options


# Options that stand in a recipe by what they lead to: content, fields of the configuration, numbers of a batch.
DERIVED = frozenset(
    (
        *("model_name_or_path", "config_name", "config_overrides", "tokenizer_name", "target_tokenizer_name"),
        *("train_file", "dataset_name", "datasets", "stages", "group_by_length", "per_device_train_batch_size"),
        "max_steps",
        *("num_train_epochs", "average_tokens_across_devices", "bf16", "fp16", "accelerator_config"),
        *("parallelism_config", "fsdp", "fsdp_config", "deepspeed", "dataloader_num_workers", "use_cpu"),
        *("special_tokens_in_text", "objective"),
        *("lora_target_modules", "peft_config"),  # `check_adapter` compares what comes of them
    )
)
# Options that decide the weights only where the scores of evaluation do: by the best checkpoint or the learning rate.
EVALUATING = frozenset(
    (
        *("validation_file", "validation_sets", "validation_split", "max_eval_samples", "metrics"),
        *("eval_strategy", "eval_steps"),
        *("eval_delay", "metric_for_best_model", "greater_is_better", "generation_max_length"),
        *("generation_num_beams", "generation_config", "sacrebleu_tokenize", "unicode_form"),
    )
)
# Options that are in force from the next start on and leave the weights as they are.
NEUTRAL = frozenset(
    (
        # What a run writes and shows, and where.
        *("card_facts", "output_dir", "run_name", "report_to", "project", "disable_tqdm", "debug", "log_level"),
        *("log_level_replica", "log_on_each_node", "logging_dir", "logging_strategy", "logging_steps"),
        *("logging_first_step", "logging_nan_inf_filter", "include_num_input_tokens_seen", "skip_memory_metrics"),
        *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "push_to_hub", "hub_token"),
        *("hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"),
        # What it saves, and where it begins.
        *("save_only_model", "save_strategy", "save_steps", "save_on_each_node", "save_total_limit"),
        *("enable_jit_checkpoint", "resume_from_checkpoint", "restore_callback_states_from_checkpoint"),
        "change_recipe",
        # It decides whether a start is refused: a run that has begun has no bad rows, or has left them out.
        "on_bad_row",
        # How it evaluates, beside `EVALUATING`.
        *("per_device_eval_batch_size", "prediction_loss_only", "eval_on_start", "eval_do_concat_batches"),
        *("eval_use_gather_object", "eval_accumulation_steps", "include_for_metrics", "batch_eval_metrics"),
        *("bf16_full_eval", "fp16_full_eval", "predict_with_generate", "use_cache", "eval_max_tokens"),
        *("early_stopping_patience", "early_stopping_threshold"),
        # Whom it trusts.
        *("trust_remote_code", "hub_overwrite"),
        # Speed and memory.
        *("preprocessing_num_workers", "activation_checkpointing", "activation_checkpointing_kwargs"),
        *("gradient_checkpointing", "gradient_checkpointing_kwargs", "torch_empty_cache_steps"),
        *("dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor"),
        *("dataloader_multiprocessing_context", "ddp_find_unused_parameters"),
        *("ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend", "ddp_timeout"),
        # What this package sees to itself or does not use.
        *("remove_unused_columns", "label_names", "length_column_name", "sortish_sampler"),
        *("do_train", "do_eval", "do_predict", "local_rank"),
    )
)
# Names that stand in a recipe only where they decide something; what makes them do so stands there too.
CONDITIONAL = EVALUATING | {
    *("max_steps", "num_train_epochs", "per_device_train_batch_size", "average_tokens_across_devices"),
    *("dataset_revision", "dataloader_num_workers"),
}
ADAPTER = "adapter_[cm]o*"  # its weights and its options, in which its base is
DEVICE = "device"  # name of its kind in a recipe: cpu or cuda
# Schedules that know nothing of a run's length, if the warm-up is a number of steps.
ENDLESS = (SchedulerType.CONSTANT_WITH_WARMUP, SchedulerType.INVERSE_SQRT)
# Schedules that go by the scores or losses until now, and know nothing of a run's length.
BY_SCORES = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
# Parts of a tokenizer that decide a text's ids.
TOKENIZER_PARTS = ("normalizer", "pre_tokenizer", "model", "post_processor", "added_tokens")


def recipe_of(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
    plan: Plan,
    config: PreTrainedConfig,
    source: PreTrainedTokenizerBase,
    target: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    """
    Returns the recipe of a run, as JSON holds it; files are read by the first process alone.

    Args:
        config: The model's, as the run trains it.
        source, target: The tokenizers as they were loaded.
    """
    found: dict[str, Any] = {}
    groups = {"model": model_args, "data": data_args, "training": training_args}
    for name, option in options().items():
        if name not in NEUTRAL | DERIVED | EVALUATING:
            found[name] = plain(getattr(groups[option.group], name))
    found |= batches_of(data_args, training_args, plan) | length_of(training_args)
    found |= {f"config.{name}": value for name, value in config.to_dict().items() if name not in IGNORED_FIELDS}
    parts = parts_of(source)
    found |= {f"tokenizer_name.{part}": value for part, value in parts.items()}
    own = dict.fromkeys(parts) if target is source else parts_of(target)
    found |= {f"target_tokenizer_name.{part}": value for part, value in own.items()}
    objective = objective_of(data_args)
    found["objective"] = None if objective is None else objective.words
    found |= {"layout": layout(training_args), "processes": training_args.world_size}
    found |= {"precision": precision(training_args), "deepspeed": engine_of(training_args)}
    # Each kind of device has random states of its own, which no checkpoint of another one holds.
    found |= {DEVICE: training_args.device.type}
    found |= shared_digests(model_args, data_args, training_args)
    return json.loads(json.dumps(found, default=str))


def plain(value: Any) -> Any:
    """Returns an option's value as JSON holds it; an empty text, list or mapping is None."""
    if isinstance(value, Enum):
        return value.value
    return None if value in ("", [], {}, ()) else value


def batches_of(data_args: DataArguments, training_args: Seq2SeqTrainingArguments, plan: Plan) -> dict[str, Any]:
    """Returns how batches are made and shared, beside what the options say themselves."""
    accelerator: Any = training_args.accelerator_config
    found: dict[str, Any] = {"group_by_length": plan.batches == "grouped"}
    names = ("split_batches", "dispatch_batches", "even_batches", "use_seedable_sampler")
    found["accelerator_config"] = {name: getattr(accelerator, name) for name in names}
    found["accelerator_config"]["gradient_accumulation_kwargs"] = plain(accelerator.gradient_accumulation_kwargs)
    if data_args.max_tokens is None:
        found["per_device_train_batch_size"] = training_args.train_batch_size
    if data_args.endless:  # the rows are divided over the workers
        found["dataloader_num_workers"] = max(1, training_args.dataloader_num_workers)
    if training_args.world_size > 1:
        found["average_tokens_across_devices"] = training_args.average_tokens_across_devices
    return found


def length_of(training_args: Seq2SeqTrainingArguments) -> dict[str, Any]:
    """Returns the length of a run where the learning rate depends on it; else it may be longer and stay the same."""
    schedule, warmup = SchedulerType(training_args.lr_scheduler_type), training_args.warmup_steps
    if schedule is SchedulerType.CONSTANT or schedule in BY_SCORES or (schedule in ENDLESS and not 0 < warmup < 1):
        return {}
    # Both, so that a run which counted epochs and now counts steps differs.
    epochs = None if training_args.max_steps > 0 else training_args.num_train_epochs
    return {"max_steps": training_args.max_steps, "num_train_epochs": epochs}


def engine_of(training_args: Seq2SeqTrainingArguments) -> dict[str, Any] | None:
    """Returns the parts of DeepSpeed's configuration that would take the place of the Trainer's options."""
    plugin = training_args.deepspeed_plugin
    if plugin is None:
        return None
    names = ("optimizer", "scheduler", "gradient_clipping")
    return plain({name: plugin.deepspeed_config[name] for name in names if name in plugin.deepspeed_config})


def parts_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Returns a tokenizer's vocabulary, special tokens and `TOKENIZER_PARTS`: short ones whole, others by digest."""
    parts: dict[str, Any] = {"vocabulary": tokenizer.get_vocab()}
    languages = {name: getattr(tokenizer, name, None) for name in ("src_lang", "tgt_lang")}
    parts["special_tokens"] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()} | languages
    if tokenizer.init_kwargs.get(SPELT_OUT) == READ:
        parts["special_tokens"][SPELT_OUT] = READ
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        whole = json.loads(backend.to_str())
        parts |= {part: whole.get(part) for part in TOKENIZER_PARTS}
    else:
        parts |= dict.fromkeys(TOKENIZER_PARTS)
        vocabulary = getattr(tokenizer, "vocab_file", None)
        parts["model"] = content_of(Path(vocabulary)) if vocabulary and Path(vocabulary).is_file() else None
    return {part: short(value) for part, value in parts.items()}


def short(value: Any) -> Any:
    """Returns JSON of a line as it is, and the digest of more."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return value if len(text) <= 100 else f"sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def shared_digests(
    model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> dict[str, Any]:
    """
    Returns `digests_of` in all processes, of which the first reads.

    Raises:
        ArgumentError, DataError: In all processes alike: one of them lacks a file of the data, or the first cannot
            read one.
    """
    digests: dict[str, Any] = {}
    fault: InputError | None = None
    try:
        for corpus, of_corpus in corpora_of(data_args):
            with naming_files(corpus, of_corpus):
                find_files(of_corpus.train_file or ())
        for name, files in data_args.validation_files.items():
            with naming(f"validation set {name!r}" if name else "--validation_file"):
                find_files(files)
        if PartialState().is_main_process:
            digests = digests_of(model_args, data_args, training_args)
    except InputError as error:
        fault = error
    except OSError as error:
        fault = DataError(f"{error.filename}: {error.strerror or error}")
    raise_first(fault)
    return broadcast_object_list([digests])[0]


def digests_of(
    model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SeqTrainingArguments
) -> dict[str, Any]:
    """Returns the content of what the options name; of something on the Hub its commit."""
    found: dict[str, Any] = {"model_name_or_path": weights_of(model_args.model_name_or_path)}
    found |= data_of(data_args)
    if data_args.datasets is not None:
        found |= mixture_of(data_args)
    if training_args.load_best_model_at_end or SchedulerType(training_args.lr_scheduler_type) in BY_SCORES:
        found |= evaluation_of(data_args, training_args)
    return found


def evaluation_of(data_args: DataArguments, training_args: Seq2SeqTrainingArguments) -> dict[str, Any]:
    """Returns everything that decides the scores of an evaluation."""
    found = {each: plain(getattr(data_args, each, getattr(training_args, each, None))) for each in EVALUATING}
    found["metric_for_best_model"] = metric_of_now(found["metric_for_best_model"], training_args)
    found["validation_file"] = files_of(data_args.validation_file)
    if data_args.validation_sets is not None:
        found["validation_sets"] = {
            name: {**each, "validation_file": files_of(each["validation_file"])}
            for name, each in found["validation_sets"].items()
        }
    generation = training_args.generation_config
    if isinstance(generation, str | Path) and Path(generation).exists():
        found["generation_config"] = content_of(Path(generation))
    return found


def metric_of_now(name: str | None, training_args: Seq2SeqTrainingArguments) -> str | None:
    """Returns a metric's name; another for one that is not what checkpoints of earlier builds have under that name."""
    if name in ("wer", "eval_wer"):  # there the share of wrong rows
        return "wer, edits per word (wrong_words is the share of wrong rows)"
    if training_args.label_smoothing_factor and name in (None, "loss", "eval_loss"):  # there smoothed, and larger
        return "loss, without smoothing"
    return name


def data_of(data_args: DataArguments) -> dict[str, Any]:
    """Returns the content of a training set, or of one on the Hub its name and commit."""
    found = {"train_file": files_of(data_args.train_file), "dataset_name": data_args.dataset_name}
    name = data_args.dataset_name
    if name is not None and Path(name).is_dir():
        found["dataset_name"] = content_of(Path(name))
    elif name is not None:
        found["dataset_revision"] = revision_of(name)
    return found


def mixture_of(data_args: DataArguments) -> dict[str, Any]:
    """Returns the names of a mixture's corpora, and everything of each that decides the weights."""
    corpora = corpora_of(data_args)
    found: dict[str, Any] = {"datasets": [corpus.name for corpus, _ in corpora]}
    if data_args.stages is not None:
        found["stages"] = mappings("stages", data_args.stages)
    revisions = {}
    for corpus, of_corpus in corpora:
        options = {each.name: getattr(of_corpus, each.name, getattr(corpus, each.name)) for each in fields(corpus)}
        objective = objective_of(of_corpus)
        options |= data_of(of_corpus) | {"objective": None if objective is None else objective.words}
        if (revision := options.pop("dataset_revision", "")) != "":
            revisions[corpus.name] = revision
        deciding = [name for name in options if name not in NEUTRAL and name != "name"]
        found |= {f"datasets.{corpus.name}.{name}": plain(options[name]) for name in deciding}
    if revisions:
        found["dataset_revision"] = None if None in revisions.values() else revisions
    return found


def files_of(files: list[str] | None) -> list[str] | None:
    """Returns the kind and the content of files of data, in their order."""
    if files is None:
        return None
    return [f"{format_of(file)} of {content_of(file)}" for file in find_files(files)]


def weights_of(name_or_path: str | None, revision: str | None = None) -> str | None:
    """Returns the content of a model's weights, or its name and commit on the Hub; of an adapter with its options."""
    if name_or_path is None:
        return None
    folder = Path(name_or_path)
    if folder.is_dir():
        found = (sorted(folder.glob(name)) for name in ("model*.safetensors", "pytorch_model*.bin", ADAPTER))
        return content_of(*next(filter(None, found), []))
    try:
        cached = try_to_load_from_cache(name_or_path, CONFIG, revision=revision)
    except HFValidationError:  # no name on the Hub: what loads the model says so
        return name_or_path
    return f"{name_or_path}, commit {Path(cached).parent.name}" if isinstance(cached, str) else name_or_path


def revision_of(name: str) -> str | None:
    """Returns the commit of a dataset on the Hub; None if the Hub does not answer."""
    try:
        return HfApi().dataset_info(name, timeout=10).sha
    except Exception:  # of many types, from the network and the Hub
        return None
