# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The base class of all Xformer models: what transformers asks of a model, and corrections of what it does."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .configuration_xformer import TOKEN_ID_FIELDS, XformerConfig
from .fusing_xformer import XformerProjecting
from .positions_xformer import XformerComputedPositions
from .varlen_xformer import VARLEN, refusal, unfit_config, why_not_varlen
from .versions_xformer import warn_untested


# So many numbers may be drawn at random where weights are loaded, 1 GiB of float32.
MOST_NEW = 2**28


@contextmanager
def as_its_own_class(model: PreTrainedModel) -> Iterator[None]:
    """Gives a model that FSDP2 divided its own class back for a while: by the class saving finds the code to copy."""
    given = type(model)
    try:
        # FSDP2 makes a class in a module of torch's and puts it in front of the model's.
        model.__class__ = next(each for each in given.__mro__ if not each.__module__.startswith("torch."))
        yield
    finally:
        model.__class__ = given


class XformerPreTrainedModel(PreTrainedModel):
    """Base class of all Xformer models."""

    config: XformerConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["XformerEncoderLayer", "XformerDecoderLayer"]
    # The stacks and layers are called by either name.
    _skip_keys_device_placement = ["cache", "past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(self, config: XformerConfig, *inputs, **kwargs):
        warn_untested()
        super().__init__(config, *inputs, **kwargs)

    @property
    def _supports_flash_attn(self) -> bool:  # type: ignore[override]
        return unfit_config(self.config) is None

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """
        Checks the attention that a model is made with or given.

        Raises:
            ValueError: The model or the machine cannot have it.
        """
        if requested_attention == VARLEN and (reason := why_not_varlen(self.config)) is not None:
            raise ValueError(refusal(reason))
        return super().get_correct_attn_implementation(requested_attention, is_init_check)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        # `from_pretrained` leaves buffers uninitialised that no checkpoint holds.
        if isinstance(module, XformerComputedPositions):
            module.initialise()

    def init_parallel_plans(self):
        super().init_parallel_plans()
        # The config has one plan for all stacks and options: a model keeps the rules that it has modules for.
        names = {name for name, _ in (*self.named_modules(), *self.named_parameters())}
        names = {re.sub(r"\.\d+(?=\.|$)", ".*", name) for name in names}  # "layers.0." is "layers.*." in a plan
        for plan in filter(None, (self.tp_plan, self.fsdp_plan)):
            for rule in plan.keys() - names:
                del plan[rule]

    def post_init(self):
        super().post_init()
        # Tied weights are saved once: the Trainer would warn at every resume that the others are missing.
        self._keys_to_ignore_on_save = {*(self._keys_to_ignore_on_save or ()), *self.all_tied_weights_keys}

    def save_pretrained(self, *args, **kwargs):
        # A tensor of its own that somebody has put in a tied one's place would be lost. (In parts, none is another.)
        if not self.tp_size:
            tensors = dict(self.named_parameters(remove_duplicate=False))
            self.untie({a for a, b in self.all_tied_weights_keys.items() if tensors.get(a) is not tensors.get(b)})
        with as_its_own_class(self):
            super().save_pretrained(*args, **kwargs)

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True):
        super().tie_weights(missing_keys, recompute_mapping)
        if missing_keys is not None:  # weights are loaded: a file may have a tensor of its own for each of two names
            self.untie(self.get_expanded_tied_weights_keys(all_submodels=True).keys() - self.all_tied_weights_keys)

    def untie(self, names: set[str]) -> None:
        """Records that weights are no longer those of another name, as the configuration has it."""
        self._keys_to_ignore_on_save = set(self._keys_to_ignore_on_save or ()) - names
        if "lm_head.weight" in names:
            self.config.tie_word_embeddings = False  # else the next `tie_weights` would drop the output layer's own

    def mark_tied_weights_as_initialized(self, loading_info):
        # The library marks tied tensors as loaded, for models outside it even those that no file has.
        missing = set(loading_info.missing_keys)
        self.refuse_random_weights(missing | {name for name, *_ in loading_info.mismatched_keys})
        super().mark_tied_weights_as_initialized(loading_info)
        loading_info.missing_keys |= {name for name in missing if self.get_parameter_or_buffer(name).is_meta}

    def refuse_random_weights(self, names: set[str]):
        """Refuses tensors that no file holds before memory is taken for them, if they dwarf those that one holds."""
        sizes = {name: each.numel() for name, each in self.named_parameters()}
        new = sum(sizes.get(name, 0) for name in names)
        if new > MOST_NEW and new > 100 * (sum(sizes.values()) - new):
            raise ValueError(
                f"{new:,} numbers of this config's model, such as {min(names)}, are in no weight file: the sizes in "
                "config.json are not those of the weights"
            )

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """
        Resizes the vocabulary, as in every model of the library; with a separate source vocabulary, both at once.

        Raises:
            ValueError: The vocabularies differ in size, so that one number cannot be the new size of both; or a token
                that the config names would be cut off.
        """
        options: dict[str, Any] = {"pad_to_multiple_of": pad_to_multiple_of, "mean_resizing": mean_resizing}
        source_size, target_size = self.config.encoder_vocab_size, self.config.vocab_size
        changes_two = source_size is not None and (new_num_tokens is not None or pad_to_multiple_of is not None)
        if changes_two and source_size != target_size:
            raise ValueError(
                f"cannot resize vocabularies of {source_size} and {target_size} tokens at once: call "
                "model.resize_encoder_token_embeddings(...) for the source's or "
                "model.resize_decoder_token_embeddings(...) for the target's"
            )
        self.check_kept(new_num_tokens, TOKEN_ID_FIELDS)
        if changes_two and (decoder := getattr(self.base_model, "decoder", None)):
            decoder.resize_token_embeddings(new_num_tokens, **options)
        embedding = super().resize_token_embeddings(new_num_tokens, **options)
        if changes_two:
            self.config.encoder_vocab_size = self.config.vocab_size
        return embedding

    def resize_encoder_token_embeddings(
        self, new_num_tokens: int, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """
        Resizes a source vocabulary of its own and nothing else; the arguments are those of `resize_token_embeddings`.

        Raises:
            ValueError: There is one vocabulary, or it would lose the padding token.
        """
        self.check_two_vocabularies()
        self.check_kept(new_num_tokens, ("pad_token_id",))
        encoder, target_size = self.get_encoder(), self.config.vocab_size
        embedding = PreTrainedModel.resize_token_embeddings(encoder, new_num_tokens, pad_to_multiple_of, mean_resizing)
        # The library writes the size of any embedding there.
        self.config.encoder_vocab_size, self.config.vocab_size = embedding.num_embeddings, target_size
        return embedding

    def resize_decoder_token_embeddings(
        self, new_num_tokens: int, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """
        Resizes a target vocabulary of its own, as in Marian: the decoder's embedding and the output layer.

        Raises:
            ValueError: There is no decoder or one vocabulary, or it would lose a token that the config names.
        """
        self.stack_of("decoder")
        self.check_two_vocabularies()
        self.check_kept(new_num_tokens, TOKEN_ID_FIELDS)
        encoder, decoder = self.get_encoder(), self.get_decoder()
        source = encoder.embed_tokens
        # The library resizes the embedding that it finds in the encoder, and the output layer with it.
        encoder.embed_tokens = decoder.embed_tokens
        try:
            super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
            decoder.embed_tokens = encoder.embed_tokens
        finally:
            encoder.embed_tokens = source
        self.tie_weights()
        return decoder.embed_tokens

    def check_two_vocabularies(self) -> None:
        if self.config.encoder_vocab_size is None:
            raise ValueError("source and target share one vocabulary: call model.resize_token_embeddings(...)")

    def check_kept(self, size: int | None, fields: Iterable[str]) -> None:
        """Checks that a vocabulary of this size has the tokens that the config names; raises ValueError."""
        if size is not None and not isinstance(size, Integral):
            raise ValueError(f"a vocabulary's size must be a whole number of tokens, got {size!r}")
        for name in fields:
            value = getattr(self.config, name)
            for token in value if isinstance(value, list) else [value]:
                if size is not None and token is not None and token >= size:
                    raise ValueError(f"a vocabulary of {size} tokens would lose `{name}`, {token}")

    def keep_layers(self, encoder: Sequence[int] | None = None, decoder: Sequence[int] | None = None) -> None:
        """
        Takes layers out of a stack, all but those whose numbers are given, and out of the config.

        Each keeps its type of attention. Among the encoder's layers in blocks every second one shifts its blocks, as
        in any model: of those that are left.

        Args:
            encoder, decoder: Numbers of the layers to keep, from 0 on and in order, such as [0, 2, 5]; None for all.

        Raises:
            ValueError: There are no such layers, or there is no decoder; then nothing is changed.
        """
        given = (("encoder", encoder), ("decoder", decoder))
        stacks = [(self.stack_of(name), kept) for name, kept in given if kept is not None]
        for stack, kept in stacks:
            stack.check_layers(kept)
        for stack, kept in stacks:
            stack.take_layers(kept)

    def fuse_projections(self) -> None:
        """
        Makes decoding faster: linear layers of one input become one product, on a CPU with weights packed for it.

        The layers, the state dict and what is saved stay as they are; the joined and packed weights are copies, which
        take about as much memory as the layers on a CPU and half of it elsewhere. They serve where no gradients are
        computed, and are made anew when a parameter has changed. Changes of `parameter.data`, such as a merge of
        adapters, are looked for on a CPU: in each row before `generate`, in some rows before every product. Off the
        CPU, or after a change of a few numbers: call this again. A layer that has got hooks, of offloading or pruning
        for example, multiplies by itself again.
        """
        for module in self.projecting_modules():
            module.join_products()

    def renew_products(self) -> None:
        """Makes the products of `fuse_projections` anew whose layers have changed without a trace."""
        for module in self.projecting_modules():
            for product in module.products.values():
                product.renew()

    def split_projections(self) -> None:
        """Undoes `fuse_projections`."""
        for module in self.projecting_modules():
            module.forget_products()

    def projecting_modules(self) -> Iterator[XformerProjecting]:
        """Yields the modules whose linear layers can become products."""
        return (module for module in self.modules() if isinstance(module, XformerProjecting))

    def stack_of(self, name: str) -> Any:
        """Returns the "encoder" or the "decoder"; raises ValueError if the model has none."""
        stack = self.get_encoder() if name == "encoder" else getattr(self.base_model, name, None)
        if stack is None:
            raise ValueError(f"{type(self).__name__} has no {name}")
        return stack
