# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The output layer: features to logits, or straight to the loss without ever holding all logits.

Shapes: B batch, T target, N tokens, D d_model, V vocabulary.
"""

import torch
from torch import nn
from torch.autograd.function import once_differentiable


IGNORED = -100
# Logits that exist at a time: 128 MiB in float32, and their probabilities take as much.
CHUNK_ELEMENTS = 2**25
# Logits that a CPU's cache holds, so that passes over them need no memory; tokens below which products are slow.
CACHED_ELEMENTS, FEW_TOKENS = 2**21, 256
# Tokens whose gradients are summed in 16 bits: sums of more might exceed float16's largest number, 65,504, and means
# in place of sums might fall below its smallest.
CHUNK_TOKENS = 1024
# From this share of labelled positions on, the loss is computed at all positions.
MOSTLY_LABELLED = 0.9


class SummedCrossEntropy(torch.autograd.Function):
    """
    `sum over tokens of -log softmax(W x + b)[label]`, with its gradients, some tokens at a time.

    The forward pass computes the gradients too, while a chunk's logits exist, and keeps those of x, W and b instead of
    N x V logits (Hsu et al. 2024, section 3.2). A smoothed label is (1 - e) of its own token and e / V of every token
    (Szegedy et al. 2016, section 7).
    """

    @staticmethod
    def forward(ctx, x, weight, bias, labels, smoothing: float, elements: int) -> torch.Tensor:
        # There is no autocast for "meta", on which nothing is computed.
        device_type = "cpu" if x.device.type == "meta" else x.device.type
        # The type of a linear layer under autocast, whose own casts would be repeated in every chunk.
        dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else x.dtype
        matrix, vocabulary = weight.to(dtype), weight.shape[0]
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        loss = torch.zeros((), dtype=torch.float32, device=x.device)
        grad_x = torch.empty_like(x) if wants_x else None
        # In full precision: in half precision the sums of many chunks would be lost in rounding.
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias else None
        with torch.autocast(device_type, enabled=False):
            # A token's mean logit, and the gradients of it, without a pass over all logits.
            middle = matrix.mean(dim=0, dtype=torch.float32) if smoothing else None  # (D,)
            level = 0.0 if bias is None or not smoothing else bias.mean(dtype=torch.float32)
            for first in range(0, x.shape[0], size := chunk_size(vocabulary, elements, device_type)):
                chunk = slice(first, first + size)
                features, own = x[chunk].to(dtype), labels[chunk, None]
                logits = (features @ matrix.T).float()  # (N, V)
                if bias is not None:
                    logits += bias
                counts = own != IGNORED
                own = own.masked_fill(~counts, 0)
                top, chosen = logits.amax(dim=-1, keepdim=True), logits.gather(1, own)
                probabilities = logits.softmax(dim=-1)  # on a CPU in less time than exponents alone
                del logits
                # The likeliest token's logit and probability, which is at least 1 / V, give the logsumexp.
                losses = top - probabilities.amax(dim=-1, keepdim=True).log() - (1 - smoothing) * chosen
                if middle is not None:
                    losses -= smoothing * (features.float() @ middle[:, None] + level)
                # Not in place: torch 2.11 compiles a function whose result was changed so into one without gradients.
                loss = loss + losses.masked_fill(~counts, 0.0).sum()
                if not any((wants_x, wants_weight, wants_bias)):
                    continue
                # softmax(logits) - labels, but for what smoothing takes from every token alike.
                grad = probabilities.mul_(counts.float())
                grad.scatter_add_(1, own, (smoothing - 1) * counts.float())
                if grad_bias is not None:
                    grad_bias += grad.sum(dim=0)
                grad = grad.to(dtype)
                if grad_x is not None:
                    product = grad @ matrix
                    grad_x[chunk] = product if middle is None else product - smoothing * counts * middle
                if grad_weight is not None:
                    add_product(grad_weight, grad.T, features)
            if smoothing:
                spread, counted = smoothing / vocabulary, labels[:, None] != IGNORED
                if grad_weight is not None:
                    grad_weight -= spread * (x.to(dtype) * counted).sum(dim=0, dtype=torch.float32)
                if grad_bias is not None:
                    grad_bias -= spread * counted.sum()
        ctx.gradients = (grad_x, grad_weight, grad_bias)
        ctx.dtypes = (x.dtype, weight.dtype, None if bias is None else bias.dtype)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        if ctx.gradients is None:
            raise RuntimeError("the loss without logits can be differentiated once: take output_logits=True")
        # In place, because a second gradient of a large vocabulary's weights would be the largest tensor of all.
        gradients = [
            None if each is None else each.mul_(grad).to(dtype)
            for each, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        ]
        ctx.gradients = None
        return *gradients, None, None, None


def chunk_size(vocabulary: int, elements: int, device_type: str) -> int:
    """Returns the tokens of a chunk that has at most so many logits."""
    most = min(max(1, elements // vocabulary), CHUNK_TOKENS)
    return min(most, max(FEW_TOKENS, CACHED_ELEMENTS // vocabulary)) if device_type == "cpu" else most


def add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """`total += a @ b` for operands of any types."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


