# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What transformers' tests ask of a model's author: small configs, a batch, and the sizes of both."""

import torch
from transformers.testing_utils import torch_device

from hf_xformer import XformerConfig, XformerForSeq2SeqLM


# Rotary positions, RMSNorm before each sublayer, gated feed-forward, grouped heads, normed queries and keys.
MODERN = {"num_key_value_heads": 2, "qk_norm": True}
# Sinusoidal positions, LayerNorm after each sublayer, biases: Vaswani et al. 2017.
VANILLA = {
    "position_embedding_type": "sinusoidal",
    "norm_type": "layernorm",
    "norm_position": "post",
    "norm_eps": 1e-5,
    "activation_function": "relu",
    "gated_ffn": False,
    "use_bias": True,
}
# Relative positions, RMSNorm before each sublayer, nothing scaled but the output: T5, Raffel et al. 2020.
RELATIVE = {
    "position_embedding_type": "relative",
    # So few that the short rows of the tests meet both the narrow and the wide ones.
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 9,
    "activation_function": "relu",
    "gated_ffn": False,
    "attention_multiplier": 1.0,
    "scale_embedding": False,
    "scale_decoder_outputs": True,
}
# Blocks, every second layer's shifted, and global tokens in the encoder, a window and blocks in the decoder.
BLOCKS = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_layer_types": ["chunked_attention", "chunked_attention"],
    "decoder_layer_types": ["sliding_attention", "chunked_attention"],
    "block_size": 3,
    "num_global_tokens": 2,
}


class XformerThatCopies(XformerForSeq2SeqLM):
    """Where the tests give one text without labels, as to a decoder-only model, that text is source and target."""

    def forward(self, input_ids=None, decoder_input_ids=None, labels=None, **kwargs):
        if decoder_input_ids is None and labels is None:
            decoder_input_ids = input_ids
        return super().forward(input_ids=input_ids, decoder_input_ids=decoder_input_ids, labels=labels, **kwargs)


class XformerThatContinues(XformerForSeq2SeqLM):
    """Where the tests give one text to learn, its first token is the source and the others are the target."""

    def forward(self, input_ids=None, labels=None, **kwargs):
        if labels is not None:
            input_ids, labels = input_ids[:, :1], labels[:, 1:].contiguous()
        return super().forward(input_ids=input_ids, labels=labels, **kwargs)


class XformerModelTester:
    """One configuration for all tests of a class."""

    is_training = True
    batch_size, encoder_seq_length, decoder_seq_length = 3, 11, 7
    # The tests give labels and packed source and target rows of one common length, which is the target's.
    seq_length = decoder_seq_length
    vocab_size, hidden_size, num_attention_heads = 99, 32, 4
    # They compare both stacks with one depth, and allow 2.
    num_hidden_layers = 2

    def __init__(self, causal_lm_class: type[XformerForSeq2SeqLM] = XformerForSeq2SeqLM, **overrides):
        # By this name the tests of training look for a model that has a loss.
        self.causal_lm_class = causal_lm_class
        self.overrides = overrides

    def get_config(self) -> XformerConfig:
        sizes = {
            "vocab_size": self.vocab_size,
            "d_model": self.hidden_size,
            "encoder_layers": self.num_hidden_layers,
            "decoder_layers": self.num_hidden_layers,
            "encoder_attention_heads": self.num_attention_heads,
            "decoder_attention_heads": self.num_attention_heads,
            "encoder_ffn_dim": 40,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 64,
            # With the default 0.02 attention is nearly even, and no position scheme would make a difference.
            "initializer_range": 0.2,
        }
        return XformerConfig(**{**sizes, **self.overrides})

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        shape, decoder_shape = (self.batch_size, self.encoder_seq_length), (self.batch_size, self.decoder_seq_length)
        lengths, decoder_lengths = torch.tensor([[11], [8], [5]]), torch.tensor([[7], [4], [6]])
        inputs = {
            "input_ids": torch.randint(3, self.vocab_size, shape),
            "attention_mask": (torch.arange(shape[1]) < lengths).long(),
            "decoder_input_ids": torch.randint(3, self.vocab_size, decoder_shape),
            "decoder_attention_mask": (torch.arange(decoder_shape[1]) < decoder_lengths).long(),
        }
        return config, {name: tensor.to(torch_device) for name, tensor in inputs.items()}
