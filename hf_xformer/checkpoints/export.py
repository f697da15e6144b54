# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Xformer checkpoints as CTranslate2 models: what can be expressed there, exactly, and a refusal of everything else.

Shapes: B batch, S source, T target, H heads, K head width, V vocabulary.
"""

import copy
import importlib
import json
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ..errors import ArgumentError
from ..models import XformerConfig
from .loading import load_model, load_tokenizers, position_limit, read_own_config
from .vocabulary import check_vocabulary


QUANTIZATIONS = ("int8", "int8_float32", "int16", "float16", "bfloat16", "float32")
OPTIONS = "decoding.json"
FILES = {"model.bin", "config.json", OPTIONS, *(f"{side}_vocabulary.json" for side in ("shared", "source", "target"))}
# Largest difference of log-probabilities in float32 that is rounding; a wrong export is off by far more.
TOLERANCE = 1e-2
SAMPLE_LENGTH = 40  # tokens of either side, on which an export is compared with its model
DEFAULT_LENGTH = 20  # of a target in tokens that `generate()` has where none is given

# Names of transformers' activations -> of CTranslate2's.
ACTIVATIONS = {
    "relu": "RELU",
    "gelu": "GELU",
    "gelu_python": "GELU",
    "gelu_new": "GELUTanh",
    "gelu_fast": "GELUTanh",
    "gelu_pytorch_tanh": "GELUTanh",
    "gelu_python_tanh": "GELUTanh",
    "gelu_accurate": "GELUTanh",
    "quick_gelu": "GELUSigmoid",
    "silu": "SWISH",
    "swish": "SWISH",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
}
# Rope types whose frequencies are the same whatever the length.
ROPE_TYPES = ("default", "linear", "yarn", "llama3")

# Places in a layer's specification -> the layer's projections, those of one place stacked.
LINEARS = {
    "self_attention.linear.0": ("self_attention.q_proj", "self_attention.k_proj", "self_attention.v_proj"),
    "self_attention.linear.1": ("self_attention.o_proj",),
    "attention.linear.0": ("cross_attention.q_proj",),
    "attention.linear.1": ("cross_attention.k_proj", "cross_attention.v_proj"),
    "attention.linear.2": ("cross_attention.o_proj",),
    "ffn.linear_1": ("feed_forward.down_proj",),
}
FEED_FORWARDS = {
    False: {"ffn.linear_0": ("feed_forward.up_proj",)},
    True: {"ffn.linear_0": ("feed_forward.gate_proj",), "ffn.linear_0_noact": ("feed_forward.up_proj",)},
}
NORMS = {
    "pre": {
        "self_attention.layer_norm": "self_attention_norm",
        "attention.layer_norm": "cross_attention_norm",
        "ffn.layer_norm": "feed_forward_norm",
    },
    "post": {
        "self_attention.layer_norm": "self_attention_residual.norm",
        "attention.layer_norm": "cross_attention_residual.norm",
        "ffn.layer_norm": "feed_forward_residual.norm",
    },
    "sandwich": {
        "input_layer_norm": "self_attention_norm",
        "post_attention_layer_norm": "self_attention_residual.norm",
        "external_pre_encoder_attention_layer_norm": "cross_attention_norm",
        "external_post_encoder_attention_layer_norm": "cross_attention_residual.norm",
        "pre_feedforward_layer_norm": "feed_forward_norm",
        "post_feedforward_layer_norm": "feed_forward_residual.norm",
    },
}
QK_NORMS = {"self_attention.q_norm": "self_attention.q_norm", "self_attention.k_norm": "self_attention.k_norm"}


# Fields of which CTranslate2 does not have every value -> whether it lacks this one, and what it has.
LACKING = {
    "encoder_layer_types": (
        lambda config: set(config.encoder_layer_types) != {"full_attention"},
        "only 'full_attention'",
    ),
    "decoder_layer_types": (
        lambda config: set(config.decoder_layer_types) != {"full_attention"},
        "only 'full_attention'",
    ),
    "activation_function": (lambda config: config.activation_function not in ACTIVATIONS, ", ".join(ACTIVATIONS)),
    "rope_parameters": (
        lambda config: (
            config.position_embedding_type == "rope" and config.rope_parameters["rope_type"] not in ROPE_TYPES
        ),
        f"the rope types {', '.join(ROPE_TYPES)}",
    ),
    "quantization_config": (
        lambda config: getattr(config, "quantization_config", None) is not None,
        "quantisations of its own: export the checkpoint that this one was made from, with --quantization",
    ),
}

# What of a generation config has no effect on the tokens, or is written elsewhere.
WITHOUT_EFFECT = {
    *("transformers_version", "_from_model_config", "pad_token_id", "bos_token_id", "decoder_start_token_id"),
    *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "compile_config", "disable_compile"),
    *("return_dict_in_generate", "output_attentions", "output_hidden_states", "output_scores", "output_logits"),
    *("low_memory", "remove_invalid_values", "num_assistant_tokens", "num_assistant_tokens_schedule"),
    *("assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind"),
}
OF_SAMPLING = {"temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"}
OF_BEAMS = {"early_stopping", "length_penalty"}
NEUTRAL = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "num_return_sequences": 1,
    "min_length": 0,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "renormalize_logits": False,
}
CARRIED = {"num_beams", "length_penalty", "max_length", "max_new_tokens", "eos_token_id"}
# After them the library goes on with the probabilities as they were, and CTranslate2 makes their sum 1 again: that
# changes no greedy choice, but may change a beam's.
CARRIED_GREEDILY = {"min_length", "min_new_tokens", "bad_words_ids", "suppress_tokens", "forced_eos_token_id"}


class Tensors:
    """A model's parameters and buffers by name, as copies; knows which nobody took."""

    def __init__(self, model: PreTrainedModel):
        self.tensors = {**dict(model.named_buffers()), **model.state_dict()}
        self.left = set(model.state_dict())

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __call__(self, *names: str) -> torch.Tensor:
        """One tensor, or several joined along their first dimension."""
        self.left.difference_update(names)
        # Copied even if it is one, because CTranslate2 quantises in place.
        return torch.cat([self.tensors[name].detach() for name in names])


