# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters and quantisation by other libraries, which know the model by its names only."""

import functools
import os
from pathlib import Path

import pytest
import torch
from peft import (
    AdaLoraConfig,
    AutoPeftModelForSeq2SeqLM,
    IA3Config,
    LoraConfig,
    TaskType,
    get_peft_model,
    prepare_model_for_kbit_training,
)
from small_models import VANILLA, VARIANTS, make_batch, make_model
from small_runs import ROOT
from torch.testing import assert_close
from transformers import AutoModelForSeq2SeqLM, BitsAndBytesConfig
from warm_start import WarmStart

import hf_xformer
from hf_xformer.checkpoints.adapters import merge_adapter


MODELS = {
    "rope-pre": {},
    "vanilla": VANILLA,
    "relative": VARIANTS["relative-pre"],
    "two-vocabularies": {"encoder_vocab_size": 60},
    "blocks": VARIANTS["rope-pre-blocks"],
}
models = pytest.mark.parametrize("overrides", MODELS.values(), ids=MODELS)
BITS = {"8bit": {"load_in_8bit": True}, "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}

# At every push each model once, and both ways of quantising.
QUANTISED = {
    *(
        ("rope-pre", "4bit"),
        ("vanilla", "8bit"),
        ("relative", "4bit"),
        ("two-vocabularies", "8bit"),
        ("blocks", "4bit"),
    ),
}


def with_lora(model):
    torch.manual_seed(6)
    return get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=2))


def train_a_step(model, batch):
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.5)
    for _ in range(2):  # LoRA's second factor starts at zero, and so does the gradient of the first
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
    return loss


@models
def test_lora_finds_its_layers_trains_them_alone_saves_loads_and_merges(overrides, tmp_path):
    model, batch = make_model(**overrides), make_batch()
    model.save_pretrained(tmp_path / "base")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = with_lora(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base"))
    assert adapted.peft_config["default"].target_modules == {"q_proj", "v_proj"}
    train_a_step(adapted, batch)
    trained = {name for name, each in adapted.named_parameters() if each.requires_grad}
    # Queries and values of 2 + 3 self- and 3 cross-attentions, by two factors each.
    assert len(trained) == 2 * 2 * 8 and all("lora_" in name for name in trained)
    assert all(each.grad.any() for name, each in adapted.named_parameters() if name in trained)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "adapter").eval()
    expected = adapted.eval()(**batch).logits
    assert torch.equal(loaded(**batch).logits, expected)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    generated = loaded.generate(**source, max_new_tokens=5)
    merged = loaded.merge_and_unload()
    assert_close(merged(**batch).logits, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(merged.generate(**source, max_new_tokens=5), generated)
    merged.match_config_to_embeddings()  # with two vocabularies PEFT says that the output layer is not tied
    merged.save_pretrained(tmp_path / "merged")
    reloaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged")
    assert_close(reloaded(**batch).logits, expected, atol=1e-5, rtol=1e-5)
    changed = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.endswith(("q_proj.weight", "v_proj.weight"))}


@pytest.mark.parametrize(
    ("kind", "options", "targets"),
    [
        (LoraConfig, {}, {"q_proj", "v_proj"}),
        (AdaLoraConfig, {"total_step": 10}, {"q_proj", "v_proj"}),
        (IA3Config, {}, {"k_proj", "v_proj", "down_proj"}),
    ],
    ids=["lora", "adalora", "ia3"],
)
@models
def test_adapters_by_their_defaults_change_their_layers_and_learn(kind, options, targets, overrides):
    model, batch = make_model(**overrides), make_batch()
    expected = model(**batch).logits
    adapted = get_peft_model(model, kind(task_type=TaskType.SEQ_2_SEQ_LM, **options))
    assert adapted.peft_config["default"].target_modules == targets
    if kind is IA3Config:
        assert adapted.peft_config["default"].feedforward_modules == {"down_proj"} < targets
    assert_close(adapted.eval()(**batch).logits, expected)  # all begin as nothing
    train_a_step(adapted, batch)
    assert not torch.allclose(adapted(**batch).logits, expected)


TARGETS = """
import hf_xformer, peft.utils as utils
names = ("LORA_TARGET", "ADALORA_TARGET", "IA3_TARGET", "IA3_FEEDFORWARD")
print(*(",".join(getattr(utils, f"TRANSFORMERS_MODELS_TO_{name}_MODULES_MAPPING")["xformer"]) for name in names))
"""
WITHOUT_PEFT = """
import sys, hf_xformer
from transformers import AutoModelForSeq2SeqLM
config = hf_xformer.XformerConfig(d_model=16, vocab_size=9, encoder_layers=1, decoder_layers=1)
model = AutoModelForSeq2SeqLM.from_config(config)
model.save_pretrained(sys.argv[1])
print(type(AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1])).__name__)
"""


@functools.cache
def without_ours() -> WarmStart:
    """A process with transformers' part of what `import hf_xformer` takes, and neither that nor PEFT."""
    return WarmStart("transformers.modeling_layers", "transformers.modeling_utils", "transformers.generation")


