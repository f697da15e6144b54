# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The encoder-decoder Transformer (Vaswani et al. 2017) as transformers models.

Shapes: B batch, S source, T target, D d_model, V vocabulary.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING, create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from transformers.modeling_utils import slice_logits_to_keep
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple, is_tracing
from transformers.utils.generic import is_flash_attention_requested, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention_xformer import (
    POSITIONS,
    Rotation,
    XformerAttentionCore,
    XformerCrossAttention,
    XformerSelfAttention,
    count_positions,
)
from .blocks_xformer import BlockMasks, block_patterns, refuse_forgetful_caches
from .configuration_xformer import XformerConfig
from .pretrained_xformer import XformerPreTrainedModel
from .sublayers_xformer import FEED_FORWARDS, RESIDUALS, make_norm


class XformerEncoderLayer(GradientCheckpointingLayer):
    """Self-attention and feed-forward, each with its norm and residual."""

    def __init__(self, config: XformerConfig, layer_idx: int):
        super().__init__()
        residual = RESIDUALS[config.norm_position]
        self.self_attention_norm = make_norm(config)
        self.self_attention = XformerSelfAttention(config, layer_idx, "encoder", is_causal=False)
        self.self_attention_residual = residual(config)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = FEED_FORWARDS[config.gated_ffn](config, config.encoder_ffn_dim)
        self.feed_forward_residual = residual(config)

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | BlockMasks | None = None,
        rotation: Rotation | None = None,
        position_bias: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        x = self.self_attention_residual(
            x, self.self_attention_norm, self.self_attention, mask, rotation, position_bias, **kwargs
        )
        x = self.feed_forward_residual(x, self.feed_forward_norm, self.feed_forward)
        return x


class XformerDecoderLayer(GradientCheckpointingLayer):
    """Causal self-attention, cross-attention to the memory and feed-forward, each with its norm and residual."""

    def __init__(self, config: XformerConfig, layer_idx: int):
        super().__init__()
        residual = RESIDUALS[config.norm_position]
        self.self_attention_norm = make_norm(config)
        self.self_attention = XformerSelfAttention(config, layer_idx, "decoder", is_causal=True)
        self.self_attention_residual = residual(config)
        self.cross_attention_norm = make_norm(config)
        self.cross_attention = XformerCrossAttention(config, layer_idx, "decoder", is_causal=False)
        self.cross_attention_residual = residual(config)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = FEED_FORWARDS[config.gated_ffn](config, config.decoder_ffn_dim)
        self.feed_forward_residual = residual(config)

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        mask: torch.Tensor | BlockMasks | None = None,
        memory_mask: torch.Tensor | None = None,
        rotation: Rotation | None = None,
        position_bias: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        cache = None if past_key_values is None else past_key_values.self_attention_cache
        x = self.self_attention_residual(
            x, self.self_attention_norm, self.self_attention, mask, rotation, position_bias, cache, **kwargs
        )
        x = self.cross_attention_residual(
            x, self.cross_attention_norm, self.cross_attention, memory, memory_mask, past_key_values, **kwargs
        )
        x = self.feed_forward_residual(x, self.feed_forward_norm, self.feed_forward)
        return x


