# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Drafts of `generate(..., prompt_lookup_num_tokens=N)` that are looked up in the source, for texts that copy it."""

import sys

import torch
from transformers import GenerationConfig
from transformers.generation import PromptLookupCandidateGenerator


class SourceLookup(PromptLookupCandidateGenerator):
    """
    Drafts the tokens that follow the text's last ones in the source, or else earlier in the text.

    The model checks a draft, so the text is that of greedy search. The library's own looks into the text alone.

    Args:
        source: Its tokens, (1, S), of the target's vocabulary.
    """

    def __init__(self, config: GenerationConfig, source: torch.Tensor):
        ends = config.eos_token_id
        super().__init__(
            eos_token_id=None if ends is None else torch.tensor(ends, device=source.device).view(-1),
            num_output_tokens=config.prompt_lookup_num_tokens,
            max_matching_ngram_size=config.max_matching_ngram_size or 2,
            max_length=sys.maxsize,  # of source and text together
        )
        self.source, self.longest = source, config.max_length

    def get_candidates(self, input_ids: torch.Tensor, **kwargs) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        """Returns the text (1, T) with its draft."""
        room = self.longest - input_ids.shape[1] - 1  # the model writes a token behind the draft
        if room < 1:
            return input_ids, None
        # The source stands behind the token that a text begins with: the first draft is its beginning.
        read = torch.cat([input_ids[:, :1], self.source, input_ids], dim=1)
        drafted = super().get_candidates(read)[0]  # type: ignore[arg-type]
        return torch.cat([input_ids, drafted[:, read.shape[1] :][:, :room]], dim=1), None
