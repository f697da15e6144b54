# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Compares lengths of texts with what a model was trained on and has positions for; says what is kept or cut."""

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..checkpoints.lengths import position_limit, trained_length
from ..errors import ArgumentError, wrong_choice
from .hypotheses import Hypothesis
from .tally import LISTED, Place, Tally, shortened


OVERLONG = ("keep", "truncate", "error")
LIBRARY_LENGTH = 20  # tokens of a text, if no option says how many


def room(model: PreTrainedModel, stack: str) -> int | None:
    """
    Returns the most tokens that a text may have: the model's positions without those of an adapter's prompt or prefix.

    Args:
        stack: The "encoder", which reads sources, or the "decoder".

    Returns:
        None if no limit is known.
    """
    limit, adapter = position_limit(model.config, stack), getattr(model, "active_peft_config", None)
    if limit is None or adapter is None or not adapter.is_prompt_learning:
        return limit
    takes = "decoder" if adapter.peft_type == "PREFIX_TUNING" else "encoder"
    return limit - adapter.num_virtual_tokens if takes == stack else limit


class SourceLengths:
    """
    Decides what becomes of sources that are too long.

    Args:
        positions: Tokens that any source may have at most; None if there is no limit.
        tokenizer: The source's, which records how long the sources were that the model was trained on.
        longest: That length, in place of the tokenizer's.
        overlong: What to do with longer sources: "keep" them whole as far as there are positions, "truncate" them, or
            "error" to refuse them. By default they are kept, or truncated if `longest` is given.

    Raises:
        ArgumentError: There is no such `overlong`, or no length that it could go by.
    """

    def __init__(
        self, positions: int | None, tokenizer: PreTrainedTokenizerBase, longest: int | None, overlong: str | None
    ):
        if overlong not in (None, *OVERLONG):
            raise ArgumentError(f"overlong: {wrong_choice(overlong, OVERLONG)}")
        self.overlong = overlong or ("keep" if longest is None else "truncate")
        self.positions = positions
        self.trained = trained_length(tokenizer) if longest is None else longest
        self.known = "asked for" if longest is not None else "that the model's tokenizer records"
        if self.overlong != "keep" and self.limit is None:
            raise ArgumentError(
                f"overlong {overlong}: {tokenizer.name_or_path or 'the tokenizer'} records no length of sources, and "
                "the model has positions for any: give max_source_length"
            )

    @property
    def limit(self) -> int | None:
        """Most tokens of a source, beyond which it is cut."""
        limits = [self.positions, None if self.overlong == "keep" else self.trained]
        return min((each for each in limits if each is not None), default=None)

    def why(self, limit: int | None) -> str:
        """Returns in words where a limit comes from."""
        return self.known if limit == self.trained else "that the model has positions for"


