# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Describes a checkpoint and what is wrong with it: size, options, memory, tokenizer, missing or unexpected weights; and
an adapter: its kind, options and parameters, and the model that it belongs to.

  hf-xformer info runs/g2p-quickstart
  hf-xformer info user/name --revision v1.0

It reads the weight files a tensor at a time; a checkpoint on the Hub is downloaded first. The exit status is 1 if
weights are missing, unexpected or of another shape than the configuration says, and 2 if files cannot be read or a
weight is infinite or NaN. Weights of an adapter are compared with the model when both are loaded.
"""

from collections.abc import Iterable, Sequence
from filecmp import cmp
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers import GenerationConfig, PreTrainedConfig

from ..checkpoints.adapters import KINDS, MERGEABLE, base_of, revision_of_base
from ..checkpoints.averaging import note_of_averages
from ..checkpoints.folder_checks import check_generation, check_json
from ..checkpoints.loading import check_path, load_tokenizers, nor_here, read_config, read_own_config
from ..checkpoints.vocabulary import check_vocabulary
from ..checkpoints.weight_files import (
    StoredTensor,
    check_finite,
    compare,
    count_parameters,
    read_header,
    read_tensors,
)
from ..errors import ArgumentError, first_line, one_line_errors
from ..files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, GENERATION_CONFIG, read_json, travelling_files
from ..hub.repository import hub_call
from ..models import XformerConfig
from .options import Parser, add_checkpoint, add_revision


# Fields of the configuration that other lines already say.
SAID = {f"{stack}_{name}" for stack in ("encoder", "decoder") for name in ("layers", "attention_heads", "ffn_dim")}
SAID |= {"encoder_layer_types", "decoder_layer_types", "vocab_size", "encoder_vocab_size", "d_model", "format_version"}
# Fields that nobody chooses, or that belong elsewhere: whether `generate` caches is the generation config's.
INSIDE = {
    "use_cache",
    "auto_map",
    "architectures",
    "dtype",
    "transformers_version",
    "model_type",
    "is_encoder_decoder",
}
# Fields of the generation config that people set.
SHOWN = ("num_beams", "max_length", "max_new_tokens", "length_penalty", "do_sample", "forced_bos_token_id")
# Options of adapters that decide their size and what they change.
ADAPTER_OPTIONS = (
    *("r", "init_r", "target_r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", "num_virtual_tokens"),
    *("target_modules", "feedforward_modules", "modules_to_save"),
)
UNUSED = (("ADALORA", "r"),)  # that PEFT writes all the same
ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("info", __doc__)
    add_checkpoint(parser)
    add_revision(parser)
    args = parser.parse_args(argv)
    folder = fetch(args.checkpoint, args.revision)
    if (base := base_of(str(folder))) is not None:
        stored = read_adapter(folder)
        check_finite(folder)
        show(adapter_lines(folder, base, stored, args.trust_remote_code), folder)
        return
    advice = "hf-xformer convert makes one of many stock models"
    config = read_own_config(str(folder), advice, args.trust_remote_code)
    stored = read_tensors(folder)
    if not stored:
        raise ArgumentError(f"{args.checkpoint}: there are no weights (model.safetensors)")
    check_finite(folder)
    show(lines(folder, config, stored, args.trust_remote_code), folder)
    problems = list(compare(config, stored).sentences())
    print(
        f"{'weights':12}{len(stored)} tensors, " + ("which are not the model's:" if problems else "all of the model's")
    )
    for problem in problems:
        print(f"  {problem}")
    raise SystemExit(1 if problems else 0)


def show(described: Iterable[tuple[str, str]], folder: Path) -> None:
    """Prints the lines of a description, and that there are averages beside the weights if there are."""
    for name, text in described:
        print(f"{name:12}{text}")
    if note := note_of_averages(str(folder)):
        print(note)


def fetch(name_or_path: str, revision: str | None) -> Path:
    """Returns the folder itself, or the local copy of the Hub's."""
    check_path(name_or_path)
    path = Path(name_or_path)
    if path.is_dir():
        return path
    if path.exists():
        raise ArgumentError(f"{path}: not a folder, as a checkpoint is")
    try:
        with hub_call():
            return Path(snapshot_download(name_or_path, revision=revision, ignore_patterns=["*.bin", "*.pt", "*.pth"]))
    except ArgumentError as error:
        raise ArgumentError(f"{name_or_path}: {error}{nor_here(name_or_path)}") from error


def lines(
    folder: Path, config: XformerConfig, stored: dict[str, StoredTensor], trust_remote_code: bool
) -> Iterable[tuple[str, str]]:
    """Yields the lines of the description, as `(topic, text)`."""
    yield "model", f"{(config.architectures or ['Xformer'])[0]} of {count_parameters(stored):,} parameters"
    for stack in ("encoder", "decoder"):
        heads, width = config.heads_of(stack)
        kinds = getattr(config, f"{stack}_layer_types")
        counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        inner = getattr(config, f"{stack}_ffn_dim")
        yield stack, f"{counted}; width {config.d_model}, {heads} heads of {width}, feed-forward {inner}"
    own = config.encoder_vocab_size
    yield "vocabulary", f"{config.vocab_size:,} entries" + (f", and {own:,} of the source's own" if own else "")
    yield (
        "options",
        ", ".join(f"{name}={value!r}" for name, value in options(config).items()) or "all at their defaults",
    )
    yield "memory", memory(config, stored)
    yield "tokenizer", describe_tokenizers(folder, config, trust_remote_code)
    yield "decoding", describe_generation(folder, config)
    yield "code", describe_code(folder)
    yield "format", f"{config.format_version}"


