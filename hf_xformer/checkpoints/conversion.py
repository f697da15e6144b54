# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Converts stock transformers encoder-decoders into Xformer models with the same weights and the same logits.

`FAMILIES` lists the model types. Values of fields that an Xformer cannot compute are refused. On sources padded on the
right, a converted model decodes as the stock one does. It differs in this:

- padding on the left does not shift positions, and float16 is not kept from overflowing;
- M2M100's positions end at `max_position_embeddings`, and its sinusoids have become parameters, as has a bias of the
  logits that is not zero (BART, mBART, Marian, Pegasus): training changes them;
- up to transformers 5.23, which always scales them, UMT5's decoder outputs are scaled if its output layer is tied, as
  its authors have it;
- T5Gemma's norms, of which the weights are stored less one, are rounded when the checkpoint is in half precision;
- training drops no layers (`encoder_layerdrop`, `decoder_layerdrop`), nor elements after the last norm of a stack (T5,
  T5Gemma);
- mBART's decoder starts with `decoder_start_token_id`, and not with whatever token the labels end with.
"""

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file

from ..errors import ArgumentError, blame
from ..files import GENERATION_CONFIG
from ..models import XformerConfig, XformerForSeq2SeqLM
from .languages import decoding_options, language_id
from .loading import load_model, load_tokenizer, read_config
from .saving import TOKENIZER_FILES, check_checkpoint_folder, check_saveable, save_checkpoint
from .vocabulary import CONFIG_ERRORS


Tensors = dict[str, torch.Tensor]
Change = Callable[[torch.Tensor, PreTrainedConfig], torch.Tensor]


@dataclass(frozen=True)
class Family:
    """
    Translation of one of the library's architectures into an Xformer.

    Args:
        fields: Maps its config to the fields of an `XformerConfig`; refuses what has no counterpart.
        names: Regular expressions found in its tensors' names, and Xformer's replacements, applied in this order.
        changes: Functions of the tensors whose values change, by regular expressions that match their new names.
        scaled_if_tied: Whether the decoder's outputs are scaled if, and only if, the output layer is tied, where the
            config does not say it: UMT5's up to transformers 5.23.
    """

    fields: Callable[[PreTrainedConfig], dict]
    names: Mapping[str, str]
    changes: Mapping[str, Change] = field(default_factory=dict)
    scaled_if_tied: bool = False


TOKEN_FIELDS = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")
# Xformer's fields -> T5Gemma's: those of one stack, and those that must be the same in both.
GEMMA_STACK = {
    "layers": "num_hidden_layers",
    "attention_heads": "num_attention_heads",
    "ffn_dim": "intermediate_size",
    "layer_types": "layer_types",
}
GEMMA_SHARED = {
    "d_model": "hidden_size",
    "num_key_value_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "activation_function": "hidden_activation",
    "norm_eps": "rms_norm_eps",
    "rope_parameters": "rope_parameters",
    "max_position_embeddings": "max_position_embeddings",
    "pad_token_id": "pad_token_id",
}
GEMMA_ONLY = {"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": False}
# Missing in Pegasus's own checkpoints.
SINUSOIDAL_TABLES = frozenset(f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder"))


def namesakes(config: PreTrainedConfig) -> dict:
    """Returns the fields that Xformer's config and another have under the same name, and the token ids."""
    names = XformerConfig.__annotations__.keys() & type(config).__dataclass_fields__.keys()
    return {name: getattr(config, name, None) for name in (*names, *TOKEN_FIELDS)}


def bart_fields(config: PreTrainedConfig, **family) -> dict:
    """Returns the fields of BART and its relatives; `family` holds those that set one of them apart."""
    return {
        **namesakes(config),
        "initializer_range": config.init_std,
        "norm_type": "layernorm",
        "norm_eps": 1e-5,
        "gated_ffn": False,
        "use_bias": True,
        **family,
    }


