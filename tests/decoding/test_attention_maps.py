# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures show what was computed: cross-attention as the model returns it, curves as the trainer logged them."""

import copy

import pytest
import torch
from small_models import make_model
from small_runs import refused
from torch.testing import assert_close
from transformers import AutoTokenizer

from hf_xformer.commands import attention
from hf_xformer.data.templates import remember
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.attention_maps import cross_attention
from hf_xformer.decoding.languages import Languages
from hf_xformer.hub.curves import collect_curves, plot_curves


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def tokenizer(task):
    return AutoTokenizer.from_pretrained(task.tokenizer)


@pytest.fixture(scope="module")
def model(tokenizer):
    model = make_model(vocab_size=len(tokenizer))
    model.set_attn_implementation("eager")
    return model


def test_a_row_is_where_the_model_looks_when_it_makes_that_token(model, tokenizer):
    weights, source, target = cross_attention(model, tokenizer, tokenizer, "A B C", "H G", layer=2, head=3)
    assert source == ["A", "B", "C", "</s>"] and target == ["H", "G", "</s>"]
    # Step by step: the decoder has read the start token and all before the row's token.
    ids = tokenizer("A B C", return_tensors="pt")
    prefix = [model.config.decoder_start_token_id]
    for row, token in enumerate(tokenizer("H G")["input_ids"]):
        output = model(**ids, decoder_input_ids=torch.tensor([prefix]), output_attentions=True)
        assert_close(weights[row], output.cross_attentions[1][0, 2, -1])
        prefix.append(token)


def test_another_start_token_of_a_language_is_what_the_decoder_reads_first(model, tokenizer):
    """mBART's targets start with their language, which the configuration has one of."""
    other = tokenizer.convert_tokens_to_ids("H")
    languages = Languages(tokenizer, tokenizer)
    languages.options = {"decoder_start_token_id": other}
    ids = tokenizer("A B C", return_tensors="pt")
    written = model.generate(**ids, max_new_tokens=100, decoder_start_token_id=other)
    for text in (None, "G H"):
        before = written[:, :-1] if text is None else torch.tensor([[other, *tokenizer(text)["input_ids"][:-1]]])
        weights, *_ = cross_attention(model, tokenizer, tokenizer, "A B C", text, 2, 3, languages)
        output = model(**ids, decoder_input_ids=before, output_attentions=True)
        assert_close(weights, output.cross_attentions[1][0, 2])


@pytest.mark.slow
def test_without_layer_and_head_it_is_their_mean_and_without_a_target_what_the_model_says(model, tokenizer):
    weights, *_ = cross_attention(model, tokenizer, tokenizer, "A B C", "H G")
    each = [
        cross_attention(model, tokenizer, tokenizer, "A B C", "H G", layer=layer, head=head)[0]
        for layer in (1, 2, 3)
        for head in (1, 2, 3, 4)
    ]
    assert_close(weights, torch.stack(each).mean(dim=0))
    weights, _, target = cross_attention(model, tokenizer, tokenizer, "A B C")
    assert_close(weights.sum(dim=-1), torch.ones(len(target)))
    said = model.generate(**tokenizer("A B C", return_tensors="pt"), max_new_tokens=100)[0, 1:]
    assert len(target) == len(said)


@pytest.mark.parametrize(
    "generation", [{"num_return_sequences": 3, "num_beams": 4}, {"return_dict_in_generate": True}], ids=" ".join
)
def test_a_checkpoint_that_decodes_otherwise_is_drawn_by_its_greedy_text(generation, model, tokenizer):
    given = copy.deepcopy(model.generation_config)
    wanted = cross_attention(model, tokenizer, tokenizer, "A B C")
    try:
        model.generation_config.update(**generation)
        found = cross_attention(model, tokenizer, tokenizer, "A B C")
    finally:
        model.generation_config = given
    assert_close(found[0], wanted[0])
    assert found[1:] == wanted[1:]


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_language_stands_before_the_text_of_its_side(side):
    tokenizer = train_tokenizer(["A B C G H"], "symbol", added_tokens=["<2de>", "<2en>"])
    remember([f"<2{{target_lang}}> {{{side}}}"], tokenizer, side)
    model = make_model(vocab_size=len(tokenizer))
    model.set_attn_implementation("eager")
    told = Languages(tokenizer, tokenizer, tgt_lang="en")
    texts = ["<2en> A B" if side == "source" else "A B", "<2en> H G" if side == "target" else "H G"]
    weights, *tokens = cross_attention(model, tokenizer, tokenizer, "A B", "H G", languages=told)
    expected, *others = cross_attention(model, tokenizer, tokenizer, *texts)
    assert_close(weights, expected)
    assert tokens == others and "<2en>" in tokens[side == "target"] and "<2en>" not in tokens[side == "source"]
    assert "<2en>" in cross_attention(model, tokenizer, tokenizer, "A B", languages=told)[1 + (side == "target")]


@pytest.mark.slow
def test_the_command_writes_a_picture_and_refuses_what_there_is_not(model, tokenizer, tmp_path, capsys):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    picture = tmp_path / "attention.png"
    attention.main([str(tmp_path), "A B", "--target", "B A", "--output", str(picture), "--layer", "3"])
    assert picture.read_bytes().startswith(PNG) and capsys.readouterr().out.endswith(": B A </s>\n")
    base = [tmp_path, "A B", "--output", picture]
    assert "--layer 4: the decoder has 3 layers" in refused(attention, [*base, "--layer", 4], capsys)
    assert "--head: must be 1 or more, got 0" in refused(attention, [*base, "--head", 0], capsys)
    assert "source is empty" in refused(attention, [tmp_path, " "], capsys)
    long = " ".join("A" * 100)
    assert "the source has 101 tokens; a picture has room for 100" in refused(attention, [tmp_path, long], capsys)
    for name, begins in (("a.pdf", b"%PDF"), ("plain", PNG)):
        attention.main([str(tmp_path), "A B", "--target", "B A", "--output", str(tmp_path / name)])
        assert (tmp_path / name).read_bytes().startswith(begins)
    there = {path.name for path in tmp_path.iterdir()}
    line = refused(attention, [tmp_path, "A", "--output", tmp_path / "a.xyz"], capsys)
    assert "a.xyz: cannot draw a picture of type 'xyz'" in line and {path.name for path in tmp_path.iterdir()} == there
    nowhere = tmp_path / "nowhere/a.png"
    assert "there is no folder" in refused(attention, [tmp_path, "A", "--output", nowhere], capsys)


def test_curves_are_the_losses_in_one_panel_and_each_metric_in_its_own(tmp_path):
    history = [
        {"step": 5, "loss": 2.0, "learning_rate": 1e-3, "epoch": 0.5},
        {"step": 10, "loss": 1.0, "epoch": 1.0},
        {"step": 10, "eval_loss": 1.5, "eval_per": 30.0, "eval_runtime": 3.0, "eval_signature": "nrefs:1"},
        {"step": 10, "train_runtime": 4.0, "train_loss": 1.2},
    ]
    assert collect_curves(history) == {
        "loss": {"training": [(5, 2.0), (10, 1.0)], "validation": [(10, 1.5)]},
        "per": {"validation": [(10, 30.0)]},
    }
    plot_curves(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
