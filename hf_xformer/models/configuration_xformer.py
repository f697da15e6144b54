# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`XformerConfig`: every option of an encoder-decoder Transformer, typed and validated.

The names are BART's if BART has one, else T5Gemma's or Llama's.
"""

from .versions_xformer import CACHE  # isort: skip - first: it says which libraries are too old

import json
from collections.abc import Mapping
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_rope_utils import RopeParameters

from .fields_xformer import (
    MOST,
    MOST_OF,
    MOST_POSITIONS,
    ROPE_CHANGING,
    check_rope,
    check_whole,
    check_without_fields,
    shown,
    types_of_depths,
    warn_of_ignored,
)


LayerType = Literal["full_attention", "chunked_attention", "sliding_attention"]

POSITIVE_FIELDS = (
    "vocab_size",
    "encoder_vocab_size",
    "d_model",
    "encoder_layers",
    "decoder_layers",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "norm_eps",
    "attention_multiplier",
    "max_position_embeddings",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "block_size",
    "initializer_range",
    "format_version",
)
# Fields that `to_dict` leaves out if they are None; a file has them.
LEFT_OUT = ("num_key_value_heads",)
TOKEN_ID_FIELDS = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")
PROBABILITY_FIELDS = ("dropout", "attention_dropout", "activation_dropout", "label_smoothing")

# Version of the fields' meaning and of the weights' names. Code refuses checkpoints of a later version than its own.
FORMAT_VERSION = 1
# The class for each Auto class, in the files of a checkpoint's folder, for users without this package.
AUTO_MAP = {
    "AutoConfig": "configuration_xformer.XformerConfig",
    "AutoModel": "modeling_xformer.XformerModel",
    "AutoModelForSeq2SeqLM": "modeling_xformer.XformerForSeq2SeqLM",
    "AutoModelForTextEncoding": "modeling_xformer.XformerEncoderModel",
}
OWN_MODULES = {name.split(".")[0] for name in AUTO_MAP.values()}


def classes_of_others(auto_map: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of an `auto_map` that name a user's own classes and not those of this code, here or in a repository."""
    if not isinstance(auto_map, Mapping):
        raise ValueError(f"`auto_map` names a class for each Auto class, got {shown(auto_map)}")
    modules = {name: str(value).split("--")[-1].split(".")[0] for name, value in auto_map.items()}
    return {name: value for name, value in auto_map.items() if modules[name] not in OWN_MODULES}


