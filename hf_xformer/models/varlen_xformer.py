# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Attention within segments of variable lengths, as the kernels of FlashAttention take it.

`attn_implementation="varlen"` calls torch's own kernel, for which nothing need be installed. For a kernel all rows are
one sequence of tokens, cut into segments at borders: texts or their blocks, and the padding between them. The borders
of padded rows are computed on the device, as many for every batch of one shape: nothing waits for the device, and no
token is gathered.

Shapes: B rows, T queries, S keys, H query heads, G key and value heads, K head width, N segments, n of each row.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.utils import logging
from transformers.utils.generic import is_flash_attention_requested

from .configuration_xformer import XformerConfig
from .masks_xformer import AttentionMask, Mask, Part, Result, WholeMask


varlen_attn: Any
try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.11
    varlen_attn = None

logger = logging.get_logger(__name__)

VARLEN = "varlen"
# Devices, types and GPUs that the kernel supports.
KERNEL_DEVICE, KERNEL_DTYPES, OLDEST_GPU = "cuda", (torch.float16, torch.bfloat16), (8, 0)


def grouped_heads(kernel: Callable | None) -> dict[str, bool]:
    """Returns the argument by which a kernel is told of fewer key heads than query heads; torch 2.11's has none."""
    is_told = kernel is not None and "enable_gqa" in inspect.signature(kernel).parameters
    return {"enable_gqa": True} if is_told else {}


GROUPED = grouped_heads(varlen_attn)


def takes_segments(config: XformerConfig) -> bool:
    """Returns True if the backend is a kernel for variable lengths: torch's own, or one of FlashAttention's."""
    return config._attn_implementation == VARLEN or is_flash_attention_requested(config)


class VariableLengthMask(NamedTuple):
    """
    Attention within segments: a query attends to the keys of its own segment, by the kernel causally or in a window.

    There are no weights. A side of a segment may be empty.
    """

    rows: int  # B
    query_borders: torch.Tensor  # from 0 to B * T, (N + 1,), int32
    key_borders: torch.Tensor  # from 0 to B * S, (N + 1,), int32
    max_queries: int  # no segment has more
    max_keys: int
    order: torch.Tensor | None = None  # puts the attended keys of a row first, (B, S); None where they are contiguous

    def split(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, position_bias: torch.Tensor | None = None
    ) -> Iterable[Part]:
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))  # (B, T, H, K), (B, S, G, K) twice
        k, v = reorder(k, self.order), reorder(v, self.order)
        q, k, v = (y.flatten(0, 1).transpose(0, 1)[None] for y in (q, k, v))  # (1, H, B * T, K), (1, G, B * S, K)
        # Under the names by which transformers takes them for FlashAttention.
        borders = {
            "cu_seq_lens_q": self.query_borders,
            "cu_seq_lens_k": self.key_borders,
            # With 1 and grouped key heads the kernel expects exactly one query in every segment.
            "max_length_q": max(self.max_queries, 2),
            "max_length_k": self.max_keys,
        }
        return (Part(q, k, v, None, borders),)

    def join(self, results: Iterator[Result]) -> Result:
        x, _ = next(results)  # (1, B * T, H * K)
        return x.unflatten(1, (self.rows, -1)).squeeze(0), None


def segments_within(
    tokens: torch.Tensor,
    attended: torch.Tensor | None,
    cache: Cache | None = None,
    layer: int = 0,
    size: int = 0,
    shift: int = 0,
) -> VariableLengthMask:
    """
    Returns the mask of self-attention: each row's text, or its blocks, and the padding on either side.

    Args:
        tokens: Any features of the queries, (B, T, ...), the last ones of their rows.
        attended: 1 for the tokens to attend to, (B, past + T), those in the cache included; None for all.
        cache: Keys before the queries. layer: One whose keys are kept as those of all layers with this mask.
        size: Blocks of so many tokens from a text's first one on; 0 for none. shift: Tokens of the first block, if not
            so many.
    """
    rows, queries = tokens.shape[:2]
    past, keys, first = 0, queries, 0
    if cache is not None:
        # The number of earlier tokens may be a tensor; the first key in the cache may be a later token than the row's.
        past, (keys, first) = cache.get_seq_length(layer), cache.get_mask_sizes(queries, layer)
    if attended is None:
        start = torch.zeros(rows, 1, dtype=torch.long, device=tokens.device)
        end = start + past + queries
    else:
        start, end = text_of(attended.to(tokens.device))
    key_borders = borders(start - first, end - first, keys, size, shift)
    query_borders = (key_borders + first - past).clamp(0, queries)
    max_queries, max_keys = (min(size, length) if size else length for length in (queries, keys))
    query_borders, key_borders = through_rows(query_borders, queries), through_rows(key_borders, keys)
    return VariableLengthMask(rows, query_borders, key_borders, max_queries, max_keys)


