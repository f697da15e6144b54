# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Stand-ins in plain torch for the kernels of FlashAttention, which need a GPU."""

from concurrent.futures import ThreadPoolExecutor

import torch


def dense(q, k, v, softmax_scale, causal, window_size):
    """
    One sequence's attention, (T, H, K) and (S, G, K). As in the kernels, the last query stands at the last key, a
    window is of so many keys before a query and after it, -1 is no end, and without any key the result is 0.
    """
    k, v = (y.repeat_interleave(q.shape[1] // y.shape[1], dim=1) for y in (k, v))
    scores = torch.einsum("thk,shk->hts", q, k) * softmax_scale
    distance = torch.arange(len(k)) - torch.arange(len(q))[:, None] + len(q) - len(k)
    before, after = window_size[0], 0 if causal else window_size[1]
    hidden = (distance < -before) & (before >= 0) | (distance > after) & (after >= 0)
    assert not len(k) or not hidden.all(dim=-1).any()
    return torch.einsum("hts,shk->thk", scores.masked_fill(hidden, float("-inf")).softmax(dim=-1), v)


class StandIn:
    """The kernels of FlashAttention 2 that transformers calls and torch's own, and what they were called with."""

    def __init__(self):
        # Of each call the lengths of both sides of its segments, without those that lack one.
        self.varlen_calls, self.windows = [], set()

    def func(self, q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1)):
        self.windows.add((causal, window_size))
        return torch.stack([dense(*row, softmax_scale, causal, window_size) for row in zip(q, k, v, strict=True)])

    def varlen_func(
        self, q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
        dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1),
    ):  # fmt: skip
        for borders, tokens in ((cu_seqlens_q, q), (cu_seqlens_k, k)):
            assert borders.dtype == torch.int32 and borders.is_contiguous()
            assert (borders[0], borders[-1]) == (0, len(tokens))
        queries, keys = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
        assert len(queries) == len(keys) and min(queries + keys) >= 0
        assert max(queries) <= max_seqlen_q and max(keys) <= max_seqlen_k
        # There the kernel takes a query from each segment, without looking at the borders.
        assert max_seqlen_q > 1 or q.shape[1] == k.shape[1] or set(queries) == {1}
        calls = [lengths for lengths in zip(queries, keys, strict=True) if all(lengths)]
        self.varlen_calls.append(tuple(list(side) for side in zip(*calls, strict=True)))
        self.windows.add((causal, window_size))
        pieces = (x.split(lengths) for x, lengths in ((q, queries), (k, keys), (v, keys)))
        return torch.cat([dense(*piece, softmax_scale, causal, window_size) for piece in zip(*pieces, strict=True)])

    def of_torch_2_11(
        self, query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *,
        return_aux=None, scale=None, window_size=(-1, -1),
    ):  # fmt: skip
        borders = (cu_seq_q, cu_seq_k, max_q, max_k)
        # As torch does, which passes the window on too.
        causal = window_size == (-1, 0)
        return self.varlen_func(query, key, value, *borders, 0.0, scale, causal, window_size)

    def of_torch_2_13(
        self, query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *,
        return_aux=None, scale=None, window_size=(-1, -1),
        enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
    ):  # fmt: skip
        assert enable_gqa or query.shape[1] == key.shape[1]
        borders = (cu_seq_q, cu_seq_k, max_q, max_k)
        return self.of_torch_2_11(query, key, value, *borders, scale=scale, window_size=window_size)


def in_a_graph(kernel):
    """Makes one opaque operation of a stand-in, as torch's kernel is one: a graph cannot look at borders."""
    names = ("scale", "window_size")

    def call(q, k, v, *rest: object):
        *borders, scale, window = rest
        return kernel(q, k, v, *borders, **dict(zip(names, (scale, tuple(window)), strict=True)))

    @torch.library.custom_op("xformer_tests::varlen", mutates_args=())
    def forward(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_q: torch.Tensor, cu_k: torch.Tensor,
        max_q: int, max_k: int, scale: float, window: list[int],
    ) -> torch.Tensor:  # fmt: skip
        return call(q, k, v, cu_q, cu_k, max_q, max_k, scale, window)

    @forward.register_fake
    def _(q, k, v, *rest):
        return torch.empty_like(q)

    @torch.library.custom_op("xformer_tests::varlen_backward", mutates_args=())
    def backward(
        grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_q: torch.Tensor, cu_k: torch.Tensor,
        max_q: int, max_k: int, scale: float, window: list[int],
    ) -> list[torch.Tensor]:  # fmt: skip
        def differentiate() -> list[torch.Tensor]:
            inputs = [each.detach().requires_grad_() for each in (q, k, v)]
            out = call(*inputs, cu_q, cu_k, max_q, max_k, scale, window)
            return list(torch.autograd.grad(out, inputs, grad))

        # In this thread torch records no operations within an operation.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(differentiate).result()

    @backward.register_fake
    def _(grad, q, k, v, *rest):
        return [torch.empty_like(each) for each in (q, k, v)]

    def setup_context(ctx, inputs, output):
        *tensors, ctx.max_q, ctx.max_k, ctx.scale, ctx.window = inputs
        ctx.save_for_backward(*tensors)

    def differentiate(ctx, grad):
        numbers = (ctx.max_q, ctx.max_k, ctx.scale, ctx.window)
        return *backward(grad, *ctx.saved_tensors, *numbers), *[None] * 6

    forward.register_autograd(differentiate, setup_context=setup_context)

    def varlen_attn(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size):
        return forward(q, k, v, cu_q, cu_k, max_q, max_k, scale, list(window_size))

    return varlen_attn
