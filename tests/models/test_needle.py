# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A fact at the start of a long source, and whether the encoder carries it to the end.

Cross-attention is always full, so a decoder could read the fact where it stands. Here it sees the memory of the
source's last block alone: what it says of the fact, the encoder has brought there, across 63 borders of blocks.
"""

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from hf_xformer import XformerConfig, XformerForSeq2SeqLM


BLOCK, GLOBAL_TOKENS, LENGTH = 64, 4, 4096
START, FIRST_FILLER, FIRST_FACT, FACTS = 1, 4, 12, 8
# Tokens of the source, rows, steps: short sources teach which tokens matter, long ones to find them among many.
STAGES = [(192, 32, 160), (1024, 8, 60), (LENGTH, 4, 90)]


def draw(rows: int, length: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Filler at random, a fact that fills the first block between the global tokens and filler, and that fact."""
    source = torch.randint(FIRST_FILLER, FIRST_FACT, (rows, length), generator=generator)
    fact = torch.randint(FIRST_FACT, FIRST_FACT + FACTS, (rows, 1), generator=generator)
    source[:, GLOBAL_TOKENS : BLOCK - 12] = fact
    return source, fact


def last_block(model: XformerForSeq2SeqLM, source: torch.Tensor) -> dict:
    memory = model.get_encoder()(source).last_hidden_state[:, -BLOCK:]
    return {"encoder_outputs": BaseModelOutput(memory), "attention_mask": source.new_ones(memory.shape[:2])}


def train(seed: int, **overrides) -> XformerForSeq2SeqLM:
    torch.manual_seed(seed)
    config = XformerConfig(
        vocab_size=FIRST_FACT + FACTS,
        d_model=64,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_layer_types=["chunked_attention"] * 2,
        block_size=BLOCK,
        dropout=0.0,
        initializer_range=0.05,
        max_position_embeddings=LENGTH,
        eos_token_id=START,
        **overrides,
    )
    model = XformerForSeq2SeqLM(config).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    steps = sum(steps for _, _, steps in STAGES)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed + 1)
    for length, rows, steps in STAGES:
        for _ in range(steps):
            source, fact = draw(rows, length, generator)
            model(**last_block(model, source), labels=fact).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model.eval()


@torch.no_grad()
def share_of_facts(model: XformerForSeq2SeqLM) -> float:
    """How many facts of fresh sources `generate` says."""
    generator, right = torch.Generator().manual_seed(1000), []
    for _ in range(8):
        source, fact = draw(8, LENGTH, generator)
        said = model.generate(**last_block(model, source), max_new_tokens=1, min_new_tokens=1, do_sample=False)
        right.append((said[:, 1:] == fact).float().mean().item())
    return sum(right) / len(right)


@pytest.mark.nightly
def test_a_fact_crosses_a_long_source_through_shifted_blocks_and_global_tokens():
    assert share_of_facts(train(0, num_global_tokens=GLOBAL_TOKENS)) >= 0.95


@pytest.mark.nightly
def test_a_fact_never_leaves_its_block_without_shift_and_global_tokens():
    # One fact in eight is right by chance.
    assert share_of_facts(train(0, num_global_tokens=0, block_shift=False)) <= 0.35
