# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Finds out by trying what a tokenizer does with texts, before a model learns from it."""

from dataclasses import dataclass
from itertools import cycle, islice

from transformers import PreTrainedTokenizerBase

from ..errors import ArgumentError
from .encoding import PLAIN_TEXT, Frame, SpeltOut, TextEncoder, title_of


# Tokens of the text by which one that draws at random is known, and how often it is split: at a dropout of 0.02 one of
# a few hundred entries, many of them letters, splits two alike in one of eight tries, ten in one of a hundred million.
LONGEST_TOKENS, TRIES = 500, 10
# Made beside ids where a tokenizer's `model_input_names` have it.
MASK = "attention_mask"
# Advice for a tokenizer that does not end its texts.
END_IT = (
    "`hf-xformer tokenizer` makes one that does; for a fast one set `backend_tokenizer.post_processor` "
    "(docs: Tokenizers, The end token) and save it"
)


@dataclass(frozen=True)
class Probe:
    """
    A tokenizer's handling of one side's texts, found out by trying.

    Args:
        name: The tokenizer's, with its side, for messages.
        frame: Special tokens before and after every text.
        framed: The same in words, such as "<s> ... </s>".
        ends: Whether the end token stands behind every text.
        cuts: Whether a text that it truncates keeps its frame.
        draws: Whether it draws at random how it splits a text.
        spelt_out: How each of its own special tokens is taken where a text spells it out.
        padding_side, truncation_side: As it says.
    """

    name: str
    frame: Frame
    framed: str
    ends: bool
    cuts: bool
    draws: bool
    spelt_out: dict[str, SpeltOut]
    padding_side: str
    truncation_side: str


def probe(tokenizer: PreTrainedTokenizerBase, side: str) -> Probe:
    """Probes a tokenizer as that of the "source" or the "target"."""
    encode = TextEncoder(tokenizer, target=side == "target")
    frame = encode.frame
    words = tokenizer.convert_ids_to_tokens
    framed = " ".join([*map(str, words(list(frame.prefix))), "...", *map(str, words(list(frame.suffix)))])
    text = " ".join(["a"] * 8)
    (whole,) = encode.ids_of([text])
    limit = len(frame) + 1
    (short,) = encode.ids_of([text], truncation=True, max_length=limit)
    cuts = len(whole) <= limit or (
        len(short) <= limit and ids_around(frame, short) == (list(frame.prefix), list(frame.suffix))
    )
    draws = len({tuple(ids) for ids in encode.ids_of([many_tokens(tokenizer)] * TRIES)}) > 1
    taken = {token: encode([f"a {token} a"])[0].spelt_out for token in encode.names}
    encode.ids_of([text])
    return Probe(
        title_of(tokenizer, side),
        frame,
        framed,
        tokenizer.eos_token_id is not None and tokenizer.eos_token_id in frame.suffix,
        cuts,
        draws,
        taken,
        tokenizer.padding_side,
        tokenizer.truncation_side,
    )


