# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Decodes texts in batches of similar length with the stock `generate()`, and returns them in order."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from accelerate import PartialState
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import (
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.utils import logging

from ..checkpoints.loading import load_model, load_tokenizers
from ..checkpoints.vocabulary import check_vocabulary
from ..data.encoding import TextEncoder
from ..errors import ArgumentError, blame
from ..models import XformerConfig
from .compiling import check_compiling, compiled
from .lengths import Report, SourceLengths, room, within_positions
from .tally import Place


logger = logging.get_logger(__name__)

# Batches that are read ahead and sorted by length, because equal lengths need no padding.
BATCHES_AHEAD = 64
# `generate()` constructs these when it samples; a value that they refuse is refused before anything is decoded.
WARPERS = {"temperature": TemperatureLogitsWarper, "top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper}


@dataclass(frozen=True)
class Hypothesis:
    """A decoded text and, if it was asked for, the natural logarithm of its probability, end token included."""

    text: str
    score: float | None = None


class Decoder:
    """
    Decodes texts with one model. `Decoder.from_pretrained(checkpoint)` finds the model's tokenizers itself.

    A result depends on its text alone, whatever is decoded beside it. A text ends at the last position that the model
    has, at the latest.

    Args:
        model: Any transformers sequence-to-sequence model.
        source, target: Its tokenizers; often the same.
        batch_size: Sources at a time; 1 for assisted decoding, which the library has for nothing else.
        max_source_length: Most tokens of a source that is not too long; by default those of the longest one that the
            model was trained on, as the source's tokenizer records it in `model_max_length`.
        scores: Whether to compute log-probabilities, for which the logits of every step are kept.
        overlong: What to do with longer sources: "keep", the default, decodes them whole as far as the model has
            positions; "truncate", the default if there is a `max_source_length`, cuts them; "error" refuses them.
        say: Is told what was kept, cut or ended early, a line each; by default the library's log.
        options: Arguments of `generate()`; `num_return_sequences` is the number of hypotheses a source, best first.
            `assistant_model` may be the name of a checkpoint, and `stop_strings` need no tokenizer.
        compile: Whether to compile the steps of decoding, which takes up to a minute at the first batch.

    Raises:
        ArgumentError: An option has a value that `generate()` would refuse or pass over, there is no length that
            `overlong` could go by, or the assistant has other tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        source: PreTrainedTokenizerBase,
        target: PreTrainedTokenizerBase,
        batch_size: int = 64,
        max_source_length: int | None = None,
        scores: bool = False,
        overlong: str | None = None,
        say: Callable[[str], object] = logger.warning,
        compile: bool = False,
        **options,
    ):
        self.model, self.source, self.target, self.scores, self.say = model.eval(), source, target, scores, say
        self.config = check_options(model, options)
        self.options = options | {"return_dict_in_generate": True, "output_logits": scores}
        if compile:
            self.options |= compiled(model, self.config, options)
        self.positions = room(model, "decoder")
        if not isinstance(model.config, XformerConfig):  # which generates no further by itself
            self.options |= within_positions(self.positions, self.config, options.get("decoder_input_ids"))
        if isinstance(name := options.get("assistant_model"), str):
            self.options["assistant_model"] = load_assistant(name, model, source, target)
        self.stops: StopTexts | None = None
        if (stops := self.config.stop_strings) is not None:
            self.stops = own = StopTexts(target, [stops] if isinstance(stops, str) else stops)
            self.options["stopping_criteria"] = StoppingCriteriaList([*(options.get("stopping_criteria") or ()), own])
        self.is_assisted = (
            options.get("assistant_model") is not None or self.config.prompt_lookup_num_tokens is not None
        )
        self.batch_size = 1 if self.is_assisted else batch_size
        self.lengths = SourceLengths(room(model, "encoder"), source, max_source_length, overlong)
        self.encoder = TextEncoder(source, self.lengths.limit)
        self.batches_ahead = BATCHES_AHEAD

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        trust_remote_code: bool = False,
        revision: str | None = None,
        token: str | None = None,
        **options,
    ) -> "Decoder":
        """
        Loads a checkpoint's model with its tokenizers, the target's own too if it has one.

        Args:
            checkpoint: Folder or Hub name.
            device: By default the accelerator, if there is one.
            dtype: Type of the weights; "auto" for the checkpoint's.
            trust_remote_code: Whether code that comes with the checkpoint may run.
            revision, token: Of the Hub.
            options: Those of the class and of `generate()`.

        Raises:
            ArgumentError: The checkpoint does not load, its tokenizers do not fit it, or an option is refused.
        """
        device = PartialState().default_device if device is None else device  # type: ignore[assignment]
        if options.get("compile"):
            check_compiling(device, options)  # type: ignore[arg-type]
        given: dict[str, Any] = {"revision": revision, "token": token}
        hub = {name: value for name, value in given.items() if value is not None}
        source, target = load_tokenizers(checkpoint, trust_remote_code=trust_remote_code, **hub)
        model = load_model(checkpoint, trust_remote_code=trust_remote_code, dtype=dtype, **hub)
        check_vocabulary(model.config, source, target)
        model = model.to(device)  # type: ignore[arg-type]
        quicken(model)
        return cls(model, source, target, **options)

    def new_report(self) -> Report:
        """Returns the counts, all of them 0, of one call of `decode`."""
        return Report(self.lengths, self.positions)

    def check_lengths(self, texts: Iterable[str], kind: str = "source", first: int = 1) -> None:
        """
        Checks sources before any of them is decoded; arguments as for `decode`.

        Raises:
            ArgumentError: Some are too long and `overlong` is "error".
        """
        if self.lengths.overlong != "error":
            return
        report = self.new_report()
        for number, text in enumerate([texts] if isinstance(texts, str) else texts, first):
            if checked_text(text, number, kind).strip():
                self.encode(Place(number, text, kind), report)
        report.check()

    def decode(
        self,
        texts: Iterable[str],
        progress: bool = False,
        kind: str = "source",
        first: int = 1,
        report: Report | None = None,
    ) -> Iterator[list[Hypothesis]]:
        """
        Yields each text's hypotheses, in the order of the texts; an empty text gives an empty hypothesis.

        Args:
            progress: Whether to show it.
            kind, first: Name of a text, such as "line", and number of the first one, for messages.
            report: Counts what is said in the end; of a call's own by default.

        Raises:
            ArgumentError: A source is too long and `overlong` is "error": before any is decoded if the texts are a
                list, or else before those are that are sorted together.
        """
        report = report or self.new_report()
        if isinstance(texts, str):
            texts = [texts]
        if isinstance(texts, Sequence):
            self.check_lengths(texts, kind, first)
        places = (Place(number, checked_text(text, number, kind), kind) for number, text in enumerate(texts, first))
        with tqdm(desc="Decoding", unit=" texts", disable=None if progress else True) as bar:
            while window := list(islice(places, self.batch_size * self.batches_ahead)):
                yield from self.decode_window(window, bar, report)
        for line in report.lines():
            self.say(line)

    def decode_window(self, places: list[Place], bar: tqdm, report: Report) -> list[list[Hypothesis]]:
        """Decodes a few batches, the longest texts first, and returns the hypotheses in the order of the texts."""
        nothing = Hypothesis("", 0.0 if self.scores else None)
        results = [[nothing] * (self.config.num_return_sequences or 1) for _ in places]
        encoded = {i: self.encode(place, report) for i, place in enumerate(places) if place.text.strip()}
        report.check()
        # A tokenizer that adds no end token makes nothing of some texts, such as a lone accent.
        encoded = {i: ids for i, ids in encoded.items() if ids}
        bar.update(len(places) - len(encoded))
        order = sorted(encoded, key=lambda i: len(encoded[i]), reverse=True)
        out_of_positions = []
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            decoded = self.generate([encoded[i] for i in chosen])
            for i, (hypotheses, unended) in zip(chosen, decoded, strict=True):
                results[i] = hypotheses
                out_of_positions += [i] * unended
            bar.update(len(chosen))
        for i in sorted(out_of_positions):
            report.unended.add(places[i], f"has {len(encoded[i]):,} tokens")
        return results

    def encode(self, place: Place, report: Report) -> list[int]:
        """Returns a text's tokens, cut to the limit."""
        (encoded,) = self.encoder([place.text])
        report.see(encoded.length, place)
        return encoded.ids

    @torch.inference_mode()
    def generate(self, sources: list[list[int]]) -> list[tuple[list[Hypothesis], bool]]:
        """Decodes one batch; each source's hypotheses, and whether positions ran out before one of them had ended."""
        padded = self.source.pad({"input_ids": sources}, padding_side="right", return_tensors="pt")
        batch = padded.to(self.model.device)
        with own_stop_strings(self.model.generation_config, self.options) as options:
            output = self.model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **options
            )
        if self.is_assisted and self.stops is not None:
            self.cut_at_stop(output)
        texts = self.target.batch_decode(output.sequences, skip_special_tokens=True)
        scores = self.log_probabilities(output) if self.scores else [None] * len(texts)
        hypotheses = [Hypothesis(*pair) for pair in zip(texts, scores, strict=True)]
        unended = self.out_of_positions(output.sequences)
        width = len(hypotheses) // len(sources)
        starts = range(0, len(hypotheses), width)
        return [(hypotheses[i : i + width], any(unended[i : i + width])) for i in starts]

    def cut_at_stop(self, output) -> None:
        """Cuts a text, and its logits, where a stop string ends: of a draft several tokens are taken at a time."""
        assert self.stops is not None
        prompt = self.options.get("decoder_input_ids")
        first = 2 if prompt is None else prompt.shape[1] + 1
        length = output.sequences.shape[1]
        stops = (end for end in range(first, length) if bool(self.stops(output.sequences[:, :end])))
        end = next(stops, length)
        output.sequences = output.sequences[:, :end]
        if self.scores:
            output.logits = output.logits[: len(output.logits) - (length - end)]

    def log_probabilities(self, output) -> list[float]:
        """Returns the log-probability of each sequence, up to and including its end token."""
        beams = getattr(output, "beam_indices", None)
        steps = self.model.compute_transition_scores(output.sequences, output.logits, beams, normalize_logits=True)
        tokens = output.sequences[:, -steps.shape[1] :]
        ends = self.is_end(tokens)
        first_end = ends & (ends.cumsum(dim=-1) == 1)
        after_end = (ends.cumsum(dim=-1) > 0) & ~first_end  # padding is not part of the text
        if self.options.get("stopping_criteria"):
            # These end a text without an end token, and padding is all that tells where.
            trailing = (tokens == self.padding()).flip(-1).cumprod(dim=-1).flip(-1).bool()
            after_end |= trailing & ~(first_end & ~self.is_stopped(output, trailing & first_end))
        return steps.masked_fill(after_end, 0.0).sum(dim=-1).tolist()

    def is_stopped(self, output, first_end: torch.Tensor) -> torch.Tensor:
        """Returns for each sequence (B, 1) whether a criterion ended it before its first end token, if it has one."""
        stopped = torch.zeros_like(first_end[:, :1])
        start = output.sequences.shape[1] - first_end.shape[1]
        for row, step in first_end.nonzero().tolist():
            before = output.sequences[row : row + 1, : start + step]
            criteria = self.options["stopping_criteria"]
            stopped[row] = step > 0 and any(bool(each(before, output.logits[step - 1][:1])) for each in criteria)
        return stopped

    def is_end(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns where end tokens are: those of the generation config and not the tokenizer's, if they differ."""
        ends = self.config.eos_token_id
        ends = [] if ends is None else ends
        return torch.isin(tokens, torch.tensor(ends, device=tokens.device, dtype=tokens.dtype))

    def padding(self) -> int:
        """Returns the token that `generate()` puts behind a text that has ended."""
        ends = self.config.eos_token_id
        first_end = ends[0] if isinstance(ends, list) else ends
        chosen = first_end if self.config.pad_token_id is None else self.config.pad_token_id
        return -1 if chosen is None else chosen

    def out_of_positions(self, sequences: torch.Tensor) -> list[bool]:
        """Returns for each sequence whether it ended at the model's last position and not by itself."""
        if self.positions is None or sequences.shape[1] <= self.positions:
            return [False] * len(sequences)
        ended = self.is_end(sequences[:, 1:]).any(dim=-1) | (sequences[:, -1] == self.padding())
        return (~ended).tolist()


def quicken(model: PreTrainedModel) -> None:
    """Joins and packs a model's products on a CPU. On a GPU a step gains nothing by it."""
    fuse: Any = getattr(model, "fuse_projections", None)
    if fuse is not None and model.device.type == "cpu":
        fuse()


class StopTexts(StoppingCriteria):
    """
    Ends a text that has one of some strings.

    The library's own looks for them in the names of tokens, which it cannot make out for tokenizers of whole words.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: list[str]):
        self.tokenizer, self.strings = tokenizer, strings

    def __call__(  # type: ignore[override]
        self, input_ids: torch.Tensor, scores: torch.Tensor | None = None, **kwargs
    ) -> torch.Tensor:
        texts = self.tokenizer.batch_decode(input_ids, skip_special_tokens=True)
        return torch.tensor([any(each in text for each in self.strings) for text in texts], device=input_ids.device)


@contextmanager
def own_stop_strings(config: GenerationConfig, options: dict) -> Iterator[dict]:
    """Yields options without `stop_strings`, which `StopTexts` looks for; the model's config has none meanwhile."""
    options, kept = {name: value for name, value in options.items() if name != "stop_strings"}, config.stop_strings
    if (given := options.get("generation_config")) is not None:
        options["generation_config"] = copy.deepcopy(given)
        options["generation_config"].stop_strings = None
    config.stop_strings = None
    try:
        yield options
    finally:
        config.stop_strings = kept


def load_assistant(
    name: str, model: PreTrainedModel, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """
    Loads a smaller model that drafts a larger one's texts.

    Raises:
        ArgumentError: It does not load, or its tokens are others.
    """
    own = load_tokenizers(name)
    for side, theirs, ours in zip(("source", "target"), own, (source, target), strict=True):
        if theirs.get_vocab() != ours.get_vocab():
            raise ArgumentError(f"assistant_model {name}: its {side} tokens are not those of {model.name_or_path}")
    return load_model(name, dtype=model.dtype).to(model.device)  # type: ignore[arg-type]


def check_options(model: PreTrainedModel, options: dict) -> GenerationConfig:
    """
    Checks the values of `generate()`'s options as the library does, before anything is decoded.

    Returns:
        What `generate()` will go by.

    Raises:
        ArgumentError: It refuses one. Names that it does not know are left to `generate()`.
    """
    config = copy.deepcopy(model.generation_config)
    with blame("decoding", ValueError, TypeError):
        if (given := options.get("generation_config")) is not None:
            config.update(**{name: value for name, value in given.to_dict().items() if value is not None})
        config.update(**options)
        for name, warper in WARPERS.items() if config.do_sample else ():
            value = getattr(config, name)
            # 0 switches `top_k` off, and 1 the others.
            if value not in (None, 1) and (name, value) != ("top_k", 0):
                warper(value)
    check_stop_strings(config.stop_strings)
    check_prompt_tuning(model, config, options)
    for name in ("assistant_model", "prompt_lookup_num_tokens"):
        is_given = options.get(name) is not None or getattr(config, name, None) is not None
        if is_given and (config.num_beams or 1) > 1:
            raise ArgumentError(f"{name} does not go with num_beams {config.num_beams}: drafts need num_beams 1")
    return config


def check_stop_strings(stops: Any) -> None:
    """
    Checks the strings that end a text.

    Raises:
        ArgumentError: One is no string, or empty: every text would end with its first token.
    """
    for each in stops if isinstance(stops, list | tuple) else [] if stops is None else [stops]:
        if not isinstance(each, str) or not each:
            raise ArgumentError(f"stop_strings has {each!r}: give strings of one character or more, or leave it out")


def checked_text(text: Any, number: int, kind: str) -> str:
    """Returns a text as it is; raises ArgumentError if it is none."""
    if not isinstance(text, str):
        raise ArgumentError(f"{kind} {number} is {text!r:.80}, and a text is wanted")
    return text


def check_prompt_tuning(model: PreTrainedModel, config: GenerationConfig, options: dict) -> None:
    """
    Checks options that cannot go with a prompt that PEFT has learned: `generate()` gets features in place of tokens.

    Raises:
        ArgumentError: One looks at the source's tokens, or an assistant would read a source without the prompt.
    """
    adapter = getattr(model, "active_peft_config", None)
    if adapter is None or not adapter.is_prompt_learning or adapter.peft_type == "PREFIX_TUNING":
        return
    unused = {"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0, "assistant_model": None}
    for name, neutral in unused.items():
        value = options.get(name, getattr(config, name, None))
        if value not in (None, neutral):
            said = name if name == "assistant_model" else f"{name} {value}"
            raise ArgumentError(f"{said} does not go with prompt tuning or P-tuning: leave it out")
