# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Turns texts into token ids, in training and in decoding alike: the tokenizer itself cuts what is too long, and a
special token that a text spells out, such as `</s>`, is text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from transformers import BatchEncoding, PreTrainedTokenizerBase

from ..errors import ArgumentError, DataError


# Key in a tokenizer's own options, and so in its tokenizer_config.json, and the values that it can have.
SPELT_OUT = "special_tokens_in_text"
LITERAL, READ = "literal", "read"
PLAIN_TEXT = "a"  # a text without special tokens that every script's tokenizer takes, as an unknown token if need be


class SpeltOut(IntEnum):
    """Ways in which the special tokens that a text spells out are taken."""

    NONE = 0
    AS_TEXT = 1
    AS_TOKENS = 2


@dataclass(frozen=True)
class Frame:
    """Special tokens that a tokenizer puts before and after every text."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)

    def inside(self, ids: Sequence[int]) -> Sequence[int]:
        """Returns the tokens of the text itself."""
        return ids[len(self.prefix) : len(ids) - len(self.suffix)]


@dataclass(frozen=True)
class Encoded:
    """A text's tokens, how many it had before it was cut, and how its special tokens were taken."""

    ids: list[int]
    length: int
    spelt_out: SpeltOut

    @property
    def overlong(self) -> bool:
        """True if the text had more tokens than the limit."""
        return self.length > len(self.ids)


class TextEncoder:
    """
    Encodes the texts of one side.

    A special token by which the tokenizer marks something (padding, start, end, unknown, separator, class, mask) is
    text where a text spells it out, unless the tokenizer says otherwise (`SPELT_OUT`) or cannot do it. Other added
    tokens, such as "<2de>" or a language's, are made to be written into texts, and are always read.

    Args:
        tokenizer: Of the source or of the target.
        limit: Tokens to which longer texts are cut, at the tokenizer's `truncation_side`; None for no limit.
        target: Whether the texts are targets, which multilingual and Marian tokenizers tokenise in another way.
        marks: Ids of other tokens that are text where a text spells them out.

    Raises:
        ArgumentError: The tokenizer has several languages, and none has been chosen.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        limit: int | None = None,
        target: bool = False,
        marks: Iterable[int] = (),
    ):
        self.tokenizer, self.limit, self.target = tokenizer, limit, target
        self.side = "target" if target else "source"
        self.is_read = tokenizer.init_kwargs.get(SPELT_OUT) == READ
        self.marks, self.unknown = marks_of(tokenizer) | {*marks}, tokenizer.unk_token_id
        self.names = special_names(tokenizer)
        self.tags = {*tokenizer.get_added_vocab().values()} - self.marks - {self.unknown}
        self.frame = self.find_frame()

    def __call__(self, texts: Sequence[str]) -> list[Encoded]:
        """
        Encodes texts.

        Raises:
            DataError: The tokenizer cannot cut a text that is too long.
        """
        encoded = list(map(self.literal, texts, self.ids_of(texts)))
        long = [i for i, each in enumerate(encoded) if self.limit is not None and len(each.ids) > self.limit]
        for i in long:
            encoded[i] = self.cut(texts[i], encoded[i])
        if long or any(each.spelt_out for each in encoded):
            # Fast tokenizers keep the options of their last call, and `datasets` hashes them: this resets them.
            self.ids_of([PLAIN_TEXT])
        return encoded

    def ids_of(self, texts: Sequence[str], **options) -> list[list[int]]:
        """Returns the tokenizer's own ids of texts."""
        return self.batch_of(texts, **options)["input_ids"] if texts else []

    def batch_of(self, texts: Sequence[str], **options) -> BatchEncoding:
        """Returns all that the tokenizer itself makes of texts, of which there is one at least."""
        given = {"text_target": list(texts)} if self.target else {"text": list(texts)}
        return self.tokenizer(**given, verbose=False, **options)

    def literal(self, text: str, ids: list[int]) -> Encoded:
        """Returns a text with the special tokens that it spells out as text, if it does and if that can be."""
        holds = self.holds_special(text, ids)
        # Some tokenizers take an end token at the end of a text for the one that they would put there.
        if not self.is_read and (holds or any(name in text for name in self.names)):
            (split,) = self.ids_of([text], split_special_tokens=True)
            if self.is_literal(ids, split):
                return Encoded(split, len(split), SpeltOut.AS_TEXT)
        return Encoded(ids, len(ids), SpeltOut.AS_TOKENS if holds else SpeltOut.NONE)

    def holds_special(self, text: str, ids: list[int]) -> bool:
        """Returns True if a special token stands inside a text; an unknown one only if the text itself has it."""
        inside = self.frame.inside(ids)
        if not self.marks.isdisjoint(inside):
            return True
        return self.unknown in inside and str(self.tokenizer.unk_token) in text

    def unknown_in(self, ids: list[int]) -> int:
        """Returns how many of a text's tokens are unknown ones."""
        return 0 if self.unknown is None else self.frame.inside(ids).count(self.unknown)

    def is_literal(self, ids: list[int], split: list[int]) -> bool:
        """Returns True if a text has lost its special tokens, and none of its tags, by being split."""
        before, after = self.frame.inside(ids), self.frame.inside(split)
        # Spelt-out tokens are longer as text; an unknown one that is not was read all the same.
        is_text = self.marks.isdisjoint(after) and len(after) > len(before)
        return is_text and count_of(self.tags, before) == count_of(self.tags, after)

    def cut(self, text: str, encoded: Encoded) -> Encoded:
        """Returns a text that is too long as the tokenizer cuts it."""
        options = {"split_special_tokens": True} if encoded.spelt_out == SpeltOut.AS_TEXT else {}
        (ids,) = self.ids_of([text], truncation=True, max_length=self.limit, **options)
        if len(ids) > (self.limit or 0):
            raise DataError(
                f"{title_of(self.tokenizer, self.side)} does not truncate: it makes {len(ids)} tokens of "
                f"{text[:60]!r} where {self.limit} were asked for; give one that honours `truncation=True` or "
                "leave longer texts out"
            )
        return Encoded(ids, encoded.length, encoded.spelt_out)

    def find_frame(self) -> Frame:
        """
        Returns the special tokens before and after every text.

        Raises:
            ArgumentError: They depend on a language that has not been chosen.
        """
        option = "tgt_lang" if self.target else "src_lang"
        language = getattr(self.tokenizer, option, "")
        try:
            (ids,) = self.ids_of([PLAIN_TEXT])
        except KeyError:
            if language is not None:
                raise
            ids = None
        # Tokenizers of mBART and NLLB write the source's language there, and take it.
        if ids is None or (language is None and getattr(self.tokenizer, option) is not None):
            setattr(self.tokenizer, option, None)
            raise ArgumentError(
                f"{title_of(self.tokenizer, self.side)} has several languages and no `{option}`: set "
                f"tokenizer.{option} and save it with save_pretrained, or convert the model anew with --{option}"
            )
        (bare,) = self.ids_of([PLAIN_TEXT], add_special_tokens=False)
        starts = (start for start in range(len(ids) - len(bare) + 1) if ids[start : start + len(bare)] == bare)
        first = next(starts, 0)
        last = first + len(bare) if bare else len(ids)
        special = self.marks | self.tags
        # Tokenizers of one's own may add theirs whatever they are told.
        while first < last and ids[first] in special:
            first += 1
        while first < last and ids[last - 1] in special:
            last -= 1
        return Frame(tuple(ids[:first]), tuple(ids[last:]))


