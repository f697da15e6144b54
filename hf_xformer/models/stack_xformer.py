# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The encoder and the decoder: embedding, positions, masks, layers.

Shapes: B batch, S source, T target or tokens of a row, D d_model.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPastAndCrossAttentions
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, is_tracing
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention_xformer import XformerAttention, XformerCrossAttention, XformerSelfAttention
from .blocks_xformer import BlockPattern, bidirectional_mask, block_patterns, refuse_forgetful_caches
from .cache_xformer import XformerCache, as_encoder_decoder_cache
from .configuration_xformer import XformerConfig
from .dropout_xformer import XformerDropout
from .layers_xformer import XformerDecoderLayer, XformerEncoderLayer
from .layout_xformer import SOURCE, TARGET, Layout, Packing, packing_of
from .masks_xformer import AttentionMask, Mask, WholeMask, attended_by_any
from .packing_xformer import check_both_sides, check_ids, refuse_beside_segments
from .positions_xformer import POSITIONS, Rotation, XformerRelativePositions
from .pretrained_xformer import XformerPreTrainedModel
from .rows_xformer import PackedRows, PaddedRows, Rows, UnpackedRows
from .sublayers_xformer import make_input_norm, make_norm
from .varlen_xformer import segments_across, segments_within, takes_segments
from .versions_xformer import CACHE, recorder_of_layers, takes_cache


FULL = "full_attention"


