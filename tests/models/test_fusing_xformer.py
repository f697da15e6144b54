# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Joined and packed products: the same results as the layers' own, the same files, and never of old weights."""

import copy
import itertools
import pickle

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, get_peft_model
from small_models import make_batch, make_model
from torch.nn.utils import parametrize, prune

from hf_xformer import XformerForSeq2SeqLM
from hf_xformer.models.fusing_xformer import XformerProduct, XformerProjecting, can_pack, numbers_of_rows


MODELS = {
    "modern": {},
    "vanilla": {"norm_type": "layernorm", "norm_position": "post", "use_bias": True, "gated_ffn": False},
    "grouped": {"num_key_value_heads": 2, "qk_norm": True, "use_final_logits_bias": True},
    "untied": {"tie_word_embeddings": False, "encoder_vocab_size": 61},
}


def products(model) -> list[XformerProduct]:
    joining = (each for each in model.modules() if isinstance(each, XformerProjecting))
    return [product for each in joining for product in each.products.values()]


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(**make_batch()).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fields", MODELS.values(), ids=MODELS)
def test_fused_logits_are_those_of_the_layers(fields, dtype):
    model = make_model(**fields).to(dtype)
    with torch.no_grad():
        for each in model.parameters():
            each.add_(torch.randn_like(each) * 0.1)  # biases that are not zero
    before = logits(model)
    model.fuse_projections()
    assert products(model)
    exactness = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.15}
    torch.testing.assert_close(logits(model), before, **exactness)
    model.split_projections()
    assert not products(model) and torch.equal(logits(model), before)


@pytest.mark.parametrize("options", [{}, {"num_beams": 4}, {"do_sample": True, "num_return_sequences": 3}])
def test_fused_models_write_the_same_tokens(options):
    model, batch = make_model(), make_batch()
    texts = []
    for _ in range(2):
        torch.manual_seed(0)
        texts.append(model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], **options))
        model.fuse_projections()
    assert torch.equal(*texts)


def test_saved_files_do_not_change(tmp_path):
    model = make_model()
    names = list(model.state_dict())
    model.save_pretrained(tmp_path / "apart")
    model.fuse_projections()
    model.save_pretrained(tmp_path / "fused")
    assert list(model.state_dict()) == names
    files = [(tmp_path / each / "model.safetensors").read_bytes() for each in ("apart", "fused")]
    assert files[0] == files[1]
    again = XformerForSeq2SeqLM.from_pretrained(tmp_path / "fused")
    assert not products(again)


def change_in_place(model):
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(1.1)


def change_unseen(model):
    """As averages of weights are often put in place: no version counts it."""
    for each in model.parameters():
        each.data.mul_(1.1)


def merge_an_adapter(model):
    get_peft_model(model, LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False)).merge_and_unload()


def load_others(model):
    model.load_state_dict({name: each * 0.9 for name, each in model.state_dict().items()})


def change_type_and_back(model):
    model.to(torch.bfloat16).to(torch.float32)


def train_a_step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**make_batch()).loss.backward()
    optimizer.step()


def put_other_parameters(model):
    for layer in (each for each in model.modules() if isinstance(each, torch.nn.Linear) and each is not model.lm_head):
        layer.weight = torch.nn.Parameter(layer.weight.detach() * 1.2)


def put_other_layers(model):
    for layer in model.model.decoder.layers:
        other = torch.nn.Linear(32, 32, bias=False)
        layer.self_attention.q_proj = other


def resize(model):
    model.resize_token_embeddings(60)