def place(spec: Any, path: str) -> Any:
    """`place(layer, "self_attention.linear.0")` is `layer.self_attention.linear[0]`."""
    for name in path.split("."):
        spec = spec[int(name)] if name.isdigit() else getattr(spec, name)
    return spec


def set_linear(spec: Any, tensors: Tensors, *names: str) -> None:
    spec.weight = tensors(*(f"{name}.weight" for name in names))
    if f"{names[0]}.bias" in tensors:
        spec.bias = tensors(*(f"{name}.bias" for name in names))


def set_norm(spec: Any, tensors: Tensors, name: str) -> None:
    spec.gamma = tensors(f"{name}.weight")
    if f"{name}.bias" in tensors:
        spec.beta = tensors(f"{name}.bias")


STOCK_MODELS = "ctranslate2's own ct2-transformers-converter exports stock models, or hf-xformer convert first"


@dataclass(frozen=True)
class Rope:
    """Rotary positions of one stack: what its frequencies are divided by, (K/2,), and a factor of its scores."""

    divisors: torch.Tensor | None = None
    score_scale: float = 1.0

    @classmethod
    def of(cls, config: XformerConfig, stack: str) -> "Rope":
        if config.position_embedding_type != "rope" or config.rope_parameters["rope_type"] == "default":
            return cls()
        config = copy.copy(config)
        config.head_dim = config.heads_of(stack)[1]
        frequencies, scale = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]](config)
        pairs = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        # Queries and keys have the scale each.
        return cls(config.rope_parameters["rope_theta"] ** -pairs / frequencies, scale**2)


