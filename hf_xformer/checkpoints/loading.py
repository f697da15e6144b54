# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Loads models, tokenizers and configurations from folders or the Hub, and refuses what the library lets pass."""

from contextlib import suppress
from pathlib import Path

import torch
from packaging.version import Version
from transformers import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from ..errors import ArgumentError, blame, did_you_mean, first_line, most_like, say_once
from ..files import ADAPTER_CONFIG, CONFIG, GENERATION_CONFIG, TARGET_TOKENIZER, find
from ..models import XformerConfig
from .adapters import base_of, check_peft, load_adapter, revision_of_base
from .folder_checks import check_folder, check_generation, check_json
from .foreign_code import TOKENIZER_CONFIG, check_code, say_unsafe
from .vocabulary import CONFIG_ERRORS
from .weight_files import check_finite_tensor, read_tensors


# Fields of a configuration in which the same model's may differ.
IGNORED_FIELDS = {"_name_or_path", "transformers_version", "architectures", "dtype", "use_cache"}
TRAINING_FIELDS = ("dropout", "attention_dropout", "activation_dropout", "label_smoothing")
# Options about a repository. The revision is not one of the model that an adapter in it belongs to.
HUB_OPTIONS = ("revision", "token")


def load_model(
    name_or_path: str, computed: frozenset[str] = frozenset(), trust_remote_code: bool = False, **options
) -> PreTrainedModel:
    """
    Loads a sequence-to-sequence model with every weight from the checkpoint; an adapter with its model.

    Args:
        name_or_path: Folder or Hub name.
        computed: Names of tensors that the model computes if the checkpoint does not hold them.
        trust_remote_code: Whether code that comes with the checkpoint may run.
        options: As `from_pretrained` takes them.

    Raises:
        ArgumentError: There is no such checkpoint, it needs code of its own, a file is cut off, a weight is missing,
            unexpected or of another shape (the library would fill it with random numbers) or type than `config.json`
            says, or has a number that is not finite; the file for decoding holds what `generate()` cannot use, or an
            option cannot be met on this machine.
    """
    check_path(name_or_path)
    hub = {name: options[name] for name in HUB_OPTIONS if name in options}
    if (base := base_of(name_or_path, **hub)) is not None:
        return load_adapted(name_or_path, base, computed, trust_remote_code, **options)
    check_code(name_or_path, trust_remote_code, **hub)
    say_unsafe(name_or_path, trust_remote_code=trust_remote_code, **hub)
    folder = Path(name_or_path)
    if folder.is_dir():
        config = options.get("config") or read_config(name_or_path, trust_remote_code=trust_remote_code)
        check_folder(folder, config, computed)
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True, "weights_only": True}
    try:
        model, info = AutoModelForSeq2SeqLM.from_pretrained(
            name_or_path, trust_remote_code=trust_remote_code, **options
        )
    except Exception as error:  # a dozen types, from the Hub, the files and the attention backends
        if folder.is_dir():
            read_tensors(folder)  # if it was a weight file, this names the file and the weight
        raise ArgumentError(f"{name_or_path}: cannot load a model: {why(error, name_or_path)}") from error
    info["missing_keys"] -= computed
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            names = ", ".join(sorted(map(described, info[problem]))[:3])
            raise ArgumentError(f"{name_or_path}: {len(info[problem])} {problem.replace('_', ' ')}, such as {names}")
    for name, tensor in model.state_dict().items():
        check_finite_tensor(name_or_path, name, tensor)
    return model


def described(key: str | tuple) -> str:
    """Returns a weight's name, with both shapes if its shape is wrong."""
    if isinstance(key, str):
        return key
    name, stored, expected = key
    return f"{name} {list(stored)}, where the model has {list(expected)}"