def read_adapter(folder: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of an adapter by name; raises ArgumentError if they cannot be read."""
    if not (path := folder / ADAPTER_WEIGHTS).exists():
        raise ArgumentError(f"{folder}: there are no weights of the adapter ({ADAPTER_WEIGHTS})")
    return read_header(path)


def adapter_lines(
    folder: Path, base: str, stored: dict[str, StoredTensor], trust_remote_code: bool
) -> Iterable[tuple[str, str]]:
    """Yields the lines of the description of an adapter, as `(topic, text)`."""
    chosen = read_json(folder / ADAPTER_CONFIG)
    kind = chosen.get("peft_type")
    yield "adapter", f"{KINDS.get(kind, kind)} of {count_parameters(stored):,} parameters in {len(stored)} tensors"
    named = {name: sorted(value) if isinstance(value, list) else value for name, value in chosen.items()}
    shown = [name for name in ADAPTER_OPTIONS if named.get(name) and (kind, name) not in UNUSED]
    yield "options", ", ".join(f"{name}={named[name]!r}" for name in shown) or "all at their defaults"
    try:
        config = read_config(base, trust_remote_code=trust_remote_code, **revision_of_base(str(folder)))
        yield "model", f"{base} ({config.model_type})"
    except ArgumentError as error:
        config = None
        yield "model", f"WARNING: {error}"
    yield "memory", f"{bytes_of(stored)}, beside those of the model"
    yield "tokenizer", describe_tokenizers(folder, None, trust_remote_code)
    if config is not None and (folder / GENERATION_CONFIG).exists():
        yield "decoding", describe_generation(folder, config)
    out = "hf-xformer merge makes a model of both" if kind in MERGEABLE else "not possible: it changes no weights"
    yield "merging", out


def options(config: XformerConfig) -> dict:
    """Returns the fields that are not at their defaults, without those that other lines say."""
    default = XformerConfig().to_dict()
    values = config.to_diff_dict()
    return {name: values[name] for name in values if name not in SAID | INSIDE and values[name] != default.get(name)}


def memory(config: XformerConfig, stored: dict[str, StoredTensor]) -> str:
    """Describes the memory of the weights, and of the keys and values that all decoder layers keep of a token."""
    heads, width = config.heads_of("decoder")
    element = ELEMENT_BYTES.get(str(config.dtype).removeprefix("torch."), 4)
    a_token = 2 * config.decoder_layers * (config.num_key_value_heads or heads) * width * element
    return f"{bytes_of(stored)}; cache of {size(a_token)} a token of the source and as much of the target"


def bytes_of(stored: dict[str, StoredTensor]) -> str:
    """Describes the memory of the weights alone."""
    types = ", ".join(sorted({tensor.dtype for tensor in stored.values()}))
    return f"{size(sum(tensor.bytes for tensor in stored.values()))} of weights ({types})"


def size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.{0 if unit == 'bytes' else 1}f} {unit}"
        count /= 1024
    raise AssertionError


def describe_tokenizers(folder: Path, config: XformerConfig | None, trust_remote_code: bool) -> str:
    """Describes the tokenizers, and whether they fit the configuration if there is one."""
    try:
        source, target = load_tokenizers(str(folder), trust_remote_code=trust_remote_code)
        if config is not None:
            check_vocabulary(config, source, target)
    except ArgumentError as error:
        return f"WARNING: {error}"
    sides = [source] if source is target else [source, target]
    return " and ".join(
        f"{type(each).__name__} of {len(each):,} entries, ends with {each.eos_token}" for each in sides
    )


def describe_generation(folder: Path, config: PreTrainedConfig) -> str:
    if not (folder / GENERATION_CONFIG).exists():
        return f"no {GENERATION_CONFIG}: greedy"
    try:
        check_generation(check_json(folder / GENERATION_CONFIG), config, GENERATION_CONFIG)
        options = GenerationConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        return f"WARNING: {GENERATION_CONFIG}: {first_line(error)}"
    shown = {name: value for name in SHOWN if (value := getattr(options, name, None)) is not None}
    return ", ".join(f"{name}={value}" for name, value in shown.items()) or "greedy, to the library's default length"


def describe_code(folder: Path) -> str:
    """Says whether the checkpoint loads without this package, and whether its code is the same."""
    ours = travelling_files()
    there = [path for path in ours if (folder / path.name).exists()]
    if len(there) < len(ours):
        return "not beside the weights: loads only where hf_xformer is installed (saving it again adds the code)"
    same = all(cmp(path, folder / path.name, shallow=False) for path in ours)
    return f"{len(ours)} files, loads with trust_remote_code too; " + ("as here" if same else "of another version")