class XformerStack(XformerPreTrainedModel):
    """What encoder and decoder share: embedding, positions, and the norm at the end of a pre-norm stack."""

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

    def embed(self, input_ids: torch.LongTensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of `input_ids` and `inputs_embeds`, on either side")
        return (self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds) * self.embed_scale

    def place(
        self,
        x: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.LongTensor | None = None,
        cache: EncoderDecoderCache | None = None,
    ) -> tuple[torch.Tensor, Rotation | None, Sequence[torch.Tensor | None]]:
        """
        Adds the positions to embedded tokens (B, T, D), or says what attention does with them instead.

        Positions count the attended tokens, so that padding on either side shifts nobody; those in the cache came
        before.
        """
        length, limit = x.shape[1], self.positions.max_positions
        past, keys = (0, length) if cache is None else (cache.get_seq_length(), cache.get_mask_sizes(length, 0)[0])
        # A static cache counts in a tensor, which is not worth a wait for the device.
        if limit is not None and isinstance(past, int) and past + length > limit:
            raise ValueError(f"{past + length} tokens do not fit `max_position_embeddings={limit}`")
        if position_ids is None and isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
            position_ids = count_positions(attention_mask)[:, -length:]
        elif position_ids is None:
            position_ids = torch.arange(length, device=x.device)[None] + past
        x, rotation, biases = self.positions(x, position_ids, past, keys)
        return self.dropout(self.layernorm_embedding(x)), rotation, biases or [None] * len(self.layers)

    def masks(
        self, x: torch.Tensor, attention_mask: torch.Tensor | None, folds: bool, make_whole: Callable
    ) -> dict[str, torch.Tensor | BlockMasks | None]:
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


class XformerEncoder(XformerStack):
    """Reads the source: token ids (B, S) to the memory (B, S, D)."""

    _can_record_outputs = {
        "hidden_states": OutputRecorder(XformerEncoderLayer, num_hidden_layers_key="encoder_layers"),
        "attentions": OutputRecorder(XformerAttentionCore, index=1),
    }

    def __init__(self, config: XformerConfig, embed_tokens: nn.Embedding | None = None):
        super().__init__(config, "encoder", embed_tokens)
        self.layers = nn.ModuleList(XformerEncoderLayer(config, i) for i in range(config.encoder_layers))
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        x = self.embed(input_ids, inputs_embeds)  # (B, S, D)
        masks = self.masks(
            x, attention_mask, True, lambda name: create_bidirectional_mask(self.config, x, attention_mask)
        )
        x, rotation, biases = self.place(x, attention_mask)
        for layer, pattern, bias in zip(self.layers, self.layer_patterns, biases, strict=True):
            x = layer(x, masks[pattern], rotation, bias, **kwargs)
        return BaseModelOutput(last_hidden_state=self.norm(x))


class XformerDecoder(XformerStack):
    """Writes the target: token ids (B, T) and the memory (B, S, D) to hidden states (B, T, D)."""

    _can_record_outputs = {
        "hidden_states": OutputRecorder(XformerDecoderLayer),
        "attentions": OutputRecorder(XformerAttentionCore, index=1, layer_name="self_attention"),
        "cross_attentions": OutputRecorder(XformerAttentionCore, index=1, layer_name="cross_attention"),
    }

    def __init__(self, config: XformerConfig, embed_tokens: nn.Embedding | None = None):
        super().__init__(config, "decoder", embed_tokens)
        self.layers = nn.ModuleList(XformerDecoderLayer(config, i) for i in range(config.decoder_layers))
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,
        position_ids: torch.LongTensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        if encoder_hidden_states is None:
            raise ValueError("the decoder needs `encoder_hidden_states`, the encoder's output")
        if use_cache and past_key_values is None and not self.training:
            past_key_values = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache())
        memory = encoder_hidden_states  # (B, S, D)
        x = self.embed(input_ids, inputs_embeds)  # (B, T, D)
        masks = self.causal_masks(x, attention_mask, past_key_values)
        memory_mask = create_bidirectional_mask(self.config, x, encoder_attention_mask, encoder_hidden_states=memory)
        x, rotation, biases = self.place(x, attention_mask, position_ids, past_key_values)
        for layer, pattern, bias in zip(self.layers, self.layer_patterns, biases, strict=True):
            x = layer(
                x, memory, masks[pattern], memory_mask, rotation, bias, past_key_values=past_key_values, **kwargs
            )
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=self.norm(x), past_key_values=past_key_values
        )

    def causal_masks(
        self, x: torch.Tensor, attention_mask: torch.Tensor | dict | None, past_key_values: EncoderDecoderCache | None
    ) -> dict[str, torch.Tensor | BlockMasks | None]:
        cache = None if past_key_values is None else past_key_values.self_attention_cache
        refuse_forgetful_caches(past_key_values)
        # `generate` prepares the masks itself when it compiles, one for each layer type.
        is_prepared = isinstance(attention_mask, dict)

        def make_whole(layer_type: str) -> torch.Tensor | None:
            mask = attention_mask[layer_type] if is_prepared else attention_mask
            if mask is None and isinstance(cache, StaticCache) and is_flash_attention_requested(self.config):
                # From the mask alone FlashAttention learns how many of the cache's slots are filled.
                mask = x.new_ones(x.shape[0], cache.get_seq_length() + x.shape[1])
            return LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING[layer_type](self.config, x, mask, cache)

        holds_all_keys = cache is None or not (cache.is_compileable or cache.get_seq_length())
        return self.masks(x, attention_mask, holds_all_keys and not is_prepared, make_whole)


