# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The encoder-decoder Transformer (Vaswani et al. 2017) as transformers models.

Shapes: B batch, S source, T target, D d_model, V vocabulary.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple, is_tracing

from .configuration_xformer import XformerConfig
from .fusing_xformer import XformerProjecting
from .generation_xformer import XformerGeneration
from .layout_xformer import SOURCE, TARGET, Layout, Packing, packing_of
from .output_xformer import (
    IGNORED,
    XformerOutputLayer,
    check_label_padding,
    check_labels,
    cross_entropy,
    labelled_positions,
    mean_over,
)
from .packing_xformer import check_ids, refuse_beside_segments, shift_right
from .pretrained_xformer import XformerPreTrainedModel
from .stack_xformer import XformerDecoder, XformerEncoder
from .versions_xformer import CACHE, is_divided, slice_logits_to_keep, takes_cache


def given(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Drops arguments that are None: the library would take them for False, not for the config's value."""
    return {name: value for name, value in kwargs.items() if value is not None}


class XformerModel(XformerPreTrainedModel):
    """The encoder and the decoder, with one embedding or one each, without an output layer."""

    _auto_class = "AutoModel"
    # The stacks share one embedding object; the state dict lists it under both.
    _tied_weights_keys = {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}

    def __init__(self, config: XformerConfig):
        super().__init__(config)
        if config.encoder_vocab_size:
            # PEFT reads it, and would put the source's trained tokens into the target's vocabulary.
            self._tied_weights_keys = {}
        self.encoder = XformerEncoder(config)
        shared = None if config.encoder_vocab_size else self.encoder.embed_tokens
        self.decoder = XformerDecoder(config, embed_tokens=shared)
        self.post_init()

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        # `tie_word_embeddings` is about the output layer only: without it the stacks still share their embedding.
        return {} if self.config.encoder_vocab_size else dict(type(self)._tied_weights_keys)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value):
        self.encoder.embed_tokens = value
        if not self.config.encoder_vocab_size:
            self.decoder.embed_tokens = value

    @can_return_tuple
    @takes_cache
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_position_ids: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        cache: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        segment_ids: torch.Tensor | None = None,
        decoder_segment_ids: torch.Tensor | None = None,
        packing: Packing | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqModelOutput:
        """
        Maps source and target tokens to the decoder's hidden states.

        Args:
            input_ids: Source tokens, (B, S); or `inputs_embeds`, (B, S, D); or `encoder_outputs` computed before.
            attention_mask: 1 for the source tokens to attend to, 0 for padding on either side, (B, S). A mask of four
                dimensions, for source or target, replaces blocks and windows too; of the source's, the target attends
                to the tokens to which any token of the source does.
            decoder_input_ids: Target tokens so far, (B, T), the start token first; or `decoder_inputs_embeds`.
            decoder_attention_mask: 1 for the target tokens to attend to, cached ones included, (B, past + T). With a
                cache, windows and blocks count padding between tokens, but not before them.
            decoder_position_ids: Positions of the target tokens, (B, T); counted from the mask when None. Relative
                positions use the distance in the row instead.
            cache: Keys and values of earlier target tokens and of the source; an empty `DynamicCache` becomes that of
                the target. Up to transformers 5.23 it is called `past_key_values`.
            segment_ids, decoder_segment_ids: For packed rows, which hold several pairs one after another: the number
                of each token's pair, from 1 on, 0 for padding, (B, S) and (B, T). Pairs do not attend to each other,
                and each has positions from 0 on. They replace both attention masks; attention weights and caches are
                refused.
            packing: Layout of the packed rows, from the collator or `make_packing`; made here, which is a wait for a
                GPU, if it is None.

        Returns:
            [`~transformers.modeling_outputs.Seq2SeqModelOutput`]; its `last_hidden_state` is (B, T, D).
        """
        options = given(kwargs) | {"return_dict": True}
        if segment_ids is not None:
            weights = options.get("output_attentions", self.config.output_attentions)
            refuse_beside_segments(output_attentions=weights, decoder_position_ids=decoder_position_ids)
            check_ids(SOURCE, segment_ids, input_ids, inputs_embeds)
            check_ids(TARGET, decoder_segment_ids, decoder_input_ids, decoder_inputs_embeds)
        packing = packing_of(packing, segment_ids, decoder_segment_ids)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                segment_ids=segment_ids,
                packing=packing,
                **options,
            )
        if not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        decoder_outputs = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            position_ids=decoder_position_ids,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            cache=cache,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            segment_ids=decoder_segment_ids,
            encoder_segment_ids=segment_ids,
            packing=packing,
            **options,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            **{CACHE: getattr(decoder_outputs, CACHE)},
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