def said_by(code: str, *words, before: Path | None = None) -> str:
    """Runs a program with a folder before the installed packages, and returns what it prints."""
    places = [each for each in (before, Path(hf_xformer.__file__).parent.parent) if each]
    code = f"import sys; assert not {{'peft', 'hf_xformer'}} & set(sys.modules)\n{code}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, places))}
    done = without_ours().run(["-c", code, *words], environment, ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import peft"], ids=["before-peft", "after-peft"])
def test_peft_knows_the_layers_whichever_is_imported_first(first):
    assert said_by(first + TARGETS) == "q_proj,v_proj q_proj,v_proj k_proj,v_proj,down_proj down_proj"


@pytest.mark.slow
@pytest.mark.parametrize("content", ["raise RuntimeError('broken')", "", "utils = None"])
def test_a_peft_that_is_broken_stops_nobody_who_does_without(content, tmp_path):
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft/__init__.py").write_text(content)
    assert said_by(WITHOUT_PEFT, tmp_path / "model", before=tmp_path) == "XformerForSeq2SeqLM"


@pytest.mark.slow
def test_a_peft_without_our_tables_is_imported_all_the_same(tmp_path):
    (tmp_path / "peft/utils").mkdir(parents=True)
    (tmp_path / "peft/__init__.py").write_text("from .utils import constants")
    (tmp_path / "peft/utils/__init__.py").write_text("")
    (tmp_path / "peft/utils/constants.py").write_text("TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING = ()")
    code = "import hf_xformer, peft; print(peft.constants.__name__)"
    assert said_by(code, before=tmp_path) == "peft.utils.constants"


@pytest.mark.parametrize("by", ["us", "PEFT"])
@pytest.mark.parametrize("trained", [["embed_tokens"], ["embed_tokens", "lm_head"]], ids="-".join)
def test_embeddings_trained_apart_survive_merging_and_a_reload(trained, by, tmp_path):
    batch = make_batch()
    options = LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=2, modules_to_save=trained)
    adapted = get_peft_model(make_model(), options)
    train_a_step(adapted, batch)
    if by == "us":
        merged = merge_adapter(adapted.eval(), "adapter")
    else:
        merged = adapted.eval().merge_and_unload()
        with pytest.raises(ValueError, match=r"`encoder_vocab_size=53`.* call `model.match_config_to_embeddings\(\)`"):
            merged.save_pretrained(tmp_path)
        assert not any(tmp_path.iterdir())
        merged.match_config_to_embeddings()
    merged.save_pretrained(tmp_path)
    reloaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert_close(reloaded(**batch).logits, merged(**batch).logits, atol=1e-5, rtol=1e-5)


def test_lora_under_gradient_checkpointing_has_the_same_gradients():
    grads = []
    for checkpointing in (False, True):
        model = make_model(dropout=0.0).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        adapted = with_lora(model)
        adapted(**make_batch()).loss.backward()
        grads.append(gradients_of_adapters(adapted))
    assert_close(grads[1], grads[0])


def gradients_of_adapters(model):
    return {name: each.grad for name, each in model.named_parameters() if each.requires_grad}


@pytest.mark.parametrize(
    ("overrides", "bits"),
    [
        pytest.param(
            MODELS[name], bits, id=f"{name}-{bits}", marks=[] if (name, bits) in QUANTISED else pytest.mark.nightly
        )
        for name in MODELS
        for bits in BITS
    ],
)
def test_quantised_weights_nearly_compute_the_same_decode_and_take_adapters(overrides, bits, tmp_path):
    pytest.importorskip("bitsandbytes")
    sizes = {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
    # Milder than the other tests' weights, whose sharp attention multiplies every rounding error.
    model, batch = make_model(**{**overrides, **sizes, "initializer_range": 0.05}), make_batch()
    expected = model(**batch).logits
    model.save_pretrained(tmp_path / "full")
    quantised = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "full", quantization_config=BitsAndBytesConfig(**BITS[bits]), device_map="cpu"
    )
    linear = type(quantised.model.decoder.layers[0].cross_attention.k_proj).__name__
    assert linear == {"8bit": "Linear8bitLt", "4bit": "Linear4bit"}[bits]
    logits = quantised(**batch).logits.float()
    assert torch.corrcoef(torch.stack((logits.flatten(), expected.flatten())))[0, 1] > 0.95
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert quantised.generate(**source, max_new_tokens=4).shape == (3, 5)
    quantised.save_pretrained(tmp_path / "quantised")
    reloaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "quantised", device_map="cpu")
    assert torch.equal(reloaded(**batch).logits, quantised(**batch).logits)
    adapted = with_lora(prepare_model_for_kbit_training(quantised))
    loss = train_a_step(adapted, batch)
    assert loss.isfinite() and all(grad.any() for grad in gradients_of_adapters(adapted).values())
