# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Compiled decoding: the step for one token of each row as a graph, and the caches that it writes to.

Shapes: R rows, B sources, S source, T target, C capacity of a cache, G key and value heads, K head width.
"""

import copy
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import FunctionType
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, StaticLayer
from transformers.generation import CompileConfig
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils import logging

from .cache_xformer import XformerCache
from .fusing_xformer import numbers_of_rows
from .varlen_xformer import takes_segments
from .versions_xformer import CACHE, is_divided


logger = logging.get_logger(__name__)

SMALLEST = 16  # capacity of a cache at least, in tokens
MOST_CACHES = 4  # that a GPU keeps, one for each size that its graphs were recorded with

# Arguments of the model that a step has in its cache, or does without.
OF_STEPS = {"attention_mask", "decoder_attention_mask", "encoder_outputs", "use_cache", "logits_to_keep", CACHE}


def bucket(length: int) -> int:
    """Returns the power of two, 16 or more, that has room for a length."""
    return max(SMALLEST, 1 << (length - 1).bit_length())


def source_bucket(length: int, device: torch.device) -> int:
    """Returns the length to which sources are padded: the next multiple of 8, or where graphs have sizes a bucket."""
    return -(-length // 8) * 8 if device.type == "cpu" else bucket(length)


def mark_sizes(tensor: torch.Tensor, *changing: int) -> torch.Tensor:
    """Tells the compiler which sizes of a tensor change from call to call; a size of 1 has a graph of its own."""
    for size in changing:
        if tensor.shape[size] > 1:
            torch._dynamo.mark_dynamic(tensor, size)
    return tensor


def pad_sources(inputs: dict[str, Any]) -> torch.Tensor:
    """
    Pads the encoder's output and its mask, so that sources have few lengths.

    Args:
        inputs: Arguments of the model, which are changed.

    Returns:
        The encoder's output, (B, S, D).
    """
    outputs, mask = inputs["encoder_outputs"], inputs.get("attention_mask")
    memory = outputs[0]
    if mask is None:
        mask = torch.ones(memory.shape[:2], dtype=torch.long)
    extra = source_bucket(memory.shape[1], memory.device) - memory.shape[1]
    memory = nn.functional.pad(memory, (0, 0, 0, extra))
    others = (getattr(outputs, name, None) for name in ("hidden_states", "attentions"))
    inputs["encoder_outputs"] = BaseModelOutput(memory, *others)
    inputs["attention_mask"] = nn.functional.pad(mask.to(memory.device), (0, extra))
    return memory


class GraphLayer(StaticLayer):
    """
    Keys and values of one layer in tensors (R, G, C, K) that graphs read and write.

    On a CPU they have no static address, as the library's have: a compiler that freezes weights takes what has one for
    a weight, and would decode every batch with the keys of the first. On a GPU CUDA graphs need it.

    Args:
        capacity: Tokens that there is room for.
        position: Number of tokens before those that come next, (); all layers have one tensor.
    """

    keys: Any  # tensors, as soon as there are some
    values: Any

    def __init__(self, capacity: int, position: torch.Tensor):
        super().__init__(max_cache_len=capacity)
        self.cumulative_length = position

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.device, self.dtype = key_states.device, key_states.dtype
        sizes = *key_states.shape[:2], self.max_cache_len
        self.keys, self.values = (self.marked(x.new_zeros(*sizes, x.shape[-1])) for x in (key_states, value_states))
        self.is_initialized = True

    def marked(self, x: torch.Tensor) -> torch.Tensor:
        if self.device.type != "cpu":
            torch._dynamo.mark_static_address(x)
        return mark_sizes(x, 0, 2)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        places = torch.arange(key_states.shape[2], device=key_states.device) + self.cumulative_length
        self.keys.index_copy_(2, places, key_states)
        self.values.index_copy_(2, places, value_states)
        return self.keys, self.values

    def grow(self, capacity: int) -> None:
        extra = (0, 0, 0, capacity - self.max_cache_len)
        self.keys, self.values = (self.marked(nn.functional.pad(x, extra)) for x in (self.keys, self.values))
        self.max_cache_len = capacity

    def reorder(self, rows: torch.Tensor, length: int) -> None:
        """Puts rows (R,) in each other's place, in place and as far as they are filled."""
        for x in (self.keys, self.values):
            x[:, :, :length] = x[:, :, :length].index_select(0, rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (self.keys.shape[2] if self.is_initialized else self.max_cache_len), 0

    def get_seq_length(self) -> torch.Tensor:  # type: ignore[override]
        return self.cumulative_length


class GraphCache(XformerCache):
    """
    Cache of a decoder whose steps are graphs, which holds all that a step needs but its tokens.

    Args:
        layers: Number of the decoder's layers.
        sources: Tokens of a source.
        capacity: Tokens of a target that there is room for at first; on a CPU it grows.
    """

    # The library compiles steps that have a cache which can be: these are compiled already.
    is_compileable = False  # type: ignore[assignment]

    memory: Any  # without features, (B, S, 0): the decoder needs its shape alone
    source_mask: Any  # (B, 1, 1, S)
    attended: Any  # the target's tokens to attend to, those to come too, (R, C); None for all
    padding: Any  # number of tokens before each row's first, (R, 1); None for none

    def __init__(self, layers: int, sources: int, capacity: int, device: torch.device):
        self.position = torch.zeros((), dtype=torch.long, device=device)
        self.own, memory = ([GraphLayer(size, self.position) for _ in range(layers)] for size in (capacity, sources))
        super().__init__(Cache(layers=[*self.own]), Cache(layers=[*memory]))
        self.reset()

    def reset(self) -> None:
        """Forgets all tokens; the tensors stay where they are."""
        self.is_updated = dict.fromkeys(range(len(self)), False)
        self.position.zero_()
        self.length = 0
        self.made = self.memory = self.source_mask = self.attended = self.padding = None

    def fill(self, inputs: Mapping[str, Any]) -> None:
        """
        Keeps what the steps need of the call that read the source and the first tokens.

        Args:
            inputs: Arguments of the model in that call.
        """
        self.length = inputs["decoder_input_ids"].shape[1]
        memory = inputs["encoder_outputs"][0]
        self.memory = mark_sizes(memory.new_empty(*memory.shape[:2], 0), 0, 1)
        self.source_mask = mark_sizes(inputs["attention_mask"][:, None, None].bool(), 0, 3)
        if (mask := inputs.get("decoder_attention_mask")) is not None:
            self.padding = mark_sizes(self.length - mask.long().sum(dim=-1, keepdim=True), 0)
            self.attend(mask.bool())

    def attend(self, mask: torch.Tensor) -> None:
        """Sets the tokens to attend to, (R, T): those behind them, which are to come, too."""
        extra = self.own[0].max_cache_len - mask.shape[1]
        self.attended = mark_sizes(nn.functional.pad(mask, (0, extra), value=True), 0, 1)

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """Makes room for one more token of each row, (R, 1), and returns them as a graph wants them."""
        if self.length == (capacity := self.own[0].max_cache_len):
            for layer in self.own:
                layer.grow(2 * capacity)
            if self.attended is not None:
                self.attend(self.attended)
        self.position.fill_(self.length)
        self.length += 1
        # A copy: the last column of one row counts as contiguous, whatever its stride, which a graph goes by.
        return mark_sizes(tokens.clone(memory_format=torch.contiguous_format), 0)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        # The rows of a source have the same prompt.
        for layer in self.own:
            layer.reorder(beam_idx, self.length)


def decoding_step(model: Any, tokens: torch.Tensor, cache: GraphCache) -> torch.Tensor:
    """Maps the last token of each row, (R, 1), to logits of the next, (R, 1, V)."""
    ids = cache.position[None, None] if cache.padding is None else cache.position - cache.padding
    return model.forward(
        encoder_outputs=BaseModelOutput(last_hidden_state=cache.memory),
        attention_mask=cache.source_mask,
        decoder_input_ids=tokens,
        decoder_attention_mask=cache.attended,
        decoder_position_ids=ids,
        **{CACHE: cache},
    ).logits


def copy_of(function: Any) -> Callable:
    """Returns a function with code of its own, by which the compiler keeps graphs, counts and forgets them."""
    return FunctionType(function.__code__.replace(), function.__globals__, function.__name__)


def state_of(model: Any) -> tuple:
    """Returns what changes with the weights: where they are, their versions, and a number of each row."""
    tensors = [*model.parameters(), *model.buffers()]
    places = tuple((x.data_ptr(), x.dtype, 0 if x.is_inference() else x._version) for x in tensors)
    return places, tuple(numbers_of_rows(x).tobytes() for x in tensors if x.numel())


def frozen_weights() -> AbstractContextManager:
    """While a graph is made: its weights become constants, which are packed for the processor."""
    from torch._inductor import config  # takes seconds

    # The option of `torch.compile` comes too late: weights are told from other tensors before it counts.
    return config.patch(freezing=True)


class CompiledDecoding:
    """The compiled step of a model, for as long as its weights are what they were, and the caches that a GPU keeps."""

    def __init__(self):
        self.steps: dict[tuple, Callable] = {}  # by kind of call
        self.state: tuple = ()
        self.is_frozen = False
        self.options: dict[str, Any] = {}
        self.caches: dict[tuple, GraphCache] = {}

    def __reduce__(self):
        return CompiledDecoding, ()  # a copy of the model compiles anew

    def prepare(self, model: Any, config: CompileConfig | None = None) -> None:
        """
        Forgets the graphs of other weights and options.

        Args:
            config: How to compile; by default weights are frozen on a CPU, and a GPU has CUDA graphs.
        """
        options: dict[str, Any] = {"fullgraph": True}
        if config is not None:
            options = {name: value for name, value in vars(config).items() if not name.startswith("_")}
        elif model.device.type != "cpu":
            options["mode"] = "reduce-overhead"
        else:
            # The state below says whether the model is still the one: to look through it takes a tenth of a step.
            options["options"] = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
        is_frozen = model.device.type == "cpu"
        state = state_of(model) if is_frozen else (model.device,)
        if (state, options) == (self.state, self.options):
            return
        if self.state and options == self.options:
            logger.warning("the weights are others than those that decoding was compiled with: it is compiled anew")
        self.state, self.options, self.is_frozen = state, options, is_frozen
        self.steps.clear()
        self.caches.clear()

    def cache(self, model: Any, rows: int, memory: torch.Tensor, most: int) -> GraphCache:
        """
        Returns an empty cache.

        Args:
            rows: Number of them, R. memory: The encoder's output, (B, S, D).
            most: Tokens of the longest target.
        """
        layers, device = model.config.decoder_layers, memory.device
        if device.type == "cpu":
            return GraphCache(layers, memory.shape[1], SMALLEST, device)
        # Graphs are recorded with addresses: what has one size is one cache, of as many tokens as there may be.
        key = (rows, *memory.shape[:2], bucket(most), memory.dtype, torch.is_inference_mode_enabled())
        cache = self.caches.pop(key, None) or GraphCache(layers, memory.shape[1], bucket(most), device)
        while len(self.caches) >= MOST_CACHES:
            del self.caches[next(iter(self.caches))]
        self.caches[key] = cache
        cache.reset()
        return cache

    def __call__(self, model: Any, tokens: torch.Tensor, cache: GraphCache) -> Seq2SeqLMOutput:
        """Maps the last token of each row, (R, 1), to logits of the next."""
        tokens = cache.advance(tokens)
        rows, sources = len(tokens), len(cache.memory)
        kind = (rows > 1, sources > 1, rows > sources, cache.attended is None, torch.is_inference_mode_enabled())
        if kind in self.steps:
            logits = self.steps[kind](model, tokens, cache)
        else:
            # A function for each kind: there are more of them than torch makes graphs of one function. A copy of the
            # options: torch takes out of them what is for Dynamo.
            step = torch.compile(copy_of(decoding_step), **copy.deepcopy(self.options))
            begun = time.perf_counter()
            with frozen_weights() if self.is_frozen else nullcontext():
                logits = step(model, tokens, cache)
            self.steps[kind] = step
            logger.warning(f"compiled for decoding in {time.perf_counter() - begun:.0f} s, once")
        return Seq2SeqLMOutput(logits=logits, **{CACHE: cache})  # type: ignore[arg-type]


def compiler_of_cpu() -> str:
    """Returns the name of the C++ compiler that torch takes."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


def why_not_compiled_on(device: torch.device) -> str | None:
    """Returns why decoding is not compiled for a device on this machine, or None if it is."""
    if device.type not in ("cpu", "cuda"):
        return f"the device is {device.type}, and graphs are made for cpu and cuda"
    if device.type == "cpu" and shutil.which(compiler_of_cpu()) is None:
        return f"there is no C++ compiler {compiler_of_cpu()} on this machine, which a graph for a CPU needs"
    return None


def why_not_compiled(model: Any) -> str | None:
    """Returns why decoding with this model is not compiled, or None if it is."""
    if (reason := why_not_compiled_on(model.device)) is not None:
        return reason
    name = model.config._attn_implementation
    if takes_segments(model.config) or name == "flex_attention":
        return f'attn_implementation="{name}" has masks that no graph of one shape takes: load it with "sdpa"'
    if getattr(model, "hf_quantizer", None) is not None:
        return "the weights are quantised"
    if is_divided(model) or len(set(getattr(model, "hf_device_map", {}).values())) > 1:
        return "the model is divided among devices"
    return "the model is in training mode: call model.eval()" if model.training else None


def why_not_called(config: Any, inputs: Mapping[str, Any]) -> str | None:
    """
    Returns why a call of `generate()` is not compiled, or None if it is.

    Args:
        config: The generation config of the call. inputs: Arguments that it will give the model.
    """
    for name in ("output_attentions", "output_hidden_states", "prefill_chunk_size"):
        if getattr(config, name, None):
            return f"`{name}` is given"
    mask = inputs.get("attention_mask")
    if mask is not None and mask.ndim != 2:
        return "the source's mask is not one of its tokens"
    others = [name for name, value in inputs.items() if value is not None and name not in OF_STEPS]
    return f"`{others[0]}` is given" if others else None
