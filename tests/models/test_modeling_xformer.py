# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The models against stock ones with the same weights, and across backends and caches."""

import pytest
import torch
from small_models import SIZES, SOURCE, VANILLA, VARIANTS, gradients, make_batch, make_model
from torch.testing import assert_close
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    StaticCache,
)

from hf_xformer import XformerEncoderModel, XformerForSeq2SeqLM, XformerModel
from hf_xformer.checkpoints.conversion import convert_weights
from hf_xformer.models.versions_xformer import CACHE


variants = pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)


def stock_sizes(**more) -> dict:
    names = {"init_std": "initializer_range", **{name: name for name in SIZES if name != "initializer_range"}}
    return {
        **{stock: SIZES[ours] for stock, ours in names.items()},
        "activation_function": "relu",
        "scale_embedding": True,
        "dropout": 0.0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "decoder_start_token_id": 2,
        **more,
    }


def randomised(stock: torch.nn.Module) -> torch.nn.Module:
    """Norms and biases start as ones and zeros, which would hide a missing one."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in stock.named_parameters():
            if "embed_positions" not in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return stock.eval()


def load_stock_weights(model: XformerForSeq2SeqLM, stock: torch.nn.Module) -> XformerForSeq2SeqLM:
    """Into a model of which the options are written out here, not found by the conversion."""
    weights = convert_weights(stock.config, {**dict(stock.named_buffers()), **stock.state_dict()})
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not missing and all("positions" in name or name == "lm_head.bias" for name in unexpected)
    return model


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return make_batch()


def test_vanilla_logits_equal_marian_with_the_same_weights(batch):
    stock = randomised(MarianMTModel(MarianConfig(**stock_sizes(decoder_vocab_size=SIZES["vocab_size"]))))
    ours = load_stock_weights(make_model(**VANILLA), stock)
    assert_close(ours(**batch).logits, stock(**batch).logits, atol=1e-5, rtol=1e-5)


def test_pre_norm_logits_equal_m2m100_with_the_same_weights(batch):
    stock = randomised(M2M100ForConditionalGeneration(M2M100Config(**stock_sizes())))
    ours = make_model(**{**VANILLA, "norm_position": "pre", "position_embedding_type": "learned"})
    load_stock_weights(ours, stock)
    kept = batch["labels"] != -100  # M2M100 has a position of its own for padded targets, which nobody reads
    assert_close(ours(**batch).logits[kept], stock(**batch).logits[kept], atol=1e-5, rtol=1e-5)


@variants
def test_sdpa_equals_eager_in_logits_and_gradients(overrides, batch):
    assert_backends_agree("sdpa", overrides, batch)


@variants
def test_flex_attention_equals_eager_in_logits_and_gradients(overrides, batch, plain_flex_attention):
    assert_backends_agree("flex_attention", overrides, batch)


@pytest.mark.slow
def test_compiled_flex_attention_equals_eager(batch):
    model = make_model(head_dim=16)
    expected = model(**batch).logits
    model.set_attn_implementation("flex_attention")
    with torch.no_grad():
        assert_close(model(**batch).logits, expected, atol=1e-5, rtol=1e-5)


def assert_backends_agree(backend, overrides, batch):
    logits, grads = {}, {}
    for name in ("eager", backend):
        model = make_model(**overrides)
        model.set_attn_implementation(name)
        output = model(**batch)
        output.loss.backward()
        logits[name], grads[name] = output.logits.detach(), gradients(model)
    assert_close(logits[backend], logits["eager"], atol=1e-5, rtol=1e-5)
    assert_close(grads[backend], grads["eager"], atol=1e-5, rtol=1e-4)


@variants
@pytest.mark.parametrize("step", [1, 3])
def test_cached_decoding_equals_uncached(overrides, step, batch):
    model = make_model(**overrides)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    target = batch["labels"].clamp(min=0)
    full = model(**source, decoder_input_ids=target, use_cache=False).logits
    cache, pieces = None, []
    for start in range(0, target.shape[1], step):
        output = model(**source, decoder_input_ids=target[:, start : start + step], **{CACHE: cache}, use_cache=True)
        cache = output[CACHE]
        pieces.append(output.logits)
    assert_close(torch.cat(pieces, dim=1), full, atol=1e-5, rtol=1e-5)


@variants
def test_greedy_generation_equals_an_argmax_loop(overrides, batch):
    model = make_model(**overrides)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    generated = model.generate(**source, max_new_tokens=9, do_sample=False)
    tokens = torch.full((len(source["input_ids"]), 1), model.config.decoder_start_token_id)
    ended = torch.zeros(len(tokens), dtype=torch.bool)
    for _ in range(9):
        following = model(**source, decoder_input_ids=tokens).logits[:, -1].argmax(dim=-1)
        following = following.masked_fill(ended, model.config.pad_token_id)
        tokens = torch.cat((tokens, following[:, None]), dim=1)
        ended |= following == model.config.eos_token_id
        if ended.all():
            break
    assert torch.equal(generated, tokens)


def test_a_model_that_prefers_the_end_token_stops_there(batch):
    model = make_model(use_final_logits_bias=True)
    model.lm_head.bias.data[model.config.eos_token_id] = 1e4
    assert model.generate(batch["input_ids"], max_new_tokens=20).tolist() == [[2, 1]] * 3


@variants
@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True}, {"num_beams": 2, "do_sample": True}])
def test_every_decoding_mode_runs_with_dynamic_and_without_cache(overrides, options, batch):
    model = make_model(**overrides)
    sequences = []
    for use_cache in (True, False):
        torch.manual_seed(3)
        sequences.append(model.generate(batch["input_ids"], max_new_tokens=6, use_cache=use_cache, **options))
    assert torch.equal(*sequences)


def test_static_cache_equals_dynamic_cache_with_a_left_padded_prefix(batch):
    model = make_model(**VANILLA)
    prefix = torch.tensor([[2, 14, 31], [9, 2, 14], [9, 9, 2]])
    mask = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1]])
    options = {
        "decoder_input_ids": prefix,
        "decoder_attention_mask": mask,
        "max_new_tokens": 6,
        "disable_compile": True,
    }
    dynamic = model.generate(batch["input_ids"], **options)
    static = model.generate(batch["input_ids"], cache_implementation="static", **options)
    assert torch.equal(static, dynamic)


@pytest.mark.parametrize("overrides", [{}, {"qk_norm": True}], ids=["rope", "qk-norm"])
def test_static_cache_under_autocast_holds_one_type(overrides, batch):
    model = make_model(**overrides)
    options = {"max_new_tokens": 5, "disable_compile": True}
    with torch.autocast("cpu", torch.bfloat16):
        dynamic = model.generate(batch["input_ids"], **options)
        assert torch.equal(model.generate(batch["input_ids"], cache_implementation="static", **options), dynamic)


def test_cross_attention_cache_keeps_the_whole_source_under_windowed_decoder_layers(batch):
    model = make_model(decoder_layer_types=["sliding_attention"] * SIZES["decoder_layers"], block_size=3)
    for implementation in (None, "static"):
        options = {"cache_implementation": implementation, "disable_compile": True, "return_dict_in_generate": True}
        cache = model.generate(batch["input_ids"], max_new_tokens=5, **options)[CACHE]
        cross = cache.cross_attention_cache
        assert isinstance(cross, StaticCache) == (implementation == "static")
        assert not any(cross.is_sliding) and any(cache.self_attention_cache.is_sliding)
        assert [layer.keys.shape[2] for layer in cross.layers] == [batch["input_ids"].shape[1]] * len(cross.layers)


def test_loss_is_cross_entropy_of_unshifted_labels_and_ignores_minus_100(batch):
    output = make_model()(**batch)
    kept = batch["labels"] != -100
    expected = torch.nn.functional.cross_entropy(output.logits[kept], batch["labels"][kept])
    assert_close(output.loss, expected)


def test_loss_is_divided_by_the_items_of_the_whole_batch(batch):
    model = make_model()
    items = (batch["labels"] != -100).sum()
    assert_close(model(**batch, num_items_in_batch=4 * items).loss, model(**batch).loss / 4)


def test_decoder_input_is_the_labels_shifted_right_behind_the_start_token():
    shifted = make_model(pad_token_id=0).prepare_decoder_input_ids_from_labels(torch.tensor([[5, 6, 1], [7, 1, -100]]))
    assert shifted.tolist() == [[2, 5, 6], [2, 7, 1]]


@pytest.mark.parametrize("tied", [True, False])
def test_the_stacks_share_one_embedding_object_before_and_after_a_round_trip(tied, tmp_path, batch):
    model = make_model(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert type(loaded) is XformerForSeq2SeqLM
    for each in (model, loaded):
        assert each.model.encoder.embed_tokens is each.model.decoder.embed_tokens is each.get_input_embeddings()
        assert (each.lm_head.weight is each.get_input_embeddings().weight) == tied
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_saving_takes_the_base_classes_arguments_by_position(tmp_path, batch):
    model = make_model()
    model.save_pretrained(tmp_path / "other", False)
    assert not list(tmp_path.rglob("*.safetensors"))
    model.save_pretrained(tmp_path, True, model.state_dict(), False, "20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.equal(XformerForSeq2SeqLM.from_pretrained(tmp_path)(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_separate_vocabularies_have_an_embedding_each(tied, tmp_path, batch):
    model = make_model(encoder_vocab_size=60, tie_word_embeddings=tied)
    source, target = model.model.encoder.embed_tokens, model.model.decoder.embed_tokens
    assert source.weight.shape == (60, 32) and target.weight.shape == (53, 32)
    assert (model.lm_head.weight is target.weight) == tied
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert (loaded.lm_head.weight is loaded.model.decoder.embed_tokens.weight) == tied
    batch["input_ids"][0, 0] = 59
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    model(**batch).loss.backward()
    assert source.weight.grad[59].any() and all(each.isfinite().all() for each in gradients(model).values())


def test_resizing_separate_vocabularies_of_one_size_resizes_both(tmp_path, batch):
    model = make_model(encoder_vocab_size=SIZES["vocab_size"], use_final_logits_bias=True)
    expected = model(**batch).logits
    assert model.resize_token_embeddings(60).weight.shape == (60, 32)
    assert (model.config.vocab_size, model.config.encoder_vocab_size) == (60, 60)
    assert model.model.decoder.embed_tokens.weight is model.lm_head.weight
    assert torch.equal(model(**batch).logits[..., : SIZES["vocab_size"]], expected)
    model.save_pretrained(tmp_path)
    assert not any(XformerForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)[1].values())


def test_resizing_vocabularies_of_two_sizes_is_refused_with_both():
    with pytest.raises(ValueError, match="of 60 and 53 tokens at once"):
        make_model(encoder_vocab_size=60).resize_token_embeddings(70)


def test_a_start_token_that_nobody_chose_is_asked_for(batch):
    with pytest.raises(ValueError, match="decoder_start_token_id"):
        make_model(decoder_start_token_id=None)(**batch)


@variants
def test_buffers_are_right_after_from_pretrained(overrides, tmp_path):
    model = make_model(**overrides)
    model.save_pretrained(tmp_path)
    loaded = XformerForSeq2SeqLM.from_pretrained(tmp_path)
    expected = dict(model.named_buffers())
    assert expected or overrides.get("position_embedding_type") in ("learned", "relative", "none")
    for name, buffer in loaded.named_buffers():
        assert torch.equal(buffer, expected[name]), name


@pytest.mark.parametrize("to_half", [lambda model: model.half(), lambda model: model.to(torch.bfloat16)])
def test_rotations_stay_exact_when_the_weights_are_rounded(to_half):
    exact, model = make_model(), to_half(make_model())
    for one, other in zip(
        (exact.model.encoder, exact.model.decoder), (model.model.encoder, model.model.decoder), strict=True
    ):
        assert other.embed_tokens.weight.dtype != torch.float32
        assert torch.equal(one.positions.inv_freq, other.positions.inv_freq)
        assert torch.equal(one.positions.original_inv_freq, other.positions.original_inv_freq)
        assert not {name for name in other.state_dict() if "inv_freq" in name}


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 2.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        {"rope_type": "longrope", "factor": 2.0, "short_factor": [1.5] * 4, "long_factor": [2.0] * 4},
    ],
    ids=lambda parameters: parameters["rope_type"],
)
def test_every_rope_type_trains_and_survives_a_round_trip(parameters, tmp_path, batch):
    scaled = {"rope_theta": 1e4, "original_max_position_embeddings": 32, **parameters}
    if parameters["rope_type"] in ("linear", "dynamic"):
        del scaled["original_max_position_embeddings"]
    model = make_model(head_dim=8, rope_parameters=scaled)
    model.save_pretrained(tmp_path)
    output = model(**batch)
    assert torch.equal(XformerForSeq2SeqLM.from_pretrained(tmp_path)(**batch).logits, output.logits)
    output.loss.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


def test_base_model_and_encoder_load_from_the_full_checkpoint(tmp_path, batch):
    model = make_model()
    model.save_pretrained(tmp_path)
    memory = model.model.encoder(batch["input_ids"]).last_hidden_state
    for loaded in (AutoModel.from_pretrained(tmp_path), XformerEncoderModel.from_pretrained(tmp_path)):
        assert torch.equal(loaded.encoder(batch["input_ids"]).last_hidden_state, memory)
    assert isinstance(AutoModel.from_pretrained(tmp_path), XformerModel)


def test_heads_may_differ_between_the_stacks(batch):
    model = make_model(encoder_attention_heads=2, decoder_attention_heads=8, num_key_value_heads=2)
    assert model.model.encoder.positions.inv_freq.shape == (8,)
    assert model.model.decoder.positions.inv_freq.shape == (2,)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    generated = [model.generate(**source, max_new_tokens=6, use_cache=use_cache) for use_cache in (True, False)]
    assert torch.equal(*generated)
    sdpa = model(**batch).logits
    model.set_attn_implementation("eager")
    assert_close(model(**batch).logits, sdpa, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_sequences_beyond_the_positions_are_refused_with_both_numbers(positions):
    model = make_model(position_embedding_type=positions)
    source, long = torch.full((1, SOURCE), 5), torch.full((1, 65), 5)
    with pytest.raises(ValueError, match="65 tokens do not fit `max_position_embeddings=64`"):
        model.model.encoder(long)
    with pytest.raises(ValueError, match="65 tokens do not fit `max_position_embeddings=64`"):
        model(source, decoder_input_ids=long)
    # It puts the start token in front.
    with pytest.raises(ValueError, match="66 tokens do not fit `max_position_embeddings=64`"):
        model.generate(source, decoder_input_ids=long, eos_token_id=None)


@pytest.mark.parametrize("field", ["dropout", "attention_dropout", "activation_dropout"])
def test_each_dropout_acts_in_training_only(field, batch):
    model = make_model(**{"dropout": 0.0, field: 0.5})
    evaluated = model(**batch).logits
    assert torch.equal(model(**batch).logits, evaluated)
    model.train()
    torch.manual_seed(4)
    assert not torch.allclose(model(**batch, output_logits=True).logits, evaluated, atol=1e-3)


@variants
def test_gradient_checkpointing_leaves_the_gradients_alone(overrides, batch):
    plain = make_model(**overrides, dropout=0.0).train()
    plain(**batch).loss.backward()
    for reentrant in (True, False):
        checkpointed = make_model(**overrides, dropout=0.0).train()
        checkpointed.gradient_checkpointing_enable({"use_reentrant": reentrant})
        checkpointed(**batch).loss.backward()
        assert_close(gradients(checkpointed), gradients(plain), atol=1e-5, rtol=1e-5)


STATE_DICT_KEYS = {
    "lm_head.weight",
    *(
        f"model.{stack}.{name}.weight"
        for stack, layers in (("encoder", 1), ("decoder", 1))
        for name in [
            "embed_tokens",
            "norm",
            *(
                f"layers.{layer}.{sublayer}{part}"
                for layer in range(layers)
                for sublayer, parts in {
                    "self_attention": ["_norm", ".q_proj", ".k_proj", ".v_proj", ".o_proj"],
                    "cross_attention": ["_norm", ".q_proj", ".k_proj", ".v_proj", ".o_proj"],
                    "feed_forward": ["_norm", ".gate_proj", ".up_proj", ".down_proj"],
                }.items()
                for part in parts
                if (stack, sublayer) != ("encoder", "cross_attention")
            ),
        ]
    ),
}


def test_state_dict_keys_are_the_public_ones():
    assert set(make_model(encoder_layers=1, decoder_layers=1).state_dict()) == STATE_DICT_KEYS


def test_vanilla_adds_biases_and_positions_hold_no_weights():
    keys = set(make_model(**VANILLA, encoder_layers=1, decoder_layers=1).state_dict())
    assert {key for key in keys if "positions" in key} == set()
    assert "model.encoder.layers.0.self_attention.q_proj.bias" in keys
    assert "model.encoder.layers.0.feed_forward.gate_proj.weight" not in keys


def test_attention_mixes_the_whole_block_with_one_key_value_head(batch):
    """Grouped-query attention with copied key and value heads is multi-head attention."""
    grouped, full = make_model(num_key_value_heads=2), make_model()
    weights = grouped.state_dict()
    for name, weight in weights.items():
        if "k_proj" in name or "v_proj" in name:
            heads = weight.unflatten(0, (2, -1))  # (G, K, D)
            weights[name] = heads.repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(weights)
    assert_close(grouped(**batch).logits, full(**batch).logits, atol=1e-5, rtol=1e-5)


def test_inputs_embeds_equal_input_ids(batch):
    model = make_model()
    embed = model.get_input_embeddings()
    decoder_input_ids = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    by_ids = model(batch["input_ids"], decoder_input_ids=decoder_input_ids).logits
    by_embeds = model(inputs_embeds=embed(batch["input_ids"]), decoder_inputs_embeds=embed(decoder_input_ids)).logits
    assert torch.equal(by_embeds, by_ids)


def test_labels_padded_before_the_text_are_refused_unless_the_decoders_input_is_given():
    model, batch = make_model(), make_batch()
    batch["labels"][0] = -100  # a row without a text
    model(**batch)
    batch["labels"][1, :2] = -100
    with pytest.raises(ValueError, match="-100 must stand behind the tokens of `labels`"):
        model(**batch)
    model(**batch, decoder_input_ids=batch["labels"].clamp(min=0))


@pytest.mark.parametrize("kept", [1, "01", []])
def test_layers_to_keep_are_a_list_of_numbers(kept):
    with pytest.raises(ValueError, match="`decoder` must be numbers of its layers to keep"):
        make_model().keep_layers(decoder=kept)


@pytest.mark.parametrize("size", ["9", 9.0])
def test_the_size_of_a_vocabulary_is_a_number(size):
    for resize in ("encoder_", "decoder_", ""):
        with pytest.raises(ValueError, match="must be a whole number of tokens"):
            getattr(make_model(encoder_vocab_size=53), f"resize_{resize}token_embeddings")(size)
