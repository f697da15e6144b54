# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Options of adapters, checked against PEFT's dataclasses, and against what a run does with them."""

import typing
from collections.abc import Callable
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig, Seq2SeqTrainingArguments

from ..checkpoints.adapters import KINDS
from ..checkpoints.lengths import check_length
from ..errors import ArgumentError, blame, did_you_mean, naming, wrong_choice
from ..yaml_files import read_yaml
from .arguments import CHECKPOINTING, DataArguments, ModelArguments
from .launch import precision
from .schema import make_option


if TYPE_CHECKING:  # PEFT is an extra
    from peft import PeftConfig

PREFIX = "PREFIX_TUNING"
# Fields that the run sets.
OWN = ("task_type", "base_model_name_or_path", "inference_mode", "revision", "peft_version", "auto_mapping")
# Fields that train or change weights outside the adapters, which an adapter's file does not hold.
BEYOND = (
    *("modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication", "ensure_weight_tying"),
    *("loftq_config", "eva_config", "corda_config", "megatron_config", "megatron_core", "rank_pattern", "bias"),
)
STARTS = (True, False, "gaussian", "orthogonal")  # of LoRA; the others change the base model's weights
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        (
            *("r", "lora_alpha", "init_r", "target_r", "deltaT", "total_step", "num_virtual_tokens"),
            *("encoder_num_layers", "encoder_hidden_size", "num_layers", "num_attention_heads", "token_dim"),
        ),
        (lambda value: value >= 1, "1 or more"),
    ),
    "lora_dropout": (lambda value: 0 <= value < 1, "in [0, 1)"),
    **dict.fromkeys(("beta1", "beta2"), (lambda value: 0 < value < 1, "between 0 and 1")),
    **dict.fromkeys(("tinit", "tfinal", "orth_reg_weight"), (lambda value: value >= 0, "0 or more")),
}


def adapter_options(model_args: ModelArguments) -> dict[str, Any] | None:
    """
    Returns what a run's options say of adapters under PEFT's names; None if there are to be none.

    Raises:
        ArgumentError: `--peft_config` is no mapping, or has no kind that a run can train.
    """
    if model_args.lora_rank is not None:
        names = model_args.lora_target_modules
        layers = "all-linear" if names == ["all-linear"] else names
        options = {"r": model_args.lora_rank, "lora_alpha": model_args.lora_alpha, "target_modules": layers}
        return {"peft_type": "LORA", "lora_dropout": model_args.lora_dropout, **options}
    given = model_args.peft_config
    if given is None:
        return None
    try:
        content = read_yaml(given) if isinstance(given, str) else given
    except ArgumentError as error:
        raise ArgumentError(f"--peft_config: {error}") from error
    if not isinstance(content, dict):
        raise ArgumentError(f"--peft_config {content!r:.60}: expected a mapping such as {{peft_type: IA3}}")
    kind = content.get("peft_type")
    if not isinstance(kind, str) or kind not in KINDS:
        said = f"there are {', '.join(KINDS)}" if kind is None else wrong_choice(kind, KINDS)
        raise ArgumentError(f"--peft_config peft_type: {said}")
    return {name: value for name, value in content.items() if value is not None}


def make_peft_config(
    model_args: ModelArguments, training_args: Seq2SeqTrainingArguments | None = None
) -> "PeftConfig | None":
    """
    Returns PEFT's configuration of the adapters that a run's options ask for; None if there are to be none.

    Raises:
        ArgumentError: A name is not one of the kind's, or a value cannot be.
    """
    options = adapter_options(model_args)
    if options is None:
        return None
    from peft import TaskType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = options.pop("peft_type")
    made = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    known = {each.name: each for each in fields(made) if each.name != "peft_type"}
    hints = typing.get_type_hints(made)
    for name, value in options.items():
        where = f"--peft_config {name}"
        if name not in known:
            others = sorted(known.keys() - {*OWN, *BEYOND})
            meant = did_you_mean(str(name), known) or f"; {made.__name__} of PEFT has {', '.join(others)}"
            raise ArgumentError(f"{where}: unknown for {kind}{meant}")
        check_trainable(name, value, where)
        if model_args.lora_rank is None:  # else the value is one of the run's own options, and has its type
            with naming(where):
                options[name] = convert_field(value, known[name], hints[name])
        is_possible, words = RANGES.get(name, (lambda value: True, ""))
        if value is not None and not is_possible(options[name]):
            raise ArgumentError(f"{where} must be {words}, got {value}")
    check_values(kind, options)
    fill(kind, options, model_args, training_args)
    with blame("--peft_config", TypeError, ValueError, AttributeError):
        return made(task_type=TaskType.SEQ_2_SEQ_LM, **options)