def segments_across(attended: torch.Tensor, queries: int, has_holes: bool = False) -> VariableLengthMask:
    """
    Returns the mask of attention to other rows: all queries of a row attend to its text, none to its padding.

    Args:
        attended: The keys to attend to are 1, (B, S). queries: Their number in every row, T.
        has_holes: Padding may stand between attended keys too: the keys are put into another order.
    """
    (rows, keys), order = attended.shape, None
    if has_holes:
        order = attended.byte().argsort(dim=1, descending=True, stable=True)
        end = attended.sum(dim=1, keepdim=True)
        start = torch.zeros_like(end)
    else:
        start, end = text_of(attended)
    key_borders = borders(start, end, keys)
    query_borders = torch.arange(4, device=attended.device) // 2 * queries  # 0, 0, T, T
    query_borders = through_rows(query_borders.expand(rows, -1), queries)
    return VariableLengthMask(rows, query_borders, through_rows(key_borders, keys), queries, keys, order)


def text_of(attended: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Returns the first attended token of each row and the one behind the last, (B, 1) twice.

    Args:
        attended: 1 for tokens to attend to, (B, S), which stand together. Whether they do is checked on their device,
            where an assertion fails, later, if they do not.

    Raises:
        ValueError: The mask is not one of tokens.
    """
    if attended.ndim != 2:
        raise ValueError(
            f"kernels for variable lengths take a mask of tokens, of 2 dimensions and not of {attended.ndim}: use "
            'attn_implementation="sdpa"'
        )
    attended, length = attended.bool(), attended.shape[1]
    places = torch.arange(length, device=attended.device)
    start = torch.where(attended, places, length).amin(dim=1, keepdim=True)
    end = torch.where(attended, places + 1, 0).amax(dim=1, keepdim=True).maximum(start)
    is_whole = end - start == attended.sum(dim=1, keepdim=True)
    torch._assert_async(
        is_whole.all(),
        "kernels for variable lengths take padding before and behind a text, not inside it: use "
        "attn_implementation='sdpa'",  # quoted so because compilers do not escape the others in an assertion
    )
    return start, end


def borders(start: torch.Tensor, end: torch.Tensor, length: int, size: int = 0, shift: int = 0) -> torch.Tensor:
    """
    Returns the borders of the segments of each row, from 0 to its length, (B, n + 1).

    Args:
        start, end: Of the text, (B, 1); it may reach beyond the row. size, shift: Of blocks, as in `segments_within`.
            Padding is cut as well, so that no segment is longer than a block.
    """
    cuts = [torch.zeros_like(start), start, end, torch.full_like(start, length)]
    if size:
        cuts.append((start + shift) % size + size * torch.arange(length // size + 1, device=start.device))
    places = torch.cat(cuts, dim=1).clamp(0, length)
    return places.sort(dim=1).values if size else places


def cut_segments(borders: torch.Tensor, positions: torch.Tensor, size: int, shift: int = 0) -> torch.Tensor:
    """
    Cuts segments of packed rows into blocks: returns as many borders for all rows of one shape with as many segments.

    Args:
        borders: Of the segments and the padding between them, counted through all rows, (n + 1,).
        positions: Of each token in its segment, or in its padding, (B, T). size, shift: As in `segments_within`.
    """
    rows, count = positions.shape[0], positions.numel()
    places = torch.arange(count, device=positions.device, dtype=borders.dtype).view_as(positions)
    is_first = (positions == 0) | ((positions - shift) % size == 0)
    # An upper bound: each segment and its padding have two borders besides one for every `size` tokens.
    most = min(count, count // size + 2 * (borders.shape[0] + rows))
    firsts = torch.where(is_first, places, count).flatten().sort().values[:most]
    return torch.cat((borders, firsts.to(borders.dtype))).sort().values


def through_rows(places: torch.Tensor, length: int) -> torch.Tensor:
    """Counts the borders of rows of so many tokens, (B, n + 1), through all rows, (B * n + 1)."""
    rows = places.shape[0]
    firsts = places[:, :-1] + length * torch.arange(rows, device=places.device)[:, None]
    return nn.functional.pad(firsts.flatten(), (0, 1), value=rows * length).int()


def reorder(x: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
    """Puts the tokens (B, S, ...) in another order, (B, S)."""
    if order is None:
        return x
    return x.gather(1, order.view(*order.shape, *[1] * (x.ndim - 2)).expand_as(x))


def mask_across(config: XformerConfig, mask: Mask, queries: int) -> AttentionMask:
    """
    Attention of so many queries a row, under a mask as the backend takes it.

    That of kernels for variable lengths is 1 for the keys to attend to, (B, S), between which padding may stand.
    """
    if isinstance(mask, torch.Tensor) and takes_segments(config):
        return segments_across(mask, queries, has_holes=True)
    return WholeMask(mask)


def varlen_attention(
    module: nn.Module,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    position_bias: torch.Tensor | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    cu_seq_lens_k: torch.Tensor | None = None,
    max_length_q: int = 0,
    max_length_k: int = 0,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """
    Attention by `torch.nn.attention.varlen`. Whole rows without borders are those of a [`WholeMask`]; sdpa, whose
    kernel is the same there, takes them.

    Args:
        q: (1, H, B * T, K). k, v: (1, G, B * S, K).
        sliding_window: One more than the keys before each query, and in the encoder behind it, that it attends to.
        cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k: The borders of a [`VariableLengthMask`].

    Returns:
        The mixed values, (1, B * T, H, K), and None for the weights.

    Raises:
        ValueError: Something that the kernel does not have: dropout, a bias, single precision in training, a CPU.
    """
    if dropout:
        raise ValueError(refusal(f"has no dropout of attention weights, and `attention_dropout` is {dropout}"))
    if cu_seq_lens_q is None or cu_seq_lens_k is None:
        if any(x is not None for x in (mask, sliding_window, position_bias)):
            raise ValueError(refusal("is for Xformer models, which tell it where texts begin and end"))
        return sdpa_attention_forward(module, q, k, v, None, scaling=scaling)
    if q.device.type != KERNEL_DEVICE:
        raise ValueError(refusal(f"needs a model on a GPU, and this one is on {q.device}"))
    dtype, is_grouped = q.dtype, q.shape[1] != k.shape[1]
    if dtype not in KERNEL_DTYPES:
        if torch.is_grad_enabled() and q.requires_grad:
            raise ValueError(refusal(f"trains with `bf16=True` or `fp16=True`, and these features are {dtype}"))
        # The Trainer's `generate` runs the encoder outside of autocast.
        logger.warning_once(f'attn_implementation="{VARLEN}" computes in bfloat16 where features are {dtype}')
        q, k, v = (y.bfloat16() for y in (q, k, v))
    behind = -1 if sliding_window is None else sliding_window - 1
    q, k, v = (y[0].transpose(0, 1) for y in (q, k, v))  # (B * T, H, K), (B * S, G, K) twice
    x = varlen_attn(
        q,
        k,
        v,
        cu_seq_lens_q,
        cu_seq_lens_k,
        max_length_q,
        max_length_k,
        scale=scaling,
        window_size=(behind, 0 if module.is_causal else behind),
        **(GROUPED if is_grouped else {}),
    )
    return x[None].to(dtype), None


def token_mask(*args, attention_mask: torch.Tensor | None = None, **kwargs) -> torch.Tensor | None:
    """The mask as the backend takes it: the one of tokens, from which the model finds borders."""
    return attention_mask


AttentionInterface.register(VARLEN, varlen_attention)
AttentionMaskInterface.register(VARLEN, token_mask)


def refusal(why: str) -> str:
    return f'attn_implementation="{VARLEN}" {why}: use "sdpa"'


def missing_kernel() -> str | None:
    """Returns why the kernel does not run on this machine, or None."""
    if varlen_attn is None:
        return f"needs torch 2.11 or newer, and this is {torch.__version__}"
    if not torch.cuda.is_available():
        return "needs a GPU, and there is none"
    if torch.version.hip is not None:
        # Windows and empty segments gave NaN there (pytorch issue 173469).
        return "has not been tried on AMD's GPUs"
    if (capability := torch.cuda.get_device_capability()) < OLDEST_GPU:
        have, need = (".".join(map(str, version)) for version in (capability, OLDEST_GPU))
        return f"needs a GPU of compute capability {need} or higher, and this one has {have}"
    return None


def unfit_config(config: XformerConfig) -> str | None:
    """Returns what kernels for variable lengths lack for a model, or None."""
    if config.position_embedding_type == "relative":
        return "cannot add relative positions to the scores"
    if config.num_global_tokens and "sliding_attention" in config.layer_types_of("encoder"):
        return f"has no windows with global tokens, and `num_global_tokens` is {config.num_global_tokens}"
    return None


def why_not_varlen(config: XformerConfig) -> str | None:
    """Returns why a model cannot have this backend on this machine, as the end of a sentence, or None."""
    widths = sorted({config.heads_of(stack)[1] for stack in ("encoder", "decoder")})
    if any(width % 8 or width > 256 for width in widths):
        return f"takes heads of a multiple of 8 and at most 256 features, and these have {widths}"
    return unfit_config(config) or missing_kernel()