class Report:
    """
    Counts the texts of one call of which not all is read or written.

    Args:
        sources: What becomes of those that are too long.
        positions: Tokens that a target may have at most; None if there is no limit.
        beginnings: Texts with one of which each source of the training began; none if some had none.
    """

    def __init__(self, sources: SourceLengths, positions: int | None, beginnings: tuple[str, ...] = ()):
        self.sources, self.positions, self.beginnings = sources, positions, beginnings
        self.kept, self.cut, self.refused, self.unended = Tally(), Tally(), Tally(), Tally()
        self.unknown = Tally()  # of which the tokenizer does not know all
        self.unwritten = Tally()  # whose text is without its unknown tokens
        self.misread = Tally()  # whose prefix the target's tokenizer reads as another text
        self.wordless = Tally()  # whose text ended before it had all of its words
        self.cut_off = Tally()  # whose text ended at the greatest length of the checkpoint's generation config
        self.as_asked = Tally()  # or at the length that was asked for
        self.untold = Tally()  # that are told no language, as those of the training are
        self.unlike = Tally()  # that begin with something else than those of the training

    @property
    def without_end(self) -> int:
        """Texts that some length has ended."""
        return self.cut_off.count + self.as_asked.count + self.unended.count

    def see(self, length: int, place: Place) -> None:
        """Counts a source of so many tokens if it is too long."""
        limit, what = self.sources.limit, f"has {length:,} tokens"
        if limit is not None and length > limit:
            (self.refused if self.sources.overlong == "error" else self.cut).add(place, what)
        elif self.sources.trained is not None and length > self.sources.trained:
            self.kept.add(place, what)

    def see_written(self, place: Place, written: list[Hypothesis], tokens: int | None, is_asked: bool) -> None:
        """
        Counts a source whose texts are not whole: the best of them, but of those that lost unknown tokens any.

        Args:
            written: Texts that are returned, the best first.
            tokens: Those of the source, if positions ran out before a text had ended.
            is_asked: Whether an option says how long texts may become.
        """
        best = written[0]
        if tokens is not None:
            self.unended.add(place, f"has {tokens:,} tokens")
        elif not best.ended:
            (self.as_asked if is_asked else self.cut_off).add(place, f"became {shortened(best.text)}")
        if lossy := next((each for each in written if each.unknown), None):
            self.unwritten.add(place, f"lost {lossy.unknown:,} and became {shortened(lossy.text)}")

    def check(self) -> None:
        """
        Checks what was seen.

        Raises:
            ArgumentError: Sources were too long, and are to be refused.
        """
        if self.refused.count:
            raise ArgumentError(f"{self.longer(self.refused, self.sources.limit)} (overlong truncate cuts them)")

    def longer(self, tally: Tally, limit: int | None) -> str:
        """Returns in words how many sources are longer than a limit, and which."""
        are = f"{tally.count:,} sources are" if tally.count > 1 else "1 source is"
        return f"{are} longer than the {limit:,} tokens {self.sources.why(limit)}: {tally}"

    def lines(self) -> list[str]:
        """Returns a line for each kind of text of which not all was read or written, with their number."""
        lines = []
        if self.cut.count:
            lines.append(f"cut to {self.sources.limit:,} tokens: {self.longer(self.cut, self.sources.limit)}")
        if self.kept.count:
            said = self.longer(self.kept, self.sources.trained)
            lines.append(f"decoded whole: {said} (overlong truncate cuts them, overlong error refuses them)")
        if self.unended.count:
            where = f"ended at the model's {self.positions:,} positions, without an end token"
            lines.append(f"{where}: {texts_of(self.unended)}")
        if self.cut_off.count:
            where = "cut off at the generation config's greatest length, without an end token"
            lines.append(f"{where}: {texts_of(self.cut_off)} (max_new_tokens says another length)")
        if self.unknown.count:
            lines.append(f"read with unknown tokens in place of text: {self.unknown.count:,}, {self.unknown}")
        if self.unwritten.count:
            lines.append(f"texts without their unknown tokens: {self.unwritten.count:,}, of {self.unwritten}")
        if self.misread.count:
            lines.append(f"prefixes that the target's tokenizer changes: {self.misread.count:,}, of {self.misread}")
        if self.untold.count:
            said = "texts without a token of a language, which those of the training, or their targets, begin with"
            lines.append(f"{said}: {self.untold.count:,}, {self.untold} (tgt_lang puts it there, or source_column)")
        if self.unlike.count:
            begin = " or ".join(map(repr, self.beginnings[:LISTED])) + " ..." * (len(self.beginnings) > LISTED)
            said = f"sources that do not begin as all of the training, with {begin}"
            does = f"(put it before them: --source_column '{self.beginnings[0]}{{source}}' does for evaluate)"
            lines.append(f"{said}: {self.unlike.count:,}, {self.unlike} {does}")
        if self.wordless.count:
            lines.append(f"texts without all of their words: {self.wordless.count:,}, of {self.wordless}")
        return lines


def texts_of(tally: Tally) -> str:
    """Returns in words how many sources' texts were counted, and which."""
    return f"the {f'texts of {tally.count:,} sources' if tally.count > 1 else 'text of 1 source'}: {tally}"


def within_positions(
    limit: int | None, config: GenerationConfig, prompt: torch.Tensor | None = None
) -> dict[str, int]:
    """Returns the option that says how long a text may become, lowered to what a stock decoder has positions for."""
    if limit is None:
        return {}
    width = width_of(prompt, config)
    # The last token is written and not read, and needs no position.
    most = {"max_length": limit + 1, "max_new_tokens": limit + 1 - width}
    name = "max_length" if config.max_new_tokens is None else "max_new_tokens"
    value = getattr(config, name) or LIBRARY_LENGTH
    return {name: most[name]} if value > most[name] else {}


def width_of(prompt: torch.Tensor | None, config: GenerationConfig) -> int:
    """Returns the tokens before those that a model writes: the start token, or a prompt (B, T) with it."""
    if prompt is None:
        return 1
    start = config.decoder_start_token_id
    # Where no row begins with the start token, the library puts it before them.
    return prompt.shape[1] + (start is not None and bool((prompt[:, 0] != start).all()))


def greatest_length(config: GenerationConfig, width: int, positions: int | None, is_own: bool) -> int:
    """
    Returns the most tokens that a text may have, with the `width` before it.

    Args:
        positions: Tokens that the decoder can read; None if there is no limit.
        is_own: Whether the model is the package's.
    """
    is_open = config.max_new_tokens is None and config.max_length is None
    if config.max_new_tokens is None and config.max_length is not None:
        most = config.max_length
    else:
        most = width + (config.max_new_tokens or LIBRARY_LENGTH)
    if positions is None:
        return most
    # The last token needs no position, which the library's own length does not use.
    return min(most, positions if is_open and not is_own else positions + 1)


def longest_target(config: GenerationConfig) -> int | None:
    """Returns the most tokens that a generation config lets a model write; None if it leaves that to the library."""
    if config.max_new_tokens is not None:
        return config.max_new_tokens
    return None if config.max_length is None else config.max_length - 1  # which counts the start token
