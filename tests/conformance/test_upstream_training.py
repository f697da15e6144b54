# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""transformers' own tests of training: a text learnt by heart, tensor parallelism, sharded data parallelism."""

import unittest
import unittest.mock

import pytest
import torch
import upstream
from upstream_tester import (
    BLOCKS,
    MODERN,
    RELATIVE,
    VANILLA,
    XformerModelTester,
    XformerThatContinues,
    XformerThatCopies,
)

from hf_xformer import XformerForSeq2SeqLM, XformerModel


training = upstream.load("test_training_mixin")
tensor_parallel = upstream.load("test_tensor_parallel_mixin")
fsdp = upstream.load("test_fsdp_mixin")

# Its own table for each layer is what sharding the heads could get wrong.
RELATIVE = {**RELATIVE, "relative_attention_per_layer": True}


class OverfitTests(training.TrainingTesterMixin):
    """The first token of a text is read and the others are learnt, then generated."""

    overrides = {}

    @property
    def model_tester(self):
        # The text begins with token 1, and what is generated is compared with the start token in front.
        overrides = {"dropout": 0.0, "decoder_start_token_id": 1, **self.overrides}
        return XformerModelTester(XformerThatContinues, **overrides)


class ModernOverfitTest(OverfitTests, unittest.TestCase):
    overrides = MODERN


@pytest.mark.nightly
class VanillaOverfitTest(OverfitTests, unittest.TestCase):
    overrides = VANILLA


@pytest.mark.nightly
class RelativeOverfitTest(OverfitTests, unittest.TestCase):
    overrides = RELATIVE
    # Embeddings that are not scaled up, and an output that is scaled down, want larger steps.
    training_overfit_learning_rate = 5e-3


@pytest.mark.nightly
class BlocksOverfitTest(OverfitTests, unittest.TestCase):
    overrides = BLOCKS


class EveryModelType:
    """Takes the lists off the tests by which transformers spares most of its own model types."""

    lists = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for module, name, value in cls.lists:
            entry = unittest.mock.patch.object(module, name, value)
            entry.start()
            cls.addClassCleanup(entry.stop)


class TensorParallelTests(EveryModelType, tensor_parallel.TensorParallelTesterMixin):
    """Two processes with half of the heads, features and words each compute what one computes."""

    lists = ((tensor_parallel, "TP_DISTRIBUTED_TEST_MODEL_TYPES", None),)
    all_model_classes = (XformerModel, XformerForSeq2SeqLM)
    overrides = {}

    @property
    def model_tester(self):
        return XformerModelTester(XformerThatCopies, dropout=0.0, **self.overrides)


class ModernTensorParallelTest(TensorParallelTests, unittest.TestCase):
    overrides = MODERN


@pytest.mark.nightly
class VanillaTensorParallelTest(TensorParallelTests, unittest.TestCase):
    overrides = VANILLA


class RelativeTensorParallelTest(TensorParallelTests, unittest.TestCase):
    overrides = RELATIVE


@pytest.mark.nightly
class BlocksTensorParallelTest(TensorParallelTests, unittest.TestCase):
    overrides = BLOCKS


def count_processes() -> int:
    """On a CPU processes may share cores; on accelerators each needs its own."""
    return torch.accelerator.device_count() if torch.accelerator.is_available() else 4


class ShardedTests(EveryModelType, fsdp.FSDPTesterMixin):
    """Sharded parameters train, save and load as whole ones."""

    lists = ((fsdp, "FSDP_DISTRIBUTED_TEST_MODEL_TYPES", None), (fsdp, "_get_available_fsdp_workers", count_processes))
    overrides = {}

    @property
    def model_tester(self):
        # Twenty steps of Adam amplify rounding: the gradients must not be steep, nor zero as those of biases of keys.
        return XformerModelTester(**{**self.overrides, "dropout": 0.0, "initializer_range": 0.02, "use_bias": False})


class ModernShardedTest(ShardedTests, unittest.TestCase):
    overrides = MODERN


@pytest.mark.nightly
class VanillaShardedTest(ShardedTests, unittest.TestCase):
    overrides = VANILLA


@pytest.mark.nightly
class RelativeShardedTest(ShardedTests, unittest.TestCase):
    overrides = RELATIVE
