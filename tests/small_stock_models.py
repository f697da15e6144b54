# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Small random stock models of every convertible family, and how far their conversions are from them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    M2M100Config,
    MarianConfig,
    MBartConfig,
    MT5Config,
    PegasusConfig,
    PreTrainedConfig,
    PreTrainedModel,
    T5Config,
    T5GemmaConfig,
    UMT5Config,
)

from hf_xformer import XformerForSeq2SeqLM
from hf_xformer.checkpoints.conversion import convert_model, convert_weights


TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 2}
BART_SIZES = {
    **TOKENS,
    "forced_eos_token_id": 1,
    "vocab_size": 53,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 24,
}
MARIAN_SIZES = {
    **BART_SIZES,
    "activation_function": "silu",
    "scale_embedding": True,
    "pad_token_id": 46,
    "decoder_start_token_id": 46,
}
T5_SIZES = {
    **TOKENS,
    "decoder_start_token_id": 0,
    "vocab_size": 53,
    "d_model": 32,
    "d_kv": 6,
    "num_heads": 5,
    "d_ff": 40,
    # The other way round the stock models cannot decode: they size their cache by the encoder.
    "num_layers": 3,
    "num_decoder_layers": 2,
    # So few that the small rows meet the buckets of one distance and the wider ones.
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 9,
}
GEMMA_STACK = {
    **TOKENS,
    "vocab_size": 53,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "intermediate_size": 40,
    "query_pre_attn_scalar": 7,
    "rms_norm_eps": 1e-5,
    "layer_types": ["full_attention"] * 2,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
}
GEMMA_DECODER = {
    **GEMMA_STACK,
    "vocab_size": 47,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "intermediate_size": 48,
    "layer_types": ["full_attention"] * 3,
}


def bart() -> PreTrainedConfig:
    return BartConfig(**BART_SIZES)


def mbart() -> PreTrainedConfig:
    return MBartConfig(**{**BART_SIZES, "decoder_start_token_id": 7}, scale_embedding=True)


def marian() -> PreTrainedConfig:
    return MarianConfig(**{**MARIAN_SIZES, "vocab_size": 47})


def marian_separate() -> PreTrainedConfig:
    return MarianConfig(**MARIAN_SIZES, decoder_vocab_size=47, share_encoder_decoder_embeddings=False)


