# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Encoder-decoders of one shape, ours and stock ones with random weights, for the benchmarks of training."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
)
from transformers.models.t5.modeling_t5 import T5Attention

import hf_xformer


@dataclass(frozen=True)
class Shape:
    """Layers of each stack, width, heads, inner width of a plain feed-forward, tokens of the vocabulary."""

    layers: int
    d_model: int
    heads: int
    ffn: int
    vocabulary: int
    positions: int = 512

    @property
    def gated(self) -> int:
        """The inner width of a gated feed-forward with about as many weights, a multiple of 64."""
        return -(-2 * self.ffn // 3 // 64) * 64


SHAPES = {
    "tiny": Shape(2, 128, 4, 576, 512),
    "g2p": Shape(3, 256, 4, 512, 64),  # cmusphinx g2p-seq2seq's
    "small": Shape(3, 256, 4, 1024, 8000),
    "base": Shape(6, 512, 8, 2048, 32000),
}


class Padding:
    """Stands in for a tokenizer in a collator, which reads this attribute only."""

    pad_token_id = 0


SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 2}


def xformer(shape: Shape, version: Any = hf_xformer, **overrides) -> nn.Module:
    """
    Returns a model like configs/model/modern-base.json.

    Args:
        version: What has `XformerConfig` and `XformerForSeq2SeqLM`, see [`versions.load_version`].
    """
    fields = {
        "vocab_size": shape.vocabulary,
        "d_model": shape.d_model,
        **{f"{stack}_layers": shape.layers for stack in ("encoder", "decoder")},
        **{f"{stack}_attention_heads": shape.heads for stack in ("encoder", "decoder")},
        **{f"{stack}_ffn_dim": shape.gated for stack in ("encoder", "decoder")},
        "max_position_embeddings": shape.positions,
    }
    return version.XformerForSeq2SeqLM(version.XformerConfig(**{**fields, **overrides}))


def bart_like(config_class: type, model_class: type, **more) -> Callable[[Shape], nn.Module]:
    def make(shape: Shape) -> nn.Module:
        config = config_class(
            vocab_size=shape.vocabulary, d_model=shape.d_model, max_position_embeddings=shape.positions,
            encoder_layers=shape.layers, decoder_layers=shape.layers,
            encoder_attention_heads=shape.heads, decoder_attention_heads=shape.heads,
            encoder_ffn_dim=shape.ffn, decoder_ffn_dim=shape.ffn, dropout=0.1, **SPECIAL, **more,
        )  # fmt: skip
        return model_class(config)

    return make


def t5(shape: Shape) -> nn.Module:
    config = T5Config(
        vocab_size=shape.vocabulary, d_model=shape.d_model, d_kv=shape.d_model // shape.heads, d_ff=shape.ffn,
        num_layers=shape.layers, num_heads=shape.heads, dropout_rate=0.1, **SPECIAL,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    for module in model.modules():  # of the weights nobody else drops any: it would cost T5 its fused attention
        if isinstance(module, T5Attention):
            module.dropout = 0.0
    return model


def t5gemma(shape: Shape) -> nn.Module:
    stack = {
        "vocab_size": shape.vocabulary, "hidden_size": shape.d_model, "intermediate_size": shape.gated,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.heads,
        "head_dim": shape.d_model // shape.heads, "max_position_embeddings": shape.positions,
        "layer_types": ["full_attention"] * shape.layers, "attn_logit_softcapping": None,
        "final_logit_softcapping": None, "query_pre_attn_scalar": shape.d_model // shape.heads,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip
    config = T5GemmaConfig(encoder=stack, decoder=stack, vocab_size=shape.vocabulary, dropout_rate=0.1)
    return T5GemmaForConditionalGeneration(config)


class TorchTransformer(nn.Module):
    """`nn.Transformer` with what it lacks: embeddings, positions, an output layer, the loss."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.d_model, padding_idx=0)
        self.positions = nn.Embedding(shape.positions, shape.d_model)
        self.transformer = nn.Transformer(
            shape.d_model, shape.heads, shape.layers, shape.layers, shape.ffn, 0.1, batch_first=True, norm_first=True
        )
        for module in self.transformer.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
        self.output = nn.Linear(shape.d_model, shape.vocabulary, bias=False)
        self.output.weight = self.embedding.weight

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.embedding(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))

    def forward(self, input_ids, attention_mask, labels) -> torch.Tensor:
        targets = shifted(labels)
        causal = nn.Transformer.generate_square_subsequent_mask(targets.shape[1], dtype=torch.bool)
        is_padding = attention_mask == 0
        x = self.transformer(
            self.embed(input_ids), self.embed(targets), tgt_mask=causal.to(input_ids.device), tgt_is_causal=True,
            src_key_padding_mask=is_padding, memory_key_padding_mask=is_padding,
        )  # fmt: skip
        return nn.functional.cross_entropy(self.output(x).flatten(0, 1), labels.flatten())


class XTransformers(nn.Module):
    """x-transformers' `XTransformer` with rotary positions, RMSNorm and SwiGLU."""

    def __init__(self, shape: Shape):
        super().__init__()
        from x_transformers import XTransformer

        stack = {
            "num_tokens": shape.vocabulary, "depth": shape.layers, "heads": shape.heads,
            "max_seq_len": shape.positions,
            "attn_dim_head": shape.d_model // shape.heads, "rotary_pos_emb": True, "use_rmsnorm": True,
            "ff_swish": True, "ff_glu": True, "ff_mult": shape.gated / shape.d_model, "attn_flash": True,
            "layer_dropout": 0.0, "ff_dropout": 0.1,
        }  # fmt: skip
        options = {f"{side}_{name}": value for side in ("enc", "dec") for name, value in stack.items()}
        self.model = XTransformer(dim=shape.d_model, tie_token_emb=True, pad_value=0, ignore_index=-100, **options)

    def forward(self, input_ids, attention_mask, labels) -> torch.Tensor:
        # It shifts by itself: the first token is never predicted.
        targets = torch.cat((torch.full_like(labels[:, :1], 2), labels), dim=1)
        return self.model(input_ids, targets, mask=attention_mask.bool())


def shifted(labels: torch.Tensor) -> torch.Tensor:
    return torch.cat((torch.full_like(labels[:, :1], 2), labels[:, :-1]), dim=1).clamp(min=0)


def padded(pairs: list[dict]) -> dict[str, torch.Tensor]:
    """Pairs of `input_ids` and `labels` in rows of their own, filled up on the right."""

    def fill(side: str, value: int) -> torch.Tensor:
        texts = [torch.as_tensor(pair[side]) for pair in pairs]
        return nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=value)

    input_ids = fill("input_ids", 0)
    return {"input_ids": input_ids, "attention_mask": (input_ids != 0).long(), "labels": fill("labels", -100)}


STOCK: dict[str, Callable[[Shape], nn.Module]] = {
    "BART": bart_like(BartConfig, BartForConditionalGeneration),
    "Marian": bart_like(MarianConfig, MarianMTModel, scale_embedding=True),
    "T5": t5,
    "T5Gemma": t5gemma,
}
OTHERS: dict[str, Callable[[Shape], nn.Module]] = {"nn.Transformer": TorchTransformer}
if find_spec("x_transformers"):
    OTHERS["x-transformers"] = XTransformers


def loss_of(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    outputs = model(**batch)
    return outputs if torch.is_tensor(outputs) else outputs.loss
