# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What users of stock models do to one: resize a vocabulary, take layers out, pass tokens that it does not have."""

import sys

import pytest
import torch
from small_models import SIZES, VARIANTS, make_batch, make_model, pack
from transformers import AutoConfig, BartConfig, BartForConditionalGeneration, MarianConfig, MarianMTModel

from hf_xformer import XformerConfig, XformerEncoderModel, XformerForSeq2SeqLM
from hf_xformer.models.layout_xformer import make_packing


VOCABULARY = SIZES["vocab_size"]
LAYERS = {"encoder_layers": 3, "decoder_layers": 4}
TYPES = {
    "encoder_layer_types": ["chunked_attention", "full_attention", "chunked_attention"],
    "decoder_layer_types": ["sliding_attention", "full_attention", "chunked_attention", "full_attention"],
    "block_size": 3,
}
LABELS_OUTSIDE = [-1, -99, -101, VOCABULARY, 10**6]


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return make_batch()


@pytest.mark.parametrize("is_training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("value", LABELS_OUTSIDE)
def test_labels_outside_of_the_vocabulary_are_refused_by_name(value, place, is_training, batch):
    model = make_model().train(is_training)
    batch["labels"][0, place] = value
    said = rf"`labels` has {value} \(1 such\), which must be one of {VOCABULARY} tokens, or -100"
    for options in ({}, {"output_logits": True}, {"decoder_input_ids": batch["labels"].clamp(0, 9)}):
        with pytest.raises(ValueError, match=said):
            model(**batch, **options)


@pytest.mark.parametrize("is_training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("kept", [1, 3, torch.tensor([0, 2])], ids=["one", "some", "those of a tensor"])
def test_positions_to_keep_are_refused_beside_labels_for_all_of_them(kept, is_training, batch):
    model, labels = make_model().train(is_training), batch.pop("labels")
    with pytest.raises(ValueError, match="`labels` are for all positions, and `logits_to_keep` leaves some out"):
        model(**batch, labels=labels, logits_to_keep=kept)
    assert model(**batch, labels=labels, logits_to_keep=0).loss.isfinite()
    target = labels.clamp(0)
    places = kept if isinstance(kept, torch.Tensor) else slice(-kept, None)
    whole, some = (model.eval()(**batch, decoder_input_ids=target, logits_to_keep=keep).logits for keep in (0, kept))
    torch.testing.assert_close(some, whole[:, places])


@pytest.mark.parametrize("value", [-1, -99])
def test_packed_labels_outside_of_the_vocabulary_are_refused(value, batch):
    packed = pack(batch, [[0, 1], [2]])
    packed["labels"][0, 2] = value
    with pytest.raises(ValueError, match=f"`labels` has {value} "):
        make_model().train()(**packed)
    with pytest.raises(ValueError, match=rf"`labels` has {value} \(1 such\), which must be a token, or -100"):
        make_packing(packed["segment_ids"], packed["decoder_segment_ids"], packed["labels"])


def test_the_output_layer_alone_takes_no_other_negative_label_for_a_token():
    layer = make_model().train().lm_head
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        layer(torch.ones(2, SIZES["d_model"]), torch.tensor([5, -1]))


@pytest.mark.parametrize("value", [-1, VOCABULARY])
def test_ids_outside_of_a_vocabulary_are_refused_by_name(value, batch):
    ids = batch["input_ids"].clone()
    ids[0, 0] = value
    model = make_model()
    with pytest.raises(ValueError, match=rf"`input_ids` has {value} \(1 such\), which the encoder's vocabulary of 53"):
        model(**batch | {"input_ids": ids})
    with pytest.raises(ValueError, match=rf"`decoder_input_ids` has {value} \(1 such\), which the decoder's"):
        model(input_ids=batch["input_ids"], decoder_input_ids=ids)


def test_a_batch_without_labels_is_told_what_it_lacks(batch):
    del batch["labels"]
    with pytest.raises(ValueError, match="give `labels`, for a loss, or `decoder_input_ids`"):
        make_model()(**batch)


def two_vocabularies(**fields) -> XformerForSeq2SeqLM:
    return make_model(encoder_vocab_size=60, use_final_logits_bias=True, **fields)


def test_an_output_layer_that_was_given_its_own_weights_keeps_them_however_often_it_is_saved(tmp_path):
    model = make_model()
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    own = model.lm_head.weight.detach().clone()
    for count in range(3):
        model.save_pretrained(tmp_path / str(count))
        model = type(model).from_pretrained(tmp_path / str(count))
        model.tie_weights()  # as the Trainer does where it has loaded a best checkpoint
        assert torch.equal(model.lm_head.weight, own) and not model.config.tie_word_embeddings


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("size", [70, 30])
def test_one_of_two_vocabularies_is_resized(tied, size, tmp_path, batch):
    for side in ("encoder", "decoder"):
        model = two_vocabularies(tie_word_embeddings=tied)
        source = {name: batch[name] % 29 if name == "input_ids" else batch[name] for name in batch if name != "labels"}
        source["decoder_input_ids"] = batch["labels"].clamp(min=0) % 29
        expected = model(**source).logits
        old = {name: each.embed_tokens.weight.clone() for name, each in stacks(model).items()}
        embedding = getattr(model, f"resize_{side}_token_embeddings")(size, mean_resizing=False)
        assert embedding is stacks(model)[side].embed_tokens
        sizes = {"encoder": 60, "decoder": VOCABULARY, side: size}
        assert {name: each.embed_tokens.num_embeddings for name, each in stacks(model).items()} == sizes
        assert (model.config.encoder_vocab_size, model.config.vocab_size) == tuple(sizes.values())
        assert (model.lm_head.weight is model.model.decoder.embed_tokens.weight) == tied
        for name, each in stacks(model).items():
            kept = min(len(old[name]), sizes[name])
            assert torch.equal(each.embed_tokens.weight[:kept], old[name][:kept])
        logits = model(**source).logits
        assert logits.shape[-1] == sizes["decoder"] == model.lm_head.out_features == len(model.lm_head.bias)
        kept = min(VOCABULARY, sizes["decoder"])
        torch.testing.assert_close(logits[..., :kept], expected[..., :kept])
        model.save_pretrained(tmp_path / side)
        loaded, info = XformerForSeq2SeqLM.from_pretrained(tmp_path / side, output_loading_info=True)
        assert not any(info.values()) and torch.equal(loaded(**source).logits, logits)


def stacks(model) -> dict:
    return {"encoder": model.get_encoder(), "decoder": model.get_decoder()}


def test_the_target_is_resized_as_in_a_stock_model():
    """Marian's method of the same name, with the same new rows."""
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 60, "decoder_vocab_size": 53}
    stock = MarianMTModel(
        MarianConfig(
            **sizes,
            share_encoder_decoder_embeddings=False,
            pad_token_id=1,
            decoder_start_token_id=1,
            eos_token_id=0,
            encoder_ffn_dim=8,
            decoder_ffn_dim=8,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
        )
    )
    ours = two_vocabularies()
    for model in (stock, ours):
        with torch.no_grad():
            model.get_decoder().embed_tokens.weight.copy_(torch.arange(53.0)[:, None].expand(-1, 32))
        torch.manual_seed(0)
        model.resize_decoder_token_embeddings(57)
    assert ours.model.decoder.embed_tokens.weight.shape == stock.get_decoder().embed_tokens.weight.shape
    assert ours.lm_head.weight.shape == stock.lm_head.weight.shape
    torch.testing.assert_close(ours.model.decoder.embed_tokens.weight, stock.get_decoder().embed_tokens.weight)


def test_a_resize_that_cannot_be_meant_says_what_to_call():
    with pytest.raises(ValueError, match="of 60 and 53 tokens at once: call model.resize_encoder_token_embeddings"):
        two_vocabularies().resize_token_embeddings(70)
    with pytest.raises(ValueError, match=r"share one vocabulary: call model.resize_token_embeddings\(...\)"):
        make_model().resize_decoder_token_embeddings(70)
    for resize in (make_model().resize_token_embeddings, two_vocabularies().resize_decoder_token_embeddings):
        with pytest.raises(ValueError, match="a vocabulary of 2 tokens would lose `bos_token_id`, 2"):
            resize(2)


@pytest.mark.parametrize("fields", [TYPES, VARIANTS["relative-pre"], {}], ids=["blocks", "relative", "rope"])
def test_taken_layers_leave_the_model_of_the_others(fields, tmp_path, batch):
    """Compared with a model that has only these layers' weights, made anew from the config."""
    if "relative" in str(fields):
        fields = {**fields, "relative_attention_per_layer": True}
    model = make_model(**LAYERS, **fields)
    model.keep_layers(encoder=[1, 2], decoder=[0, 3])
    assert model.config.encoder_layers == model.config.decoder_layers == 2
    assert [layer.self_attention.layer_idx for layer in model.model.decoder.layers] == [0, 1]
    types = fields.get("decoder_layer_types", ["full_attention"] * 4)
    assert model.config.decoder_layer_types == [types[0], types[3]]
    anew = XformerForSeq2SeqLM(XformerConfig.from_dict(model.config.to_dict())).eval()
    anew.load_state_dict(model.state_dict())
    assert torch.equal(anew(**batch).logits, model(**batch).logits)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    options = {"max_new_tokens": 6, "eos_token_id": None}
    assert torch.equal(model.generate(**source, **options), model.generate(**source, use_cache=False, **options))
    model.save_pretrained(tmp_path)
    loaded, info = XformerForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and torch.equal(loaded(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("kept", [[], [0, 0], [1, 0], [4], [-1], [True]], ids=str)
def test_layers_that_are_not_there_are_refused(kept):
    with pytest.raises(ValueError, match="`decoder` must be numbers of its layers to keep, from 0 to 2"):
        make_model().keep_layers(decoder=kept)


def test_layers_that_are_refused_in_one_stack_are_kept_in_the_other():
    model = make_model()
    with pytest.raises(ValueError, match="`decoder` must be numbers"):
        model.keep_layers(encoder=[0], decoder=[9])
    assert model.config.encoder_layers == len(model.model.encoder.layers) == make_model().config.encoder_layers


def test_an_encoder_alone_says_that_it_has_no_decoder():
    model = XformerEncoderModel(two_vocabularies().config)
    for change in (
        lambda: model.keep_layers(encoder=[0], decoder=[0]),
        lambda: model.resize_decoder_token_embeddings(70),
    ):
        with pytest.raises(ValueError, match="XformerEncoderModel has no decoder"):
            change()
    assert model.config.encoder_layers == len(model.encoder.layers) > 1
    model.keep_layers(encoder=[0])
    assert len(model.encoder.layers) == 1


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_layers_taken_out_by_hand_are_noticed(stack, batch):
    model = make_model()
    del stacks(model)[stack].layers[1]
    with pytest.raises(ValueError, match=f"the {stack} has . layers and its config says .: .*keep_layers"):
        model(**batch)


@pytest.mark.parametrize("depth", [{"decoder_layers": 2}, {"num_hidden_layers": 2}, {"encoder_layers": 1}], ids=str)
def test_a_checkpoint_loads_with_fewer_layers_as_a_stock_one_does(depth, tmp_path, batch):
    model = make_model(**LAYERS, **TYPES)
    model.save_pretrained(tmp_path)
    loaded = XformerForSeq2SeqLM.from_pretrained(tmp_path, **depth)
    stack = "encoder" if "encoder_layers" in depth else "decoder"
    model.keep_layers(**{stack: list(range(*depth.values()))})
    assert loaded.config.layer_types_of(stack) == model.config.layer_types_of(stack)
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    if "num_hidden_layers" in depth:  # which is the encoder's in BART
        return
    stock = BartForConditionalGeneration(BartConfig(d_model=16, vocab_size=60, **LAYERS))
    stock.save_pretrained(tmp_path / "stock")
    count = len(BartForConditionalGeneration.from_pretrained(tmp_path / "stock", **depth).get_decoder().layers)
    assert count == (LAYERS["decoder_layers"] if stack == "encoder" else 2)


def test_more_layers_are_of_the_one_type_there_is_or_refused(tmp_path):
    make_model(**LAYERS).config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path, decoder_layers=6).decoder_layer_types == ["full_attention"] * 6
    make_model(**LAYERS, **TYPES).config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`decoder_layers=6` is more than the 4 layers .*, which differ"):
        AutoConfig.from_pretrained(tmp_path, decoder_layers=6)
    types = ["full_attention"] * 6
    assert AutoConfig.from_pretrained(tmp_path, decoder_layers=6, decoder_layer_types=types).decoder_layers == 6


@pytest.mark.parametrize(
    "change", [{"decoder_layers": 0}, {"dropout": 2.0}, {"encoder_layer_types": ["full_attention"]}], ids=str
)
def test_changes_where_a_config_is_loaded_are_checked(change, tmp_path):
    make_model().config.save_pretrained(tmp_path)
    with pytest.raises(Exception, match=next(iter(change))):
        AutoConfig.from_pretrained(tmp_path, **change)


OWN_CLASS = """
from hf_xformer import XformerForSeq2SeqLM

class Mine(XformerForSeq2SeqLM):
    pass

Mine.register_for_auto_class("AutoModelForSeq2SeqLM")
"""


@pytest.mark.parametrize("module", ["mine", "modeling_my_xformer"])
def test_a_users_own_class_stays_in_the_auto_map(module, tmp_path, monkeypatch):
    (tmp_path / f"{module}.py").write_text(OWN_CLASS)
    monkeypatch.syspath_prepend(tmp_path)
    own = __import__(module)
    try:
        model = own.Mine(make_model().config)
        for folder in ("first", "second"):
            model.save_pretrained(tmp_path / folder)
            auto_map = AutoConfig.from_pretrained(tmp_path / folder).auto_map
            assert auto_map["AutoModelForSeq2SeqLM"] == f"{module}.Mine"
            assert auto_map["AutoModel"] == "modeling_xformer.XformerModel"
            model = own.Mine.from_pretrained(tmp_path / folder)
    finally:
        del sys.modules[module]


@pytest.mark.parametrize("option", [{"encoder_repetition_penalty": 1.5}, {"encoder_no_repeat_ngram_size": 2}], ids=str)
def test_options_that_compare_source_and_target_tokens_need_one_vocabulary(option, batch):
    ids = batch["input_ids"]
    (name,) = option
    make_model().generate(ids, max_new_tokens=2, **option)
    model = two_vocabularies()
    with pytest.raises(ValueError, match=f"`{name}=.*a vocabulary for each: leave it out"):
        model.generate(ids, max_new_tokens=2, **option)
    model.generation_config.update(**option)
    with pytest.raises(ValueError, match=f"`{name}=.*a vocabulary for each"):
        model.generate(ids, max_new_tokens=2)
    model.generate(ids, max_new_tokens=2, encoder_repetition_penalty=1.0, encoder_no_repeat_ngram_size=0)