class XformerEncoderModel(XformerPreTrainedModel):
    """The encoder alone; loads from any Xformer checkpoint."""

    _auto_class = "AutoModelForTextEncoding"
    _keys_to_ignore_on_load_unexpected = [r"^(model\.)?decoder\.", r"^lm_head\."]

    def __init__(self, config: XformerConfig):
        super().__init__(config)
        self.encoder = XformerEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value):
        self.encoder.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
        packing: Packing | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Source tokens (B, S), or `inputs_embeds` (B, S, D), to the memory (B, S, D); see [`XformerModel`]."""
        return self.encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            segment_ids=segment_ids,
            packing=packing,
            return_dict=True,
            **given(kwargs),
        )


class XformerForSeq2SeqLM(XformerGeneration, XformerProjecting, XformerPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The encoder-decoder with its output layer: trains on `labels`, decodes with `generate()`."""

    _auto_class = "AutoModelForSeq2SeqLM"
    _tied_weights_keys = {"lm_head.weight": "model.encoder.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    joint = (("lm_head",),)

    def __init__(self, config: XformerConfig):
        super().__init__(config)
        if config.encoder_vocab_size:
            self._tied_weights_keys = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
        self.model = XformerModel(config)
        self.lm_head = XformerOutputLayer(config.d_model, config.vocab_size, bias=config.use_final_logits_bias)
        self.output_scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        # From the class's name the library would choose the causal loss, which shifts the labels a second time.
        self.loss_function = cross_entropy
        self.post_init()

    @can_return_tuple
    @takes_cache
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_position_ids: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        cache: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        segment_ids: torch.Tensor | None = None,
        decoder_segment_ids: torch.Tensor | None = None,
        packing: Packing | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        output_logits: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqLMOutput:
        """
        Maps source and target tokens to logits; given labels, also or only to the loss.

        Args:
            labels: Target tokens, (B, T), -100 where no loss is wanted. Unless the decoder's input is given, it is the
                labels shifted right, in packed rows within each pair, and no other row may begin with -100. In
                training the loss is smoothed by `config.label_smoothing`.
            logits_to_keep: Compute logits of the last so many positions, or of the positions in a tensor; 0 for all.
                Refused beside labels, which have a token for every position.
            output_logits: Return logits. None means yes, except in training on labels: there the loss is computed in
                pieces, at labelled positions only, and the logits of a batch never exist at once.
            num_items_in_batch: Divide the summed loss by this number of tokens instead of by the labels of this batch,
                so that accumulated steps and several processes weigh every token alike. The Trainer passes it.

        The other arguments are those of [`XformerModel`].

        Returns:
            [`~transformers.modeling_outputs.Seq2SeqLMOutput`]; its `logits` are (B, T, V), or None.
        """
        logits_to_keep = 0 if logits_to_keep is None else logits_to_keep
        if labels is not None:
            use_cache = False
            check_labels(labels, self.config.vocab_size)
            if not isinstance(logits_to_keep, int) or logits_to_keep:
                raise ValueError(
                    "`labels` are for all positions, and `logits_to_keep` leaves some out: give one of them"
                )
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                if decoder_segment_ids is None:
                    check_label_padding(labels)
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels, decoder_segment_ids)
        elif decoder_input_ids is None and decoder_inputs_embeds is None:
            raise ValueError("give `labels`, for a loss, or `decoder_input_ids`, the target's tokens so far")
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            decoder_position_ids=decoder_position_ids,
            encoder_outputs=encoder_outputs,
            cache=cache,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            segment_ids=segment_ids,
            decoder_segment_ids=decoder_segment_ids,
            packing=packing,
            return_dict=True,
            **kwargs,
        )
        x = slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep)
        x = x if self.output_scale == 1.0 else x * self.output_scale
        loss = logits = None
        if labels is None or self.returns_logits(output_logits):
            (logits,) = self.project(x, "lm_head")
        if labels is not None:
            loss = self.loss_of(x, logits, labels, packing, **kwargs)
        rest = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return Seq2SeqLMOutput(loss=loss, logits=logits, **rest)

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Sets the output layer; a plain linear one, as resizing makes it, gives its weights to the one there is."""
        if type(new_embeddings) is not nn.Linear or not isinstance(self.lm_head, XformerOutputLayer):
            self.lm_head = new_embeddings
            return
        self.lm_head.weight, self.lm_head.bias = new_embeddings.weight, new_embeddings.bias
        self.lm_head.out_features = new_embeddings.out_features

    def returns_logits(self, output_logits: bool | None) -> bool:
        """True if a loss comes with logits: on demand, in evaluation, and where it is computed from them."""
        # The output layer may be an adapter's, quantised or divided among processes; the loss may be another.
        is_own = isinstance(self.lm_head, XformerOutputLayer) and self.loss_function is cross_entropy
        needed = not is_own or is_divided(self)
        return needed or (not self.training if output_logits is None else output_logits)

    def loss_of(
        self,
        x: torch.Tensor,
        logits: torch.Tensor | None,
        labels: torch.Tensor,
        packing: Packing | None = None,
        **kwargs,
    ) -> torch.Tensor:
        smoothing = self.config.label_smoothing if self.training else 0.0
        if logits is not None:
            return self.loss_function(logits, labels, logits.shape[-1], label_smoothing=smoothing, **kwargs)
        x, labels = x.flatten(0, 1), labels.flatten().to(x.device)
        # The number of labelled positions is not known while a graph is made.
        if not is_tracing(labels):
            index = labelled_positions(labels) if packing is None else Layout(packing).labelled(labels)
            if index is not None:
                x, labels = x.index_select(0, index), labels.index_select(0, index)
        return mean_over(self.lm_head(x, labels, smoothing), labels, kwargs.get("num_items_in_batch"))

    def save_pretrained(  # type: ignore[override]
        self, save_directory, is_main_process: bool = True, state_dict: dict | None = None, *args, **kwargs
    ):
        """
        Saves the model as every model of the library does, with the same arguments.

        Raises:
            ValueError: The config says otherwise than the weights which embeddings are shared, so that some would be
                lost.
        """
        if not self.has_adapter():  # then the adapter alone is saved
            self.check_embeddings()
        # Divided among processes, a model gives its weights back with a copy for each name of a tied one.
        if state_dict is None and is_divided(self):
            state_dict = self.state_dict()
        if state_dict is not None:
            copies = self.get_expanded_tied_weights_keys(all_submodels=True)
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in copies}
        super().save_pretrained(save_directory, is_main_process, state_dict, *args, **kwargs)

    def get_submodule(self, target: str) -> nn.Module:
        # PEFT asks for the source's embedding by this name of BERT's, and else guesses: it takes the weight that has
        # as many rows as `vocab_size`, which of two vocabularies is the target's.
        if target == "embeddings.word_embeddings":
            return self.get_input_embeddings()
        return super().get_submodule(target)

    def has_adapter(self) -> bool:
        """Returns whether `add_adapter` or `load_adapter` of the library has given the model an adapter."""
        with suppress(ValueError):  # there is none, or no PEFT
            return bool(self.active_adapters())
        return False

    def embeddings_as_they_are(self) -> dict[str, Any]:
        """The config's fields that say which embeddings are shared, read from the weights."""
        source, target = self.get_encoder().embed_tokens, self.get_decoder().embed_tokens
        is_separate = source.weight is not target.weight
        return {
            "encoder_vocab_size": source.num_embeddings if is_separate else None,
            "tie_word_embeddings": getattr(self.lm_head, "weight", None) is target.weight,
        }

    def match_config_to_embeddings(self) -> None:
        """
        Makes the config say which embeddings are shared: call it after `merge_and_unload()`.

        PEFT may have trained a copy of a shared embedding, and it calls the output layer untied if it does not share
        the encoder's embedding.
        """
        self.config.update(self.embeddings_as_they_are())

    def check_embeddings(self) -> None:
        """
        Checks that the config says which embeddings the weights share.

        Raises:
            ValueError: The stacks do not share an embedding though the config says so, or the output layer shares one
                though the config does not.
        """
        for field, value in self.embeddings_as_they_are().items():
            if value and not (said := getattr(self.config, field)):
                raise ValueError(
                    f"the weights are those of `{field}={value}`, the config says {said}, as after merging by PEFT: "
                    "call `model.match_config_to_embeddings()` before saving, or trained weights would be lost"
                )

    def prepare_decoder_input_ids_from_labels(
        self, labels: torch.Tensor, segment_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Shifts labels (B, T) right behind the start token, in packed rows that of each segment, and replaces -100 by
        padding.
        """
        if self.config.decoder_start_token_id is None or self.config.pad_token_id is None:
            name = "decoder_start_token_id" if self.config.decoder_start_token_id is None else "pad_token_id"
            raise ValueError(f"`config.{name}` is None: the decoder's input cannot be made from labels without it")
        check_labels(labels)
        shifted = shift_right(labels, segment_ids, self.config.decoder_start_token_id)
        return shifted.masked_fill(shifted == IGNORED, self.config.pad_token_id)


__all__ = ["XformerEncoderModel", "XformerForSeq2SeqLM", "XformerModel", "XformerPreTrainedModel"]
