# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Logits, gradients and tokens of every attention backend on the device are those of float64 on the CPU."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from small_models import VARIANTS, gradients, make_batch, make_model, pack
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_xformer import XformerForSeq2SeqLM


# Heads of a width that every kernel takes; no scores so large that rounding decides.
WIDE = {"d_model": 64, "head_dim": 16, "dropout": 0.0, "initializer_range": 0.1}
BLOCKS = {"block_size": 3, "decoder_layers": 2}
MODELS = {
    **{name: {**overrides, **WIDE} for name, overrides in VARIANTS.items()},
    "chunked": {**WIDE, **BLOCKS, "block_shift": False, "encoder_layer_types": ["chunked_attention"] * 2},
    "shifted": {
        **{**WIDE, **BLOCKS, "encoder_layer_types": ["chunked_attention"] * 2},
        "decoder_layer_types": ["chunked_attention"] * 2,
    },
    "sliding": {
        **{**WIDE, **BLOCKS, "encoder_layer_types": ["sliding_attention"] * 2},
        "decoder_layer_types": ["sliding_attention"] * 2,
    },
    "sliding-global": {
        **{**WIDE, **BLOCKS, "num_global_tokens": 2},
        "encoder_layer_types": ["sliding_attention", "full_attention"],
    },
}
# The library compiles FlexAttention anew for every shape, which takes 13 seconds.
COMPILED = {"rope-pre": ("right", "left", "packed"), "relative-pre": ("left",), "rope-pre-blocks": ("right", "packed")}
TINY = ("rope-pre", "sinusoidal-post", "relative-pre", "rope-pre-blocks")
LAYOUTS = ("right", "left", "packed")


@dataclass(frozen=True)
class Backend:
    """An attention backend, the type that it computes in, and how far it may be from float64."""

    name: str
    dtype: torch.dtype = torch.float32
    tolerance: float = 1e-4


BACKENDS = [
    Backend("eager"),
    Backend("sdpa"),
    Backend("flex_attention"),
    Backend("sdpa", torch.bfloat16, 5e-2),
    Backend("varlen", torch.bfloat16, 5e-2),
]


def named(backend: Backend) -> str:
    return backend.name if backend.dtype == torch.float32 else f"{backend.name}-bf16"


backends = pytest.mark.parametrize("backend", BACKENDS, ids=named)


@pytest.fixture(autouse=True)
def few_models_if_tiny(request, tiny):
    if tiny and request.getfixturevalue("name") not in TINY:
        pytest.skip(f"tiny: {', '.join(TINY)} alone")


@pytest.fixture(autouse=True)
def flex_on_a_cpu(request, device):
    """FlexAttention uncompiled on a CPU, where the compiled has no backward pass."""
    if device.type == "cpu":
        request.getfixturevalue("plain_flex_attention")


@pytest.fixture(autouse=True)
def one_flex_model_if_tiny(request, tiny):
    """Uncompiled it takes seconds for each mask."""
    is_one = request.getfixturevalue("name") == "rope-pre" and "layout" in request.fixturenames
    if tiny and request.getfixturevalue("backend").name == "flex_attention" and not is_one:
        pytest.skip("tiny: flex_attention with rope-pre alone")


def make(name: str, backend: Backend, device: torch.device) -> XformerForSeq2SeqLM:
    """Returns a model of this name with the weights that the reference has; skips what the backend does not have."""
    if backend.name == "varlen":
        if backend.name not in ALL_ATTENTION_FUNCTIONS:
            pytest.skip("this transformers and torch have no attention backend varlen")
        if device.type != "cuda":
            pytest.skip("the kernel of varlen is a GPU's; tests/models has a stand-in for it")
    if backend.name == "flex_attention" and name not in COMPILED:
        pytest.skip(f"flex_attention is tested with {', '.join(COMPILED)}: each is compiled for seconds")
    model = make_model(**MODELS[name])
    try:
        model.set_attn_implementation(backend.name)
    except (ValueError, ImportError) as error:
        assert backend.name == "varlen", error
        pytest.skip(str(error).splitlines()[0])
    return model.to(device, backend.dtype)


