# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Faults of other projects' public reports that this one has too; each fails until it is mended."""

import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, LoraConfig, PromptTuningConfig, get_peft_model
from small_models import make_batch, make_model

from hf_xformer.checkpoints import load_model
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.errors import ArgumentError


@pytest.fixture
def tokenizer():
    return train_tokenizer((" ".join(f"s{n}" for n in range(38)),), "symbol")


def test_an_assistant_does_not_write_beyond_a_stop_string(tokenizer):
    model = make_model()
    model.generation_config.update(eos_token_id=[1], max_length=14)
    options = {"stop_strings": ["s7"], "scores": True}
    (plain,) = Decoder(model, tokenizer, tokenizer, **options).decode(["s1 s2 s3 s4"])
    (drafted,) = Decoder(model, tokenizer, tokenizer, assistant_model=make_model(), **options).decode(["s1 s2 s3 s4"])
    assert [each.text for each in drafted] == [each.text for each in plain]


def test_prompt_tuning_does_not_pass_over_options_of_source_tokens(tokenizer):
    model = make_model()
    torch.manual_seed(0)
    model = get_peft_model(model, PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4)).eval()
    source, options = "s1 s2 s6 s15 s4", {"max_length": 9, "min_new_tokens": 4}
    try:
        ((best,),) = Decoder(model, tokenizer, tokenizer, encoder_no_repeat_ngram_size=1, **options).decode([source])
    except (ArgumentError, ValueError):
        return
    assert not set(best.text.split()) & set(source.split())


def test_an_adapter_of_a_resized_model_loads_here_as_in_peft(tmp_path, tokenizer):
    make_model().save_pretrained(tmp_path / "base")
    model = load_model(str(tmp_path / "base"))
    tokenizer.add_tokens([f"<n{n}>" for n in range(4)])
    model.resize_token_embeddings(len(tokenizer))
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", init_lora_weights=False)).eval()
    for each in (adapted, tokenizer):
        each.save_pretrained(tmp_path / "adapter")
    expected = adapted(**make_batch()).logits
    theirs = AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "adapter").eval()
    torch.testing.assert_close(theirs(**make_batch()).logits, expected)
    torch.testing.assert_close(load_model(str(tmp_path / "adapter"))(**make_batch()).logits, expected)


def test_labels_padded_before_the_text_are_refused_or_give_the_same_loss():
    model, batch = make_model(), make_batch()
    expected = model(**batch).loss
    batch["labels"] = torch.stack([torch.cat([row[row == -100], row[row != -100]]) for row in batch["labels"]])
    try:
        found = model(**batch).loss
    except ValueError:
        return
    torch.testing.assert_close(found, expected)


def test_an_empty_stop_string_is_refused(tokenizer):
    with pytest.raises(ArgumentError):
        Decoder(make_model(), tokenizer, tokenizer, stop_strings=[""])