def load_adapted(
    name_or_path: str, base: str, computed: frozenset[str], trust_remote_code: bool, **options
) -> PreTrainedModel:
    """
    Loads the model that an adapter belongs to, of the revision that it names, and the adapter into it.

    Arguments are as for [`load_model`].
    """
    check_peft(f"{name_or_path}, an adapter,")
    hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
    of_base = {name: hub[name] for name in hub if name != "revision"} | revision_of_base(name_or_path, **hub)
    try:
        model = load_model(base, computed, trust_remote_code, **of_base, **options)
    except ArgumentError as error:
        raise ArgumentError(
            f"{name_or_path}: the model that it is an adapter of, as its {ADAPTER_CONFIG} says: {error}"
        ) from error
    adapted = load_adapter(model, name_or_path, **hub)
    if has_file(name_or_path, GENERATION_CONFIG, **hub):  # adapters that PEFT alone has written have none
        if (path := Path(name_or_path, GENERATION_CONFIG)).is_file():
            check_generation(check_json(path), model.config, str(path))
        with blame(f"{name_or_path}: {GENERATION_CONFIG}", OSError, ValueError, TypeError):
            model.generation_config = GenerationConfig.from_pretrained(name_or_path, **hub)
    return adapted


def check_path(name_or_path: str) -> None:
    """
    Checks that what is plainly a path exists, so that it is not looked for on the Hub.

    Raises:
        ArgumentError: There is no such file or folder.
    """
    if not name_or_path:
        raise ArgumentError("'' is neither a folder nor a name on the Hub")
    path = Path(name_or_path)
    of_a_folder = path.parent != Path() and path.parent.is_dir()
    if not path.exists() and (path.is_absolute() or of_a_folder or len(path.parts) > 2 or path.suffix == ".json"):
        raise ArgumentError(f"{name_or_path}: there is no such file or folder{looked_in(path)}{meant_beside(path)}")


def check_local(path: Path) -> None:
    """
    Checks that a folder is on this machine, where a name on the Hub will not do.

    Raises:
        ArgumentError: There is none, or a file in its place.
    """
    if not path.is_dir():
        there = "not a folder" if path.exists() else f"there is no such folder{looked_in(path)}{meant_beside(path)}"
        raise ArgumentError(f"{path}: {there}")


def looked_in(path: Path) -> str:
    """Returns in which folder a path was looked for, unless it says so itself."""
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def meant_beside(path: Path) -> str:
    """Returns which path may have been meant by one that is not there: that in the same folder most like it."""
    names: list[str] = []
    with suppress(OSError):
        names = [each.name for each in find(path.parent).iterdir()]
    near = most_like(path.name, names)
    return f"; did you mean {path.with_name(near)}?" if near else ""


def nor_here(name_or_path: str) -> str:
    """Returns what to say of a name that the Hub does not give, and that is no folder here either."""
    return f" (nor is there a folder {Path.cwd() / name_or_path}{meant_beside(Path(name_or_path))})"


def why(error: Exception, name_or_path: str) -> str:
    """Returns why something was not loaded, and that there is no folder of its name if the Hub gave nothing either."""
    found = Path(name_or_path).exists() or not isinstance(error, OSError)
    return first_line(error) + ("" if found else nor_here(name_or_path))


def load_tokenizers(
    name_or_path: str, target_name_or_path: str | None = None, trust_remote_code: bool = False, **options
) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """
    Loads the source's and the target's tokenizer: the same one twice, unless a `target_tokenizer` lies beside it.

    Args:
        name_or_path: Folder or Hub name of a checkpoint or a tokenizer.
        target_name_or_path: The target's own, if it is elsewhere.
        trust_remote_code: Whether code that comes with the tokenizers may run.
        options: As `from_pretrained` takes them, such as `revision`.

    Raises:
        ArgumentError: There is no such tokenizer.
    """
    source = load_tokenizer(name_or_path, trust_remote_code, **options)
    if target_name_or_path is not None:
        return source, load_tokenizer(target_name_or_path, trust_remote_code)
    return source, load_target_tokenizer(name_or_path, trust_remote_code, **options) or source


