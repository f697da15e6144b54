# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Models and tokenizers from folders or the Hub, refusing whatever the library would accept silently."""

from difflib import get_close_matches
from pathlib import Path

from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from ..errors import ArgumentError, first_line
from ..files import TARGET_TOKENIZER, find
from ..models import XformerConfig
from .adapters import base_of, check_peft, load_adapter
from .weight_files import read_tensors


# Fields of a configuration that do not say which model it is.
IGNORED_FIELDS = {"_name_or_path", "transformers_version", "architectures", "dtype", "use_cache"}
TRAINING_FIELDS = ("dropout", "attention_dropout", "activation_dropout", "label_smoothing")
# Of a repository, and not of the model that an adapter in it belongs to.
HUB_OPTIONS = ("revision", "token")


def load_model(name_or_path: str, computed: frozenset[str] = frozenset(), **options) -> PreTrainedModel:
    """
    A sequence-to-sequence model with every weight from the checkpoint.

    Args:
        name_or_path: Folder or Hub name.
        computed: Names of tensors that the model computes where a checkpoint does not hold them.
        options: As `from_pretrained` has them.

    Raises:
        ArgumentError: There is no such checkpoint, a file is cut off, or a weight is missing, unexpected or of another
            shape. The library would fill a missing one with random numbers.
    """
    check_path(name_or_path)
    hub = {name: options[name] for name in HUB_OPTIONS if name in options}
    if (base := base_of(name_or_path, **hub)) is not None:
        return load_adapted(name_or_path, base, computed, **options)
    if Path(name_or_path).is_dir():
        read_tensors(Path(name_or_path))
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        model, info = AutoModelForSeq2SeqLM.from_pretrained(name_or_path, **options)
    except Exception as error:  # whatever stopped it: a dozen types, from the Hub, the files and the backends
        raise ArgumentError(f"{name_or_path}: cannot load a model: {first_line(error)}") from error
    info["missing_keys"] -= computed
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            names = ", ".join(sorted(map(described, info[problem]))[:3])
            raise ArgumentError(f"{name_or_path}: {len(info[problem])} {problem.replace('_', ' ')}, such as {names}")
    return model


def described(key: str | tuple) -> str:
    """A weight's name, and where its shape is wrong both shapes."""
    if isinstance(key, str):
        return key
    name, stored, expected = key
    return f"{name} {list(stored)}, where the model has {list(expected)}"


def load_adapted(name_or_path: str, base: str, computed: frozenset[str], **options) -> PreTrainedModel:
    """The model that an adapter belongs to, with the adapter; `computed` and `options` as [`load_model`] has them."""
    check_peft(f"{name_or_path}, an adapter,")
    hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
    try:
        model = load_model(base, computed, **options)
    except ArgumentError as error:
        raise ArgumentError(
            f"{name_or_path}: the model that it is an adapter of, as its adapter_config.json says: {error}"
        ) from error
    return load_adapter(model, name_or_path, **hub)


def check_path(name_or_path: str) -> None:
    """What is plainly a path and leads nowhere is said to do so, and not looked for on the Hub."""
    path = Path(name_or_path)
    of_a_folder = path.parent != Path() and path.parent.is_dir()
    if not path.exists() and (path.is_absolute() or of_a_folder or len(path.parts) > 2 or path.suffix == ".json"):
        raise ArgumentError(f"{name_or_path}: there is no such file or folder")


def load_tokenizers(
    name_or_path: str, target_name_or_path: str | None = None, **options
) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """
    The source's and the target's tokenizer, which are one unless a `target_tokenizer` lies beside the first.

    Args:
        options: As `from_pretrained` has them, such as `revision`.
    """
    source = load_tokenizer(name_or_path, **options)
    if target_name_or_path is not None:
        return source, load_tokenizer(target_name_or_path)
    return source, load_target_tokenizer(name_or_path, **options) or source