def marian_fields(config: PreTrainedConfig, **family) -> dict:
    """Returns Marian's fields; its two sides may have vocabularies of their own."""
    separate = {"encoder_vocab_size": config.vocab_size, "vocab_size": config.decoder_vocab_size}
    return bart_fields(config, **family, **({} if config.share_encoder_decoder_embeddings else separate))


def t5_fields(config: PreTrainedConfig, scaled: Callable[[PreTrainedConfig], bool], **family) -> dict:
    """Returns the fields of T5 and its relatives; `scaled` tells whether a model scales the decoder's outputs."""
    return {
        **namesakes(config),
        "encoder_layers": config.num_layers,
        "decoder_layers": config.num_decoder_layers,
        "encoder_attention_heads": config.num_heads,
        "decoder_attention_heads": config.num_heads,
        "head_dim": config.d_kv,
        "encoder_ffn_dim": config.d_ff,
        "decoder_ffn_dim": config.d_ff,
        "activation_function": config.dense_act_fn,
        "gated_ffn": config.is_gated_act,
        "norm_eps": config.layer_norm_epsilon,
        "attention_multiplier": 1.0,
        "position_embedding_type": "relative",
        "dropout": config.dropout_rate,
        "attention_dropout": config.dropout_rate,
        "activation_dropout": config.dropout_rate,
        "scale_embedding": False,
        "freeze_pad_embedding": False,
        "scale_decoder_outputs": scaled(config),
        **family,
    }


def gemma_fields(config: PreTrainedConfig) -> dict:
    """Returns T5Gemma's fields, whose two stacks have configs of their own."""
    stacks = {"encoder": config.encoder, "decoder": config.decoder}
    encoder, decoder = stacks.values()
    sliding = "sliding_attention" in (*encoder.layer_types, *decoder.layer_types)
    shared = {**GEMMA_SHARED, **({"block_size": "sliding_window"} if sliding else {})}
    for stack, part in stacks.items():
        for name, only in GEMMA_ONLY.items():
            if (value := getattr(part, name)) != only:
                raise ArgumentError(f"t5gemma: Xformer has no `{stack}.{name}={value!r}`, only {only!r}")
    for name in (*shared.values(), "query_pre_attn_scalar"):
        if (value := getattr(encoder, name)) != (other := getattr(decoder, name)):
            raise ArgumentError(f"t5gemma: `encoder.{name}={value!r}` must equal `decoder.{name}={other!r}`")
    return {
        **{ours: getattr(decoder, name) for ours, name in shared.items()},
        **{f"{s}_{ours}": getattr(part, name) for s, part in stacks.items() for ours, name in GEMMA_STACK.items()},
        "attention_multiplier": decoder.query_pre_attn_scalar**-0.5,
        "encoder_vocab_size": encoder.vocab_size,
        "vocab_size": decoder.vocab_size,
        "norm_position": "sandwich",
        "dropout": config.dropout_rate,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.dropout_rate,
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        "use_cache": decoder.use_cache,
        "eos_token_id": config.eos_token_id,
        "bos_token_id": decoder.bos_token_id,
        "decoder_start_token_id": decoder.bos_token_id,
    }


