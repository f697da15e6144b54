# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""PEFT's six kinds of adapters with nothing of ours but the model: PEFT, the stock trainer, `generate`."""

import peft
import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, get_peft_model
from small_models import VARIANTS, make_batch, make_model
from torch.testing import assert_close
from transformers import AutoModelForSeq2SeqLM, Seq2SeqTrainer, Seq2SeqTrainingArguments


PROMPTS = {"num_virtual_tokens": 3}
KINDS = {
    "LORA": peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2),
    "ADALORA": peft.AdaLoraConfig(target_modules=["q_proj", "v_proj"], init_r=4, target_r=2, total_step=4),
    "IA3": peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "PREFIX_TUNING": peft.PrefixTuningConfig(**PROMPTS),
    "PROMPT_TUNING": peft.PromptTuningConfig(**PROMPTS),
    "P_TUNING": peft.PromptEncoderConfig(**PROMPTS, encoder_hidden_size=8),
}


def decoded(model) -> list[list[list[int]]]:
    source = {name: each for name, each in make_batch().items() if name in ("input_ids", "attention_mask")}
    ways = ({}, {"num_beams": 2})
    return [model.generate(**source, max_new_tokens=6, do_sample=False, **way).tolist() for way in ways]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_train_save_load_and_decode_in_the_stock_trainer(kind, tmp_path):
    # Full attention in the decoder, which prefixes need.
    options = {**VARIANTS["rope-pre-blocks"], "decoder_layer_types": None, "initializer_range": 0.3}
    make_model(**options).save_pretrained(tmp_path / "base")
    config = KINDS[kind].__class__(**{**KINDS[kind].to_dict(), "task_type": "SEQ_2_SEQ_LM"})
    model = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base"), config)
    before = decoded(model.eval())
    arguments = Seq2SeqTrainingArguments(
        tmp_path / "run", max_steps=3, learning_rate=0.5, use_cpu=True, report_to="none", disable_tqdm=True
    )
    batch = make_batch()
    rows = [{name: each[number] for name, each in batch.items()} for number in range(len(batch["labels"]))]
    Seq2SeqTrainer(model, arguments, train_dataset=rows).train()
    expected = decoded(model.eval())
    assert expected != before
    model.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "adapter").eval()
    assert loaded.active_peft_config.peft_type == kind
    assert decoded(loaded) == expected
    with torch.no_grad():
        batch["decoder_input_ids"] = batch.pop("labels").clamp(min=0)
        assert_close(loaded(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-5)
