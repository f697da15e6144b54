# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Decodes texts in batches of similar length with `generate()`, and returns them in order."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import LogitsProcessorList, StoppingCriteriaList
from transformers.utils import logging

from ..checkpoints.averaging import note_of_averages
from ..checkpoints.languages import languages_of
from ..checkpoints.loading import attention_on, load_model, load_tokenizers
from ..checkpoints.number_formats import in_fast_format
from ..checkpoints.quantization import load_quantized
from ..checkpoints.vocabulary import check_vocabulary
from ..data.encoding import TextEncoder
from ..data.templates import beginnings_of
from ..errors import ArgumentError
from ..models import XformerConfig
from .batches import FIRST_WINDOW, LAST_WINDOW, BatchSize, is_out_of_memory, windows
from .beginnings import AllowedTexts, TargetEncoder
from .compiling import check_compiling, compiled
from .forced_words import Words, check_force_words
from .hypotheses import Hypothesis
from .languages import Languages
from .lengths import Report, SourceLengths, greatest_length, longest_target, room, width_of, within_positions
from .log_probabilities import lengths_of, log_probabilities
from .options import (
    OF_LENGTH,
    candidates_of,
    check_assistant,
    check_hypotheses,
    check_options,
    drafts_of,
    mask_for_assistant,
    risk_of,
    with_assistant,
    with_own_length,
)
from .search import Search, is_implemented
from .stopping import StopTexts, ended_by_themselves, own_stop_strings
from .tally import Place, checked_text, numbered


if TYPE_CHECKING:
    from .mbr import MinimumBayesRisk

logger = logging.get_logger(__name__)

KEPT_LOGITS = 64  # sources at a time where the library keeps the logits of every step