# No forward reads these: the stacks' own entries hold the same embedding, or another if they are not tied.
UNREAD = re.compile(r"(^|\.)shared\.weight$")
BART_NAMES = {
    r"\.self_attn\.": ".self_attention.",
    r"\.encoder_attn\.": ".cross_attention.",
    r"\.out_proj\.": ".o_proj.",
    r"\.fc1\.": ".feed_forward.up_proj.",
    r"\.fc2\.": ".feed_forward.down_proj.",
    r"coder\.layer_norm\.": "coder.norm.",
    r"^final_logits_bias$": "lm_head.bias",
}
PRE_NORM_NAMES = BART_NAMES | {
    r"\.self_attn_layer_norm\.": ".self_attention_norm.",
    r"\.encoder_attn_layer_norm\.": ".cross_attention_norm.",
    r"\.final_layer_norm\.": ".feed_forward_norm.",
}
POST_NORM_NAMES = BART_NAMES | {
    r"\.self_attn_layer_norm\.": ".self_attention_residual.norm.",
    r"\.encoder_attn_layer_norm\.": ".cross_attention_residual.norm.",
    r"\.final_layer_norm\.": ".feed_forward_residual.norm.",
}
LEARNED = {r"\.embed_positions\.weights?$": ".positions.weight"}
SINUSOIDS = {r"\.embed_positions\.weight$": ".positions.table"}
T5_NAMES = {
    r"^(en|de)coder\.": r"model.\g<0>",
    r"\.block\.": ".layers.",
    r"\.layers\.\d+\.layer\.0\.SelfAttention\.relative_attention_bias\.": ".positions.table.",
    r"\.layer\.0\.SelfAttention\.(\w)\.": r".self_attention.\1_proj.",
    r"\.layer\.1\.EncDecAttention\.(\w)\.": r".cross_attention.\1_proj.",
    r"\.layer\.\d\.DenseReluDense\.": ".feed_forward.",
    r"\.wi_0\.": ".gate_proj.",
    r"\.wi(_1)?\.": ".up_proj.",
    r"\.wo\.": ".down_proj.",
    r"\.layer\.0\.layer_norm\.": ".self_attention_norm.",
    r"(decoder\..*)\.layer\.1\.layer_norm\.": r"\1.cross_attention_norm.",
    r"\.layer\.[12]\.layer_norm\.": ".feed_forward_norm.",
    r"\.final_layer_norm\.": ".norm.",
}
GEMMA_NAMES = {
    r"\.self_attn\.": ".self_attention.",
    r"\.cross_attn\.": ".cross_attention.",
    r"\.mlp\.": ".feed_forward.",
    r"\.pre_self_attn_layernorm\.": ".self_attention_norm.",
    r"\.post_self_attn_layernorm\.": ".self_attention_residual.norm.",
    r"\.pre_cross_attn_layernorm\.": ".cross_attention_norm.",
    r"\.post_cross_attn_layernorm\.": ".cross_attention_residual.norm.",
    r"\.pre_feedforward_layernorm\.": ".feed_forward_norm.",
    r"\.post_feedforward_layernorm\.": ".feed_forward_residual.norm.",
    r"\.rotary_emb\.": ".positions.",
    r"^lm_head\.out_proj\.": "lm_head.",
}