CHANGES = [
    *(change_in_place, change_unseen, merge_an_adapter, load_others, change_type_and_back),
    *(train_a_step, put_other_parameters, put_other_layers, resize),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_products_are_never_of_old_weights(change):
    model = make_model()
    model.fuse_projections()
    before = logits(model)
    torch.manual_seed(1)
    change(model)
    fused = logits(model)
    model.split_projections()
    torch.testing.assert_close(fused, logits(model), rtol=1e-4, atol=1e-4)
    assert fused.shape != before.shape or not torch.equal(fused, before)


@pytest.mark.parametrize("row", [0, 39, 40, 41, -1])
@pytest.mark.parametrize("name", ["self_attention.v_proj", "cross_attention.o_proj", "feed_forward.down_proj"])
def test_a_row_that_is_changed_unseen_is_noticed_before_a_text_is_generated(name, row):
    model, source = make_model(d_model=96), make_batch()["input_ids"][:1]
    options = {"max_new_tokens": 9, "eos_token_id": None, "return_dict_in_generate": True, "output_logits": True}
    model.fuse_projections()
    before = model.generate(source, **options).logits
    model.get_decoder().layers[0].get_submodule(name).weight.data[row] *= -2
    fused = model.generate(source, **options).logits
    model.split_projections()
    own = model.generate(source, **options).logits
    torch.testing.assert_close(fused, own, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(fused[0], before[0], atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (1, 6), (6, 1), (9,), (3, 4, 5)], ids=str)
def test_the_numbers_that_are_looked_at_change_with_every_row(shape, dtype):
    whole = torch.zeros(shape, dtype=dtype)
    for x in (whole, whole.mT if whole.ndim > 1 else whole):
        numbers = numbers_of_rows(x)
        for row in itertools.product(*map(range, x.shape[:-1])):
            before = numbers.tobytes()
            x[row].add_(1)
            assert numbers.tobytes() != before


def prune_layers(model):
    for layer in model.model.decoder.layers:
        prune.ln_structured(layer.feed_forward.up_proj, "weight", 0.5, n=2, dim=0)


def parametrize_layers(model):
    class Doubled(torch.nn.Module):
        def forward(self, weight):
            return weight * 2

    for layer in model.model.decoder.layers:
        parametrize.register_parametrization(layer.cross_attention.q_proj, "weight", Doubled())


def hook_layers(model):
    for layer in model.model.decoder.layers:
        layer.self_attention.q_proj.register_forward_hook(lambda layer, args, output: output * 2)


def offload(model):
    cpu_offload(model, torch.device("cpu"))


@pytest.mark.parametrize("change", [prune_layers, parametrize_layers, hook_layers, offload])
def test_layers_that_have_got_hooks_multiply_by_themselves(change):
    model, plain = make_model(), make_model()
    change(plain)
    model.fuse_projections()
    assert products(model)
    change(model)
    torch.testing.assert_close(logits(model), logits(plain), rtol=1e-4, atol=1e-4)


def test_adapters_are_multiplied_too():
    """Those that come after, in place of layers, and those that were there before."""
    model, plain = make_model(), make_model()
    model.fuse_projections()
    options = LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    adapted = get_peft_model(model, options)
    torch.manual_seed(0)
    expected = logits(get_peft_model(plain, options))
    torch.testing.assert_close(logits(adapted), expected, rtol=1e-4, atol=1e-4)
    adapted.get_base_model().fuse_projections()
    torch.testing.assert_close(logits(adapted), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deep", "pickle"]
)
def test_a_copy_has_products_of_its_own(copied):
    model = make_model()
    model.fuse_projections()
    other = copied(model)
    assert len(products(other)) == len(products(model))
    expected = logits(model)
    change_in_place(model)
    torch.testing.assert_close(logits(other), expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_the_parameters():
    model = make_model()
    model.fuse_projections()
    model(**make_batch()).loss.backward()
    assert all(each.grad is not None for each in model.parameters())


def test_a_watched_layer_stays_apart():
    model, seen = make_model(), []
    model.lm_head.register_forward_hook(lambda *_: seen.append(True))
    model.fuse_projections()
    logits(model)
    assert seen and ("lm_head",) not in model.products


@pytest.mark.skipif(not can_pack(torch.empty(2, 2)), reason="this processor has no format of its own for weights")
def test_single_layers_are_packed_where_that_is_faster():
    model = make_model()
    model.fuse_projections()
    assert ("lm_head",) in model.products and all(each.packed is not None for each in products(model))
