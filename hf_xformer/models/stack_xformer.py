# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What encoder and decoder share around their layers: embedding, positions, and what the layers attend to.

Shapes: B batch, T tokens of a row, S keys, D d_model; N segments of packed rows, L tokens of the longest.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.utils import is_tracing
from transformers.utils.generic import is_flash_attention_requested

from .attention_xformer import POSITIONS, Rotation, count_positions
from .blocks_xformer import BlockMasks, Mask, block_patterns
from .configuration_xformer import XformerConfig
from .packing_xformer import PackedMasks, Segments, check_pairs, fold, join, same_segment
from .pretrained_xformer import XformerPreTrainedModel
from .sublayers_xformer import make_norm


Masks = dict[str, Mask | BlockMasks | PackedMasks]  # of the layers of each pattern


class XformerStack(XformerPreTrainedModel):
    """Embedding, positions, masks, and the norm at the end of a pre-norm stack."""

    layers: nn.ModuleList
    positions: Any  # one of POSITIONS

    def __init__(self, config: XformerConfig, stack: str, embed_tokens: nn.Embedding | None):
        super().__init__(config)
        padding_idx = config.pad_token_id if config.freeze_pad_embedding else None
        self.embed_tokens = embed_tokens or nn.Embedding(config.vocab_of(stack), config.d_model, padding_idx)
        self.embed_scale = config.d_model**0.5 if config.scale_embedding else 1.0
        self.positions = POSITIONS[config.position_embedding_type](config, stack)
        self.layer_patterns, self.block_patterns = block_patterns(config, stack)
        self.layernorm_embedding = make_norm(config) if config.layernorm_embedding else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.Identity() if config.norm_position == "post" else make_norm(config)
        self.gradient_checkpointing = False

    def embed(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of `input_ids` and `inputs_embeds`, on either side")
        return (self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds) * self.embed_scale

    def place(
        self,
        x: torch.Tensor,
        attention_mask: torch.Tensor | dict | None,
        position_ids: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
    ) -> tuple[torch.Tensor, Rotation | None, Sequence[torch.Tensor | None]]:
        """
        Adds the positions to embedded tokens (B, T, D), or says what attention does with them instead.

        Positions count the attended tokens, so that padding on either side shifts nobody; those in the cache came
        before.
        """
        length = x.shape[1]
        past, keys = (0, length) if cache is None else (cache.get_seq_length(), cache.get_mask_sizes(length, 0)[0])
        # A static cache counts in a tensor, which is not worth a wait for the device.
        if isinstance(past, int):
            self.check_length(past + length)
        if position_ids is None and isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
            position_ids = count_positions(attention_mask)[:, -length:]
        elif position_ids is None:
            position_ids = torch.arange(length, device=x.device)[None] + past
        return self.positioned(x, position_ids, past, length, keys)

    def place_packed(
        self, x: torch.Tensor, segments: Segments
    ) -> tuple[torch.Tensor, Rotation | None, Sequence[torch.Tensor | None]]:
        """The same in packed rows, where every segment's positions count from 0."""
        if not is_tracing(x):  # a graph cannot look how long its segments are
            self.check_length(segments.longest())
        reach = x.shape[1] if self.masks_whole_rows(x) else segments.longest()
        return self.positioned(x, segments.position_ids(), 0, reach, reach)

    def positioned(
        self, x: torch.Tensor, position_ids: torch.Tensor, past: int, queries: int, keys: int
    ) -> tuple[torch.Tensor, Rotation | None, Sequence[torch.Tensor | None]]:
        x, rotation, biases = self.positions(x, position_ids, past, queries, keys)
        return self.dropout(self.layernorm_embedding(x)), rotation, biases or [None] * len(self.layers)

    def check_length(self, length: int) -> None:
        limit = self.positions.max_positions
        if limit is not None and length > limit:
            raise ValueError(f"{length} tokens do not fit `max_position_embeddings={limit}`")

    def masks(self, x: torch.Tensor, attention_mask: torch.Tensor | None, folds: bool, make_whole: Callable) -> Masks:
        """
        What the layers of each pattern attend to.

        Args:
            folds: Whether x (B, T, D) holds all keys, so that it can be cut into blocks.
            make_whole: From a pattern's name to its mask over whole rows.
        """
        # A mask of more dimensions says itself what attends to what.
        folds = folds and (attention_mask is None or len(attention_mask.shape) == 2)
        # A graph that is being made may serve rows of other lengths.
        cut = {name: it for name, it in self.block_patterns.items() if is_tracing(x) or it.cuts(x.shape[1])}
        patterns = cut if folds else {}
        return {
            name: patterns[name].masks(self.config, x, attention_mask) if name in patterns else make_whole(name)
            for name in dict.fromkeys(self.layer_patterns)
        }

    def packed_masks(
        self,
        x: torch.Tensor,
        segments: Segments,
        make_rows: Callable[[torch.Tensor, torch.Tensor | None], Masks],
        make_whole: Callable[[Callable], Mask],
    ) -> Masks:
        """
        The same for packed rows x (B, T, D).

        Args:
            make_rows: From rows of segments (N, L, 0), and which of their tokens are attended to, to their masks.
            make_whole: From a condition to the mask over whole rows that it leaves.
        """
        if self.masks_whole_rows(x):
            return dict.fromkeys(self.layer_patterns, self.whole_mask(segments, segments, make_whole))
        names = dict.fromkeys(self.layer_patterns)
        masks: Masks = {}
        if is_flash_attention_requested(self.config):
            joined = PackedMasks(*join(segments, segments), (None,))
            masks = {name: joined for name in names if name in ("full_attention", "sliding_attention")}
        if names.keys() - masks.keys():
            folds, inverse = fold(segments, segments)
            of_rows = [make_rows(each.like(x)[0], each.attended) for each in folds]
            masks |= {
                name: PackedMasks(folds, inverse, tuple(each[name] for each in of_rows))
                for name in names
                if name not in masks
            }
        return masks

    def whole_mask(self, queries: Segments, keys: Segments, make_whole: Callable[[Callable], Mask]) -> Mask:
        if not is_tracing(queries.ids):
            check_pairs(queries.spans, keys.spans)
        return make_whole(same_segment(queries, keys))

    def masks_whole_rows(self, x: torch.Tensor) -> bool:
        """Whether packed rows stay whole: FlexAttention skips what is masked, and a graph has fixed shapes."""
        if not is_tracing(x) and self.config._attn_implementation != "flex_attention":
            return False
        if set(self.layer_patterns) - {"full_attention"}:
            raise ValueError(
                "packed rows with block layers take eager, sdpa or FlashAttention without torch.compile; "
                f"the layers are {sorted(set(self.layer_patterns))}"
            )
        if is_flash_attention_requested(self.config):
            raise ValueError("packed rows under FlashAttention do not go with torch.compile, which knows no lengths")
        return True
