# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Faults of attention: masks, blocks, positions, caches."""

from mutant import ATTENTION, BLOCKS, CACHE, CONFIG, CORE, GENERATION, POSITIONS, STOCK, VARLEN, WINDOWS, Mutant


MUTANTS = (
    # Who attends to whom
    Mutant(
        "the encoder ignores the source mask",
        "return WholeMask(self.mask_of_keys(queries, keys, self.block_patterns.get(pattern)))",
        "return WholeMask(bidirectional_mask(self.config, queries.tokens, keys.tokens, None))",
        words="padding or marian",
    ),
    Mutant(
        "cross-attention ignores the source mask",
        "memory_rows = self.rows(memory, attended, encoder_segment_ids, packing)",
        "memory_rows = self.rows(memory, None, encoder_segment_ids, packing)",
        words="padding or marian",
    ),
    Mutant(
        "the decoder is not causal in prefill under sdpa",
        'XformerSelfAttention(config, layer_idx, "decoder", is_causal=True)',
        'XformerSelfAttention(config, layer_idx, "decoder", is_causal=False)',
    ),
    Mutant(
        "the decoder ignores the padding of its prefix",
        "make(self.config, tokens, mask, cache, and_mask_function",
        "make(self.config, tokens, None, cache, and_mask_function",
        words="padding",
    ),
    Mutant(
        "the encoder is causal",
        'XformerSelfAttention(config, layer_idx, "encoder", is_causal=False)',
        'XformerSelfAttention(config, layer_idx, "encoder", is_causal=True)',
        words="padding",
    ),
    Mutant(
        "FlashAttention and varlen: the queries are cut as the keys are",
        "query_borders = torch.arange(4, device=attended.device) // 2 * queries",
        "query_borders = key_borders[0].clamp(max=queries)",
        (CORE, VARLEN),
        words="padded",
    ),
    Mutant(
        "varlen: a cache begins with the first token of its rows",
        "query_borders = (key_borders + first - past).clamp(0, queries)",
        "query_borders = (key_borders - past).clamp(0, queries)",
        (VARLEN,),
        words="cached",
    ),
    Mutant(
        "varlen: blocks begin with the row and not with its text",
        "cuts.append((start + shift) % size",
        "cuts.append((0 * start + shift) % size",
        (VARLEN,),
        words="padded",
    ),
    Mutant(
        "varlen: blocks of packed segments are not shifted",
        "((positions - shift) % size == 0)",
        "(positions % size == 0)",
        (VARLEN,),
        words="packed",
    ),
    Mutant(
        "varlen: the windows of the decoder look ahead",
        "0 if module.is_causal else behind",
        "behind",
        (VARLEN,),
        words="windows",
    ),
    # Blocks and windows
    Mutant(
        "blocks: the rest of a row attends to nothing",
        "x = pattern.to_rows(x, self.length)",
        "x = pattern.to_rows(x, self.length)\n"
        "        x = x * (torch.arange(self.length) < self.length // pattern.size * pattern.size)[:, None, None]",
        (BLOCKS,),
    ),
    Mutant("blocks: the shift is ignored", "before = -self.shift % self.size", "before = 0", (BLOCKS,)),
    Mutant("blocks: every layer is shifted", "for i in blocks[1::2] if", "for i in blocks if", (BLOCKS,)),
    Mutant(
        "blocks: global tokens are their own block's keys a second time",
        "self.keys(attended & ~is_leading, attended)",
        "self.keys(attended, attended)",
        (BLOCKS,),
    ),
    Mutant(
        "blocks: global queries stay in their block",
        "x = torch.cat((leading, x[:, pattern.global_tokens :]), dim=1)",
        "pass",
        (BLOCKS,),
    ),
    Mutant(
        "blocks: global queries attend to padding",
        "bidirectional_mask(config, x[:, :queries], x, attended, may_look=may_look)",
        "bidirectional_mask(config, x[:, :queries], x, None, may_look=may_look)",
        (BLOCKS,),
    ),
    Mutant(
        "blocks: padding is attended to",
        "attended = x.new_ones(x.shape[:2], dtype=torch.bool) if attended is None else attended",
        "attended = x.new_ones(x.shape[:2], dtype=torch.bool)",
        (BLOCKS,),
    ),
    Mutant(
        "blocks: padding on the left stays there",
        "if may_look and (is_tracing(attended) or (attended[:, 1:] > attended[:, :-1]).any()):",
        "if False:",
        (BLOCKS,),
    ),
    Mutant(
        "blocks: the order of the tokens is not restored", "reorder(x, self.inverse)", "reorder(x, None)", (BLOCKS,)
    ),
    Mutant(
        "blocks: those of the decoder are not causal",
        "return create_causal_mask(config, blocks.flatten(0, 1), None, None)",
        "return create_bidirectional_mask(config, blocks.flatten(0, 1), None)",
        (BLOCKS,),
    ),
    Mutant(
        "blocks: weights of global queries are those within their block",
        "weights.unflatten(0, (x.shape[0], -1)) * is_local",
        "weights.unflatten(0, (x.shape[0], -1))",
        (ATTENTION,),
    ),
    Mutant(
        "windows: the encoder's begins one token late",
        "WindowPattern(size, -size, size, leading)",
        "WindowPattern(size, 1 - size, size, leading)",
        (BLOCKS,),
    ),
    Mutant(
        "windows: the encoder's ends one token early",
        "WindowPattern(size, -size, size, leading)",
        "WindowPattern(size, -size, size - 1, leading)",
        (BLOCKS,),
    ),
    Mutant(
        "windows: the decoder's begins one token early",
        "WindowPattern(size, 1 - size, 0)",
        "WindowPattern(size, -size, 0)",
        (BLOCKS,),
    ),
    Mutant(
        "windows: the decoder's begins one token late",
        "WindowPattern(size, 1 - size, 0)",
        "WindowPattern(size, 2 - size, 0)",
        (BLOCKS,),
    ),
    Mutant(
        "windows: the decoder's ends one token late",
        "WindowPattern(size, 1 - size, 0)",
        "WindowPattern(size, 1 - size, 1)",
        (BLOCKS,),
    ),
    Mutant(
        "windows: the encoder's of FlashAttention are one token short",
        'size = config.block_size + (stack == "encoder")',
        "size = config.block_size",
        (CORE,),
        words="flash",
    ),
    Mutant(
        "windows: the decoder's of FlashAttention are one token long",
        'size = config.block_size + (stack == "encoder")',
        "size = config.block_size + 1",
        (CORE,),
        words="flash",
    ),
    Mutant(
        "windows: there are none behind a cache",
        "LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING[pattern if condition is None else FULL]",
        "LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING[FULL]",
        (WINDOWS,),
    ),
    Mutant(
        "windows: later tokens are cut into blocks without those in the cache",
        "not (cache.is_compileable or cache.get_seq_length())",
        "not cache.is_compileable",
        (WINDOWS,),
    ),
    Mutant(
        "windows: a cross-attention cache that forgets is taken",
        "if any(cache.cross_attention_cache.is_sliding):",
        "if False:",
        (WINDOWS,),
    ),
    # Attention
    Mutant(
        "eager attention scales twice", "q @ k.transpose(-1, -2) * scaling", "q @ k.transpose(-1, -2) * scaling**2"
    ),
    Mutant(
        "scores are divided by the head's width, not by its root",
        "config.attention_multiplier or self.head_dim**-0.5",
        "config.attention_multiplier or 1 / self.head_dim",
    ),
    Mutant("the attention multiplier is ignored", "config.attention_multiplier or ", "", (CORE, CONFIG)),
    Mutant(
        "grouped heads are repeated and not interleaved",
        "(y.unsqueeze(2).expand(-1, -1, module.num_key_value_groups, -1, -1).flatten(1, 2) for y in (k, v))",
        "(y.repeat(1, module.num_key_value_groups, 1, 1) for y in (k, v))",
    ),
    Mutant(
        "dropout of attention is active in evaluation",
        "self.dropout if self.training else 0.0",
        "self.dropout",
        words="dropout",
    ),
    Mutant(
        "queries are not normed",
        "q, k = self.q_norm(q), self.k_norm(k)",
        "k = self.k_norm(k)",
        (CORE,),
    ),
    Mutant(
        "queries and keys are normed after the rotation",
        """        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
""",
        """        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        q, k = self.q_norm(q), self.k_norm(k)
""",
        words="qwen3",
    ),
    # Positions
    Mutant(
        "padding counts as a position",
        "return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)",
        "return torch.ones_like(attention_mask).cumsum(dim=-1) - 1",
        words="padding",
    ),
    Mutant(
        "positions restart at 0 with a cache",
        "ids = torch.arange(length, device=self.tokens.device)[None] + past",
        "ids = torch.arange(length, device=self.tokens.device)[None]",
    ),
    Mutant(
        "rotary positions turn neighbours, not halves",
        "a, b = x.chunk(2, dim=-1)",
        "a, b = x[..., ::2], x[..., 1::2]",
        (STOCK,),
    ),
    Mutant(
        "rotary positions turn the second half the wrong way",
        "torch.addcmul(b * cos, a, sin))",
        "torch.addcmul(b * cos, a, -sin))",
        (STOCK,),
    ),
    Mutant(
        "only queries are rotated", "rotate(q, *rotation), rotate(k, *rotation)", "rotate(q, *rotation), k", (STOCK,)
    ),
    Mutant(
        "the decoder's relative positions tell two directions apart",
        'self.directions = 2 if stack == "encoder" else 1',
        "self.directions = 2",
        (CORE,),
    ),
    Mutant(
        "relative positions restart at 0 with a cache",
        "queries = torch.arange(at.queries, device=x.device) + at.past",
        "queries = torch.arange(at.queries, device=x.device)",
    ),
    Mutant(
        "relative distances run from the key to the query",
        "distance = torch.arange(at.keys, device=x.device) - queries[:, None]",
        "distance = queries[:, None] - torch.arange(at.keys, device=x.device)",
        (STOCK,),
    ),
    Mutant(
        "sinusoids are not recomputed after loading",
        "if isinstance(module, XformerComputedPositions):",
        "if False:",
        words="buffers",
    ),
    Mutant(
        "positions are not computed where memory is taken for them",
        "            self.initialise()",
        "            pass",
        (POSITIONS,),
        "buffers",
    ),
    # Caches
    Mutant(
        "the cross-attention cache is never marked as filled",
        "cache.is_updated[self.layer_idx] = True",
        "cache.is_updated[self.layer_idx] = False",
        (GENERATION,),
    ),
    Mutant(
        "all layers read the first layer's cross-attention cache",
        "cache.cross_attention_cache.layers[self.layer_idx]",
        "cache.cross_attention_cache.layers[0]",
    ),
    Mutant(
        "the cross-attention cache has the decoder's windows",
        "if is_whole or any(cache.is_updated.values()):",
        "if True:",
        words="cache",
    ),
    Mutant(
        "positions of a padded prefix are forgotten by compiled steps",
        'kwargs["decoder_position_ids"] = count_positions(decoder_attention_mask)',
        "pass",
        (GENERATION,),
        words="prefix",
    ),
    # Rows that share their source
    Mutant(
        "the target's rows stay where they are",
        "self.self_attention_cache.reorder_cache(beam_idx)",
        "pass",
        (CACHE,),
        words="librarys_cache",
    ),
    Mutant(
        "sources that have left stay in the cache",
        "self.cross_attention_cache.reorder_cache(kept)",
        "pass",
        (CACHE,),
        words="mask",
    ),
    Mutant(
        "weights of cross-attention are those of other rows",
        "unfold(weights.transpose(1, 2), rows).transpose(1, 2)",
        "unfold(weights, rows)",
        (CACHE,),
        words="share",
    ),
    Mutant(
        "the source's mask of the first step serves all others",
        "if self.made is None or self.made[0] is not attended or self.made[1] != sizes:",
        "if self.made is None:",
        (CACHE,),
        words="mask",
    ),
    Mutant(
        "a token of several takes no mask",
        "return self.tokens.shape[1] == 1 and self.cache is not None and not self.cache.is_compileable",
        "return self.cache is not None and not self.cache.is_compileable",
        words="cache",
    ),
)
