# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Small random models and ragged batches that the tests share; every size differs from every other."""

from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_xformer import XformerConfig, XformerForSeq2SeqLM
from hf_xformer.data.tokenizers import train_tokenizer


SIZES = {
    "vocab_size": 53,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    # Wide enough that a fault shows: with the default 0.02 all attention weights would be nearly equal.
    "initializer_range": 0.2,
}
VANILLA = {
    "norm_type": "layernorm",
    "norm_position": "post",
    "norm_eps": 1e-5,
    "activation_function": "relu",
    "gated_ffn": False,
    "position_embedding_type": "sinusoidal",
    "use_bias": True,
}
# One of every choice that changes what is computed, in few models.
VARIANTS = {
    "rope-pre": {},
    "rope-post-gqa": {"norm_position": "post", "num_key_value_heads": 2},
    "sinusoidal-post": VANILLA,
    "learned-pre": {**VANILLA, "norm_position": "pre", "position_embedding_type": "learned"},
    "relative-pre": {
        "position_embedding_type": "relative",
        # So few that a row of eleven meets both halves of them: one distance a bucket, and many.
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 9,
        "attention_multiplier": 1.0,
        "scale_embedding": False,
        "scale_decoder_outputs": True,
    },
    "rope-sandwich-qk-norm": {"norm_position": "sandwich", "qk_norm": True},
    "none-pre-untied": {"position_embedding_type": "none", "tie_word_embeddings": False, "head_dim": 10},
    # Blocks so small that every row of the tests has several.
    "rope-pre-blocks": {
        "encoder_layer_types": ["chunked_attention", "chunked_attention"],
        "decoder_layer_types": ["sliding_attention", "full_attention", "chunked_attention"],
        "block_size": 3,
        "num_global_tokens": 2,
    },
}
BATCH, SOURCE, TARGET = 3, 11, 7


def make_model(**overrides) -> XformerForSeq2SeqLM:
    """A small model in evaluation mode, the same weights for the same overrides."""
    torch.manual_seed(0)
    return XformerForSeq2SeqLM(XformerConfig(**{**SIZES, **overrides})).eval()


def make_batch() -> dict[str, torch.Tensor]:
    """Sources of 11, 8 and 5 tokens padded right, targets of 7, 4 and 6 padded with -100."""
    generator = torch.Generator().manual_seed(1)
    attention_mask = (torch.arange(SOURCE) < torch.tensor([11, 8, 5])[:, None]).long()
    input_ids = torch.randint(4, SIZES["vocab_size"], (BATCH, SOURCE), generator=generator)
    labels = torch.randint(4, SIZES["vocab_size"], (BATCH, TARGET), generator=generator)
    return {
        "input_ids": input_ids * attention_mask,
        "attention_mask": attention_mask,
        "labels": labels.masked_fill(torch.arange(TARGET) >= torch.tensor([7, 4, 6])[:, None], -100),
    }


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def pack(batch: dict, layout: list[list[int]], lengths: tuple[int, int] | None = None) -> dict[str, torch.Tensor]:
    """
    The pairs of a batch behind one another in rows, written out token by token.

    Args:
        layout: Which pairs each row has. lengths: Of rows, source and target; by default a few more than they need.
    """
    counts = {
        "input_ids": batch["attention_mask"].sum(dim=1).tolist(),
        "labels": (batch["labels"] != -100).sum(dim=1).tolist(),
    }
    packed = {}
    for side, segments, padding, place in (
        ("input_ids", "segment_ids", 0, 0),
        ("labels", "decoder_segment_ids", -100, 1),
    ):
        longest = max(sum(counts[side][pair] for pair in row) for row in layout)
        length = longest + 3 - place if lengths is None else lengths[place]
        packed[side] = torch.full((len(layout), length), padding)
        packed[segments] = torch.zeros(len(layout), length, dtype=torch.long)
        for row, pairs in enumerate(layout):
            first = 0
            for number, pair in enumerate(pairs, start=1):
                for i in range(counts[side][pair]):
                    packed[side][row, first + i], packed[segments][row, first + i] = batch[side][pair, i], number
                first += counts[side][pair]
    return packed


class LargestTensor(TorchDispatchMode):
    """Watches every operation, of the backward pass too, for the most elements that a tensor has."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


def save_checkpoint(folder: Path) -> Path:
    """Saves a small model and its tokenizer of three letters in a folder, and returns that."""
    tokenizer = train_tokenizer(["A B C"], "symbol")
    tokenizer.save_pretrained(folder)
    make_model(vocab_size=len(tokenizer)).save_pretrained(folder)
    return folder