class XformerStack(XformerPreTrainedModel):
    """The common parts of encoder and decoder: all but the layers and what they attend to."""

    layers: nn.ModuleList
    positions: Any  # one of POSITIONS

    def __init__(self, config: XformerConfig, stack: str, embed_tokens: nn.Embedding | None):
        super().__init__(config)
        padding_idx = config.pad_token_id if config.freeze_pad_embedding else None
        self.stack = stack
        self.embed_tokens = embed_tokens or nn.Embedding(config.vocab_of(stack), config.d_model, padding_idx)
        self.embed_scale = config.d_model**0.5 if config.scale_embedding else 1.0
        self.positions = POSITIONS[config.position_embedding_type](config, stack)
        self.layer_patterns, self.block_patterns = block_patterns(config, stack)
        self.layernorm_embedding = make_norm(config) if config.layernorm_embedding else nn.Identity()
        self.dropout = XformerDropout(config.dropout)
        self.norm = make_input_norm(config)
        self.gradient_checkpointing = False

    def embed(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of `input_ids` and `inputs_embeds`, on either side")
        if input_ids is None:
            return self.scaled(inputs_embeds)  # type: ignore[arg-type]
        try:
            return self.scaled(self.embed_tokens(input_ids))
        except IndexError as error:  # on a CPU; another device finds it out later, and nobody waits for it
            self.check_tokens(input_ids, error)
            raise

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        """Multiplies embedded tokens by the scale of the config."""
        return x if self.embed_scale == 1.0 else x * self.embed_scale

    def check_layers(self, kept: Sequence[int]) -> None:
        """
        Checks numbers of layers that are to be kept.

        Raises:
            ValueError: They are not numbers of layers, each once and in order.
        """
        count = len(self.layers)
        are_numbers = isinstance(kept, Sequence) and not isinstance(kept, str) and len(kept) > 0
        if (
            not are_numbers
            or any(type(i) is not int or not 0 <= i < count for i in kept)
            or sorted({*kept}) != list(kept)
        ):
            raise ValueError(
                f"`{self.stack}` must be numbers of its layers to keep, from 0 to {count - 1}, each once and in "
                f"order, got {kept}"
            )

    def take_layers(self, kept: Sequence[int]) -> None:
        """Keeps some layers, by their numbers, which then count from 0 on, and changes the config accordingly."""
        self.check_layers(kept)
        self.layers = nn.ModuleList(self.layers[i] for i in kept)
        for number, layer in enumerate(self.layers):
            for module in layer.modules():
                if isinstance(module, XformerAttention):
                    module.layer_idx = number
        types = self.config.layer_types_of(self.stack)
        self.config.update({f"{self.stack}_layers": len(kept), f"{self.stack}_layer_types": [types[i] for i in kept]})
        self.layer_patterns, self.block_patterns = block_patterns(self.config, self.stack)
        if isinstance(self.positions, XformerRelativePositions):
            self.positions.keep_layers(kept)

    def check_depth(self) -> None:
        """
        Checks that the stack has the layers that its config says.

        Raises:
            ValueError: Somebody has taken layers out or put some in, without the config and the layers' numbers.
        """
        if len(self.layers) != len(self.layer_patterns):
            raise ValueError(
                f"the {self.stack} has {len(self.layers)} layers and its config says {len(self.layer_patterns)}: take "
                f"layers out of a whole model, by model.keep_layers({self.stack}=[...]) with the numbers of the others"
            )

    def check_tokens(self, input_ids: torch.Tensor, error: IndexError) -> None:
        """
        Checks that ids are in the vocabulary.

        Args:
            error: What the embedding said of them.

        Raises:
            ValueError: An id is not.
        """
        size = getattr(self.embed_tokens, "num_embeddings", 0)
        wrong = input_ids[(input_ids < 0) | (input_ids >= size)]
        if size and len(wrong):
            name = "input_ids" if self.stack == "encoder" else "decoder_input_ids"
            raise ValueError(
                f"`{name}` has {int(wrong[0])} ({len(wrong):,} such), which the {self.stack}'s vocabulary of "
                f"{size:,} tokens does not have: its tokenizer is another model's, or has tokens that were added since"
            ) from error

    def rows(
        self,
        x: torch.Tensor,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None,
        segment_ids: torch.Tensor | None,
        packing: Packing | None,
        side: str = SOURCE,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
    ) -> Rows:
        """
        Returns the rows of a batch x (B, T, D): padded, or packed if there are segment ids.

        Args:
            packing: Layout of packed rows; in a graph None, or one of a fixed size.
            side: The user's argument for the segment ids.
        """
        if segment_ids is None:
            return PaddedRows(x, attention_mask, position_ids, cache)
        refuse_beside_segments(attention_mask=attention_mask, position_ids=position_ids, **{CACHE: cache})
        takes_borders = takes_segments(self.config)
        if packing is None and takes_borders:
            name = self.config._attn_implementation
            raise ValueError(
                f"packed rows under {name} in a graph need their layout, `packing=make_packing(..., fixed=True)`, as "
                "`DataCollatorForPackedSeq2Seq(fixed=True)` makes it"
            )
        # One mask over whole rows: a graph has fixed shapes, and FlexAttention skips what is masked.
        if packing is None or (is_tracing(x) and not takes_borders):
            return PackedRows(x, segment_ids)
        layout = Layout(packing)
        if self.config._attn_implementation == "flex_attention":
            return PackedRows(x, segment_ids, layout.side(side).longest)
        return UnpackedRows(x, layout, side, self.segment_cuts())

    def add_positions(
        self, x: torch.Tensor, rows: Rows
    ) -> tuple[torch.Tensor, Rotation | None, Sequence[torch.Tensor | None]]:
        """
        Adds the positions to embedded tokens (B, T, D).

        Returns:
            The tokens; the rotation of queries and keys, or None; and for each layer a bias of the scores, or None.

        Raises:
            ValueError: A text is longer than the positions.
        """
        if (longest := rows.longest()) is not None:
            self.config.check_length(self.stack, longest)
        x, rotation, biases = self.positions(x, rows.positions())
        return self.dropout(self.layernorm_embedding(x)), rotation, biases or [None] * len(self.layers)

    def masks(self, rows: Rows) -> dict[str, AttentionMask]:
        """Returns the masks of self-attention, by the pattern of the layers."""
        self.check_depth()
        return rows.masks(self.self_mask, rows, dict.fromkeys(self.layer_patterns))

    def self_mask(self, queries: PaddedRows, keys: PaddedRows, pattern: str) -> AttentionMask:
        """
        Returns the mask of self-attention in the layers of one pattern.

        Args:
            queries, keys: The same rows. Those of unpacked segments have padding as keys only, which stands behind
                them, and not as queries.
        """
        raise NotImplementedError

    def mask_of_keys(self, queries: PaddedRows, keys: PaddedRows, blocks: BlockPattern | None = None) -> Mask:
        """Returns the backend's mask of tokens that attend to all of their keys, or of blocks that are not cut."""
        mask, condition = keys.attention_mask, queries.condition(keys, blocks)
        return bidirectional_mask(self.config, queries.tokens, keys.tokens, mask, condition, keys.may_look)  # type: ignore[arg-type]

    def block_mask(self, rows: PaddedRows, pattern: str) -> AttentionMask | None:
        """The mask of a pattern of blocks; None for full attention, and where blocks would not cut the rows."""
        blocks = self.block_patterns.get(pattern)
        if blocks is None or pattern in self.segment_cuts() or not rows.hold_all_keys():
            return None
        # A graph that is being made may serve rows of other lengths.
        if not (is_tracing(rows.tokens) or blocks.cuts(rows.tokens.shape[1])):
            return None
        return blocks.mask(self.config, rows.tokens, rows.attention_mask, rows.may_look)  # type: ignore[arg-type]

    def segment_cuts(self) -> dict[str, dict[str, int]]:
        """
        Patterns whose masks are the borders of segments, each with the size and the shift of its blocks.

        There are none unless the backend takes such masks. Blocks with global tokens attend to more than a segment.
        """
        if not takes_segments(self.config):
            return {}
        own = {name: blocks.segment_cuts for name, blocks in self.block_patterns.items() if not blocks.global_tokens}
        return {FULL: {}, **own}

    def segment_mask(self, rows: PaddedRows, attended: torch.Tensor | None, pattern: str) -> AttentionMask:
        """The mask of self-attention by a kernel for variable lengths; `attended` is 1 for tokens to attend to."""
        layer, is_full = self.layer_patterns.index(pattern), pattern not in self.block_patterns
        if attended is None and is_full and rows.hold_no_others(layer):
            return WholeMask(None)
        cuts = self.segment_cuts().get(pattern, {})
        return segments_within(rows.tokens, attended, rows.cache, layer, **cuts)


class XformerEncoder(XformerStack):
    """Reads the source: token ids (B, S) to the memory (B, S, D)."""

    _can_record_outputs = {
        "hidden_states": recorder_of_layers(XformerEncoderLayer, "encoder_layers"),
        "attentions": OutputRecorder(XformerSelfAttention, index=1),
    }

    def __init__(self, config: XformerConfig, embed_tokens: nn.Embedding | None = None):
        super().__init__(config, "encoder", embed_tokens)
        self.layers = nn.ModuleList(XformerEncoderLayer(config, i) for i in range(config.encoder_layers))
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
        packing: Packing | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        x = self.embed(input_ids, inputs_embeds)  # (B, S, D)
        check_ids(SOURCE, segment_ids, x)
        rows = self.rows(x, attention_mask, segment_ids, packing_of(packing, segment_ids))
        masks = self.masks(rows)
        x, rotation, biases = self.add_positions(x, rows)
        for layer, pattern, bias in zip(self.layers, self.layer_patterns, biases, strict=True):
            x = layer(x, masks[pattern], rotation, bias, **kwargs)
        return BaseModelOutput(last_hidden_state=self.norm(x))

    def self_mask(self, queries: PaddedRows, keys: PaddedRows, pattern: str) -> AttentionMask:
        """Every token attends to all of its row, block or window."""
        if (blocks := self.block_mask(keys, pattern)) is not None:
            return blocks
        if takes_segments(self.config):
            return self.segment_mask(keys, keys.attention_mask, pattern)  # type: ignore[arg-type]
        return WholeMask(self.mask_of_keys(queries, keys, self.block_patterns.get(pattern)))


class XformerDecoder(XformerStack):
    """Writes the target: token ids (B, T) and the memory (B, S, D) to hidden states (B, T, D)."""

    _can_record_outputs = {
        "hidden_states": recorder_of_layers(XformerDecoderLayer, "decoder_layers"),
        "attentions": OutputRecorder(XformerSelfAttention, index=1),
        "cross_attentions": OutputRecorder(XformerCrossAttention, index=1),
    }

    def __init__(self, config: XformerConfig, embed_tokens: nn.Embedding | None = None):
        super().__init__(config, "decoder", embed_tokens)
        self.layers = nn.ModuleList(XformerDecoderLayer(config, i) for i in range(config.decoder_layers))
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    @takes_cache
    def forward(  # type: ignore[misc]
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,
        position_ids: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        segment_ids: torch.Tensor | None = None,
        encoder_segment_ids: torch.Tensor | None = None,
        packing: Packing | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        if encoder_hidden_states is None:
            raise ValueError("the decoder needs `encoder_hidden_states`, the encoder's output")
        check_both_sides(encoder_segment_ids, segment_ids)
        memory = encoder_hidden_states  # (B, S, D)
        x = self.embed(input_ids, inputs_embeds)  # (B, T, D)
        if use_cache and cache is None and segment_ids is None and not self.training:
            cache = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache())
        cache = as_encoder_decoder_cache(cache)
        refuse_forgetful_caches(cache)
        own_cache = None if cache is None else cache.self_attention_cache
        check_ids(TARGET, segment_ids, x)
        check_ids(SOURCE, encoder_segment_ids, memory)
        packing = packing_of(packing, encoder_segment_ids, segment_ids)
        rows = self.rows(x, attention_mask, segment_ids, packing, TARGET, position_ids, own_cache)
        masks = self.masks(rows)

        def make_memory_mask() -> AttentionMask:
            # A mask of four dimensions says which of the source's tokens attend to which, and has no queries of ours.
            attended = attended_by_any(encoder_attention_mask)
            memory_rows = self.rows(memory, attended, encoder_segment_ids, packing)
            return rows.masks(self.cross_mask, memory_rows, [FULL])[FULL]

        if isinstance(cache, XformerCache) and not is_tracing(x):
            sizes = x.shape[:2] + memory.shape[:2]
            memory_mask = cache.memory_mask(encoder_attention_mask, sizes, make_memory_mask)
        else:
            memory_mask = make_memory_mask()
        x, rotation, biases = self.add_positions(x, rows)
        for layer, pattern, bias in zip(self.layers, self.layer_patterns, biases, strict=True):
            # Under the library's name, by which it takes caches from layers that it checkpoints.
            x = layer(x, memory, masks[pattern], memory_mask, rotation, bias, **{CACHE: cache}, **kwargs)
        state: dict[str, Any] = {"last_hidden_state": self.norm(x), CACHE: cache}
        return BaseModelOutputWithPastAndCrossAttentions(**state)

    def self_mask(self, queries: PaddedRows, keys: PaddedRows, pattern: str) -> AttentionMask:
        """A token attends to itself and to those before it in its row, block or window."""
        # By the mask of the queries: no token looks at padding behind it.
        if (blocks := self.block_mask(queries, pattern)) is not None:
            return blocks
        tokens, mask, cache = queries.tokens, queries.attention_mask, queries.cache
        if isinstance(mask, dict):
            # `generate` makes the masks itself when it compiles, one for each layer type.
            mask = mask[pattern]
        if takes_segments(self.config):
            return self.segment_mask(queries, mask, pattern)
        if mask is None and pattern == FULL and queries.are_last():
            return WholeMask(None)
        condition = queries.condition(keys, self.block_patterns.get(pattern))
        # The library counts its blocks and windows through whole rows: the condition has those of packed texts.
        make = LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING[pattern if condition is None else FULL]
        return WholeMask(make(self.config, tokens, mask, cache, and_mask_function=condition))  # type: ignore[operator]

    def cross_mask(self, queries: PaddedRows, keys: PaddedRows, pattern: str) -> AttentionMask:
        """A token attends to all of its source, in one row with those of the source's other rows."""
        attended: torch.Tensor | None = keys.attention_mask  # type: ignore[assignment]
        queries = queries.folded(keys)
        if attended is not None and takes_segments(self.config):
            return segments_across(attended.to(queries.tokens.device), queries.tokens.shape[1])
        return WholeMask(self.mask_of_keys(queries, keys))