class Decoder:
    """
    Decodes texts with one model. `Decoder.from_pretrained(checkpoint)` finds the model's tokenizers itself.

    A result depends on its text alone, whatever is decoded beside it. A text ends at the last position that the model
    has, at the latest.

    Args:
        model: Any transformers sequence-to-sequence model.
        source, target: Its tokenizers; often the same.
        batch_size: Sources at a time; by default as many as make a processor busy, 8,192 source tokens times beams on
            a CPU and 131,072 or what fits its free memory on an accelerator. It is halved where memory ends. 1 for
            assisted decoding, which the library has for nothing else.
        max_source_length: Most tokens of a source that is not too long; by default those of the longest one that the
            model was trained on, as the source's tokenizer records it in `model_max_length`.
        scores: Whether to compute log-probabilities. The library's own loops, for stock models and for sampling, keep
            the logits of every step for them.
        overlong: What to do with longer sources: "keep", the default, decodes them whole as far as the model has
            positions; "truncate", the default if there is a `max_source_length`, cuts them; "error" refuses them.
        say: Is told what was kept, cut or ended early, a line each; by default the library's log.
        compile: Whether to compile the steps of decoding, which takes up to a minute once, and then to decode by the
            library's own loops, in batches that no text leaves before its last one has ended.
        mbr: Metric by which a source's hypotheses are sorted: those come first that are most like all of them (minimum
            Bayes risk decoding). Such as "chrf", or a `MinimumBayesRisk`. They are `num_return_sequences` samples, or
            beams, by default all of them, which have scores.
        allowed: The only texts that there can be.
        src_lang, tgt_lang: Languages of the sources and of the texts, for a model with tokens for them.
        options: Arguments of `generate()`; `num_return_sequences` is the number of hypotheses a source: beams, best
            first, or samples as they were drawn.
            `assistant_model` may be the name of a checkpoint, and `stop_strings` need no tokenizer.

    Raises:
        ArgumentError: An option has a value that `generate()` would refuse or pass over, there is no length that
            `overlong` could go by, or the assistant has other tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        source: PreTrainedTokenizerBase,
        target: PreTrainedTokenizerBase,
        batch_size: int | None = None,
        max_source_length: int | None = None,
        scores: bool = False,
        overlong: str | None = None,
        say: Callable[[str], object] = logger.warning,
        compile: bool = False,
        mbr: "str | MinimumBayesRisk | None" = None,
        allowed: Iterable[str] | None = None,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        **options,
    ):
        self.mbr = risk_of(mbr)
        if (src_lang or tgt_lang) and languages_of(source):  # which are set on the tokenizer, and are this decoder's
            source, target = copy.deepcopy((source, target))
        self.model, self.source, self.target, self.scores, self.say = model.eval(), source, target, scores, say
        self.languages, self.beginnings = Languages(source, target, src_lang, tgt_lang), beginnings_of(source)
        self.is_length_asked = any(options.get(name) is not None for name in OF_LENGTH)
        options = with_own_length(options | self.languages.options)
        self.config = check_options(model, options)
        if self.mbr is not None:
            self.config.num_return_sequences = options["num_return_sequences"] = candidates_of(self.config)
            self.scores = self.scores or not self.config.do_sample
        self.options = options | {"return_dict_in_generate": True}
        self.positions = room(model, "decoder")
        self.targets = TargetEncoder(target, self.config, self.positions)
        if allowed is not None:
            self.allow(allowed)
        if compile:
            self.options |= compiled(model, self.config, options)
        self.is_own = isinstance(model.config, XformerConfig)
        if not self.is_own:  # which generates no further by itself
            self.options |= within_positions(self.positions, self.config, options.get("decoder_input_ids"))
        self.options = with_assistant(self.options, model, source, target)
        self.stops: StopTexts | None = None
        if (stops := self.config.stop_strings) is not None:
            self.stops = StopTexts(target, [stops] if isinstance(stops, str) else stops)
            criteria = [*(options.get("stopping_criteria") or ()), self.stops]
            self.options["stopping_criteria"] = StoppingCriteriaList(criteria)
        self.is_assisted = bool(drafts_of(self.config, options))
        self.searches = not compile and is_implemented(model, self.config, self.options)
        if self.searches:
            self.options |= {"custom_generate": Search(self.scores)}
        elif self.scores:
            self.options |= {"output_logits": True}
        self.batch_size = self.choose_batch_size(batch_size)
        self.lengths = SourceLengths(room(model, "encoder"), source, max_source_length, overlong)
        self.encoder = TextEncoder(source, self.lengths.limit)
        self.first_window, self.read_ahead = FIRST_WINDOW, LAST_WINDOW
        self.seed: int | None = None  # by which samples follow from it and from the texts that are read ahead together

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        trust_remote_code: bool = False,
        revision: str | None = None,
        token: str | None = None,
        quantization: str | None = None,
        **options,
    ) -> "Decoder":
        """
        Loads a checkpoint's model with its tokenizers, the target's own too if it has one.

        Args:
            checkpoint: Folder or Hub name.
            device: By default the accelerator, if there is one.
            dtype: Type of the weights; "auto" for the checkpoint's, or float32 on a CPU where that one is slow.
            trust_remote_code: Whether code that comes with the checkpoint may run.
            revision, token: Of the Hub.
            quantization: "int8" or "int4" for weights of so many bits, rounded as they are loaded.
            options: Those of the class and of `generate()`.

        Raises:
            ArgumentError: The checkpoint does not load, its tokenizers do not fit it, or an option is refused.
        """
        device = PartialState().default_device if device is None else torch.device(device)
        if options.get("compile"):
            check_compiling(device, options)
        if isinstance(name := options.get("assistant_model"), str):
            check_assistant(name)
        options["mbr"] = risk_of(options.get("mbr"))
        given: dict[str, Any] = {"revision": revision, "token": token}
        hub = {name: value for name, value in given.items() if value is not None}
        source, target = load_tokenizers(checkpoint, trust_remote_code=trust_remote_code, **hub)
        loading: dict[str, Any] = {"trust_remote_code": trust_remote_code, "dtype": dtype}
        loading |= attention_on(device) | hub
        say = options.get("say", logger.warning)
        if quantization is None:
            model = in_fast_format(load_model(checkpoint, **loading), device, dtype, say)
            check_vocabulary(model.config, source, target)
            model = model.to(device)  # type: ignore[arg-type]
            if not options.get("compile"):  # a graph has its own products
                quicken(model)
        else:  # on the device already, and in layers that make no products
            model = load_quantized(checkpoint, quantization, device, say, **loading)
            check_vocabulary(model.config, source, target)
        if note := note_of_averages(checkpoint):
            say(note)
        return cls(model, source, target, **options)

    def allow(self, texts: Iterable[str]) -> None:
        """Has each text be one of these; raises ArgumentError if the options, or the texts themselves, forbid that."""
        if self.options.get("decoder_input_ids") is not None:
            raise ArgumentError("allowed does not go with decoder_input_ids: leave one of them out")
        own = self.targets.allowed = AllowedTexts(list(texts), self.targets, self.say)
        self.options["logits_processor"] = LogitsProcessorList([*(self.options.get("logits_processor") or ()), own])
        check_hypotheses(self.config, own.count)

    def choose_batch_size(self, given: int | None) -> BatchSize:
        """Returns what decides the sizes of batches."""
        if self.is_assisted:
            given = 1
        elif given is None and "output_logits" in self.options:
            given = KEPT_LOGITS
        rows = max(self.config.num_beams or 1, self.config.num_return_sequences or 1)
        # Samples follow from the seed and the batches, which must not follow from the memory that is free.
        return BatchSize(given, rows, self.model.device, bounded=not self.config.do_sample)

    def new_report(self) -> Report:
        """Returns the counts, all of them 0, of one call of `decode`."""
        return Report(self.lengths, self.positions, self.beginnings)

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
        prefixes: Iterable[str] | None = None,
        force_words: Iterable[Sequence[str]] | None = None,
    ) -> Iterator[list[Hypothesis]]:
        """
        Yields each text's hypotheses, in the order of the texts; an empty text gives an empty hypothesis.

        Args:
            progress: Whether to show it.
            kind, first: Name of a text, such as "line", and number of the first one, for messages.
            report: Counts what is said in the end; of a call's own by default.
            prefixes: For each text the beginning of its target; "" for none.
            force_words: For each text the words that its target must hold, for beams; [] for none.

        Raises:
            ArgumentError: A source is too long and `overlong` is "error": before any is decoded if the texts are a
                list, or else before those are that are sorted together. Or there is not a prefix, or a list of words,
                for each text.
        """
        report = report or self.new_report()
        if isinstance(texts, str):
            texts = [texts]
        if isinstance(texts, Sequence):
            self.check_lengths(texts, kind, first)
        if prefixes is not None and self.options.get("decoder_input_ids") is not None:
            raise ArgumentError("prefixes do not go with decoder_input_ids: leave one of them out")
        if force_words is not None:
            check_force_words(self.config, self.searches, self.targets.allowed is not None)
        places = numbered(texts, prefixes, force_words, kind, first)
        with tqdm(desc="Decoding", unit=" texts", disable=None if progress else True) as bar:
            for window in windows(places, self.read_ahead, self.first_window):
                if self.seed is not None:
                    torch.manual_seed(Random(f"{self.seed} {window[0].number}").getrandbits(32))
                decoded = self.decode_window(window, bar, report)
                if self.mbr is not None:
                    found, unended = zip(*decoded, strict=True)
                    sources = [place.text for place in window]
                    found = self.mbr.sort(sources, found, by_probability=not self.config.do_sample)
                    decoded = zip(found, unended, strict=True)
                for place, (hypotheses, tokens) in zip(window, decoded, strict=True):
                    report.see_written(place, hypotheses[:1] if self.mbr else hypotheses, tokens, self.is_length_asked)
                    yield hypotheses
        for line in report.lines():
            self.say(line)

    def decode_window(self, places: list[Place], bar: tqdm, report: Report) -> Iterator[tuple[list, int | None]]:
        """Yields texts' hypotheses in their order, and how long the source is if positions ran out before an end."""
        encoded = {i: self.encode(place, report) for i, place in enumerate(places) if place.text.strip()}
        report.check()
        # A tokenizer that adds no end token makes nothing of some texts, such as a lone accent.
        encoded = {i: ids for i, ids in encoded.items() if ids}
        nothing = [Hypothesis("", *((0.0, 0) if self.scores else ()))] * (self.config.num_return_sequences or 1)
        results: dict[int, tuple] = {i: (nothing, None) for i in range(len(places)) if i not in encoded}
        bar.update(len(results))
        prompts = {i: self.targets.prompt(places[i], report.misread) for i in encoded}
        words = {i: self.targets.words(places[i]) for i in encoded}
        given = 0
        for chosen, decoded in self.decode_batches(encoded, prompts, words):
            for i, (hypotheses, unended) in zip(chosen, decoded, strict=True):
                results[i] = hypotheses, len(encoded[i]) if unended else None
                self.targets.check_words(places[i], [each.text for each in hypotheses], report.wordless)
            bar.update(len(chosen))
            while given in results:
                yield results.pop(given)
                given += 1
        for i in range(given, len(places)):
            yield results[i]

    def decode_batches(
        self, encoded: dict[int, list[int]], prompts: dict[int, list[int]], words: dict[int, Words]
    ) -> Iterator[tuple[list[int], list]]:
        """Yields the numbers of the sources of a batch and what became of them; halves batches where memory ends."""
        lengths = {i: len(ids) for i, ids in encoded.items()}
        while lengths:
            for chosen in self.batches(lengths, prompts):
                told: dict[str, Any] = {}
                if prompts[chosen[0]]:
                    told["prompts"] = [prompts[i] for i in chosen]
                if any(words[i].total for i in chosen):
                    told["words"] = [words[i] for i in chosen]
                decoded = self.generate_within_memory([encoded[i] for i in chosen], **told)
                if decoded is None:
                    break
                for i in chosen:
                    del lengths[i]
                yield chosen, decoded

    def batches(self, lengths: dict[int, int], prompts: dict[int, list[int]]) -> list[list[int]]:
        """Returns the sources of each batch, whose prompts have one length; arguments by the sources' numbers."""
        widths: dict[int, dict[int, int]] = {}
        for i, length in lengths.items():
            widths.setdefault(len(prompts[i]), {})[i] = length
        most = longest_target(self.config)
        of_each = (self.batch_size.batches(group, self.model.config, most) for group in widths.values())
        return sorted((batch for group in of_each for batch in group), key=min)

    def generate_within_memory(self, sources: list[list[int]], **told: Any) -> list | None:
        """Decodes one batch, as `generate` does; None if memory has ended, after which batches are smaller."""
        try:
            return self.generate(sources, **told)
        except (RuntimeError, MemoryError) as error:
            if len(sources) == 1 or not is_out_of_memory(error):
                raise
        # Here the error has gone, and with it all that its frames held.
        clear_device_cache(garbage_collection=True)
        longest = max(map(len, sources))
        if not self.batch_size.is_halved:
            self.say(f"memory ended with {len(sources):,} sources of {longest:,} tokens: batches are halved")
        self.batch_size.halve(len(sources), longest)
        return None

    def encode(self, place: Place, report: Report) -> list[int]:
        """Returns a text's tokens, cut to the limit."""
        text = self.languages(place.text)
        (encoded,) = self.encoder([text])
        if self.languages.lacks(place):
            report.untold.add(place, "is")
        elif not text.startswith(self.beginnings or ""):
            report.unlike.add(place, "is")
        report.see(encoded.length, place)
        if unknown := self.encoder.unknown_in(encoded.ids):
            report.unknown.add(place, f"has {unknown:,} of {len(encoded.ids):,}")
        return encoded.ids

    @torch.inference_mode()
    def generate(
        self,
        sources: list[list[int]],
        prompts: list[list[int]] | None = None,
        words: list[Words] | None = None,
    ) -> list[tuple[list[Hypothesis], bool]]:
        """
        Decodes one batch.

        Args:
            sources: Tokens of each.
            prompts: Tokens with which the text of each begins, equally many; those of the options by default.
            words: Those that the text of each must hold.

        Returns:
            Each source's hypotheses, and whether positions ran out before one of them had ended.
        """
        padded = self.source.pad({"input_ids": sources}, padding_side="right", return_attention_mask=True)
        batch = padded.convert_to_tensors("pt").to(self.model.device)
        with own_stop_strings(self.model.generation_config, self.options) as options:
            options |= self.prompt_options(options.get("decoder_input_ids"), prompts, len(sources))
            options |= mask_for_assistant(options, self.model)
            if words is not None:
                options["custom_generate"] = Search(self.scores, words)
            prompt = options.get("decoder_input_ids")
            width = width_of(prompt, self.config)
            if self.stops is not None:
                self.stops.width = width
            output = self.model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **options
            )
        if self.is_assisted and self.stops is not None:
            self.stops.cut(output, 1 if prompt is None else prompt.shape[1])
        hypotheses = self.hypotheses_of(output, width)
        is_at_end = self.positions is not None and output.sequences.shape[1] > self.positions
        count = len(hypotheses) // len(sources)
        of_each = [hypotheses[i : i + count] for i in range(0, len(hypotheses), count)]
        return [(some, is_at_end and not all(each.ended for each in some)) for some in of_each]

    def prompt_options(
        self, given: torch.Tensor | None, prompts: list[list[int]] | None, count: int
    ) -> dict[str, Any]:
        """Returns the options by which a batch of `count` texts begins: with prompts of its own, or the given one."""
        if prompts is None:
            return {} if given is None or len(given) > 1 else {"decoder_input_ids": given.expand(count, -1)}
        own = torch.tensor(prompts, device=self.model.device)
        return {"decoder_input_ids": own} | ({} if self.is_own else within_positions(self.positions, self.config, own))

    def hypotheses_of(self, output, width: int) -> list[Hypothesis]:
        """Returns the texts that `generate()` has returned behind prompts of `width` tokens."""
        texts = self.targets.texts(output.sequences.tolist())
        most = greatest_length(self.config, width, self.positions, self.is_own)
        ended = ended_by_themselves(output.sequences, width, most, self.config, self.stops)
        unknown = map(self.targets.unknown_in, output.sequences[:, width:].tolist())
        found = zip(texts, ended, unknown, strict=True)
        hypotheses = [Hypothesis(text, ended=by_itself, unknown=lost) for text, by_itself, lost in found]
        if not self.scores:
            return hypotheses
        scored = zip(hypotheses, self.scores_of(output, width), strict=True)
        return [replace(each, score=score, length=length) for each, (score, length) in scored]

    def scores_of(self, output, width: int) -> Iterator[tuple[float, int]]:
        """Yields the log-probability of each text and how many tokens it has, both with its end token."""
        criteria = [] if self.searches else self.options.get("stopping_criteria") or []
        lengths = getattr(output, "lengths", None)
        lengths = lengths_of(output, width, self.config, criteria) if lengths is None else lengths.tolist()
        if self.searches:
            return zip(output.log_probabilities.tolist(), lengths, strict=True)
        return zip(log_probabilities(self.model, output, self.config, criteria), lengths, strict=True)


def quicken(model: PreTrainedModel) -> None:
    """Joins and packs a model's products on a CPU. On a GPU a step gains nothing by it."""
    fuse: Any = getattr(model, "fuse_projections", None)
    if fuse is not None and model.device.type == "cpu":
        fuse()