def make_stack(specs: ModuleType, config: XformerConfig, stack: str) -> Any:
    """The empty specification of the "encoder" or the "decoder"."""
    heads, head_dim = config.heads_of(stack)
    options = {
        "pre_norm": config.norm_position != "post",
        "pre_post_layer_norm": config.norm_position == "sandwich",
        "rms_norm": config.norm_type == "rmsnorm",
        "layernorm_embedding": config.layernorm_embedding,
        "activation": specs.Activation[ACTIVATIONS[config.activation_function]],
        "ffn_glu": config.gated_ffn,
        "num_heads_kv": config.num_key_value_heads,
        "head_dim": head_dim,
        "qk_norm": config.qk_norm,
        # Without positions, a bias of zeros keeps CTranslate2 from adding sinusoids.
        "relative_attention_bias": config.position_embedding_type in ("relative", "none"),
    }
    if config.position_embedding_type == "rope":
        options["rotary_dim"], options["rotary_interleave"] = head_dim, False
        options["rotary_base"] = config.rope_parameters["rope_theta"]
        # The one of CTranslate2's types that takes a divisor for each frequency expresses them all.
        scaled = Rope.of(config, stack).divisors is not None
        options["rotary_scaling_type"] = specs.RotaryScalingType.Su if scaled else None
    if stack == "decoder":
        options["external_pre_post_encoder_layers"] = config.norm_position == "sandwich"
        return specs.TransformerDecoderSpec(config.decoder_layers, heads, **options)
    return specs.TransformerEncoderSpec(config.encoder_layers, heads, **options)


def relative_bias(config: XformerConfig, tensors: Tensors, stack: str, layer: int) -> tuple[torch.Tensor, int]:
    """A layer's table, (buckets, H), and the distance in tokens from which on all share a bucket."""
    heads = config.heads_of(stack)[0]
    if config.position_embedding_type == "none":
        return torch.zeros(4, heads), 4
    tables = tensors(f"model.{stack}.positions.table.weight").unflatten(-1, (heads, -1))
    table = tables[..., layer if config.relative_attention_per_layer else 0].contiguous()
    return table, config.relative_attention_max_distance


def fill_attention(spec: Any, config: XformerConfig, tensors: Tensors, stack: str, i: int) -> None:
    """What of layer i's attention is not among its projections and norms."""
    rope = Rope.of(config, stack)
    scale = config.attention_multiplier or config.heads_of(stack)[1] ** -0.5
    attention = spec.self_attention
    attention.queries_scale = float(scale * rope.score_scale)
    if rope.divisors is not None:
        attention.rotary_scaling_long_factor = attention.rotary_scaling_short_factor = rope.divisors
    if config.position_embedding_type in ("relative", "none"):
        bias, distance = relative_bias(config, tensors, stack, i)
        attention.relative_attention_bias = bias
        attention.relative_attention_max_distance = np.int32(distance)
    if stack == "decoder":
        spec.attention.queries_scale = float(scale)
        if config.qk_norm:
            del spec.attention.q_norm, spec.attention.k_norm


def fill_stack(spec: Any, config: XformerConfig, tensors: Tensors, stack: str) -> None:
    prefix = f"model.{stack}"
    embeddings = spec.embeddings if stack == "decoder" else spec.embeddings[0]
    embeddings.weight = tensors(f"{prefix}.embed_tokens.weight")
    spec.scale_embeddings = config.scale_embedding
    for table in ("positions.weight", "positions.table"):  # learned, sinusoidal
        if f"{prefix}.{table}" in tensors:
            spec.position_encodings.encodings = tensors(f"{prefix}.{table}")
    for path, name in (("layernorm_embedding", "layernorm_embedding"), ("layer_norm", "norm")):
        if f"{prefix}.{name}.weight" in tensors:
            set_norm(place(spec, path), tensors, f"{prefix}.{name}")
    linears = {**LINEARS, **FEED_FORWARDS[config.gated_ffn]}
    norms = {**NORMS[config.norm_position], **(QK_NORMS if config.qk_norm else {})}
    for i, layer in enumerate(spec.layer):
        for path, names in linears.items():
            if stack == "decoder" or not names[0].startswith("cross"):
                set_linear(place(layer, path), tensors, *(f"{prefix}.layers.{i}.{name}" for name in names))
        for path, name in norms.items():
            if stack == "decoder" or not name.startswith("cross"):
                set_norm(place(layer, path), tensors, f"{prefix}.layers.{i}.{name}")
        fill_attention(layer, config, tensors, stack, i)


