# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Who attends to whom: what transformers' own tests do not ask of an encoder-decoder."""

import pytest
import torch
from small_blocks import weights_over_rows
from small_models import SIZES, SOURCE, TARGET, VARIANTS, gradients, make_batch, make_model
from torch.testing import assert_close
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3RotaryEmbedding
from transformers.utils.output_capturing import OutputRecorder

from hf_xformer import XformerConfig
from hf_xformer.models.masks_xformer import WholeMask
from hf_xformer.models.positions_xformer import TokenPositions, XformerRotaryEmbedding, rotary_positions


variants = pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
backends = pytest.mark.parametrize("backend", ["eager", "sdpa"])
sides = pytest.mark.parametrize("side", ["left", "right"])


def tokens(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(4, SIZES["vocab_size"], (1, length), generator=torch.Generator().manual_seed(seed))


def padded(ids: torch.Tensor, side: str, width: int = 3) -> tuple[torch.Tensor, torch.Tensor, slice]:
    """The ids with `width` tokens of padding, their mask, and where they are now."""
    widths, place = ((width, 0), slice(width, None)) if side == "left" else ((0, width), slice(None, -width))
    pad = torch.nn.functional.pad
    return pad(ids, widths, value=9), pad(torch.ones_like(ids), widths), place


def ragged_batch(side: str) -> dict[str, torch.Tensor]:
    """Sources of 11, 8 and 5 tokens and targets of 4, 7 and 6, all padded on one side."""
    batch = {
        "input_ids": tokens(3 * SOURCE, 1).view(3, SOURCE),
        "decoder_input_ids": tokens(3 * TARGET, 2).view(3, -1),
    }
    for mask, length, lengths in (
        ("attention_mask", SOURCE, [11, 8, 5]),
        ("decoder_attention_mask", TARGET, [4, 7, 6]),
    ):
        batch[mask] = (torch.arange(length) < torch.tensor(lengths)[:, None]).long()
        if side == "left":
            batch[mask] = batch[mask].flip(-1)
    return batch


@backends
@sides
@variants
def test_padding_the_target_changes_nothing(overrides, side, backend):
    model = make_model(**overrides)
    model.set_attn_implementation(backend)
    source, target = tokens(SOURCE), tokens(TARGET, 1)
    ids, mask, place = padded(target, side)
    alone = model(input_ids=source, decoder_input_ids=target).logits
    both = model(input_ids=source, decoder_input_ids=ids, decoder_attention_mask=mask).logits
    assert_close(both[:, place], alone, atol=1e-5, rtol=1e-5)


@backends
@sides
@variants
def test_padding_the_source_changes_neither_memory_nor_logits(overrides, side, backend):
    model = make_model(**overrides)
    model.set_attn_implementation(backend)
    source, target = tokens(SOURCE), tokens(TARGET, 1)
    ids, mask, place = padded(source, side)
    alone = model(input_ids=source, decoder_input_ids=target)
    both = model(input_ids=ids, attention_mask=mask, decoder_input_ids=target)
    assert_close(both.encoder_last_hidden_state[:, place], alone.encoder_last_hidden_state, atol=1e-5, rtol=1e-5)
    assert_close(both.logits, alone.logits, atol=1e-5, rtol=1e-5)


@backends
@sides
@variants
def test_garbage_under_the_masks_changes_nothing(overrides, side, backend):
    model = make_model(**overrides)
    model.set_attn_implementation(backend)
    batch = ragged_batch(side)
    kept = batch["decoder_attention_mask"].bool()
    expected = model(**batch)
    for name, mask in (("input_ids", "attention_mask"), ("decoder_input_ids", "decoder_attention_mask")):
        garbage = tokens(batch[name].numel(), 3).view_as(batch[name])
        batch[name] = torch.where(batch[mask].bool(), batch[name], garbage)
    assert_close(model(**batch).logits[kept], expected.logits[kept], atol=1e-6, rtol=1e-5)


@sides
@variants
def test_sdpa_equals_eager_in_loss_and_all_gradients_with_both_masks_ragged(overrides, side):
    batch = ragged_batch(side)
    batch["labels"] = batch["decoder_input_ids"].masked_fill(batch["decoder_attention_mask"] == 0, -100)
    results = {}
    for backend in ("eager", "sdpa"):
        model = make_model(**overrides)
        model.set_attn_implementation(backend)
        loss = model(**batch).loss
        loss.backward()
        results[backend] = {"loss": loss.detach(), **gradients(model)}
    assert_close(results["sdpa"], results["eager"], atol=1e-5, rtol=1e-4)


@variants
def test_positions_that_are_given_stand_for_those_that_are_counted(overrides):
    model, batch = make_model(**overrides), ragged_batch("left")
    kept = batch["decoder_attention_mask"].bool()
    expected = model(**batch).logits[kept]
    position_ids = torch.arange(TARGET) - (~kept).sum(dim=-1, keepdim=True)
    given = model(**batch, decoder_position_ids=position_ids.clamp(min=0)).logits[kept]
    assert_close(given, expected, atol=1e-6, rtol=1e-6)
    stretched = model(**batch, decoder_position_ids=2 * position_ids.clamp(min=0)).logits[kept]
    by_row = overrides.get("position_embedding_type") in ("relative", "none")
    assert torch.allclose(stretched, expected, atol=1e-3) == by_row


@sides
@variants
def test_padded_keys_get_no_attention_and_rows_sum_to_one(overrides, side):
    model = make_model(**overrides)
    model.set_attn_implementation("eager")
    batch = ragged_batch(side)
    output = model(**batch, output_attentions=True)
    source, target = batch["attention_mask"].bool(), batch["decoder_attention_mask"].bool()
    causal = torch.ones(TARGET, TARGET).tril().bool()
    allowed = {
        "encoder_attentions": source[:, None, None, :].expand(-1, 1, SOURCE, -1),
        "decoder_attentions": target[:, None, None, :] & causal,
        "cross_attentions": source[:, None, None, :].expand(-1, 1, TARGET, -1),
    }
    queries = {"encoder_attentions": source, "decoder_attentions": target, "cross_attentions": target}
    for name, mask in allowed.items():
        for layer, weights in enumerate(output[name]):
            if weights.ndim == 5:
                assert_attention_within_blocks(weights, model.config, name.split("_")[0], layer, queries[name])
                continue
            real = weights.transpose(1, 2)[queries[name]]  # (real queries, H, keys)
            forbidden = ~mask.expand_as(weights).transpose(1, 2)[queries[name]]
            assert forbidden.any() and (real[forbidden] == 0).all(), name
            assert (real[~forbidden] > 0).all(), name
            assert_close(real.sum(dim=-1), torch.ones(real.shape[:-1]))


def assert_attention_within_blocks(weights, config, stack: str, layer: int, attended: torch.Tensor):
    """Global queries attend to more than their block: their rows there are 0."""
    rows = weights_over_rows(weights, config, stack, layer, attended.shape[1]).transpose(1, 2)  # (B, S, H, S)
    leading = config.num_global_tokens if stack == "encoder" else 0
    attended = attended.sort(dim=1, descending=True).values
    real = rows[:, leading:][attended[:, leading:]]  # (real local queries, H, keys)
    padding = ~attended[:, None, None].expand_as(rows)[:, leading:][attended[:, leading:]]
    assert padding.any() and (real[padding] == 0).all()
    assert_close(real.sum(dim=-1), torch.ones(real.shape[:-1]))
    assert (rows[:, :leading] == 0).all()


@backends
@variants
def test_a_target_token_changes_its_own_and_later_logits_only(overrides, backend):
    model = make_model(**overrides)
    model.set_attn_implementation(backend)
    source, target = tokens(SOURCE), tokens(TARGET, 1)
    changed = target.clone()
    changed[0, 4] = 4 + (changed[0, 4] - 3) % (SIZES["vocab_size"] - 4)
    for use_cache in (False, True):
        before, after = (
            model(input_ids=source, decoder_input_ids=ids, use_cache=use_cache).logits for ids in (target, changed)
        )
        assert_close(after[:, :4], before[:, :4], atol=1e-6, rtol=1e-6)
        assert ((after - before)[:, 4:].abs().amax(dim=-1) > 1e-4).all()


@variants
def test_every_source_token_reaches_the_whole_memory_and_every_logit(overrides):
    model = make_model(**overrides)
    source, target = tokens(SOURCE), tokens(TARGET, 1)
    before = model(input_ids=source, decoder_input_ids=target)
    for place in range(SOURCE):
        changed = source.clone()
        changed[0, place] = 4 + (changed[0, place] - 3) % (SIZES["vocab_size"] - 4)
        after = model(input_ids=changed, decoder_input_ids=target)
        for name in ("encoder_last_hidden_state", "logits"):
            assert ((after[name] - before[name]).abs().amax(dim=-1) > 1e-6).all(), (name, place)


@variants
def test_rows_of_a_batch_do_not_see_each_other(overrides):
    model = make_model(**overrides)
    batch = ragged_batch("right")
    together = model(**batch).logits
    for row in range(3):
        alone = model(**{name: tensor[row : row + 1] for name, tensor in batch.items()}).logits
        assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@variants
def test_the_encoder_knows_the_order_of_the_source_unless_it_has_no_positions(overrides):
    model = make_model(**overrides)
    source, order = tokens(SOURCE), torch.randperm(SOURCE, generator=torch.Generator().manual_seed(4))
    memory = model.model.encoder(source).last_hidden_state
    permuted = model.model.encoder(source[:, order]).last_hidden_state
    unmoved = torch.allclose(permuted, memory[:, order], atol=1e-3)
    assert unmoved == (overrides.get("position_embedding_type") == "none")


@variants
def test_hidden_states_end_with_the_output_of_each_stack(overrides):
    model = make_model(**overrides).model
    output = model(**ragged_batch("right"), output_hidden_states=True)
    assert len(output.encoder_hidden_states) == 1 + SIZES["encoder_layers"]
    assert len(output.decoder_hidden_states) == 1 + SIZES["decoder_layers"]
    assert torch.equal(output.encoder_hidden_states[-1], output.encoder_last_hidden_state)
    assert torch.equal(output.decoder_hidden_states[-1], output.last_hidden_state)
    assert not torch.allclose(output.decoder_hidden_states[-2], output.last_hidden_state, atol=1e-2)


@pytest.mark.skipif(
    "num_hidden_layers_key" not in OutputRecorder.__dataclass_fields__,
    reason="up to 5.22 the library takes such numbers for those of layers, from 0 on, and not of hidden states",
)
@pytest.mark.parametrize("layers", [[0], [-1], [0, 2], [1, -1]], ids=str)
def test_hidden_states_of_chosen_layers_are_those_of_all_layers(layers):
    model = make_model()
    batch = ragged_batch("right")
    full, some = (model(**batch, output_hidden_states=wanted) for wanted in (True, layers))
    for name in ("encoder_hidden_states", "decoder_hidden_states"):
        kept = {layer % len(full[name]) for layer in layers}
        for index, (expected, got) in enumerate(zip(full[name], some[name], strict=True)):
            assert torch.equal(got, expected) if index in kept else got is None, (name, index)


@pytest.mark.parametrize("ask", ["output_attentions", "output_hidden_states"])
def test_an_explicit_none_falls_back_to_the_config(ask):
    model = make_model(**{ask: True, "attn_implementation": "eager"})
    batch = make_batch()
    names = {"output_attentions": "cross_attentions", "output_hidden_states": "decoder_hidden_states"}
    assert model(**batch, **{ask: None})[names[ask]] is not None
    assert names[ask] not in model(**batch, **{ask: False})


@pytest.mark.parametrize("logits_to_keep", [1, 3, torch.tensor([0, 4])], ids=["last", "last-three", "two-places"])
def test_logits_to_keep_are_those_positions_of_all_logits(logits_to_keep):
    model, batch = make_model(), ragged_batch("right")
    places = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
    assert_close(model(**batch, logits_to_keep=logits_to_keep).logits, model(**batch).logits[:, places])


def rotation_of(positions: XformerRotaryEmbedding, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of one text's positions, (1, T)."""
    at = TokenPositions(position_ids, 0, position_ids.shape[1], position_ids.shape[1])
    return positions(torch.zeros(1), at).rotation


def test_rotated_self_attention_with_grouped_and_normed_heads_is_qwen3s():
    """Norms that are not all ones: before a rotation they do something else than behind it."""
    sizes = {"num_key_value_heads": 2, "head_dim": 6, "attn_implementation": "eager"}
    ours = make_model(**sizes, qk_norm=True, norm_eps=1e-3).model.decoder
    config = Qwen3Config(hidden_size=SIZES["d_model"], num_attention_heads=4, rms_norm_eps=1e-3, **sizes)
    stock, attention = Qwen3Attention(config, layer_idx=0), ours.layers[0].self_attention
    for parameter in attention.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    stock.load_state_dict(attention.state_dict())
    x, position_ids = torch.randn(3, TARGET, SIZES["d_model"]), torch.arange(TARGET)[None]
    mask = torch.full((TARGET, TARGET), -torch.inf).triu(1)[None, None]
    expected, _ = stock(x, Qwen3RotaryEmbedding(config)(x, position_ids), mask)
    rotation = rotation_of(ours.positions, position_ids)
    assert_close(attention(x, WholeMask(mask), rotation)[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rope_type", ["linear", "dynamic", "yarn"])
def test_scaled_rotary_frequencies(rope_type):
    """Linear scaling divides positions, dynamic waits for a long input, YaRN slows the slowest turns only."""
    factor, longest = 4.0, SIZES["max_position_embeddings"]
    plain = rotary_positions(XformerConfig(**SIZES), "encoder")
    rope_parameters = {"rope_type": rope_type, "rope_theta": 10000.0, "factor": factor}
    scaled = rotary_positions(XformerConfig(**SIZES, rope_parameters=rope_parameters), "encoder")
    short, long = torch.arange(10)[None], torch.arange(2 * longest)[None]
    if rope_type == "linear":
        assert_close(rotation_of(scaled, long * int(factor)), rotation_of(plain, long), atol=1e-4, rtol=1e-4)
    elif rope_type == "dynamic":
        assert_close(rotation_of(scaled, short), rotation_of(plain, short))
        with pytest.raises(AssertionError):
            assert_close(rotation_of(scaled, long), rotation_of(plain, long))
        assert_close(rotation_of(scaled, short), rotation_of(plain, short))
    else:
        assert_close(scaled.inv_freq[0], plain.inv_freq[0])
        assert_close(scaled.inv_freq[-1], plain.inv_freq[-1] / factor)
        assert scaled.attention_scaling > 1