def load_target_tokenizer(
    name_or_path: str, trust_remote_code: bool = False, **options
) -> PreTrainedTokenizerBase | None:
    """
    Loads the target's own tokenizer from a folder or the Hub; None if there is none.

    Raises:
        ArgumentError: It does not load, or the Hub does not answer: the source's must not be taken for it.
    """
    if not has_file(name_or_path, f"{TARGET_TOKENIZER}/{TOKENIZER_CONFIG}", **options):
        return None
    return load_tokenizer(name_or_path, trust_remote_code, subfolder=TARGET_TOKENIZER, **options)


def has_file(name_or_path: str, name: str, **options) -> bool:
    """
    Returns whether a folder or a repository on the Hub has a file.

    Raises:
        ArgumentError: The Hub does not answer.
    """
    try:
        return cached_file(name_or_path, name, _raise_exceptions_for_missing_entries=False, **options) is not None
    except OSError as error:
        raise ArgumentError(f"{name_or_path}: cannot find out whether it has {name}: {first_line(error)}") from error


def load_tokenizer(name_or_path: str, trust_remote_code: bool = False, **options) -> PreTrainedTokenizerBase:
    """
    Loads one tokenizer.

    Raises:
        ArgumentError: There is none, it needs code of its own, or a library that it needs is not installed.
    """
    check_path(name_or_path)
    check_code(name_or_path, trust_remote_code, TOKENIZER_CONFIG, **options)
    try:
        return AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=trust_remote_code, **options)
    except Exception as error:  # of many types, from the Hub, the files and the tokenizers' own libraries
        if Path(name_or_path, CONFIG).exists():
            # If it was the model's configuration, this says so.
            read_config(name_or_path, trust_remote_code=trust_remote_code)
        advice = " (hf-xformer tokenizer makes one)" if Path(name_or_path).exists() else ""
        if Path(name_or_path, TOKENIZER_CONFIG).exists() and not Path(name_or_path, "tokenizer.json").exists():
            advice = " (tokenizer.json is missing; copy it from the tokenizer that the model was trained with)"
        raise ArgumentError(f"{name_or_path}: cannot load a tokenizer: {why(error, name_or_path)}{advice}") from error


def read_config(name_or_path: str, option: str = "", trust_remote_code: bool = False, **hub) -> PreTrainedConfig:
    """
    Loads a configuration from a folder or the Hub.

    Args:
        option: The one that names the model, such as "--config_name", for the message.
        trust_remote_code: Whether code that comes with it may run.
        hub: `revision` and `token`.

    Raises:
        ArgumentError: It cannot be read, needs code of its own, or a value in it is refused.
    """
    where = f"{option} {name_or_path}".strip()
    check_path(name_or_path)
    check_json(Path(name_or_path) / CONFIG if Path(name_or_path).is_dir() else Path(name_or_path), where)
    check_code(name_or_path, trust_remote_code, option=option, **hub)
    try:
        return AutoConfig.from_pretrained(name_or_path, trust_remote_code=trust_remote_code, **hub)
    except Exception as error:  # of a dozen types, as when a model is loaded
        raise ArgumentError(f"{where}: cannot read its configuration: {why(error, name_or_path)}") from error


def read_model_config(name_or_path: str, option: str = "", trust_remote_code: bool = False) -> PreTrainedConfig:
    """
    Loads the configuration of a sequence-to-sequence model; arguments and errors as for [`read_config`].

    Raises:
        ArgumentError: It is another kind of model's.
    """
    config = read_config(name_or_path, option, trust_remote_code)
    is_known = type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    if not is_known and AutoModelForSeq2SeqLM.__name__ not in (getattr(config, "auto_map", None) or {}):
        where = f"{option} {name_or_path}".strip()
        raise ArgumentError(f"{where}: model_type {config.model_type!r} is not one of a sequence-to-sequence model")
    return config