@strict
class XformerConfig(PreTrainedConfig):
    r"""
    Configuration of [`XformerModel`] and [`XformerForSeq2SeqLM`].

    Args:
        vocab_size: Size of the target vocabulary; also the source's unless `encoder_vocab_size` is set.
        encoder_vocab_size: Size of a separate source vocabulary: the encoder then has an embedding of its own.
        d_model: Width of the residual stream; `hidden_size` is an alias.
        encoder_layers, decoder_layers: Depths; they may differ. `num_hidden_layers` is the decoder's.
        encoder_attention_heads, decoder_attention_heads: Query heads. Cross-attention has the decoder's.
        num_key_value_heads: Key and value heads of both stacks (grouped-query attention); None means one for each
            query head.
        head_dim: Width of a head; None means `d_model` / heads.
        encoder_ffn_dim, decoder_ffn_dim: Inner widths of the feed-forward sublayers.
        activation_function: A name in transformers' `ACT2FN`.
        gated_ffn: `down(act(gate(x)) * up(x))` (Shazeer 2020) instead of `down(act(up(x)))`.
        norm_type: "rmsnorm" (Zhang and Sennrich 2019) or "layernorm".
        norm_position: "pre" (`x + f(norm(x))`, with a norm at the end of each stack), "post" (`norm(x + f(x))`,
            Vaswani et al. 2017) or "sandwich" (`x + norm(f(norm(x)))`, Ding et al. 2021; T5Gemma).
        norm_eps: Epsilon of every norm.
        use_bias: Biases in every projection of attention and feed-forward; the output layer has none.
        qk_norm: RMSNorm on the queries and keys of self-attention, a head at a time (Henry et al. 2020).
        attention_multiplier: Factor of the attention scores; None means 1 / sqrt(head width). T5 has 1.
        position_embedding_type: "rope", "sinusoidal", "learned", "relative" (T5's buckets, added to the scores of
            self-attention) or "none".
        rope_parameters: transformers' dictionary of rotary parameters, such as
            `{"rope_type": "default", "rope_theta": 10000.0}`.
        max_position_embeddings: Longest sequence, in tokens, of either side. Sinusoidal and learned positions end
            there; rotary ones only use it as a scale, and relative ones not at all. In the decoder the rope type
            "dynamic" ends there, and "longrope" at its `original_max_position_embeddings`.
        relative_attention_num_buckets: Number of classes of distances that relative positions distinguish.
        relative_attention_max_distance: Distance in tokens from which on all distances share a bucket.
        relative_attention_per_layer: True if each layer has its own table of relative positions, as in UMT5; False if
            the layers of a stack share one, as in T5.
        encoder_layer_types, decoder_layer_types: One name for each layer: "full_attention"; "chunked_attention",
            within blocks; or "sliding_attention", within a window. Time and memory of the latter two grow with the
            length and not with its square. Cross-attention is always full. None means full attention in every layer.
        block_size: Number of tokens w of a block or window: with a window, the encoder attends to w tokens before and
            w after a token, the decoder to w tokens including the token itself. `attention_chunk_size` and
            `sliding_window` are aliases.
        block_shift: Shift the blocks of every second chunked layer of the encoder by half a block, so that information
            crosses their borders.
        num_global_tokens: Number of leading tokens of the source that attend to all of it and that all tokens attend
            to, in the encoder's chunked and sliding layers. Full layers ignore it.
        dropout: Probability of dropping an element of the embedded input and of each sublayer's output.
        attention_dropout: The same for attention weights.
        activation_dropout: The same for the inner activations of the feed-forward sublayers.
        scale_embedding: Multiply the embeddings by sqrt(`d_model`).
        freeze_pad_embedding: Start the padding token's embedding at zero and give it no gradient as an input. In T5,
            whose decoder starts with it, it learns.
        layernorm_embedding: A norm after the embeddings, as in BART.
        use_final_logits_bias: A bias on the logits, as in BART and Marian.
        scale_decoder_outputs: Multiply the decoder's output by 1 / sqrt(`d_model`) before the output layer, as in T5.
        label_smoothing: Share of each label that is spread over the vocabulary (Szegedy et al. 2016), in training
            only: the loss in evaluation is that of the labels as they are.
        tie_word_embeddings: The output layer shares the decoder's embedding. Without `encoder_vocab_size` both stacks
            share one `nn.Embedding` in either case.
        initializer_range: Standard deviation of the normal distribution from which every matrix is drawn.
        use_cache: The decoder returns keys and values for the next step.
        format_version: Version of the checkpoint that the config belongs to; see `FORMAT_VERSION`.

    Raises:
        StrictDataclassError: A field has the wrong type or is out of range; the message names the field and its value.

    ```python
    >>> from hf_xformer import XformerConfig, XformerForSeq2SeqLM
    >>> config = XformerConfig(vocab_size=100, d_model=64, encoder_layers=2, decoder_layers=2)
    >>> model = XformerForSeq2SeqLM(config)
    ```
    """

    model_type = "xformer"
    # With this the library copies the travelling files into whatever folder it saves to.
    _auto_class = "AutoConfig"
    keys_to_ignore_at_inference = [CACHE, "encoder_last_hidden_state"]
    # `generate` sizes its caches and masks by the standard names: they are the decoder's here.
    attribute_map = {
        "hidden_size": "d_model",
        "num_hidden_layers": "decoder_layers",
        "num_attention_heads": "decoder_attention_heads",
        "layer_types": "decoder_layer_types",
        "attention_chunk_size": "block_size",
        "sliding_window": "block_size",
    }
    # Tensor parallelism of a stack: each process has some whole heads and some inner features. The norms of queries
    # and keys see the heads of one process, so that their gradients have to be summed.
    base_model_tp_plan = {
        "positions.table.weight": "embedding_colwise",
        "positions.table": "local_params",
        "layers.*.self_attention.q_proj": "colwise",
        "layers.*.self_attention.k_proj": "colwise",
        "layers.*.self_attention.v_proj": "colwise",
        "layers.*.self_attention.q_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attention.k_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attention.o_proj": "rowwise",
        "layers.*.cross_attention.q_proj": "colwise",
        "layers.*.cross_attention.k_proj": "colwise",
        "layers.*.cross_attention.v_proj": "colwise",
        "layers.*.cross_attention.o_proj": "rowwise",
        "layers.*.feed_forward.gate_proj": "colwise",
        "layers.*.feed_forward.up_proj": "colwise",
        "layers.*.feed_forward.down_proj": "rowwise",
    }

    vocab_size: int = 32000
    encoder_vocab_size: int | None = None
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    activation_function: str = "silu"
    gated_ffn: bool = True
    norm_type: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_position: Literal["pre", "post", "sandwich"] = "pre"
    norm_eps: float = 1e-6
    use_bias: bool = False
    qk_norm: bool = False
    attention_multiplier: float | int | None = None
    position_embedding_type: Literal["rope", "sinusoidal", "learned", "relative", "none"] = "rope"
    rope_parameters: RopeParameters | dict | None = None
    max_position_embeddings: int = 2048
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    relative_attention_per_layer: bool = False
    encoder_layer_types: list[LayerType] | None = None
    decoder_layer_types: list[LayerType] | None = None
    block_size: int = 64
    block_shift: bool = True
    num_global_tokens: int = 0
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    scale_embedding: bool = True
    freeze_pad_embedding: bool = True
    layernorm_embedding: bool = False
    use_final_logits_bias: bool = False
    scale_decoder_outputs: bool = False
    label_smoothing: float | int = 0.0
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02
    use_cache: bool = True
    is_encoder_decoder: bool = True
    pad_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1
    bos_token_id: int | None = 2
    decoder_start_token_id: int | None = 2
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Makes a config from a file's content; one that was saved with weights must hold all that they depend on."""
        # A field that a later version adds must be left out: older checkpoints do not have it.
        fields = [name for name in XformerConfig.__annotations__ if name not in LEFT_OUT]
        check_whole(config_dict, fields, cls.attribute_map)
        types = types_of_depths(config_dict, kwargs, cls.attribute_map)
        loaded = super().from_dict(config_dict, **kwargs, **types)
        if any(name in kwargs for name in (*cls.__annotations__, *cls.attribute_map)):
            # The library sets them one by one after it has checked the file's.
            (loaded[0] if isinstance(loaded, tuple) else loaded).validate()
        return loaded

    def __post_init__(self, **kwargs):
        check_without_fields(self, kwargs)
        # Filled here and not where it is read: for caches and masks of `generate` None means sliding windows.
        if self.encoder_layer_types is None:
            self.encoder_layer_types = ["full_attention"] * self.encoder_layers
        if self.decoder_layer_types is None and "layer_types" not in kwargs:
            # Aliases are among the keyword arguments until the library's own initialisation.
            self.decoder_layer_types = ["full_attention"] * kwargs.get("num_hidden_layers", self.decoder_layers)
        own = classes_of_others({} if kwargs.get("auto_map") is None else kwargs["auto_map"])
        super().__post_init__(**{**kwargs, "auto_map": AUTO_MAP | own})
        warn_of_ignored(self, kwargs)

    def to_dict(self):
        """Returns the fields, but not `LEFT_OUT` that are None: PEFT's prefix tuning takes them for numbers."""
        return {name: value for name, value in super().to_dict().items() if value is not None or name not in LEFT_OUT}

    def to_json_string(self, use_diff: bool = True) -> str:
        """Returns a file's content, with all fields: earlier versions load no checkpoint that lacks one."""
        content = json.loads(super().to_json_string(use_diff))
        return json.dumps({**dict.fromkeys(LEFT_OUT), **content}, indent=2, sort_keys=True) + "\n"

    def validate_format(self):
        """Refuses a checkpoint of a later version."""
        if self.format_version > FORMAT_VERSION:
            raise ValueError(
                f"`format_version` is {self.format_version}, of a later hf-xformer than this one, which knows up to "
                f"{FORMAT_VERSION}: pip install --upgrade hf-xformer"
            )

    def validate_ranges(self):
        """Refuses numbers that no model can be built from."""
        for name in POSITIVE_FIELDS:
            value, most = getattr(self, name), MOST_OF.get(name, MOST)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {shown(value)}")
            if value is not None and not value <= most:
                raise ValueError(f"`{name}` must be at most {most:,}, got {shown(value)}")
        for name in PROBABILITY_FIELDS:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` is a probability between 0 and 1, got {shown(value)}")
        for name in TOKEN_ID_FIELDS:
            value = getattr(self, name)
            if value == []:
                raise ValueError(f"`{name}` is an empty list: name a token, or null for none")
            for token_id in value if isinstance(value, list) else [value]:
                if token_id is not None and not 0 <= token_id < self.vocab_size:
                    raise ValueError(
                        f"`{name}` must be within the vocabulary of {self.vocab_size}, got {shown(token_id)}"
                    )
        if self.pad_token_id is not None and not self.pad_token_id < (self.encoder_vocab_size or self.vocab_size):
            raise ValueError(
                f"`pad_token_id` must be within the source vocabulary of {self.encoder_vocab_size} too, "
                f"got {self.pad_token_id}"
            )
        if not 0 <= self.num_global_tokens <= MOST:
            problem = "must not be negative" if self.num_global_tokens < 0 else f"must be at most {MOST:,}"
            raise ValueError(f"`num_global_tokens` {problem}, got {shown(self.num_global_tokens)}")
        if self.activation_function not in ACT2FN:
            raise ValueError(
                f"`activation_function` {self.activation_function!r} is unknown; transformers has {', '.join(ACT2FN)}"
            )

    def validate_architecture(self):
        """Refuses numbers that do not fit each other."""
        self.validate_ranges()  # validators are called by the alphabet, and here numbers are divided
        for stack in ("encoder", "decoder"):
            heads, head_dim = self.heads_of(stack)
            if self.head_dim is None and self.d_model % heads:
                raise ValueError(
                    f"`d_model` ({self.d_model}) does not divide by `{stack}_attention_heads` ({heads}), nor is "
                    "`head_dim` set"
                )
            if self.num_key_value_heads is not None and heads % self.num_key_value_heads:
                raise ValueError(
                    f"`{stack}_attention_heads` ({heads}) does not divide by `num_key_value_heads` "
                    f"({self.num_key_value_heads})"
                )
            if self.position_embedding_type == "rope" and head_dim % 2:
                raise ValueError(f"rotary positions turn pairs: the head width must be even, got {head_dim} ({stack})")
            layers, types = getattr(self, f"{stack}_layers"), getattr(self, f"{stack}_layer_types")
            if len(types) != layers:
                raise ValueError(f"`{stack}_layer_types` has {len(types)} entries for {layers} layers: {types}")
        if self.rope_parameters["rope_type"] == "longrope" and self.head_dim is None:
            raise ValueError(
                "`rope_parameters` of rope_type 'longrope' lists a factor a pair: it needs `head_dim` set"
            )
        buckets, distance = self.relative_attention_num_buckets, self.relative_attention_max_distance
        # Half of the buckets of a direction hold one distance each, and the encoder has two directions.
        if buckets < 4 or distance <= buckets // 2:
            raise ValueError(
                f"`relative_attention_num_buckets` must be at least 4, and less than twice "
                f"`relative_attention_max_distance`, got {buckets} and {distance}"
            )
        if self.position_embedding_type == "sinusoidal":
            if self.d_model % 2:
                raise ValueError(f"sinusoidal positions come in pairs: `d_model` must be even, got {self.d_model}")
            if self.d_model * self.max_position_embeddings > MOST_POSITIONS:
                raise ValueError(
                    f"`max_position_embeddings` {self.max_position_embeddings:,} times `d_model` {self.d_model:,} is "
                    f"a table of more than {MOST_POSITIONS:,} numbers: take fewer positions, or rotary ones"
                )

    def validate_encoder_decoder(self):
        """Refuses what the library would take for the config of a decoder alone."""
        if not self.is_encoder_decoder:
            raise ValueError(f"`is_encoder_decoder` must be True, got {self.is_encoder_decoder}")

    def validate_rope(self):
        """Refuses rotary parameters that the library would pass with a warning."""
        check_rope(self.rope_parameters, max(self.heads_of(stack)[1] for stack in ("encoder", "decoder")) // 2)

    def validate_blocks(self):
        """Refuses what block layers cannot be combined with."""
        types = {*self.layer_types_of("encoder"), *self.layer_types_of("decoder")} - {"full_attention"}
        if types and self.position_embedding_type == "relative":
            raise ValueError(
                f"`position_embedding_type='relative'` goes with full attention only, not with {sorted(types)}: "
                "take 'rope'"
            )

    def heads_of(self, stack: str) -> tuple[int, int]:
        """`(query heads, head width)` of the "encoder" or the "decoder"."""
        heads = getattr(self, f"{stack}_attention_heads")
        return heads, self.head_dim or self.d_model // heads

    def layer_types_of(self, stack: str) -> list[str]:
        """The attention of each layer of the "encoder" or the "decoder", a copy."""
        return list(getattr(self, f"{stack}_layer_types"))

    def longest_of(self, stack: str) -> int | None:
        """Tokens of a text that the "encoder" or the "decoder" has positions for; None if there is no limit."""
        if self.position_embedding_type in ("sinusoidal", "learned"):
            return self.max_position_embeddings
        # The frequencies of later tokens would be others, also those of the keys that a decoder's cache holds.
        changes = self.position_embedding_type == "rope" and self.rope_parameters["rope_type"] in ROPE_CHANGING
        return self.rope_unchanged() if changes and stack == "decoder" else None

    def check_length(self, stack: str, length: int) -> None:
        """
        Checks that a stack has positions for a text.

        Raises:
            ValueError: The text has more tokens.
        """
        limit = self.longest_of(stack)
        if limit is None or length <= limit:
            return
        if self.position_embedding_type != "rope":
            raise ValueError(f"{length} tokens do not fit `max_position_embeddings={limit}`")
        raise ValueError(
            f"{length} target tokens do not fit: with rope_type {self.rope_parameters['rope_type']!r} the decoder "
            f"has positions for {limit}, because those of longer texts would change what its cache holds"
        )

    def rope_unchanged(self) -> int:
        """Tokens of a text up to which the frequencies of rotary positions do not depend on its length."""
        if self.rope_parameters["rope_type"] == "longrope":
            return self.rope_parameters["original_max_position_embeddings"]
        return self.max_position_embeddings

    def vocab_of(self, stack: str) -> int:
        """Size of the vocabulary that the "encoder" or the "decoder" reads."""
        return (stack == "encoder" and self.encoder_vocab_size) or self.vocab_size


__all__ = ["XformerConfig"]
