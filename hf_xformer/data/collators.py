# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Collators: turn the pairs of a batch into tensors, padded or packed."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..models import make_packing
from .batches import BY_CORPUS, CORPUS, POSITION, EvaluationBatch, WindowBatch, best_fit


class DataCollatorForPackedSeq2Seq:
    """
    Packs pairs into rows without padding between them; `segment_ids` and `decoder_segment_ids` tell them apart.

    `packing` is the layout of the rows, which the model would otherwise make in every forward. That of rows of a fixed
    length is one that a compiled model can read.

    Args:
        tokenizer: The source's; its padding token fills the ends of rows.
        model: If given, it also makes `decoder_input_ids`, which the Trainer's own label smoothing needs.
        row_length: Tokens of a row, on each side; each pair goes where it fits best. None makes a single row.
        fixed: Whether rows are filled up to `row_length`, so that a compiled model meets one shape.
        pad_to_multiple_of: Fills rows up to a multiple of this number of tokens: a few shapes instead of one a batch.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel | None = None,
        row_length: int | None = None,
        fixed: bool = False,
        pad_to_multiple_of: int = 1,
    ):
        if fixed and row_length is None:
            raise ValueError("rows of a fixed length need `row_length`")
        self.pad_token_id, self.model = tokenizer.pad_token_id, model
        self.row_length, self.multiple = row_length, pad_to_multiple_of
        self.fixed_length = row_length if fixed else None

    def __call__(self, features: Sequence[dict], return_tensors: str = "pt") -> dict[str, Any]:
        """
        Packs pairs, each with `input_ids` and `labels`, lists of token ids; tensors are (rows, tokens).

        `packing` is a dictionary: `accelerate.utils.send_to_device` moves a whole batch, as the Trainer does.

        Raises:
            ValueError: A pair is longer than a row.
        """
        lengths = np.array([[len(pair["input_ids"]), len(pair["labels"])] for pair in features])
        rows = [np.arange(len(features))]
        if self.row_length is not None:
            if lengths.max() > self.row_length:
                source, target = lengths[lengths.max(axis=1).argmax()]
                raise ValueError(f"a pair of {source} and {target} tokens does not fit rows of {self.row_length}")
            rows = best_fit(lengths, self.row_length)
        batch: dict[str, Any] = {}
        for side, segments, padding in (
            ("input_ids", "segment_ids", self.pad_token_id),
            ("labels", "decoder_segment_ids", -100),
        ):
            texts = [[torch.as_tensor(features[i][side]) for i in row.tolist()] for row in rows]
            batch[side] = self.lay_out(texts, padding)
            batch[segments] = self.lay_out(
                [[torch.full_like(text, number) for number, text in enumerate(row, start=1)] for row in texts], 0
            )
        prepare = getattr(self.model, "prepare_decoder_input_ids_from_labels", None)
        if prepare is not None:
            batch["decoder_input_ids"] = prepare(batch["labels"], batch["decoder_segment_ids"])
        batch["packing"] = make_packing(
            batch["segment_ids"], batch["decoder_segment_ids"], batch["labels"], fixed=self.fixed_length is not None
        )
        return batch

    def lay_out(self, rows: list[list[torch.Tensor]], padding: int) -> torch.Tensor:
        """Returns rows of one length, (rows, tokens), each of some texts one after another."""
        joined = [torch.cat(row) for row in rows]
        width = self.fixed_length or -(-max(map(len, joined)) // self.multiple) * self.multiple
        return torch.stack([torch.nn.functional.pad(row, (0, width - len(row)), value=padding) for row in joined])


class BatchCollator:
    """
    Collates for both of the Trainer's datasets: batches of a [`BatchedDataset`] or of `Windows`, and those of
    [`EvaluationBatches`] or single rows.

    Batches of `Windows` have more, which whoever trains takes out: `by_corpus`, the number of each pair's corpus
    and its tokens of source and target, (pairs, 3), and `position`, from which the batch can be made again. One
    that is only to be skipped is empty.

    Args:
        training, evaluation: Collators of pairs.
    """

    def __init__(self, training: Callable, evaluation: Callable):
        self.training, self.evaluation = training, evaluation

    def __call__(self, features: list) -> dict[str, torch.Tensor]:
        if not isinstance(features[0], list):
            return self.evaluation(features)
        pairs = [pair for batch in features for pair in batch]
        if isinstance(features[0], EvaluationBatch):
            return self.evaluation(pairs)
        if not isinstance(features[0], WindowBatch):
            return self.training(pairs)
        if not pairs:
            return {}
        batch = self.training([{name: value for name, value in pair.items() if name != CORPUS} for pair in pairs])
        rows = [[pair[CORPUS], len(pair["input_ids"]), len(pair["labels"])] for pair in pairs]
        batch |= {BY_CORPUS: torch.tensor(rows), POSITION: torch.tensor(features[0].position)}
        return batch


def without_logits(collate: Callable, features: list[dict]) -> dict:
    """Collates a batch of which an Xformer computes only the loss."""
    return {**collate(features), "output_logits": False}
