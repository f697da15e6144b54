# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What processes start from that are sent their weights, and that FSDP2 sends them."""

import json
from argparse import Namespace

import pytest
import torch
from small_models import VANILLA, make_model
from small_runs import run_twice

from hf_xformer.training import parallel as sharding
from hf_xformer.training import prepare as training
from hf_xformer.training.resume import Start


MODELS = {
    "rope": {},
    "sinusoidal": VANILLA,
    "relative": {"position_embedding_type": "relative"},
    "yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}},
    "two-vocabularies": {"encoder_vocab_size": 60, "tie_word_embeddings": False},
}
models = pytest.mark.parametrize("overrides", MODELS.values(), ids=MODELS)


def ties(model) -> list[list[str]]:
    names = {}
    for name, each in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(each), []).append(name)
    return sorted(names.values())


@models
def test_an_empty_model_has_the_buffers_the_shapes_and_the_ties_of_a_full_one(overrides):
    full, empty = make_model(**overrides), sharding.empty_model(make_model(**overrides).config, dtype=torch.float32)
    assert ties(empty) == ties(full)
    for (name, one), (other, two) in zip(full.named_parameters(), empty.named_parameters(), strict=True):
        assert name == other and one.shape == two.shape and one.dtype == two.dtype and two.device.type == "cpu"
    buffers = dict(empty.named_buffers())
    for name, each in full.named_buffers():
        assert torch.equal(buffers[name], each), name


@models
def test_an_empty_model_computes_what_the_full_one_does_once_it_has_its_weights(overrides):
    full, empty = (
        make_model(**overrides),
        sharding.empty_model(make_model(**overrides).config, dtype=torch.float32).eval(),
    )
    empty.load_state_dict(full.state_dict())
    source = torch.randint(3, 50, (3, 11))
    assert torch.equal(empty(source, labels=source).logits, full(source, labels=source).logits)


@pytest.mark.parametrize(
    ("is_main", "sends", "expected"), [(False, "true", True), (True, "true", False), (False, "false", False)]
)
def test_only_the_first_process_of_fsdp_has_weights(is_main, sends, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", sends)
    monkeypatch.setattr(sharding, "PartialState", lambda: Namespace(is_main_process=is_main))
    made = []
    monkeypatch.setattr(training, "empty_model", lambda *args, **options: made.append("empty"))
    training.make_model(None, None, make_model().config, tmp_path, Start())
    assert bool(made) is expected


SHARD = """
import json
import os
import sys
from argparse import Namespace
from pathlib import Path
import torch
import torch.distributed as dist
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from small_models import make_batch, make_model
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from hf_xformer.training.parallel import empty_model

dist.init_process_group("gloo")
is_main = dist.get_rank() == 0
for overrides in json.loads(Path(sys.argv[1], "models.json").read_text()).values():
    full = make_model(**overrides)
    expected, logits = {name: each.clone() for name, each in full.state_dict().items()}, full(**make_batch()).logits
    model = full if is_main else empty_model(full.config, dtype=torch.float32).eval()
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=True,
        reshard_after_forward=True, state_dict_type="FULL_STATE_DICT",
    )
    accelerator = Namespace(
        state=Namespace(fsdp_plugin=plugin), device=torch.device("cpu"), is_main_process=is_main,
        process_index=dist.get_rank(), num_processes=2, mixed_precision="no", torch_device_mesh=None,
    )
    model = fsdp2_prepare_model(accelerator, model)
    torch.testing.assert_close(model(**make_batch()).logits, logits)
    model.train()(**make_batch()).loss.backward()
    held = sum(each.to_local().numel() for each in model.parameters())
    assert held < 0.6 * sum(each.numel() for each in model.parameters())
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    assert not is_main or all(torch.equal(whole[name], expected[name]) for name in expected)
    if is_main:
        print("sharded", flush=True)
dist.barrier()
os._exit(0)  # gloo's threads are not all ended in time for the interpreter's own end
"""


@pytest.mark.distributed
def test_fsdp2_sends_an_empty_model_its_share_and_computes_what_the_full_one_does(tmp_path):
    """By accelerate's function; a stand-in has the fields that it reads of an `Accelerator`, which wants GPUs."""
    (tmp_path / "models.json").write_text(json.dumps(MODELS))
    output = run_twice(SHARD, tmp_path, ACCELERATE_USE_FSDP="true", FSDP_CPU_RAM_EFFICIENT_LOADING="true")
    assert output.count("sharded") == len(MODELS)