def check_trainable(name: str, value: Any, where: str) -> None:
    """
    Checks that a field is one that a recipe may give, and does not train or change weights outside the adapters.

    Raises:
        ArgumentError: It is not; the message begins with `where`.
    """
    if name in OWN:
        raise ArgumentError(f"{where}: the run sets it: leave it out")
    if name in BEYOND and value != "none":  # that of `bias`
        raise ArgumentError(f"{where}: a run trains and saves adapters alone: leave it out")
    if name == "init_lora_weights" and value not in STARTS:
        raise ArgumentError(
            f"{where} {value}: take true, gaussian or orthogonal: others change the base model, which adapters do not "
            "hold"
        )


def convert_field(value: Any, field: Field, hint: Any) -> Any:
    """Returns a value as a field of PEFT's has it, as options of a recipe are converted; raises ArgumentError."""
    is_numbers = isinstance(value, list) and value and all(type(each) is int for each in value)
    if is_numbers and "list[int]" in str(hint).lower():  # of layers: options of a recipe have no such type
        return value
    return make_option("model", field, hint).convert(value)


def check_values(kind: str, options: dict[str, Any]) -> None:
    """Checks what PEFT itself would not, or only once a model is trained."""
    if kind in ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING") and "num_virtual_tokens" not in options:
        raise ArgumentError(f"--peft_config: {kind} needs num_virtual_tokens, such as 20")
    ranks = [options.get("init_r", 12), options.get("target_r", 8)]
    if kind == "ADALORA" and ranks[0] < ranks[1]:
        raise ArgumentError(f"--peft_config init_r {ranks[0]}: ranks become fewer, down to target_r {ranks[1]}")
    if kind == "ADALORA" and (every := options.get("deltaT", 1)) != 1:
        raise ArgumentError(
            f"--peft_config deltaT {every}: between two allocations PEFT trains ranks that it does not save, and the "
            "checkpoint is another model than was scored: leave it out"
        )
    if (share := options.get("encoder_dropout", 0)) != 0:
        why = "does nothing without encoder_reparameterization_type LSTM"
        if str(options.get("encoder_reparameterization_type", "")).endswith("LSTM"):
            why = "has PEFT save prompts as dropout has left them"
        raise ArgumentError(f"--peft_config encoder_dropout {share} {why}: leave it out")
    if options.get("num_transformer_submodules", 2) != 2:
        raise ArgumentError("--peft_config num_transformer_submodules: an encoder-decoder has 2: leave it out")
    if (options.get("tokenizer_kwargs") or {}).get("trust_remote_code"):
        raise ArgumentError("--peft_config tokenizer_kwargs trust_remote_code: --trust_remote_code is the option")


def fill(
    kind: str,
    options: dict[str, Any],
    model_args: ModelArguments,
    training_args: Seq2SeqTrainingArguments | None,
) -> None:
    """Fills in what the other options say already: AdaLoRA's length, and the tokenizer of a prompt's text."""
    if kind == "ADALORA" and "total_step" not in options:
        steps = training_args.max_steps if training_args is not None else 0
        if steps <= 0:
            raise ArgumentError("--peft_config: ADALORA needs to know how long the run is: give --max_steps")
        options["total_step"] = steps
    if "prompt_tuning_init_text" in options:
        if (start := options.setdefault("prompt_tuning_init", "TEXT")) != "TEXT":
            raise ArgumentError(f"--peft_config prompt_tuning_init_text does nothing with prompt_tuning_init {start}")
        options.setdefault("tokenizer_name_or_path", model_args.tokenizer_name or model_args.model_name_or_path)


def check_fit(
    adapter: "PeftConfig",
    config: PreTrainedConfig,
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: Seq2SeqTrainingArguments,
) -> None:
    """
    Checks that adapters go with the other options and with the model.

    Raises:
        ArgumentError: They do not: training would fail, or forget them silently.
    """
    kind = adapter.peft_type.value
    if kind == "ADALORA" and model_args.ema_decay is not None:
        raise ArgumentError("--ema_decay: an average has the ranks that ADALORA takes away: leave one out")
    if kind == "ADALORA" and precision(training_args) == "fp16":
        raise ArgumentError("--fp16 leaves out steps, which ADALORA counts: take --bf16")
    if not adapter.is_prompt_learning:
        return
    count, name = adapter.num_virtual_tokens, KINDS[kind]
    if data_args.packing:
        raise ArgumentError(f"--packing: {name} puts {count} tokens before each pair, of which a row has several")
    side = "target" if kind == PREFIX else "source"
    longest = getattr(data_args, f"max_{side}_length")
    where = f"--max_{side}_length {longest} and {count} of --peft_config num_virtual_tokens"
    check_length(config, longest + count, where, "decoder" if kind == PREFIX else "encoder")
    if kind != PREFIX:
        return
    if getattr(training_args, CHECKPOINTING):
        raise ArgumentError(f"--{CHECKPOINTING}: it computes layers without a cache, which {name} needs")
    if {*(getattr(config, "decoder_layer_types", None) or ())} - {"full_attention"}:
        raise ArgumentError(f"--peft_config: {name} needs full attention in the decoder: in blocks few see the prefix")
