# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
R-Drop (Liang et al. 2021): every pair goes through the model twice, with other dropouts, and the two are to agree.

The collator lays the pairs of a batch twice, behind one another, so that one pass of the model computes both.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..data.batches import EvaluationBatch
from ..errors import ArgumentError
from ..models import XformerConfig
from .arguments import ModelArguments
from .observation import IGNORED


class RDropLoss:
    """
    `(nll(p) + nll(q) + weight * (KL(p|q) + KL(q|p)) / 2) / 2` for each label, whose distributions are p and q.

    That is half of the paper's loss: a step is as large as one without R-Drop. In evaluation the loss is the model's
    own.

    Args:
        loss: The model's `loss_function`.
        weight: The paper's alpha.
    """

    def __init__(self, loss: Callable[..., torch.Tensor], weight: float):
        self.loss, self.weight = loss, weight

    def __call__(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        vocab_size: int,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """
        Returns the loss of pairs that stand twice in a batch, whether in rows of their own or in one.

        Args:
            logits: (B, T, V). labels: (B, T), not shifted.
            num_items_in_batch: Labels that the sum is divided by, those of both copies.
        """
        loss = self.loss(logits, labels, vocab_size, num_items_in_batch=num_items_in_batch, **kwargs)
        if not torch.is_grad_enabled():
            return loss
        is_label = labels.flatten().to(logits.device) != IGNORED
        p, q = logits.flatten(0, -2)[is_label].float().log_softmax(-1).chunk(2)  # (N, V) each
        divergence = ((p.exp() - q.exp()) * (p - q)).sum()
        count = is_label.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        # The count is of 2 N labels.
        return loss + self.weight / 2 * divergence / (count.to(loss.device) if torch.is_tensor(count) else count)


def doubled(collate: Callable[[list], Any], features: list) -> Any:
    """Collates a batch of the training with every pair twice, and one of an evaluation as it is."""
    return collate(features if isinstance(features[0], EvaluationBatch) else [*features, *features])


def passes_of(model_args: ModelArguments) -> int:
    """Returns how often each pair goes through the model at a step."""
    return 1 if model_args.r_drop is None else 2


def add_r_drop(model: PreTrainedModel, weight: float | None) -> None:
    """Gives an Xformer the loss of R-Drop; None leaves it as it is."""
    if weight is not None:
        model.loss_function = RDropLoss(model.loss_function, weight)


def check_r_drop(config: PreTrainedConfig, weight: float | None, more_dropout: float) -> None:
    """
    Refuses R-Drop for a model that has another loss, or whose two passes would be the same.

    Args:
        more_dropout: That of adapters.
    """
    if weight is None:
        return
    if not isinstance(config, XformerConfig):
        raise ArgumentError(f"--r_drop {weight}: a model of type {config.model_type!r} computes its own loss")
    fields = ("dropout", "attention_dropout", "activation_dropout")
    if not any((more_dropout, *(getattr(config, name) for name in fields))):
        raise ArgumentError(f"--r_drop {weight} does nothing without dropout: --config_overrides dropout=0.1")