def check_config(config: XformerConfig) -> None:
    """
    Raises:
        ArgumentError: CTranslate2 has no counterpart of a field's value.
    """
    for field, (lacks, known) in LACKING.items():
        if lacks(config):
            raise ArgumentError(f"`{field}={getattr(config, field)!r}` cannot be exported: CTranslate2 has {known}")


def make_spec(model: PreTrainedModel) -> Any:
    """
    A model as `ctranslate2.specs.TransformerSpec`, without vocabularies.

    Raises:
        ArgumentError: A field or a tensor has no counterpart, or ctranslate2 is not installed.
    """
    specs, tensors = load_ctranslate2().specs, Tensors(model)
    config: Any = model.config
    check_config(config)
    stacks = {stack: make_stack(specs, config, stack) for stack in ("encoder", "decoder")}
    for stack, spec in stacks.items():
        fill_stack(spec, config, tensors, stack)
    set_linear(stacks["decoder"].projection, tensors, "lm_head")
    if config.scale_decoder_outputs:
        stacks["decoder"].scale_outputs = float(config.d_model**-0.5)
    if tensors.left:
        raise ArgumentError(
            f"{len(tensors.left)} tensors cannot be exported, such as {min(tensors.left)}: merge adapters first"
        )
    spec = specs.TransformerSpec(stacks["encoder"], stacks["decoder"])
    spec.config.layer_norm_epsilon = config.norm_eps
    return spec


def load_ctranslate2() -> ModuleType:
    try:
        return importlib.import_module("ctranslate2")
    except ImportError as error:
        raise ArgumentError(f"ctranslate2 is not installed: pip install 'hf-xformer[export]' ({error})") from error


