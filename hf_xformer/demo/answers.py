# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Answers of the page: the best texts for a source, where the model looked, and what to say if there are none."""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig

from ..data.pictures import can_plot
from ..decoding.attention_maps import cross_attention, draw_attention
from ..decoding.decoder import Decoder
from ..decoding.hypotheses import Hypothesis
from ..errors import ArgumentError, InputError, one_line


if TYPE_CHECKING:  # an extra
    from matplotlib.figure import Figure

# Tokens of a text if neither the tokenizer nor the model says how many there may be.
MOST_TOKENS = 1024
# Options of `generate()` that draft texts, and take neither beams nor several texts for a source.
DRAFTS = ("prompt_lookup_num_tokens", "assistant_early_exit")
TITLE = "cross-attention of the best text,\nmean of all layers and heads"


@dataclass(frozen=True)
class Answer:
    """Texts for a source, the best first; a picture of where the model looked; lines on what is missing, and why."""

    hypotheses: list[Hypothesis] = field(default_factory=list)
    picture: "Figure | None" = None
    lines: list[str] = field(default_factory=list)


class Answers:
    """
    Answers texts with one model, which it loads once.

    Args:
        checkpoint: Folder or Hub name.
        num_beams, n_best: Beams, and texts for a source.
        say: Is told in a line which options of the checkpoint are left out.
        trust_remote_code: Whether code that comes with the checkpoint may run.
        options: Others of `Decoder.from_pretrained`.

    Raises:
        ArgumentError: The checkpoint does not load, or an option is refused.
    """

    def __init__(
        self,
        checkpoint: str,
        num_beams: int,
        n_best: int,
        say: Callable[[str], object],
        trust_remote_code: bool = False,
        **options: Any,
    ):
        drafts: dict[str, Any] = dict.fromkeys(DRAFTS) if num_beams > 1 else {}
        self.decoder = Decoder.from_pretrained(
            checkpoint,
            trust_remote_code=trust_remote_code,
            num_beams=num_beams,
            num_return_sequences=n_best,
            batch_size=1,
            scores=True,
            say=say,
            **drafts,
            **options,
        )
        self.decoder.say = lambda line: None  # each answer has the lines of its own
        # The only attention that returns its weights.
        self.decoder.model.set_attn_implementation("eager")
        stored = self.decoder.model.generation_config
        if left_out := left_out_of(stored, drafts):
            say(f"{checkpoint}: {left_out} of its generation config is left out: drafts need --num_beams 1")

    @property
    def most_tokens(self) -> int:
        """The most tokens that a text may have."""
        limits = (self.decoder.lengths.positions, self.decoder.lengths.trained)
        return min((limit for limit in limits if limit is not None), default=MOST_TOKENS)

    def decode(self, text: str) -> tuple[list[Hypothesis], list[str]]:
        """
        Returns the best texts for a source, and a line on each that had no room to end.

        Raises:
            ArgumentError: The text is empty, or too long.
        """
        if not text.strip():
            raise ArgumentError("There is no text.")
        (encoded,) = self.decoder.encoder([self.decoder.languages(text)])
        if encoded.length > self.most_tokens:
            raise ArgumentError(f"The text has {encoded.length:,} tokens, and {self.most_tokens:,} are the most here.")
        if not encoded.ids:
            raise ArgumentError("The tokenizer makes nothing of this text.")
        report = self.decoder.new_report()
        (hypotheses,) = self.decoder.decode([text], report=report)
        return hypotheses, report.lines()

    def answer(self, text: str) -> Answer:
        """Returns what the page shows for a text; an error is a line of it, and a bug's traceback is printed here."""
        try:
            hypotheses, lines = self.decode(text)
        except Exception as error:
            return Answer(lines=[described(error)])
        picture = None
        try:
            picture = self.draw(text, hypotheses[0].text)
        except Exception as error:
            lines = [*lines, f"No picture: {described(error)}"]
        return Answer(hypotheses, picture, lines)

    def draw(self, source: str, target: str) -> "Figure | None":
        """
        Returns a picture of where the model looks while it writes the target; None without matplotlib.

        Raises:
            ArgumentError: One of the texts has too many tokens for a picture, or the target has none.
        """
        if not can_plot():
            return None
        decoder = self.decoder
        sides = (decoder.source, decoder.target, source, target)
        weights, rows, columns = cross_attention(decoder.model, *sides, languages=decoder.languages)
        if not columns:
            raise ArgumentError("the best text is empty")
        return draw_attention(weights, rows, columns, TITLE)


def left_out_of(config: GenerationConfig, drafts: Iterable[str]) -> str:
    """Returns in words which options of a generation config are left out; nothing if none is."""
    values = {name: getattr(config, name, None) for name in drafts}
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def described(error: Exception) -> str:
    """Returns an error as a line; of a bug the traceback is printed, since the page goes on."""
    if isinstance(error, InputError):
        return one_line(error)
    traceback.print_exception(error)
    return f"Decoding failed: {type(error).__name__}: {one_line(error)}"
