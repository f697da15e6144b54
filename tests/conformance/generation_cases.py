# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Sources, targets and options that the tests of `generate` share."""

import pytest
import torch
from small_models import SIZES, TARGET, VARIANTS, make_batch


variants = pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
START, EOS, PAD = 2, 1, 0
FULL_LENGTH = {"eos_token_id": None, "do_sample": False, "suppress_tokens": [PAD, EOS, START]}
# A random model likes to repeat one token for ever, which would hide faults.
ENDLESS = {**FULL_LENGTH, "no_repeat_ngram_size": 1}
MODES = {
    "greedy": {},
    "sample": {"do_sample": True},
    "beam": {"num_beams": 3},
    "beam-sample": {"num_beams": 3, "do_sample": True},
}
modes = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def source(side: str = "right") -> dict[str, torch.Tensor]:
    """Sources of 11, 8 and 5 tokens, padded on one side."""
    batch = make_batch()
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if side == "left":
        shifts = (batch["attention_mask"] == 0).sum(dim=-1).tolist()
        for name, tensor in batch.items():
            batch[name] = torch.stack([row.roll(shift) for row, shift in zip(tensor, shifts, strict=True)])
    return batch


def target() -> torch.Tensor:
    """Three rows of 7 tokens behind a start token."""
    ids = torch.randint(4, SIZES["vocab_size"], (3, TARGET), generator=torch.Generator().manual_seed(5))
    ids[:, 0] = START
    return ids


def generate(model, **options):
    """`generate` under a seed of its own: what it draws depends on the model alone."""
    torch.manual_seed(7)
    return model.generate(**options)


def log_probabilities(model, batch, ids) -> torch.Tensor:
    """Of every token of `ids` behind the first, one forward without a cache: (B, T) -> (B, T - 1)."""
    logits = model(**batch, decoder_input_ids=ids[:, :-1], use_cache=False).logits
    return logits.log_softmax(dim=-1).gather(-1, ids[:, 1:, None]).squeeze(-1)


def count_calls(modules) -> list[int]:
    counts = []
    for index, module in enumerate(modules):
        counts.append(0)

        def count(*args, index=index):
            counts[index] += 1

        module.register_forward_hook(count)
    return counts
