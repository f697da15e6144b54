# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Tokenizers that cut words as subword-nmt does, by the merges that it has learned (Sennrich et al. 2016).

Texts are split at spaces alone, as those that come with such a file are: they are tokenised and in one case already,
and other white space is a part of words. Of a published `bü@@ sche` a tokenizer makes the same two tokens, from
`büsche`, and decodes them to that.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ..errors import ArgumentError
from .formats import read_lines
from .tokenizers import SPECIALS, UNKNOWN, check_ends, checked, finish, frequent, numbered, pretraining_tokens


WORD_END = "</w>"
VERSION = "#version: 0.2"  # in 0.1 the end of a word was a symbol of its own

Merges = list[tuple[str, str]]


def read_merges(path: Path) -> Merges:
    """
    Reads the file that subword-nmt's `learn-bpe` or `learn-joint-bpe-and-vocab` writes, its "codes".

    Raises:
        ArgumentError: The file is another one, such as of merges of bytes, or of version 0.1.
    """
    first, *lines = [*read_lines(path, "--merges")] or [""]
    if first.strip() != VERSION:
        raise ArgumentError(
            f"--merges {path}: begins with {first[:40]!r}, and a file of subword-nmt with {VERSION!r}; "
            "its versions from 0.3 on write that"
        )
    merges: Merges = []
    for number, line in enumerate(lines, start=2):
        left, _, right = line.partition(" ")
        if line and (not left or not right or " " in right):
            raise ArgumentError(f"--merges {path}:{number}: no two symbols with a space between: {line!r}")
        if line:
            merges.append((left, right))
    if merges and not any(right.endswith(WORD_END) for _, right in merges):
        raise ArgumentError(
            f"--merges {path}: no merge ends a word by {WORD_END}, so that these are no merges of subword-nmt; for "
            "those of bytes, as GPT-2, RoBERTa and BART have them, give their tokenizer as --tokenizer_name"
        )
    return merges


def tokenizer_of_merges(
    texts: Iterable[str],
    merges: Merges,
    max_length: int = 2048,
    added_tokens: Sequence[str] = (),
    sentinels: int = 0,
    mask_token: bool = False,
) -> PreTrainedTokenizerFast:
    """
    Returns a tokenizer of merges that are there, which ends every text with `</s>`.

    Args:
        texts: Training texts, whose characters it knows beside those of the merges; read once.
        max_length, added_tokens, sentinels, mask_token: As `train_tokenizer` has them.

    Raises:
        ArgumentError: `max_length` is below 2, or an added token cannot be one.
        DataError: There is no text.
    """
    check_ends(max_length, added_tokens)
    characters: Counter[str] = Counter()
    for text in checked(texts):
        characters.update(text.replace(" ", ""))
    # The first of two equal merges counts. No text is to have a special token, and so none of them may be merged.
    special = {*SPECIALS, *pretraining_tokens(sentinels, mask_token)}
    merges = [(a, b) for a, b in dict.fromkeys(merges) if special.isdisjoint((a, b, a + b))]
    entries = [*SPECIALS, *(character + end for character in frequent(characters, 1) for end in ("", WORD_END))]
    for left, right in merges:
        entries += [left, right, left + right]
    model = models.BPE(numbered(entries), merges, unk_token=UNKNOWN, end_of_word_suffix=WORD_END)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer.decoder = decoders.BPEDecoder(suffix=WORD_END)
    return finish(tokenizer, max_length, added_tokens, sentinels, mask_token)