def choose_spelt_out(choice: str | None, *tokenizers: PreTrainedTokenizerBase) -> None:
    """Has tokenizers, and what is saved of them, take spelt-out special tokens as chosen; None leaves them."""
    for tokenizer in tokenizers if choice is not None else ():
        tokenizer.init_kwargs[SPELT_OUT] = choice


def title_of(tokenizer: PreTrainedTokenizerBase, side: str) -> str:
    """Returns a tokenizer's name for messages."""
    return f"the {side} tokenizer {tokenizer.name_or_path}".rstrip()


def targets_own_vocabulary(tokenizer: PreTrainedTokenizerBase) -> dict[str, int] | None:
    """Returns the vocabulary of targets in a tokenizer that holds two, as Marian's may; None for one of both sides."""
    return tokenizer.target_encoder if getattr(tokenizer, "separate_vocabs", False) else None


def special_names(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Returns the tokens that a tokenizer marks something with."""
    tokens = (getattr(tokenizer, name) for name in tokenizer.SPECIAL_TOKENS_ATTRIBUTES)
    return sorted({str(token) for token in tokens if token})


def marks_of(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Returns the ids of the tokens that a tokenizer marks something with, but for the unknown one."""
    named = {getattr(tokenizer, f"{name}_id") for name in tokenizer.SPECIAL_TOKENS_ATTRIBUTES}
    return named - {None, tokenizer.unk_token_id}


def count_of(wanted: set[int], ids: Iterable[int]) -> int:
    """Returns how many of the ids are wanted ones."""
    return sum(i in wanted for i in ids)
