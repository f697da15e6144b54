# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The way from a layer to the attention function, and what norms and residuals compute around it."""

import sys
from pathlib import Path

import pytest
import torch
from small_models import VARIANTS, make_batch, make_model, pack
from torch.testing import assert_close
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_xformer.models import modeling_xformer
from hf_xformer.models.layers_xformer import XformerDecoderLayer, XformerEncoderLayer
from hf_xformer.models.masks_xformer import WholeMask
from hf_xformer.models.stack_xformer import XformerStack


MODELS = Path(modeling_xformer.__file__).parent


def frames_below_a_stack() -> list[str]:
    """Our functions that called the caller, the innermost first, up to the stack that called its layer."""
    frame, found = sys._getframe(2), []
    while frame is not None and not isinstance(frame.f_locals.get("self"), XformerStack):
        if Path(frame.f_code.co_filename).parent == MODELS:
            found.append(frame.f_code.co_qualname)
        frame = frame.f_back
    assert frame is not None
    return found


@pytest.fixture
def ways(monkeypatch) -> set[tuple[str, ...]]:
    """Attention by sdpa under the name "probe", which notes by which of our functions it was reached."""
    seen = set()

    def probe(module, *args, **kwargs):
        seen.add(tuple(frames_below_a_stack()))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, *args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "probe", probe)
    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping, "probe", sdpa_mask)
    return seen


@pytest.mark.parametrize("kind", ["padded", "packed", "packed blocks"])
def test_at_most_four_of_our_functions_are_between_a_stack_and_the_attention_function(kind, ways):
    batch = make_batch() if kind == "padded" else pack(make_batch(), [[2, 0], [1]])
    model = make_model(**(VARIANTS["rope-pre-blocks"] if kind == "packed blocks" else {}))
    expected = model(**batch).logits
    model.set_attn_implementation("probe")
    assert torch.equal(model(**batch).logits, expected)
    layers = {XformerEncoderLayer.forward.__qualname__, XformerDecoderLayer.forward.__qualname__}
    assert layers <= {name for way in ways for name in way}
    assert all(len(way) <= 4 for way in ways), ways


FORMULAS = {
    "pre": lambda x, sublayer, norm, residual: x + sublayer(norm(x)),
    "post": lambda x, sublayer, norm, residual: residual.norm(x + sublayer(x)),
    "sandwich": lambda x, sublayer, norm, residual: x + residual.norm(sublayer(norm(x))),
}


@pytest.mark.parametrize("position", FORMULAS)
def test_an_encoder_layer_is_the_formula_of_its_norm_position(position):
    torch.manual_seed(0)
    layer = make_model(norm_position=position, position_embedding_type="none").model.encoder.layers[0]
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter) / 4  # norms would all be alike
    x, mask = torch.randn(2, 5, 32), WholeMask(None)
    formula = FORMULAS[position]
    y = formula(
        x, lambda x: layer.self_attention(x, mask)[0], layer.self_attention_norm, layer.self_attention_residual
    )
    y = formula(y, layer.feed_forward, layer.feed_forward_norm, layer.feed_forward_residual)
    assert_close(layer(x, mask), y)