@cache
def reference(name: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits at labelled positions, and gradients: in float64 on the CPU, padded right."""
    model, batch = reference_model(name), make_batch()
    logits = model(**batch).logits
    model(**batch, output_logits=True).loss.backward()
    return logits[batch["labels"] != -100].detach(), gradients(model)


def reference_model(name: str) -> XformerForSeq2SeqLM:
    """sdpa's: the library's eager masks overflow in the float32 of its softmax."""
    model = make_model(**MODELS[name])
    model.set_attn_implementation("sdpa")
    return model.double()


def laid_out(layout: str) -> dict[str, torch.Tensor]:
    """The batch with sources padded right or left, or packed into two rows."""
    batch = make_batch()
    if layout == "packed":
        return pack(batch, [[0, 1], [2]])
    if layout == "left":
        for name in ("input_ids", "attention_mask"):
            shifts = (batch["attention_mask"] == 0).sum(dim=1)
            batch[name] = torch.stack([row.roll(int(by)) for row, by in zip(batch[name], shifts, strict=True)])
    return batch


def distance(x: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference, as a share of the expected norm."""
    x = x.detach().cpu().double()
    return ((x - expected).norm() / expected.norm().clamp(min=1e-9)).item()


@pytest.mark.parametrize("layout", LAYOUTS)
@backends
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_those_of_the_cpu(name, backend, layout, device):
    model = make(name, backend, device)
    if backend.name == "flex_attention" and layout not in COMPILED[name]:
        pytest.skip(f"flex_attention with {name} is tested with {', '.join(COMPILED[name])}")
    batch = {key: tensor.to(device) for key, tensor in laid_out(layout).items()}
    logits, expected = reference(name)
    outputs = model(**batch, output_logits=True)
    # Pairs are packed in their order, so that labelled positions come in the same order in every layout.
    assert distance(outputs.logits[batch["labels"] != -100], logits) < backend.tolerance
    model.train()(**batch).loss.backward()  # in training the loss is one without logits
    found = gradients(model)
    assert found.keys() == expected.keys()
    total = torch.cat([each.flatten() for each in expected.values()]).norm()
    for key, gradient in found.items():
        # A relative error says nothing of gradients that are all but zero.
        gap = (gradient.cpu().double() - expected[key]).norm() / max(expected[key].norm(), total / 50)
        assert gap < 4 * backend.tolerance, key


@pytest.mark.parametrize("beams", [1, 3])
@backends
@pytest.mark.parametrize("name", MODELS)
def test_generated_tokens_are_those_of_the_cpu_within_rounding(name, backend, beams, device):
    """Greedy ones are the likeliest under the reference; beams in float32 are the same tokens."""
    if backend.name == "flex_attention" and device.type == "cuda":
        pytest.skip("flex_attention is compiled anew for every length of the cache")
    model = make(name, backend, device)
    source = {key: tensor for key, tensor in laid_out("left").items() if key != "labels"}
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "num_beams": beams}
    tokens = model.generate(**{key: tensor.to(device) for key, tensor in source.items()}, **options).cpu()
    exact = reference_model(name)
    if backend.dtype == torch.float32:
        assert torch.equal(tokens, exact.generate(**source, **options))
    elif beams == 1:
        logits = exact(**source, decoder_input_ids=tokens[:, :-1]).logits
        logits[..., model.generation_config.eos_token_id] = -torch.inf  # `min_new_tokens` forbids it
        chosen = logits.gather(-1, tokens[:, 1:, None]).squeeze(-1)
        assert (logits.amax(dim=-1) - chosen).max() < backend.tolerance * logits[logits.isfinite()].abs().max()
    else:
        assert tokens.shape == (len(source["input_ids"]), 7)
