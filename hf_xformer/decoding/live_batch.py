# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The sources of a batch that are still decoded: their steps through the model, and how they leave it.

Shapes: R rows of the decoder, T tokens so far, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ..models import XformerCache


# The library's processors of logits in one: from tokens and their logits to other logits; None without any.
Processors: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None


class LiveBatch:
    """
    Runs the decoder for the sources that have not ended.

    Args:
        options: Arguments of the model that `generate()` has prepared. The encoder's output, its mask and the keys and
            values of the cross-attention have one row a source, which its rows of the decoder share.
    """

    def __init__(self, model: PreTrainedModel, options: dict[str, Any]):
        self.model, self.options = model, options
        caches = (each for each in options.values() if isinstance(each, XformerCache))
        self.cache = next(caches, None) if options.get("use_cache", True) else None
        self.inputs: dict[str, Any] = {}

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns the logits (R, V) behind tokens (R, T), in single precision."""
        if not self.inputs:
            self.inputs = self.model.prepare_inputs_for_generation(tokens, **self.options)  # type: ignore[operator]
        else:
            self.inputs["decoder_input_ids"] = tokens if self.cache is None else tokens[:, -1:]
        return self.model(**self.inputs, return_dict=True).logits[:, -1].float()

    def reorder(self, rows: torch.Tensor, sources: torch.Tensor | None = None) -> None:
        """
        Gives each row of the decoder the past of another one.

        Args:
            rows: These others, among the rows of the last step; of the same source.
            sources: Those that are kept, by their numbers among those of the last step; None to keep all.
        """
        if self.cache is not None:
            self.cache.reorder_cache(rows)  # type: ignore[arg-type]
        if sources is None:
            return
        if self.cache is not None:
            self.cache.keep_sources(sources)  # type: ignore[arg-type]
        memory = self.inputs["encoder_outputs"][0]
        self.inputs["encoder_outputs"] = BaseModelOutput(last_hidden_state=memory.index_select(0, sources))
        if (mask := self.inputs.get("attention_mask")) is not None:
            self.inputs["attention_mask"] = mask.index_select(0, sources)