def tokens_of(tokenizer: PreTrainedTokenizerBase, size: int, side: str) -> list[str]:
    """A tokenizer's tokens in the order of their ids, and a name of its own for every id that it has no token for."""
    separate = side == "target" and getattr(tokenizer, "separate_vocabs", False)  # Marian's, of two vocabularies
    vocabulary = tokenizer.target_encoder if separate else tokenizer.get_vocab()
    vocabulary = {**vocabulary, **getattr(tokenizer, "lang_token_to_id", {})}  # M2M100 keeps its languages apart
    by_id = {i: token for token, i in vocabulary.items()}
    unused = (name for i in count() if (name := f"<unused_{i}>") not in vocabulary)
    return [by_id[i] if i in by_id else next(unused) for i in range(size)]


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of both sides and those among them that begin and end a target."""

    source: list[str]
    target: list[str]
    start: str
    ends: list[str]
    unknown: str

    @classmethod
    def of(
        cls, model: PreTrainedModel, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
    ) -> "Vocabulary":
        """
        Raises:
            ArgumentError: The tokenizers do not fit the model, or it does not say how a target begins or ends.
        """
        config, generation = model.config, model.generation_config
        check_vocabulary(config, source, target)
        chosen = {}
        for name in ("decoder_start_token_id", "eos_token_id"):
            values = (getattr(generation, name), getattr(config, name))
            chosen[name] = next((value for value in values if value is not None), None)
            if chosen[name] is None:
                raise ArgumentError(f"`{name}=None` cannot be exported: CTranslate2 needs one")
        tokens = tokens_of(target, config.vocab_size, "target")
        ends = chosen["eos_token_id"]
        ends = ends if isinstance(ends, list) else [ends]
        return cls(
            source=tokens_of(source, config.vocab_of("encoder"), "source"),
            target=tokens,
            start=tokens[chosen["decoder_start_token_id"]],
            ends=[tokens[i] for i in ends],
            unknown=target.unk_token or target.pad_token,
        )

    def register(self, spec: Any) -> None:
        spec.register_source_vocabulary(self.source)
        spec.register_target_vocabulary(self.target)
        spec.config.decoder_start_token = spec.config.bos_token = self.start
        spec.config.eos_token, spec.config.unk_token = self.ends[0], self.unknown


def decoding_options(
    generation: GenerationConfig, vocabulary: Vocabulary, limit: int | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    The arguments by which `Translator.translate_batch` decodes as `generate()` does without any.

    Args:
        limit: The longest target, in tokens, that the model has positions for.

    Returns:
        The arguments, and those fields of the generation config that they do not, or not exactly, stand for.
    """
    given = generation.to_diff_dict()
    beams = given.get("num_beams", 1)
    # Of a length, the library counts the start token, too, and of the most new tokens, the forced end.
    longest = given.get("max_new_tokens", given.get("max_length", DEFAULT_LENGTH + 1) - 1)
    longest -= "forced_eos_token_id" in given
    shortest = given.get("min_new_tokens", max(given.get("min_length", 0) - 1, 0))
    words = [*given.get("bad_words_ids", ()), *([i] for i in given.get("suppress_tokens", ()))]
    options = {
        "beam_size": beams,
        "length_penalty": given.get("length_penalty", 1.0),
        "max_decoding_length": longest if limit is None else min(longest, limit),
        "min_decoding_length": shortest,
        "max_input_length": 0,
    }
    if words:
        options["suppress_sequences"] = [[vocabulary.target[i] for i in word] for word in words]
    if len(vocabulary.ends) > 1:
        options["end_token"] = vocabulary.ends
    exact = CARRIED | WITHOUT_EFFECT
    exact |= set() if given.get("do_sample") else OF_SAMPLING
    exact |= OF_BEAMS | CARRIED_GREEDILY if beams == 1 else set()
    left = {name: value for name, value in given.items() if name not in exact and NEUTRAL.get(name) != value}
    if beams > 1 and options["length_penalty"] and given.get("early_stopping") is not True:
        left["early_stopping"] = given.get("early_stopping", False)
    else:
        left.pop("early_stopping", None)
    return options, left


@torch.no_grad()
def log_probabilities(model: PreTrainedModel, source: list[int], target: list[int]) -> torch.Tensor:
    """Those of a target's tokens after the start token, which comes first: (T - 1,), given the source."""
    inputs, outputs = (torch.tensor([ids], device=model.device) for ids in (source, target))
    logits = model(input_ids=inputs, decoder_input_ids=outputs[:, :-1]).logits[0]  # (T - 1, V)
    return logits.float().log_softmax(dim=-1).gather(1, outputs[0, 1:, None]).squeeze(1).cpu()


class Comparison:
    """How far an export's log-probabilities of a few random tokens are from its model's."""

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary):
        generator = torch.Generator().manual_seed(0)
        limit = position_limit(model.config) or SAMPLE_LENGTH
        special = {vocabulary.start, vocabulary.unknown, *vocabulary.ends}
        self.source: list[str] = []
        self.target: list[str] = []
        for tokens, sampled in ((vocabulary.source, self.source), (vocabulary.target, self.target)):
            ordinary = [token for token in tokens if token not in special] or tokens
            chosen = torch.randint(len(ordinary), (min(SAMPLE_LENGTH, limit) - 1,), generator=generator)
            sampled += [ordinary[i] for i in chosen.tolist()]
        source = {token: i for i, token in enumerate(vocabulary.source)}
        target = {token: i for i, token in enumerate(vocabulary.target)}
        ids = [target[token] for token in (vocabulary.start, *self.target, vocabulary.ends[0])]
        self.expected = log_probabilities(model.eval(), [source[token] for token in self.source], ids)

    def difference(self, folder: Path) -> float:
        """The largest one, in nats."""
        translator = load_ctranslate2().Translator(str(folder), inter_threads=1)
        (result,) = translator.score_batch([self.source], [self.target], max_input_length=0)
        return (torch.tensor(result.log_probs) - self.expected).abs().max().item()