def without_offset(table: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Drops the first two rows, which are never read: BART counts positions from 2."""
    return table[2:].clone()


def from_padding(table: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Keeps the rows that M2M100 reads: it counts positions from the padding token's id."""
    return table[config.pad_token_id + 1 :][: config.max_position_embeddings].clone()


def plus_one(weight: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Adds the one that T5Gemma leaves out of its norms' weights."""
    return (weight.float() + 1).to(weight.dtype)


BIAS, HEAD = "lm_head.bias", "lm_head.weight"
ENCODER, DECODER = (f"model.{stack}.embed_tokens.weight" for stack in ("encoder", "decoder"))
# Buffers that both models compute from their configs. They are compared, not copied.
COMPUTED = re.compile(r"\.positions\.(table|inv_freq|original_inv_freq)$")
LOGITS_BIAS: dict[str, Change] = {f"^{re.escape(BIAS)}$": lambda bias, config: bias.squeeze(0)}
POSITIONS = r"\.positions\.weight$"
PRE_LEARNED: dict[str, Any] = {"norm_position": "pre", "position_embedding_type": "learned"}
POST_LEARNED: dict[str, Any] = {"norm_position": "post", "position_embedding_type": "learned"}
PRE_SINUSOIDAL: dict[str, Any] = {"norm_position": "pre", "position_embedding_type": "sinusoidal"}
POST_SINUSOIDAL: dict[str, Any] = {"norm_position": "post", "position_embedding_type": "sinusoidal"}

FAMILIES = {
    "bart": Family(
        partial(bart_fields, **POST_LEARNED, layernorm_embedding=True),
        POST_NORM_NAMES | LEARNED,
        LOGITS_BIAS | {POSITIONS: without_offset},
    ),
    "mbart": Family(
        partial(bart_fields, **PRE_LEARNED, layernorm_embedding=True),
        PRE_NORM_NAMES | LEARNED,
        LOGITS_BIAS | {POSITIONS: without_offset},
    ),
    "marian": Family(partial(marian_fields, **POST_SINUSOIDAL), POST_NORM_NAMES | SINUSOIDS, LOGITS_BIAS),
    "pegasus": Family(partial(bart_fields, **PRE_SINUSOIDAL), PRE_NORM_NAMES | SINUSOIDS, LOGITS_BIAS),
    "m2m_100": Family(partial(bart_fields, **PRE_LEARNED), PRE_NORM_NAMES | LEARNED, {POSITIONS: from_padding}),
    "t5": Family(partial(t5_fields, scaled=lambda c: c.scale_decoder_outputs), T5_NAMES),
    "mt5": Family(partial(t5_fields, scaled=lambda c: False), T5_NAMES),
    "umt5": Family(
        partial(
            t5_fields,
            scaled=lambda c: getattr(c, "scale_decoder_outputs", c.tie_word_embeddings),
            relative_attention_per_layer=True,
        ),
        T5_NAMES,
        scaled_if_tied=True,
    ),
    "t5gemma": Family(gemma_fields, GEMMA_NAMES, {r"norm\.weight$": plus_one}),
}


def family_of(config: PreTrainedConfig) -> Family:
    """Returns the entry of `FAMILIES` for a model type; raises ArgumentError for one that is not there."""
    if config.model_type not in FAMILIES:
        raise ArgumentError(f"cannot convert a {config.model_type!r}; known model types are {', '.join(FAMILIES)}")
    return FAMILIES[config.model_type]


def convert_config(config: PreTrainedConfig, **overrides) -> XformerConfig:
    """
    Returns the `XformerConfig` that means the same as a stock config.

    Args:
        overrides: Fields that take precedence, such as those read off the weights.

    Raises:
        ArgumentError: The model type is not in `FAMILIES`, or a field has a value that Xformer cannot express.
    """
    fields = {**family_of(config).fields(config), **overrides}
    with blame(f"cannot convert this {config.model_type}", *CONFIG_ERRORS):
        return XformerConfig(**fields)


def convert_weights(config: PreTrainedConfig, tensors: Tensors) -> Tensors:
    """
    Returns a stock model's tensors under Xformer's names and in its shapes.

    It maps gradients too, but for the constant of `plus_one`.

    Args:
        config: The stock model's.
        tensors: Its parameters and buffers, in the order of its layers.
    """
    family = family_of(config)
    parts: dict[str, list[torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if UNREAD.search(name):
            continue
        for pattern, ours in family.names.items():
            name = re.sub(pattern, ours, name)
        parts.setdefault(name, []).append(tensor)
    # UMT5 alone has several tensors for one: a table of positions in each layer, (buckets, heads), which become
    # one of (buckets, heads * layers).
    weights = {
        name: torch.stack(tensors, dim=-1).flatten(1) if len(tensors) > 1 else tensors[0]
        for name, tensors in parts.items()
    }
    for pattern, change in family.changes.items():
        weights.update({name: change(weights[name], config) for name in weights if re.search(pattern, name)})
    return weights


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Returns True if two tensors have the same memory or the same values."""
    return a.shape == b.shape and (a.data_ptr() == b.data_ptr() or torch.equal(a, b))


@torch.no_grad()
def convert_model(stock: PreTrainedModel) -> XformerForSeq2SeqLM:
    """
    Returns an Xformer with the weights and the generation config of a stock encoder-decoder with an output layer.

    The weights show which embeddings are tied. A logits bias of zeros, which stock models do not train, is left out.
    Weights that need no change share the stock model's memory: use one of the two models afterwards.

    Raises:
        ArgumentError: As for `convert_config`; or a tensor has no counterpart, or values that are not finite.
    """
    config = stock.config
    if stock.get_output_embeddings() is None:
        raise ArgumentError(f"a {type(stock).__name__} has no output layer: convert one that writes text")
    weights = convert_weights(config, {**dict(stock.named_buffers()), **stock.state_dict()})
    if wrong := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise ArgumentError(
            f"{config.model_type}: {len(wrong)} tensors have values that are not finite, such as {wrong[0]}"
        )
    tables = {name: weights.pop(name) for name in list(weights) if COMPUTED.search(name)}
    if BIAS in weights and not weights[BIAS].any():
        del weights[BIAS]
    tied = same(weights[DECODER], weights[HEAD])
    observed: dict[str, Any] = {"tie_word_embeddings": tied, "use_final_logits_bias": BIAS in weights}
    if family_of(config).scaled_if_tied and not hasattr(config, "scale_decoder_outputs"):
        observed["scale_decoder_outputs"] = tied
    if convert_config(config).encoder_vocab_size is None and not same(weights[ENCODER], weights[DECODER]):
        observed["encoder_vocab_size"] = len(weights[ENCODER])
    loaded: Any = XformerForSeq2SeqLM.from_pretrained(
        None,
        config=convert_config(config, **observed),
        state_dict=weights,
        dtype=stock.dtype,
        output_loading_info=True,
        trust_remote_code=False,
    )
    model, info = loaded
    if wrong := sorted(info["missing_keys"] | info["unexpected_keys"]):
        raise ArgumentError(f"{config.model_type}: {len(wrong)} tensors have no counterpart, such as {wrong[0]}")
    for name, table in tables.items():
        ours = model.get_buffer(name)
        if ours.shape != table.shape or not torch.allclose(ours.float(), table.to(ours.device).float(), atol=1e-2):
            raise ArgumentError(f"{config.model_type}: the checkpoint's {name} is not the one that Xformer computes")
    model.generation_config = copy.deepcopy(stock.generation_config)
    return model


def convert_checkpoint(
    source: str,
    out: Path,
    overwrite: bool = False,
    src_lang: str | None = None,
    tgt_lang: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[XformerForSeq2SeqLM, PreTrainedTokenizerBase | None]:
    """
    Converts a stock checkpoint, its tokenizer and its generation config into a folder.

    Args:
        source: Folder or Hub name. The weights keep their type.
        out: Folder to write.
        overwrite: Whether `out` may hold files already.
        src_lang, tgt_lang: For a multilingual checkpoint, the language of the sources and the language to decode
            into; as the tokenizer names them, such as "en_XX".
        trust_remote_code: Whether code that comes with the checkpoint may run.

    Returns:
        The model and the tokenizer that were written; None for a checkpoint without a tokenizer.

    Raises:
        ArgumentError: `source` does not load or cannot be converted, `out` is in use, or a language is unknown.
    """
    check_checkpoint_folder(out, [source], overwrite)
    # May refuse, before anything else is read.
    expected = convert_config(read_config(source, trust_remote_code=trust_remote_code))
    # Asked of the files, because for a known model type the library makes an empty tokenizer when there are none.
    files = (cached_file(source, name, _raise_exceptions_for_missing_entries=False) for name in TOKENIZER_FILES)
    tokenizer = load_tokenizer(source, trust_remote_code) if any(files) else None
    languages = {
        option: language_id(tokenizer, option, language)
        for option, language in (("src_lang", src_lang), ("tgt_lang", tgt_lang))
        if language is not None
    }
    computed = SINUSOIDAL_TABLES if expected.position_embedding_type == "sinusoidal" else frozenset()
    stock = load_model(source, computed, trust_remote_code, dtype="auto")
    check_saveable(stock.generation_config, f"{source}: {GENERATION_CONFIG}")
    model = convert_model(stock)
    if "tgt_lang" in languages:
        options = decoding_options(tokenizer, languages["tgt_lang"])
        model.generation_config.update(**options)
        if (start := options.get("decoder_start_token_id")) is not None:
            model.config.decoder_start_token_id = start
    save_checkpoint(out, model, tokenizer, tokenizer)
    return model, tokenizer