def load_config(name_or_path: str, overrides: dict, trust_remote_code: bool = False) -> PreTrainedConfig:
    """
    Returns a new model's configuration, from a JSON file, a folder or the Hub, with some fields changed.

    Args:
        name_or_path: The value of `--config_name`.
        overrides: The fields of `--config_overrides`.
        trust_remote_code: Whether code that comes with it may run.

    Raises:
        ArgumentError: There is no such configuration, it is not an Xformer's, a field is unknown, or a value is
            refused.
    """
    known = XformerConfig.__dataclass_fields__
    if unknown := [name for name in overrides if name not in known]:
        near = did_you_mean(unknown[0], known) or f"; it has {', '.join(XformerConfig.__annotations__)}"
        raise ArgumentError(f"--config_overrides: XformerConfig has no field {', '.join(unknown)}{near}")
    name_or_path = str(find(name_or_path))
    loaded = read_config(name_or_path, "--config_name", trust_remote_code)
    if not isinstance(loaded, XformerConfig):
        raise ArgumentError(f"--config_name {name_or_path}: model_type {loaded.model_type!r} is not 'xformer'")
    fields = loaded.to_diff_dict()
    names = {*known, *vars(XformerConfig())}
    if unknown := [name for name in vars(loaded) if name not in names]:
        raise ArgumentError(f"--config_name {name_or_path}: XformerConfig has no field {', '.join(unknown)}")
    for stack in ("encoder", "decoder"):
        depth, types = overrides.get(f"{stack}_layers"), getattr(loaded, f"{stack}_layer_types")
        if depth is None or f"{stack}_layer_types" in overrides:
            continue
        if len(set(types)) > 1 and depth != len(types):
            raise ArgumentError(
                f"--config_overrides {stack}_layers={depth}: {name_or_path} names the types of {len(types)} layers; "
                f"give {stack}_layer_types too, one a layer: {types}"
            )
        fields[f"{stack}_layer_types"] = types[:1] * depth if isinstance(depth, int) else None
    with blame("--config_overrides", *CONFIG_ERRORS):
        return type(loaded)(**{**fields, **overrides})


def read_own_config(name_or_path: str, otherwise: str, trust_remote_code: bool = False, **hub) -> XformerConfig:
    """
    Loads the configuration of an Xformer from a folder or the Hub.

    Args:
        otherwise: Advice for a model of another type, for the message.
        trust_remote_code: Whether code that comes with it may run.
        hub: `revision` and `token`.

    Raises:
        ArgumentError: It cannot be read, or is another model's.
    """
    config = read_config(name_or_path, trust_remote_code=trust_remote_code, **hub)
    if not isinstance(config, XformerConfig):
        raise ArgumentError(f"{name_or_path}: model_type {config.model_type!r} is not 'xformer': {otherwise}")
    return config


def change_config(config: PreTrainedConfig, overrides: dict) -> PreTrainedConfig:
    """
    Returns an existing model's configuration with other values in `TRAINING_FIELDS`.

    Raises:
        ArgumentError: The model does not have a field, its weights depend on it, or its value is refused.
    """
    if not overrides:
        return config
    if wrong := [name for name in overrides if name not in TRAINING_FIELDS or not hasattr(config, name)]:
        raise ArgumentError(
            f"--config_overrides: {', '.join(wrong)} of an existing model cannot be changed; "
            f"{', '.join(name for name in TRAINING_FIELDS if hasattr(config, name))} can"
        )
    with blame("--config_overrides", *CONFIG_ERRORS):
        return type(config)(**{**config.to_diff_dict(), **overrides})


def attention_on(device: torch.device) -> dict[str, str]:
    """
    Returns the option by which a model is loaded for a device whose attention in torch is wrong.

    Before torch 2.13 that of a Mac's GPU sees later tokens in 16 bits, and takes a mask of another row for short
    queries (PyTorch issues 195910, 181133 and 184180).
    """
    if device.type != "mps" or Version(torch.__version__) >= Version("2.13"):
        return {}
    say_once(f"attention is eager: sdpa of torch {torch.__version__} is wrong on a Mac's GPU, and right from 2.13 on")
    return {"attn_implementation": "eager"}