def given(kwargs: dict) -> dict:
    """Without the arguments that are None, which the library would take for False and not for the config's value."""
    return {name: value for name, value in kwargs.items() if value is not None}


class XformerModel(XformerPreTrainedModel):
    """The encoder and the decoder, over one embedding or one each, without an output layer."""

    # The stacks hold one embedding object, which the state dict lists under both.
    _tied_weights_keys = {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}

    def __init__(self, config: XformerConfig):
        super().__init__(config)
        self.encoder = XformerEncoder(config)
        shared = None if config.encoder_vocab_size else self.encoder.embed_tokens
        self.decoder = XformerDecoder(config, embed_tokens=shared)
        self.post_init()

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        # `tie_word_embeddings` speaks of the output layer only: without it the stacks still share their embedding.
        return {} if self.config.encoder_vocab_size else dict(self._tied_weights_keys)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding):
        self.encoder.embed_tokens = value
        if not self.config.encoder_vocab_size:
            self.decoder.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqModelOutput:
        """
        Args:
            input_ids: Source tokens, (B, S); or `inputs_embeds`, (B, S, D); or `encoder_outputs` computed before.
            attention_mask: 1 for the source tokens to attend to, 0 for padding on either side, (B, S). One of four
                dimensions, of either side, stands in the place of blocks and windows too.
            decoder_input_ids: Target tokens so far, (B, T), the start token first; or `decoder_inputs_embeds`.
            decoder_attention_mask: 1 for the target tokens to attend to, cached ones included, (B, past + T). Windows
                and blocks behind a cache count padding between tokens, though not before them.
            decoder_position_ids: Positions of the target tokens, (B, T); counted from the mask when None. Relative
                positions go by the distance in the row instead.
            past_key_values: Keys and values of earlier target tokens and of the source.

        Returns:
            [`~transformers.modeling_outputs.Seq2SeqModelOutput`]; its `last_hidden_state` is (B, T, D).
        """
        kwargs = given(kwargs)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                return_dict=True,
                **kwargs,
            )
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        decoder_outputs = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            position_ids=decoder_position_ids,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            past_key_values=decoder_outputs.past_key_values,
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


