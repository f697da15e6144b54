# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""transformers' own common model and config tests, run on a modern and on a vanilla Xformer."""

import contextlib
import fnmatch
import unittest
import unittest.mock

import skips
import torch
import upstream
from transformers.models.auto import modeling_auto

from hf_xformer import XformerConfig, XformerForSeq2SeqLM, XformerModel


common = upstream.load("test_modeling_common")
configuration_common = upstream.load("test_configuration_common")
generation = upstream.load("generation.test_utils")


class XformerModelTester:
    """What transformers' tests ask of a model's author: a small config, a batch, and the sizes of both."""

    is_training = True
    batch_size, encoder_seq_length, decoder_seq_length = 3, 11, 7
    # The tests give labels and packed source and target rows of one common length, which is the target's.
    seq_length = decoder_seq_length
    vocab_size, hidden_size, num_attention_heads = 99, 32, 4
    # They compare both stacks with one depth, and allow 2.
    num_hidden_layers = 2

    def __init__(self, **overrides):
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
        return XformerConfig(**sizes, **self.overrides)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        shape, decoder_shape = (self.batch_size, self.encoder_seq_length), (self.batch_size, self.decoder_seq_length)
        lengths, decoder_lengths = torch.tensor([[11], [8], [5]]), torch.tensor([[7], [4], [6]])
        device = common.torch_device
        return config, {
            "input_ids": torch.randint(3, self.vocab_size, shape).to(device),
            "attention_mask": (torch.arange(shape[1]) < lengths).long().to(device),
            "decoder_input_ids": torch.randint(3, self.vocab_size, decoder_shape).to(device),
            "decoder_attention_mask": (torch.arange(decoder_shape[1]) < decoder_lengths).long().to(device),
        }


class UpstreamTests(common.ModelTesterMixin, generation.GenerationTesterMixin):
    """transformers' common tests on the base model and the language model."""

    all_model_classes = (XformerModel, XformerForSeq2SeqLM)
    is_encoder_decoder = True
    overrides = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # By these names the tests know which model takes labels; without them they never compute a loss.
        for names, model in (
            (modeling_auto.MODEL_MAPPING_NAMES, XformerModel),
            (modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, XformerForSeq2SeqLM),
        ):
            entry = unittest.mock.patch.dict(names, {"xformer": model.__name__})
            entry.start()
            cls.addClassCleanup(entry.stop)

    def setUp(self):
        self.model_tester = XformerModelTester(**self.overrides)
        if "rope_scaling" in self._testMethodName:
            # A config without sub-configs hands out a copy of itself to change: the model would not see the change.
            itself = unittest.mock.patch.object(XformerConfig, "get_text_config", lambda config, **kwargs: config)
            itself.start()
            self.addCleanup(itself.stop)

    def subTest(self, msg=None, **params):
        # The tests of one model class are reported; those of each of its parameters would take most of the time.
        reported = msg in {model.__name__ for model in self.all_model_classes}
        return super().subTest(msg, **params) if reported else contextlib.nullcontext()

    def test_bc_torch_dtype(self):
        # It prints every parameter into a message that nobody reads: let them be short.
        torch.set_printoptions(threshold=0, edgeitems=1)
        self.addCleanup(torch.set_printoptions, profile="default")
        super().test_bc_torch_dtype()

    def test_config(self):
        configuration_common.ConfigTester(self, config_class=XformerConfig, **self.overrides).run_common_tests()


class ModernXformerTest(UpstreamTests, unittest.TestCase):
    """Rotary positions, RMSNorm before each sublayer, gated feed-forward: the defaults."""


class VanillaXformerTest(UpstreamTests, unittest.TestCase):
    """Sinusoidal positions, LayerNorm after each sublayer, biases: Vaswani et al. 2017."""

    overrides = {
        "position_embedding_type": "sinusoidal",
        "norm_type": "layernorm",
        "norm_position": "post",
        "norm_eps": 1e-5,
        "activation_function": "relu",
        "gated_ffn": False,
        "use_bias": True,
    }

    @unittest.skip("sinusoidal positions do not scale")
    def skip_rope_scaling(self):
        pass

    test_model_rope_scaling_from_config_0_linear = skip_rope_scaling
    test_model_rope_scaling_from_config_1_dynamic = skip_rope_scaling
    test_model_rope_scaling_from_config_2_yarn = skip_rope_scaling


def test_every_explained_skip_names_a_test():
    classes = (ModernXformerTest, VanillaXformerTest)
    tests = {name for test_class in classes for test in dir(test_class) for name in skips.names_of(test_class, test)}
    patterns = {p for reasons in (skips.NEEDS, skips.NEVER) for patterns in reasons.values() for p in patterns}
    assert {pattern for pattern in patterns if not fnmatch.filter(tests, pattern)} == set()