class XformerOutputLayer(nn.Linear):
    """Logits (..., V) of features (..., D); given labels, their summed loss in chunks."""

    # Both by one method: what divides the layer among processes (ZeRO-3, FSDP) or adapts it gathers and replaces its
    # weights in hooks around `forward`, so that a method of its own for the loss would find none.
    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None, smoothing: float = 0.0) -> torch.Tensor:
        """
        Returns logits; given labels, their summed loss.

        Args:
            x: (..., D); with labels (N, D). labels: (N,), -100 where no loss is wanted.
            smoothing: Share of every label that is spread over the vocabulary.
        """
        if labels is None:
            return super().forward(x)
        tensors: tuple = x, self.weight, self.bias
        if not torch.is_grad_enabled():
            # An autograd function is told that gradients are wanted of every parameter all the same.
            tensors = tuple(None if each is None else each.detach() for each in tensors)
        return SummedCrossEntropy.apply(*tensors, labels, smoothing, CHUNK_ELEMENTS)


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    vocab_size: int,
    num_items_in_batch: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
    **kwargs,
) -> torch.Tensor:
    """
    The loss from logits, with the signature of the library's loss functions; the labels are not shifted.

    Args:
        logits: (B, T, V). labels: (B, T). num_items_in_batch: See [`mean_over`].
    """
    labels = labels.flatten().to(logits.device)
    total = nn.functional.cross_entropy(
        logits.float().view(-1, vocab_size), labels, reduction="sum", label_smoothing=label_smoothing
    )
    return mean_over(total, labels, num_items_in_batch)


def check_labels(labels: torch.Tensor, vocabulary: int | None = None) -> None:
    """
    Checks that labels are tokens or -100: another negative one would train as a token, or fail without its name.

    Nothing waits for a device: on another than a CPU an assertion fails there, later.

    Args:
        vocabulary: Number of tokens; None if it is not known.

    Raises:
        ValueError: A label is neither.
    """
    if labels.is_meta:
        return
    is_wrong = (labels < 0) & (labels != IGNORED)
    if vocabulary is not None:
        is_wrong = is_wrong | (labels >= vocabulary)
    wanted = "a token" if vocabulary is None else f"one of {vocabulary:,} tokens"
    try:
        torch._assert_async(~is_wrong.any(), f"`labels` must each be {wanted}, or -100 where no loss is wanted")
    except RuntimeError as error:  # on a CPU it fails at once, and the value can be named
        wrong = labels[is_wrong]
        raise ValueError(
            f"`labels` has {int(wrong[0])} ({len(wrong):,} such), which must be {wanted}, or -100 where no loss is "
            "wanted"
        ) from error


def check_label_padding(labels: torch.Tensor) -> None:
    """
    Checks that no row of labels (B, T) begins with padding: shifted right, its first token would follow padding and
    not the start token.

    Waits for a device as little as [`check_labels`].

    Raises:
        ValueError: A row does, and has labels behind it.
    """
    if labels.is_meta or labels.shape[-1] == 0:
        return
    has_label = labels != IGNORED
    is_wrong = has_label.any(dim=-1) & ~has_label[..., 0]
    # Without double quotes, which torch's compiler for a CPU does not escape in the C++ of an assertion.
    where = "behind the tokens of `labels`, not before them: padding_side='right', or give `decoder_input_ids`"
    try:
        torch._assert_async(~is_wrong.any(), f"-100 must stand {where}")
    except RuntimeError as error:
        raise ValueError(f"-100 must stand {where} ({int(is_wrong.sum()):,} rows begin with it)") from error


def labelled_positions(labels: torch.Tensor) -> torch.Tensor | None:
    """
    Returns the index, (n,), of the labelled positions of labels (N,), and None if they are most of them.

    A few more positions cost less than a shape that no other batch has. Waits for the labels' device.
    """
    index = (labels != IGNORED).nonzero().squeeze(1)
    return index if len(index) < MOSTLY_LABELLED * len(labels) else None


def mean_over(
    total: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
) -> torch.Tensor:
    """
    Divides a summed loss by its number of tokens; without any it is 0.

    Args:
        num_items_in_batch: Divide by this number instead of by the labels of this batch, so that accumulated steps
            and several processes weigh every token alike.
    """
    if num_items_in_batch is None:
        return total / (labels != IGNORED).sum().clamp(min=1)
    return total / (num_items_in_batch.to(total.device) if torch.is_tensor(num_items_in_batch) else num_items_in_batch)