def many_tokens(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns a text of a vocabulary's longest tokens, over again if they are few, with many ways to be split."""
    vocabulary = tokenizer.get_vocab()
    longest = sorted(vocabulary, key=lambda token: (len(token), token))[-LONGEST_TOKENS:]
    ids = [vocabulary[token] for token in islice(cycle(longest), LONGEST_TOKENS)]
    return str(tokenizer.decode(ids, skip_special_tokens=True)) or PLAIN_TEXT


def ids_around(frame: Frame, ids: list[int]) -> tuple[list[int], list[int]]:
    """Returns as many ids as a frame has, from either end."""
    return ids[: len(frame.prefix)], ids[len(ids) - len(frame.suffix) :]


def check_training(
    source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase, max_source_length: int, max_target_length: int
) -> list[str]:
    """
    Checks that a model can learn from what two tokenizers make of texts, and has them pad behind texts and make masks
    of the padding.

    Returns:
        Lines to say: what the tokenizers do that is not plain to see.

    Raises:
        ArgumentError: A special token is missing, targets would not end, or a limit has no room for a text.
    """
    lines = []
    for side, tokenizer, limit in (("source", source, max_source_length), ("target", target, max_target_length)):
        check_special_tokens(tokenizer, side)
        found = probe(tokenizer, side)
        if problem := why_unfit(found, tokenizer, side):
            raise ArgumentError(problem)
        if limit <= len(found.frame):
            raise ArgumentError(
                f"--max_{side}_length {limit} has no room for a text: {found.name} adds {len(found.frame)} tokens, "
                f"{found.framed}"
            )
        lines += remarks(found, tokenizer)
    for tokenizer in (source, target):
        tokenizer.padding_side = "right"
        if MASK not in tokenizer.model_input_names:
            tokenizer.model_input_names = [*tokenizer.model_input_names, MASK]
    return list(dict.fromkeys(lines))


def describe(source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase) -> list[str]:
    """Returns what should be known of a checkpoint's tokenizers, problems of a training included."""
    lines = []
    for side, tokenizer in (("source", source), ("target", target)):
        try:
            found = probe(tokenizer, side)
        except ArgumentError as error:
            lines.append(str(error))
            continue
        problem = why_unfit(found, tokenizer, side)
        lines += [problem] if problem else remarks(found, tokenizer)
    return lines


def why_unfit(found: Probe, tokenizer: PreTrainedTokenizerBase, side: str) -> str | None:
    """Returns why a model could not learn from a tokenizer, and what to do; None if it can."""
    if side == "target" and not found.ends:
        return no_end(found, tokenizer)
    if found.draws:
        return (
            f"{found.name} draws at random how it splits a text, in decoding too: set "
            "tokenizer.backend_tokenizer.model.dropout = None, or `enable_sampling` to False, and save it with "
            "save_pretrained"
        )
    if not found.cuts:
        return (
            f"{found.name} loses special tokens, {found.framed}, where it truncates: give one that honours "
            "`truncation=True`, or the class of the library that made it"
        )
    return None


def check_special_tokens(tokenizer: PreTrainedTokenizerBase, side: str) -> None:
    """
    Checks that a tokenizer has the special tokens that training needs.

    Raises:
        ArgumentError: It has no padding token, or on the side of targets no end token.
    """
    stand_ins = {"pad_token": "unk_token", "eos_token": "sep_token"}
    for name, stand_in in stand_ins.items():
        if getattr(tokenizer, name) is None and (name == "pad_token" or side == "target"):
            other = getattr(tokenizer, stand_in) or "a token of its vocabulary"
            raise ArgumentError(
                f"{title_of(tokenizer, side)} has no `{name}`: set one, such as "
                f"tokenizer.{name} = {str(other)!r}, and save it with save_pretrained"
            )


def no_end(found: Probe, tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns in words that targets would not end, and what to do."""
    end = f"{tokenizer.eos_token} ({tokenizer.eos_token_id})"
    if tokenizer.eos_token_id is None:
        return f"{found.name} has no `eos_token`: set tokenizer.eos_token and save it with save_pretrained"
    if found.frame.suffix:
        last = tokenizer.convert_ids_to_tokens(found.frame.suffix[-1])
        return (
            f"{found.name} ends texts with {last} and not with its end token {end}, so that a model would never stop: "
            f"set tokenizer.eos_token = {last!r} and save it with save_pretrained"
        )
    return f"{found.name} does not end texts with its end token {end}, so that a model would never stop: {END_IT}"


def remarks(found: Probe, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Returns what should be known of a tokenizer that is not refused."""
    lines = []
    if found.framed != f"... {tokenizer.eos_token}":
        lines.append(f"{found.name} frames each text: {found.framed}")
    if found.padding_side != "right":
        lines.append(f"{found.name} pads before texts; here it pads behind them, and is saved so")
    if found.truncation_side != "right":
        lines.append(f"{found.name} truncates texts at their beginning, as its `truncation_side` says")
    return lines


def check_ids(
    tokenizer: PreTrainedTokenizerBase, vocabulary: dict[str, int], size: int, side: str, field: str
) -> None:
    """
    Checks that each token has an id of its own that the model has too.

    Args:
        vocabulary: The tokenizer's, of this side.
        size: Number of the model's tokens.
        field: Name of that number in its configuration.

    Raises:
        ArgumentError: One has none.
    """
    where = title_of(tokenizer, side)
    first: dict[int, str] = {}
    for token, number in vocabulary.items():
        if (other := first.setdefault(number, token)) != token:
            raise ArgumentError(
                f"{where} gives two tokens, {other!r} and {token!r}, the id {number}: decoding could tell only one of "
                "them; give each an id of its own"
            )
    for token, number in ends_of(vocabulary):
        if not 0 <= number < size:
            raise ArgumentError(
                f"{where} gives {token!r} the id {number}, and the model's `{field}` is {size}: number them from 0 "
                f"without gaps, or give a new model --config_overrides {field}={max(number, size - 1) + 1}"
            )


def ends_of(vocabulary: dict[str, int]) -> list[tuple[str, int]]:
    """Returns the tokens with the lowest and with the highest id."""
    entries = vocabulary.items()
    return [pick(entries, key=lambda entry: entry[1]) for pick in (min, max)] if vocabulary else []
