# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Optimizers are looked at without a trace on the model, and their arguments by name."""

import sys
from types import ModuleType

import pytest
import torch
from small_models import make_model
from torch import nn
from transformers import Seq2SeqTrainingArguments, trainer_optimizer

from hf_xformer.training.optimizers import check_optimizer, keep_embeddings_in_32_bits, optimizer_of, without_weights


class LowRank(torch.optim.AdamW):
    """GaLore's optimizer takes groups with more entries."""


@pytest.fixture
def galore(monkeypatch):
    """A stand-in for GaLore's package, which is on no index."""
    package = ModuleType("galore_torch")
    package.GaLoreAdafactor = package.GaLoreAdamW = package.GaLoreAdamW8bit = LowRank
    monkeypatch.setitem(sys.modules, "galore_torch", package)
    monkeypatch.setattr(trainer_optimizer, "is_galore_torch_available", lambda: True)


def arguments(folder, **changes) -> Seq2SeqTrainingArguments:
    return Seq2SeqTrainingArguments(folder, use_cpu=True, optim_target_modules="all-linear", **changes)


def test_a_copy_without_weights_has_all_names_and_ties_and_leaves_the_model():
    model = make_model()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    copy = without_weights(model)
    assert {name for name, _ in copy.named_parameters()} == {name for name, _ in model.named_parameters()}
    assert all(each.is_meta for each in (*copy.parameters(), *copy.buffers()))
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def test_layerwise_optimizers_leave_no_hook_on_the_model(galore, tmp_path):
    model = make_model()
    args = arguments(tmp_path, optim="galore_adamw_layerwise", optim_args="rank=4")
    check_optimizer(args, model)
    assert "optimizer_dict" in optimizer_of(args, model)[1]
    assert not any(each._post_accumulate_grad_hooks for each in model.parameters())


@pytest.mark.parametrize("optim", ["galore_adamw", "galore_adamw_layerwise"])
def test_a_default_that_is_given_counts_as_taken_and_a_misspelt_name_does_not(galore, optim, tmp_path):
    model = make_model()
    check_optimizer(arguments(tmp_path, optim=optim, optim_args="rank=128,update_proj_gap=200,proj_type=std"), model)
    with pytest.raises(ValueError, match="does not take rnk: leave it out"):
        check_optimizer(arguments(tmp_path, optim=optim, optim_args="rank=128,rnk=4"), model)


def test_embeddings_keep_their_moments_in_32_bits_where_others_have_8():
    """As the Trainer has it of an optimizer that it makes itself, in one group."""
    manager = pytest.importorskip("bitsandbytes").optim.GlobalOptimManager.get_instance()
    manager.module_weight_config_triple.clear()
    model = make_model()
    keep_embeddings_in_32_bits(model)
    found = list(manager.module_weight_config_triple)
    manager.module_weight_config_triple.clear()
    assert [module for module, *_ in found] == [each for each in model.modules() if isinstance(each, nn.Embedding)]
    assert found and all(name == "weight" and options == {"optim_bits": 32} for _, name, options in found)