class XformerEncoderModel(XformerPreTrainedModel):
    """The encoder alone; loads from any Xformer checkpoint."""

    _keys_to_ignore_on_load_unexpected = [r"^(model\.)?decoder\.", r"^lm_head\."]

    def __init__(self, config: XformerConfig):
        super().__init__(config)
        self.encoder = XformerEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding):
        self.encoder.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Source tokens (B, S), or `inputs_embeds` (B, S, D), to the memory (B, S, D); see [`XformerModel`]."""
        return self.encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            return_dict=True,
            **given(kwargs),
        )


class XformerForSeq2SeqLM(XformerPreTrainedModel, GenerationMixin):
    """The encoder-decoder with its output layer: trains on `labels`, decodes with `generate()`."""

    _tied_weights_keys = {"lm_head.weight": "model.encoder.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: XformerConfig):
        super().__init__(config)
        if config.encoder_vocab_size:
            self._tied_weights_keys = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
        self.model = XformerModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=config.use_final_logits_bias)
        self.output_scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        # By the class's name the library would choose the causal loss, which shifts the labels a second time.
        self.loss_type = "ForMaskedLM"
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqLMOutput:
        """
        Args:
            labels: Target tokens, (B, T), -100 where no loss is wanted. The decoder's input is made from them by
                shifting them right, unless it is given.
            logits_to_keep: Compute logits of the last so many positions, or of the positions in a tensor; 0 for all.
            num_items_in_batch: Divide the summed loss by this many tokens instead of by the labels of this batch, so
                that accumulated steps and several processes weigh every token alike. The Trainer passes it.

        The other arguments are those of [`XformerModel`].

        Returns:
            [`~transformers.modeling_outputs.Seq2SeqLMOutput`]; its `logits` are (B, T, V).
        """
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            decoder_position_ids=decoder_position_ids,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        x = slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep)
        logits = self.lm_head(x * self.output_scale)
        loss = None if labels is None else self.loss_function(logits, labels, logits.shape[-1], **kwargs)
        rest = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return Seq2SeqLMOutput(loss=loss, logits=logits, **rest)

    def save_pretrained(self, save_directory, *, state_dict: dict[str, torch.Tensor] | None = None, **kwargs):
        # What divides a model among processes gives the weights back with a copy for each name of a tied one.
        if state_dict is None and self.is_distributed_loading_by_transformers:
            state_dict = self.state_dict()
        if state_dict is not None:
            copies = self.get_expanded_tied_weights_keys(all_submodels=True)
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in copies}
        # PEFT may have trained a copy of an embedding that was shared, or have found the output layer untied from the
        # source's embedding, which it never was tied to: the config has to say what the weights are now.
        source, target = self.get_encoder().embed_tokens, self.get_decoder().embed_tokens
        if source.weight is not target.weight:
            self.config.encoder_vocab_size = source.num_embeddings
        if getattr(self.lm_head, "weight", None) is target.weight:
            self.config.tie_word_embeddings = True
        super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)

    def prepare_decoder_input_ids_from_labels(self, labels: torch.LongTensor) -> torch.LongTensor:
        """The labels (B, T) shifted right behind the start token, -100 replaced by padding."""
        for name in ("decoder_start_token_id", "pad_token_id"):
            if getattr(self.config, name) is None:
                raise ValueError(f"`config.{name}` is None: the decoder's input cannot be made from labels without it")
        start = labels.new_full((labels.shape[0], 1), self.config.decoder_start_token_id)
        shifted = torch.cat((start, labels[:, :-1]), dim=-1)
        return shifted.masked_fill(shifted == -100, self.config.pad_token_id)

    def prepare_inputs_for_generation(self, input_ids, decoder_attention_mask=None, **kwargs):
        # Counted here because a compiled step sees the mask only after the library has made it four-dimensional.
        if decoder_attention_mask is not None and kwargs.get("decoder_position_ids") is None:
            kwargs["decoder_position_ids"] = count_positions(decoder_attention_mask)
        return super().prepare_inputs_for_generation(
            input_ids, decoder_attention_mask=decoder_attention_mask, **kwargs
        )

    def _valid_auto_compile_criteria(self, *args, **kwargs):
        # The lengths of padded sources, which FlashAttention needs, are not known when a graph is made.
        return not is_flash_attention_requested(self.config) and super()._valid_auto_compile_criteria(*args, **kwargs)

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args, **kwargs):
        # The library gives the decoder's windows to the cross-attention too, which would forget most of the source.
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        cache = model_kwargs.get("past_key_values")
        if isinstance(cache, EncoderDecoderCache) and any(cache.cross_attention_cache.is_sliding):
            config = copy.deepcopy(self.config)
            config.decoder_layer_types = ["full_attention"] * config.decoder_layers
            options = {"config": config, "offloading": cache.cross_attention_cache.offloading}
            if isinstance(cache.cross_attention_cache, StaticCache):
                source_length = model_kwargs["encoder_outputs"][0].shape[1]
                cache.cross_attention_cache = StaticCache(max_cache_len=source_length, **options)
            else:
                cache.cross_attention_cache = DynamicCache(**options)


__all__ = ["XformerEncoderModel", "XformerForSeq2SeqLM", "XformerModel", "XformerPreTrainedModel"]
