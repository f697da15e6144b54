# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""transformers' own common model and config tests, run on a modern, a vanilla, a relative and a blockwise Xformer."""

import contextlib
import unittest
import unittest.mock

import pytest
import torch
import upstream
from transformers.models.auto import modeling_auto
from upstream_tester import BLOCKS, MODERN, RELATIVE, VANILLA, XformerModelTester

from hf_xformer import XformerConfig, XformerForSeq2SeqLM, XformerModel


common = upstream.load("test_modeling_common")
configuration_common = upstream.load("test_configuration_common")
generation = upstream.load("generation.test_utils")


def with_short_targets(forward):
    """A forward pass of the base model that cuts its targets to the positions that a scaled decoder has."""

    def cut(self, input_ids, decoder_input_ids=None):
        return forward(self, input_ids, decoder_input_ids=decoder_input_ids[:, : self.config.max_position_embeddings])

    return cut


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
        if "rope_scaling_from_config_1_dynamic" in self._testMethodName:
            # It gives both stacks long texts, and a decoder refuses what would change its cache's frequencies.
            short = unittest.mock.patch.object(XformerModel, "forward", with_short_targets(XformerModel.forward))
            short.start()
            self.addCleanup(short.stop)

    def subTest(self, msg=None, **params):
        # The tests of one model class are reported; those of each of its parameters would take most of the time.
        reported = msg in {model.__name__ for model in self.all_model_classes}
        return super().subTest(msg, **params) if reported else contextlib.nullcontext()

    def test_bc_torch_dtype(self):
        # It prints every parameter into a message that nobody reads: let them be short.
        torch.set_printoptions(threshold=0, edgeitems=1)
        self.addCleanup(torch.set_printoptions, profile="default")
        super().test_bc_torch_dtype()

    @pytest.mark.filterwarnings("always::FutureWarning")
    def test_bc_cache_name_forward(self):
        # It waits for a warning, and here FutureWarnings are ignored.
        if not hasattr(super(), "test_bc_cache_name_forward"):
            self.skipTest("the cache has one name in this release")
        super().test_bc_cache_name_forward()

    def test_config(self):
        configuration_common.ConfigTester(self, config_class=XformerConfig, **self.overrides).run_common_tests()


class ModernXformerTest(UpstreamTests, unittest.TestCase):
    overrides = MODERN


class WithoutRotaryPositions(UpstreamTests):
    @unittest.skip("other positions do not scale")
    def skip_rope_scaling(self):
        pass

    test_model_rope_scaling_from_config_0_linear = skip_rope_scaling
    test_model_rope_scaling_from_config_1_dynamic = skip_rope_scaling
    test_model_rope_scaling_from_config_2_yarn = skip_rope_scaling


@pytest.mark.slow
class VanillaXformerTest(WithoutRotaryPositions, unittest.TestCase):
    overrides = VANILLA


@pytest.mark.slow
class RelativeXformerTest(WithoutRotaryPositions, unittest.TestCase):
    overrides = RELATIVE


class BlocksXformerTest(UpstreamTests, unittest.TestCase):
    overrides = BLOCKS

    def _prepare_for_class(self, inputs_dict, *args, **kwargs):
        # The tests give the target the source's mask, which is longer: as much of it as is needed, with its padding.
        inputs = super()._prepare_for_class(inputs_dict, *args, **kwargs)
        mask, tokens = inputs.get("decoder_attention_mask"), inputs.get("decoder_input_ids")
        if mask is not None and mask.shape[1] > tokens.shape[1]:
            is_padded_left, length = (mask[:, 0] == 0).any(), tokens.shape[1]
            inputs["decoder_attention_mask"] = mask[:, :length] if is_padded_left else mask[:, -length:]
        return inputs

    @unittest.skip("of whole rows")
    def skip_weights_of_whole_rows(self):
        pass

    test_attention_outputs = skip_weights_of_whole_rows
    test_retain_grad_hidden_states_attentions = skip_weights_of_whole_rows

    @unittest.skip("with windows for the cross-attention")
    def test_bc_cache_name_forward(self):
        pass