def m2m100() -> PreTrainedConfig:
    tokens = {"pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0, "decoder_start_token_id": 2}
    return M2M100Config(**{**BART_SIZES, **tokens, "forced_eos_token_id": 2})


def pegasus() -> PreTrainedConfig:
    return PegasusConfig(**{**BART_SIZES, "decoder_start_token_id": 0}, scale_embedding=True)


def t5gemma() -> PreTrainedConfig:
    return T5GemmaConfig(encoder=GEMMA_STACK, decoder=GEMMA_DECODER, vocab_size=53)


def t5gemma_sliding() -> PreTrainedConfig:
    window = {"sliding_window": 3}
    encoder = {**GEMMA_STACK, **window, "layer_types": ["sliding_attention", "full_attention"]}
    decoder = {**GEMMA_DECODER, **window, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    return T5GemmaConfig(encoder=encoder, decoder=decoder, vocab_size=53)


STOCK: dict[str, Callable[[], PreTrainedConfig]] = {
    "BART": bart,
    "mBART": mbart,
    "Marian, shared vocabulary": marian,
    "Marian, separate vocabularies": marian_separate,
    "M2M100": m2m100,
    "Pegasus": pegasus,
    "T5": lambda: T5Config(**T5_SIZES),
    "T5 v1.1": lambda: T5Config(**T5_SIZES, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "mT5": lambda: MT5Config(**{**T5_SIZES, "d_kv": 10, "num_heads": 3}),
    "UMT5": lambda: UMT5Config(**T5_SIZES),
    "T5Gemma": t5gemma,
    "T5Gemma, sliding layers": t5gemma_sliding,
}
UNTIED_HEADS = ("T5 v1.1", "mT5")
# What one of the two trains and the other does not.
UNTRAINED = {"M2M100": ("model.encoder.positions.weight", "model.decoder.positions.weight")}


def make_stock(name: str) -> PreTrainedModel:
    """A stock model in evaluation mode, without a norm of ones or a bias of zeros that would hide a missing one."""
    torch.manual_seed(0)
    stock = AutoModelForSeq2SeqLM.from_config(STOCK[name]()).eval()
    if name in UNTIED_HEADS:
        # As in their checkpoints, although their configs say otherwise.
        stock.lm_head.weight = torch.nn.Parameter(torch.empty_like(stock.lm_head.weight))
    with torch.no_grad():
        for tensor in (*stock.parameters(), *(b for n, b in stock.named_buffers() if n == "final_logits_bias")):
            if tensor.ndim == 1:
                tensor += 0.2 * torch.randn_like(tensor)
            elif tensor.requires_grad or tensor.shape[0] == 1:
                tensor.normal_(std=0.2)
    generation = stock.generation_config
    # Left alone, random models say the same token over and over; and padding, to which M2M100 gives no position.
    generation.no_repeat_ngram_size, generation.bad_words_ids = 1, [[generation.pad_token_id]]
    generation.forced_bos_token_id = 9 if name == "M2M100" else None
    return stock


def make_stock_batch(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Sources of 13, 9 and 6 tokens and targets of 11, 5 and 8, padded right, with the decoder's input."""
    generator = torch.Generator().manual_seed(1)
    pad, start = config.pad_token_id, getattr(config, "decoder_start_token_id", config.bos_token_id)
    source, target = (torch.randint(3, 46, shape, generator=generator) for shape in ((3, 13), (3, 11)))
    attention_mask = torch.arange(13) < torch.tensor([13, 9, 6])[:, None]
    wanted = torch.arange(11) < torch.tensor([11, 5, 8])[:, None]
    shifted = torch.cat((torch.full((3, 1), start), target[:, :-1].masked_fill(~wanted[:, :-1], pad)), dim=-1)
    return {
        "input_ids": source.masked_fill(~attention_mask, pad),
        "attention_mask": attention_mask.long(),
        "decoder_input_ids": shifted,
        "labels": target.masked_fill(~wanted, -100),
    }


@dataclass(frozen=True)
class Parity:
    """The largest differences between a stock model and its conversion, and what is equal to the last bit."""

    logits: float
    gradients: float
    greedy: bool
    beams: bool
    reloaded: bool

    @property
    def holds(self) -> bool:
        return self.logits <= 1e-5 and self.gradients <= 1e-4 and self.greedy and self.beams and self.reloaded


def measure(name: str) -> Parity:
    stock = make_stock(name)
    model = convert_model(stock)
    batch = make_stock_batch(stock.config)
    wanted = batch["labels"] != -100
    logits = [each(**batch).logits[wanted] for each in (stock, model)]
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    greedy, beams = (
        [each.generate(**source, max_new_tokens=15, num_beams=width) for each in (stock, model)] for width in (1, 4)
    )
    return Parity(
        logits=largest(logits[0] - logits[1]),
        gradients=max(gradient_differences(name, stock, model, batch).values()),
        greedy=torch.equal(*greedy),
        beams=torch.equal(*beams),
        reloaded=torch.equal(reload(model)(**batch).logits[wanted], logits[1]),
    )


def largest(difference: torch.Tensor) -> float:
    return difference.abs().max().item()


def reload(model: XformerForSeq2SeqLM) -> PreTrainedModel:
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return AutoModelForSeq2SeqLM.from_pretrained(Path(folder))


def gradient_differences(
    name: str, stock: PreTrainedModel, model: XformerForSeq2SeqLM, batch: dict[str, torch.Tensor]
) -> dict[str, float]:
    """Of every parameter of the conversion that both train; the stock model's gradients go the way of its weights."""
    tensors = {**dict(stock.named_buffers()), **stock.state_dict(keep_vars=True)}
    for tensor in tensors.values():
        tensor.requires_grad_()
    for each in (stock, model):
        each(**batch).loss.backward()
    zeros = {key: torch.zeros_like(tensor) for key, tensor in tensors.items()}
    gradients = {key: zeros[key] if tensor.grad is None else tensor.grad for key, tensor in tensors.items()}
    # Some changes of weights add a constant, which gradients do not have.
    constants = convert_weights(stock.config, zeros)
    differences = {key: g - constants[key] for key, g in convert_weights(stock.config, gradients).items()}
    for key, parameter in model.named_parameters():
        differences[key] -= parameter.grad
    trained = dict(model.named_parameters()).keys() - UNTRAINED.get(name, ())
    return {key: largest(differences[key]) for key in trained}