def load_target_tokenizer(name_or_path: str, **options) -> PreTrainedTokenizerBase | None:
    """
    The target's own tokenizer, of a folder or on the Hub, if there is one.

    Raises:
        ArgumentError: It cannot be seen whether there is one, so that the source's might be taken for it.
    """
    nested = f"{TARGET_TOKENIZER}/tokenizer_config.json"
    try:
        found = cached_file(name_or_path, nested, _raise_exceptions_for_missing_entries=False, **options)
    except OSError as error:
        raise ArgumentError(
            f"{name_or_path}: whether it has a {TARGET_TOKENIZER} cannot be seen: {first_line(error)}"
        ) from error
    return None if found is None else load_tokenizer(name_or_path, subfolder=TARGET_TOKENIZER, **options)


def load_tokenizer(name_or_path: str, **options) -> PreTrainedTokenizerBase:
    check_path(name_or_path)
    try:
        return AutoTokenizer.from_pretrained(name_or_path, **options)
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"{name_or_path}: cannot load a tokenizer: {first_line(error)} (hf-xformer tokenizer makes one)"
        ) from error


def load_config(name_or_path: str, overrides: dict) -> PreTrainedConfig:
    """
    A new model's configuration, from a JSON file, a folder or the Hub, with some fields changed.

    Raises:
        ArgumentError: There is no such configuration, it is not of an Xformer, or a field is unknown.
    """
    known = XformerConfig.__dataclass_fields__
    if unknown := [name for name in overrides if name not in known]:
        near = get_close_matches(unknown[0], known) or XformerConfig.__annotations__
        raise ArgumentError(
            f"--config_overrides: XformerConfig has no field {', '.join(unknown)}; it has {', '.join(near)}"
        )
    name_or_path = str(find(name_or_path))
    check_path(name_or_path)
    try:
        loaded = AutoConfig.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"--config_name {name_or_path}: {first_line(error)}") from error
    if not isinstance(loaded, XformerConfig):
        raise ArgumentError(f"--config_name {name_or_path}: model_type {loaded.model_type!r} is not 'xformer'")
    fields = loaded.to_diff_dict()
    if unknown := [name for name in vars(loaded) if name not in {*known, *vars(XformerConfig())}]:
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
    return type(loaded)(**{**fields, **overrides})


def read_own_config(name_or_path: str, otherwise: str) -> XformerConfig:
    """
    The configuration of an Xformer, from a folder or the Hub.

    Args:
        otherwise: What to do with a model of another type, for the message.

    Raises:
        ArgumentError: It cannot be read, or is of another type.
    """
    check_path(name_or_path)
    try:
        config = AutoConfig.from_pretrained(name_or_path)
    except Exception as error:
        raise ArgumentError(f"{name_or_path}: cannot read its config.json: {first_line(error)}") from error
    if not isinstance(config, XformerConfig):
        raise ArgumentError(f"{name_or_path}: model_type {config.model_type!r} is not 'xformer': {otherwise}")
    return config


def change_config(config: PreTrainedConfig, overrides: dict) -> PreTrainedConfig:
    """
    An existing model's configuration with other values of what acts in training alone.

    Raises:
        ArgumentError: A field that its weights depend on, or one that it does not have.
    """
    if not overrides:
        return config
    if wrong := [name for name in overrides if name not in TRAINING_FIELDS or not hasattr(config, name)]:
        raise ArgumentError(
            f"--config_overrides: {', '.join(wrong)} of an existing model cannot be changed; "
            f"{', '.join(name for name in TRAINING_FIELDS if hasattr(config, name))} can"
        )
    return type(config)(**{**config.to_diff_dict(), **overrides})


def position_limit(config: PreTrainedConfig) -> int | None:
    """The longest sequence, in tokens, that the model has positions for; None where there is no end to them."""
    limited = getattr(config, "position_embedding_type", None) in ("sinusoidal", "learned")
    return config.max_position_embeddings if limited else None
