# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Greedy and beam search as the library's `generate()` has them, in a batch that texts leave as soon as they have ended.

`model.generate(..., custom_generate=Search())` gives the library's tokens and scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation import PrefixConstrainedLogitsProcessor
from transformers.utils import ModelOutput

from ..models import XformerCache, XformerForSeq2SeqLM
from .beams import search_beams
from .beginnings import AllowedTexts
from .forced_words import Words, search_with_words
from .greedy import search_greedily
from .live_batch import LiveBatch
from .stopping import Ends, StopTexts, padding


# Fields of a generation config that the search goes by, or that nothing goes by where nothing is sampled or drafted.
IMPLEMENTED = {
    *("max_length", "max_new_tokens", "min_length", "min_new_tokens", "max_time", "stop_strings"),
    *("num_beams", "num_return_sequences", "early_stopping", "length_penalty", "use_cache"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "return_dict_in_generate"),
    # The library's own processors of logits, which look at one row at a time.
    *("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "renormalize_logits", "sequence_bias"),
    *("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"),
    *("remove_invalid_values", "exponential_decay_length_penalty"),
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"),
    *("assistant_lookbehind", "target_lookbehind", "max_matching_ngram_size"),
    *("transformers_version", "disable_compile"),
}
# Values of other fields that switch off what the search has not.
OFF: dict[str, Any] = {
    **dict.fromkeys(("do_sample", "token_healing", "low_memory", "is_assistant"), False),
    **dict.fromkeys(("output_attentions", "output_hidden_states", "output_scores", "output_logits"), False),
    **dict.fromkeys(("encoder_repetition_penalty", "guidance_scale", "num_beam_groups"), 1),
    **dict.fromkeys(("encoder_no_repeat_ngram_size", "diversity_penalty", "penalty_alpha"), 0),
    "cache_implementation": "dynamic",
}
# Other arguments of `generate()`; criteria are those of the config, and strings, and processors lists of texts.
ARGUMENTS = {"generation_config", "stopping_criteria", "logits_processor", "decoder_input_ids"}

# Arguments that `generate()` prepares for a loop and that the search goes by, beside the cache.
PREPARED = {"attention_mask", "encoder_outputs", "logits_to_keep", "use_cache"}


def is_implemented(model: PreTrainedModel, config: GenerationConfig, options: dict[str, Any]) -> bool:
    """
    Returns whether the search gives what the library's loop would.

    Args:
        model: One of ours, or PEFT's around it; no other keeps its cache in a form that is known.
        config: What `generate()` goes by.
        options: Arguments of `generate()`.
    """
    adapter = getattr(model, "active_peft_config", None)
    base = model if adapter is None else model.get_base_model()  # type: ignore[operator]
    if not isinstance(base, XformerForSeq2SeqLM) or (adapter is not None and adapter.is_prompt_learning):
        return False
    if torch.distributed.is_available() and torch.distributed.is_initialized():  # whose processes wait for each other
        return False
    known = config.to_dict().keys() | IMPLEMENTED | ARGUMENTS
    criteria, processors = (options.get(name) or [] for name in ("stopping_criteria", "logits_processor"))
    return (
        not unknown_fields(config)
        and all(value is None or name in known for name, value in options.items())
        and all(type(each) is StopTexts for each in criteria)
        and all(type(each) is AllowedTexts for each in processors)
        and (not criteria or padding(config) >= 0)
    )


def unknown_fields(config: GenerationConfig) -> list[str]:
    """Returns the fields of a generation config that ask for what the search has not, with their values."""
    fields = {name: value for name, value in config.to_dict().items() if name not in IMPLEMENTED and name[0] != "_"}
    return [f"{name}={value}" for name, value in fields.items() if value is not None and value != OFF.get(name)]


def unknown_arguments(options: dict[str, Any], processors: LogitsProcessorList) -> list[str]:
    """Returns the names of arguments of `generate()` that reach a loop, and that the search cannot go by."""
    names = [
        name
        for name, value in options.items()
        if name not in PREPARED and value is not None and value is not False and not isinstance(value, XformerCache)
    ]
    # It goes by the number of a row, which changes when texts leave.
    if any(isinstance(each, PrefixConstrainedLogitsProcessor) for each in processors):
        names.append("prefix_allowed_tokens_fn")
    return names


@dataclass
class SearchOutput(ModelOutput):
    """
    Result of a search.

    Args:
        sequences: Tokens of all texts, padded, (B * num_return_sequences, T).
        sequences_scores: What beams are sorted by, (B * num_return_sequences,); None for greedy search.
        log_probabilities: Those of the texts, (B * num_return_sequences,), if they were asked for.
        lengths: Tokens of the texts without their prompt, (B * num_return_sequences,), of beams.
    """

    sequences: torch.Tensor | None = None
    sequences_scores: torch.Tensor | None = None
    log_probabilities: torch.Tensor | None = None
    lengths: torch.Tensor | None = None


class Search:
    """
    Decodes a batch in place of the library's loop: `model.generate(..., custom_generate=Search())`.

    Processors of logits and criteria of one's own must look at each row by itself.

    Args:
        scores: Whether to add up the log-probabilities of the texts.
        words: Those that the text of each source must hold, for beams; None if there are none.

    Raises:
        ValueError: The model is not the package's, or the search does not have an option.
    """

    def __init__(self, scores: bool = False, words: Sequence[Words] | None = None):
        self.scores, self.words = scores, words

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **options,
    ) -> SearchOutput | torch.Tensor:
        if not isinstance(model, XformerForSeq2SeqLM):
            raise ValueError(f"`Search` is for the package's models, not for {type(model).__name__}")
        if unknown := unknown_fields(generation_config):
            raise ValueError(f"`Search` has no {unknown[0]}: leave `custom_generate` out")
        if unknown := unknown_arguments(options, logits_processor):
            raise ValueError(f"`Search` does not take `{unknown[0]}`: leave `custom_generate` out")
        beams = generation_config.num_beams
        live, ends = LiveBatch(model, options), Ends(generation_config, stopping_criteria)
        search: Any = search_greedily if beams == 1 else search_beams
        if self.words is not None:
            search = partial(search_with_words, words=self.words)
        processors: Any = logits_processor or None  # None if the list is empty
        output = SearchOutput(**search(live, input_ids, processors, ends, generation_config, self.scores))
        return output if generation_config.return_dict_in_generate else output.sequences  # type: ignore[return-value]