def save(spec: Any, quantization: str, options: dict[str, Any], folder: Path) -> None:
    """Writes a specification with its vocabularies, quantised, into an empty folder."""
    layers = [layer.self_attention for layer in (*spec.encoder.layer, *spec.decoder.layer)]
    divisors = [getattr(layer, "rotary_scaling_long_factor", None) for layer in layers]
    spec.validate()
    spec.optimize(quantization=quantization)
    # Angles grow with the position, and with them what half precision would have rounded off.
    for layer, each in zip(layers, divisors, strict=True):
        if each is not None:
            exact = load_ctranslate2().specs.model_spec.PyTorchVariable(each)
            layer.rotary_scaling_long_factor = layer.rotary_scaling_short_factor = exact
    spec.save(str(folder))
    (folder / OPTIONS).write_text(json.dumps(options, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_out(out: Path, overwrite: bool) -> None:
    """
    Raises:
        ArgumentError: A file, or a folder that is in use: with `overwrite`, for something else than an export.
    """
    if out.exists() and not out.is_dir():
        raise ArgumentError(f"{out}: there is a file of that name")
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    if names and not overwrite:
        raise ArgumentError(f"{out}: the folder is not empty; --overwrite replaces an earlier export")
    if names - FILES:
        raise ArgumentError(f"{out}: --overwrite replaces exports, and {min(names - FILES)} is not of one")


def replace_folder(new: Path, out: Path) -> None:
    """Gives a folder the name of another, which is deleted."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True)
class Export:
    """What was written: its quantisation, its difference in log-probabilities, and what `generate()` does besides."""

    quantization: str
    difference: float
    left: dict[str, Any]


def export_checkpoint(checkpoint: str, out: Path, quantization: str | None = None, overwrite: bool = False) -> Export:
    """
    Writes an Xformer checkpoint and its vocabularies as a CTranslate2 model, beside the arguments that decode alike.

    The result is loaded and compared with the checkpoint before it gets its name.

    Args:
        checkpoint: Folder or Hub name.
        out: Folder to write.
        quantization: One of `QUANTIZATIONS`; None keeps the type of the checkpoint's weights.
        overwrite: Whether `out` may hold an earlier export, which is replaced.

    Raises:
        ArgumentError: ctranslate2 is not installed, the checkpoint does not load, CTranslate2 has no counterpart of
            something in it or computes something else, or `out` is in use. Nothing is written then.
    """
    load_ctranslate2()
    config, out = read_own_config(checkpoint, STOCK_MODELS), out.resolve()
    check_config(config)
    check_out(out, overwrite)
    source, target = load_tokenizers(checkpoint)
    model = load_model(checkpoint, dtype=torch.float32)
    vocabulary = Vocabulary.of(model, source, target)
    options, left = decoding_options(model.generation_config, vocabulary, position_limit(model.config))
    spec, comparison = make_spec(model), Comparison(model, vocabulary)
    vocabulary.register(spec)
    saved = str(config.dtype).removeprefix("torch.")
    quantization = quantization or (saved if saved in QUANTIZATIONS else "float32")
    unfinished = out.with_name(f".{out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        save(spec, quantization, options, unfinished)
        difference = comparison.difference(unfinished)
        if quantization == "float32" and not difference < TOLERANCE:
            raise ArgumentError(
                f"{checkpoint}: CTranslate2 computes something else: its log-probabilities differ by {difference:.1e}"
            )
        replace_folder(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Export(quantization, difference, left)
