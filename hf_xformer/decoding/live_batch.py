# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The sources of a batch that are still decoded: their steps through the model, and how they leave it.

Shapes: B sources at first, S sources that are left, n beams a source, T tokens so far, V vocabulary.
"""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput


class LiveBatch:
    """
    Runs the decoder for the sources that have not ended.

    Args:
        beams: Rows of the decoder for each source, which are adjacent.
        options: Arguments of the model that `generate()` has prepared, with the encoder's output and the cache.
    """

    def __init__(self, model: PreTrainedModel, beams: int, options: dict[str, Any]):
        self.model, self.beams, self.options = model, beams, options
        caches = (each for each in options.values() if isinstance(each, EncoderDecoderCache))
        self.cache = next(caches, None) if options.get("use_cache", True) else None
        self.inputs: dict[str, Any] = {}

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns the logits (S * n, V) behind tokens (S * n, T), in single precision."""
        if not self.inputs:
            self.inputs = self.model.prepare_inputs_for_generation(tokens, **self.options)  # type: ignore[operator]
        else:
            self.inputs["decoder_input_ids"] = tokens if self.cache is None else tokens[:, -1:]
        return self.model(**self.inputs, return_dict=True).logits[:, -1].float()

    def keep(self, sources: torch.Tensor) -> None:
        """Keeps some of the sources, by their numbers among those that are left."""
        rows = self.rows_of(sources)
        if self.cache is not None:
            self.cache.self_attention_cache.batch_select_indices(rows)
        self.keep_memories(rows)

    def reorder(self, rows: torch.Tensor, sources: torch.Tensor | None = None) -> None:
        """
        Gives each row of the decoder the past of another one.

        Args:
            rows: These others, among the rows of the last step.
            sources: Those that are kept meanwhile, by their numbers, if not all are; the rows are theirs alone.
        """
        if self.cache is not None:
            self.cache.self_attention_cache.reorder_cache(rows)  # type: ignore[arg-type]
        if sources is not None:
            self.keep_memories(self.rows_of(sources))

    def rows_of(self, sources: torch.Tensor) -> torch.Tensor:
        """Returns the rows of the decoder that are those of some sources."""
        beams = torch.arange(self.beams, device=sources.device)
        return (sources[:, None] * self.beams + beams).flatten()

    def keep_memories(self, rows: torch.Tensor) -> None:
        """Keeps the memory, its mask, and its keys and values of some rows."""
        if self.cache is not None:
            self.cache.cross_attention_cache.batch_select_indices(rows)
        memory = self.inputs["encoder_outputs"].last_hidden_state
        self.inputs["encoder_outputs"] = BaseModelOutput(last_hidden_state=memory.index_select(0, rows))
        if (mask := self.inputs.get("attention_mask")) is not None:
            self.inputs["attention_mask"] = mask.index_select(0, rows)
