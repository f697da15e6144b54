# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Peak memory on the device: the loss without logits, block attention, gradient checkpointing."""

import pytest
import torch
from small_models import gradients, make_model
from torch.testing import assert_close


def losses(model, tokens: int, device: torch.device, **options):
    """Returns a forward and backward pass over a batch of so many tokens a side, in rows of 64."""
    ids = torch.randint(4, model.config.vocab_size, (tokens // 64, 64), generator=torch.Generator().manual_seed(0))
    ids = ids.to(device)

    def run() -> None:
        model.zero_grad(set_to_none=True)
        model(input_ids=ids, labels=ids, **options).loss.backward()

    return run


def warmed(run, peak_bytes) -> int:
    """Peak of a second run: the first leaves behind what libraries allocate once."""
    run()
    return peak_bytes(run)


def test_the_loss_without_logits_stays_below_the_size_of_the_logits(device, tiny, peak_bytes):
    vocabulary, tokens = (5000, 8192) if tiny else (50_000, 16_384)
    model = make_model(vocab_size=vocabulary).to(device).train()
    logits = 4 * vocabulary * tokens
    peak = warmed(losses(model, tokens, device), peak_bytes)
    weights = sum(each.nbytes for each in model.parameters())  # as many gradients are made
    # Beside gradients there is a chunk of logits and what its gradients are made from.
    assert peak < logits + weights
    assert warmed(losses(model, tokens, device, output_logits=True), peak_bytes) > 2 * logits


@pytest.mark.parametrize("layer_type", ["chunked_attention", "sliding_attention"])
def test_memory_of_block_attention_grows_with_the_length(layer_type, device, tiny, peak_bytes):
    """Four times the length takes about four times the memory; full attention, written out, about sixteen."""

    def growth(layer_type: str) -> float:
        length, peaks = 256 if tiny else 1024, []
        model = make_model(
            encoder_layer_types=[layer_type] * 2, block_size=32, d_model=64, attn_implementation="eager"
        ).to(device)  # fmt: skip
        for tokens in (length, 4 * length):
            ids = torch.full((1, tokens), 5, device=device)
            run = lambda ids=ids: model.get_encoder()(input_ids=ids).last_hidden_state.sum().backward()  # noqa: E731
            peaks.append(warmed(run, peak_bytes))
        return peaks[1] / peaks[0]

    assert growth(layer_type) < 5
    assert growth("full_attention") > 8


def test_gradient_checkpointing_gives_the_gradients_in_less_memory(device, peak_bytes):
    peaks, found = [], []
    for checkpointing in (False, True):
        model = make_model(encoder_layers=6, decoder_layers=6, dropout=0.0).to(device).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        peaks.append(warmed(losses(model, 1024, device), peak_bytes))
        found.append(gradients(model))
    assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)
    assert peaks[1] < 0.7 * peaks[0]
